package route

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// linear is the twin of Table: it asks every route.
func linear(routes []Route, a netip.Addr) *Route {
	var best *Route
	for i := range routes {
		r := &routes[i]
		if !r.To.Contains(a) {
			continue
		}
		if best == nil || r.To.Bits() > best.To.Bits() || r.To.Bits() == best.To.Bits() && r.Metric < best.Metric {
			best = r
		}
	}
	return best
}

func lookup(t *Table, a netip.Addr) *Entry {
	if a.Is4() {
		b := a.As4()
		return t.Lookup4(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return t.Lookup6(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]))
}

// told compares what the table found with what the twin did.
func told(got *Entry, want *Route) error {
	switch {
	case got == nil && want == nil:
		return nil
	case got == nil:
		return fmt.Errorf("found nothing, want %v", want.To)
	case want == nil:
		return fmt.Errorf("found %v, want nothing", got.To())
	case got.To() != want.To.Masked() || got.Metric() != want.Metric || got.Kind != want.Kind:
		return fmt.Errorf("found %v metric %d %v, want %v metric %d %v", got.To(), got.Metric(), got.Kind, want.To, want.Metric, want.Kind)
	}
	return nil
}

func TestLongestPrefix(t *testing.T) {
	table := func(prefixes ...string) (routes []Route) {
		for i, p := range prefixes {
			routes = append(routes, Route{To: netip.MustParsePrefix(p), Metric: i})
		}
		return routes
	}
	tests := []struct {
		name     string
		routes   []Route
		to, want string // want "" is none
	}{
		{"an empty table has no route", nil, "198.18.0.1", ""},
		{"an empty table has no route, IPv6", nil, "2001:db8::1", ""},
		{"the default route takes the lowest address", table("0.0.0.0/0"), "0.0.0.0", "0.0.0.0/0"},
		{"and the highest", table("0.0.0.0/0"), "255.255.255.255", "0.0.0.0/0"},
		{"the IPv6 default route takes the highest address", table("::/0"), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"},
		{"the default route of one family is not the other's", table("0.0.0.0/0"), "2001:db8::1", ""},
		{"longer wins", table("0.0.0.0/0", "198.18.0.0/15", "198.18.1.0/24"), "198.18.1.255", "198.18.1.0/24"},
		{"behind the longer one the shorter goes on", table("0.0.0.0/0", "198.18.0.0/15", "198.18.1.0/24"), "198.18.2.0", "198.18.0.0/15"},
		{"behind both ends at once the default goes on", table("0.0.0.0/0", "198.18.0.0/15", "198.19.255.0/24"), "198.20.0.0", "0.0.0.0/0"},
		{"outside of all there is none", table("198.18.0.0/15"), "198.17.255.255", ""},
		{"host route", table("198.18.0.0/15", "198.18.0.1/32"), "198.18.0.1", "198.18.0.1/32"},
		{"its neighbour", table("198.18.0.0/15", "198.18.0.1/32"), "198.18.0.2", "198.18.0.0/15"},
		{"two halves leave nothing of the whole", table("198.18.0.0/15", "198.18.0.0/16", "198.19.0.0/16"), "198.19.0.0", "198.19.0.0/16"},
		{"the highest host", table("255.255.255.255/32"), "255.255.255.255", "255.255.255.255/32"},
		{"an IPv6 prefix of 64 bits ends with the upper word", table("::/0", "2001:db8::/64"), "2001:db8:0:1::", "::/0"},
		{"one of 65 ends within the lower", table("2001:db8::/64", "2001:db8:0:0:8000::/65"), "2001:db8:0:0:7fff::", "2001:db8::/64"},
		{"a host at the end of the lower word carries into the upper", table("::/0", "2001:db8::ffff:ffff:ffff:ffff/128"), "2001:db8:0:1::", "::/0"},
		{"host bits are ignored", table("198.18.1.77/24"), "198.18.1.1", "198.18.1.0/24"},
		{"IPv4 mapped into IPv6 is IPv4", table("::ffff:198.18.1.0/120"), "198.18.1.1", "198.18.1.0/24"},
		{"an invalid prefix is left out", []Route{{}, {To: netip.MustParsePrefix("198.18.1.0/24")}}, "198.18.1.1", "198.18.1.0/24"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if e := lookup(NewTable(tt.routes), netip.MustParseAddr(tt.to)); e != nil {
				got = e.To().String()
			}
			if got != tt.want {
				t.Errorf("%s goes by %q, want %q", tt.to, got, tt.want)
			}
		})
	}
}

func TestLowerMetricWins(t *testing.T) {
	to := netip.MustParsePrefix("198.18.1.0/24")
	for _, routes := range [][]Route{
		{{To: to, Metric: 20, Kind: Prohibit}, {To: to, Metric: 10, Kind: Blackhole}, {To: to, Metric: 10, Kind: Local}},
		{{To: to, Metric: 10, Kind: Blackhole}, {To: to, Metric: 20, Kind: Prohibit}},
	} {
		if e := NewTable(routes).Lookup4(0xc6120101); e == nil || e.Kind != Blackhole {
			t.Errorf("found %+v, want the first of metric 10, a blackhole", e)
		}
	}
}

// TestTableEqualsItsTwin draws prefixes that nest and touch, among few bits, and asks for the addresses at their edges.
func TestTableEqualsItsTwin(t *testing.T) {
	for _, family := range []struct {
		name string
		bits int
	}{{"IPv4", 32}, {"IPv6", 128}} {
		t.Run(family.name, func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) {
				var routes []Route
				var ask []netip.Addr
				for i := range rapid.IntRange(0, 40).Draw(r, "routes") {
					a := drawAddr(r, family.bits)
					p := netip.PrefixFrom(a, rapid.IntRange(0, family.bits).Draw(r, "length")).Masked()
					routes = append(routes, Route{To: p, Kind: Kind(i % 5), Metric: i}) // no two alike, so that any mistake shows
					ask = append(ask, a, p.Addr(), p.Addr().Prev(), last(p), last(p).Next())
				}
				ask = append(ask, drawAddr(r, family.bits))
				table := NewTable(routes)
				for _, a := range ask {
					if !a.IsValid() || a.BitLen() != family.bits { // before the lowest or behind the highest
						continue
					}
					if err := told(lookup(table, a), linear(routes, a)); err != nil {
						r.Fatalf("%v: %v, of %d routes", a, err, len(routes))
					}
				}
			})
		})
	}
}

// drawAddr draws an address of which each byte is 0, 1, 128 or 255, so that prefixes are alike.
func drawAddr(r *rapid.T, bits int) netip.Addr {
	b := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 128, 255}), bits/8, bits/8).Draw(r, "address")
	a, _ := netip.AddrFromSlice(b)
	return a
}

// last is the highest address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// TestLargeTable is about the index and the sample that large tables have.
func TestLargeTable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, family := range []struct {
		name    string
		bits    int
		extreme []string
	}{{"IPv4", 32, []string{"255.255.255.255/32", "0.0.0.0/32"}}, {"IPv6", 128, []string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "::/128"}}} {
		t.Run(family.name, func(t *testing.T) {
			routes := random(r, 6000, family.bits == 128)
			for i, p := range family.extreme {
				routes = append(routes, Route{To: netip.MustParsePrefix(p), Metric: -i})
			}
			table := NewTable(routes)
			if family.bits == 32 && table.v4.index == nil || family.bits == 128 && table.v6.sample == nil {
				t.Fatal("a table of 6000 routes is searched as a small one")
			}
			for i := range 4000 {
				p := routes[r.IntN(len(routes))].To
				a := [...]netip.Addr{p.Addr(), last(p), p.Addr().Prev(), last(p).Next()}[i%4]
				if !a.IsValid() {
					continue
				}
				if err := told(lookup(table, a), linear(routes, a)); err != nil {
					t.Fatalf("%v: %v", a, err)
				}
			}
			for _, p := range routes[len(routes)-2:] {
				if err := told(lookup(table, p.To.Addr()), &p); err != nil {
					t.Errorf("%v: %v", p.To, err)
				}
			}
		})
	}
}

// random makes n routes to distinct prefixes of the lengths that the Internet has most of, and some shorter.
func random(r *rand.Rand, n int, v6 bool) []Route {
	seen := map[netip.Prefix]bool{}
	var out []Route
	for len(out) < n {
		var p netip.Prefix
		if v6 {
			var b [16]byte
			binary.BigEndian.PutUint64(b[:], 0x2000_0000_0000_0000|r.Uint64()>>3)
			p = netip.PrefixFrom(netip.AddrFrom16(b), []int{29, 32, 40, 44, 48, 48, 48, 64}[r.IntN(8)]).Masked()
		} else {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], r.Uint32())
			p = netip.PrefixFrom(netip.AddrFrom4(b), []int{12, 16, 19, 20, 22, 23, 24, 24, 24, 24}[r.IntN(10)]).Masked()
		}
		if !seen[p] {
			seen[p] = true
			out = append(out, Route{To: p, Hops: []Hop{{Port: len(out) % 4}}, Metric: len(out)})
		}
	}
	return out
}

func FuzzTable(f *testing.F) {
	f.Add([]byte{198, 18, 0, 0, 15, 198, 18, 1, 0, 24, 0, 0, 0, 0, 0}, []byte{198, 18, 1, 7})
	f.Add([]byte{255, 255, 255, 255, 32, 128, 0, 0, 0, 1, 0, 0, 0, 0, 32}, []byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, prefixes, address []byte) {
		if len(address) < 4 || len(prefixes) > 5*200 {
			t.Skip("no address, or more routes than the twin can bear")
		}
		var routes, routes6 []Route
		for ; len(prefixes) >= 5; prefixes = prefixes[5:] {
			a := [4]byte(prefixes)
			routes = append(routes, Route{To: netip.PrefixFrom(netip.AddrFrom4(a), int(prefixes[4])%33).Masked(), Metric: len(routes)})
			routes6 = append(routes6, Route{To: netip.PrefixFrom(widen(a), int(prefixes[4])%129).Masked(), Metric: len(routes6)})
		}
		table := NewTable(append(routes, routes6...))
		a := [4]byte(address)
		if err := told(lookup(table, netip.AddrFrom4(a)), linear(routes, netip.AddrFrom4(a))); err != nil {
			t.Errorf("%v: %v", a, err)
		}
		if err := told(lookup(table, widen(a)), linear(routes6, widen(a))); err != nil {
			t.Errorf("%v: %v", widen(a), err)
		}
	})
}

// widen makes an IPv6 address of a's bytes, each standing for four.
func widen(a [4]byte) netip.Addr {
	var b [16]byte
	for i := range b {
		b[i] = a[i/4]
	}
	return netip.AddrFrom16(b)
}
