package route

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func TestLookupsDoNotAllocate(t *testing.T) {
	routes := []Route{
		{To: netip.MustParsePrefix("0.0.0.0/0"), Hops: []Hop{{Port: 0}, {Port: 1}}},
		{To: netip.MustParsePrefix("::/0"), Hops: []Hop{{Port: 0}}},
	}
	large := NewTable(append(random(rand.New(rand.NewPCG(1, 2)), 6000, false), routes...))
	n := NewNeighbors([]Neighbor{{Addr: netip.MustParseAddr("198.18.0.2"), Valid: true}, {Addr: netip.MustParseAddr("2001:db8::2"), Valid: true}})
	for name, table := range map[string]*Table{"small": NewTable(routes), "large": large} {
		t.Run(name, func(t *testing.T) {
			if got := testing.AllocsPerRun(100, func() {
				if table.Lookup4(0xc6120002).Hop(7) == nil || table.Lookup6(0x20010db8_00000000, 2).Hop(7) == nil {
					t.Error("no hop")
				}
				if n.Lookup4(0, 0xc6120002) == nil || n.Lookup6(0, 0x20010db8_00000000, 2) == nil || n.Lookup4(1, 0xc6120002) != nil {
					t.Error("wrong neighbour")
				}
			}); got != 0 {
				t.Errorf("%v allocations for each packet", got)
			}
		})
	}
}

// sizes are a host's table, a rack's, one that just has an index and the whole Internet's.
var sizes = []int{4, 16, 64, 1 << 12, 1 << 20}

// BenchmarkLookup asks for addresses of the table's own prefixes in random order, 65536 of them: more than a branch predictor learns by heart.
func BenchmarkLookup(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("v6=%v/routes=%d", v6, n), func(b *testing.B) {
				r := rand.New(rand.NewPCG(3, 4))
				routes := random(r, n, v6)
				table := NewTable(routes)
				var ask [1 << 16]netip.Addr
				for i := range ask {
					ask[i] = last(routes[r.IntN(n)].To)
				}
				var hi, lo [1 << 16]uint64
				for i, a := range ask {
					b := a.As16()
					hi[i], lo[i] = binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
				}
				found := 0
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					var e *Entry
					if v6 {
						e = table.Lookup6(hi[i&0xffff], lo[i&0xffff])
					} else {
						e = table.Lookup4(uint32(lo[i&0xffff]))
					}
					if e != nil {
						found++
					}
				}
				if found != b.N {
					b.Errorf("found %d of %d", found, b.N)
				}
			})
		}
	}
}

func BenchmarkNewTable(b *testing.B) {
	for _, n := range []int{16, 1 << 12, 1 << 18} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			routes := random(rand.New(rand.NewPCG(3, 4)), n, false)
			for b.Loop() {
				NewTable(routes)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/route")
		})
	}
}

func BenchmarkHop(b *testing.B) {
	for _, n := range []int{1, 2, 8} {
		b.Run(fmt.Sprintf("hops=%d", n), func(b *testing.B) {
			e := entry(Unicast, make([]int, n)...)
			for i := uint64(0); b.Loop(); i++ {
				e.Hop(i)
			}
		})
	}
}

func BenchmarkNeighbor(b *testing.B) {
	for _, n := range []int{16, 1024} {
		var all []Neighbor
		for i := range n {
			all = append(all, Neighbor{Addr: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), Valid: true})
		}
		table := NewNeighbors(all)
		b.Run(fmt.Sprintf("neighbours=%d", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if table.Lookup4(0, 0xc6120000|uint32(i&(n-1))) == nil {
					b.Fatal("unknown")
				}
			}
		})
	}
}
