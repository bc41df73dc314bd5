//go:build race

package dataplane

import "sync/atomic"

type counter uint64

func (c *counter) add(n uint64) { atomic.StoreUint64((*uint64)(c), uint64(*c)+n) }
func (c *counter) sub(n uint64) { atomic.StoreUint64((*uint64)(c), uint64(*c)-n) }
func (c *counter) load() uint64 { return atomic.LoadUint64((*uint64)(c)) }
