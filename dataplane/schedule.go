package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/dataplane/sched"
)

// schedule settles which connection each frame belongs to: the one that lookup found, if it is still good, or a new one. What comes out
// pending has an entry in its lane; all else has its verdict.
func (w *Worker) schedule(v *vector) {
	for i := range v.n {
		l, ref := &v.lanes[i], v.queries[i].Ref
		if l.verdict != Pending {
			continue
		}
		if v.frames[i].Kind&packet.KindICMPError != 0 {
			w.relate(v, i)
			continue
		}
		if v.frames[i].Kind&packet.KindLaterFragment != 0 {
			w.later(v, i, false)
			continue
		}
		if ref == 0 || !w.known(v, i, ref) {
			w.miss(v, i)
		}
		if v.frames[i].Kind&packet.KindFirstFragment != 0 && l.verdict == Pending {
			w.first(v, i)
		}
	}
}

// fragment are the kinds of which only the first has ports, and no frame has the whole datagram.
const fragment = packet.KindFirstFragment | packet.KindLaterFragment

// known takes a packet of the connection at ref. It reports false when the connection is of no use to this packet: it has expired, or
// ended to make room for a new one, and the packet is to be looked at as if there were none.
func (w *Worker) known(v *vector, i int, ref conntrack.Ref) bool {
	f, l := &v.frames[i], &v.lanes[i]
	id := w.table.Backend(ref)
	b := w.backend(id)
	if ref.Reply() {
		if f.TTL <= 1 { // before the state, as the kernel's ip_forward stands before its IPVS hook
			w.timeExceeded(v, i)
			return true
		}
	} else if f.TCPFlags&openMask == packet.TCPSyn && w.reschedules(b, ref) || !b.Live && b.ExpireNow {
		w.unlink(ref)
		return false
	} else if !b.Live {
		l.discard(DropBackendGone) // silently, and without restarting the timer, as the kernel does unless expire_nodest_conn is set
		return true
	}
	flags := f.TCPFlags
	c, alive := w.table.Track(ref, flags, b.Timeouts, w.tick)
	if !alive {
		return false
	}
	w.transition(b, c)
	w.count(f, id, ref)
	if f.TTL <= 1 {
		w.timeExceeded(v, i)
		return true
	}
	l.ref = ref
	return true
}

// reschedules reports whether a SYN ends the connection at ref and opens a new one in its place: ip_vs_in's rules for conn_reuse_mode,
// and for expire_nodest_conn with a server of weight zero.
func (w *Worker) reschedules(b *Backend, ref conntrack.Ref) bool {
	if b.ExpireNow && b.Weight == 0 {
		return true
	}
	return b.ReuseMode&1 != 0 && w.table.State(ref) == conntrack.TimeWait
}

// unlink ends the connection at ref, unless somebody else was faster.
func (w *Worker) unlink(ref conntrack.Ref) {
	if e, ok := w.table.Unlink(w.id, ref); ok {
		w.account(&e)
	}
}

// transition keeps a backend's counts right: some states count as active, others as inactive.
func (w *Worker) transition(b *Backend, c conntrack.Change) {
	switch was, is := c.Old.Active(), c.New.Active(); {
	case is && !was:
		b.Load.Activate()
	case was && !is:
		b.Load.Deactivate()
	}
}

// count counts a packet for its backend.
func (w *Worker) count(f *packet.Frame, id uint32, ref conntrack.Ref) {
	c, bytes := &w.Backends[id], uint64(f.L3End-f.L3)
	if ref.Reply() {
		c.OutPackets.add(1)
		c.OutBytes.add(bytes)
	} else {
		c.InPackets.add(1)
		c.InBytes.add(bytes)
	}
}

// miss takes a packet of no connection: it opens one, or is answered, or is the kernel's.
func (w *Worker) miss(v *vector, i int) {
	f, l := &v.frames[i], &v.lanes[i]
	if f.Kind&(packet.KindIPv4|packet.KindIPv6) == 0 {
		l.verdict = Punted
		return
	}
	src, dst := addresses(f, f.L3)
	v6 := f.Kind&packet.KindIPv6 != 0
	if f.Kind&packet.KindTransport == 0 || !balanced(f.Proto) {
		w.host(v, i, dst, v6, w.snap.Services.IsVIP(dst, v6))
		return
	}
	svc, vip := w.snap.Services.Find(dst, v6, f.Proto, f.DstPort)
	switch {
	case svc == nil:
		w.host(v, i, dst, v6, vip)
	case f.Kind&packet.KindSourceRoute != 0:
		l.discard(DropSourceRoute)
	case w.martian(src, v6):
		l.discard(DropMartian)
	case f.Proto == packet.ProtoTCP && !opens(svc, f.TCPFlags):
		w.refuse(v, i)
	default:
		w.connect(v, i, svc)
	}
}

// opens reports whether a TCP segment may open a connection of svc. The kernel asks only for SYN without RST; that a SYN+ACK or SYN+FIN from
// a client opens a connection there is a fault (docs/ipvs.md).
func opens(svc *Service, flags uint8) bool {
	if svc.SloppyTCP {
		return flags&packet.TCPRst == 0
	}
	return flags&openMask == packet.TCPSyn
}

// openMask are the flags that must be SYN alone for a segment to open a connection.
const openMask = packet.TCPSyn | packet.TCPAck | packet.TCPRst | packet.TCPFin

// martian reports whether src is no address that a packet can come from (RFC 1812 5.3.7), our own VIPs included.
func (w *Worker) martian(src conntrack.Addr, v6 bool) bool {
	if v6 {
		return src.Hi == 0 && src.Lo <= 1 || src.Hi>>56 == 0xff || w.snap.Services.IsVIP(src, true)
	}
	a := uint32(src.Lo)
	return a>>24 == 0 || a>>24 == 127 || a>>28 >= 0xe || w.snap.Services.IsVIP(src, false)
}

// connect opens a connection of svc for the packet: a server is chosen, the entries made, and the packet goes on as one of theirs.
func (w *Worker) connect(v *vector, i int, svc *Service) {
	f, l, q := &v.frames[i], &v.lanes[i], &v.queries[i]
	// A packet before this one in the vector, or another worker, may have opened it since lookup.
	w.table.Lookup(v.queries[i : i+1])
	if q.Ref != 0 && w.known(v, i, q.Ref) {
		return
	}
	flow := sched.Flow{V6: q.V6, SrcPort: f.SrcPort, DstPort: f.DstPort, Now: w.now}
	flow.Src, flow.Dst = wire(q.Src, q.V6), wire(q.Dst, q.V6)
	n := svc.Plan.Schedule(svc.State, &flow)
	if n < 0 {
		w.unreachable(v, i, DropNoBackend)
		return
	}
	id := svc.Dests[n]
	b := w.backend(id)
	port := b.Port
	if port == 0 {
		port = f.DstPort
	}
	w.conn = conntrack.Conn{
		Forward:   q.Tuple,
		ForwardTo: conntrack.Tuple{Src: q.Src, Dst: b.Addr, Ports: uint32(f.SrcPort)<<16 | uint32(port), Space: q.Space, V6: q.V6},
		Reply:     conntrack.Tuple{Src: b.Addr, Dst: q.Src, Ports: uint32(port)<<16 | uint32(f.SrcPort), Space: q.Space, V6: q.V6},
		ReplyTo:   conntrack.Tuple{Src: q.Dst, Dst: q.Src, Ports: uint32(f.DstPort)<<16 | uint32(f.SrcPort), Space: q.Space, V6: q.V6},
		Backend:   id,
	}
	b.Load.Bind(false, b.Upper, b.Lower) // as inactive, before anyone can unbind it
	ref, state, outcome := w.table.Insert(w.id, &w.conn, f.TCPFlags, b.Timeouts, w.tick)
	if outcome == conntrack.Clash && w.yields(ref) {
		ref, state, outcome = w.table.Insert(w.id, &w.conn, f.TCPFlags, b.Timeouts, w.tick)
	}
	switch outcome {
	case conntrack.Inserted:
		w.Backends[id].Conns.add(1)
		if state.Active() {
			b.Load.Activate()
		}
	case conntrack.Exists: // another worker was faster; its choice holds
		b.Load.Unbind(false, b.Upper, b.Lower)
	default:
		b.Load.Unbind(false, b.Upper, b.Lower)
		l.discard(DropTableFull)
		if outcome == conntrack.Clash {
			l.discard(DropClash)
		}
		return
	}
	if !w.known(v, i, ref) {
		l.discard(DropTableFull) // ended in the instant it was made; the client will try again
	}
}

// yields ends the connection at ref, which a new one would be mixed up with at the server, if it is over in all but name.
func (w *Worker) yields(ref conntrack.Ref) bool {
	if ref == 0 {
		return false
	}
	switch w.table.State(ref) {
	case conntrack.TimeWait, conntrack.Close, conntrack.LastAck:
		w.unlink(ref)
		return true
	}
	return false
}

// wire is a in network byte order, IPv4 in the first four bytes.
func wire(a conntrack.Addr, v6 bool) (b [16]byte) {
	if v6 {
		put64(b[:], a.Hi)
		put64(b[8:], a.Lo)
	} else {
		put32(b[:], uint32(a.Lo))
	}
	return b
}

// host takes what is the host's own business. The kernel does it, unless there is none behind us (replay): then we answer for
// the host's own addresses, VIPs included, what it would, and the rest counts as punted.
func (w *Worker) host(v *vector, i int, dst conntrack.Addr, v6, vip bool) {
	f, l := &v.frames[i], &v.lanes[i]
	if !w.engine.HostAnswers || !vip && !w.local(dst, v6) || f.Kind&fragment != 0 {
		l.verdict = Punted
		return
	}
	switch {
	case f.Proto == packet.ProtoTCP && f.Kind&packet.KindTransport != 0:
		w.refuse(v, i)
	case f.Proto == packet.ProtoUDP && f.Kind&packet.KindTransport != 0:
		w.unreachable(v, i, DropProtocol)
	case isEchoRequest(f):
		w.echo(v, i)
	default:
		l.discard(DropProtocol)
	}
}

// local reports whether addr is one of the host's own, VIPs aside.
func (w *Worker) local(addr conntrack.Addr, v6 bool) bool {
	_, ok := w.snap.Local[NetipOf(addr, v6)]
	return ok
}

func isEchoRequest(f *packet.Frame) bool {
	return f.Kind&packet.KindTransport != 0 &&
		(f.Proto == packet.ProtoICMP && f.ICMPType == icmpEcho || f.Proto == packet.ProtoICMPv6 && f.ICMPType == icmp6Echo)
}
