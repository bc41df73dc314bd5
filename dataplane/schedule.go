package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// schedule settles which connection each frame belongs to: the one that lookup found, if it is still good, or a new one. What comes out
// pending has an entry in its lane; all else has its verdict.
func (w *Worker) schedule(v *vector) {
	for _, k := range v.rest.all() {
		i := int(k)
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
			w.settle()
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
	f, id := &v.frames[i], w.table.Backend(ref)
	b := w.backend(id)
	if !ref.Reply() {
		switch {
		case reopens(f) && w.reschedules(b, ref):
			w.part(ref)
			return false
		case !b.Live && b.ExpireNow:
			w.unlink(ref)
			return false
		case !b.Live: // silently, and without restarting the timer, as the kernel does unless expire_nodest_conn is set
			v.lanes[i].discard(DropBackendGone)
			return true
		case f.Flags&openMask == packet.TCPSyn && f.Proto == packet.ProtoTCP && w.table.State(ref) == conntrack.SynRecv:
			w.Backends[id].Retried.add(1)
		}
	}
	if w.table.Spliced(ref) && w.halves(v, i, ref) {
		return true
	}
	return w.join(v, i, ref, id, b)
}

// join makes the packet one of the connection at ref, which is good for it. It reports false when that has expired or ended meanwhile.
func (w *Worker) join(v *vector, i int, ref conntrack.Ref, id uint32, b *Backend) bool {
	f, l := &v.frames[i], &v.lanes[i]
	flags := connFlags(0)
	if !ref.Reply() {
		flags = connFlags(w.table.Flags(ref))
	} else {
		if f.TTL <= 1 { // before the state, as the kernel's ip_forward stands before its IPVS hook
			w.timeExceeded(v, i)
			return true
		}
		if f.Flags&packet.TCPSyn != 0 && f.Proto == packet.ProtoTCP {
			w.greeted(f, ref)
		}
	}
	c, alive := w.table.Track(ref, f.Flags, b.Timeouts, w.tick)
	if !alive {
		return false
	}
	if c.Old != c.New {
		w.transition(b, ref, c)
		if c.New == conntrack.Established && f.Proto == packet.ProtoTCP {
			w.Backends[id].Opened.add(1)
		}
	}
	w.count(f, id, ref)
	if f.TTL <= 1 {
		w.timeExceeded(v, i)
		return true
	}
	if w.table.Spliced(ref) {
		if _, ok := w.table.Answered(ref); ok {
			flags |= flagSpliced
		}
	}
	l.ref, l.backend, l.flags = ref, id, flags
	return true
}

// reopens reports whether a packet asks for a new connection whether or not there is one of its addresses and ports.
func reopens(f *packet.Frame) bool {
	switch f.Proto {
	case packet.ProtoTCP:
		return f.Flags&openMask == packet.TCPSyn
	case packet.ProtoSCTP:
		return f.Flags == packet.SCTPInit
	}
	return false
}

// reschedules reports whether a SYN ends the connection at ref and opens a new one in its place: ip_vs_in's rules for conn_reuse_mode,
// and for expire_nodest_conn with a server of weight zero. Bit 1 of the mode adds FIN_WAIT where nothing has been seen of the server.
// Of what was opened under a template only a drained server's is ended. A server that is down answers no SYN, be it a new one or one that the client
// repeats: another shall.
func (w *Worker) reschedules(b *Backend, ref conntrack.Ref) bool {
	if b.Down || b.ExpireNow && b.Weight == 0 {
		return true
	}
	if w.table.Controlled(ref) {
		return false
	}
	switch w.table.State(ref) {
	case conntrack.TimeWait, conntrack.Close, conntrack.SCTPClosed:
		return b.ReuseMode != 0
	case conntrack.FinWait:
		return b.ReuseMode&2 != 0 && w.table.Unanswered(ref)
	}
	return false
}

// unlink ends the connection at ref, unless somebody else was faster.
func (w *Worker) unlink(ref conntrack.Ref) {
	if e, ok := w.table.Unlink(w.id, ref); ok {
		w.account(&e)
	}
}

// part ends the connection at ref as unlink does, but its backend keeps it in its counts until settle: the kernel ends a connection that makes
// room for a new one by its timer, so the new one is scheduled as if both were there.
func (w *Worker) part(ref conntrack.Ref) {
	w.settle()
	w.parted, w.parting = w.table.Unlink(w.id, ref)
}

func (w *Worker) settle() {
	if w.parting {
		w.parting = false
		w.account(&w.parted)
	}
}

// transition keeps a backend's counts right: some states count as active, others as inactive.
func (w *Worker) transition(b *Backend, ref conntrack.Ref, c conntrack.Change) {
	flags := connFlags(w.table.Flags(ref))
	switch was, is := flags.active(c.Old), flags.active(c.New); {
	case is && !was:
		b.Load.Activate()
	case was && !is:
		b.Load.Deactivate()
	}
}

// count counts a packet for its backend.
func (w *Worker) count(f *packet.Frame, id uint32, ref conntrack.Ref) {
	w.Backends[id].Ways[ref.Direction()].add(uint64(f.L3End - f.L3))
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
	vni := w.vni(l.segment)
	if w.routes(v, i, src, dst, v6, vni) {
		return
	}
	if f.Kind&packet.KindTransport == 0 || !balanced(f.Proto) {
		w.host(v, i, dst, v6, w.snap.Services.IsVIPFrom(vni, dst, v6))
		return
	}
	svc, vip := w.snap.Services.FindFrom(vni, dst, v6, f.Proto, f.DstPort)
	switch {
	case svc == nil:
		w.host(v, i, dst, v6, vip)
	case f.Kind&packet.KindSourceRoute != 0:
		l.discard(DropSourceRoute)
	case w.martian(src, v6, vni):
		l.discard(DropMartian)
	case f.Proto == packet.ProtoTCP && !opens(svc, f.Flags):
		if !w.redeem(v, i, svc) {
			w.refuse(v, i)
		}
	case f.Proto == packet.ProtoSCTP && f.Flags != packet.SCTPInit:
		w.host(v, i, dst, v6, vip)
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

// martian reports whether src is no address that a packet can come from (RFC 1812 5.3.7), our own VIPs in its segment included.
func (w *Worker) martian(src conntrack.Addr, v6 bool, vni uint32) bool {
	if v6 {
		return src.Hi == 0 && src.Lo <= 1 || src.Hi>>56 == 0xff || w.snap.Services.IsVIPFrom(vni, src, true)
	}
	a := uint32(src.Lo)
	return a>>24 == 0 || a>>24 == 127 || a>>28 >= 0xe || w.snap.Services.IsVIPFrom(vni, src, false)
}

// host takes what is the host's own business. The kernel does it, unless there is none behind us (replay): then we answer for
// the host's own addresses, VIPs included, what it would, and the rest counts as punted. What a segment's station sent to a VIP the kernel
// could not answer: it knows no way back into the segment.
func (w *Worker) host(v *vector, i int, dst conntrack.Addr, v6, vip bool) {
	f, l := &v.frames[i], &v.lanes[i]
	ours := w.engine.HostAnswers && (vip || w.local(dst, v6)) && f.Kind&fragment == 0
	if !ours && l.segment == 0 {
		l.verdict = Punted
		return
	}
	w.answer(v, i)
}

// answer takes what is for an address of ours that we answer for ourselves, as a host does that has nothing there.
func (w *Worker) answer(v *vector, i int) {
	f, l := &v.frames[i], &v.lanes[i]
	switch {
	case f.Kind&fragment != 0:
		l.discard(DropProtocol)
	case f.Proto == packet.ProtoTCP && f.Kind&packet.KindTransport != 0:
		w.refuse(v, i)
	case f.Proto == packet.ProtoUDP && f.Kind&packet.KindTransport != 0 && !intact(f):
		l.discard(DropChecksum)
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
