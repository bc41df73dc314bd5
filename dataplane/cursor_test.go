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

// TestOnePacketTakesNoConnectionsSource: what the server answers to a one-packet service's datagram reaches no client of another service's.
func TestOnePacketTakesNoConnectionsSource(t *testing.T) {
	const pairs = 4
	own, _ := AddrOf(lanIP)
	hidden := func() Backend {
		x := server(netip.AddrPortFrom(web.Addr(), 80), ForwardNAT)
		x.Sources = &Sources{Addrs: []conntrack.Addr{own}, From: 40000, To: 40000 + pairs - 1, Cursor: new(Cursor)}
		return x
	}
	kept, once := netip.MustParseAddrPort("198.18.9.20:80"), netip.MustParseAddrPort("198.18.9.21:80")
	b := newBed(t, serving{vip: kept, protocol: packet.ProtoUDP, servers: []Backend{hidden()}}.option(t),
		serving{vip: once, protocol: packet.ProtoUDP, servers: []Backend{hidden()}, edit: func(s *Service) { s.OnePacket = true }}.option(t))
	for conns := range pairs + 1 {
		for range 2 * pairs {
			out, _ := b.through(false, pkttest.UDP(netip.MustParseAddrPort("198.18.128.99:99"), once).Payload(payload).Bytes())
			if out == nil {
				if conns < pairs || b.dropped() != DropNoLocalPort {
					t.Errorf("with %d of %d pairs taken: dropped as %v", conns, pairs, b.dropped())
				}
				continue
			}
			if conns == pairs {
				t.Errorf("with all pairs taken left as %s", pkttest.String(out))
			}
			source := netip.AddrPortFrom(lanIP, uint16(out[20])<<8|uint16(out[21]))
			if back, _ := b.through(true, pkttest.UDP(netip.AddrPortFrom(web.Addr(), 80), source).Payload(payload).Bytes()); back != nil {
				t.Errorf("with %d of %d pairs taken the answer left as %s", conns, pairs, pkttest.String(back))
			}
		}
		b.now += 1e9
		b.through(false, pkttest.UDP(netip.AddrPortFrom(client.Addr(), uint16(5000+conns)), kept).Bytes())
	}
}
