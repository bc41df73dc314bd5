package conntrack

import "sync/atomic"

// Lookup finds the entry of each query's Tuple and writes its Ref: zero if there is none, and for a Space of zero. The connection
// may have expired meanwhile: [Table.Track] decides.
//
// It goes over all queries in passes, so that the cache misses of one pass overlap: hash, load the first slots of each, walk to the
// tag and touch the entry, compare.
func (t *Table) Lookup(q []Query) {
	index := t.index
	unused := uint32(len(index) - 2) // it and the next are always empty, so what is looked up there is not found
	for i := range q {
		p := &q[i]
		var h uint64
		if p.V6 {
			h = t.hasher.sum6(p.Src, p.Dst, p.Ports, p.Space)
		} else {
			h = t.hasher.sum4(p.pair(), p.rest())
		}
		p.at, p.Ref = t.home(h), Ref(tag(h)) // Ref holds the tag to look for until it is found
		if p.Space == 0 {
			p.at = unused
		}
	}
	for i := range q {
		// Seven of ten entries stand in their home, half of the others in the slot behind it: the two are told apart without a branch, which
		// would be guessed wrong that often. One second slot in eight is in the next cache line: to fetch that is less than the wrong guess.
		p := &q[i]
		s, next := atomic.LoadUint64(&index[p.at]), atomic.LoadUint64(&index[p.at+1])
		if uint32(next>>32) == uint32(p.Ref)+1 {
			s = next
		}
		p.slot = s
	}
	for i := range q {
		p := &q[i]
		if uint32(p.slot>>32)-uint32(p.Ref) > 1 || p.slot == slotEmpty {
			p.slot = t.seek(p.at, uint32(p.Ref))
		}
		t.touch(p)
	}
	for i := range q {
		p := &q[i]
		r := Ref(p.slot)
		if r == 0 {
			p.Ref = 0
			continue
		}
		if uint32(p.slot>>32) == p.Ports {
			if !p.V6 && !r.V6() {
				if e := &t.v4[r]; e.pair == p.pair() && e.rest == p.rest() {
					p.Ref = r
					continue
				}
			} else if t.is(r, &p.Tuple) {
				p.Ref = r
				continue
			}
		}
		p.Ref = t.search(&p.Tuple, p.at, uint32(p.Ref))
	}
}

// seek walks from a home to the first slot with the tag, and returns what stands in it: an empty slot if there is none.
func (t *Table) seek(at, want uint32) uint64 {
	for ; ; at, want = at+1, want+1 {
		s := atomic.LoadUint64(&t.index[at])
		if s == slotEmpty || uint32(s>>32) == want {
			return s
		}
		if want&(maxProbe-1) == maxProbe-1 {
			return slotEmpty
		}
	}
}

// touch loads one word of each cache line of the entry in p's slot that the next stages need: the key, and the state word, which for a reply
// is in the entry beside it. Entry 0 is nobody's.
func (t *Table) touch(p *Query) {
	r := Ref(p.slot)
	var ports uint32
	if r.V6() {
		ports = t.v6[r&^refV6].ports
		atomic.LoadUint64(&t.v6[r&^refV6&^refReply].word)
	} else {
		ports = uint32(t.v4[r].rest >> 32)
		atomic.LoadUint64(&t.v4[r&^refReply].word)
	}
	p.slot = uint64(ports)<<32 | uint64(r)
}

// search walks from a home to the slot with q's key. It comes to that for one slot in millions, whose tag is q's and whose key is not, and for
// an entry that was replaced.
func (t *Table) search(q *Tuple, at, want uint32) Ref {
	for ; ; at, want = at+1, want+1 {
		s := atomic.LoadUint64(&t.index[at])
		if s == slotEmpty {
			return 0
		}
		if uint32(s>>32) == want && s != slotTombstone && t.is(Ref(s), q) {
			return Ref(s)
		}
		if want&(maxProbe-1) == maxProbe-1 {
			return 0
		}
	}
}
