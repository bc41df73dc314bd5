package conntrack

import "sync/atomic"

// sources counts the half-open connections of each source, a /32 of IPv4 or a /64 of IPv6 in its segment or outside, in a sketch: two rows of cells, of which a source has
// one in each, by hashes that nobody outside knows. The smaller of both cells is at least the source's number, and more only if each of them has
// another source in it. So nobody is let through who has too many, and one who has not is mistaken for one that has if two others with too many happen to have
// his cells: with n of those that is once in (cells/n)^2.
//
// A table counts from the moment that it is told to, which may be its first ([Options.CountSources]). Of the connections that were half-open then, a cell may be lowered that was not raised by them; they are over
// in a minute, and none falls below zero.
type sources struct {
	counting atomic.Bool
	rows     [2][sourceCells]atomic.Uint32
}

const sourceCells = 1 << 16

// cells are those of the source of packets of in.
func (t *Table) cells(in *Tuple) (a, b *atomic.Uint32) {
	x := in.Src.Lo
	if in.V6 {
		x = in.Src.Hi
	}
	h := t.hasher.sum4(x, sourceDomain|uint64(in.Space>>8)<<1|uint64(v6Bit(in.V6)))
	return &t.sources.rows[0][uint16(h)], &t.sources.rows[1][uint16(h>>16)]
}

func v6Bit(v6 bool) uint32 {
	if v6 {
		return 1
	}
	return 0
}

// sourceDomain tells a source's hash from those of tuples, whose space is never zero.
const sourceDomain = 1 << 63

// CountSources has the table count half-open connections by source from now on. Any goroutine may, at any time.
func (t *Table) CountSources() {
	if !t.sources.counting.Load() {
		t.sources.counting.Store(true)
	}
}

// HalfOpenOf is how many half-open connections the source has that packets of in come from, or a few more; see [Table.CountSources].
func (t *Table) HalfOpenOf(in *Tuple) int {
	a, b := t.cells(in)
	return int(min(a.Load(), b.Load()))
}

// raiseSource counts the connection of r, which is half-open, for its source.
func (t *Table) raiseSource(r Ref) {
	if !t.sources.counting.Load() {
		return
	}
	in := t.Tuple(r &^ refReply)
	a, b := t.cells(&in)
	a.Add(1)
	b.Add(1)
}

// lowerSource takes the connection of r, which is not half-open any more, out of its source's count.
func (t *Table) lowerSource(r Ref) {
	if !t.sources.counting.Load() {
		return
	}
	in := t.Tuple(r &^ refReply)
	a, b := t.cells(&in)
	sink(a)
	sink(b)
}

// sink is one less, but not below zero.
func sink(cell *atomic.Uint32) {
	for {
		x := cell.Load()
		if x == 0 || cell.CompareAndSwap(x, x-1) {
			return
		}
	}
}
