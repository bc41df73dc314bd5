package conntrack

import "sync/atomic"

// counts is how many connections there are, and how many of them are half-open, in one word: a new connection is counted by one instruction
// whatever it is, and on a cache line of its own, for all workers write it.
//
//	63       32 31  0
//	| halfOpen | live |
//
// halfOpen is signed, since the end of a connection may be counted before the transition that was its last. live is not: every connection is
// counted before anybody can end it.
type counts struct {
	word atomic.Uint64
	_    [56]byte
}

const halfOpenUnit = 1 << 32

// units are what a connection in state s counts for.
func (s State) units() uint64 {
	if s.HalfOpen() {
		return 1 + halfOpenUnit
	}
	return 1
}

// enter counts one more connection in state s and returns how many there are then, of all and of half-open ones.
func (c *counts) enter(s State) (live, halfOpen int) { return split(c.word.Add(s.units())) }

// leave takes out a connection whose last state was s.
func (c *counts) leave(s State) { c.word.Add(-s.units()) }

// move counts a transition to half-open or from it.
func (c *counts) move(x Change) { c.word.Add(x.New.units() - x.Old.units()) }

func split(word uint64) (live, halfOpen int) { return int(uint32(word)), int(int32(word >> 32)) }

// Len is the number of connections now.
func (t *Table) Len() int {
	live, _ := split(t.counts.word.Load())
	return live
}

// Cap is the most connections there can be.
func (t *Table) Cap() int { return t.capacity }

// HalfOpen is the number of half-open connections now.
func (t *Table) HalfOpen() int {
	_, n := split(t.counts.word.Load())
	return max(n, 0)
}

// HalfOpenCap is the most half-open connections there can be.
func (t *Table) HalfOpenCap() int { return t.halfOpen }

// Evicted is how many half-open connections have given way to new ones.
func (t *Table) Evicted() uint64 { return t.evicted.Load() }

// Opened is how many connections worker w has inserted since it asked last.
func (t *Table) Opened(w int) int {
	n := t.workers[w].opened
	t.workers[w].opened = 0
	return int(n)
}
