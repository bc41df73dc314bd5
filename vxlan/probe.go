package vxlan

import (
	"runtime"
	"sync/atomic"
)

// The tables are open addressing with linear probing, read without a lock and written under one. As in conntrack's index, a slot never moves, and
// every slot from an entry's home to its own stays occupied while it lives, so a reader that walks to the first empty slot meets every entry
// that was there when it began: removing leaves a tombstone if any entry behind it has its home at or before it, and an empty slot else.

// maxProbe is how many slots, from its home on, an entry may stand in. A table is longer by as much than there are homes, so no probe
// wraps around.
const maxProbe = 128

// slots is a table as erase sees it.
type slots interface {
	// state is the home of the entry in slot i, or vacant, or buried.
	state(i int) int
	// mark makes slot i empty, or a tombstone.
	mark(i int, tombstone bool)
	// len is how many slots there are.
	len() int
}

const (
	vacant = -1
	buried = -2 // a tombstone
)

// erase empties slot i, and the tombstones before it that no entry depends on any more. The table's lock is held. It is an interface's
// method that is called here, once a slot; entries die rarely.
func erase(s slots, i int) {
	first := s.len() // the home of the entry, among those behind the slot looked at, whose probe begins first
	for j := i + 1; j < min(i+maxProbe, s.len()); j++ {
		home := s.state(j)
		if home == vacant {
			break
		}
		if home != buried {
			first = min(first, home)
		}
	}
	s.mark(i, first <= i)
	for n := 0; i > 0 && n < maxProbe; n++ {
		i--
		switch home := s.state(i); home {
		case vacant:
			return
		case buried:
			if first > i {
				s.mark(i, false)
			}
		default:
			first = min(first, home)
		}
	}
}

// spin is a lock that is held for a few dozen instructions.
type spin struct{ held atomic.Uint32 }

// spins bounds the busy waiting: beyond it the holder was most likely taken off its core.
const spins = 100

func (s *spin) lock() {
	for n := 0; ; n++ {
		if s.held.Load() == 0 && s.held.CompareAndSwap(0, 1) {
			return
		}
		if n >= spins {
			runtime.Gosched()
			n = 0
		}
	}
}

func (s *spin) unlock() { s.held.Store(0) }
