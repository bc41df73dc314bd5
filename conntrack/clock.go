package conntrack

import "time"

// Tick is a coarse time, nanoseconds>>22: 4.19 ms. It wraps every 208 days, so two Ticks are compared by their signed difference,
// right while they are less than 104 days apart.
type Tick uint32

const tickShift = 22

// MaxTimeout is the longest timeout in ticks, 52 days: half of what a signed difference can tell, so that a connection that has
// expired still looks expired 52 days later.
const MaxTimeout = 1 << 30

// TickOf is the Tick of a clock's nanoseconds. Any clock that does not go back will do, the same one for all workers.
func TickOf(ns int64) Tick { return Tick(ns >> tickShift) }

// Ticks is d in ticks, rounded up and held within 0 and [MaxTimeout].
func Ticks(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	if d >= MaxTimeout<<tickShift {
		return MaxTimeout
	}
	return uint32((d + 1<<tickShift - 1) >> tickShift)
}

// since is the signed number of ticks from then to t.
func (t Tick) since(then Tick) int32 { return int32(t - then) }
