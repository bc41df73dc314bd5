package sched

import (
	"math/bits"
	"slices"
)

// mhSlots is the size of Maglev's table: the prime of CONFIG_IP_VS_MH_TAB_INDEX 12, the kernel's default. There may be no more destinations.
const mhSlots = 4093

// mhBits limits how many slots in a row a destination takes, half the table index's bits in the kernel.
const mhBits = 12 / 2

// maglev deals the slots to the destinations (ip_vs_mh.c): each prefers them in an order of its own, which follows from its address and
// port, and they take turns in choosing, as many slots a turn as their weight says. A destination that is added or removed therefore
// moves few clients of others.
//
// Weights are the latest that were not 0: draining a server moves nobody.
type maglev struct {
	wishes []mhWish // what the table was made from
	slots  [mhSlots]uint16
}

// mhWish is what a destination has to say: what its order of preference follows from, and how many slots it takes a turn.
type mhWish struct {
	value uint32
	turns int32
}

// maglevOf deals the slots to dests; nil if nobody wants any. A table that was made from the same is used again.
func maglevOf(dests []Dest, was *maglev) *maglev {
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
	shift := max(0, bits.Len32(uint32(heaviest/divisor))-mhBits)
	wishes := make([]mhWish, len(dests))
	for i := range dests {
		d := &dests[i]
		w := d.lastWeight()
		wishes[i] = mhWish{value: uint32(d.Port) + d.fold(), turns: w / divisor >> shift}
		if w != 0 {
			wishes[i].turns = max(wishes[i].turns, 1)
		}
	}
	if was != nil && slices.Equal(was.wishes, wishes) {
		return was
	}
	m := &maglev{wishes: wishes}
	m.deal()
	return m
}

func (m *maglev) deal() {
	at, skip := make([]uint32, len(m.wishes)), make([]uint32, len(m.wishes))
	for i, w := range m.wishes {
		at[i] = hsiphash(w.value, mhOffsetKey) % mhSlots
		skip[i] = hsiphash(w.value, mhSkipKey)%(mhSlots-1) + 1
	}
	var taken [mhSlots]bool
	for left := mhSlots; ; {
		for i, w := range m.wishes {
			for range w.turns {
				for taken[at[i]] {
					if at[i] += skip[i]; at[i] >= mhSlots {
						at[i] -= mhSlots
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
	v := fold(&f.Src, f.V6)
	if p.flags&MhPort != 0 {
		v += uint32(f.SrcPort)
	}
	first := hsiphash(v, mhOffsetKey) % mhSlots
	i := p.maglev.slots[first]
	if p.dests[i].usable() {
		return int(i)
	}
	if p.flags&MhFallback == 0 || !p.anyUsable() {
		return -1
	}
	for off := range uint32(mhSlots) {
		i = p.maglev.slots[hsiphash(v+(off+first)%mhSlots, mhOffsetKey)%mhSlots]
		if p.dests[i].usable() {
			return int(i)
		}
	}
	return -1
}

// anyUsable spares maglevHash 4093 hashes in vain when everybody is down.
func (p *Plan) anyUsable() bool {
	for i := range p.dests {
		if p.dests[i].usable() {
			return true
		}
	}
	return false
}

// The keys are constants in the kernel, too: whoever knows them can aim at one server (docs/ipvs.md).
const (
	mhOffsetKey = 2654435761
	mhSkipKey   = 2654446892
)

// hsiphash is the kernel's hsiphash of the 4 bytes of v, little end first, on a 64-bit machine: the lower half of SipHash-1-3. Both words of the
// key are key.
func hsiphash(v uint32, key uint64) uint32 { return siphash13(v, key, key) }

func siphash13(v uint32, k0, k1 uint64) uint32 {
	a, b, c, d := 0x736f6d6570736575^k0, 0x646f72616e646f6d^k1, 0x6c7967656e657261^k0, 0x7465646279746573^k1
	last := uint64(4)<<56 | uint64(v) // the length, and the bytes that are left over
	d ^= last
	a, b, c, d = sipRound(a, b, c, d)
	a ^= last
	c ^= 0xff
	for range 3 {
		a, b, c, d = sipRound(a, b, c, d)
	}
	return uint32(a ^ b ^ c ^ d)
}

func sipRound(a, b, c, d uint64) (uint64, uint64, uint64, uint64) {
	a, c = a+b, c+d
	b, d = bits.RotateLeft64(b, 13)^a, bits.RotateLeft64(d, 16)^c
	a = bits.RotateLeft64(a, 32)
	a, c = a+d, c+b
	d, b = bits.RotateLeft64(d, 21)^a, bits.RotateLeft64(b, 17)^c
	return a, b, bits.RotateLeft64(c, 32), d
}
