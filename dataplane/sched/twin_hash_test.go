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
	const size = 4093
	if t.maglev == nil {
		t.maglev = make([]*twinDest, size)
		turns, wanted := t.turns()
		var orders [][]int
		for _, d := range t.dests {
			offset, skip := int(hsiphash(d.hashed(), 2654435761)%size), int(hsiphash(d.hashed(), 2654446892)%(size-1)+1)
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
	v := twinFold(f.Src, f.V6)
	if t.flags&MhPort != 0 {
		v += uint32(f.SrcPort)
	}
	first := hsiphash(v, 2654435761) % size
	d := t.maglev[first]
	if d == nil || d.usable() {
		return d
	}
	for off := uint32(0); off < size && t.flags&MhFallback != 0; off++ {
		if d := t.maglev[hsiphash(v+(first+off)%size, 2654435761)%size]; d.usable() {
			return d
		}
	}
	return nil
}

// turns divides weights by what they share, and halves all until the heaviest is below 64, but leaves everybody one.
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
	for heaviest/divisor>>halvings >= 64 {
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
