package control

import (
	"time"

	"weir/dataplane"
)

// calm is how long a counter must have stood still for its next rise to be told of. So what goes on all the time is told of once, and a
// reason makes one line a minute at most.
const calm = time.Minute

// limits are the drops that say that something of a bounded size is full: an operator may want to make it larger.
var limits = map[dataplane.Drop]bool{
	dataplane.DropTableFull: true, dataplane.DropHalfOpen: true, dataplane.DropNoLocalPort: true, dataplane.DropAnswerLimit: true,
	dataplane.DropPuntLimit: true, dataplane.DropFloodLimit: true, dataplane.DropFragmentMany: true, dataplane.DropNoMemory: true,
	dataplane.DropSendRingFull: true, dataplane.DropRxRingFull: true, dataplane.DropFillRingEmpty: true,
}

// What is countersSeen beside drops, by the same index.
const (
	evictions = int(dataplane.NumDrops) + iota // half-open connections that gave way
	refusals                                   // stations that were not learned
	countersSeen
)

// rising remembers counters, to tell of those that begin to rise.
type rising struct {
	was  [countersSeen]uint64
	rose [countersSeen]time.Time // zero: never
}

// rise is a counter that stood still and does no longer.
type rise struct {
	name  string
	n     uint64 // since the last look
	limit bool
}

// look compares now with the last look.
func (r *rising) look(now *[countersSeen]uint64, at time.Time) (all []rise) {
	for i, n := range now {
		if n <= r.was[i] {
			continue
		}
		if last := r.rose[i]; last.IsZero() || at.Sub(last) >= calm {
			x := rise{n: n - r.was[i]}
			switch i {
			case evictions:
				x.name, x.limit = "half_open_evicted", true
			case refusals:
				x.name, x.limit = "fdb_refused", true
			default:
				x.name, x.limit = dataplane.Drop(i).String(), limits[dataplane.Drop(i)]
			}
			all = append(all, x)
		}
		r.was[i], r.rose[i] = n, at
	}
	return all
}

// notice logs drops that begin, and limits that are reached.
func (c *Control) notice(at time.Time) {
	var now [countersSeen]uint64
	_, drops := c.engine.Verdicts()
	copy(now[:], drops[:])
	now[evictions] = c.engine.Table.Evicted()
	c.mu.Lock()
	if o := c.reg.overlay; o != nil {
		for _, n := range o.segments {
			now[refusals] += o.refused(n.index)
		}
	}
	c.mu.Unlock()
	for _, x := range c.rising.look(&now, at) {
		if x.limit {
			c.log.Warn("a limit is reached", "kind", "limit", "what", x.name, "count", x.n)
		} else {
			c.log.Info("drops begin", "kind", "drop", "reason", x.name, "count", x.n)
		}
	}
}
