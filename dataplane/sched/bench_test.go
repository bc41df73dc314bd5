package sched

import (
	"fmt"
	"testing"
)

// filled is a plan of n destinations with mixed weights, and connections on each.
func filled(tb testing.TB, name string, o Options, n int) *Plan {
	dests := make([]Dest, n)
	for i := range dests {
		l := new(Load)
		for range i % 7 {
			l.Bind(i%2 == 0, 0, 0)
		}
		dests[i] = Dest{Load: l, ID: uint32(i), Weight: int32(1 + i%10)}
	}
	p, err := New(name, o, 1, dests)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestScheduleDoesNotAllocate(t *testing.T) {
	for _, d := range disciplines {
		t.Run(fmt.Sprintf("%s %+v", d.name, d.o), func(t *testing.T) {
			older := filled(t, d.name, d.o, 20)
			newer, err := New(d.name, d.o, 2, []Dest{{Load: new(Load), ID: 7, Weight: 2}, {Load: new(Load), ID: 3, Weight: 1}})
			if err != nil {
				t.Fatal(err)
			}
			var s State
			older.Adopt(&s)
			port := uint16(0)
			for _, p := range []*Plan{older, newer, older} { // the first of all, after an edit, by a plan that is behind
				if n := testing.AllocsPerRun(100, func() {
					port++
					f := Flow{SrcPort: port, Dst: [16]byte{15: byte(port)}, V6: true, Now: int64(port) * 1e9}
					if p.Schedule(&s, &f) < 0 {
						t.Error("no destination")
					}
				}); n != 0 {
					t.Errorf("%v allocations for each choice", n)
				}
			}
		})
	}
}

func TestLoadDoesNotAllocate(t *testing.T) {
	l := new(Load)
	if n := testing.AllocsPerRun(100, func() {
		l.Bind(false, 3, 0)
		l.Activate()
		l.Deactivate()
		l.Unbind(false, 3, 0)
	}); n != 0 {
		t.Errorf("%v allocations for each connection", n)
	}
}

// benchmarkName is lc/servers=1000, or sh/flags=1/servers=1000.
func benchmarkName(name string, o Options, n int) string {
	if o.Flags != 0 {
		name += fmt.Sprintf("/flags=%d", o.Flags)
	}
	if o.Slots != 0 {
		name += fmt.Sprintf("/slots=%d", o.Slots)
	}
	if o.Seed != 0 {
		name += "/seed"
	}
	return fmt.Sprintf("%s/servers=%d", name, n)
}

func BenchmarkSchedule(b *testing.B) {
	for _, d := range disciplines {
		for _, n := range []int{4, 1000} {
			b.Run(benchmarkName(d.name, d.o, n), func(b *testing.B) {
				p := filled(b, d.name, d.o, n)
				var s State
				p.Adopt(&s)
				var f Flow
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					f.Src[2], f.Src[3] = byte(i>>8), byte(i)
					f.Dst[3] = byte(i & 63)
					p.Schedule(&s, &f)
				}
			})
		}
	}
}

// BenchmarkConnection is a choice and what follows from it: the connection is bound, becomes active, and one of some other destination ends.
func BenchmarkConnection(b *testing.B) {
	for _, name := range []string{"rr", "lc", "wlc", "sed"} {
		for _, n := range []int{16, 1000} {
			b.Run(fmt.Sprintf("%s/servers=%d", name, n), func(b *testing.B) {
				p := filled(b, name, Options{}, n)
				var s State
				p.Adopt(&s)
				old := make([]int, 1<<12)
				for i := range old {
					old[i] = i % n
					p.dests[i%n].load.Bind(true, 0, 0)
				}
				var f Flow
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					to := p.Schedule(&s, &f)
					p.dests[to].load.Bind(false, 0, 0)
					p.dests[to].load.Activate()
					at := i * 1009 & (len(old) - 1)
					p.dests[old[at]].load.Unbind(true, 0, 0)
					old[at] = to
				}
			})
		}
	}
}

// BenchmarkWorstCase: the heaviest of 1000 destinations is overloaded, so that 65534 levels lie between its weight and what the others offer;
// and all are.
func BenchmarkWorstCase(b *testing.B) {
	for _, free := range []int{1, 0} {
		b.Run(fmt.Sprintf("free=%d", free), func(b *testing.B) {
			dests := make([]Dest, 1000)
			for i := range dests {
				dests[i] = Dest{Load: new(Load), ID: uint32(i), Weight: 1}
				if i >= free {
					dests[i].Load.Bind(false, 1, 0)
				}
			}
			dests[len(dests)-1].Weight = 65535
			p, err := New("wrr", Options{}, 1, dests)
			if err != nil {
				b.Fatal(err)
			}
			var s State
			for b.Loop() {
				p.Schedule(&s, &Flow{})
			}
		})
	}
}

func BenchmarkShared(b *testing.B) {
	for _, name := range []string{"rr", "wlc"} {
		b.Run(name, func(b *testing.B) {
			p := filled(b, name, Options{}, 16)
			var s State
			b.RunParallel(func(pb *testing.PB) {
				var f Flow
				for pb.Next() {
					n := p.Schedule(&s, &f)
					p.dests[n].load.Bind(false, 0, 0)
				}
			})
		})
	}
}
