package dataplane

import (
	"sync/atomic"

	"weir/conntrack"
)

// newLimit bounds how many connections one source, a /32 of IPv4 or a /64 of IPv6, opens in a second, over all workers. The same address in two
// segments is two sources: tenants do not know of each other. It is a sketch as
// conntrack's of half-open ones: a source has a cell in each of two rows, each the theoretical arrival time of limiter, and may go on while either lets
// it. So nobody has more than he may but by luck, and who shares one cell with a flood still has the other.
type newLimit struct {
	interval atomic.Int64 // nanoseconds that a connection takes up; 0: no limit
	secret   uint64
	rows     [2][newCells]atomic.Int64
}

const newCells = 1 << 16

// set changes the limit to n connections a second, 0: none.
func (l *newLimit) set(n int) {
	interval := int64(0)
	if n > 0 {
		interval = max(limiterBurst/int64(n), 1)
	}
	if l.interval.Load() != interval {
		l.interval.Store(interval)
	}
}

// allow reports whether the source of packets of in may open a connection now, and counts it if so.
func (l *newLimit) allow(now int64, in *conntrack.Tuple) bool {
	interval := l.interval.Load()
	if interval == 0 {
		return true
	}
	h := newSip(l.secret, ^l.secret)
	x, family := in.Src.Lo, uint64(4)
	if in.V6 {
		x, family = in.Src.Hi, 6
	}
	h.word(uint64(in.Space>>8)<<8 | family)
	s := h.sum(x)
	a := take(&l.rows[0][s%newCells], now, interval, limiterBurst)
	b := take(&l.rows[1][s>>32%newCells], now, interval, limiterBurst)
	return a || b
}
