package dataplane_test

import (
	"net/netip"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
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
