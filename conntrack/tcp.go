package conntrack

// The TCP state machine of kernel IPVS (net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_states), which believes every packet that it sees. It is
// looser than RFC 9293: it sees sequence numbers of neither side, and of DR and tunnels only the client's half of the talk.

// event is the one flag of a segment that counts.
type event uint8

const (
	eventSyn event = iota
	eventFin
	eventAck
	eventRst
	eventNone // none of the four: the kernel closes the connection
	numEvents
)

// events is the event of a segment by its flags FIN 1, SYN 2, RST 4 and ACK 16: RST before SYN before FIN before ACK.
var events = func() (e [32]event) {
	for flags := range e {
		switch {
		case flags&4 != 0:
			e[flags] = eventRst
		case flags&2 != 0:
			e[flags] = eventSyn
		case flags&1 != 0:
			e[flags] = eventFin
		case flags&16 != 0:
			e[flags] = eventAck
		default:
			e[flags] = eventNone
		}
	}
	return e
}()

// Short names as in the kernel, so that the tables can be laid beside each other.
const (
	sNO, sES, sSS, sSR, sFW, sTW = None, Established, SynSent, SynRecv, FinWait, TimeWait
	sCL, sCW, sLA, sLI, sSA      = Close, CloseWait, LastAck, Listen, SynAck
)

var tcpStates = [numDirections][numEvents][numTCP]State{
	input: {
		//         sNO, sES, sSS, sSR, sFW, sTW, sCL, sCW, sLA, sLI, sSA
		eventSyn:  {sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSR},
		eventFin:  {sCL, sCW, sSS, sTW, sTW, sTW, sCL, sCW, sLA, sLI, sTW},
		eventAck:  {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES},
		eventRst:  {sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sSR},
		eventNone: {sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL},
	},
	output: {
		//         sNO, sES, sSS, sSR, sFW, sTW, sCL, sCW, sLA, sLI, sSA
		eventSyn:  {sSS, sES, sSS, sSR, sSS, sSS, sSS, sSS, sSS, sLI, sSR},
		eventFin:  {sTW, sFW, sSS, sTW, sFW, sTW, sCL, sTW, sLA, sLI, sTW},
		eventAck:  {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sLA, sES, sES},
		eventRst:  {sCL, sCL, sSS, sCL, sCL, sTW, sCL, sCL, sCL, sCL, sCL},
		eventNone: {sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL},
	},
	inputOnly: {
		//         sNO, sES, sSS, sSR, sFW, sTW, sCL, sCW, sLA, sLI, sSA
		eventSyn:  {sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSR},
		eventFin:  {sCL, sFW, sSS, sTW, sFW, sTW, sCL, sCW, sLA, sLI, sTW},
		eventAck:  {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES},
		eventRst:  {sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL},
		eventNone: {sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL},
	},
}
