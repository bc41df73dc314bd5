package sched

// Weighted round robin asks for a level of weight, from the highest down, and at each level walks the whole list (ip_vs_wrr.c):
//
//	weights 3 1:  level 3: A   level 2: A   level 1: A B   and from the top again
//
// The step from level to level is the greatest common divisor of the weights, for no level between holds a difference. The lowest level is 1.

// scale is what the levels follow from: the highest level and the step. The highest is 0 when no weight is positive.
type scale struct {
	top, step int32
	heaviest  int32 // weight
	divisor   int32 // greatest common divisor of the weights, 0 without any
}

// with is the scale after a destination of weight w has been added.
func (s scale) with(w int32) scale {
	s.heaviest = max(s.heaviest, w)
	for w > 0 {
		s.divisor, w = w, s.divisor%w
	}
	s.step = max(s.divisor, 1)
	s.top = s.heaviest - (s.step - 1)
	return s
}

// relevel is what becomes of a level when the destinations have changed (ip_vs_wrr_dest_changed).
func (s scale) relevel(level int32) int32 {
	if level > s.top || level == 0 {
		return s.top
	}
	if s.step > 1 {
		return level/s.step*s.step + 1
	}
	return level
}

// levelsOf returns the scale of dests and the level of a new service. That is not the highest: a service starts empty, the last in the
// list is added first, and each that follows finds the level that the one before it has set. Weights 3 1 start at level 1.
func levelsOf(dests []slot) (s scale, first int32) {
	for i := len(dests) - 1; i >= 0; i-- {
		s = s.with(dests[i].weight)
		first = s.relevel(first)
	}
	return s, first
}

// weightedRoundRobin walks on from the destination chosen last, at the mark's level, and takes the first that is not overloaded and has that
// weight. At the list's end the level falls by one step, below 1 it is the highest again. It gives up when all have been asked for
// weight 1 without success.
//
// The kernel walks the list once for each level, up to the highest weight times the number of destinations, when the heaviest are
// overloaded. Here a walk over the whole list notes the highest weight on offer, and the levels that nobody can meet are skipped:
// decisions and marks are the same, the walks are a handful.
func (p *Plan) weightedRoundRobin(m *mark) int {
	if p.scale.top == 0 {
		return -1
	}
	n := int32(len(p.dests))
	last, stop := m.at, n
	lowest, restarted := false, false // lowest: this walk is for level 1
	i := m.at + 1
	for {
		whole, best := i == 0, int32(0)
		for ; i < n; i++ {
			if d := &p.dests[i]; !d.load.Overloaded() {
				if d.weight >= m.level {
					m.at = i
					return int(i)
				}
				best = max(best, d.weight)
			}
			if i == stop { // all up to last were asked for weight 1 now, as those behind it were before
				m.at = i
				return -1
			}
		}
		i = 0
		m.level -= p.scale.step
		if whole && m.level > best {
			m.level -= (m.level - max(best, 1) + p.scale.step - 1) / p.scale.step * p.scale.step
		}
		if m.level <= 0 {
			m.level = p.scale.top
			if lowest || last == head {
				m.at = head
				return -1
			}
			restarted = true
		}
		lowest = m.level <= p.scale.step
		if lowest && restarted && last != head {
			stop = last
		}
	}
}
