package dataplane

import (
	"math"
	"runtime"
	"sync/atomic"

	"weir/conntrack"
	"weir/dataplane/packet"
)

// Only the first fragment of a datagram shows its ports, and the others may come to another worker: they carry no ports to hash. So what
// became of the first is written down here, in a map of all workers by (addresses, protocol if IPv4, identification), and the others become the
// same. Nothing is gathered or copied: each fragment goes on at once, but one that comes before its first waits for it (wait list
// below), for a moment.
//
// What has been seen of a datagram is kept as ranges, to find overlaps, which serve attacks alone: IPv6 forbids them (RFC 5722), and
// with IPv4 different hosts put different things together (RFC 3128). A datagram with one is cut off from then on.
type fragmentMap struct {
	secret uint64
	firsts atomic.Uint64 // first fragments that were entered: what came early may go
	sets   [fragmentSets]fragmentSet
}

const (
	fragmentSets   = 1024
	fragmentWays   = 4
	fragmentRanges = 32             // pieces of one datagram; 65535 bytes at an MTU of 1500 are 45, but such datagrams are nobody's
	fragmentLife   = 30_000_000_000 // nanoseconds, of a datagram from its first-seen fragment (RFC 791 says 15 s, Linux 30 s)
)

// fragmentSet is a few datagrams whose keys hash alike. Fragments are rare and each takes the set's lock.
type fragmentSet struct {
	lock atomic.Uint32
	ways [fragmentWays]datagramInPieces
}

// datagramInPieces is what is known of one datagram.
type datagramInPieces struct {
	key      fragmentKey
	deadline int64 // nanoseconds; in the past: free
	known    bool  // the first fragment has been seen: to is valid
	cut      bool  // an overlap was seen
	pieces   uint8
	have     uint16 // bytes seen
	total    uint16 // bytes of the whole datagram, 0 until its last fragment was seen
	to       tail
	seen     [fragmentRanges]struct{ from, to uint16 } // in bytes
}

type fragmentKey struct {
	src, dst conntrack.Addr
	id       uint32
	vni      uint32 // of the segment that they come from: other tenants have the same addresses
	proto    uint8  // 0 with IPv6: fragments of one packet may name different ones (RFC 8200 section 4.5)
	v6       bool
}

// tail is what later fragments become: the addresses of the first one's connection, or what its tunnel makes of it.
type tail struct {
	src, dst conntrack.Addr
	server   conntrack.Addr // that of backend: a one-packet connection does not keep its ID from another
	backend  uint32
	vni      uint32 // of the segment that they go into
	flags    connFlags
	reply    bool
	routed   bool // of no connection: each by itself goes the way of its destination
}

func (s *fragmentSet) acquire() {
	for i := 0; !s.lock.CompareAndSwap(0, 1); i++ {
		if i > 100 {
			runtime.Gosched() // whoever has it was stopped by its kernel
		}
	}
}

func (s *fragmentSet) release() { s.lock.Store(0) }

func keyOf(f *packet.Frame, vni uint32) (k fragmentKey) {
	k.vni = vni
	k.src, k.dst = addresses(f, f.L3)
	if k.id, k.v6 = f.FragmentID, f.Kind&packet.KindIPv6 != 0; !k.v6 {
		k.proto = f.Proto
	}
	return k
}

func (m *fragmentMap) set(k *fragmentKey) *fragmentSet {
	h := mix(m.secret, k.src.Hi^k.dst.Lo<<1, k.src.Lo^uint64(k.id)<<32)
	return &m.sets[mix(h^uint64(k.vni)<<8, k.dst.Hi, k.dst.Lo^uint64(k.proto))%fragmentSets]
}

// find returns the datagram with key k, or the free way, or the one that ends first, if there is none and enter is set.
func (s *fragmentSet) find(k *fragmentKey, now int64, enter bool) *datagramInPieces {
	oldest := &s.ways[0]
	for i := range s.ways {
		d := &s.ways[i]
		if d.deadline > now && d.key == *k {
			return d
		}
		if d.deadline < oldest.deadline {
			oldest = d
		}
	}
	if !enter {
		return nil
	}
	*oldest = datagramInPieces{key: *k, deadline: now + fragmentLife}
	return oldest
}

// add notes the bytes of f and reports what is wrong with them, or DropNone. A datagram that is complete is forgotten: a busy sender
// uses its identification again long before fragmentLife is over.
func (d *datagramInPieces) add(f *packet.Frame) Drop {
	from, to := span(f)
	if d.cut {
		return DropFragmentOverlap
	}
	for _, x := range d.seen[:d.pieces] {
		if x.from == from && x.to == to {
			return DropFragmentDuplicate
		}
		if from < x.to && x.from < to {
			d.cut = true
			return DropFragmentOverlap
		}
	}
	if d.pieces == fragmentRanges {
		d.cut = true
		return DropFragmentMany
	}
	d.seen[d.pieces].from, d.seen[d.pieces].to = from, to
	d.pieces++
	d.have += to - from
	if last(f) {
		d.total = to
	}
	if (d.known || from == 0) && d.have == d.total {
		d.deadline = 0
	}
	return DropNone
}

// last reports whether a later fragment is the last one of its datagram. An IPv6 one begins right behind its fragment header.
func last(f *packet.Frame) bool {
	b := f.Chunk()
	switch {
	case f.Kind&packet.KindLaterFragment == 0:
		return false
	case f.Kind&packet.KindIPv6 != 0:
		return b[f.L4-8+3]&1 == 0
	}
	return be16(b[f.L3+6:])&moreFragments == 0
}

const moreFragments = 0x2000 // in the IPv4 header's word of flags and fragment offset

// span is the bytes of the datagram that f holds. Extension headers behind an IPv6 first fragment's are left out: a hole, not an overlap.
func span(f *packet.Frame) (from, to uint16) {
	return f.FragmentOff, f.FragmentOff + f.L3End - f.L4
}

// first enters the datagram that the first fragment f belongs to, with what its connection's entry makes of it.
func (w *Worker) first(v *vector, i int) {
	f, l := &v.frames[i], &v.lanes[i]
	if l.ref != 0 && f.Proto == packet.ProtoSCTP && w.table.Tuple(l.ref).Ports != w.newPorts(l) {
		l.discard(DropFragmentSCTP)
		return
	}
	k := keyOf(f, w.vni(l.segment))
	s := w.engine.fragments.set(&k)
	s.acquire()
	d := s.find(&k, w.now, true)
	drop := d.add(f)
	switch {
	case drop != DropNone:
	case l.ref == 0:
		d.known, d.to = true, v.tails[i]
		w.engine.fragments.firsts.Add(1)
	default:
		w.engine.fragments.firsts.Add(1)
		d.known = true
		d.to = tail{backend: l.backend, server: w.backend(l.backend).Addr, flags: l.flags, reply: l.ref.Reply()}
		if l.ref.V6() {
			e := w.table.Entry6(l.ref)
			d.to.src, d.to.dst, d.to.vni = e.NewSrc, e.NewDst, e.NewSpace>>8
		} else {
			e := w.table.Entry4(l.ref)
			d.to.src, d.to.dst, d.to.vni = conntrack.Addr{Lo: uint64(e.NewSrc)}, conntrack.Addr{Lo: uint64(e.NewDst)}, e.NewSpace>>8
		}
	}
	s.release()
	if drop != DropNone {
		l.discard(drop)
	}
}

// newPorts are those that a packet of l gets.
func (w *Worker) newPorts(l *lane) uint32 {
	if l.ref.V6() {
		return w.table.Entry6(l.ref).NewPorts
	}
	return w.table.Entry4(l.ref).NewPorts
}

// later takes a fragment other than the first: it becomes what its first became, or waits for that.
func (w *Worker) later(v *vector, i int, waited bool) {
	f, l := &v.frames[i], &v.lanes[i]
	k := keyOf(f, w.vni(l.segment))
	s := w.engine.fragments.set(&k)
	s.acquire()
	d := s.find(&k, w.now, false)
	if d == nil || !d.known {
		s.release()
		if !waited {
			l.verdict = waitVerdict
		}
		return
	}
	drop := d.add(f)
	to := d.to
	s.release()
	if drop != DropNone {
		l.discard(drop)
		return
	}
	if to.routed {
		v.tails[i] = to
		if !w.routes(v, i, k.src, k.dst, k.v6, k.vni) {
			l.discard(DropFragmentAlone) // a VIP meanwhile
		}
		return
	}
	if w.backend(to.backend).Addr != to.server {
		l.discard(DropBackendGone)
		return
	}
	if f.TTL <= 1 {
		l.discard(DropTTL) // a later fragment is not answered
		return
	}
	v.tails[i] = to
	l.backend, l.flags = to.backend, to.flags
	direction := 0
	if to.reply {
		direction = 1
	}
	w.Backends[to.backend].Ways[direction].add(uint64(f.L3End - f.L3))
}

// rewriteTail gives a later fragment the addresses of its first.
func rewriteTail(f *packet.Frame, to *tail) {
	h := f.Chunk()[f.L3:]
	if f.Kind&packet.KindIPv6 != 0 {
		put64(h[8:], to.src.Hi)
		put64(h[16:], to.src.Lo)
		put64(h[24:], to.dst.Hi)
		put64(h[32:], to.dst.Lo)
		h[7]--
		return
	}
	put32(h[12:], uint32(to.src.Lo))
	put32(h[16:], uint32(to.dst.Lo))
	h[8]--
	fillHeader4(h) // parse has verified the old one
}

// Fragments that came before their first wait here, a few for a moment: in order is the rule, and a flood of tails must cost nothing. From
// a server's side the moment is short: most of them are of the server's own datagrams, whose first the kernel has had already.
const (
	earlySlots      = 64
	earlyTime       = 250_000_000 // nanoseconds
	earlyServerTime = 5_000_000
)

// waitVerdict marks a frame that finish puts on the worker's list of early fragments.
const waitVerdict Verdict = 0xfe

type early struct {
	n        int
	firsts   uint64 // the engine's at the latest review
	next     int64  // the first of the deadlines, nanoseconds
	pace     pace
	frames   [earlySlots]packet.Frame
	deadline [earlySlots]int64
	vni      [earlySlots]uint32 // of the segment that it came from: its index may be another's after a reload
}

// delay puts an early fragment from a segment, or from none, on the list. If there is no room it is settled at once.
func (w *Worker) delay(f *packet.Frame, from segmentRef) {
	e := &w.early
	if e.n == earlySlots {
		w.abandon(f, from)
		return
	}
	e.frames[e.n], e.deadline[e.n], e.vni[e.n] = *f, w.now+earlyServerTime, w.vni(from)
	if w.toVIP(f, from) {
		e.deadline[e.n] = w.now + earlyTime
	}
	if e.n == 0 || e.deadline[e.n] < e.next {
		e.next = e.deadline[e.n]
	}
	e.n++
	w.Counters.Held.add(1)
}

// toVIP reports whether the packet's destination is a VIP.
func (w *Worker) toVIP(f *packet.Frame, from segmentRef) bool {
	_, dst := addresses(f, f.L3)
	return w.snap.Services.IsVIPFrom(w.vni(from), dst, f.Kind&packet.KindIPv6 != 0)
}

// abandon settles a fragment whose first did not come: to a VIP, or out of a segment or to a network of one, it is dropped; else it may be a
// server's own, and is the kernel's.
func (w *Worker) abandon(f *packet.Frame, from segmentRef) {
	_, dst := addresses(f, f.L3)
	if o := w.snap.Overlay; from != 0 || w.toVIP(f, from) || o != nil && o.segmentOf(o.Inward, dst, f.Kind&packet.KindIPv6 != 0) != nil {
		w.Counters.Drops[DropFragmentAlone].add(1)
	} else {
		w.punt(f)
	}
	w.pool.Put(f.Desc().Addr)
}

// review looks whether the firsts of early fragments have come meanwhile, at whichever worker, if there is a reason to.
func (w *Worker) review() {
	e, v := &w.early, &w.v
	firsts := w.engine.fragments.firsts.Load()
	if firsts == e.firsts && w.now < e.next || !e.pace.allow(w.now) {
		return
	}
	e.firsts, e.next = firsts, math.MaxInt64
	kept := 0
	for i := range e.n {
		seen := w.expectLate(&e.frames[i], e.vni[i], false)
		from, ok := w.cameFrom(e.vni[i])
		if !ok {
			w.Counters.Held.sub(1)
			w.lose(&e.frames[i], nil, DropNoRoute, false)
			w.endLate(seen)
			continue
		}
		v.n, v.port = 1, int(e.frames[i].Port)
		v.rest.n, v.rest.at[0] = 1, 0
		v.frames[0], v.lanes[0] = e.frames[i], lane{segment: from}
		v.queries[0].Ref, v.queries[0].Ports = 0, 0
		v.tails[0] = tail{}
		w.later(v, 0, true)
		if v.lanes[0].verdict == Pending && v.tails[0] == (tail{}) {
			if w.now < e.deadline[i] {
				e.frames[kept], e.deadline[kept], e.vni[kept] = e.frames[i], e.deadline[i], e.vni[i]
				e.next = min(e.next, e.deadline[i])
				kept++
				continue
			}
			src, dst := addresses(&e.frames[i], e.frames[i].L3)
			if !w.routes(v, 0, src, dst, e.frames[i].Kind&packet.KindIPv6 != 0, e.vni[i]) {
				w.Counters.Held.sub(1)
				w.abandon(&e.frames[i], from)
				w.endLate(seen)
				continue
			}
		}
		w.Counters.Held.sub(1)
		w.resolve(v)
		w.rewrite(v)
		w.encap(v)
		w.finish(v)
		w.endLate(seen)
	}
	e.n = kept
}
