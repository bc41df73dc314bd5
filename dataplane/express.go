package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// express takes those frames of a vector that every later stage would wave through, and does the work of all of them: packets of established
// NAT connections whose state stays as it is and whose way out is known. All others are left to the stages in v.rest, in their order, and nothing of
// them has been changed: they leave behind those that express has taken, as if they had come later. Only between connections, though: of which one
// frame is left, all that follow in the vector are, in either direction. So the packets of a connection leave in the order in which they came, its
// state sees them in this order, and a flood costs others no more than its own frames do.
//
// It decides nothing that the stages do not decide: TestExpress holds the two against each other.
func (w *Worker) express(v *vector) {
	w.makeRoom()
	v.sift()
	for from, j := 0, 0; ; {
		unsettled := false
		if j, unsettled = w.admit(v, j); unsettled || j == v.quick.n {
			w.dispatch(v, from, j)
			from = j
		}
		if j == v.quick.n {
			break
		}
		if ref := v.narrow[v.quick.at[uint8(j)]].Ref; !unsettled || !w.settleEntry(ref) {
			v.held.add(ref)
			v.late.add(v.quick.remove(j))
			v.whole = false
		}
	}
	if v.late.n > 0 {
		v.rest.merge(&v.late)
	}
	if v.six.n > 0 {
		w.express6(v)
	}
}

// admit goes over v.quick from j on as long as express may take the frames, and counts them for their connections and servers. It returns where it
// stops; unsettled says that this frame only lacks a settled way: the ways of those before it must not change until they are on theirs. Like
// dispatch it calls nothing and has little at hand at a time, so that the compiler keeps that in registers.
func (w *Worker) admit(v *vector, j int) (stop int, unsettled bool) {
	t, backends, counters, ways, epoch, now := w.table, w.snap.Backends, w.Backends, w.ways, w.epoch, w.tick
	counters = counters[:min(len(counters), len(backends))]
	backends = backends[:len(counters)]
	quick := v.quick.all()
	for ; uint(j) < uint(len(quick)); j++ {
		p, q := &v.plain[quick[j]], &v.narrow[quick[j]]
		ref := q.Ref
		if v.held.any && v.held.has(ref) || !t.Is4(q) {
			return j, false
		}
		e := t.Entry4(ref)
		id := e.Backend
		if uint64(id) >= uint64(len(counters)) {
			return j, false
		}
		b := &backends[id]
		if b.Timeouts == nil {
			return j, false // a server of a newer snapshot, see backend
		}
		to := uint64(e.NewDst % clientWays)
		if !ref.Reply() {
			if !b.Live || connFlags(e.Flags)&(flagForward|flagTOA) != 0 {
				return j, false
			}
			to = clientWays + uint64(id)
		}
		x := &ways[to]
		if e.NewSpace>>8 != 0 {
			if ref.Reply() {
				return j, false
			}
			in := &w.inward[id%inwardWays]
			if in.tick != now || in.backend != id {
				return j, true
			}
			x = &in.way
		}
		if x.epoch != epoch || e.NewDst-x.first > x.span {
			return j, true
		}
		timeout, keeps := t.Keeps4(ref, p.event, b.Timeouts)
		if p.size > x.mtu || p.event&packet.TCPSyn != 0 || !keeps || !e.Seen(now, timeout) {
			return j, false
		}
		counters[id].Ways[ref.Direction()].add(uint64(p.size))
	}
	return j, false
}

// settleEntry finds the way of packets of the entry that ref is of. It reports false if they are for the stages; where that holds as long as the
// snapshot does, the way takes no packets, so that nobody looks for it again.
func (w *Worker) settleEntry(ref conntrack.Ref) bool {
	e := w.table.Entry4(ref)
	switch {
	case ref.Reply():
		return w.settleClient(e.NewDst)
	case e.NewSpace>>8 != 0:
		ok := w.settleInward(&w.inward[e.Backend%inwardWays], e.Backend, e.NewSpace>>8, e.NewDst)
		w.makeRoom() // it may have asked for the server, all VTEPs of the segment even, and dispatch does not look
		return ok
	}
	b := &w.snap.Backends[e.Backend]
	return w.settleBackend(&w.ways[clientWays+e.Backend], b)
}

// makeRoom makes room for a vector in each outbox. Whoever puts more into one before the vector's frames are there calls it again.
func (w *Worker) makeRoom() {
	for i := range w.out {
		if w.out[i].n > outboxSize-packet.VectorSize {
			w.flush(i)
		}
	}
}

// dispatch makes of the frames that admit has let in, so many of v.quick, what leaves, and puts them into their outboxes.
func (w *Worker) dispatch(v *vector, from, to int) {
	t, ways, mem, out := w.table, w.ways, w.pool.Memory(), w.out
	for _, k := range v.quick.at[from:to] {
		i := int(k)
		p, ref := &v.plain[i], v.narrow[i].Ref
		e := t.Entry4(ref)
		to := clientWays + uint64(e.Backend)
		if ref.Reply() {
			to = uint64(e.NewDst % clientWays)
		}
		x := &ways[to]
		h := windowAt(mem, p.at)
		ip := h[windowFront:]
		l3 := uint32(^be16(ip[10:])) + uint32(e.DeltaL3) + agedBy // packet.ApplyDelta of both at once
		l3 = l3&0xffff + l3>>16
		put16(ip[10:], ^uint16(l3+l3>>16))
		ip[8]--
		put64(ip[12:], uint64(e.NewSrc)<<32|uint64(e.NewDst))
		put32(ip[ipv4Len:], e.NewPorts)
		if p.proto == packet.ProtoTCP {
			put16(ip[ipv4Len+16:], packet.ApplyDelta(be16(ip[ipv4Len+16:]), e.DeltaL4))
		} else {
			l4 := packet.ApplyDelta(be16(ip[ipv4Len+6:]), e.DeltaL4)
			if l4 == 0 {
				l4 = 0xffff // zero means "no checksum" (RFC 768)
			}
			put16(ip[ipv4Len+6:], l4)
		}
		if e.NewSpace>>8 != 0 {
			w.enclose(v, i)
			continue
		}
		front := uint64(etherLen)
		if x.tag == 0 {
			put64(h[4:], x.head)
			put64(h[10:], x.tail)
		} else {
			front = windowFront
			put64(h[:], x.head)
			put64(h[6:], x.tail)
			put32(h[14:], x.tag)
		}
		o := &out[x.device]
		o.desc[o.n&(outboxSize-1)] = packet.Desc{Addr: p.at - front, Len: uint32(p.size) + uint32(front)}
		o.n++
	}
}

// agedBy is what one less of TTL, which shares a word with the protocol, adds to the sum of an IPv4 header: minus 0x0100 in one's complement.
const agedBy = 0xffff - 0x0100

// prepare makes the frames that express has left ready for the stages, those that there was but a glance at, too.
func (w *Worker) prepare(v *vector) {
	for _, k := range v.rest.all() {
		i := int(k)
		p := &v.plain[i]
		if p.size == 0 {
			continue
		}
		if p.kind == plainIPv6 {
			w.inspect(v, i) // express6 has left the query
			continue
		}
		v.queries[i] = w.table.Wide(&v.narrow[i])
		if v.narrow[i].Ref = 0; !p.known {
			home := p.home
			w.inspect(v, i)
			v.lanes[i].segment, v.lanes[i].home = home, home
		}
	}
}
