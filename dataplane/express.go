package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// express takes frames from v.to on that every later stage would wave through, and does the work of all of them: IPv4 packets of established
// NAT connections whose state stays as it is and whose way out is known. It sets v.to to the first frame that is not of this kind, of which
// nothing has been changed: that one goes through the stages, and express goes on behind it, so that frames leave in the order in which
// they came.
//
// It decides nothing that the stages do not decide: TestExpress holds the two against each other.
func (w *Worker) express(v *vector) {
	w.makeRoom()
	for {
		from := v.to
		unsettled := w.admit(v)
		w.dispatch(v, from)
		if !unsettled || !w.settleEntry(v.narrow[v.to].Ref) {
			return
		}
	}
}

// admit moves v.to over the frames that express may take, and counts them for their connections and servers. It reports true if what stops it is
// only that the next one's way is not settled: the ways of those before it must not change until they are on theirs. Like dispatch it calls
// nothing and has little at hand at a time, so that the compiler keeps that in registers.
func (w *Worker) admit(v *vector) (unsettled bool) {
	t, backends, counters, ways, epoch, now := w.table, w.snap.Backends, w.Backends, w.ways, w.epoch, w.tick
	counters = counters[:min(len(counters), len(backends))]
	records := v.plain[:v.n]
	queries := v.narrow[:len(records)]
	for i := v.to; i < len(records); i++ {
		p, ref := &records[i], queries[i].Ref
		v.to = i
		if ref == 0 || !t.Is4(&queries[i]) {
			return false
		}
		e := t.Entry4(ref)
		id := e.Backend
		if uint64(id) >= uint64(len(counters)) {
			return false
		}
		b := &backends[id]
		if b.Timeouts == nil {
			return false // a server of a newer snapshot, see backend
		}
		to := uint64(e.NewDst % clientWays)
		if !ref.Reply() {
			if !b.Live || connFlags(e.Flags)&(flagForward|flagTOA) != 0 {
				return false
			}
			to = clientWays + uint64(id)
		}
		x := &ways[to]
		if e.NewSpace>>8 != 0 {
			if ref.Reply() {
				return false
			}
			in := &w.inward[id%inwardWays]
			if in.tick != now || in.backend != id {
				return true
			}
			x = &in.way
		}
		if x.epoch != epoch || e.NewDst-x.first > x.span {
			return true
		}
		timeout, keeps := t.Keeps4(ref, p.event, b.Timeouts)
		if p.size > x.mtu || p.event&packet.TCPSyn != 0 || !keeps || !e.Seen(now, timeout) {
			return false
		}
		counters[id].Ways[ref.Direction()].add(uint64(p.size))
	}
	v.to = v.n
	return false
}

// settleEntry finds the way of packets of the entry that ref is of. It reports false if they are for the stages.
func (w *Worker) settleEntry(ref conntrack.Ref) bool {
	e := w.table.Entry4(ref)
	switch {
	case ref.Reply():
		return w.settleClient(e.NewDst)
	case e.NewSpace>>8 != 0:
		return w.settleInward(&w.inward[e.Backend%inwardWays], e.Backend, e.NewSpace>>8, e.NewDst)
	}
	b := &w.snap.Backends[e.Backend]
	return w.settleWay(&w.ways[clientWays+e.Backend], b.Addr, b.V6)
}

// makeRoom makes room for a vector in each outbox.
func (w *Worker) makeRoom() {
	for i := range w.out {
		if w.out[i].n > outboxSize-packet.VectorSize {
			w.flush(i)
		}
	}
}

// dispatch makes of the frames that admit has let in, from i on, what leaves, and puts them into their outboxes.
func (w *Worker) dispatch(v *vector, i int) {
	t, ways, mem, out := w.table, w.ways, w.pool.Memory(), w.out
	records := v.plain[:v.to]
	queries := v.narrow[:len(records)]
	for ; i < len(records); i++ {
		p, ref := &records[i], queries[i].Ref
		e := t.Entry4(ref)
		to := clientWays + uint64(e.Backend)
		if ref.Reply() {
			to = uint64(e.NewDst % clientWays)
		}
		x := &ways[to]
		h := windowAt(mem, p.at)
		ip := h[windowFront:]
		l3 := uint32(e.DeltaL3) + agedBy
		put16(ip[10:], packet.ApplyDelta(be16(ip[10:]), uint16(l3+l3>>16)))
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

// stretch returns where the frames end, from v.to on, that the stages take together: before the next one that express may take. It opens
// those that there was but a glance at.
func (w *Worker) stretch(v *vector) int {
	for i := v.to; ; i++ {
		if i == v.n || i > v.to && v.narrow[i].Ref != 0 {
			return i
		}
		if p := &v.plain[i]; p.size != 0 {
			v.queries[i] = w.table.Wide(&v.narrow[i])
			if v.narrow[i].Ref = 0; !p.known {
				home := p.home
				w.inspect(v, i)
				v.lanes[i].segment, v.lanes[i].home = home, home
			}
		}
	}
}
