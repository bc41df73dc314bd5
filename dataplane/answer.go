package dataplane

import (
	"net/netip"

	"weir/conntrack"
	"weir/dataplane/packet"
)

// What weir says in its own name: RST, ICMP errors, echo replies. Each takes the place of a frame received, whose verdict becomes
// Answered; each is bounded by limits.answers, and nothing is answered that may not be (RFC 1122 3.2.2, RFC 4443 2.4).

// refuse answers a TCP segment that belongs to no connection with a RST, as a host without a socket does (RFC 9293 3.10.7.1).
func (w *Worker) refuse(v *vector, i int) {
	f, l := &v.frames[i], &v.lanes[i]
	if f.Flags&packet.TCPRst != 0 {
		l.discard(DropNoConnection)
		return
	}
	if f.Flags&packet.TCPSyn != 0 && f.Flags&packet.TCPFin != 0 {
		l.discard(DropTCPFlags)
		return
	}
	if w.mute(l) {
		return
	}
	if !packet.MayAnswer(f) {
		l.discard(DropNoConnection)
		return
	}
	if !intact(f) {
		l.discard(DropChecksum)
		return
	}
	b := w.blank(f, l)
	if b == nil {
		return
	}
	src, _ := addresses(f, f.L3)
	w.say(l, packet.Reset(b, f), src, f.Kind)
}

// intact verifies the transport checksum of a TCP segment or UDP datagram, as a host does before it takes or refuses one (RFC 9293 3.1). The first
// fragment of a datagram passes: nobody can tell.
func intact(f *packet.Frame) bool {
	if f.Kind&fragment != 0 {
		return true
	}
	b := f.Chunk()
	segment := b[f.L4:f.L3End]
	if f.Proto == packet.ProtoUDP {
		segment = datagram(f)
	}
	if f.Kind&packet.KindIPv6 != 0 {
		h := b[f.L3:][:40]
		return packet.TransportSum6([16]byte(h[8:24]), [16]byte(h[24:40]), f.Proto, segment) == 0
	}
	if f.Proto == packet.ProtoUDP && segment[6] == 0 && segment[7] == 0 {
		return true // without a checksum
	}
	h := b[f.L3:][:20]
	return packet.TransportSum4([4]byte(h[12:16]), [4]byte(h[16:20]), f.Proto, segment) == 0
}

// unreachable answers with port unreachable from the address the packet was sent to: no server, or no service. unless names the drop
// where no answer may be given.
func (w *Worker) unreachable(v *vector, i int, unless Drop) {
	f := &v.frames[i]
	if f.Kind&packet.KindIPv6 != 0 {
		w.report(v, i, icmp6Unreachable, code6Port, 0, unless)
	} else {
		w.report(v, i, icmpUnreachable, codePort, 0, unless)
	}
}

// timeExceeded answers a packet whose TTL or hop limit is used up.
func (w *Worker) timeExceeded(v *vector, i int) {
	if v.frames[i].Kind&packet.KindIPv6 != 0 {
		w.report(v, i, icmp6TimeExceeded, 0, 0, DropTTL)
	} else {
		w.report(v, i, icmpTimeExceeded, 0, 0, DropTTL)
	}
}

// tooBig answers a packet that is larger than the next link and may not be cut with the link's MTU (RFC 1191, RFC 8201).
func (w *Worker) tooBig(v *vector, i int, mtu int) {
	if v.frames[i].Kind&packet.KindIPv6 != 0 {
		w.report(v, i, icmp6TooBig, 0, uint32(max(mtu, 1280)), DropTooBig)
	} else {
		w.report(v, i, icmpUnreachable, codeFragNeeded, uint32(mtu), DropTooBig)
	}
}

// report answers frame i with an ICMP or ICMPv6 error that quotes it. rest is the four bytes behind the checksum.
func (w *Worker) report(v *vector, i int, typ, code uint8, rest uint32, unless Drop) {
	f, l := &v.frames[i], &v.lanes[i]
	if w.mute(l) {
		return
	}
	if !packet.MayAnswer(f) {
		l.discard(unless)
		return
	}
	v6 := f.Kind&packet.KindIPv6 != 0
	src, dst := addresses(f, f.L3)
	from, ok := w.reporter(l, int(f.Port), src, dst, v6)
	if !ok {
		l.discard(unless)
		return
	}
	b := w.blank(f, l)
	if b == nil {
		return
	}
	n := w.icmpError(b, from, src, v6, typ, code, rest, f.Chunk()[f.L3:f.L3End])
	w.say(l, n, src, f.Kind)
}

// icmpError writes an ICMP or ICMPv6 error into b and returns its length.
func (w *Worker) icmpError(b []byte, from, to conntrack.Addr, v6 bool, typ, code uint8, rest uint32, quoted []byte) int {
	if v6 {
		return packet.ICMPError6(b, wire(from, true), wire(to, true), typ, code, rest, quoted)
	}
	return packet.ICMPError4(b, w.identification(), wire4(from), wire4(to), typ, code, rest, quoted)
}

// echo answers an echo request.
func (w *Worker) echo(v *vector, i int) {
	f, l := &v.frames[i], &v.lanes[i]
	if w.mute(l) {
		return
	}
	if !packet.MayAnswer(f) || !icmpIntact(f) {
		l.discard(DropICMPChecksum)
		return
	}
	b := w.blank(f, l)
	if b == nil {
		return
	}
	src, _ := addresses(f, f.L3)
	n := copy(b, f.Chunk()[f.L3:f.L3End])
	if !packet.EchoReply(b[:n]) {
		n = 0
	}
	w.say(l, n, src, f.Kind)
}

// speaker is the address that an answer to a packet from src to dst comes from: dst itself where it is ours, else that of the port which
// src sent to, best one on the same link (RFC 1812 4.3.2.4).
func (w *Worker) speaker(port int, src, dst conntrack.Addr, v6 bool) (conntrack.Addr, bool) {
	if w.snap.Services.IsVIP(dst, v6) || w.local(dst, v6) {
		return dst, true
	}
	var best netip.Addr
	to := NetipOf(src, v6)
	for _, p := range w.snap.Ports[port].Addresses {
		if p.Addr().Is6() != v6 || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		if p.Contains(to) {
			best = p.Addr()
			break
		}
		if !best.IsValid() {
			best = p.Addr()
		}
	}
	if !best.IsValid() {
		return conntrack.Addr{}, false
	}
	addr, _ := AddrOf(best)
	return addr, true
}

// mute reports whether nothing is answered now, and so nobody need find out whether and how a frame would be; it then has its verdict.
func (w *Worker) mute(l *lane) bool {
	if !w.engine.answers.spent(w.now) {
		return false
	}
	l.discard(DropAnswerLimit)
	return true
}

// blank takes a chunk for an answer to f and returns the room for its IP packet. It returns nil, and f has its verdict, when the limit is
// used up or no chunk is free.
func (w *Worker) blank(f *packet.Frame, l *lane) []byte {
	src, _ := addresses(f, f.L3)
	if !w.engine.answers.allow(w.now, l.segment, src) {
		l.discard(DropAnswerLimit)
		return nil
	}
	addr, ok := w.pool.Get()
	if !ok {
		l.discard(DropNoMemory)
		return nil
	}
	w.own = packet.Frame{}
	w.own.Open(w.pool, packet.Desc{Addr: addr + packet.Headroom, Len: uint32(w.pool.ChunkSize() - packet.Headroom)})
	return w.own.Bytes()
}

// say sends the IP packet of n bytes that a builder has written into what blank gave.
func (w *Worker) say(l *lane, n int, to conntrack.Addr, family packet.Kind) {
	if n == 0 {
		w.pool.Put(w.own.Desc().Addr)
		l.discard(DropNoMemory)
		return
	}
	l.verdict = Answered
	w.own.Kind = family & (packet.KindIPv4 | packet.KindIPv6)
	w.own.L3 = w.own.Start
	w.own.L3End = w.own.Start + uint16(n)
	w.emit(&w.own, to, family&packet.KindIPv6 != 0, l.segment)
}

// identification is an IP ID that no worker gives to another packet soon: fragments of two packets with one ID would be put together.
func (w *Worker) identification() uint16 {
	w.ipID += uint16(len(w.engine.wants)) // as many as there may be workers
	return w.ipID + uint16(w.id)
}

func wire4(a conntrack.Addr) (b [4]byte) {
	put32(b[:], uint32(a.Lo))
	return b
}
