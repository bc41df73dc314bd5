package sched

import (
	"math/bits"
	"slices"
)

// mhSizes are the sizes that Maglev's table may have: the primes of CONFIG_IP_VS_MH_TAB_INDEX 8 to 17, of which 12 is the kernel's default. There may
// be no more destinations than slots.
var mhSizes = [...]int{251, 509, 1021, 2039, mhSlots, 8191, 16381, 32749, 65521, 131071}

const (
	mhSlots   = 4093
	mhIndex   = 8       // of the first of mhSizes
	mhMaxDest = 1 << 16 // a slot holds a destination's index in 16 bits
)

// Slots lists the sizes that [Options] may ask for.
func Slots() []int { return mhSizes[:] }

// maglev deals the slots to the destinations (ip_vs_mh.c): each prefers them in an order of its own, which follows from its address and
// port, and they take turns in choosing, as many slots a turn as their weight says. A destination that is added or removed therefore
// moves few clients of others.
//
// Weights are the latest that were not 0: draining a server moves nobody.
type maglev struct {
	wishes []mhWish // what the table was made from
	slots  []uint16
}

// mhWish is what a destination has to say: what its order of preference follows from, and how many slots it takes a turn.
type mhWish struct {
	value uint32
	turns int32
}

// maglevOf deals the slots of a table of mhSizes[size] to dests; nil if nobody wants any. A table that was made from the same is used again.
func maglevOf(dests []Dest, size int, was *maglev) *maglev {
	divisor, heaviest := int32(0), int32(0)
	for i := range dests {
		w := dests[i].lastWeight()
		heaviest = max(heaviest, w)
		for w > 0 {
			divisor, w = w, divisor%w
		}
	}
	if divisor == 0 {
		return nil
	}
	shift := max(0, bits.Len32(uint32(heaviest/divisor))-(mhIndex+size)/2) // a larger table lets a destination take more slots in a row
	wishes := make([]mhWish, len(dests))
	for i := range dests {
		d := &dests[i]
		w := d.lastWeight()
		wishes[i] = mhWish{value: uint32(d.Port) + d.fold(), turns: w / divisor >> shift}
		if w != 0 {
			wishes[i].turns = max(wishes[i].turns, 1)
		}
	}
	if was != nil && len(was.slots) == mhSizes[size] && slices.Equal(was.wishes, wishes) {
		return was
	}
	m := &maglev{wishes: wishes, slots: make([]uint16, mhSizes[size])}
	m.deal()
	return m
}

func (m *maglev) deal() {
	size := uint32(len(m.slots))
	at, skip := make([]uint32, len(m.wishes)), make([]uint32, len(m.wishes))
	for i, w := range m.wishes {
		at[i] = hsiphash(w.value, mhOffsetKey) % size
		skip[i] = hsiphash(w.value, mhSkipKey)%(size-1) + 1
	}
	taken := make([]bool, size)
	for left := size; ; {
		for i, w := range m.wishes {
			for range w.turns {
				for taken[at[i]] {
					if at[i] += skip[i]; at[i] >= size {
						at[i] -= size
					}
				}
				taken[at[i]] = true
				m.slots[at[i]] = uint16(i)
				if left--; left == 0 {
					return
				}
			}
		}
	}
}

// maglevHash takes the owner of the slot that the client's address hashes to. If it is unusable there is none, or, with MhFallback, the
// walk goes on through the table from a place that depends on the hash.
func (p *Plan) maglevHash(f *Flow) int {
	if p.maglev == nil {
		return -1
	}
	v, first := p.slotOf(f)
	size := uint32(len(p.maglev.slots))
	i := p.maglev.slots[first]
	if p.dests[i].usable() {
		return int(i)
	}
	if p.flags&MhFallback == 0 || !p.anyUsable() {
		return -1
	}
	for off := range size {
		i = p.maglev.slots[hsiphash(v+(off+first)%size, mhOffsetKey)%size]
		if p.dests[i].usable() {
			return int(i)
		}
	}
	return -1
}

// slotOf is the hash of the client's address, and the slot that it leads to. p has a table.
func (p *Plan) slotOf(f *Flow) (hash, slot uint32) {
	hash = p.client(f, p.flags&MhPort != 0)
	return hash, hsiphash(hash, mhOffsetKey) % uint32(len(p.maglev.slots))
}

// anyUsable spares maglevHash as many hashes in vain as there are slots when everybody is down.
func (p *Plan) anyUsable() bool {
	for i := range p.dests {
		if p.dests[i].usable() {
			return true
		}
	}
	return false
}
