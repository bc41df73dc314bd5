package dataplane_test

import (
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/route"
)

// TestHairpinOverSeveralHops: where clients are reached by several ports, one of them the server's, a client's connections are masqueraded, all of them: some
// answer would pass us by.
func TestHairpinOverSeveralHops(t *testing.T) {
	prefix := netip.MustParsePrefix
	hops := []route.Hop{{Via: router, Port: wan, Weight: 1}, {Via: netip.MustParseAddr("198.18.1.254"), Port: lan, Weight: 1}}
	vip := netip.MustParseAddrPort("198.18.9.20:80")
	hidden := server(netip.AddrPortFrom(web.Addr(), 80), ForwardNAT)
	hidden.Sources = &Sources{From: 61000, To: 61999, Cursor: new(Cursor), When: MasqueradeHairpin}
	b := newBed(t, serving{vip: vip, servers: []Backend{hidden}}.option(t), func(s *Snapshot, _ *Engine) {
		s.Routes = route.NewTable([]route.Route{
			{To: prefix("198.18.0.0/24"), Hops: []route.Hop{{Port: wan, Weight: 1}}},
			{To: prefix("198.18.1.0/24"), Hops: []route.Hop{{Port: lan, Weight: 1}}},
			{To: prefix("198.18.128.0/17"), Hops: hops},
		})
	})
	masqueraded, clients := 0, 32
	for i := range clients {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 128, byte(i + 1)}), 4000)
		out, _ := b.through(false, pkttest.TCP(from, vip).SYN().Bytes())
		if out == nil {
			t.Fatalf("dropped as %v", b.dropped())
		}
		if [4]byte(out[12:16]) == lanIP.As4() {
			masqueraded++
		}
	}
	if masqueraded != clients {
		t.Errorf("%d of %d connections masqueraded, want all", masqueraded, clients)
	}
}
