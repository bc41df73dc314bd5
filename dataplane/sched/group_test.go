package sched

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

var weighing = []string{"lc", "wlc", "sed", "nq"}

// walk is what the kernel does: it looks at every destination.
func (p *Plan) walk() int {
	b := p.lightest(0, len(p.dests))
	return b.choice(p.kind)
}

// TestGroupsChooseAsTheWalk: whatever happens to loads and lists, groups come to the destination that a walk over all comes to. Loads are small, so
// that most choices are between equals.
func TestGroupsChooseAsTheWalk(t *testing.T) {
	for _, name := range weighing {
		for seed := range uint64(8) {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				type backend struct {
					Dest
					active, inactive int
				}
				var all, live []*backend
				generation := uint64(0)
				plans := []*Plan{nil, nil} // the older one and the newest
				var states [2]State        // of the service, and of another that takes some of its servers over
				reload := func() {
					live = live[:0]
					for _, b := range all {
						if rng.IntN(16) > 0 {
							live = append(live, b)
						}
					}
					dests := make([]Dest, len(live))
					for i, b := range live {
						if b.Weight = int32(rng.IntN(4)); b.Weight > 0 {
							b.LastWeight = b.Weight
						}
						dests[i] = b.Dest
					}
					generation++
					p, err := plans[1].Next(name, Options{}, generation, dests)
					if err != nil {
						t.Fatal(err)
					}
					plans = []*Plan{plans[1], p}
					p.Adopt(&states[0])
				}
				for i := range groupFrom + 8 + rng.IntN(200) {
					all = append(all, &backend{Dest: Dest{ID: uint32(i), Load: new(Load)}})
				}
				reload()
				reload()
				if len(plans[1].groups) == 0 {
					t.Fatal("no groups: the test shows nothing")
				}
				seen := map[int]bool{}
				for step := range 4000 {
					b := live[rng.IntN(len(live))]
					switch op := rng.IntN(100); {
					case op < 25 && b.inactive > 0:
						b.Load.Activate()
						b.active, b.inactive = b.active+1, b.inactive-1
					case op < 35 && b.active > 0:
						b.Load.Deactivate()
						b.active, b.inactive = b.active-1, b.inactive+1
					case op < 50 && b.inactive > 0:
						b.Load.Unbind(false, uint32(rng.IntN(3)), 0)
						b.inactive--
					case op < 60 && b.active > 0:
						b.Load.Unbind(true, uint32(rng.IntN(3)), 1)
						b.active--
					case op < 65:
						b.Load.BindTemplate(uint32(rng.IntN(3)), 0)
					case op < 70:
						b.Load.Rethreshold(1, 0)
					case op == 70 && step%8 == 0:
						reload()
					case op == 71 && step%16 == 0: // some servers become another service's, the plan that is there still has them, too
						var dests []Dest
						for _, b := range live[:groupFrom] {
							dests = append(dests, b.Dest)
						}
						generation++
						p, err := New(name, Options{}, generation, dests)
						if err != nil {
							t.Fatal(err)
						}
						p.Adopt(&states[1])
					}
					for i, p := range plans {
						got, want := p.Schedule(&states[0], &Flow{}), p.walk()
						if got != want {
							t.Fatalf("step %d, plan %d: destination %d, the walk comes to %d", step, i, got, want)
						}
						if i == 1 && got >= 0 {
							seen[got] = true
							d := live[got]
							d.Load.Bind(false, uint32(rng.IntN(40)), 0)
							d.inactive++
						}
					}
				}
				if len(seen) < len(live)/8 && name != "sed" && name != "nq" {
					t.Errorf("only %d of %d destinations were ever chosen", len(seen), len(live))
				}
			})
		}
	}
}

// TestGroupsOfWorkers: workers choose, bind and unbind at once. In the end, when all is quiet, no group has an old view.
func TestGroupsOfWorkers(t *testing.T) {
	for _, name := range weighing {
		p := filled(t, name, Options{}, 200)
		var s State
		p.Adopt(&s)
		for round := range 50 {
			var wg sync.WaitGroup
			for w := range 4 {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(round), uint64(w)))
					for range 50 {
						i := p.Schedule(&s, &Flow{})
						if i < 0 {
							t.Errorf("%s: no destination", name)
							return
						}
						l := p.dests[i].load
						l.Bind(false, 0, 0)
						l.Activate()
						if rng.IntN(2) == 0 {
							l.Unbind(true, 0, 0)
						}
					}
				})
			}
			wg.Wait()
			for range 5 {
				got, want := p.Schedule(&s, &Flow{}), p.walk()
				if got != want {
					t.Fatalf("%s, round %d: destination %d, the walk comes to %d", name, round, got, want)
				}
				p.dests[got].load.Bind(true, 0, 0)
			}
		}
	}
}
