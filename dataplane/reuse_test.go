package dataplane_test

import (
	"fmt"
	"net/netip"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
)

// TestReuse: a SYN on a connection that is there. conn_reuse_mode 0 leaves it there; 1 opens a new one where it is over; 2 and 3 also where the
// client has said FIN and of the server nothing was seen, which is all that direct routing shows of one that is over.
func TestReuse(t *testing.T) {
	a := families["v4"]
	c, s := pkttest.TCP(a.client, a.vip), pkttest.TCP(a.web, a.client)
	type from struct {
		p      pkttest.Packet
		server bool
	}
	opened := []from{{c.SYN(), false}, {s.SYN().Ack(1), true}, {c.Ack(1), false}}
	for _, x := range []struct {
		name  string
		way   Forward
		in    []from
		state conntrack.State
		fresh [4]bool // by mode: is a new connection opened?
	}{
		{"SYN_RECV", ForwardNAT, opened[:1], conntrack.SynRecv, [4]bool{}},
		{"ESTABLISHED", ForwardNAT, opened, conntrack.Established, [4]bool{}},
		{"CLOSE_WAIT", ForwardNAT, append(opened[:3:3], from{c.FIN().Ack(1), false}), conntrack.CloseWait, [4]bool{}},
		{"FIN_WAIT of which the server was seen", ForwardNAT, append(opened[:3:3], from{s.FIN().Ack(1), true}), conntrack.FinWait, [4]bool{}},
		{"FIN_WAIT of which it was not", ForwardDR, []from{opened[0], opened[2], {c.FIN().Ack(1), false}}, conntrack.FinWait, [4]bool{2: true, 3: true}},
		{"FIN_WAIT in a tunnel", ForwardIPIP, []from{opened[0], opened[2], {c.FIN().Ack(1), false}}, conntrack.FinWait, [4]bool{2: true, 3: true}},
		{"TIME_WAIT", ForwardNAT, append(opened[:3:3], from{s.FIN().Ack(1), true}, from{c.FIN().Ack(2), false}), conntrack.TimeWait, [4]bool{1: true, 2: true, 3: true}},
		{"CLOSE", ForwardNAT, append(opened[:3:3], from{c.RST(), false}), conntrack.Close, [4]bool{1: true, 2: true, 3: true}},
		{"CLOSE by the server", ForwardNAT, append(opened[:3:3], from{s.RST().Ack(1), true}), conntrack.Close, [4]bool{1: true, 2: true, 3: true}},
		{"CLOSE one way", ForwardDR, []from{opened[0], opened[2], {c.RST(), false}}, conntrack.Close, [4]bool{1: true, 2: true, 3: true}},
	} {
		for mode, fresh := range x.fresh {
			t.Run(fmt.Sprintf("%s, mode %d", x.name, mode), func(t *testing.T) {
				service := serving{vip: a.vip, servers: []Backend{server(a.web, x.way), server(netip.AddrPortFrom(a.second, a.web.Port()), x.way)}}
				for i := range service.servers {
					service.servers[i].ReuseMode = uint32(mode)
				}
				b := newBed(t, service.option(t))
				for _, p := range x.in {
					if out, _ := b.through(p.server, p.p.Bytes()); out == nil {
						t.Fatalf("%s: dropped as %v", p.p, b.dropped())
					}
				}
				if got := b.state(); got != x.state {
					t.Fatalf("state %v, want %v", got, x.state)
				}
				out, _ := b.through(false, c.SYN().Seq(1e6).Bytes())
				if out == nil {
					t.Fatalf("the SYN was dropped as %v", b.dropped())
				}
				if got := b.sum(1).Conns == 1; got != fresh || b.sum(0).Conns != 1 {
					t.Errorf("a new connection, at the next server: %v, want %v", got, fresh)
				}
				b.state() // one it is in any case
				b.drain()
				b.wantCounts("in the end", [3]int{}, [3]int{})
			})
		}
	}
}
