package route

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// TestIntervals asks around a random address: all of what Interval4 or Interval6 returns has the address's route, and what lies next to it is beyond
// an end of some prefix, or has another.
func TestIntervals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6 := rapid.Bool().Draw(t, "v6")
		address := func(label string) netip.Addr {
			if !v6 {
				var b [4]byte
				binary.BigEndian.PutUint32(b[:], rapid.SampledFrom([]uint32{0, 1, 0xc6120000, 0xc612ffff, 0xc6130001, ^uint32(0)}).Draw(t, label))
				return netip.AddrFrom4(b)
			}
			var b [16]byte
			for i := range 2 {
				binary.BigEndian.PutUint64(b[8*i:], rapid.SampledFrom([]uint64{0, 1, 0x20010db8 << 32, 0x20010db8<<32 + 1, ^uint64(0)}).Draw(t, label))
			}
			return netip.AddrFrom16(b)
		}
		var routes []Route
		for range rapid.IntRange(0, 6).Draw(t, "routes") {
			a := address("prefix")
			r := Route{To: netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))}
			if rapid.Bool().Draw(t, "via") {
				r.Hops = []Hop{{Via: netip.MustParseAddr("192.0.2.1"), Weight: 1}}
			} else {
				r.Hops = []Hop{{Weight: 1}}
			}
			routes = append(routes, r)
		}
		table, a := NewTable(routes), address("address")
		entry := lookup(table, a)
		wantVia := entry != nil && entry.Only() != nil && entry.Only().Via.IsValid()
		var first, last netip.Addr
		var via bool
		if v6 {
			b := a.As16()
			hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
			x, v := table.Interval6(hi, lo)
			first, last, via = x.first.addr(), x.last.addr(), v
			for _, n := range []netip.Addr{first, last, a} {
				if b := n.As16(); !x.Has(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])) {
					t.Fatalf("%s is not in %s to %s", n, first, last)
				}
			}
			for _, n := range []netip.Addr{first.Prev(), last.Next()} {
				if !n.IsValid() {
					continue
				}
				if b := n.As16(); x.Has(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])) {
					t.Fatalf("%s is in %s to %s", n, first, last)
				}
			}
		} else {
			b := a.As4()
			f, l, v := table.Interval4(binary.BigEndian.Uint32(b[:]))
			var ends [2][4]byte
			binary.BigEndian.PutUint32(ends[0][:], f)
			binary.BigEndian.PutUint32(ends[1][:], l)
			first, last, via = netip.AddrFrom4(ends[0]), netip.AddrFrom4(ends[1]), v
		}
		if via != wantVia {
			t.Fatalf("%s: via a router: %v, want %v", a, via, wantVia)
		}
		if len(routes) == 0 {
			return
		}
		if a.Less(first) || last.Less(a) {
			t.Fatalf("%s is not between %s and %s", a, first, last)
		}
		for _, n := range []netip.Addr{first, last} {
			if lookup(table, n) != entry {
				t.Fatalf("%s has another route than %s, but is in %s to %s", n, a, first, last)
			}
		}
		for _, r := range routes { // no prefix ends within
			lo := r.To.Masked().Addr()
			if first.Less(lo) && !last.Less(lo) {
				t.Fatalf("%s begins within %s to %s", r.To, first, last)
			}
		}
	})
}

func (a addr6) addr() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	return netip.AddrFrom16(b)
}
