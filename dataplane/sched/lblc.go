package sched

// lblc keeps the connections to one address on one destination, lblcr on a set of them that grows while they are overloaded and loses its
// most loaded member once a day (ip_vs_lblc.c, ip_vs_lblcr.c). Both are for caches that serve many addresses, and both choose as wlc where
// the cache does not say.

// keeps reports whether the scheduler has a cache.
func (k kind) keeps() bool { return k == kindLBLC || k == kindLBLCR }

// scheduleLocal is Schedule for lblc and lblcr. The lock is held to look into the cache and to write into it, not for the walk over the
// destinations between; two workers that miss the same address at once both choose, and the later choice replaces or joins the other.
func (p *Plan) scheduleLocal(s *State, f *Flow) int {
	i := p.remembered(s, f)
	if i >= 0 && !p.outrun(i) {
		return i
	}
	if i = p.weightedLeastConn(); i < 0 {
		return -1
	}
	s.lock()
	if s.cache != nil && s.plan.Load() == p {
		s.cache.remember(f, &p.dests[i], p.kind == kindLBLCR)
	}
	s.unlock()
	return i
}

// remembered is the destination that the cache has for f's address, if it still takes connections, or -1. A plan that is older than s looks
// without touching anything.
func (p *Plan) remembered(s *State, f *Flow) int {
	s.lock()
	defer s.unlock()
	m, current := p.resume(s)
	if current {
		s.mark = m
	}
	c := s.cache
	if c == nil || s.plan.Load().kind != p.kind {
		return -1
	}
	return p.recall(c, f, current)
}

// recall is remembered by the cache c, which is of p's kind. Where p is not current it only looks.
func (p *Plan) recall(c *cache, f *Flow, current bool) int {
	if current {
		c.expire(f.Now)
	}
	e := c.find(f)
	if e == nil {
		return -1
	}
	if current {
		e.used = f.Now
	}
	if p.kind == kindLBLC {
		i := p.find(&c.members[e.first-1])
		if i >= 0 && p.dests[i].weight > 0 { // overloaded or not: the threshold is for others
			return i
		}
		return -1
	}
	i := p.leastMember(c, e)
	if current && e.size > 1 && f.Now-e.modified > c.day {
		if most := p.mostMember(c, e); most != 0 {
			c.dismiss(e, most)
			e.modified = f.Now
		}
	}
	return i
}

// outrun reports whether destination i has more active connections than its weight while another has less than half of its own: is_overloaded
// of the two files, which has nothing to do with thresholds.
func (p *Plan) outrun(i int) bool {
	if d := &p.dests[i]; d.load.Active() <= int(d.weight) {
		return false
	}
	for j := range p.dests {
		if d := &p.dests[j]; 2*d.load.Active() < int(d.weight) {
			return true
		}
	}
	return false
}

// leastMember is wlc among the members of e's set, the latest that joined first (ip_vs_dest_set_min).
func (p *Plan) leastMember(c *cache, e *cacheEntry) int {
	best, least, weight := -1, uint64(0), uint64(0)
	for at := e.first; at != 0; at = c.members[at-1].next {
		i := p.find(&c.members[at-1])
		if i < 0 || !p.dests[i].usable() {
			continue
		}
		o, w := p.dests[i].load.overhead(), uint64(p.dests[i].weight)
		if best < 0 || lighter(o, w, least, weight) {
			best, least, weight = i, o, w
		}
	}
	return best
}

// mostMember is the member of e's set with the most overhead per weight, 0 if none has a weight (ip_vs_dest_set_max). Removed destinations
// take part with the weight they had.
func (p *Plan) mostMember(c *cache, e *cacheEntry) (at int32) {
	most, weight := uint64(0), uint64(0)
	for j := e.first; j != 0; j = c.members[j-1].next {
		m := &c.members[j-1]
		w := m.load.retired.Load()
		if i := p.find(m); i >= 0 {
			w = p.dests[i].weight
		}
		if w <= 0 {
			continue
		}
		if o := m.load.overhead(); at == 0 || lighter(most, weight, o, uint64(w)) {
			at, most, weight = j, o, uint64(w)
		}
	}
	return at
}

// find is the index of the destination that m is, or -1 if it is not in p.
func (p *Plan) find(m *cacheMember) int {
	if i := p.indexOf(m.id); i >= 0 && p.dests[i].load == m.load {
		return i
	}
	return -1
}

// retire notes the weights of from's destinations that p has no more.
func (p *Plan) retire(from *Plan) {
	for i := range from.dests {
		d := &from.dests[i]
		if j := p.indexOf(d.id); j < 0 || p.dests[j].load != d.load {
			d.load.retired.Store(d.weight)
		}
	}
}
