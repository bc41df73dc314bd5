package dataplane_test

import (
	"net/netip"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// TestSourcesBehindABlockOfTakenOnes: the pairs of more connections than one search tries lie side by side when the cursor comes round to them. The client's
// second SYN, at the latest, is past them.
func TestSourcesBehindABlockOfTakenOnes(t *testing.T) {
	const held, pairs = 5000, 10000
	own, _ := AddrOf(lanIP)
	vip := netip.MustParseAddrPort("198.18.9.20:80")
	cursor := new(Cursor)
	hidden := server(netip.AddrPortFrom(web.Addr(), 80), ForwardNAT)
	hidden.Sources = &Sources{Addrs: []conntrack.Addr{own}, From: 40000, To: 40000 + pairs - 1, Cursor: cursor}
	table, err := conntrack.New(conntrack.Options{Capacity: 2 * held, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	b := newBed(t, serving{vip: vip, servers: []Backend{hidden}}.option(t), func(_ *Snapshot, e *Engine) { e.Table = table })
	syn := func(i int) []byte {
		return pkttest.TCP(netip.AddrPortFrom(client.Addr(), uint16(1024+i)), vip).SYN().Bytes()
	}
	cursor.Seed(0)
	for i := range held {
		if out, _ := b.through(false, syn(i)); out == nil {
			t.Fatalf("connection %d: dropped as %v", i, b.dropped())
		}
	}
	cursor.Seed(0) // it has come round
	b.through(false, syn(held))
	b.now += 1e9
	if out, _ := b.through(false, syn(held)); out == nil {
		t.Errorf("dropped as %v, but %d of %d pairs are free", b.dropped(), pairs-held, pairs)
	}
	b.now += 1e6
	if out, _ := b.through(false, syn(held+1)); out == nil {
		t.Errorf("the next one dropped as %v", b.dropped())
	}
}

// TestSourceOfNoPort: a server to which no port leads, or one without an address, is no matter of local ports.
func TestSourceOfNoPort(t *testing.T) {
	vip := netip.MustParseAddrPort("198.18.9.20:80")
	for _, c := range []struct {
		name, server string
		edit         func(*Snapshot)
	}{
		{"no route", "203.0.113.10", func(*Snapshot) {}},
		{"no address", "198.18.1.10", func(s *Snapshot) { s.Ports[lan].Addresses = nil }},
	} {
		for _, once := range []bool{false, true} {
			x := server(netip.AddrPortFrom(netip.MustParseAddr(c.server), 80), ForwardNAT)
			x.Sources = &Sources{From: 61000, To: 61999, Cursor: new(Cursor)}
			b := newBed(t, serving{vip: vip, protocol: packet.ProtoUDP, servers: []Backend{x}, edit: func(s *Service) { s.OnePacket = once }}.option(t),
				func(s *Snapshot, _ *Engine) { c.edit(s) })
			b.through(false, pkttest.UDP(client, vip).Payload(payload).Bytes())
			if got := b.dropped(); got != DropNoRoute {
				t.Errorf("%s, one-packet %v: dropped as %v, want %v", c.name, once, got, DropNoRoute)
			}
			b.wantCounts(c.name, [3]int{})
		}
	}
}
