package conntrack

import "sync/atomic"

// Lookup4 is Lookup for IPv4, without its last pass: the Ref that it writes is of an entry that is the query's but for one time in millions, and
// whoever uses it loads that entry anyway. [Table.Is4] tells, and [Table.Wide] finds the right one if it is not. A Rest of zero finds nothing. It
// reports whether some Ref is zero.
func (t *Table) Lookup4(q []Query4) (missed bool) {
	index, v4 := t.index, t.v4
	unused := uint32(len(index) - 2)
	for i := range q {
		p := &q[i]
		h := t.hasher.sum4(p.Pair, p.Rest)
		p.at, p.Ref = t.home(h), Ref(tag(h))
		if p.Rest == 0 {
			p.at, p.Ref = unused, 0 // what stands there is found at once
		}
	}
	for i := range q {
		p := &q[i]
		s, next := atomic.LoadUint64(&index[p.at]), atomic.LoadUint64(&index[p.at+1])
		if uint32(next>>32) == uint32(p.Ref)+1 {
			s = next
		}
		p.slot = s
	}
	borrow := uint32(0) // its highest bit: a Ref was zero
	for i := range q {
		p := &q[i]
		s := p.slot
		if uint32(s>>32)-uint32(p.Ref) > 1 || int32(s) < 0 { // another's tag, no tag, or IPv6
			s = t.seek4(p.at, uint32(p.Ref))
		}
		p.Ref = Ref(s)
		borrow |= uint32(s) - 1
		atomic.LoadUint64(&v4[p.Ref].rest)
		atomic.LoadUint64(&v4[p.Ref&^refReply].word)
	}
	return borrow>>31 != 0
}

// seek4 is seek for an IPv4 entry.
func (t *Table) seek4(at, want uint32) uint64 {
	for ; ; at, want = at+1, want+1 {
		s := atomic.LoadUint64(&t.index[at])
		if s == slotEmpty || uint32(s>>32) == want && int32(s) > 0 {
			return s
		}
		if want&(maxProbe-1) == maxProbe-1 {
			return slotEmpty
		}
	}
}

// Is4 reports whether q's Ref, which is not zero, is its entry's.
func (t *Table) Is4(q *Query4) bool {
	e := &t.v4[q.Ref]
	return e.pair == q.Pair && e.rest == q.Rest
}

// Wide is q as a Query, with the Ref of its entry.
func (t *Table) Wide(q *Query4) Query {
	w := Query{Tuple: tuple4(q.Pair, q.Rest), Ref: q.Ref}
	if q.Ref != 0 && !t.Is4(q) {
		h := t.hasher.sum4(q.Pair, q.Rest)
		w.Ref = t.search(&w.Tuple, t.home(h), tag(h))
	}
	return w
}
