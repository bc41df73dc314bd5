package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// A connection that was opened by a cookie has two halves with numbers of their own. The client has been told cookie as our first number, and a
// window of zero, so it sends no data, and nothing must be kept for a server that has not answered yet. The server is asked with the client's own
// number, so only what the server counts is translated:
//
//	           client -> server                        server -> client
//	numbers    acknowledgment, SACK blocks + Seq       sequence number - Seq
//	stamps     echo + Stamp                            timestamp - Stamp
//	window     shifted by In                           shifted by Out
//
// Linux' SYNPROXY does it so (nf_synproxy_core.c), but for the window, whose scale an operator must configure there.

// petition makes the frame, the client's, the SYN that asks the server.
func petition(f *packet.Frame, s *conntrack.Splice) bool {
	src, dst := addresses(f, f.L3)
	v6 := f.Kind&packet.KindIPv6 != 0
	x := offer(s.Options)
	g := packet.Segment{
		Src: wire(src, v6), Dst: wire(dst, v6), V6: v6, SrcPort: f.SrcPort, DstPort: f.DstPort, Flags: packet.TCPSyn, Seq: s.First, Window: s.Window,
	}
	scale, _ := x.scale()
	offers(&g, x.mss(v6), x, scale, s.Theirs, 0)
	return reshape(f, &g)
}

// halves takes a packet of a connection of two halves before its state does. It reports true if the packet has its verdict.
func (w *Worker) halves(v *vector, i int, ref conntrack.Ref) bool {
	f, l := &v.frames[i], &v.lanes[i]
	if f.Proto != packet.ProtoTCP || f.Kind&(fragment|packet.KindTransport) != packet.KindTransport {
		return false
	}
	_, answered := w.table.Answered(ref)
	switch {
	case ref.Reply() && f.Flags&(packet.TCPSyn|packet.TCPAck|packet.TCPRst) == packet.TCPSyn|packet.TCPAck:
		return w.meet(v, i, ref)
	case answered:
		return false
	case ref.Reply() && f.Flags&packet.TCPRst != 0:
		// The server refuses. Its RST has no number that the client would believe (RFC 5961 section 3).
		h := f.Chunk()[f.L4:f.L3End]
		put16(h[16:], patch32(be16(h[16:]), h, 4, w.table.Splice(ref).Cookie+1))
		return false
	case ref.Reply():
		w.refuse(v, i) // it takes the SYN for one of an older connection of its: what a client would say that knows better
		return true
	case f.Flags&packet.TCPRst != 0:
		if be32(f.Chunk()[f.L4+4:]) == w.table.Splice(ref).First+1 {
			w.table.Answer(ref, conntrack.Answer{}) // the client is gone: nothing is asked or joined any more
		}
		return false
	}
	// The server has not answered yet. Whatever the client says is a reason to ask it once more.
	if !petition(f, w.table.Splice(ref)) {
		l.discard(DropNoMemory)
		return true
	}
	w.Backends[w.table.Backend(ref)].Retried.add(1)
	return false
}

// meet takes a server's SYN+ACK: the server gets the ACK that the client has sent long ago, and the client the window that it waits for. The segment is
// made into the latter; only its ACK tells the table that the connection is established.
func (w *Worker) meet(v *vector, i int, ref conntrack.Ref) bool {
	f, s := &v.frames[i], w.table.Splice(ref)
	h := f.Chunk()[f.L4:f.L3End]
	first, acked := be32(h[4:]), be32(h[8:])
	var o tcpOptions
	o.read(h)
	x := offer(s.Options)
	a := conntrack.Answer{Seq: first - s.Cookie}
	stamped := o.stamped && x&offerStamps != 0
	if stamped {
		a.Stamp = o.stamp - s.Stamp
	}
	switch scale, scaled := x.scale(); {
	case !scaled:
		o.scale = 0 // nobody has asked for one
	case o.scaled:
		a.Out = int8(o.scale) - cookieScale
	default:
		a.In, a.Out = int8(scale), -cookieScale
	}
	before, answered := w.table.Answered(ref)
	switch {
	case answered && before.Seq != a.Seq:
		return false // see resequence
	case acked != s.First+1:
		w.refuse(v, i)
		return true
	}
	w.table.Answer(ref, a)
	w.greeted(f, ref)
	w.complete(ref, s, first, &o, stamped)
	src, dst := addresses(f, f.L3)
	v6 := ref.V6()
	g := packet.Segment{
		Src: wire(src, v6), Dst: wire(dst, v6), V6: v6, SrcPort: f.SrcPort, DstPort: f.DstPort, Flags: packet.TCPAck,
		Seq: first + 1, Ack: acked, Window: be16(h[14:]) >> o.scale, // a SYN's window is not scaled, and rewrite shifts it
	}
	if stamped {
		stampOnly(&g, o.stamp, o.echo)
	}
	if !reshape(f, &g) {
		v.lanes[i].discard(DropNoMemory)
		return true
	}
	return false
}

// complete sends the server the handshake's last ACK, in the client's name.
func (w *Worker) complete(ref conntrack.Ref, s *conntrack.Splice, first uint32, o *tcpOptions, stamped bool) {
	to := ref &^ 1
	g := w.segmentTo(to)
	g.Flags, g.Seq, g.Ack, g.Window = packet.TCPAck, s.First+1, first+1, s.Window
	if scale, ok := offer(s.Options).scale(); ok && o.scaled {
		g.Window >>= scale
	}
	if stamped {
		stampOnly(&g, o.echo, o.stamp)
	}
	w.sendAs(to, &g)
}

// compose writes a segment of our own into a free chunk. It returns nil if there is none.
func (w *Worker) compose(s *packet.Segment) *packet.Frame {
	addr, ok := w.pool.Get()
	if !ok {
		return nil
	}
	f := &w.own
	*f = packet.Frame{}
	f.Open(w.pool, packet.Desc{Addr: addr + packet.Headroom, Len: uint32(w.pool.ChunkSize() - packet.Headroom)})
	f.L3, f.Proto, f.SrcPort, f.DstPort = f.Start, packet.ProtoTCP, s.SrcPort, s.DstPort
	f.Kind = packet.KindIPv4
	if s.V6 {
		f.Kind = packet.KindIPv6
	}
	if !reshape(f, s) {
		w.pool.Put(f.Desc().Addr)
		return nil
	}
	return f
}

// becomes is what packets of an entry become.
func (w *Worker) becomes(ref conntrack.Ref) (src, dst conntrack.Addr, ports, space uint32, v6 bool) {
	if ref.V6() {
		e := w.table.Entry6(ref)
		return e.NewSrc, e.NewDst, e.NewPorts, e.NewSpace, true
	}
	e := w.table.Entry4(ref)
	return conntrack.Addr{Lo: uint64(e.NewSrc)}, conntrack.Addr{Lo: uint64(e.NewDst)}, e.NewPorts, e.NewSpace, false
}

// renege tells a client whose cookie was good that there is no server after all: it believes that it has a connection.
func (w *Worker) renege(v *vector, i int) {
	f, s := &v.frames[i], &w.splice
	src, dst := addresses(f, f.L3)
	v6 := f.Kind&packet.KindIPv6 != 0
	g := packet.Segment{
		Src: wire(dst, v6), Dst: wire(src, v6), V6: v6, SrcPort: f.DstPort, DstPort: f.SrcPort, Flags: packet.TCPRst, Seq: s.Cookie + 1,
	}
	w.retort(v, i, &g, src)
}

// resequence translates the numbers of a TCP segment between the two halves of its connection, whose server has answered.
func (w *Worker) resequence(f *packet.Frame, ref conntrack.Ref) {
	if f.Proto != packet.ProtoTCP {
		return
	}
	if ref.Reply() && f.Flags&(packet.TCPSyn|packet.TCPAck) == packet.TCPSyn|packet.TCPAck {
		// meet has taken the one that answers our SYN. The client has begun anew with the same ports, and the server answers that: from here on, but
		// not for packets that came before, these two agree without us (conn_reuse_mode 0).
		w.table.Answer(ref, conntrack.Answer{})
		return
	}
	a, _ := w.table.Answered(ref)
	h := f.Chunk()[f.L4:f.L3End]
	h = h[:int(h[12]>>4)*4]
	sum := be16(h[16:])
	shift := a.In
	if ref.Reply() {
		sum = patch32(sum, h, 4, be32(h[4:])-a.Seq)
		shift = a.Out
	} else if f.Flags&packet.TCPAck != 0 {
		sum = patch32(sum, h, 8, be32(h[8:])+a.Seq)
	}
	if shift != 0 && f.Flags&packet.TCPSyn == 0 {
		was := be16(h[14:])
		now := shifted(was, shift)
		put16(h[14:], now)
		sum = packet.Update16(sum, was, now)
	}
	if len(h) > tcpLen {
		sum = restamp(h, sum, &a, ref.Reply(), f.Flags&packet.TCPAck != 0)
	}
	put16(h[16:], sum)
}

// shifted is a window shifted to the left, and to the right if n is negative.
func shifted(window uint16, n int8) uint16 {
	if n < 0 {
		return window >> -n
	}
	return uint16(min(uint32(window)<<n, 0xffff))
}

// restamp translates the options of the TCP header h and returns its checksum, which was sum.
func restamp(h []byte, sum uint16, a *conntrack.Answer, reply, acks bool) uint16 {
	for at := tcpLen; at < len(h) && h[at] != optionEnd; {
		if h[at] == optionNOP {
			at++
			continue
		}
		if at+2 > len(h) || h[at+1] < 2 || at+int(h[at+1]) > len(h) {
			break
		}
		n := int(h[at+1])
		switch {
		case h[at] == optionStamps && n == stampsLen && reply:
			sum = patch32(sum, h, at+2, be32(h[at+2:])-a.Stamp)
		case h[at] == optionStamps && n == stampsLen && acks:
			sum = patch32(sum, h, at+6, be32(h[at+6:])+a.Stamp)
		case h[at] == optionSACK && !reply:
			for edge := at + 2; edge+4 <= at+n; edge += 4 {
				sum = patch32(sum, h, edge, be32(h[edge:])+a.Seq)
			}
		}
		at += n
	}
	return sum
}

// patch32 writes a number into a header at an offset, and returns the checksum over it, which was sum. At an odd offset, where an option may stand, its
// bytes count for the other halves of their words (RFC 1071 section 2B).
func patch32(sum uint16, h []byte, at int, now uint32) uint16 {
	d := packet.Diff32(0, be32(h[at:]), now)
	put32(h[at:], now)
	if at&1 != 0 {
		d = d<<8 | d>>8
	}
	return packet.ApplyDelta(sum, d)
}
