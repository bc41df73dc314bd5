package dataplane

import (
	"testing"

	"pgregory.net/rapid"

	"weir/conntrack"
)

// TestStridePassesEveryPair: of any number of addresses and ports, as many in a row as there are, from anywhere, are all of them.
func TestStridePassesEveryPair(t *testing.T) {
	check := func(t rapid.TB, s Sources, start uint64) {
		n := s.pairs()
		step := stride(n)
		seen := make(map[[2]uint64]bool, n)
		for k := range n {
			addr, port := s.pair(start+k, n, step, conntrack.Addr{Lo: 7})
			if port < uint32(s.From) || port > uint32(s.To) {
				t.Fatalf("port %d is not in %d-%d", port, s.From, s.To)
			}
			seen[[2]uint64{addr.Lo, uint64(port)}] = true
		}
		if uint64(len(seen)) != n {
			t.Errorf("%d addresses, ports %d-%d: %d of %d pairs are passed", len(s.Addrs), s.From, s.To, len(seen), n)
		}
	}
	for n := range uint16(200) { // small ones have no room for luck
		check(t, Sources{From: 1, To: 1 + n}, 0)
	}
	check(t, Sources{Addrs: make([]conntrack.Addr, 1), From: 0, To: 65535}, 1<<40)
	rapid.Check(t, func(t *rapid.T) {
		s := Sources{From: rapid.Uint16().Draw(t, "from")}
		s.To = uint16(min(int(s.From)+rapid.IntRange(0, 3000).Draw(t, "span"), 65535))
		for i := range rapid.IntRange(0, 5).Draw(t, "addresses") {
			s.Addrs = append(s.Addrs, conntrack.Addr{Lo: uint64(i)})
		}
		check(t, s, rapid.Uint64Range(0, 1<<62).Draw(t, "start"))
	})
}
