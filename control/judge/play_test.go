package judge

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"weir/dataplane/packet/pkttest"
)

// parrot is a balancer that says what it is told to.
type parrot struct {
	out     []Output
	verdict string
	yaml    string
	expired int
}

func (p *parrot) Configure(yaml string, touched *Service, now int64) error { p.yaml = yaml; return nil }
func (p *parrot) Expire(now int64)                                         { p.expired++ }
func (p *parrot) Send(side int, ip []byte, now int64) ([]Output, string, error) {
	return p.out, p.verdict, nil
}

// TestPlay sees every way in which a balancer may differ, and passes what the README of the recordings lets pass.
func TestPlay(t *testing.T) {
	in := pkttest.TCP(from4, to4).SYN()
	hex := func(p pkttest.Packet) string { return fmt.Sprintf("%x", p.Bytes()) }
	server := func(p pkttest.Packet) []Packet {
		return []Packet{{Side: "server", Packet: hex(p), Exact: true, MAC: serverMAC(1)}}
	}
	out := func(side int, p pkttest.Packet) []Output { return []Output{{side, serverMAC(1), p.Bytes()}} }
	unreachable := pkttest.ICMPPortUnreachable(to4.Addr(), from4.Addr(), in.Bytes())
	inner := pkttest.IP(to4.Addr(), from4.Addr(), 4, in.TTL(63).Bytes())
	for _, c := range []struct {
		name    string
		in      pkttest.Packet
		expect  []Packet
		out     []Output
		verdict string
		kind    string // of the difference; "" for none
	}{
		{name: "the same", in: in, expect: server(in.TTL(63)), out: out(Server, in.TTL(63))},
		{name: "another byte", in: in, expect: server(in.TTL(63)), out: out(Server, in.TTL(62)), kind: "bytes differ"},
		{name: "another side", in: in, expect: server(in.TTL(63)), out: out(Client, in.TTL(63)), kind: "another side"},
		{name: "another server", in: in, expect: server(in.TTL(63)), out: []Output{{Server, serverMAC(2), in.TTL(63).Bytes()}}, kind: "another server"},
		{name: "nothing", in: in, expect: server(in), verdict: "no_route", kind: "nothing: no_route"},
		{name: "too much", in: in, out: out(Server, in), verdict: "forwarded", kind: "in addition: forwarded"},
		{name: "a checksum made wrong", in: in, expect: server(in), out: out(Server, in.BadChecksum()), kind: "unsound"},
		{name: "plain routing is the kernel's", in: in, expect: server(in.TTL(63)), verdict: "punted"},
		{name: "an answer with another TTL and IP ID", in: in, expect: []Packet{{Side: "client", Packet: hex(unreachable)}}, out: out(Client, unreachable.TTL(9).ID(3))},
		{name: "an answer that quotes another", in: in, expect: []Packet{{Side: "client", Packet: hex(unreachable)}},
			out: out(Client, pkttest.ICMPPortUnreachable(to4.Addr(), from4.Addr(), in.Seq(5).Bytes())), kind: "quotes differ"},
		{name: "an answer that quotes too little", in: in, expect: []Packet{{Side: "client", Packet: hex(unreachable)}},
			out: out(Client, pkttest.ICMPPortUnreachable(to4.Addr(), from4.Addr(), in.Bytes()[:27])), kind: "only 27 bytes are quoted"},
		{name: "RST for RST", in: in, expect: []Packet{{Side: "client", Packet: hex(pkttest.TCP(to4, from4).RST())}}, out: out(Client, pkttest.TCP(to4, from4).RST().DF())},
		{name: "RST for RST+ACK", in: in, expect: []Packet{{Side: "client", Packet: hex(pkttest.TCP(to4, from4).RST().Ack(1))}},
			out: out(Client, pkttest.TCP(to4, from4).RST()), kind: "TCP headers differ"},
		{name: "a tunnel's IP ID", in: in, expect: []Packet{{Side: "server", Packet: hex(inner)}}, out: out(Server, inner.ID(77))},
		{name: "a tunnel's DF", in: in, expect: []Packet{{Side: "server", Packet: hex(inner)}}, out: out(Server, inner.DF()), kind: "outer TOS, DF or TTL differ"},
		{name: "what is in a tunnel", in: in, expect: []Packet{{Side: "server", Packet: hex(inner)}},
			out: out(Server, pkttest.IP(to4.Addr(), from4.Addr(), 4, in.TTL(62).Bytes())), kind: "inner packets differ"},
		{name: "an ICMPv6 error that the kernel swallows", in: pkttest.ICMPPortUnreachable(to6.Addr(), from6.Addr(), pkttest.UDP(from6, to6).Bytes()).BadChecksum(),
			expect: server(in), verdict: "icmp_checksum"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &Recording{Name: "test", Steps: []Step{{WaitS: 1}, {Send: "client", Packet: hex(c.in), Expect: c.expect}}}
			b := &parrot{out: c.out, verdict: c.verdict}
			err := Play(r, b)
			d := (*Difference)(nil)
			switch {
			case c.kind == "" && err != nil:
				t.Error(err)
			case c.kind != "" && (!errors.As(err, &d) || d.Kind != c.kind || d.Step != 1):
				t.Errorf("got %v, want a difference of kind %q", err, c.kind)
			}
			if b.yaml == "" || b.expired < 10 {
				t.Errorf("configured with %q, %d looks at timeouts in a second", b.yaml, b.expired)
			}
		})
	}
}

// TestPlayFragments compares a datagram in pieces when it is over, however it was cut.
func TestPlayFragments(t *testing.T) {
	p := pkttest.UDP(from4, to4).ID(5).Payload(pattern(100))
	q := pkttest.UDP(from4, netip.MustParseAddrPort("198.18.1.10:80")).ID(5).Payload(pattern(100)).TTL(63)
	in, same, other := p.Cut(5, 24), q.Cut(5, 48, 64), q.TTL(62).Cut(5, 24)
	expect := func(pieces [][]byte) (all []Packet) {
		for _, b := range pieces {
			all = append(all, Packet{Side: "server", Packet: fmt.Sprintf("%x", b), Exact: true})
		}
		return all
	}
	for _, c := range []struct {
		name string
		out  [][][]byte // for each piece that comes in
		kind string
	}{
		{name: "at once", out: [][][]byte{q.Cut(5, 24)[:1], q.Cut(5, 24)[1:]}},
		{name: "cut elsewhere", out: [][][]byte{same[:1], same[1:]}},
		{name: "another datagram", out: [][][]byte{other[:1], other[1:]}, kind: "datagram"},
		{name: "pieces missing", out: [][][]byte{same[:1], nil}, kind: "datagram"},
		{name: "nothing", out: [][][]byte{nil, nil}, kind: "number of datagrams"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &Recording{Name: "test"}
			for i, b := range in {
				s := Step{Send: "client", Packet: fmt.Sprintf("%x", b)}
				if i == len(in)-1 {
					s.Expect = expect(q.Cut(5, 24))
				}
				r.Steps = append(r.Steps, s)
			}
			err := Play(r, &sequence{parrot{verdict: "forwarded"}, c.out})
			d := (*Difference)(nil)
			if c.kind == "" && err != nil || c.kind != "" && (!errors.As(err, &d) || d.Kind != c.kind) {
				t.Errorf("got %v, want kind %q", err, c.kind)
			}
		})
	}
}

// sequence is a parrot that says something else each time.
type sequence struct {
	parrot
	all [][][]byte
}

func (s *sequence) Send(side int, ip []byte, now int64) ([]Output, string, error) {
	s.out = nil
	for _, b := range s.all[0] {
		s.out = append(s.out, Output{Side: Server, IP: b})
	}
	s.all = s.all[1:]
	return s.parrot.Send(side, ip, now)
}
