package vxlan

// Learned is what [FDB.Learn] made of a frame's source.
type Learned uint8

const (
	Known       Learned = iota // it is where it was
	Own                        // it is the gateway's address, which is never learned; the frame goes on
	New                        // it was not known before
	Moved                      // it was elsewhere before
	Static                     // it is a static entry of another place: the frame must be dropped
	Frozen                     // it moved too often: it stays where it is, the frame goes on
	SegmentFull                // the segment has as many entries as it may have
	TableFull                  // all segments together have
	TooFast                    // too many new or moved entries in this second
	NotAStation                // a group's address or zero
	numCounts
)

var learnedNames = [numCounts]string{
	Known: "known", New: "new", Moved: "moved", Own: "own", Static: "static_mac", Frozen: "frozen",
	SegmentFull: "segment_full", TableFull: "table_full", TooFast: "too_fast", NotAStation: "not_a_station",
}

// String is the outcome's metric name.
func (l Learned) String() string {
	if l < numCounts {
		return learnedNames[l]
	}
	return "unknown"
}

// Learn takes notice that a frame of mac came from at, for frames that a segment with learning accepted. Mostly that is known, and costs one
// look-up and, once a second for an entry, one store. Else it takes the lock, within the segment's and the table's limits. All
// outcomes but Known and Own are counted.
func (t *FDB) Learn(segment uint16, mac MAC, at Place, now Second) Learned {
	if t.Knows(segment, mac, at, now) {
		return Known
	}
	l := t.learn(segment, mac, at, now)
	if l > Own {
		t.segments[segment].counts[l].Add(1)
	}
	return l
}

// Knows is Learn of a frame whose source is known to be there. Of any other it reports false, and takes no notice.
func (t *FDB) Knows(segment uint16, mac MAC, at Place, now Second) bool {
	k := keyOf(segment, mac)
	h := t.hash(k)
	home := int(t.home(h))
	for i := home; i < home+maxProbe; i++ {
		s := t.slots[i].key.Load()
		if s == keyEmpty {
			break
		}
		if s != k {
			continue
		}
		val := t.slots[i].val.Load()
		if val&(checkMask|uint64(placeMask)) != check(h)|uint64(at) || t.slots[i].key.Load() != k {
			break
		}
		if val&valStatic == 0 && Second(val>>seenShift) != now {
			t.seen(i, val, now)
		}
		return true
	}
	return false
}

// seen moves an entry's last frame up to now. If the entry changed meanwhile, someone else has seen to it.
func (t *FDB) seen(i int, val uint64, now Second) {
	if now.since(Second(val>>seenShift)) > 0 {
		t.slots[i].val.CompareAndSwap(val, val&(1<<seenShift-1)|uint64(now)<<seenShift)
	}
}

// learn is Learn for what is not known, or known elsewhere. What is refused is refused without the lock where it can be: it is what an
// attacker would send.
func (t *FDB) learn(segment uint16, mac MAC, at Place, now Second) Learned {
	if !mac.station() {
		return NotAStation
	}
	k := keyOf(segment, mac)
	h := t.hash(k)
	s := &t.segments[segment]
	i, val := t.find(k, h)
	if i >= 0 {
		if l := t.immovable(i, val, now); l != Known {
			return l
		}
	} else if l := t.room(s); l != Known {
		return l
	}
	if !s.budget.take(now, t.rate) || !t.budget.take(now, shareOfAll*t.rate) {
		return TooFast
	}
	fresh := uint64(now)<<seenShift | check(h) | uint64(at)
	t.lock.lock()
	defer t.lock.unlock()
	if i, val = t.find(k, h); i >= 0 {
		return t.move(i, val, fresh, now)
	}
	if l := t.room(s); l != Known {
		return l
	}
	if i = t.place(h); i < 0 {
		t.refused.Add(1)
		return TableFull
	}
	t.put(i, k, fresh)
	return New
}

// room reports Known if another entry of s may be learned.
func (t *FDB) room(s *fdbSegment) Learned {
	switch {
	case s.learned.Load() >= int64(s.limit.Load()):
		return SegmentFull
	case t.used.Load() >= int64(t.capacity):
		t.refused.Add(1)
		return TableFull
	}
	return Known
}

// Count is how often Learn had the outcome l in a segment. Known and Own are not counted.
func (t *FDB) Count(segment uint16, l Learned) uint64 { return t.segments[segment].counts[l].Load() }

// Used is the number of a segment's entries, static ones too.
func (t *FDB) Used(segment uint16) int { return int(t.segments[segment].used.Load()) }
