package vxlan

import (
	"net/netip"
	"sync/atomic"
)

// Strangers counts, by address, the sources that sent into a segment without being its peers. It is bounded: of the sources that
// fall into one row, those that were silent longest make room, and only so many new ones are noted in a second.
type Strangers struct {
	key    key
	budget ration
	lock   spin
	rows   [strangerRows][strangerRow]stranger
	others atomic.Uint64
}

const (
	strangerRows    = 256
	strangerRow     = 8
	strangersSecond = 256 // new ones a second
)

// stranger is one source. name is a keyed hash of segment and address, zero while the rest is written.
type stranger struct {
	name, count, hi, lo, segment atomic.Uint64 // segment has the family in bit 16
	seen                         atomic.Uint32
}

// Stranger is a source as control lists it.
type Stranger struct {
	Segment uint16
	Addr    netip.Addr
	Count   uint64 // frames since it was first noted
	Seen    Second // of the last one
}

// NewStrangers makes an empty table. A secret of zero is replaced by a random one.
func NewStrangers(secret [2]uint64) *Strangers { return &Strangers{key: newKey(secretOr(secret))} }

// Note counts a frame that a source sent into a segment, and reports whether the source was not noted yet and is now. It takes the lock for
// new sources alone, within their limit.
func (t *Strangers) Note(segment uint16, a Addr, v6 bool, now Second) (fresh bool) {
	where := uint64(segment)
	if v6 {
		where |= 1 << 16
	}
	name := t.key.two(a.Hi^where<<32, a.Lo) | 1
	row := &t.rows[name>>56%strangerRows]
	for i := range row {
		if s := &row[i]; s.name.Load() == name {
			s.count.Add(1)
			if s.seen.Load() != uint32(now) {
				s.seen.Store(uint32(now))
			}
			return false
		}
	}
	if !t.budget.take(now, strangersSecond) {
		t.others.Add(1)
		return false
	}
	t.lock.lock()
	defer t.lock.unlock()
	victim := &row[0]
	for i := range row {
		s := &row[i]
		if s.name.Load() == name {
			s.count.Add(1)
			return false
		}
		if victim.name.Load() != 0 && (s.name.Load() == 0 || now.since(Second(s.seen.Load())) > now.since(Second(victim.seen.Load()))) {
			victim = s
		}
	}
	if victim.name.Swap(0) != 0 {
		t.others.Add(victim.count.Load())
	}
	victim.hi.Store(a.Hi)
	victim.lo.Store(a.Lo)
	victim.segment.Store(where)
	victim.seen.Store(uint32(now))
	victim.count.Store(1)
	victim.name.Store(name)
	return true
}

// List is all sources that are noted, in no order, and how many frames came from others.
func (t *Strangers) List() (list []Stranger, others uint64) {
	t.lock.lock()
	defer t.lock.unlock()
	for r := range t.rows {
		for i := range t.rows[r] {
			s := &t.rows[r][i]
			if s.name.Load() == 0 {
				continue
			}
			where := s.segment.Load()
			list = append(list, Stranger{
				Segment: uint16(where), Addr: Addr{s.hi.Load(), s.lo.Load()}.Netip(where>>16 != 0),
				Count: s.count.Load(), Seen: Second(s.seen.Load()),
			})
		}
	}
	return list, t.others.Load()
}
