package dataplane

import (
	"sync/atomic"

	"weir/conntrack"
)

// limiter bounds how many events of a kind there are, in all and for one source, over all workers. It is the generic cell rate algorithm
// (ITU-T I.371): one word holds the theoretical arrival time of the next event, so a decision is one compare-and-swap, and a burst may
// be one second's worth of events. Sources share cells by hash; two in one cell share its part.
type limiter struct {
	secret   uint64       // of the hash
	part     int64        // of the rate and of the burst that one source may have is this reciprocal
	interval atomic.Int64 // nanoseconds an event takes up; 0: refuse all
	all      atomic.Int64 // theoretical arrival time, nanoseconds
	sources  [limiterCells]atomic.Int64
}

const (
	limiterCells = 4096
	limiterBurst = 1_000_000_000 // nanoseconds
	answersPart  = 10            // of what we say, a source gets a tenth
	puntsPart    = 2             // of what the kernel is given back, a source gets half: most often a server with a connection of its own
)

// set changes the rate to n events a second. Zero refuses all.
func (l *limiter) set(n int) {
	if n <= 0 {
		l.interval.Store(0)
		return
	}
	l.interval.Store(max(limiterBurst/int64(n), 1))
}

// spent reports whether nobody may have an event at now. It charges nobody, so it may be asked as early as one likes.
func (l *limiter) spent(now int64) bool {
	interval := l.interval.Load()
	return interval == 0 || l.all.Load()+interval-now > limiterBurst
}

// allow reports whether an event of a source, an address in a segment or in none (0), may happen at now, and counts it if so. In a flood it costs two loads: a
// source is charged only if there is something left.
func (l *limiter) allow(now int64, segment segmentRef, src conntrack.Addr) bool {
	interval := l.interval.Load()
	if interval == 0 || l.all.Load()+interval-now > limiterBurst {
		return false
	}
	source, each := &l.sources[mix(l.secret^uint64(segment), src.Hi, src.Lo)%limiterCells], interval*l.part
	if !take(source, now, each, max(limiterBurst, each)) { // where its part is less than one in a second it has one at a time
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

// pace bounds how often a worker looks at what it holds, whatever makes it look: a vector may be a few microseconds, and a look at all is as much. A
// few looks at once are free.
type pace struct {
	at int64 // nanoseconds
}

const (
	paceEvery = 250_000 // nanoseconds between two looks in the long run
	paceBurst = 16 * paceEvery
)

// allow reports whether a look is due now, and counts it if so.
func (p *pace) allow(now int64) bool {
	next := max(p.at, now) + paceEvery
	if next-now > paceBurst {
		return false
	}
	p.at = next
	return true
}

// from is when the next look is allowed at the earliest, in nanoseconds.
func (p *pace) from() int64 { return p.at + paceEvery - paceBurst }

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
