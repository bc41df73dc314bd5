//go:build !race

package conntrack

import "sync/atomic"

// counter counts the packets of one direction. These come to one worker, as a network card keeps a flow's packets on one queue, so a plain
// store does in place of a locked instruction, which would cost as much as the rest of Track. If a card moves the flow, the two workers'
// counts may meet and one packet be missing in a listing: nothing is decided by it. The race detector cannot know that: counter_race.go.
type counter uint64

func (c *counter) add(n uint64) { *c += counter(n) }
func (c *counter) set(n uint64) { *c = counter(n) }
func (c *counter) load() uint64 { return atomic.LoadUint64((*uint64)(c)) }
