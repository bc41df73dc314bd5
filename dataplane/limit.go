package dataplane

import "sync/atomic"

// limiter bounds how many answers we make, in all and for one source, over all workers. It is the generic cell rate algorithm
// (ITU-T I.371): one word holds the theoretical arrival time of the next event, so a decision is one compare-and-swap, and a burst may
// be one second's worth of events. Sources share cells by hash; two in one cell share its tenth.
type limiter struct {
	interval atomic.Int64 // nanoseconds an event takes up; 0: refuse all
	all      atomic.Int64 // theoretical arrival time, nanoseconds
	sources  [limiterCells]atomic.Int64
}

const (
	limiterCells  = 4096
	limiterBurst  = 1_000_000_000 // nanoseconds
	sourceDivisor = 10            // a source gets a tenth of the rate and of the burst
)

// set changes the rate to n events a second. Zero refuses all.
func (l *limiter) set(n int) {
	if n <= 0 {
		l.interval.Store(0)
		return
	}
	l.interval.Store(max(limiterBurst/int64(n), 1))
}

// allow reports whether an event of a source with the given hash may happen at now, and counts it if so.
func (l *limiter) allow(now int64, hi, lo uint64) bool {
	interval := l.interval.Load()
	if interval == 0 {
		return false
	}
	source := &l.sources[mix(0, hi, lo)%limiterCells]
	if !take(source, now, interval*sourceDivisor, limiterBurst) {
		return false
	}
	return take(&l.all, now, interval, limiterBurst)
}

// gate is a limiter of one stream of events, without sources.
type gate struct {
	interval int64
	at       atomic.Int64
}

func (g *gate) allow(now int64) bool { return take(&g.at, now, g.interval, limiterBurst) }

func take(cell *atomic.Int64, now, interval, burst int64) bool {
	for range 8 { // more contention than this means the limit is far exceeded anyway
		at := cell.Load()
		next := max(at, now) + interval
		if next-now > burst {
			return false
		}
		if cell.CompareAndSwap(at, next) {
			return true
		}
	}
	return false
}
