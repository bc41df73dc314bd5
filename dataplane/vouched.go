package dataplane

import (
	"sync/atomic"

	"weir/conntrack"
)

// vouched remembers the addresses that have answered a challenge, each in its segment: tenants do not know of each other. All workers share it: 2^17 places in sets of four, and a newcomer takes the oldest
// one of its set, so it never grows. Who can fill it has as many addresses that he receives at.
type vouched struct {
	secret uint64
	slots  [vouchedSlots]atomic.Uint64 // tag<<32 | second, 0: nobody
}

const (
	vouchedSlots = 1 << 17
	vouchedWays  = 4
	// vouchedLife is how long an address is believed, in seconds.
	vouchedLife = 120
)

// place is the set of the source of packets of t, and its tag.
func (k *vouched) place(t *conntrack.Tuple) (set []atomic.Uint64, tag uint64) {
	h := newSip(k.secret, ^k.secret)
	h.word(uint64(t.Space >> 8))
	h.word(t.Src.Hi)
	x := h.sum(t.Src.Lo)
	at := x % (vouchedSlots / vouchedWays) * vouchedWays
	return k.slots[at : at+vouchedWays], x >> 32
}

// vouchedSecond is a clock's time in seconds, never zero, that wraps after 136 years.
func vouchedSecond(now int64) uint32 { return uint32(now/1_000_000_000) | 1<<31 }

func (k *vouched) has(t *conntrack.Tuple, now int64) bool {
	set, tag := k.place(t)
	for i := range set {
		if x := set[i].Load(); x>>32 == tag && uint32(x) != 0 && vouchedSecond(now)-uint32(x) <= vouchedLife {
			return true
		}
	}
	return false
}

func (k *vouched) add(t *conntrack.Tuple, now int64) {
	set, tag := k.place(t)
	oldest := 0
	for i := range set {
		x := set[i].Load()
		if x>>32 == tag {
			oldest = i
			break
		}
		if uint32(x) < uint32(set[oldest].Load()) {
			oldest = i
		}
	}
	set[oldest].Store(tag<<32 | uint64(vouchedSecond(now)))
}
