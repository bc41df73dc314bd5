package sched

import (
	"testing"
	"time"
)

// small is a service with a cache of few entries and two destinations, A with the most weight.
type small struct {
	service
	plan *Plan
	now  time.Duration
}

func newSmall(t *testing.T, scheduler, dests string, entries, members int) *small {
	s := &small{service: service{t: t}}
	s.plan = s.service.plan(scheduler, dests)
	s.plan.Adopt(&s.state)
	s.state.cache = newCacheOf(entries, members)
	return s
}

// ask is a connection to 198.18.9.n at s.now; it returns the destination's letter.
func (s *small) ask(n int) string {
	i := foretold(s.t, s.plan, &s.state, &Flow{Dst: [16]byte{198, 18, byte(n >> 8), byte(n)}, Now: int64(s.now)})
	s.check()
	if i < 0 {
		return "-"
	}
	return string(rune(s.plan.dests[i].id))
}

func (s *small) knows(n int) bool {
	return s.state.cache.find(&Flow{Dst: [16]byte{198, 18, byte(n >> 8), byte(n)}}) != nil
}

// check asks whether every entry and every member is either in use or free, once.
func (s *small) check() {
	s.t.Helper()
	c := s.state.cache
	entries, members := map[int32]bool{}, map[int32]bool{}
	add := func(m map[int32]bool, at int32) {
		if m[at] {
			s.t.Fatalf("%d stands twice", at)
		}
		m[at] = true
	}
	for _, at := range c.buckets {
		for ; at != 0; at = c.entries[at-1].next {
			add(entries, at)
			size := int32(0)
			for m := c.entries[at-1].first; m != 0; m = c.members[m-1].next {
				add(members, m)
				size++
			}
			if size == 0 || size != c.entries[at-1].size {
				s.t.Fatalf("a set of %d members says it has %d", size, c.entries[at-1].size)
			}
		}
	}
	if len(entries) != int(c.count) {
		s.t.Fatalf("%d entries, %d are counted", len(entries), c.count)
	}
	for at := c.freeEntry; at != 0; at = c.entries[at-1].next {
		add(entries, at)
	}
	for at := c.freeMember; at != 0; at = c.members[at-1].next {
		add(members, at)
	}
	if len(entries) != int(c.freshEntry) || len(members) != int(c.freshMember) {
		s.t.Fatalf("%d entries and %d members of %d and %d are accounted for", len(entries), len(members), c.freshEntry, c.freshMember)
	}
}

func TestFullCacheServesWithoutRemembering(t *testing.T) {
	for _, scheduler := range []string{"lblc", "lblcr"} {
		t.Run(scheduler, func(t *testing.T) {
			s := newSmall(t, scheduler, "A1 B1", 10, 10)
			for n := range 13 {
				if got := s.ask(n); got != "A" {
					t.Fatalf("address %d goes to %s", n, got)
				}
			}
			if !s.knows(9) || s.knows(10) || s.state.cache.refused != 3 {
				t.Errorf("knows the last of ten %v, the eleventh %v; %d refused", s.knows(9), s.knows(10), s.state.cache.refused)
			}
			// Three too many: the next look drops four that have been idle for six minutes, in whole buckets. The tenth is in use.
			s.now = 6*time.Minute - time.Second
			s.ask(9)
			if s.state.cache.count != 10 {
				t.Errorf("%d addresses left after a look before six minutes, want all 10", s.state.cache.count)
			}
			s.ask(10)
			s.now = 7 * time.Minute
			s.ask(9)
			if got := s.state.cache.count; got != 9 { // one refused since the last look: 1*4/3
				t.Errorf("%d addresses left, want 9", got)
			}
			if s.ask(11); !s.knows(11) || !s.knows(9) {
				t.Errorf("knows a new one %v, the one in use %v", s.knows(11), s.knows(9))
			}
		})
	}
}

func TestCacheForgetsAfterADay(t *testing.T) {
	s := newSmall(t, "lblc", "A1 B1", 10, 10)
	s.ask(1)
	s.now = time.Hour
	s.ask(2)
	s.now = 24*time.Hour - time.Second
	s.ask(3)
	if !s.knows(1) {
		t.Error("forgotten before a day was over")
	}
	s.now = 24*time.Hour + 30*time.Minute
	s.ask(3)
	if s.knows(1) || !s.knows(2) || !s.knows(3) {
		t.Errorf("knows the first %v, the second %v, the third %v", s.knows(1), s.knows(2), s.knows(3))
	}
	s.now += 100 * 365 * 24 * time.Hour
	if s.ask(4); s.knows(3) || !s.knows(4) {
		t.Errorf("after a century it knows the third %v, the new one %v", s.knows(3), s.knows(4))
	}
}

// TestSetWithoutRoom: an address keeps the members it has when there is no room for more.
func TestSetWithoutRoom(t *testing.T) {
	s := newSmall(t, "lblcr", "A1 B9", 10, 1)
	s.loads[0].Bind(false, 0, 0)
	if got := s.ask(1); got != "B" {
		t.Fatalf("the first goes to %s", got)
	}
	s.loads[1].Bind(true, 1, 0) // B is overloaded
	if got := s.ask(1); got != "A" || s.state.cache.entries[0].size != 1 {
		t.Errorf("goes to %s, a set of %d", got, s.state.cache.entries[0].size)
	}
	if s.ask(2); s.knows(2) {
		t.Error("remembers an address without room for its destination")
	}
}

// TestCacheKnowsDestinationsByMoreThanTheirID: an ID that is given to another backend does not bring back what was remembered of the first.
func TestCacheKnowsDestinationsByMoreThanTheirID(t *testing.T) {
	for _, scheduler := range []string{"lblc", "lblcr"} {
		t.Run(scheduler, func(t *testing.T) {
			s := newSmall(t, scheduler, "A9 B1", 10, 10)
			s.ask(1)
			a, b := new(Load), &s.loads[1]
			for range 3 {
				a.Bind(false, 0, 0)
			}
			next, err := New(scheduler, Options{}, 2, []Dest{{Load: a, ID: 'A', Weight: 1}, {Load: b, ID: 'B', Weight: 1}})
			if err != nil {
				t.Fatal(err)
			}
			if s.plan = next; s.ask(1) != "B" {
				t.Error("goes to whom the ID belongs to now")
			}
		})
	}
}

func TestAnotherSchedulerForgets(t *testing.T) {
	s := newSmall(t, "lblc", "A9 B1", 10, 10)
	s.ask(1)
	s.loads[0].Bind(false, 0, 0)
	if s.ask(1) != "A" {
		t.Fatal("does not stay")
	}
	for _, scheduler := range []string{"lblcr", "wlc", "lblc"} {
		s.plan = s.service.plan(scheduler, "A9 B9")
		if got := s.next(s.plan, 1); got != "B" {
			t.Errorf("%s before Adopt goes to %s, want B as wlc", scheduler, got)
		}
		s.plan.Adopt(&s.state)
		if c := s.state.cache; s.plan.kind.keeps() != (c != nil) || c != nil && c.count != 0 {
			t.Errorf("%s has the cache of the one before", scheduler)
		}
	}
}

// TestOlderPlanOnlyLooksIntoTheCache: a worker that has not seen the reload finds what the others remember, and changes none of it.
func TestOlderPlanOnlyLooksIntoTheCache(t *testing.T) {
	s := newSmall(t, "lblc", "A9 B1", 10, 10)
	s.ask(1)
	older := s.plan
	s.loads[0].Bind(false, 0, 0)
	s.plan = s.service.plan("lblc", "A9 B9 C9")
	s.plan.Adopt(&s.state)
	s.now = time.Hour
	at := func(n int) *Flow { return &Flow{Dst: [16]byte{198, 18, 0, byte(n)}, Now: int64(s.now)} }
	if i := older.Schedule(&s.state, at(1)); older.dests[i].id != 'A' {
		t.Errorf("goes to %c, the others to A", older.dests[i].id)
	}
	if older.Schedule(&s.state, at(2)); s.knows(2) || s.state.cache.find(at(1)).used != 0 {
		t.Error("has left traces")
	}
}

// TestRemovedMemberIsWeighedAsItWas: a set sheds who has the most for its weight, and one that was removed still has the weight it had.
func TestRemovedMemberIsWeighedAsItWas(t *testing.T) {
	for _, tt := range []struct {
		weightOfB string
		shed      byte
	}{{"B2", 'C'}, {"B1", 'B'}, {"B0", 'C'}} { // 6 connections of B are 3, or 6, or not to be counted, beside C's 5
		t.Run(tt.weightOfB, func(t *testing.T) {
			s := newSmall(t, "lblcr", "A4 "+tt.weightOfB+" C1", 10, 10)
			s.ask(1)
			for i, connections := range []int{4, 6, 5} {
				s.state.cache.remember(&Flow{Dst: [16]byte{198, 18, 0, 1}}, &s.plan.dests[i], true)
				for range connections {
					s.loads[i].Bind(false, 0, 0)
				}
			}
			s.plan = s.service.plan("lblcr", "A4 C1")
			s.plan.Adopt(&s.state)
			for _, s.now = range []time.Duration{12 * time.Hour, 24*time.Hour + 1} {
				s.ask(1)
			}
			e := s.state.cache.find(&Flow{Dst: [16]byte{198, 18, 0, 1}})
			if e == nil || e.size != 2 {
				t.Fatalf("entry %+v, want a set of two", e)
			}
			for at := e.first; at != 0; at = s.state.cache.members[at-1].next {
				if m := s.state.cache.members[at-1]; m.id == uint32(tt.shed) {
					t.Errorf("%c is still there", m.id)
				}
			}
		})
	}
}

// TestOlderPlanOfAnotherScheduler: the cache of lblcr says nothing to a worker that is still with lblc.
func TestOlderPlanOfAnotherScheduler(t *testing.T) {
	s := newSmall(t, "lblc", "A9 B1", 10, 10)
	older := s.plan
	s.plan = s.service.plan("lblcr", "A9 B1")
	s.plan.Adopt(&s.state)
	s.ask(1)
	for range 10 {
		s.loads[0].Bind(false, 0, 0)
	}
	if i := older.Schedule(&s.state, &Flow{Dst: [16]byte{198, 18, 0, 1}}); older.dests[i].id != 'B' {
		t.Errorf("goes to %c, want B as wlc", older.dests[i].id)
	}
}

// BenchmarkFullSweep is the longest that the lock is held: the look that comes every half an hour, over a full cache.
func BenchmarkFullSweep(b *testing.B) {
	c := newCache(kindLBLC)
	d := slot{load: new(Load)}
	for i := range cacheSize {
		c.remember(&Flow{Dst: [16]byte{1: byte(i >> 16), 2: byte(i >> 8), 3: byte(i)}}, &d, false)
	}
	for b.Loop() {
		c.sweep(0, 1, cacheSize)
	}
	if c.count != cacheSize {
		b.Fatal("not a full cache")
	}
}
