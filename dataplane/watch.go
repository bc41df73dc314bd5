package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/dataplane/steer"
	"weir/vxlan"
)

// watched is process while somebody observes: what no observer wants goes through the stages as ever, a run of frames at a time, and each
// frame that one wants goes alone, between two flushes, so that what leaves meanwhile left because of it, and the counters that move say what
// became of it. A flow's frames leave in the order in which they came; TestWatched holds all of it against process.
func (w *Worker) watched(x *watch, port int, d []packet.Desc) {
	w.look()
	s := x.glasses[w.id]
	if !w.survey(x, s, port, d) {
		w.process(port, d)
		return
	}
	for i := 0; i < len(d); {
		from := i
		for i < len(d) && s.subjects[i].wanted == 0 {
			i++
		}
		if i > from {
			w.process(port, d[from:i])
		}
		if i < len(d) {
			w.observe(x, s, port, i, d[i:i+1])
			i++
		}
	}
}

// survey finds out which of the frames may be wanted. It reports false if none is.
func (w *Worker) survey(x *watch, s *glass, port int, d []packet.Desc) (any bool) {
	live := uint8(0)
	for n, t := range x.taps {
		if w.now < t.until {
			live |= 1 << n
		}
	}
	if live == 0 {
		return false
	}
	for i := range d {
		w.regard(s, &s.subjects[i], &s.queries[i], port, d[i])
	}
	w.table.Lookup(s.queries[:len(d)])
	for i := range d {
		sub := &s.subjects[i]
		w.recognize(sub, s.queries[i].Ref)
		for n, t := range x.taps {
			if live&(1<<n) != 0 && sub.taken && t.filter.may(sub) {
				sub.wanted |= 1 << n
				any = true
			}
		}
	}
	return any
}

// regard reads the headers of a frame, as it comes, without touching it, and writes the question after its connection.
func (w *Worker) regard(s *glass, sub *subject, q *conntrack.Query, port int, d packet.Desc) {
	*sub, *q = subject{}, conntrack.Query{}
	f := &s.frame
	*f = packet.Frame{}
	if !f.Open(w.pool, d) {
		return
	}
	sub.taken = true
	f.Port = uint16(port)
	fault := packet.Parse(f)
	if w.snap.Ports[port].Shared {
		w.sort(f)
	}
	if !w.snap.Ports[port].Filtered {
		sub.ruled, sub.rule = true, uint8(steer.Explain(w.snap.Steer, port, f))
	}
	if fault != packet.FaultNone && f.Kind&(packet.KindIPv4|packet.KindIPv6) == 0 {
		return
	}
	readHeading(&sub.outer, f)
	if o := w.snap.Overlay; o != nil && fault == packet.FaultNone {
		switch {
		case o.Access[f.Port]:
			if seg, _ := o.Segments.ByAccess(f.Port, f.VLAN); seg != nil {
				sub.vni = seg.VNI
			}
		case o.ours(f):
			outer, wrong := vxlan.ReadOuter(f)
			if wrong != vxlan.FaultNone {
				return
			}
			sub.vni = outer.VNI
			end := f.L4 + be16(f.Chunk()[f.L4+4:])
			f.Start, f.End = f.L4+udpLen+vxlanLen, end
			f.Headers = packet.Headers{}
			if fault = packet.Parse(f); fault != packet.FaultNone {
				return
			}
			readHeading(&sub.inner, f)
		}
	}
	if fault == packet.FaultNone {
		ask(f, &q.Tuple)
		if sub.vni != 0 && q.Space != 0 {
			q.Space |= sub.vni << 8
		}
		sub.related = f.Kind&packet.KindICMPError != 0
	}
}

// vxlanLen is the length of a VXLAN header in bytes.
const vxlanLen = 8

// readHeading reads what is there of the packet's headers.
func readHeading(h *heading, f *packet.Frame) {
	if f.Kind&(packet.KindIPv4|packet.KindIPv6) == 0 {
		return
	}
	need := ipv4Len
	if h.v6 = f.Kind&packet.KindIPv6 != 0; h.v6 {
		need = ipv6Len
	}
	if int(f.L3)+need > int(f.End) {
		return
	}
	h.src, h.dst = addresses(f, f.L3)
	h.ip, h.proto = true, f.Proto
	if f.Kind&packet.KindTransport != 0 && balanced(f.Proto) {
		h.l4, h.sport, h.dport = true, f.SrcPort, f.DstPort
	}
}

// recognize notes what the connection of a frame makes of it, and its service.
func (w *Worker) recognize(sub *subject, ref conntrack.Ref) {
	top := sub.top()
	if ref == 0 {
		if top.l4 {
			sub.service, sub.vip = w.snap.Services.FindFrom(sub.vni, top.dst, top.v6, top.proto, top.dport)
			if svc := sub.service; svc != nil && svc.Persistence != nil {
				t := conntrack.Tuple{Src: top.src, Dst: top.dst, Ports: uint32(top.sport)<<16 | uint32(top.dport), Space: sub.vni<<8 | uint32(top.proto), V6: top.v6}
				q := [1]conntrack.Query{{Tuple: svc.Persistence.template(svc, &t)}}
				w.table.Lookup(q[:])
				sub.sticks = q[0].Ref != 0
			}
		} else if top.ip {
			sub.vip = w.snap.Services.IsVIPFrom(sub.vni, top.dst, top.v6)
		}
		return
	}
	sub.ref, sub.was = ref, w.table.State(ref)
	w.become(sub, ref)
}

// clientSide is the entry of the client's packets.
func clientSide(ref conntrack.Ref) conntrack.Ref {
	if ref.Reply() {
		return ref.Peer()
	}
	return ref
}

// become reads the entry of ref: what it makes of packets, and which service the connection is of.
func (w *Worker) become(sub *subject, ref conntrack.Ref) {
	t := w.table.Tuple(ref)
	h := &sub.becomes
	*h = heading{ip: true, l4: true, v6: ref.V6(), proto: uint8(t.Space)}
	var ports uint32
	if ref.V6() {
		e := w.table.Entry6(ref)
		h.src, h.dst, ports = e.NewSrc, e.NewDst, e.NewPorts
	} else {
		e := w.table.Entry4(ref)
		h.src.Lo, h.dst.Lo, ports = uint64(e.NewSrc), uint64(e.NewDst), e.NewPorts
	}
	h.sport, h.dport = uint16(ports>>16), uint16(ports)
	if b := w.backend(w.table.Backend(ref)); b.Timeouts != nil && connFlags(w.table.Flags(ref)).forward() != ForwardNAT {
		if b.V6 == h.v6 && !ref.Reply() {
			h.dst = b.Addr // the client's packet goes there, in a tunnel or by its MAC address, with the VIP as destination
		}
	}
	c := w.table.Tuple(clientSide(ref))
	sub.service, sub.vip = w.snap.Services.FindFrom(c.Space>>8, c.Dst, c.V6, uint8(c.Space), uint16(c.Ports))
}

// tally is the counters that say what became of a frame.
type tally struct {
	forwarded, answered, punted, consumed, held, passed uint64
	drops                                               [NumDrops]uint64
}

func (t *tally) take(c *Counters) {
	t.forwarded, t.answered, t.punted = c.Forwarded.load(), c.Answered.load(), c.Punted.load()
	t.consumed, t.held, t.passed = c.Consumed.load(), c.Held.load(), c.Passed.load()
	for i := range t.drops {
		t.drops[i] = c.Drops[i].load()
	}
}

// verdict is what has moved since t was taken.
func (t *tally) verdict(c *Counters) (Verdict, Drop) {
	switch {
	case c.Forwarded.load() != t.forwarded:
		return Forwarded, DropNone
	case c.Answered.load() != t.answered:
		return Answered, DropNone
	case c.Punted.load() != t.punted:
		return Punted, DropNone
	case c.Consumed.load() != t.consumed:
		return Consumed, DropNone
	case c.Passed.load() != t.passed:
		return Passed, DropNone
	}
	for d := range t.drops {
		if c.Drops[d].load() != t.drops[d] {
			return Dropped, Drop(d)
		}
	}
	if c.Held.load() > t.held {
		return Held, DropNone
	}
	return Pending, DropNone
}

// begin empties the outboxes, so that what lies in them at the end is of this frame.
func (w *Worker) begin(s *glass) {
	w.flushAll()
	s.before.take(&w.Counters)
	s.number++
	s.extra = 0
	e := &s.event
	frame, sent := e.Frame.Data[:0], e.Sent.Data[:0]
	*e = Event{Time: w.now, Number: s.number, Worker: w.id, Snapshot: w.snap, OutPort: -1}
	e.Frame.Data, e.Sent.Data, e.Sent.Port = frame, sent, -1
}

func (w *Worker) flushAll() {
	for i := range w.out {
		w.flush(i)
	}
}

// observe takes one frame through the stages and shows what became of it.
func (w *Worker) observe(x *watch, s *glass, port, i int, d []packet.Desc) {
	w.begin(s)
	e, sub := &s.event, &s.subjects[i]
	e.Frame.fill(w, port, d[0], false)
	if e.Frame.Port = port; w.snap.Ports[port].Shared {
		s.frame = packet.Frame{}
		if s.frame.Open(w.pool, d[0]) {
			s.frame.Port = uint16(port)
			packet.Parse(&s.frame)
			w.sort(&s.frame)
			e.Frame.Port = int(s.frame.Port)
		}
	}
	w.process(port, d)
	w.settleConn(s, sub, &s.queries[i])
	w.conclude(x, s, sub)
}

// fill copies the frame that d names.
func (m *Image) fill(w *Worker, port int, d packet.Desc, own bool) {
	m.Port, m.Len, m.Own = port, int(d.Len), own
	m.Data = append(m.Data[:0], cut(w.pool.Bytes(d), cap(m.Data))...)
}

// fillPacket copies a frame that has no Ethernet header at the moment; it gets one without addresses.
func (m *Image) fillPacket(f *packet.Frame) {
	var ether [etherLen]byte
	put16(ether[12:], packet.EtherTypeIPv4)
	if f.Kind&packet.KindIPv6 != 0 {
		put16(ether[12:], packet.EtherTypeIPv6)
	}
	ip := f.Chunk()[f.L3:f.L3End]
	m.Port, m.Len, m.Own = int(f.Port), etherLen+len(ip), false
	m.Data = append(append(m.Data[:0], ether[:]...), cut(ip, cap(m.Data)-etherLen)...)
}

// settleConn finds the connection that the frame belongs to now.
func (w *Worker) settleConn(s *glass, sub *subject, q *conntrack.Query) {
	e, l := &s.event, &w.v.lanes[0]
	e.VNI, e.Ruled, e.Steered, e.VIP, e.Sticks, e.Related = sub.vni, sub.ruled, steer.Reason(sub.rule), sub.vip, sub.sticks, sub.related
	was, now := sub.ref, sub.ref
	if w.v.rest.n > 0 { // it has been through the stages
		if l.ref != 0 {
			now = l.ref
		} else if was == 0 && q.Space != 0 {
			one := [1]conntrack.Query{{Tuple: q.Tuple}}
			w.table.Lookup(one[:])
			now = one[0].Ref
		}
	}
	if now != 0 {
		e.Conn = ConnKnown
		once := false
		if b := w.table.Backend(now); was != now {
			one := [1]conntrack.Query{{Tuple: q.Tuple}}
			w.table.Lookup(one[:])
			once = one[0].Ref != now && w.backend(b).Timeouts != nil && sub.service != nil && sub.service.OnePacket
			w.become(sub, now)
		}
		switch {
		case once:
			e.Conn = ConnOnce
		case was == 0:
			e.Conn = ConnNew
		case was != now:
			e.Conn = ConnReopen
		}
		w.tell(e, sub, now)
	}
	e.Service = sub.service
}

// tell writes into e what is known of the connection of ref.
func (w *Worker) tell(e *Event, sub *subject, ref conntrack.Ref) {
	e.Reply, e.Was, e.Is = ref.Reply(), sub.was, w.table.State(ref)
	c := w.table.Tuple(clientSide(ref))
	e.Client = Endpoint{c.Src, uint16(c.Ports >> 16), c.V6}
	e.Virtual = Endpoint{c.Dst, uint16(c.Ports), c.V6}
	e.ID = w.table.Backend(ref)
	b := w.backend(e.ID)
	if b.Timeouts == nil {
		return
	}
	e.Backend = b
	if b.Load != nil {
		e.Active, e.Inact = b.Load.Active(), b.Load.Inactive()
	}
	dst, v6 := sub.becomes.dst, sub.becomes.v6
	if flags := connFlags(w.table.Flags(ref)); !ref.Reply() && flags.forward() != ForwardNAT {
		dst, v6 = b.Addr, b.V6
		if b.VNI != 0 {
			return
		}
	} else if _, vni := w.destination(ref); vni != 0 {
		return // in a segment: its station is no next hop of ours
	}
	var l lane
	if _, ok := w.nextHop(&l, dst, v6, w.table.Tuple(ref).Ports); ok {
		e.OutPort, e.Hop, e.HopV6, e.Known = int(l.out), l.hop, l.v6, l.mac != nil
	}
}

// conclude sends what the frame has led to, and shows it to those who want it.
func (w *Worker) conclude(x *watch, s *glass, sub *subject) {
	e := &s.event
	for pass := range 2 { // what is no answer or copy of ours first
		for port := range w.out {
			o := &w.out[port]
			for j := range o.desc[:o.n] {
				if o.own[j] == (pass == 0) {
					continue
				}
				switch {
				case e.Sent.Port < 0:
					e.Sent.fill(w, w.leftBy(port, o.desc[j]), o.desc[j], o.own[j])
				case s.extra < len(s.more):
					s.more[s.extra].fill(w, w.leftBy(port, o.desc[j]), o.desc[j], o.own[j])
					s.extra++
				default:
					e.Unseen++
				}
			}
		}
	}
	w.flushAll()
	e.Verdict, e.Drop = s.before.verdict(&w.Counters)
	if e.Verdict == Dropped && e.Sent.Port >= 0 && !e.Sent.Own {
		e.Sent.Port = -1 // the ring was full
	}
	shown := uint8(0)
	for n, t := range x.taps {
		if sub.wanted&(1<<n) == 0 || !t.filter.wants(sub, e) {
			continue
		}
		shown |= 1 << n
		if !t.rate.allow(w.now) {
			t.rings[w.id].over.Add(1)
			shown &^= 1 << n
			continue
		}
		t.show(w.id, e)
	}
	if s.extra == 0 {
		return
	}
	e.Kind, e.Unseen, e.Frame.Data, e.Frame.Port = EventAlso, 0, e.Frame.Data[:0], -1
	for i := range s.extra {
		e.Sent, s.more[i] = s.more[i], e.Sent // their memory changes hands, so that nothing is copied
		for n, t := range x.taps {
			if shown&(1<<n) != 0 && t.filter.wants(sub, e) && (t.filter.Stages == 0 || t.filter.Stages&StageSent != 0) {
				t.show(w.id, e)
			}
		}
	}
}

// expectLate begins the event of a frame that has waited, in a segment if vni is not 0, if somebody observes. f is the packet as it will leave, or not; own says that
// it is an answer of ours, which has no verdict.
func (w *Worker) expectLate(f *packet.Frame, vni uint32, own bool) *watch {
	x := w.engine.watch.Load()
	if x == nil {
		return nil
	}
	s := x.glasses[w.id]
	w.begin(s)
	s.event.Kind = EventWaited
	s.event.Frame.fillPacket(f)
	s.event.Frame.Own = own
	sub, q := &s.subjects[0], [1]conntrack.Query{}
	*sub = subject{taken: true, vni: vni}
	readHeading(&sub.outer, f)
	if h := &sub.outer; h.l4 && f.Kind&packet.KindOuter == 0 {
		b := f.Chunk()[f.L4:]
		h.sport, h.dport = be16(b), be16(b[2:]) // parse has read those before rewrite
		// The packet has been translated: it is what answers to it turned round would be of.
		q[0].Tuple = conntrack.Tuple{Src: h.dst, Dst: h.src, Ports: uint32(h.dport)<<16 | uint32(h.sport), Space: vni<<8 | uint32(h.proto), V6: h.v6}
		w.table.Lookup(q[:])
		if q[0].Ref != 0 {
			sub.ref, sub.was = q[0].Ref.Peer(), w.table.State(q[0].Ref)
			t := w.table.Tuple(sub.ref)
			sub.becomes = *h
			h.src, h.dst, h.sport, h.dport = t.Src, t.Dst, uint16(t.Ports>>16), uint16(t.Ports)
			c := w.table.Tuple(clientSide(sub.ref))
			sub.service, sub.vip = w.snap.Services.FindFrom(c.Space>>8, c.Dst, c.V6, uint8(c.Space), uint16(c.Ports))
		}
	}
	for n, t := range x.taps {
		if w.now < t.until {
			sub.wanted |= 1 << n
		}
	}
	return x
}

// endLate ends what expectLate began.
func (w *Worker) endLate(x *watch) {
	if x == nil {
		return
	}
	s := x.glasses[w.id]
	sub := &s.subjects[0]
	e := &s.event
	e.VNI, e.Service, e.VIP = sub.vni, sub.service, sub.vip
	if sub.ref != 0 {
		e.Conn = ConnKnown
		w.tell(e, sub, sub.ref)
	}
	w.conclude(x, s, sub)
}

// leftBy is the port that a frame left by, among those that share the device.
func (w *Worker) leftBy(device int, d packet.Desc) int {
	if !w.snap.Ports[device].Shared {
		return device
	}
	b := w.pool.Bytes(d)
	vlan := uint16(0)
	if len(b) >= 18 && be16(b[12:]) == packet.EtherTypeVLAN {
		vlan = be16(b[14:]) & 0xfff
	}
	for i := range w.snap.Ports {
		if p := &w.snap.Ports[i]; p.Device == device && p.VLAN == vlan {
			return i
		}
	}
	return device
}
