package sched

import (
	"math/big"
	"slices"
)

// twinLocal is what the twin of lblc and lblcr remembers: a set of destinations for each address, the latest that joined first, and a
// clock that goes on minute by minute.
type twinLocal struct {
	sets    map[twinAddr]*twinSet
	started bool
	minute  int64 // time of the next look
	minutes int
}

type twinAddr struct {
	addr [16]byte
	v6   bool
}

func twinKey(f *Flow) twinAddr {
	k := twinAddr{v6: f.V6}
	n := 4
	if f.V6 {
		n = 16
	}
	copy(k.addr[:n], f.Dst[:])
	return k
}

type twinSet struct {
	dests          []*twinDest
	used, modified int64
}

const twinDay = 86400 * 1_000_000_000

// tick lets the minutes pass: every thirtieth, sets that nobody has asked for in a day are forgotten.
func (l *twinLocal) tick(now int64) {
	if !l.started {
		l.started, l.minute, l.sets = true, now+60e9, map[twinAddr]*twinSet{}
	}
	for ; l.minute <= now; l.minute += 60e9 {
		if l.minutes++; l.minutes%30 != 0 {
			continue
		}
		for addr, s := range l.sets {
			if l.minute-s.used >= twinDay {
				delete(l.sets, addr)
			}
		}
	}
}

// outrun: more active connections than weight, while somebody has less than half.
func (t *twin) outrun(d *twinDest) bool {
	return d.active > d.weight && slices.ContainsFunc(t.dests, func(o *twinDest) bool { return 2*o.active < o.weight })
}

func (t *twin) wlc() *twinDest { return t.least(func(d *twinDest) int { return d.weight }) }

func (t *twin) lblc(f *Flow) *twinDest {
	t.local.tick(f.Now)
	s := t.local.sets[twinKey(f)]
	if s != nil {
		s.used = f.Now
		if d := s.dests[0]; slices.Contains(t.dests, d) && d.weight > 0 && !t.outrun(d) {
			return d
		}
	}
	d := t.wlc()
	if d != nil {
		t.local.sets[twinKey(f)] = &twinSet{dests: []*twinDest{d}, used: f.Now}
	}
	return d
}

func (t *twin) lblcr(f *Flow) *twinDest {
	t.local.tick(f.Now)
	s := t.local.sets[twinKey(f)]
	var best *twinDest
	if s != nil {
		s.used = f.Now
		best = twinExtreme(s.dests, -1, func(d *twinDest) bool { return slices.Contains(t.dests, d) && d.usable() })
		if len(s.dests) > 1 && f.Now-s.modified > twinDay {
			if most := twinExtreme(s.dests, 1, func(d *twinDest) bool { return d.weight > 0 }); most != nil {
				s.dests = slices.DeleteFunc(s.dests, func(d *twinDest) bool { return d == most })
				s.modified = f.Now
			}
		}
	}
	if best != nil && !t.outrun(best) {
		return best
	}
	d := t.wlc()
	switch {
	case d == nil:
	case s == nil:
		t.local.sets[twinKey(f)] = &twinSet{dests: []*twinDest{d}, used: f.Now, modified: f.Now}
	case !slices.Contains(s.dests, d):
		s.dests, s.modified = slices.Insert(s.dests, 0, d), f.Now
	}
	return d
}

// twinExtreme is the first of those that have the least (sign -1) or the most (1) overhead per weight.
func twinExtreme(dests []*twinDest, sign int, counts func(*twinDest) bool) *twinDest {
	var best *twinDest
	var extreme *big.Rat
	for _, d := range dests {
		if !counts(d) {
			continue
		}
		if r := big.NewRat(int64(d.overhead()), int64(d.weight)); best == nil || r.Cmp(extreme) == sign {
			best, extreme = d, r
		}
	}
	return best
}
