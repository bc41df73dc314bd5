package steer

import (
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// TestProgramEqualsTwin asks programs and twin about random packets under random rules, which replace one another as on reloads:
// between Add and Remove what both old and new rules take must be taken.
func TestProgramEqualsTwin(t *testing.T) {
	p := loaded(t, testRules(), Options{})
	before := compiled(testRules())
	seen := map[Reason]int{}
	rapid.Check(t, func(rt *rapid.T) {
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
		want, err := imageOf(r, p.slot)
		if err != nil {
			rt.Fatal(err)
		}
		for id := range tables {
			if !maps.Equal(p.held[id], want[id]) {
				rt.Fatalf("%s: held %v, want %v", tables[id].name, p.held[id], want[id])
			}
		}
		for range 20 {
			seen[agree(t, p, c, g.frame())]++
		}
		before = c
	})
	for r := range TakeServerICMP + 1 {
		if seen[r] == 0 {
			t.Errorf("%s never occurred, the packets are too plain: %v", r, seen)
		}
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
		kernel.Beat(monotonic())
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
			a, family := addrOf(s.VIP)
			for _, port := range []uint16{g.port(), rapid.Uint16().Draw(rt, "port")} {
				want := false
				for _, o := range r.Services {
					from, to := o.ports()
					want = want || o.VIP == s.VIP && o.Protocol == s.Protocol && port >= from && port <= to
				}
				if got := c.has(setKey{kindService, family, s.Protocol, a}, port, true); got != want {
					rt.Errorf("%v port %d: %v, want %v", s, port, got, want)
				}
			}
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
