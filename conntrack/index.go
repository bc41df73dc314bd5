package conntrack

import (
	"runtime"
	"sync/atomic"
)

// The index is open addressing with linear probing, read without a lock. Writers of a stretch of it hold that stretch's lock. A slot is
//
//	63     40 39      32 31  0
//	| hash   | distance | Ref |
//
// where distance is how far from its home it stands; the upper half is the tag. A reader knows the distance of each slot it tries, so it
// compares all 32 bits of the tag, and a writer knows the home of each slot without a look at its entry.
//
// A slot never moves, and every slot between an entry's home and its slot stays occupied while the entry lives:
//
//   - inserting fills a slot and empties none;
//   - removing leaves a tombstone if any entry behind it has its home at or before it, and an empty slot else.
//
// A reader that walks from the home to the first empty slot therefore meets every entry that was there when it began, whatever writers
// do meanwhile, without a sequence to check. Shifting later entries back over the hole needs no tombstones, but a reader could
// pass a slot just before an entry moves into it, so each miss would have to be verified, and a miss is what a SYN flood makes.
//
// Tombstones do not grow without limit: an insertion that probes across one takes it, and a removal clears those before it that nothing
// depends on any more. (Clearing only before an empty slot is not enough: after some turnovers no slot was empty.)
// TestChurnKeepsProbesShort holds the lengths to that.

const (
	// maxProbe is how many slots, from its home on, an entry may stand in: what 8 bits of distance can tell. At a load of one half the
	// longest run of 2^28 random entries is around 100.
	maxProbe = 256

	slotEmpty     uint64 = 0
	slotTombstone uint64 = 1 // Ref 1 is nobody's: its connection is number 0

	stretchBits = 11 // a lock covers 2048 slots, so that a probe lies in one stretch or two
)

func stretch(at uint32) uint32 { return at >> stretchBits }

// tag is what stands in a slot at its home; each step from there adds one.
func tag(h uint64) uint32 { return uint32(h) &^ (maxProbe - 1) }

func slotOf(h uint64, distance uint32, r Ref) uint64 { return uint64(tag(h)+distance)<<32 | uint64(r) }

// spin is a lock that is held for a few dozen instructions. It takes no part in the scheduler's bookkeeping as a sync.Mutex does.
type spin struct{ held atomic.Uint32 }

// spins bounds the busy waiting: beyond it the holder was most likely taken off its core, and turning on would only keep it off.
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

// stretches are the stretches that probes from one or two homes can reach, in ascending order, so that two writers never wait for
// each other.
type stretches struct {
	at [4]uint32
	n  int
}

func (s *stretches) add(home uint32) {
	s.insert(stretch(home))
	s.insert(stretch(home + maxProbe))
}

func (s *stretches) insert(x uint32) {
	i := s.n
	for ; i > 0 && s.at[(i-1)&3] >= x; i-- {
		if s.at[(i-1)&3] == x {
			return
		}
	}
	for j := s.n; j > i; j-- {
		s.at[j&3] = s.at[(j-1)&3]
	}
	s.at[i&3] = x
	s.n++
}

func (t *Table) lock(s *stretches) {
	for i := 0; i < s.n; i++ {
		t.locks[s.at[i&3]].lock()
	}
}

func (t *Table) unlock(s *stretches) {
	for i := s.n - 1; i >= 0; i-- {
		t.locks[s.at[i&3]].unlock()
	}
}

// nowhere is no place of the index.
const nowhere = ^uint32(0)

// find returns the place of q's entry and what stands there; or, with a Ref of zero, a place where it may be put other than taken;
// or nowhere if the probe is at its limit. The stretches of q's home are locked.
func (t *Table) find(q *Tuple, h uint64, taken uint32) (at uint32, r Ref) {
	free := nowhere
	home := t.home(h)
	for i := home; i < home+maxProbe; i++ {
		s := atomic.LoadUint64(&t.index[i])
		switch {
		case i == taken:
		case s == slotEmpty:
			if free == nowhere {
				free = i
			}
			return free, 0
		case s == slotTombstone:
			if free == nowhere {
				free = i
			}
		case uint32(s>>32) == tag(h)+i-home && t.is(Ref(s), q):
			return i, Ref(s)
		}
	}
	return free, 0
}

// remove takes r, of hash h, out of the index, if it still stands there. The stretches of h's home are locked.
func (t *Table) remove(h uint64, r Ref) {
	home := t.home(h)
	for i := home; i < home+maxProbe; i++ {
		s := atomic.LoadUint64(&t.index[i])
		if s == slotEmpty {
			return
		}
		if Ref(s) == r {
			t.erase(i, stretch(home)<<stretchBits)
			return
		}
	}
}

// erase removes slot i, and the tombstones before it, down to slot low, that no entry depends on. The stretches from low to i are locked.
// What is behind i is read without its lock: an entry there that depends on i was put there under i's lock, so it can only go away.
func (t *Table) erase(i, low uint32) {
	// first is the home of the entry, among those behind the slot looked at, whose probe begins first.
	first := nowhere
	for j := i + 1; j < i+maxProbe && int(j) < len(t.index); j++ {
		s := atomic.LoadUint64(&t.index[j])
		if s == slotEmpty {
			break
		}
		if s != slotTombstone {
			first = min(first, j-uint32(s>>32)&(maxProbe-1))
		}
	}
	if first > i {
		atomic.StoreUint64(&t.index[i], slotEmpty)
	} else {
		atomic.StoreUint64(&t.index[i], slotTombstone)
	}
	for n := 0; i > low && n < maxProbe; n++ {
		i--
		switch s := atomic.LoadUint64(&t.index[i]); s {
		case slotEmpty:
			return
		case slotTombstone:
			if first > i {
				atomic.StoreUint64(&t.index[i], slotEmpty)
			}
		default:
			first = min(first, i-uint32(s>>32)&(maxProbe-1))
		}
	}
}
