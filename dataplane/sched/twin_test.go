package sched

import (
	"math/big"
	"slices"
)

// A twin is a service whose schedulers are written for the eye alone: from the papers and the manual, one step at a time, without a
// mark that is an index, without tables, without skipping anything. Edits are made one by one, as ipvsadm makes them.
type twin struct {
	scheduler string
	Options
	dests  []*twinDest // the head first
	cursor *twinDest   // nil: the list's head
	level  int

	gone   []*twinDest // removed
	local  twinLocal   // lblc, lblcr
	maglev []*twinDest // mh, until the next edit
	draw   func(sum uint64) (uint64, uint64)
}

type twinDest struct {
	id               uint32
	weight           int
	lastWeight       int
	active, inactive int
	overloaded       bool
}

func (d *twinDest) usable() bool  { return d.weight > 0 && !d.overloaded }
func (d *twinDest) overhead() int { return 256*d.active + d.inactive }

// hashed is what a destination's address and port come to: 198.18.1.ID and 8000.
func (d *twinDest) hashed() uint32 { return 198<<24 + 18<<16 + 1<<8 + d.id%256 + 8000 }

func (t *twin) add(d *twinDest) {
	d.lastWeight = d.weight
	t.dests = slices.Insert(t.dests, 0, d)
	t.changed()
}

func (t *twin) remove(i int) {
	if t.scheduler == "rr" && t.cursor == t.dests[i] {
		t.cursor = nil
		if i > 0 {
			t.cursor = t.dests[i-1]
		}
	}
	t.gone = append(t.gone, t.dests[i])
	t.dests = slices.Delete(t.dests, i, i+1)
	t.changed()
}

// changed is what wrr does on every edit: the level is brought back among those that exist, and the walk starts with the head.
func (t *twin) changed() {
	t.maglev = nil
	if t.scheduler != "wrr" {
		return
	}
	t.cursor = nil
	top, step := t.levels()
	switch {
	case t.level > top || t.level == 0:
		t.level = top
	case step > 1:
		t.level -= t.level % step
		t.level++
	}
}

// levels finds the step by trying: the largest number that divides all weights.
func (t *twin) levels() (top, step int) {
	heaviest := 0
	for _, d := range t.dests {
		heaviest = max(heaviest, d.weight)
	}
	if heaviest == 0 {
		return 0, 1
	}
	for step = heaviest; slices.ContainsFunc(t.dests, func(d *twinDest) bool { return d.weight%step != 0 }); step-- {
	}
	return heaviest - step + 1, step
}

// schedule returns the chosen destination's place in the list, or -1.
func (t *twin) schedule(f *Flow) int {
	var d *twinDest
	switch t.scheduler {
	case "rr":
		d = t.rr()
	case "wrr":
		d = t.wrr()
	case "lc":
		d = t.least(func(*twinDest) int { return 1 })
	case "wlc":
		d = t.least(func(d *twinDest) int { return d.weight })
	case "sh":
		d = t.sh(f)
	case "dh":
		d = t.dh(f)
	case "mh":
		d = t.mh(f)
	case "sed":
		d = t.sed()
	case "nq":
		if d = t.first(func(d *twinDest) bool { return d.active == 0 }); d == nil {
			d = t.sed()
		}
	case "fo":
		d = t.heaviest(func(*twinDest) bool { return true })
	case "ovf":
		d = t.heaviest(func(d *twinDest) bool { return d.active <= d.weight })
	case "lblc":
		d = t.lblc(f)
	case "lblcr":
		d = t.lblcr(f)
	case "twos":
		d = t.twos(t.draw)
	}
	return slices.Index(t.dests, d) // nil is not among them
}

// rr looks at all destinations once, those behind the cursor first.
func (t *twin) rr() *twinDest {
	after := slices.Index(t.dests, t.cursor) + 1
	for _, d := range slices.Concat(t.dests[after:], t.dests[:after]) {
		if d.usable() {
			t.cursor = d
			return d
		}
	}
	return nil
}

// wrr is the loop of the LVS paper over the endless sequence of the list at level top, at top-step, and so on down and around. It gives up
// when it has asked everybody for weight 1, the lowest level there is.
func (t *twin) wrr() *twinDest {
	top, step := t.levels()
	if top == 0 {
		return nil
	}
	start, startedLowest := t.cursor, t.level <= step
	asked := map[*twinDest]bool{}
	for i := slices.Index(t.dests, t.cursor); ; {
		if i++; i == len(t.dests) {
			i = 0
			if t.level -= step; t.level <= 0 {
				t.level = top
			}
		}
		d := t.dests[i]
		if d.weight >= t.level && !d.overloaded {
			t.cursor = d
			return d
		}
		if t.level <= step {
			asked[d] = true
		}
		if len(asked) < len(t.dests) {
			continue
		}
		// A walk that began within the last level ends where it began; any other ends at the end of the list, for the next to start anew.
		t.cursor = start
		if start == nil || !startedLowest {
			t.cursor, t.level = nil, top
		}
		return nil
	}
}

// least compares overhead per weight as fractions; the first of equals wins.
func (t *twin) least(weight func(*twinDest) int) *twinDest {
	var best *twinDest
	var least *big.Rat
	for _, d := range t.dests {
		if !d.usable() {
			continue
		}
		if r := big.NewRat(int64(d.overhead()), int64(weight(d))); best == nil || r.Cmp(least) < 0 {
			best, least = d, r
		}
	}
	return best
}

// sed compares active connections, the new one included, per weight as fractions.
func (t *twin) sed() *twinDest {
	var best *twinDest
	var least *big.Rat
	for _, d := range t.dests {
		if !d.usable() {
			continue
		}
		if r := big.NewRat(int64(d.active+1), int64(d.weight)); best == nil || r.Cmp(least) < 0 {
			best, least = d, r
		}
	}
	return best
}

func (t *twin) first(counts func(*twinDest) bool) *twinDest {
	for _, d := range t.dests {
		if d.usable() && counts(d) {
			return d
		}
	}
	return nil
}

func (t *twin) heaviest(counts func(*twinDest) bool) *twinDest {
	order := slices.Clone(t.dests)
	slices.SortStableFunc(order, func(a, b *twinDest) int { return b.weight - a.weight })
	for _, d := range order {
		if d.usable() && counts(d) {
			return d
		}
	}
	return nil
}

// sh writes out the list with each destination repeated by its weight, over and over, and counts 256 of them.
func (t *twin) sh(f *Flow) *twinDest {
	if len(t.dests) == 0 {
		return nil
	}
	var buckets []*twinDest
	for len(buckets) < 256 {
		for _, d := range t.dests {
			buckets = append(buckets, slices.Repeat([]*twinDest{d}, max(d.weight, 1))...)
		}
	}
	first := int(t.client(f, ShPort) * 0x61c88647 >> 24)
	if d := buckets[first]; d.usable() || t.Flags&ShFallback == 0 {
		if d.usable() {
			return d
		}
		return nil
	}
	for off := range 256 {
		if d := buckets[(2*first+off)%256]; d.usable() {
			return d
		}
	}
	return nil
}
