package conntrack

import "time"

// State is where a connection is in its life, in kernel IPVS' own words.
type State uint8

// The states of TCP stand in the kernel's order, which tcp.go's tables have too. Every protocol but TCP has one state, UDP; Template is that of what is no connection.
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
	Template // of persistence, see template.go
	NumStates

	numTCP = UDP
)

var stateNames = [NumStates]string{
	"NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "SYNACK", "UDP", "TEMPLATE",
}

// String is the state's name as `ipvsadm -Lc` prints it.
func (s State) String() string {
	if s < NumStates {
		return stateNames[s]
	}
	return "ERR!" // the kernel's word for it
}

// Active reports whether kernel IPVS counts a connection in state s as active. Since Linux 4.8 it is not Established alone: those that
// are being opened are active, too (tcp_state_active_table), so that lc and wlc see a burst of new connections.
func (s State) Active() bool {
	return s == Established || s == SynSent || s == SynRecv || s == SynAck
}

// Timeouts are how long a connection lives in each state after its latest packet, in ticks, 1 to [MaxTimeout].
type Timeouts [NumStates]uint32

// DefaultTimeouts are kernel IPVS'.
func DefaultTimeouts() Timeouts {
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
		Template:    Ticks(300 * time.Second),
	}
}

// Change is what a packet did to its connection's state.
type Change struct{ Old, New State }
