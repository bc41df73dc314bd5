package sched

import (
	"math/big"
	"slices"
)

// dh writes out the list over and over until there are 256.
func (t *twin) dh(f *Flow) *twinDest {
	if len(t.dests) == 0 {
		return nil
	}
	var buckets []*twinDest
	for len(buckets) < 256 {
		buckets = append(buckets, t.dests...)
	}
	if d := buckets[twinFold(f.Dst, f.V6)*0x61c88647>>24]; d.usable() {
		return d
	}
	return nil
}

// mh writes out every destination's whole order of preference, as the Maglev paper does, and strikes out what others have taken.
func (t *twin) mh(f *Flow) *twinDest {
	size := t.Slots
	if size == 0 {
		size = 4093
	}
	hash := func(v uint32, key uint64) int { return int(hsiphash(v, key)) }
	if t.maglev == nil {
		t.maglev = make([]*twinDest, size)
		turns, wanted := t.turns()
		var orders [][]int
		for _, d := range t.dests {
			offset, skip := hash(d.hashed(), 2654435761)%size, hash(d.hashed(), 2654446892)%(size-1)+1
			order := make([]int, size)
			for i := range order {
				order[i] = (offset + i*skip) % size
			}
			orders = append(orders, order)
		}
		for left := size; wanted && left > 0; {
			for i, d := range t.dests {
				for range turns[i] {
					for len(orders[i]) > 0 && t.maglev[orders[i][0]] != nil {
						orders[i] = orders[i][1:]
					}
					if len(orders[i]) > 0 {
						t.maglev[orders[i][0]] = d
						left--
					}
				}
			}
		}
	}
	v := t.client(f, MhPort)
	first := hash(v, 2654435761) % size
	d := t.maglev[first]
	if d == nil || d.usable() {
		return d
	}
	for off := 0; off < size && t.Flags&MhFallback != 0; off++ {
		if d := t.maglev[hash(v+uint32((first+off)%size), 2654435761)%size]; d.usable() {
			return d
		}
	}
	return nil
}

// client is what tells clients apart: the sum of words that the kernel takes, or all their bytes under a seed.
func (t *twin) client(f *Flow, withPort Flags) uint32 {
	port := uint16(0)
	if t.Flags&withPort != 0 {
		port = f.SrcPort
	}
	if t.Seed == 0 {
		return twinFold(f.Src, f.V6) + uint32(port)
	}
	message := f.Src[:4]
	if f.V6 {
		message = f.Src[:]
	}
	return twinSipHash(append(slices.Clone(message), byte(port), byte(port>>8)), t.Seed, ^t.Seed)
}

// twinSipHash is the lower half of SipHash-1-3 of any message, as the paper has it.
func twinSipHash(message []byte, k0, k1 uint64) uint32 {
	v := [4]uint64{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573}
	mix := func(i, j int, by int) {
		v[i] += v[j]
		v[j] = v[j]<<by | v[j]>>(64-by)
		v[j] ^= v[i]
	}
	round := func() {
		mix(0, 1, 13)
		mix(2, 3, 16)
		v[0] = v[0]<<32 | v[0]>>32
		mix(2, 1, 17)
		mix(0, 3, 21)
		v[2] = v[2]<<32 | v[2]>>32
	}
	length := byte(len(message))
	for len(message)%8 != 7 {
		message = append(message, 0)
	}
	message = append(message, length)
	for ; len(message) > 0; message = message[8:] {
		word := uint64(0)
		for i := range 8 {
			word |= uint64(message[i]) << (8 * i)
		}
		v[3] ^= word
		round()
		v[0] ^= word
	}
	v[2] ^= 0xff
	round()
	round()
	round()
	return uint32(v[0] ^ v[1] ^ v[2] ^ v[3])
}

// twinLimits is how many slots in a row the heaviest destination stays below, by the size of the table.
var twinLimits = map[int]int{251: 16, 509: 16, 1021: 32, 2039: 32, 0: 64, 4093: 64, 8191: 64, 16381: 128, 32749: 128, 65521: 256, 131071: 256}

// turns divides weights by what they share, and halves all until the heaviest is below the table's limit, but leaves everybody one.
func (t *twin) turns() (turns []int, wanted bool) {
	shared, heaviest := new(big.Int), 0
	for _, d := range t.dests {
		shared.GCD(nil, nil, shared, big.NewInt(int64(d.lastWeight)))
		heaviest = max(heaviest, d.lastWeight)
	}
	if heaviest == 0 {
		return nil, false
	}
	divisor := int(shared.Int64())
	halvings := 0
	for heaviest/divisor>>halvings >= twinLimits[t.Slots] {
		halvings++
	}
	for _, d := range t.dests {
		n := d.lastWeight / divisor >> halvings
		if n == 0 && d.lastWeight > 0 {
			n = 1
		}
		turns = append(turns, n)
	}
	return turns, true
}

func twinFold(addr [16]byte, v6 bool) (key uint32) {
	words := 1
	if v6 {
		words = 4
	}
	for i := range words {
		key ^= uint32(addr[4*i])<<24 | uint32(addr[4*i+1])<<16 | uint32(addr[4*i+2])<<8 | uint32(addr[4*i+3])
	}
	return key
}

// twos has every usable destination draw lots, as many as its weight, and one blank, which counts for the first.
func (t *twin) twos(draw func(sum uint64) (uint64, uint64)) *twinDest {
	var lots []*twinDest
	for _, d := range t.dests {
		if d.usable() {
			lots = append(lots, slices.Repeat([]*twinDest{d}, d.weight)...)
		}
	}
	if len(lots) == 0 {
		return nil
	}
	lots = slices.Insert(lots, 0, lots[0])
	r1, r2 := draw(uint64(len(lots) - 1))
	return twinExtreme([]*twinDest{lots[r1], lots[r2]}, -1, (*twinDest).usable)
}
