package sched

import "math/bits"

// leastConn takes the usable destination with the least overhead, the first of equals (ip_vs_lc.c).
func (p *Plan) leastConn() int {
	best, least := -1, uint64(0)
	for i := range p.dests {
		d := &p.dests[i]
		if !d.usable() {
			continue
		}
		if o := d.load.overhead(); best < 0 || o < least {
			best, least = i, o
		}
	}
	return best
}

// weightedLeastConn takes the usable destination with the least overhead per weight, the first of equals (ip_vs_wlc.c).
func (p *Plan) weightedLeastConn() int {
	best, least, weight := -1, uint64(0), uint64(0)
	for i := range p.dests {
		d := &p.dests[i]
		if !d.usable() {
			continue
		}
		o, w := d.load.overhead(), uint64(d.weight)
		if best < 0 || lighter(o, w, least, weight) {
			best, least, weight = i, o, w
		}
	}
	return best
}

// lighter reports o/w < least/weight, multiplied out. The kernel's overhead is an int and its product 64 bits; 2^38 times 2^31 needs
// more, so that no number of connections makes a full backend look empty.
func lighter(o, w, least, weight uint64) bool {
	lhi, llo := bits.Mul64(least, w)
	ohi, olo := bits.Mul64(o, weight)
	return lhi > ohi || lhi == ohi && llo > olo
}
