//go:build !race

package dataplane

import "sync/atomic"

// counter has one writer, its worker. A plain store suffices on every platform that Go has: an aligned word is never torn, and a
// reader that is a little late reads an earlier, true count. The race detector cannot know that, so its build uses counters_race.go.
type counter uint64

func (c *counter) add(n uint64) { *c += counter(n) }
func (c *counter) sub(n uint64) { *c -= counter(n) }
func (c *counter) load() uint64 { return atomic.LoadUint64((*uint64)(c)) }
