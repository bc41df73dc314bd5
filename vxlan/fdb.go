package vxlan

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync/atomic"
)

// FDBOptions say how large an FDB is.
type FDBOptions struct {
	Capacity int // most entries of all segments: 1 to MaxFDB
	Segments int // their indices are 0 to Segments-1: 1 to 65536

	// LearnRate is how many entries may be new or move in a second, in one segment; all together may have four times as many. 0: 4096.
	LearnRate int
	Secret    [2]uint64 // of the hash; zero: random
}

// Limits of [FDBOptions].
const (
	MaxFDB      = 1 << 24
	MaxSegments = 1 << 16
	MaxRate     = 1 << 28
)

const (
	defaultLearnRate = 4096
	shareOfAll       = 4 // a segment may use up a quarter of what all may
)

// FDB is the forwarding database: which station of which segment is where. All workers share it.
//
// A slot is two words, four slots to a cache line. The second is zero while the slot is being filled or emptied:
//
//	key   63 segment 48 47                MAC                 0
//	val   63            seen              32 31 check 19 18 static 17 place 0
//
// A slot may be given to another key between a reader's two loads. check, some bits of the key's hash, and a second look at the key tell.
// seen is written without the lock, by compare-and-swap, at most once a second; all else under it.
type FDB struct {
	// read for every packet
	key   key
	homes uint64
	slots []fdbSlot

	// written for new entries and those that move or die
	_      [64]byte // keeps what is written off the line above
	lock   spin
	used   atomic.Int64
	budget ration
	cursor atomic.Uint64 // of Expire: the next slot

	moves    []moves // by slot
	segments []fdbSegment
	capacity int
	rate     uint32
	refused  atomic.Uint64 // for want of room in all
}

type fdbSlot struct{ key, val atomic.Uint64 }

// fdbSegment is what one segment has of the FDB.
type fdbSegment struct {
	limit   atomic.Uint32 // most entries that are learned
	ageing  atomic.Uint32 // in seconds, 0: never
	used    atomic.Int64  // entries, static ones too
	learned atomic.Int64  // those that are not static
	budget  ration
	flaps   atomic.Uint64 // entries that were frozen
	counts  [numCounts]atomic.Uint64
	_       [8]byte // pads to two cache lines
}

const (
	keyEmpty     = 0
	keyTombstone = ^uint64(0) // a group's address, so nobody's

	valStatic  = 1 << placeBits
	checkShift = placeBits + 1
	checkMask  = 1<<32 - 1<<checkShift
	seenShift  = 32
)

// NewFDB makes an empty FDB. No segment may learn until [FDB.Configure].
func NewFDB(o FDBOptions) (*FDB, error) {
	switch {
	case o.Capacity < 1 || o.Capacity > MaxFDB:
		return nil, fmt.Errorf("vxlan: FDB of %d entries: must be 1 to %d", o.Capacity, MaxFDB)
	case o.Segments < 1 || o.Segments > MaxSegments:
		return nil, fmt.Errorf("vxlan: FDB of %d segments: must be 1 to %d", o.Segments, MaxSegments)
	case o.LearnRate < 0 || o.LearnRate > MaxRate:
		return nil, fmt.Errorf("vxlan: FDB learning %d entries a second: must be at most %d", o.LearnRate, MaxRate)
	}
	if o.LearnRate == 0 {
		o.LearnRate = defaultLearnRate
	}
	t := &FDB{
		key: newKey(secretOr(o.Secret)), homes: uint64(2 * o.Capacity),
		capacity: o.Capacity, rate: uint32(o.LearnRate),
		segments: make([]fdbSegment, o.Segments),
	}
	t.slots = make([]fdbSlot, t.homes+maxProbe)
	t.moves = make([]moves, len(t.slots))
	return t, nil
}

// secretOr is secret, or a random one if that is zero.
func secretOr(secret [2]uint64) [2]uint64 {
	if secret == [2]uint64{} {
		var b [16]byte
		rand.Read(b[:])
		return [2]uint64{binary.NativeEndian.Uint64(b[:]), binary.NativeEndian.Uint64(b[8:])}
	}
	return secret
}

// Configure sets how many entries a segment may learn and after how many seconds without a frame one is forgotten, 0: never. It holds at
// once for entries that are there, but a lower limit takes none away. Static entries need no room.
func (t *FDB) Configure(segment uint16, limit, ageing uint32) {
	s := &t.segments[segment]
	s.limit.Store(limit)
	s.ageing.Store(ageing)
}

func keyOf(segment uint16, mac MAC) uint64 { return uint64(segment)<<48 | uint64(mac&macMask) }

// hash is two multiplications deep: with one, a million MACs in sequence, as a hypervisor gives them out, made a probe of 137 slots under
// some secrets; with two the longest seen was 43.
func (t *FDB) hash(key uint64) uint64 { return t.key.two(key, 0) }

// home is where the probe of a hash begins.
func (t *FDB) home(h uint64) uint32 {
	hi, _ := bits.Mul64(h, t.homes)
	return uint32(hi)
}

// check are the bits of a hash that stand in val. home uses the others.
func check(h uint64) uint64 { return h << checkShift & checkMask }

// Query asks where a station is. Place is Lookup's answer: zero if that is unknown.
type Query struct {
	Segment uint16
	Static  bool // answer: the entry is static
	at      uint32
	MAC     MAC
	Place   Place
	check   uint32
	key     uint64 // what stands in the first slot
}

// Lookup answers each query. It goes over all of them in passes, so that the cache misses of one pass overlap.
func (t *FDB) Lookup(q []Query) {
	for i := range q {
		p := &q[i]
		h := t.hash(keyOf(p.Segment, p.MAC))
		p.at, p.check = t.home(h), uint32(check(h))
	}
	for i := range q {
		p := &q[i]
		p.key = t.slots[p.at].key.Load()
	}
	for i := range q {
		p := &q[i]
		k := keyOf(p.Segment, p.MAC)
		p.Place, p.Static = 0, false
		for at, s := p.at, p.key; s != keyEmpty && at < p.at+maxProbe; s = t.slots[at].key.Load() {
			if s == k {
				if v := t.slots[at].val.Load(); v&checkMask == uint64(p.check) && t.slots[at].key.Load() == k {
					p.Place, p.Static = Place(v)&placeMask, v&valStatic != 0
				}
				break
			}
			at++
		}
	}
}

// find returns the slot of key k, of hash h, and what its val is, or -1.
func (t *FDB) find(k, h uint64) (at int, val uint64) {
	home := int(t.home(h))
	for i := home; i < home+maxProbe; i++ {
		switch t.slots[i].key.Load() {
		case keyEmpty:
			return -1, 0
		case k:
			v := t.slots[i].val.Load()
			if v == 0 || v&checkMask != check(h) || t.slots[i].key.Load() != k {
				return -1, 0
			}
			return i, v
		}
	}
	return -1, 0
}

// place finds a slot for a new entry of hash h, or -1. The lock is held.
func (t *FDB) place(h uint64) int {
	home := int(t.home(h))
	for i := home; i < home+maxProbe; i++ {
		if k := t.slots[i].key.Load(); k == keyEmpty || k == keyTombstone {
			return i
		}
	}
	return -1
}

// put writes a new entry. The lock is held.
func (t *FDB) put(at int, k, val uint64) {
	t.moves[at].reset()
	t.slots[at].key.Store(k)
	t.slots[at].val.Store(val)
	t.used.Add(1)
	s := &t.segments[k>>48]
	s.used.Add(1)
	if val&valStatic == 0 {
		s.learned.Add(1)
	}
}

// remove takes the entry of slot at away, whose val was val and is zero already. The lock is held.
func (t *FDB) remove(at int, val uint64) {
	s := &t.segments[t.slots[at].key.Load()>>48]
	t.used.Add(-1)
	s.used.Add(-1)
	if val&valStatic == 0 {
		s.learned.Add(-1)
	}
	erase(t, at)
}

func (t *FDB) len() int { return len(t.slots) }

func (t *FDB) state(i int) int {
	switch k := t.slots[i].key.Load(); k {
	case keyEmpty:
		return vacant
	case keyTombstone:
		return buried
	default:
		return int(t.home(t.hash(k)))
	}
}

func (t *FDB) mark(i int, tombstone bool) {
	k := uint64(keyEmpty)
	if tombstone {
		k = keyTombstone
	}
	t.slots[i].key.Store(k)
}

// Len is the number of entries of all segments.
func (t *FDB) Len() int { return int(t.used.Load()) }

// Cap is the most entries there can be.
func (t *FDB) Cap() int { return t.capacity }
