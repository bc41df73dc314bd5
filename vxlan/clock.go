package vxlan

import "sync/atomic"

// Second is a coarse time: seconds of any clock that does not go back, the same one for all workers. It wraps after 136 years.
type Second uint32

// SecondOf is the Second of a clock's nanoseconds.
func SecondOf(ns int64) Second { return Second(ns / 1e9) }

// since is how long ago then was, zero if it is to come: workers' clocks may be a vector apart.
func (s Second) since(then Second) uint32 {
	if d := int32(s - then); d > 0 {
		return uint32(d)
	}
	return 0
}

// ration lets a number of events happen in each second. One word holds the second and what was used up of it.
type ration struct{ word atomic.Uint64 }

// take reports whether one more event may happen at now, where n may in one second, and counts it if so.
func (r *ration) take(now Second, n uint32) bool {
	for {
		old := r.word.Load()
		second, used := Second(old>>32), uint32(old)
		if now.since(second) > 0 { // an earlier one is a worker's that is a vector behind
			second, used = now, 0
		}
		if used >= n {
			return false
		}
		if r.word.CompareAndSwap(old, uint64(second)<<32|uint64(used+1)) {
			return true
		}
	}
}
