package vxlan

import (
	"fmt"
	"math/bits"
	"sync/atomic"
)

// NeighborsOptions say how large a Neighbors is and how it asks.
type NeighborsOptions struct {
	Capacity  int       // most entries of all segments: 1 to MaxFDB
	Segments  int       // their indices are 0 to Segments-1: 1 to 65536
	AskRate   int       // most requests a second in one segment; all together may send four times as many. 0: 256
	LearnRate int       // most new entries, and entries that change, a second, likewise. 0: 1024
	Secret    [2]uint64 // of the hash; zero: random
}

const (
	defaultAskRate       = 256
	defaultNeighborsRate = 1024

	// Times in seconds, and numbers of requests, as Linux has them (RFC 4861 section 10).
	reachable  = 30 // after it was confirmed, an entry is trusted for so long
	askStation = 3  // requests to the station itself, then
	askAll     = 3  // requests to all, then the MAC is given up
	incomplete = 10 // an entry without MAC that nobody uses is kept for so long
)

// Neighbors is which MAC the addresses of each segment's stations have: what a gateway resolves, and what suppression answers from. All
// workers share it. An entry is
//
//	incomplete   asked for, no answer yet
//	reachable    confirmed within 30 s
//	stale        used still, and its station asked, once a second; without an answer all are, and then it is incomplete
//
// It is a table like [FDB], of one slot a cache line. A key has a generation, so a reader that finds it unchanged after it has read the rest
// knows that these belong together.
type Neighbors struct {
	// read for every packet
	key   key
	homes uint64
	slots []neighborSlot

	// written for new entries and those that change or die
	_      [64]byte // keeps what is written off the line above
	lock   spin
	used   atomic.Int64
	asks   ration
	learns ration
	cursor atomic.Uint64 // of Expire: the next slot

	generation uint64 // under lock
	segments   []neighborSegment
	capacity   int
	askRate    uint32
	learnRate  uint32
}

type neighborSlot struct {
	key       atomic.Uint64
	hi, lo    atomic.Uint64
	mac       atomic.Uint64 // 0: incomplete
	confirmed atomic.Uint32 // Second of the latest proof that the station has this MAC
	heard     atomic.Uint32 // Second of the latest message about it
	used      atomic.Uint32 // Second of the latest packet for it
	asked     atomic.Uint32 // Second of the latest request
	tries     atomic.Uint32 // requests since it was confirmed
	said      atomic.Uint32 // what the station said of itself with this MAC: saidHost or saidRouter; 0: nothing
	_         [8]byte       // pads to a cache line
}

// neighborSegment is what one segment has of Neighbors.
type neighborSegment struct {
	limit  atomic.Uint32
	ageing atomic.Uint32
	used   atomic.Int64
	asks   ration
	learns ration
	counts [numNeighborCounts]atomic.Uint64
}

// NeighborCount names what Neighbors counts in each segment.
type NeighborCount uint8

const (
	NeighborNew     NeighborCount = iota // entries
	NeighborChanged                      // entries that got another MAC
	NeighborAsked                        // requests
	NeighborRefused                      // entries and changes, for want of room or because there were too many in this second
	NeighborProxied                      // requests that were answered in a station's stead
	numNeighborCounts
)

// A key is
//
//	63 segment 48 | 47 IPv6 | 46 live | 45 generation 0
const (
	neighborTombstone = 1
	neighborLive      = 1 << 46
	neighborV6        = 1 << 47
	generationMask    = neighborLive - 1
)

// NewNeighbors makes an empty Neighbors. No segment may have entries until [Neighbors.Configure].
func NewNeighbors(o NeighborsOptions) (*Neighbors, error) {
	switch {
	case o.Capacity < 1 || o.Capacity > MaxFDB:
		return nil, fmt.Errorf("vxlan: %d neighbours: must be 1 to %d", o.Capacity, MaxFDB)
	case o.Segments < 1 || o.Segments > MaxSegments:
		return nil, fmt.Errorf("vxlan: neighbours of %d segments: must be 1 to %d", o.Segments, MaxSegments)
	case o.AskRate < 0 || o.LearnRate < 0 || o.AskRate > MaxRate || o.LearnRate > MaxRate:
		return nil, fmt.Errorf("vxlan: neighbours with %d requests and %d changes a second: must be at most %d", o.AskRate, o.LearnRate, MaxRate)
	}
	if o.AskRate == 0 {
		o.AskRate = defaultAskRate
	}
	if o.LearnRate == 0 {
		o.LearnRate = defaultNeighborsRate
	}
	t := &Neighbors{
		key: newKey(secretOr(o.Secret)), homes: uint64(2 * o.Capacity), segments: make([]neighborSegment, o.Segments),
		capacity: o.Capacity, askRate: uint32(o.AskRate), learnRate: uint32(o.LearnRate),
	}
	t.slots = make([]neighborSlot, t.homes+maxProbe)
	return t, nil
}

// Configure sets how many entries a segment may have, and for how many seconds one is kept that nobody speaks of or uses.
func (t *Neighbors) Configure(segment uint16, limit, ageing uint32) {
	s := &t.segments[segment]
	s.limit.Store(limit)
	s.ageing.Store(ageing)
}

// who is a key without its generation.
func who(segment uint16, v6 bool) uint64 {
	k := uint64(segment)<<48 | neighborLive
	if v6 {
		k |= neighborV6
	}
	return k
}

func (t *Neighbors) home(who uint64, a Addr) int {
	hi, _ := bits.Mul64(t.key.two(a.Hi^bits.RotateLeft64(who, 32), a.Lo), t.homes)
	return int(hi)
}

// find returns the slot of an entry whose probe begins at home, and its key as it is now; or nil.
func (t *Neighbors) find(home int, who uint64, a Addr) (s *neighborSlot, key uint64) {
	for i := home; i < home+maxProbe; i++ {
		s := &t.slots[i]
		k := s.key.Load()
		if k == keyEmpty {
			break
		}
		if k&^generationMask == who && s.lo.Load() == a.Lo && s.hi.Load() == a.Hi && s.key.Load() == k {
			return s, k
		}
	}
	return nil, 0
}

// add makes an entry, unless another worker was first, and returns it; nil if there is no room. The lock is held.
func (t *Neighbors) add(home int, who uint64, a Addr, mac MAC, now Second) *neighborSlot {
	if s, _ := t.find(home, who, a); s != nil {
		return s
	}
	segment := &t.segments[who>>48]
	if !t.room(segment) {
		return nil
	}
	for i := home; i < home+maxProbe; i++ {
		s := &t.slots[i]
		if k := s.key.Load(); k != keyEmpty && k != neighborTombstone {
			continue
		}
		t.generation++
		s.hi.Store(a.Hi)
		s.lo.Store(a.Lo)
		s.mac.Store(uint64(mac))
		s.confirmed.Store(uint32(now - reachable))
		s.heard.Store(uint32(now))
		s.used.Store(uint32(now))
		s.asked.Store(uint32(now - 1))
		s.tries.Store(0)
		s.said.Store(0)
		s.key.Store(who | t.generation&generationMask)
		t.used.Add(1)
		segment.used.Add(1)
		segment.counts[NeighborNew].Add(1)
		return s
	}
	return nil
}

func (t *Neighbors) room(s *neighborSegment) bool {
	return s.used.Load() < int64(s.limit.Load()) && t.used.Load() < int64(t.capacity)
}

// spare reports whether there is room for entries that nobody asked for: three quarters, so that a station that speaks for very many addresses does not
// keep the gateways from asking for theirs.
func (t *Neighbors) spare(s *neighborSegment) bool {
	return 4*s.used.Load() < 3*int64(s.limit.Load()) && 4*t.used.Load() < 3*int64(t.capacity)
}

// admit reports whether a segment may have another entry, or another MAC of one, at now. What is refused is counted.
func (t *Neighbors) admit(s *neighborSegment, another bool, now Second) bool {
	if another && !t.room(s) || !s.learns.take(now, t.learnRate) || !t.learns.take(now, shareOfAll*t.learnRate) {
		s.counts[NeighborRefused].Add(1)
		return false
	}
	return true
}

// remove takes the entry of slot i away. The lock is held.
func (t *Neighbors) remove(i int) {
	t.segments[t.slots[i].key.Load()>>48].used.Add(-1)
	t.used.Add(-1)
	erase(t, i)
}

func (t *Neighbors) len() int { return len(t.slots) }

func (t *Neighbors) state(i int) int {
	s := &t.slots[i]
	switch k := s.key.Load(); k {
	case keyEmpty:
		return vacant
	case neighborTombstone:
		return buried
	default:
		return t.home(k&^generationMask, Addr{s.hi.Load(), s.lo.Load()})
	}
}

func (t *Neighbors) mark(i int, tombstone bool) {
	k := uint64(keyEmpty)
	if tombstone {
		k = neighborTombstone
	}
	t.slots[i].key.Store(k)
}

// Len is the number of entries of all segments.
func (t *Neighbors) Len() int { return int(t.used.Load()) }

// Used is the number of a segment's entries.
func (t *Neighbors) Used(segment uint16) int { return int(t.segments[segment].used.Load()) }

// Count is how often c happened in a segment.
func (t *Neighbors) Count(segment uint16, c NeighborCount) uint64 {
	return t.segments[segment].counts[c].Load()
}
