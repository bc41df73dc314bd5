package conntrack

import "testing"

// Who lists connections for a slow client may still be at it when weir stops.
func TestWhoLooksAtAClosedTableFindsNothing(t *testing.T) {
	const conns = 1000
	tab := newTable(t, conns, 1)
	for n := range conns {
		mustInsert(t, tab, nat(n, false, tcp), syn, 0)
	}
	looked := 0
	tab.Range(0, func(*Info) bool {
		if looked++; looked == 1 {
			if err := tab.Close(); err != nil {
				t.Fatal(err)
			}
		}
		return true
	})
	if looked == 0 || looked > conns/2 {
		t.Errorf("%d connections of %d listed, though the table was closed at the first", looked, conns)
	}
	if n := tab.Delete(0, 0, func(*Info) bool { return true }, func(Ended) {}); n != 0 {
		t.Errorf("%d connections deleted from a closed table", n)
	}
	tab.Purge(func(uint32) bool { return true }, func(Ended) { t.Error("a connection ended in a closed table") })
	if c := nat(1, false, tcp); tab.Find(0, &c.Forward, func(Ref, *Info) {}) {
		t.Error("a connection found in a closed table")
	}
}
