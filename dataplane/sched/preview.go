package sched

import (
	"fmt"
	"slices"
)

// Preview is what [Plan.Schedule] would do for a flow, and why.
type Preview struct {
	Scheduler  string
	Chosen     int      // index of the destination, -1: none
	Why        string   // the rule by which it is that one, in words
	Position   Position // of rr and wrr, before the choice
	Candidates []Candidate
}

// Candidate is one destination as the scheduler sees it.
type Candidate struct {
	ID               uint32
	Weight           int
	Active, Inactive int
	Overloaded       bool
	Cost             float64 // what is weighed, where HasCost: the lowest wins
	HasCost          bool
}

// Usable reports whether the destination takes new connections.
func (c *Candidate) Usable() bool { return c.Weight > 0 && !c.Overloaded }

// Preview tells what Schedule would choose for f now, by the code that chooses, and changes nothing: schedulers with a memory work on a copy
// of it. A connection that comes meanwhile, by another worker, may get this answer in f's place. It takes memory; control calls it.
func (p *Plan) Preview(s *State, f *Flow) Preview {
	v := Preview{Scheduler: p.Scheduler(), Candidates: make([]Candidate, len(p.dests))}
	for i := range p.dests {
		d := &p.dests[i]
		w := d.load.word.Load()
		active, inactive, flag := unpack(w)
		c := &v.Candidates[i]
		*c = Candidate{ID: d.id, Weight: int(d.weight), Active: int(active), Inactive: int(inactive), Overloaded: flag != 0}
		if c.HasCost = p.kind.weighs() && d.weight > 0; c.HasCost {
			load, by := p.kind.burden(w, d.weight)
			c.Cost = float64(load) / float64(by)
		}
	}
	switch p.kind {
	case kindRR:
		v.Position = p.Position(s)
		m := mark{at: int32(v.Position.Last)}
		v.Chosen, v.Why = p.roundRobin(&m), "the next usable one behind the one chosen last"
	case kindWRR:
		v.Position = p.Position(s)
		m := mark{at: int32(v.Position.Last), level: int32(v.Position.Level)}
		v.Chosen = p.weightedRoundRobin(&m)
		v.Why = fmt.Sprintf("the next one of weight %d or more; the weight asked for falls by %d at the list's end, from %d", m.level, v.Position.Step, v.Position.Top)
	case kindLC, kindWLC, kindSED, kindNQ:
		b := p.lightest(0, len(p.dests))
		v.Chosen, v.Why = b.choice(p.kind), burdens[p.kind]
		if p.kind == kindNQ && b.idle >= 0 {
			v.Why = "the first usable one without active connections"
		}
	case kindSH:
		v.Chosen, v.Why = p.sourceHash(f), "there are no destinations"
		if p.buckets != nil {
			n := p.bucketOf(f)
			v.Why = p.owner(v.Chosen, int(p.buckets[n]), fmt.Sprintf("bucket %d of 256, which the client hashes to", n), p.flags&ShFallback != 0)
		}
	case kindDH:
		v.Chosen, v.Why = p.destinationHash(f), "there are no destinations"
		if len(p.dests) > 0 {
			n := serverBucket(f)
			v.Why = p.owner(v.Chosen, int(n)%len(p.dests), fmt.Sprintf("bucket %d of 256, which the address asked for hashes to", n), false)
		}
	case kindMH:
		v.Chosen, v.Why = p.maglevHash(f), "no destination has ever had a weight"
		if p.maglev != nil {
			_, n := p.slotOf(f)
			v.Why = p.owner(v.Chosen, int(p.maglev.slots[n]), fmt.Sprintf("slot %d of %d, which the client hashes to", n, len(p.maglev.slots)), p.flags&MhFallback != 0)
		}
	case kindFO:
		v.Chosen, v.Why = p.failover(), "the highest weight of those that are usable, the first of equals"
	case kindOVF:
		v.Chosen, v.Why = p.overflow(), "the highest weight of those that are usable and have no more active connections than their weight"
	case kindLBLC, kindLBLCR:
		v.Chosen, v.Why = p.previewLocal(s, f)
	case kindTwos:
		var again State // its numbers are the next ones
		again.Seed(s.random.Load())
		v.Chosen, v.Why = p.twoChoices(&again), "two are drawn by weight, the one with the lower (256 x active + inactive) / weight is taken"
	}
	switch {
	case len(v.Candidates) == 0:
		v.Why = "the list is empty: servers that are down or drained are not in it"
	case v.Chosen < 0 && !slices.ContainsFunc(v.Candidates, func(c Candidate) bool { return c.Usable() }):
		v.Why = "none is usable: weight 0, or overloaded"
	}
	return v
}

// weighs reports whether the scheduler compares burdens.
func (k kind) weighs() bool { return k.grouped() || k.keeps() || k == kindTwos }

// burdens are what lc, wlc, sed and nq weigh, in words.
var burdens = [kinds]string{
	kindLC:  "the lowest 256 x active + inactive, the first of equals",
	kindWLC: "the lowest (256 x active + inactive) / weight, the first of equals",
	kindSED: "the lowest (active + 1) / weight, the first of equals",
	kindNQ:  "none is without active connections: the lowest (active + 1) / weight, the first of equals",
}

// owner says how a hash came to the destination chosen: place is owned by destination i.
func (p *Plan) owner(chosen, i int, place string, fallback bool) string {
	switch {
	case chosen == i:
		return "the owner of " + place
	case chosen >= 0:
		return fmt.Sprintf("destination %d owns %s, but is not usable: the next place's owner that is", i+1, place)
	case fallback:
		return fmt.Sprintf("destination %d owns %s, but is not usable, nor is any other", i+1, place)
	}
	return fmt.Sprintf("destination %d owns %s, but is not usable, and there is no fallback", i+1, place)
}

// previewLocal is scheduleLocal on a copy of the cache. The lock is held while what has been used of it is copied: a tenth of a millisecond for one
// that is full.
func (p *Plan) previewLocal(s *State, f *Flow) (chosen int, why string) {
	chosen = -1
	if c, current := p.copyCache(s); c != nil {
		chosen = p.recall(c, f, current)
	}
	switch {
	case chosen >= 0 && !p.outrun(chosen):
		return chosen, "the cache has it for the address asked for"
	case chosen >= 0:
		why = "the one in the cache has more active connections than its weight while another has less than half: "
	default:
		why = "the cache has no usable one for the address asked for: "
	}
	return p.weightedLeastConn(), why + burdens[kindWLC]
}

// copyCache copies what p would find of s's cache, nil if nothing, and says whether p is, or is about to be, s's plan.
func (p *Plan) copyCache(s *State) (c *cache, current bool) {
	s.lock()
	defer s.unlock()
	from := s.plan.Load()
	if s.cache == nil || from == nil || from.kind != p.kind {
		return nil, false
	}
	c = new(cache)
	*c = *s.cache
	c.entries = make([]cacheEntry, len(s.cache.entries)) // how many there may be decides what goes
	copy(c.entries, s.cache.entries[:c.freshEntry])
	c.members = slices.Clone(s.cache.members[:c.freshMember])
	return c, from == p || from.generation <= p.generation
}
