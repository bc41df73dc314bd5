package vxlan

// Ask says whom to ask for an address's MAC, now.
type Ask uint8

const (
	AskNone    Ask = iota
	AskStation     // the station that has it, as far as we know: a request to its MAC
	AskAll         // all: ARP to the broadcast address, ND to the solicited-node group
)

// NeighborQuery asks for the MAC of an address in a segment. MAC is Resolve's answer: zero if it is unknown.
type NeighborQuery struct {
	Addr    Addr
	Segment uint16
	V6      bool
	Ask     Ask // answer: whom the caller must ask
	at      uint32
	MAC     MAC
}

// Resolve answers each query for a packet that is to be sent at now, in passes as [FDB.Lookup]. It says who is to be asked, at most once a second
// for an entry and within the segment's and the table's limit of requests; what it says is counted as asked. An address that is not known
// becomes an incomplete entry.
func (t *Neighbors) Resolve(q []NeighborQuery, now Second) {
	for i := range q {
		p := &q[i]
		p.at = uint32(t.home(who(p.Segment, p.V6), p.Addr))
	}
	for i := range q {
		q[i].MAC = MAC(t.slots[q[i].at].key.Load()) // only to have the line in the cache
	}
	for i := range q {
		t.resolve(&q[i], now)
	}
}

func (t *Neighbors) resolve(q *NeighborQuery, now Second) {
	q.MAC, q.Ask = 0, AskNone
	id := who(q.Segment, q.V6)
	s, k := t.find(int(q.at), id, q.Addr)
	segment := &t.segments[q.Segment]
	if s == nil {
		if !t.admit(segment, true, now) {
			return
		}
		t.lock.lock()
		s = t.add(int(q.at), id, q.Addr, 0, now)
		t.lock.unlock()
		if s != nil && t.mayAsk(segment, s, now) {
			q.Ask = AskAll
		}
		return
	}
	if s.used.Load() != uint32(now) {
		s.used.Store(uint32(now))
	}
	mac, confirmed := s.mac.Load(), Second(s.confirmed.Load())
	if s.key.Load() != k {
		return // it has just died: the next packet finds out
	}
	q.MAC = MAC(mac)
	if mac != 0 && now.since(confirmed) < reachable || !t.mayAsk(segment, s, now) {
		return
	}
	switch tries := s.tries.Load(); {
	case mac != 0 && tries <= askStation:
		q.Ask = AskStation
	case mac != 0 && tries > askStation+askAll:
		s.mac.CompareAndSwap(mac, 0)
		q.MAC = 0
		fallthrough
	default:
		q.Ask = AskAll
	}
}

// mayAsk reports whether a request for s may be sent at now, and counts it if so.
func (t *Neighbors) mayAsk(segment *neighborSegment, s *neighborSlot, now Second) bool {
	asked := s.asked.Load()
	if now.since(Second(asked)) == 0 || !segment.asks.take(now, t.askRate) || !t.asks.take(now, shareOfAll*t.askRate) ||
		!s.asked.CompareAndSwap(asked, uint32(now)) {
		return false
	}
	s.tries.Add(1)
	segment.counts[NeighborAsked].Add(1)
	return true
}

// Proof is how much a message says about its sender's MAC.
type Proof uint8

const (
	Claim     Proof = iota // an advertisement without the override flag: it fills an entry, but changes no MAC (RFC 4861 section 7.2.5)
	Heard                  // a request, or a message nobody asked for: it may change the MAC, and that is to be confirmed
	Seconded               // an answer without the override flag: it confirms the MAC that is known or fills an entry, but else is a Claim
	Confirmed              // an answer
)

// Learn takes notice of an ARP or ND message that a segment with learning accepted: a has the given MAC. Entries are made within the
// limits.
func (t *Neighbors) Learn(segment uint16, a Addr, v6 bool, mac MAC, p Proof, now Second) {
	if !mac.station() || !unicast(a, v6) {
		return
	}
	answer := p >= Seconded
	id := who(segment, v6)
	home := t.home(id, a)
	x := &t.segments[segment]
	s, _ := t.find(home, id, a)
	if s != nil && s.mac.Load() == uint64(mac) && !answer {
		s.heard.Store(uint32(now))
		return
	}
	if s == nil && !answer && !t.spare(x) {
		x.counts[NeighborRefused].Add(1)
		return
	}
	if change := s == nil || s.mac.Load() != uint64(mac); change && !t.admit(x, s == nil, now) {
		return
	}
	t.lock.lock()
	defer t.lock.unlock()
	if s = t.add(home, id, a, mac, now); s == nil {
		x.counts[NeighborRefused].Add(1)
		return
	}
	s.heard.Store(uint32(now))
	if old := s.mac.Load(); old != uint64(mac) {
		if old != 0 && (p == Claim || p == Seconded) {
			if now.since(Second(s.confirmed.Load())) < reachable {
				s.confirmed.Store(uint32(now - reachable)) // two say that they have it: ask
			}
			return
		}
		s.said.Store(0)
		s.mac.Store(uint64(mac))
		if old != 0 {
			x.counts[NeighborChanged].Add(1)
		}
		s.confirmed.Store(uint32(now - reachable))
		s.tries.Store(0)
	}
	if answer {
		s.confirmed.Store(uint32(now))
		s.tries.Store(0)
	}
}

// Confirm takes notice of an answer that came from this MAC and names none, as Linux answers a solicitation to itself (RFC 4861 section 7.2.4).
// From the MAC that a has it is as good as any; it fills no entry (section 7.2.5), and from elsewhere it proves nothing.
func (t *Neighbors) Confirm(segment uint16, a Addr, v6 bool, mac MAC, now Second) {
	id := who(segment, v6)
	t.lock.lock()
	defer t.lock.unlock()
	s, _ := t.find(t.home(id, a), id, a)
	if s == nil || s.mac.Load() != uint64(mac) {
		return
	}
	s.heard.Store(uint32(now))
	s.confirmed.Store(uint32(now))
	s.tries.Store(0)
}

// What a station's advertisement says of it.
const (
	saidHost   = 1
	saidRouter = 2
)

// Advertised takes notice of an advertisement, after Learn: the station with the MAC that a has is a router, or none.
func (t *Neighbors) Advertised(segment uint16, a Addr, mac MAC, router bool) {
	id := who(segment, true)
	s, _ := t.find(t.home(id, a), id, a)
	if s == nil || s.mac.Load() != uint64(mac) {
		return
	}
	said := uint32(saidHost)
	if router {
		said = saidRouter
	}
	if s.said.Load() != said {
		s.said.Store(said)
	}
}

// Known is the MAC of an address that was heard of within the segment's ageing time, zero if there is none: what suppression may
// answer with, if the FDB still knows where that MAC is. It neither makes an entry nor asks.
func (t *Neighbors) Known(segment uint16, a Addr, v6 bool, now Second) MAC {
	mac, _ := t.known(segment, a, v6, now)
	return mac
}

// Proxy is Known for an answer in the station's stead. Of an IPv6 station that must say whether it is a router, for hosts give up a router
// that says no (RFC 4861 section 7.2.5); one that has not said so itself yet is not answered for.
func (t *Neighbors) Proxy(segment uint16, a Addr, v6 bool, now Second) (mac MAC, router bool) {
	mac, said := t.known(segment, a, v6, now)
	if v6 && said == 0 {
		return 0, false
	}
	return mac, said == saidRouter
}

// Proxied counts an answer in a station's stead.
func (t *Neighbors) Proxied(segment uint16) { t.segments[segment].counts[NeighborProxied].Add(1) }

func (t *Neighbors) known(segment uint16, a Addr, v6 bool, now Second) (mac MAC, said uint32) {
	id := who(segment, v6)
	s, k := t.find(t.home(id, a), id, a)
	if s == nil {
		return 0, 0
	}
	mac, said = MAC(s.mac.Load()), s.said.Load()
	heard := Second(s.heard.Load())
	if s.key.Load() != k || now.since(heard) >= t.segments[segment].ageing.Load() {
		return 0, 0
	}
	return mac, said
}

// Expire forgets entries that nobody spoke of or used for their segment's ageing time, incomplete ones after 10 s. It looks at budget slots,
// going on where the last call of any worker stopped, and returns how many it forgot.
func (t *Neighbors) Expire(now Second, budget int) (n int) {
	budget = min(budget, len(t.slots))
	for at := int(claim(&t.cursor, budget, len(t.slots))); budget > 0; budget-- {
		if at == len(t.slots) {
			at = 0
		}
		if t.aged(&t.slots[at], now) {
			t.lock.lock()
			if t.aged(&t.slots[at], now) {
				t.remove(at)
				n++
			}
			t.lock.unlock()
		}
		at++
	}
	return n
}

// Slots is what one pass of Expire over all looks at.
func (t *Neighbors) Slots() int { return len(t.slots) }

// aged reports whether s is an entry that nobody needs any more.
func (t *Neighbors) aged(s *neighborSlot, now Second) bool {
	k := s.key.Load()
	if k&neighborLive == 0 {
		return false
	}
	used, heard := now.since(Second(s.used.Load())), now.since(Second(s.heard.Load()))
	if s.mac.Load() == 0 {
		return used >= incomplete
	}
	return min(used, heard) >= t.segments[k>>48].ageing.Load()
}

// Neighbor is one entry, as control lists it.
type Neighbor struct {
	Segment   uint16
	Addr      Addr
	V6        bool
	MAC       MAC // 0: incomplete
	Reachable bool
	Heard     Second
}

// Range calls f for every entry until it reports false.
func (t *Neighbors) Range(now Second, f func(Neighbor) bool) {
	for i := range t.slots {
		s := &t.slots[i]
		k := s.key.Load()
		n := Neighbor{
			Segment: uint16(k >> 48), Addr: Addr{s.hi.Load(), s.lo.Load()}, V6: k&neighborV6 != 0, MAC: MAC(s.mac.Load()),
			Heard: Second(s.heard.Load()),
		}
		n.Reachable = n.MAC != 0 && now.since(Second(s.confirmed.Load())) < reachable
		if k&neighborLive != 0 && s.key.Load() == k && !f(n) {
			return
		}
	}
}

// Flush forgets the entries that choose reports true for, and returns how many those were.
func (t *Neighbors) Flush(choose func(Neighbor) bool) (n int) {
	t.Range(0, func(x Neighbor) bool {
		if !choose(x) {
			return true
		}
		id := who(x.Segment, x.V6)
		t.lock.lock()
		defer t.lock.unlock()
		if s, _ := t.find(t.home(id, x.Addr), id, x.Addr); s != nil {
			for i := t.home(id, x.Addr); ; i++ {
				if &t.slots[i] == s {
					t.remove(i)
					n++
					break
				}
			}
		}
		return true
	})
	return n
}
