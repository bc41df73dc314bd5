package conntrack

// direction picks a table.
type direction uint8

const (
	input     direction = iota // from the client
	output                     // from the server
	inputOnly                  // from the client, of a connection whose server has not been seen
	numDirections
)

// steps is the state after a packet, by direction, event byte and state before: the tables of tcp.go and sctp.go side by side, so that a
// packet costs one load whether it is TCP or SCTP. A state belongs to one protocol, and so does a connection: no column is reached
// with another's event byte. All three dimensions are powers of two, so that an index needs a mask and no check.
var steps = func() (t [4][32][32]State) {
	for d := range numDirections {
		for e := range t[d] {
			row := &t[d][e]
			for s := range row {
				row[s] = State(s)
			}
			for s := None; s < numTCP; s++ {
				row[s] = tcpStates[d][events[e]][s]
			}
			for s := SCTPNone; s <= SCTPClosed; s++ {
				row[s] = sctpStep(d, uint8(e), s)
			}
		}
	}
	return t
}()

// step is the state after a packet. event is byte 13 of a TCP header, or the chunks of an SCTP packet as sctp.go has them; that of others
// does not matter.
func (s State) step(d direction, event uint8) State {
	if s == UDP {
		return s // the commonest, without waiting for the load
	}
	return steps[d&3][event&31][s&31]
}

// steady has, by direction (input or output) and event byte, a bit for each state that such a packet leaves as it is.
var steady = func() (t [2][32]uint32) {
	for d := range t {
		for e := range t[d] {
			for s := range NumStates {
				if s.step(direction(d), uint8(e)) == s {
					t[d][e] |= 1 << s
				}
			}
		}
	}
	return t
}()
