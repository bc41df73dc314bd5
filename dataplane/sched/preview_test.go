package sched

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// foretold is Schedule for the tests that know what must come out, the kernel's recordings among them: Preview says it before, twice the same,
// and what it says is what Schedule does. That the decisions after it are right shows that it has changed nothing.
func foretold(t testing.TB, p *Plan, s *State, f *Flow) int {
	t.Helper()
	first, second := p.Preview(s, f), p.Preview(s, f)
	got := p.Schedule(s, f)
	if !reflect.DeepEqual(first, second) {
		t.Errorf("%s: one preview after the other:\n%+v\n%+v", p.Scheduler(), first, second)
	}
	if first.Chosen != got {
		t.Errorf("%s: the preview chose %d (%s), Schedule %d", p.Scheduler(), first.Chosen, first.Why, got)
	}
	if first.Why == "" || len(first.Candidates) != len(p.dests) {
		t.Errorf("%s: %+v", p.Scheduler(), first)
	}
	return got
}

// TestPreviewSaysWhy looks at the words, and at what they are made of.
func TestPreviewSaysWhy(t *testing.T) {
	for _, x := range []struct {
		scheduler string
		flags     Flags
		weights   []int32
		active    []int // connections that each bears
		chosen    int
		why       string
		costs     []float64
	}{
		{"rr", 0, []int32{1, 1}, []int{0, 0}, 0, "the next usable one behind the one chosen last", nil},
		{"wrr", 0, []int32{3, 1}, []int{0, 0}, 0, "the next one of weight 1 or more; the weight asked for falls by 1 at the list's end, from 3", nil},
		{"lc", 0, []int32{1, 9}, []int{2, 3}, 0, "the lowest 256 x active + inactive, the first of equals", []float64{512, 768}},
		{"wlc", 0, []int32{1, 2}, []int{2, 3}, 1, "the lowest (256 x active + inactive) / weight, the first of equals", []float64{512, 384}},
		{"sed", 0, []int32{1, 2}, []int{0, 0}, 1, "the lowest (active + 1) / weight, the first of equals", []float64{1, 0.5}},
		{"nq", 0, []int32{1, 9}, []int{0, 1}, 0, "the first usable one without active connections", []float64{1, 2. / 9}},
		{"nq", 0, []int32{1, 9}, []int{1, 1}, 1, "none is without active connections: the lowest (active + 1) / weight, the first of equals", []float64{2, 2. / 9}},
		{"fo", 0, []int32{1, 9}, []int{0, 0}, 1, "the highest weight of those that are usable, the first of equals", nil},
		{"ovf", 0, []int32{1, 1}, []int{2, 0}, 1, "the highest weight of those that are usable and have no more active connections than their weight", nil},
		{"sh", 0, []int32{1, 1}, []int{0, 0}, 0, "the owner of bucket 0 of 256, which the client hashes to", nil},
		{"sh", 0, []int32{0, 1}, []int{0, 0}, -1, "destination 1 owns bucket 0 of 256, which the client hashes to, but is not usable, and there is no fallback", nil},
		{"sh", ShFallback, []int32{0, 1}, []int{0, 0}, 1, "destination 1 owns bucket 0 of 256, which the client hashes to, but is not usable: the next place's owner that is", nil},
		{"dh", 0, []int32{1, 1}, []int{0, 0}, 0, "the owner of bucket 0 of 256, which the address asked for hashes to", nil},
		{"mh", 0, []int32{1}, []int{0}, 0, "the owner of slot ", nil},
		{"lblc", 0, []int32{1, 2}, []int{0, 0}, 0, "the cache has no usable one for the address asked for: the lowest (256 x active + inactive) / weight, the first of equals", []float64{0, 0}},
		{"twos", 0, []int32{1}, []int{1}, 0, "two are drawn by weight", []float64{256}},
		{"wlc", 0, []int32{0, 0}, []int{0, 0}, -1, "none is usable: weight 0, or overloaded", []float64{0, 0}},
		{"rr", 0, nil, nil, -1, "the list is empty: servers that are down or drained are not in it", nil},
	} {
		t.Run(fmt.Sprint(x.scheduler, x.weights, x.active), func(t *testing.T) {
			var dests []Dest
			for i, w := range x.weights {
				l := new(Load)
				for range x.active[i] {
					l.Bind(true, 0, 0)
				}
				dests = append(dests, Dest{Load: l, ID: uint32(10 + i), Weight: w})
			}
			p, err := New(x.scheduler, Options{Flags: x.flags}, 1, dests)
			if err != nil {
				t.Fatal(err)
			}
			var s State
			p.Adopt(&s)
			v := p.Preview(&s, &Flow{})
			if v.Chosen != x.chosen || !strings.HasPrefix(v.Why, x.why) || v.Scheduler != x.scheduler {
				t.Errorf("%s chose %d: %s\nwant %d: %s", v.Scheduler, v.Chosen, v.Why, x.chosen, x.why)
			}
			for i, c := range v.Candidates {
				if c.ID != uint32(10+i) || c.Weight != int(x.weights[i]) || c.Active != x.active[i] || c.Inactive != 0 || c.Overloaded {
					t.Errorf("%d: %+v", i, c)
				}
				if weighs := x.costs != nil && x.weights[i] > 0; c.HasCost != weighs || weighs && c.Cost != x.costs[i] {
					t.Errorf("%d costs %v (%t), want %v", i, c.Cost, c.HasCost, x.costs)
				}
			}
			if got := p.Schedule(&s, &Flow{}); got != v.Chosen {
				t.Errorf("Schedule chose %d", got)
			}
		})
	}
}

// TestPreviewSeesTheCache: lblc stays with its server, and leaves it, as it will.
func TestPreviewSeesTheCache(t *testing.T) {
	a, b := new(Load), new(Load)
	p, err := New("lblc", Options{}, 1, []Dest{{Load: a, ID: 1, Weight: 2}, {Load: b, ID: 2, Weight: 2}})
	if err != nil {
		t.Fatal(err)
	}
	var s State
	p.Adopt(&s)
	foretold(t, p, &s, &Flow{})
	for range 2 {
		a.Bind(true, 0, 0)
	}
	if v := p.Preview(&s, &Flow{}); v.Chosen != 0 || v.Why != "the cache has it for the address asked for" {
		t.Errorf("%d: %s", v.Chosen, v.Why)
	}
	a.Bind(true, 0, 0)
	if v := p.Preview(&s, &Flow{}); v.Chosen != 1 || !strings.HasPrefix(v.Why, "the one in the cache has more active connections than its weight") {
		t.Errorf("%d: %s", v.Chosen, v.Why)
	}
	if got := foretold(t, p, &s, &Flow{}); got != 1 {
		t.Errorf("Schedule chose %d", got)
	}
}

// TestPreviewOfManyDestinations: with groups, too, and from a plan that the state does not know yet.
func TestPreviewOfManyDestinations(t *testing.T) {
	loads := make([]Load, 3*groupFrom)
	plan := func(generation uint64, skip int) *Plan {
		var dests []Dest
		for i := range loads {
			if i%7 != skip {
				dests = append(dests, Dest{Load: &loads[i], ID: uint32(i), Weight: int32(1 + i%3)})
			}
		}
		p, err := New("wlc", Options{}, generation, dests)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	var s State
	for generation := range 4 {
		p := plan(uint64(generation+1), generation)
		for range 200 {
			i := foretold(t, p, &s, &Flow{})
			p.dests[i].load.Bind(true, 0, 0)
		}
	}
}
