package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/dataplane/route"
)

// express6 is express for those frames that glance6 has found: IPv6 packets of established NAT connections, on their way to and from servers outside
// of segments. It has one loop where express has two, since its entries are two cache lines, and there is more to move than to hide.
func (w *Worker) express6(v *vector) {
	v.late.n = 0
	for j, k := range v.six.all() {
		i, q := int(k), &v.asked[j]
		if w.pass6(v, &v.plain[i], q.Ref) {
			continue
		}
		if q.Ref != 0 {
			v.held6.add(q.Ref)
		}
		v.queries[i] = *q
		v.late.add(i)
	}
	if v.late.n > 0 {
		v.rest.merge(&v.late)
	}
}

// pass6 sends a packet of the connection at ref on its way. It reports false, and has changed nothing, if that is for the stages.
func (w *Worker) pass6(v *vector, p *plain, ref conntrack.Ref) bool {
	if ref == 0 || v.held6.any && v.held6.has(ref) {
		return false
	}
	t := w.table
	e := t.Entry6(ref)
	id := e.Backend
	if uint64(id) >= uint64(len(w.snap.Backends)) || uint64(id) >= uint64(len(w.Backends)) {
		return false
	}
	b := &w.snap.Backends[id]
	if b.Timeouts == nil || e.NewSpace>>8 != 0 {
		return false
	}
	var x *way
	if ref.Reply() {
		c := &w.ways6[e.NewDst.Lo%clientWays]
		if c.epoch != w.epoch || !c.within.Has(e.NewDst.Hi, e.NewDst.Lo) {
			w.settleClient6(c, e.NewDst)
		}
		x = &c.way
	} else {
		if !b.Live || connFlags(e.Flags)&(flagForward|flagTOA) != 0 {
			return false
		}
		if x = &w.ways[clientWays+uint64(id)]; x.epoch != w.epoch {
			w.settleBackend(x, b)
		}
	}
	timeout, keeps := t.Keeps6(ref, p.event, b.Timeouts)
	if p.size > x.mtu || p.event&packet.TCPSyn != 0 || !keeps || !e.Seen(w.tick, timeout) {
		return false
	}
	w.Backends[id].Ways[ref.Direction()].add(uint64(p.size))
	h := windowAt6(w.pool.Memory(), p.at)
	ip := h[windowFront:]
	ip[7]--
	put64(ip[8:], e.NewSrc.Hi)
	put64(ip[16:], e.NewSrc.Lo)
	put64(ip[24:], e.NewDst.Hi)
	put64(ip[32:], e.NewDst.Lo)
	put32(ip[ipv6Len:], e.NewPorts)
	if p.proto == packet.ProtoTCP {
		put16(ip[ipv6Len+16:], packet.ApplyDelta(be16(ip[ipv6Len+16:]), e.DeltaL4))
	} else {
		l4 := packet.ApplyDelta(be16(ip[ipv6Len+6:]), e.DeltaL4)
		if l4 == 0 {
			l4 = 0xffff // zero means "no checksum" (RFC 8200 section 8.1)
		}
		put16(ip[ipv6Len+6:], l4)
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
	o := &w.out[x.device]
	o.desc[o.n&(outboxSize-1)] = packet.Desc{Addr: p.at - front, Len: uint32(p.size) + uint32(front)}
	o.n++
	return true
}

// clientWay6 is how packets to IPv6 clients leave: to those of one network behind a router, or to one.
type clientWay6 struct {
	way
	within route.Interval6
}

// settleClient6 finds the way to a client. Where there is none it takes no packets as long as the snapshot is the same.
func (w *Worker) settleClient6(x *clientWay6, dst conntrack.Addr) {
	x.within = route.Only6(dst.Hi, dst.Lo)
	if !w.settleWay(&x.way, dst, true) {
		x.way = way{epoch: w.epoch}
		return
	}
	if all, via := w.snap.Routes.Interval6(dst.Hi, dst.Lo); via {
		x.within = all
	}
}
