package conntrack

import (
	"fmt"
	"testing"
)

// next is the naive twin of tcpStates, written from the prose of how kernel IPVS treats each event rather than from its table.
func next(d direction, flags uint8, s State) State {
	in := func(states ...State) bool {
		for _, x := range states {
			if x == s {
				return true
			}
		}
		return false
	}
	switch {
	case flags&rst != 0 && d == output:
		if in(SynSent, TimeWait) {
			return s
		}
		return Close
	case flags&rst != 0:
		if in(SynRecv, LastAck, Listen) || s == SynAck && d == input {
			if s == SynAck {
				return SynRecv
			}
			return s
		}
		return Close
	case flags&syn != 0 && d == output:
		switch {
		case in(SynRecv, SynAck):
			return SynRecv
		case in(Established, Listen):
			return s
		}
		return SynSent
	case flags&syn != 0:
		if in(Established, SynSent) {
			return Established
		}
		return SynRecv
	case flags&fin != 0 && d == output:
		switch {
		case s == Established:
			return FinWait
		case in(None, SynRecv, TimeWait, CloseWait, SynAck):
			return TimeWait
		}
		return s
	case flags&fin != 0:
		switch {
		case s == Established && d == input:
			return CloseWait
		case s == Established:
			return FinWait
		case in(SynRecv, TimeWait, SynAck) || s == FinWait && d == input:
			return TimeWait
		case s == None:
			return Close
		}
		return s
	case flags&ack != 0:
		switch {
		case in(None, SynRecv, SynAck) || s == Listen && d == output:
			return Established
		case s == LastAck && d != output:
			return Close
		}
		return s
	}
	return Close
}

// Every state, direction and combination of flags goes through Track, so what is tested is what a packet does.
func TestEveryTransition(t *testing.T) {
	tab, to := newTable(t, 4, 1), DefaultTimeouts()
	c := nat(1, false, tcp)
	r := mustInsert(t, tab, c, syn, 1000)
	for d := input; d < numDirections; d++ {
		for s := None; s < numTCP; s++ {
			for flags := range 256 {
				name := fmt.Sprintf("direction %d, %v, flags %#02x", d, s, flags)
				keep := wordLive
				if d == inputOnly {
					keep |= wordNoOutput
				}
				*tab.life(r) = uint64(makeWord(s, keep, 0, to[s]))
				ref := r
				if d == output {
					ref = r.Peer()
				}
				got, alive := tab.Track(ref, uint8(flags), &to, 1000)
				want := Change{s, next(d, uint8(flags), s)}
				if !alive || got != want {
					t.Errorf("%s: %v, alive %v, want %v", name, got, alive, want)
				}
				if w := word(*tab.life(r)); w.state() != want.New || w.timeout() != to[want.New] {
					t.Errorf("%s: connection is in %v with timeout %d, want %v with %d", name, w.state(), w.timeout(), want.New, to[want.New])
				}
			}
		}
	}
}

func TestFirstPacket(t *testing.T) {
	for _, c := range []struct {
		name   string
		proto  uint8
		flags  uint8
		oneWay bool
		want   State
	}{
		{"SYN", tcp, syn, false, SynRecv},
		{"SYN of a one-way connection", tcp, syn, true, SynRecv},
		{"ACK in the middle (sloppy_tcp)", tcp, ack, false, Established},
		{"data in the middle of a one-way connection", tcp, ack | 8, true, Established},
		{"FIN", tcp, fin | ack, false, Close},
		{"RST wins over SYN", tcp, rst | syn, false, Close},
		{"no flag", tcp, 0, false, Close},
		{"UDP", udp, 0, false, UDP},
	} {
		for _, v6 := range []bool{false, true} {
			tab, to := newTable(t, 1, 1), DefaultTimeouts()
			conn := nat(1, v6, c.proto)
			conn.OneWay = c.oneWay
			r, s, o := tab.Insert(0, &conn, c.flags, &to, 5)
			if o != Inserted || s != c.want || tab.State(r) != c.want {
				t.Errorf("%s: %v in %v, want %v", c.name, o, s, c.want)
			}
			if ch, alive := tab.Track(r, c.flags, &to, 5); !alive || ch != (Change{c.want, c.want}) {
				t.Errorf("%s: Track of the first packet: %v, alive %v; want no further change", c.name, ch, alive)
			}
			tab.Range(5, func(i *Info) bool {
				if i.InPackets != 1 || i.OutPackets != 0 {
					t.Errorf("%s: counted %d and %d packets, want the first one once", c.name, i.InPackets, i.OutPackets)
				}
				return true
			})
		}
	}
}

// A server that is seen after all ends INPUT_ONLY (the kernel clears IP_VS_CONN_F_NOOUTPUT).
func TestOutputEndsInputOnly(t *testing.T) {
	tab, to := newTable(t, 1, 1), DefaultTimeouts()
	c := nat(1, false, tcp)
	c.OneWay = true
	r := mustInsert(t, tab, c, syn, 0)
	tab.Track(r.Peer(), syn|ack, &to, 0)
	tab.Track(r, ack, &to, 0)
	if ch, _ := tab.Track(r, fin|ack, &to, 0); ch.New != CloseWait {
		t.Errorf("FIN of the client leads to %v, want CLOSE_WAIT, as in the INPUT table", ch.New)
	}
}

func TestStateNames(t *testing.T) {
	want := []string{"NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "SYNACK", "UDP",
		"NONE", "INIT1", "INIT", "C-SENT", "C-REPLIED", "C-WAIT", "COOKIE", "C-ECHOED", "ESTABLISHED", "S-SENT", "S-RECEIVED", "S-ACK-SENT",
		"REJECTED", "CLOSED", "TEMPLATE", "ERR!"}
	for s, name := range want {
		if got := State(s).String(); got != name {
			t.Errorf("State(%d) = %s, want %s", s, got, name)
		}
	}
}
