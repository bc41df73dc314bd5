package vxlan

import "sync/atomic"

// Expire forgets entries of which no frame came for their segment's ageing time. It looks at budget slots, going on where the last call
// of any worker stopped, so that each slot is looked at once in Slots / budget calls. It returns how many it forgot.
func (t *FDB) Expire(now Second, budget int) (n int) {
	budget = min(budget, len(t.slots))
	for at := int(claim(&t.cursor, budget, len(t.slots))); budget > 0; budget-- {
		if at == len(t.slots) {
			at = 0
		}
		if k := t.slots[at].key.Load(); k != keyEmpty && k != keyTombstone && t.aged(at, k, now) && t.expire(at, k, now) {
			n++
		}
		at++
	}
	return n
}

// Slots is what one pass of Expire over all looks at.
func (t *FDB) Slots() int { return len(t.slots) }

// claim takes the next n of all slots for the caller to scan, and returns the first.
func claim(cursor *atomic.Uint64, n, all int) uint64 {
	for {
		at := cursor.Load()
		if cursor.CompareAndSwap(at, (at+uint64(n))%uint64(all)) {
			return at
		}
	}
}

// aged reports whether the entry of slot at has been silent for too long.
func (t *FDB) aged(at int, k uint64, now Second) bool {
	ageing := t.segments[k>>48].ageing.Load()
	val := t.slots[at].val.Load()
	return val != 0 && val&valStatic == 0 && ageing != 0 && now.since(Second(val>>seenShift)) >= ageing
}

// expire removes the entry of slot at if it is still silent.
func (t *FDB) expire(at int, k uint64, now Second) bool {
	t.lock.lock()
	defer t.lock.unlock()
	val := t.slots[at].val.Load()
	if t.slots[at].key.Load() != k || !t.aged(at, k, now) || !t.slots[at].val.CompareAndSwap(val, 0) {
		return false // gone, or a frame came meanwhile
	}
	t.remove(at, val)
	return true
}
