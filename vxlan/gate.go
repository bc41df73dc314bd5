package vxlan

import "sync/atomic"

// Gate bounds a stream of events over all workers, such as the frames that a segment floods: n a second, and as many at once. It is the
// generic cell rate algorithm (ITU-T I.371): one word holds the theoretical arrival time of the next event, so a decision is one
// compare-and-swap. It outlives snapshots, so a reload does not fill it again. The zero Gate lets everything through.
type Gate struct {
	interval atomic.Int64 // nanoseconds an event takes up; 0: no limit, -1: none passes
	at       atomic.Int64 // theoretical arrival time, nanoseconds
}

const second = 1_000_000_000 // nanoseconds

// Set changes the rate. A negative one lets everything through, zero nothing.
func (g *Gate) Set(perSecond int) {
	switch {
	case perSecond < 0:
		g.interval.Store(0)
	case perSecond == 0:
		g.interval.Store(-1)
	default:
		g.interval.Store(max(second/int64(perSecond), 1))
	}
}

// Allow reports whether an event may happen at now, in nanoseconds, and counts it if so.
func (g *Gate) Allow(now int64) bool {
	interval := g.interval.Load()
	if interval <= 0 {
		return interval == 0
	}
	for range 8 { // more contention than this means the limit is far exceeded anyway
		at := g.at.Load()
		next := max(at, now) + interval
		if next-now > second {
			return false
		}
		if g.at.CompareAndSwap(at, next) {
			return true
		}
	}
	return false
}
