package dataplane

import "weir/dataplane/packet"

// express takes frames from v.to on that every later stage would wave through, and does the work of all of them: IPv4 packets of established
// NAT connections whose state stays as it is and whose way out is known. It sets v.to to the first frame that is not of this kind, of which
// nothing has been changed: that one goes through the stages, and express goes on behind it, so that frames leave in the order in which
// they came.
//
// It decides nothing that the stages do not decide: TestExpress holds the two against each other.
func (w *Worker) express(v *vector) {
	t, backends, counters, ways, epoch, mem := w.table, w.snap.Backends, w.Backends, w.ways, w.epoch, w.pool.Memory()
	counters = counters[:min(len(counters), len(backends))]
	for ; v.to < v.n; v.to++ {
		p, ref := &v.plain[v.to], v.queries[v.to].Ref
		if p.size == 0 || ref == 0 {
			return
		}
		e := t.Entry4(ref)
		id := e.Backend
		if uint64(id) >= uint64(len(counters)) {
			return
		}
		b, c := &backends[id], &counters[id]
		packets, bytes := &c.InPackets, &c.InBytes
		var x *way
		if b.Timeouts == nil {
			return // a server of a newer snapshot, see backend
		}
		var segment *inward
		switch {
		case ref.Reply():
			if e.NewSpace>>8 != 0 {
				return
			}
			x = &ways[e.NewDst%clientWays]
			if r := &w.clients[e.NewDst%clientWays]; (x.epoch != epoch || e.NewDst < r.first || e.NewDst > r.last) && !w.settleClient(e.NewDst) {
				return
			}
			packets, bytes = &c.OutPackets, &c.OutBytes
		case !b.Live || connFlags(e.Flags)&(flagForward|flagTOA) != 0:
			return
		case e.NewSpace>>8 != 0:
			if segment = w.inwardWay(e); segment == nil {
				return
			}
			x = &segment.way
		default:
			if x = &ways[clientWays+id]; x.epoch != epoch && !w.settleWay(x, b.Addr, b.V6) {
				return
			}
		}
		tcp := p.proto == packet.ProtoTCP
		timeout, keeps := t.Keeps4(ref, p.event, b.Timeouts)
		if p.size > x.mtu || tcp && p.event&packet.TCPSyn != 0 || !keeps || !e.Seen(w.tick, timeout) {
			return
		}
		packets.add(1)
		bytes.add(uint64(p.size))
		if segment != nil {
			w.into(segment, p, &v.queries[v.to], e, &v.frames[v.to])
			continue
		}

		at := p.at - windowFront
		h := mem[at : at+window][:window]
		ip := h[windowFront:][:windowBack]
		put32(ip[12:], e.NewSrc)
		put32(ip[16:], e.NewDst)
		put32(ip[ipv4Len:], e.NewPorts)
		ip[8]--
		l3 := uint32(e.DeltaL3) + agedBy
		put16(ip[10:], packet.ApplyDelta(be16(ip[10:]), uint16(l3+l3>>16)))
		if tcp {
			put16(ip[ipv4Len+16:], packet.ApplyDelta(be16(ip[ipv4Len+16:]), e.DeltaL4))
		} else {
			l4 := packet.ApplyDelta(be16(ip[ipv4Len+6:]), e.DeltaL4)
			if l4 == 0 {
				l4 = 0xffff // zero means "no checksum" (RFC 768)
			}
			put16(ip[ipv4Len+6:], l4)
		}
		front := uint64(etherLen)
		if x.tag == 0 {
			put64(h[4:], x.dst)
			put32(h[12:], x.src)
		} else {
			front = windowFront
			put64(h, x.dst)
			put32(h[8:], x.src)
			put32(h[12:], x.tag)
		}
		put16(h[16:], packet.EtherTypeIPv4)
		o := &w.out[x.device]
		if o.n == len(o.desc) {
			w.flush(int(x.device))
		}
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
		if i == v.n || i > v.to && v.plain[i].size != 0 && v.queries[i].Ref != 0 {
			return i
		}
		if p := &v.plain[i]; p.size != 0 && !p.known {
			w.inspect(v, i)
		}
	}
}
