package vxlan

import "fmt"

// Station is one entry of an FDB, as control lists it.
type Station struct {
	Segment uint16
	MAC     MAC
	Place   Place
	Static  bool
	Seen    Second // of its last frame, to the second; of a static entry, when it was added
	Frozen  Second // until when it stays where it is because it moved too often, 0: it may move
}

// Add makes a static entry, in place of whatever was known of mac. The gateway's is AtGateway. It never ages, and never moves but by another
// Add. It is control's, and is limited by the table's capacity alone.
func (t *FDB) Add(segment uint16, mac MAC, at Place, now Second) error {
	if int(segment) >= len(t.segments) || !mac.station() || at == 0 {
		return fmt.Errorf("vxlan: FDB entry %s of segment %d: not a station", mac, segment)
	}
	k := keyOf(segment, mac)
	h := t.hash(k)
	val := uint64(now)<<seenShift | check(h) | valStatic | uint64(at)
	t.lock.lock()
	defer t.lock.unlock()
	if i, _ := t.find(k, h); i >= 0 {
		t.moves[i].reset()
		if t.slots[i].val.Swap(val)&valStatic == 0 {
			t.segments[segment].learned.Add(-1)
		}
		return nil
	}
	i := t.place(h)
	if i < 0 || t.used.Load() >= int64(t.capacity) {
		return fmt.Errorf("vxlan: FDB entry %s of segment %d: the table is full (%d entries)", mac, segment, t.capacity)
	}
	t.put(i, k, val)
	return nil
}

// Remove forgets one entry, static or not. It reports whether there was one.
func (t *FDB) Remove(segment uint16, mac MAC) bool {
	k := keyOf(segment, mac)
	h := t.hash(k)
	t.lock.lock()
	defer t.lock.unlock()
	i, _ := t.find(k, h)
	if i < 0 {
		return false
	}
	t.remove(i, t.slots[i].val.Swap(0))
	return true
}

// Flush forgets the entries that choose reports true for, and returns how many those were. Of a peer or port that is going away,
// workers must have stopped learning first: publish the snapshot without it, wait until each has loaded that, flush.
func (t *FDB) Flush(choose func(Station) bool) (n int) {
	t.Range(func(s Station) bool {
		if choose(s) && t.Remove(s.Segment, s.MAC) {
			n++
		}
		return true
	})
	return n
}

// Range calls f for every entry until it reports false. Entries that come or go meanwhile may be missed, none is listed twice unless it
// is removed and comes back. f may change the FDB.
func (t *FDB) Range(f func(Station) bool) {
	for i := range t.slots {
		k := t.slots[i].key.Load()
		val := t.slots[i].val.Load()
		if k == keyEmpty || k == keyTombstone || val == 0 || val&checkMask != check(t.hash(k)) {
			continue
		}
		s := Station{
			Segment: uint16(k >> 48), MAC: MAC(k) & macMask, Place: Place(val) & placeMask,
			Static: val&valStatic != 0, Seen: Second(val >> seenShift), Frozen: Second(t.moves[i].frozen.Load()),
		}
		if !f(s) {
			return
		}
	}
}

// Refused is how many entries were refused because the whole table is full.
func (t *FDB) Refused() uint64 { return t.refused.Load() }
