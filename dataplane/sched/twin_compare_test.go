package sched

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// pair is a service twice: as a twin, and as plans over one State.
type pair struct {
	t          testing.TB
	twin       twin
	loads      map[uint32]*Load
	state      State
	plan       *Plan
	generation uint64
	now        int64
}

func newPair(t testing.TB, name string, o Options) *pair {
	p := &pair{t: t, twin: twin{scheduler: name, Options: o}, loads: map[uint32]*Load{}}
	p.twin.draw = func(sum uint64) (uint64, uint64) { // what the state is about to draw
		var next State
		next.Seed(p.state.random.Load())
		return next.draw(sum)
	}
	p.edited()
	return p
}

// edited publishes the destinations that the twin has now.
func (p *pair) edited() {
	p.generation++
	dests := make([]Dest, len(p.twin.dests))
	for i, d := range p.twin.dests {
		if p.loads[d.id] == nil {
			p.loads[d.id] = new(Load)
		}
		dests[i] = Dest{Load: p.loads[d.id], ID: d.id, Weight: int32(d.weight), LastWeight: int32(d.lastWeight),
			Addr: netip.AddrFrom4([4]byte{198, 18, 1, byte(d.id)}), Port: 8000}
	}
	plan, err := p.plan.Next(p.twin.scheduler, p.twin.Options, p.generation, dests)
	if err != nil {
		p.t.Fatal(err)
	}
	p.plan = plan
	plan.Adopt(&p.state)
}

// do runs one operation: what to do in b[0], with what in b[1] and b[2].
func (p *pair) do(b []byte) {
	n := len(p.twin.dests)
	var d *twinDest
	at := 0
	if n > 0 {
		at = int(b[1]) % n
		d = p.twin.dests[at]
	}
	switch op := b[0] % 16; {
	case op == 0 && n < 12 || n == 0:
		p.twin.add(&twinDest{id: uint32(p.generation), weight: weightOf(b[2])})
		p.edited()
	case op == 1:
		p.twin.remove(at)
		p.edited()
	case op == 2:
		if d.weight = weightOf(b[2]); d.weight != 0 {
			d.lastWeight = d.weight
		}
		p.twin.changed()
		p.edited()
	case op == 3 && !d.overloaded: // an upper threshold of 1, reached
		d.overloaded, d.inactive = true, d.inactive+1
		p.loads[d.id].Bind(false, 1, 0)
	case op == 4 && d.inactive > 0: // and taken away
		d.overloaded, d.inactive = false, d.inactive-1
		p.loads[d.id].Unbind(false, 0, 0)
	case op == 5 && d.inactive > 0:
		d.active, d.inactive = d.active+1, d.inactive-1
		p.loads[d.id].Activate()
	case op == 6:
		p.now += []int64{1, 59, 61, 7 * 60, 31 * 60, 13 * 3600, 86400, 86401, 10 * 86400}[int(b[1])%9] * 1e9
	case op == 7 && len(p.twin.gone) > 0: // one that was removed comes back, with what it bears
		at = int(b[1]) % len(p.twin.gone)
		d = p.twin.gone[at]
		p.twin.gone = slices.Delete(p.twin.gone, at, at+1)
		d.weight = weightOf(b[2])
		p.twin.add(d)
		p.edited()
	default:
		f := Flow{V6: b[1]&1 != 0, SrcPort: uint16(b[2]), Now: p.now}
		copy(f.Dst[:], []byte{198, 18, 9, b[1] % 5, b[2] % 2}) // the last is no part of an IPv4 address
		copy(f.Src[:], []byte{198, 18, b[1], b[2], b[0], b[1], b[2], b[0]})
		want := p.twin.schedule(&f)
		got := 0
		if b[2]%8 == 0 { // each copies a cache
			got = foretold(p.t, p.plan, &p.state, &f)
		} else {
			got = p.plan.Schedule(&p.state, &f)
		}
		if got != want {
			p.t.Fatalf("%s chooses %d, its twin %d, of %s", p.twin.scheduler, got, want, p)
		}
		if want >= 0 {
			d = p.twin.dests[want]
			d.inactive++
			p.loads[d.id].Bind(false, 0, 0)
		}
	}
	p.compare()
}

// compare asks whether both stand at the same place.
func (p *pair) compare() {
	pos := p.plan.Position(&p.state)
	if want := slices.Index(p.twin.dests, p.twin.cursor); pos.Last != want {
		p.t.Fatalf("%s stands at %d, its twin at %d, of %s", p.twin.scheduler, pos.Last, want, p)
	}
	if pos.Level != p.twin.level {
		p.t.Fatalf("%s is at level %d, its twin at %d, of %s", p.twin.scheduler, pos.Level, p.twin.level, p)
	}
}

func (p *pair) String() string {
	out := ""
	for _, d := range p.twin.dests {
		out += fmt.Sprintf(" {%d weight %d active %d inactive %d overloaded %v}", d.id, d.weight, d.active, d.inactive, d.overloaded)
	}
	return out
}

// weightOf prefers weights that share a divisor, and 0.
func weightOf(b byte) int {
	return []int{0, 1, 2, 3, 4, 6, 8, 12, 40, 100, 300}[int(b)%11]
}

// disciplines are the schedulers with each set of options that changes them.
var disciplines = []struct {
	name string
	o    Options
}{{name: "rr"}, {name: "wrr"}, {name: "lc"}, {name: "wlc"}, {name: "sh"}, {"sh", Options{Flags: ShPort}}, {"sh", Options{Flags: ShFallback}},
	{"sh", Options{Flags: ShPort | ShFallback}}, {"sh", Options{Seed: 1}}, {"sh", Options{Flags: ShPort | ShFallback, Seed: 1 << 63}},
	{name: "dh"}, {name: "mh"}, {"mh", Options{Flags: MhPort}}, {"mh", Options{Flags: MhFallback}}, {"mh", Options{Flags: MhPort | MhFallback}},
	{"mh", Options{Seed: 1}}, {"mh", Options{Flags: MhPort | MhFallback, Seed: 0xc0ffee, Slots: 509}}, {"mh", Options{Slots: 251}},
	{"mh", Options{Flags: MhFallback, Slots: 16381}}, {name: "sed"}, {name: "nq"}, {name: "fo"}, {name: "ovf"}, {name: "lblc"}, {name: "lblcr"},
	{name: "twos"}}

func TestEveryDecisionIsItsTwins(t *testing.T) {
	for _, d := range disciplines {
		t.Run(fmt.Sprintf("%s %+v", d.name, d.o), func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) {
				p := newPair(t, d.name, d.o)
				for range rapid.IntRange(1, 200).Draw(r, "operations") {
					p.do(rapid.SliceOfN(rapid.Byte(), 3, 3).Draw(r, "operation"))
				}
			})
		})
	}
}

func FuzzSchedule(f *testing.F) {
	add, schedule, full := []byte{0, 0, 3}, []byte{9, 9, 9}, []byte{3, 0, 0}
	for i := range disciplines {
		f.Add(uint8(i), slices.Concat(add, add, schedule, schedule, full, schedule, schedule))
		f.Add(uint8(i), slices.Concat(add, []byte{0, 0, 9}, []byte{2, 0, 1}, schedule, []byte{1, 0, 0}, schedule))
		f.Add(uint8(i), slices.Concat(add, full, schedule, schedule, []byte{4, 0, 0}, schedule)) // none, none, one
	}
	f.Fuzz(func(t *testing.T, discipline uint8, operations []byte) {
		d := disciplines[int(discipline)%len(disciplines)]
		p := newPair(t, d.name, d.o)
		for ; len(operations) >= 3; operations = operations[3:] {
			p.do(operations[:3])
		}
	})
}
