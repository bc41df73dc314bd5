package vxlan

import "sync/atomic"

// A station that moves too often is in two places, or a loop makes it look so (RFC 7432 section 15.1, whose numbers these are): after
// flapMoves moves within flapWindow it stays where it is for flapFreeze.
const (
	flapMoves  = 5
	flapWindow = 180 // seconds
	flapFreeze = 180
)

// moves is how an entry has moved. first and count are written under the table's lock.
type moves struct {
	first  Second        // the move that the window begins with
	count  uint32        // moves in the window
	frozen atomic.Uint32 // the Second until which it stays where it is; zero: it may move
}

func (m *moves) reset() {
	m.first, m.count = 0, 0
	m.frozen.Store(0)
}

// frozenAt reports whether the entry may not move at now.
func (m *moves) frozenAt(now Second) bool {
	until := m.frozen.Load()
	return until != 0 && Second(until).since(now) > 0
}

// note counts a move at now, and freezes the entry if there were too many.
func (m *moves) note(now Second) (froze bool) {
	if m.count == 0 || now.since(m.first) >= flapWindow {
		m.first, m.count = now, 0
	}
	if m.count++; m.count < flapMoves {
		m.frozen.Store(0)
		return false
	}
	m.count = 0
	m.frozen.Store(max(uint32(now+flapFreeze), 1))
	return true
}

// immovable reports why the entry of slot i cannot move, or Known if it can.
func (t *FDB) immovable(i int, val uint64, now Second) Learned {
	switch {
	case Place(val)&placeMask == AtGateway:
		return Own
	case val&valStatic != 0:
		return Static
	case t.moves[i].frozenAt(now):
		return Frozen
	}
	return Known
}

// move makes val, which slot i has, be fresh. The lock is held, so only seen changes meanwhile.
func (t *FDB) move(i int, val, fresh uint64, now Second) Learned {
	if val&uint64(placeMask) == fresh&uint64(placeMask) {
		return Known // another worker was first
	}
	if l := t.immovable(i, val, now); l != Known {
		return l
	}
	if t.moves[i].note(now) {
		t.segments[t.slots[i].key.Load()>>48].flaps.Add(1)
	}
	t.slots[i].val.Store(fresh) // seen, which another worker may have moved up, is as new here
	return Moved
}

// Flaps is how often an entry of a segment was frozen because it moved too often.
func (t *FDB) Flaps(segment uint16) uint64 { return t.segments[segment].flaps.Load() }
