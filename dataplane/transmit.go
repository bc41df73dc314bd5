package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// outbox gathers the frames that leave by one port in this round, so that they go to the driver in one burst.
type outbox struct {
	n     int
	owned int // of them made by us
	desc  [outboxSize]packet.Desc
	own   [outboxSize]bool // made by us: counts as sent, not as a received frame's verdict; all false from n on
}

const outboxSize = 2 * packet.VectorSize

// finish gives every frame of the vector its verdict: what is still pending leaves, the rest is counted and its chunk freed.
func (w *Worker) finish(v *vector) {
	c := &w.Counters
	for _, k := range v.rest.all() {
		i := int(k)
		f, l := &v.frames[i], &v.lanes[i]
		switch l.verdict {
		case Pending:
			if l.into != 0 {
				w.enter(f, l, false)
			} else {
				w.leave(f, l, false)
			}
			continue
		case goneVerdict:
			continue
		case Dropped:
			c.Drops[l.drop].add(1)
			if l.home != 0 {
				w.countDrop(l.home, l.drop)
			} else {
				w.countDrop(l.into, l.drop)
			}
			if l.drop == DropInvalidDescriptor {
				continue // never opened, so there is no chunk
			}
		case Answered:
			c.Answered.add(1)
		case Punted:
			w.punt(f)
		case Consumed:
			c.Consumed.add(1)
		case waitVerdict:
			w.delay(f, l.segment)
			continue
		}
		w.pool.Put(f.Desc().Addr)
	}
}

// leave sends a translated frame, or one of our own, to the next hop in l, cut into fragments if it must be, or lets it wait for the
// hop's MAC address.
func (w *Worker) leave(f *packet.Frame, l *lane, own bool) {
	if l.mac == nil {
		w.wait(f, l, own)
		return
	}
	p := &w.snap.Ports[l.out]
	if int(f.L3End-f.L3) > w.mtu(l) && f.Kind&(packet.KindIPv4|packet.KindOuter) != 0 {
		w.fragment(f, l, own)
		return
	}
	w.link(f, p, l.mac)
	w.transmit(p.Device, f.Desc(), own)
}

// link writes the Ethernet header of port p in front of the IP header and cuts off what lay behind the IP packet. The headers are 14 or
// 18 bytes whatever the frame came with; the headroom always has room for a tag more.
func (w *Worker) link(f *packet.Frame, p *Port, mac *[6]byte) {
	etherType := uint16(packet.EtherTypeIPv4)
	if f.Kind&packet.KindIPv6 != 0 {
		etherType = packet.EtherTypeIPv6
	}
	b := f.Chunk()
	f.End = f.L3End
	at := f.L3 - 14
	if p.VLAN != 0 {
		at -= 4
		put16(b[at+12:], packet.EtherTypeVLAN)
		put16(b[at+14:], p.VLAN)
		put16(b[at+16:], etherType)
	} else {
		put16(b[at+12:], etherType)
	}
	f.Start = at
	h := b[at:][:12] // moved as numbers: a copy of six bytes is a call
	put32(h, be32(mac[:]))
	put16(h[4:], be16(mac[4:]))
	put32(h[6:], be32(p.MAC[:]))
	put16(h[10:], be16(p.MAC[4:]))
}

// transmit puts a finished frame into the outbox of a port that has queues.
func (w *Worker) transmit(port int, d packet.Desc, own bool) {
	o := &w.out[port]
	if o.n == len(o.desc) {
		w.flush(port)
	}
	o.desc[o.n] = d
	if own {
		o.own[o.n] = true
		o.owned++
	}
	o.n++
}

// flush gives the port's outbox to its queue. What the queue does not take is dropped: to wait would stop every other flow.
func (w *Worker) flush(port int) {
	o := &w.out[port]
	if o.n == 0 {
		return
	}
	sent, lost := 0, DropPortGone
	if q := w.queues[port]; q != nil {
		sent, lost = q.Send(o.desc[:o.n]), DropSendRingFull
	}
	own := 0 // of those that were sent
	if o.owned > 0 {
		for _, made := range o.own[:sent] {
			if made {
				own++
			}
		}
	}
	c := &w.Counters
	c.Sent.add(uint64(own))
	c.Forwarded.add(uint64(sent - own))
	for i := sent; i < o.n; i++ {
		if o.own[i] {
			c.AnswerLost.add(1)
		} else {
			c.Drops[lost].add(1)
		}
		w.pool.Put(o.desc[i].Addr)
	}
	if o.owned > 0 {
		clear(o.own[:o.n])
	}
	o.n, o.owned = 0, 0
}

// punt gives a frame's IP packet back to the kernel, through the TUN device.
func (w *Worker) punt(f *packet.Frame) {
	if w.engine.Punt != nil {
		ip := f.Kind&(packet.KindIPv4|packet.KindIPv6) != 0
		var src conntrack.Addr
		if ip {
			src, _ = addresses(f, f.L3)
		}
		if !ip || !w.engine.punts.allow(w.now, 0, src) || !w.engine.Punt(f.Chunk()[f.L3:f.L3End]) {
			w.Counters.Drops[DropPuntLimit].add(1)
			return
		}
	}
	w.Counters.Punted.add(1)
}

// emit sends a packet of our own making that lies in f towards dst, in a segment if into names one.
func (w *Worker) emit(f *packet.Frame, dst conntrack.Addr, v6 bool, into segmentRef) {
	l := lane{into: into, hop: dst, v6: v6}
	if into != 0 {
		w.locate(&l)
		w.enter(f, &l, true)
		return
	}
	if _, ok := w.nextHop(&l, dst, v6, 0); !ok {
		w.Counters.AnswerLost.add(1)
		w.pool.Put(f.Desc().Addr)
		return
	}
	w.leave(f, &l, true)
}
