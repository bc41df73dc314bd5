package sched

import "math/bits"

// lc, wlc, sed and nq take the usable destination that bears the least, the first of equals, and differ in what they weigh:
//
//	lc   overhead          (ip_vs_lc.c)
//	wlc  overhead / weight (ip_vs_wlc.c)
//	sed  jobs / weight     (ip_vs_sed.c): inactive connections do not count, and so none of UDP's; there it is always the heaviest
//	nq   as sed, but the first without active connections, whatever its weight, goes before all (ip_vs_nq.c)

// burden is what a destination with the word w of its Load and a weight bears, as a fraction.
func (k kind) burden(w uint64, weight int32) (load, by uint64) {
	active, inactive, _ := unpack(w)
	switch k {
	case kindLC:
		return overheadOf(active, inactive), 1
	case kindWLC, kindLBLC, kindLBLCR, kindTwos:
		return overheadOf(active, inactive), uint64(weight)
	}
	return jobsOf(active), uint64(weight)
}

// pick is what a search through some destinations comes to.
type pick struct {
	at       int32  // the lightest, -1 if none is usable; nq: or if idle says all
	idle     int32  // nq: the first without active connections, -1 if there is none
	load, by uint64 // at's burden
}

// choice is the destination that p's scheduler takes, -1 if there is none.
func (b *pick) choice(k kind) int {
	if k == kindNQ && b.idle >= 0 {
		return int(b.idle)
	}
	return int(b.at)
}

// lightest searches the destinations from to to-1.
func (p *Plan) lightest(from, to int) pick {
	b := pick{at: -1, idle: -1}
	dests := p.dests[from:to]
	for i := range dests {
		d := &dests[i]
		w := d.load.word.Load()
		if d.weight <= 0 || w&overload != 0 {
			continue
		}
		if b.idle < 0 && int32(w>>32) <= 0 {
			b.idle = int32(from + i)
			if p.kind == kindNQ {
				return b
			}
		}
		if load, by := p.kind.burden(w, d.weight); b.at < 0 || lighter(load, by, b.load, b.by) {
			b.at, b.load, b.by = int32(from+i), load, by
		}
	}
	return b
}

// weightedLeastConn is wlc over all destinations, for lblc and lblcr.
func (p *Plan) weightedLeastConn() int {
	b := p.lightest(0, len(p.dests))
	return int(b.at)
}

// lighter reports o/w < least/weight, multiplied out. The kernel's overhead is an int and its product 64 bits; 2^38 times 2^31 needs
// more, so that no number of connections makes a full backend look empty.
func lighter(o, w, least, weight uint64) bool {
	lhi, llo := bits.Mul64(least, w)
	ohi, olo := bits.Mul64(o, weight)
	return lhi > ohi || lhi == ohi && llo > olo
}
