package steer

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"

	"weir/dataplane/packet"
)

// TestProgramEqualsTwin asks programs and twin about random packets under random rules, which replace one another as on reloads:
// between Add and Remove what both old and new rules take must be taken.
func TestProgramEqualsTwin(t *testing.T) {
	p := loaded(t, testRules(), Options{})
	before := compiled(testRules())
	seen := map[Reason]int{}
	missing := func() (all []Reason) {
		for r := range TakeRouted + 1 {
			if seen[r] == 0 {
				all = append(all, r)
			}
		}
		return all
	}
	check := func(rt *rapid.T) {
		g := newGen(rt)
		r := g.rules()
		g.near = r
		c := compiled(r)
		if err := p.Add(r); err != nil {
			rt.Fatal(err)
		}
		for range 4 {
			b := g.frame()
			if tcRuns(b) && twin(t, before, 0, b).Verdict() == Take && twin(t, c, 0, b).Verdict() == Take {
				if _, v := inKernel(t, p, hookXDP, b); v != Take {
					rt.Errorf("between Add and Remove a frame of both is passed: % x", b)
				}
			}
		}
		if _, err := p.Remove(); err != nil {
			rt.Fatal(err)
		}
		want, err := imageOf(r, &p.numbers)
		if err != nil {
			rt.Fatal(err)
		}
		for id := range tables {
			if !slices.Equal(p.held[id], want[id]) {
				rt.Fatalf("%s: held %v, want %v", tables[id].name, p.held[id], want[id])
			}
		}
		for range 20 {
			seen[agree(t, p, c, g.frame())]++
		}
		before = c
	}
	for range 5 { // a reason that is rare may not occur in one run
		if rapid.Check(t, check); len(missing()) == 0 || t.Failed() {
			break
		}
	}
	for _, r := range missing() {
		t.Errorf("%s never occurred, the packets are too plain: %v", r, seen)
	}
}

// FuzzClassify looks for bytes that make the twin panic, or that the program decides otherwise about where it can be asked.
func FuzzClassify(f *testing.F) {
	for _, tt := range packetCases() {
		f.Add(frame(tt.packet))
		f.Add(frame(tt.packet, 7))
	}
	r := testRules()
	c := compiled(r)
	var p *Program
	if kernel, err := Load(Options{Rules: r}); err == nil {
		f.Cleanup(func() { kernel.Close() })
		if err := kernel.Add(r); err != nil {
			f.Fatal(err)
		}
		kernel.Beat(uint64(Now()))
		p = kernel
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 2048 {
			t.Skip("longer than a frame")
		}
		reason := twin(t, c, 1, b)
		if reason >= DroppedNoSocket {
			t.Errorf("reason %d is no decision", reason)
		}
		if p != nil && len(b) >= 14 {
			agree(t, p, c, b)
		}
	})
}

// TestPrefixes compares what a range's prefixes cover with the range.
func TestPrefixes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		from := rapid.Uint16().Draw(rt, "from")
		to := rapid.Uint16Range(from, 65535).Draw(rt, "to")
		ps := prefixes(from, to)
		if len(ps) > 30 {
			rt.Errorf("%d-%d: %d prefixes", from, to, len(ps))
		}
		next := uint32(from) // they must follow one another without gap or overlap
		for _, p := range ps {
			if uint32(p.port) != next || p.bits > 16 || uint32(p.port)&(1<<(16-p.bits)-1) != 0 {
				rt.Fatalf("%d-%d: prefix %d/%d after %d", from, to, p.port, p.bits, next)
			}
			next += 1 << (16 - p.bits)
		}
		if next != uint32(to)+1 {
			rt.Errorf("%d-%d: prefixes end before %d", from, to, next)
		}
	})
	if got := prefixes(0, 65535); len(got) != 1 || got[0] != (prefix{0, 0}) {
		t.Errorf("every port: %v", got)
	}
}

// TestHas compares the twin's sets with a plain walk over the services.
func TestHas(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newGen(rt)
		r := g.rules()
		c := compiled(r)
		for _, s := range r.Services {
			for _, port := range []uint16{g.port(), rapid.Uint16().Draw(rt, "port")} {
				want := false
				for _, o := range r.Services {
					from, to := o.ports()
					want = want || o.VIP.Masked() == s.VIP.Masked() && o.Protocol == s.Protocol && port >= from && port <= to
				}
				if got := c.has(s.key().key(0), port, true); got != want {
					rt.Errorf("%v port %d: %v, want %v", s, port, got, want)
				}
			}
		}
	})
}

// TestLongestMatch compares which services an address has, and whether it is routed, with what netip says of the rules.
func TestLongestMatch(t *testing.T) {
	seen := map[Reason]int{}
	program := loadedOrNot(t)
	rapid.Check(t, func(rt *rapid.T) {
		g := newGen(rt)
		r := g.rules()
		r.Ports = []Port{{Ifindex: loopback, MACs: [][6]byte{ourMAC}}}
		r.NAT, r.VTEPs, r.Servers = nil, nil, nil
		for len(r.Services) < 12 { // deep nests
			a := ip("198.18.9.9")
			r.Services = append(r.Services, Service{netip.PrefixFrom(a, g.intn(33)), packet.ProtoTCP, 80, 80 + uint16(g.intn(3))})
		}
		for len(r.Routed) < 6 {
			r.Routed = append(r.Routed, netip.PrefixFrom(ip("198.18.9.9"), g.intn(32)).Masked())
		}
		c := compiled(r)
		if program != nil {
			if err := errors.Join(program.Add(r), second(program.Remove())); err != nil {
				rt.Fatal(err)
			}
		}
		for range 10 {
			around := draw(g, r.Services).VIP
			if g.intn(2) == 0 {
				around = draw(g, r.Routed)
			}
			dst, port, proto := g.within(around), g.port(), draw(g, []uint8{packet.ProtoTCP, packet.ProtoUDP})
			want := PassOther
			longest := -1
			if slices.Contains(r.Local, dst) {
				want, longest = PassHost, 1000 // longer than all but the address itself
			}
			for _, s := range r.Services {
				rank := s.VIP.Bits()
				if s.VIP.IsSingleIP() {
					rank = 1000
				}
				if s.VIP.Contains(dst) && rank >= longest {
					if rank > longest || want == PassHost {
						want, longest = PassVIP, rank
					}
					from, to := s.ports()
					if s.Protocol == proto && port >= from && port <= to {
						want = TakeService
					}
				}
			}
			for _, p := range r.Routed {
				if p.Contains(dst) && p.Bits() > longest {
					want, longest = TakeRouted, p.Bits()
				}
			}
			in := frame(ipPacket(map[bool]netip.Addr{true: far4, false: far6}[dst.Is4()], dst, layers.IPProtocol(proto), tcpHeader(9, port)))
			got := twin(t, c, 0, in)
			if program != nil {
				got = agree(t, program, c, in)
			}
			if got != want {
				rt.Fatalf("to %s port %d protocol %d: %s, want %s\nlocal %v\nservices %v\nrouted %v", dst, port, proto, got, want, r.Local, r.Services, r.Routed)
			}
			seen[got]++
		}
	})
	for _, r := range []Reason{PassVIP, PassHost, TakeService, TakeRouted} {
		if seen[r] == 0 {
			t.Errorf("%s never occurred: %v", r, seen)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestNumbers gives prefixes numbers and takes them away again: two never have the same one, and none is lost.
func TestNumbers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := newNumbers(Options{})
		names := rapid.SliceOfN(rapid.StringMatching("[a-p]"), 1, 16)
		for range 8 {
			var all []entry
			for _, name := range names.Draw(rt, "keys") {
				key := name + strings.Repeat("\x00", maxKey-1)
				before, known := n.nets[key]
				s, err := n.net(key)
				if err != nil || known && s != before {
					rt.Fatalf("%s has number %d, had %d: %v", key, s, before, err)
				}
				all = append(all, entryOf(s<<slotShift|hostVIP, []byte(key)))
			}
			held := listed(all)
			bearer := map[uint32]string{}
			for key, s := range n.nets {
				if other, twice := bearer[s]; twice {
					rt.Fatalf("%s and %s have number %d", key, other, s)
				}
				bearer[s] = key
			}
			n.keep(held)
			if len(n.nets) != len(held) || len(n.free)+len(held) != int(n.next) || n.next > 32 {
				rt.Fatalf("%d prefixes of %d: free %v, next %d", len(n.nets), len(held), n.free, n.next)
			}
		}
	})
	n := newNumbers(Options{})
	n.next = maxNets
	if _, err := n.net("one"); err == nil {
		t.Error("a number that does not fit was given out")
	}
}

// TestListing compares listings with maps.
func TestListing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		some := rapid.SliceOf(rapid.Custom(func(rt *rapid.T) entry {
			return entryOf(rapid.Uint32Range(1, 7).Draw(rt, ""), rapid.SliceOfN(rapid.ByteRange(0, 2), 1, 3).Draw(rt, ""))
		}))
		asMap := func(l listing) map[[maxKey]byte]uint32 {
			m := map[[maxKey]byte]uint32{}
			for i, e := range l {
				if i > 0 && l[i-1].compare(&e) >= 0 {
					rt.Fatalf("not in order: %v", l)
				}
				m[e.key] = e.value
			}
			return m
		}
		in := some.Draw(rt, "a")
		want := map[[maxKey]byte]uint32{}
		for _, e := range in {
			want[e.key] |= e.value
		}
		a, b := listed(slices.Clone(in)), listed(some.Draw(rt, "b"))
		if got := asMap(a); !maps.Equal(got, want) {
			rt.Fatalf("listed: %v, want %v", got, want)
		}
		sum, rest := maps.Clone(want), maps.Clone(want)
		for _, e := range b {
			sum[e.key] = e.value
			delete(rest, e.key)
		}
		if got := asMap(a.with(b)); !maps.Equal(got, sum) {
			rt.Fatalf("%v with %v: %v, want %v", a, b, got, sum)
		}
		if got := asMap(a.without(b)); !maps.Equal(got, rest) {
			rt.Fatalf("%v without %v: %v, want %v", a, b, got, rest)
		}
	})
}

func TestTable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		small := rapid.Custom(func(rt *rapid.T) key {
			n := rapid.Uint64Range(0, 9)
			return key{n.Draw(rt, ""), n.Draw(rt, ""), n.Draw(rt, "")}
		})
		m := rapid.MapOf(small, rapid.Uint32Min(1)).Draw(rt, "entries")
		table := newTable(m)
		for _, k := range rapid.SliceOf(small).Draw(rt, "asked") {
			if got := table.get(k); got != m[k] {
				rt.Errorf("get(%v) = %d, want %d", k, got, m[k])
			}
		}
		for k, v := range m {
			if got := table.get(k); got != v {
				rt.Errorf("get(%v) = %d, want %d", k, got, v)
			}
		}
	})
}
