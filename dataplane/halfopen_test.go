package dataplane_test

import (
	"net/netip"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
)

// limited gives the bed a table with room for so many connections, so many of them half-open.
func limited(t *testing.T, capacity, halfOpen int) bedOption {
	return func(_ *Snapshot, e *Engine) {
		table, err := conntrack.New(conntrack.Options{Capacity: capacity, Workers: 1, HalfOpen: halfOpen, Secret: [2]uint64{1, 2}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { table.Close() })
		e.Table = table
	}
}

// TestFloodOfSYNs: every SYN goes through, each of an address of its own, within one instant and one vector; who has a connection keeps it, and
// the server's counts are those of what is left.
func TestFloodOfSYNs(t *testing.T) {
	b := newBed(t, limited(t, 1024, 0))
	b.open(client, vip, web)
	flood := netip.MustParseAddr("198.18.200.1")
	const vectors, frames = 20, 200
	for i := range vectors {
		for k := range frames {
			b.fromClient(pkttest.TCP(netip.AddrPortFrom(flood, uint16(1024+i*frames+k)), vip).SYN().Bytes())
		}
		b.round()
		for range frames {
			if b.take(lan) == nil {
				_, drops := b.engine.Verdicts()
				t.Fatalf("vector %d: a SYN did not go through: %d dropped as %v, %d as %v", i, drops[DropHalfOpen], DropHalfOpen, drops[DropTableFull], DropTableFull)
			}
		}
	}
	table, load := b.engine.Table, b.snap.Backends[0].Load
	if table.HalfOpen() != 256 || table.Len() != 257 || table.Evicted() != vectors*frames-256 {
		t.Errorf("%d half-open of %d, %d gave way; want 256, 257, %d", table.HalfOpen(), table.Len(), table.Evicted(), vectors*frames-256)
	}
	b.fromClient(pkttest.TCP(client, vip).Seq(1).Ack(1).Bytes())
	b.round()
	if b.take(lan) == nil {
		t.Error("the connection that was there before is gone")
	}
	b.round() // what gave way is taken out of the counts
	if load.Active() != 257 || load.Inactive() != 0 {
		t.Errorf("active %d inactive %d, want 257 and 0", load.Active(), load.Inactive())
	}
	b.now += 901e9
	b.worker.ExpireAll(b.now)
	if load.Active() != 0 || load.Inactive() != 0 || table.Len() != 0 || table.HalfOpen() != 0 {
		t.Errorf("in the end active %d inactive %d, %d in the table, %d half-open", load.Active(), load.Inactive(), table.Len(), table.HalfOpen())
	}
}

// TestHalfOpenRefused: one half-open connection may be there, and is not found among thousands of others.
func TestHalfOpenRefused(t *testing.T) {
	const others, syns = 4096, 10
	b := newBed(t, limited(t, 2*others, 1))
	for i := range others {
		b.fromClient(pkttest.UDP(netip.AddrPortFrom(client.Addr(), uint16(2000+i)), dns).Bytes())
		b.round()
		b.take(lan)
	}
	for i := range syns {
		b.fromClient(pkttest.TCP(netip.AddrPortFrom(client.Addr(), uint16(2000+i)), vip).SYN().Bytes())
		b.round()
	}
	table, load := b.engine.Table, b.snap.Backends[0].Load
	v, drops := b.engine.Verdicts()
	if n := drops[DropHalfOpen]; n == 0 || n+table.Evicted() != syns-1 || v.Dropped != n {
		t.Errorf("%d dropped as %v of %d, %d gave way, of %d", n, DropHalfOpen, v.Dropped, table.Evicted(), syns)
	}
	b.round()
	if table.HalfOpen() != 1 || table.Len() != others+1 || load.Active() != 1 || load.Inactive() != 0 {
		t.Errorf("%d half-open, %d in all, active %d inactive %d", table.HalfOpen(), table.Len(), load.Active(), load.Inactive())
	}
}
