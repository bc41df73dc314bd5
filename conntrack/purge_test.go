package conntrack

import "testing"

func TestPurgeEndsTheConnectionsOfTheGoneAndNoOthers(t *testing.T) {
	tab := newTable(t, 5000, 1)
	for i := range 5000 {
		c := nat(i, i%3 == 0, tcp)
		c.Backend = uint32(i % 7)
		c.OneWay = i%5 == 0
		mustInsert(t, tab, c, syn, 0)
	}
	ended := map[uint32]int{}
	tab.Purge(func(b uint32) bool { return b == 2 || b == 5 }, func(e Ended) { ended[e.Backend]++ })
	want := map[uint32]int{2: 714, 5: 714}
	if len(ended) != 2 || ended[2] != want[2] || ended[5] != want[5] {
		t.Fatalf("ended %v, want %v", ended, want)
	}
	if tab.Len() != 5000-714-714 {
		t.Errorf("%d connections are left", tab.Len())
	}
	for i := range 5000 {
		c := nat(i, i%3 == 0, tcp)
		if gone := i%7 == 2 || i%7 == 5; (find(t, tab, c.Forward) == 0) != gone {
			t.Fatalf("connection %d: gone %v", i, !gone)
		}
	}
	// Their memory is used again.
	tab.Quiesce(0)
	for i := 5000; i < 5000+714+714; i++ {
		mustInsert(t, tab, nat(i, i%3 == 0, tcp), syn, 0)
		tab.Quiesce(0)
	}
}
