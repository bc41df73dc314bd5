package conntrack

import "sync/atomic"

// Lookup finds the entry of each query's Tuple and writes its Ref: zero if there is none, and for a Space of zero. The connection
// may have expired meanwhile: [Table.Track] decides.
//
// It goes over all queries in passes, so that the cache misses of one pass overlap: hash, load the first slot of each, walk to the
// tag and touch the entry, compare.
func (t *Table) Lookup(q []Query) {
	index := t.index
	unused := uint32(len(index) - 1) // always empty, so what is looked up there is not found
	for i := range q {
		p := &q[i]
		var h uint64
		if p.V6 {
			h = t.hasher.sum6(p.Src, p.Dst, p.Ports, p.Space)
		} else {
			h = t.hasher.sum4(uint32(p.Src.Lo), uint32(p.Dst.Lo), p.Ports, p.Space)
		}
		p.at, p.Ref = t.home(h), Ref(tag(h)) // Ref holds the tag to look for until it is found
		if p.Space == 0 {
			p.at = unused
		}
	}
	for i := range q {
		p := &q[i]
		p.slot = atomic.LoadUint64(&index[p.at])
	}
	for i := range q {
		t.touch(&q[i])
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
				if e := &t.v4[r]; e.src == uint32(p.Src.Lo) && e.dst == uint32(p.Dst.Lo) && e.space == p.Space {
					p.Ref = r
					continue
				}
			} else if t.is(r, &p.Tuple) {
				p.Ref = r
				continue
			}
		}
		t.walkOn(p)
	}
}

// touch walks from p's first slot to one with its tag, and loads one word of each cache line of the entry there that the next stages
// need: the key, and the state word, which for a reply is in the entry beside it.
func (t *Table) touch(p *Query) {
	s := p.slot
	for uint32(s>>32) != uint32(p.Ref) || s == slotEmpty {
		if s == slotEmpty || p.Ref&(maxProbe-1) == maxProbe-1 {
			p.slot = 0
			return
		}
		p.at++
		p.Ref++
		s = atomic.LoadUint64(&t.index[p.at])
	}
	r := Ref(s)
	var ports uint32
	if r.V6() {
		ports = t.v6[r&^refV6].ports
		atomic.LoadUint64(&t.v6[r&^refV6&^refReply].word)
	} else {
		ports = t.v4[r].ports
		atomic.LoadUint64(&t.v4[r&^refReply].word)
	}
	p.slot = uint64(ports)<<32 | uint64(r)
}

// walkOn goes on behind a slot that had p's tag but not its key, which happens for one in millions of slots, or for an entry that was
// replaced.
func (t *Table) walkOn(p *Query) {
	for p.Ref&(maxProbe-1) != maxProbe-1 {
		p.at++
		p.Ref++
		s := atomic.LoadUint64(&t.index[p.at])
		if s == slotEmpty {
			break
		}
		if uint32(s>>32) == uint32(p.Ref) && s != slotTombstone && t.is(Ref(s), &p.Tuple) {
			p.Ref = Ref(s)
			return
		}
	}
	p.Ref = 0
}
