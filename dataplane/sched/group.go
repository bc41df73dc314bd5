package sched

import "sync/atomic"

// The kernel's lc, wlc, sed and nq look at every destination for each connection: with a thousand that is 3 microseconds and more, most of
// them cache misses. A plan of many keeps them in groups and remembers the lightest of each. Whoever changes a Load marks its
// group, and only marked groups are looked through again: one connection, which comes to one destination while another ends
// somewhere else, marks two or three. What comes out is the same as from the whole walk, ties included: the first of equals in a group,
// and of equal groups the first.
//
// Groups belong to the newest plan of a State and are used under its lock; a plan that is older walks.

const (
	groupSize = 32
	groupFrom = 2 * groupSize // with fewer destinations the walk is as fast, and takes no lock
)

// group is some destinations of a plan that stand one behind the other.
type group struct {
	stale atomic.Uint32 // 1: a Load has changed since pick; set by whoever changed it, cleared under the lock
	lost  atomic.Uint32 // 1: a Load marks another group now, so pick is never to be trusted
	pick  pick          // under the lock
}

// grouped reports whether the scheduler weighs all destinations against each other.
func (k kind) grouped() bool { return k == kindLC || k == kindWLC || k == kindSED || k == kindNQ }

// newGroups are those of n destinations, none if they are few.
func newGroups(n int) []group {
	if n < groupFrom {
		return nil
	}
	all := make([]group, (n+groupSize-1)/groupSize)
	for i := range all {
		all[i].stale.Store(1)
	}
	return all
}

// join makes p's groups those that its destinations' Loads mark. s is locked, and p is about to be its plan. A Load that changes meanwhile marks
// the group of the plan before, but has changed before this plan looks for the first time.
func (p *Plan) join() {
	for i := range p.dests {
		if len(p.groups) == 0 {
			return
		}
		g := &p.groups[i/groupSize]
		if old := p.dests[i].load.group.Swap(g); old != nil && old != g {
			old.lost.Store(1)
		}
	}
}

// changed marks the group of a Load whose word has just changed. A mark that is there already will do: it is taken away before the words
// are read.
func (l *Load) changed() {
	if g := l.group.Load(); g != nil && g.stale.Load() == 0 {
		g.stale.Store(1)
	}
}

// scheduleLeast is Schedule for lc, wlc, sed and nq.
func (p *Plan) scheduleLeast(s *State) int {
	if len(p.groups) == 0 {
		if s.plan.Load() != p {
			p.take(s)
		}
		b := p.lightest(0, len(p.dests))
		return b.choice(p.kind)
	}
	s.lock()
	if m, keep := p.resume(s); keep {
		s.mark = m
	} else {
		s.unlock()
		b := p.lightest(0, len(p.dests))
		return b.choice(p.kind)
	}
	best := pick{at: -1, idle: -1}
	for i := range p.groups {
		g := &p.groups[i]
		if g.stale.Load()|g.lost.Load() != 0 {
			g.stale.Store(0)
			g.pick = p.lightest(i*groupSize, min((i+1)*groupSize, len(p.dests)))
		}
		if best.idle < 0 {
			best.idle = g.pick.idle
		}
		if g.pick.at >= 0 && (best.at < 0 || lighter(g.pick.load, g.pick.by, best.load, best.by)) {
			best.at, best.load, best.by = g.pick.at, g.pick.load, g.pick.by
		}
	}
	s.unlock()
	return best.choice(p.kind)
}
