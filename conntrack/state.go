package conntrack

import "time"

// State is where a connection is in its life, in kernel IPVS' own words.
type State uint8

// The states of TCP and those of SCTP stand in the kernel's order. Every other protocol has one state, UDP; Template is that of what is no
// connection.
const (
	None State = iota
	Established
	SynSent
	SynRecv
	FinWait
	TimeWait
	Close
	CloseWait
	LastAck
	Listen
	SynAck
	UDP
	SCTPNone
	SCTPInit1
	SCTPInit
	SCTPCookieSent
	SCTPCookieReplied
	SCTPCookieWait
	SCTPCookie
	SCTPCookieEchoed
	SCTPEstablished
	SCTPShutdownSent
	SCTPShutdownReceived
	SCTPShutdownAckSent
	SCTPRejected
	SCTPClosed
	Template // of persistence, see template.go
	NumStates

	numTCP = UDP
)

var stateNames = [NumStates]string{
	"NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "SYNACK", "UDP",
	"NONE", "INIT1", "INIT", "C-SENT", "C-REPLIED", "C-WAIT", "COOKIE", "C-ECHOED", "ESTABLISHED", "S-SENT", "S-RECEIVED", "S-ACK-SENT",
	"REJECTED", "CLOSED", "TEMPLATE",
}

// String is the state's name as `ipvsadm -Lc` prints it.
func (s State) String() string {
	if s < NumStates {
		return stateNames[s]
	}
	return "ERR!" // the kernel's word for it
}

// Active reports whether kernel IPVS counts a connection in state s as active. Since Linux 4.8 it is not Established alone: those that
// are being opened are active, too (tcp_state_active_table), so that lc and wlc see a burst of new connections. Of SCTP's it is
// SCTPEstablished alone.
func (s State) Active() bool {
	return s == Established || s == SynSent || s == SynRecv || s == SynAck || s == SCTPEstablished
}

// Timeouts are how long a connection lives in each state after its latest packet, in ticks, 1 to [MaxTimeout].
type Timeouts [NumStates]uint32

// DefaultTimeouts are kernel IPVS'. Those of SCTP are built into the kernel: its retransmission timeout's upper limit and a second more
// (RFC 9260 section 16), or an initial one for a client that gives up at once.
func DefaultTimeouts() Timeouts {
	const sctpRTO, sctpShort = 61 * time.Second, 4 * time.Second
	return Timeouts{
		None:        Ticks(2 * time.Second),
		Established: Ticks(900 * time.Second),
		SynSent:     Ticks(120 * time.Second),
		SynRecv:     Ticks(60 * time.Second),
		FinWait:     Ticks(120 * time.Second),
		TimeWait:    Ticks(120 * time.Second),
		Close:       Ticks(10 * time.Second),
		CloseWait:   Ticks(60 * time.Second),
		LastAck:     Ticks(30 * time.Second),
		Listen:      Ticks(120 * time.Second),
		SynAck:      Ticks(120 * time.Second),
		UDP:         Ticks(300 * time.Second),

		SCTPNone:             Ticks(2 * time.Second),
		SCTPInit1:            Ticks(sctpShort),
		SCTPInit:             Ticks(sctpRTO),
		SCTPCookieSent:       Ticks(sctpRTO),
		SCTPCookieReplied:    Ticks(sctpRTO),
		SCTPCookieWait:       Ticks(sctpRTO),
		SCTPCookie:           Ticks(sctpRTO),
		SCTPCookieEchoed:     Ticks(sctpRTO),
		SCTPEstablished:      Ticks(900 * time.Second),
		SCTPShutdownSent:     Ticks(sctpRTO),
		SCTPShutdownReceived: Ticks(sctpRTO),
		SCTPShutdownAckSent:  Ticks(sctpRTO),
		SCTPRejected:         Ticks(sctpShort),
		SCTPClosed:           Ticks(sctpRTO),
		Template:             Ticks(300 * time.Second),
	}
}

// Change is what a packet did to its connection's state.
type Change struct{ Old, New State }
