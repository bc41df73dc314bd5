package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// A SYN costs who made its source up nothing, and us an entry and the server another. Once half-open connections are many, weir asks the
// client for a sign of life before it keeps anything (RFC 4987):
//
//	cookie     all servers are NAT: weir answers with a SYN+ACK whose number says all (cookie.go). The ACK that brings it back opens the
//	           connection, and both halves are joined (splice.go)
//	challenge  some server answers past us, so nobody could translate its numbers: weir answers with an ACK of a number that is wrong. A
//	           client that is there says RST with that number (RFC 9293 section 3.10.7.3) and sends its SYN again, Linux at once, others
//	           after a second. Its address is remembered (vouched.go), and this SYN passes
//
//	client            weir             server        client            weir             server
//	  | SYN            |                 |             | SYN            |                 |
//	  |--------------->|                 |             |--------------->|                 |
//	  | SYN+ACK=cookie |                 |             | ACK=challenge  |                 |
//	  |<---------------|                 |             |<---------------|                 |
//	  | ACK=cookie+1   | SYN             |             | RST=challenge  |                 |
//	  |--------------->|---------------->|             |--------------->|                 |
//	  | ACK (window)   | SYN+ACK         |             | SYN            | SYN             |
//	  |<---------------|<----------------|             |--------------->|---------------->|
//	  |                | ACK             |             |                       SYN+ACK    |
//	  |                |---------------->|             |<---------------------------------|

// Cookies says when a service asks for a sign of life.
type Cookies uint8

const (
	CookiesOff    Cookies = iota
	CookiesAuto           // while half-open connections are more than half of what there may be
	CookiesAlways         // for every new connection
)

// cookieScale is the window scale that we announce for servers whose own we do not know yet: Linux' usual one. Windows are translated afterwards.
const cookieScale = 7

// shields takes a SYN that is to open a connection if its sender is to be asked first. It reports false if the SYN is good as it is.
func (w *Worker) shields(v *vector, i int, svc *Service) bool {
	f, t := &v.frames[i], &v.queries[i].Tuple
	switch {
	case svc.Cookies == CookiesOff || f.Proto != packet.ProtoTCP || f.Flags&openMask != packet.TCPSyn || f.Kind&fragment != 0:
		return false
	case svc.Cookies == CookiesAuto && !w.engine.pressed():
		return false
	case svc.Challenge && w.engine.vouched.has(t, w.now):
		return false
	case !packet.MayAnswer(f):
		return false
	case !intact(f):
		v.lanes[i].discard(DropChecksum)
		return true
	}
	if last := w.engine.shielded.Load(); w.now-last > shieldedEvery {
		w.engine.shielded.Store(w.now)
	}
	h := f.Chunk()[f.L4:f.L3End]
	epoch := w.now >> epochShift
	s := packet.Segment{
		Src: wire(t.Dst, t.V6), Dst: wire(t.Src, t.V6), V6: t.V6, SrcPort: f.DstPort, DstPort: f.SrcPort,
		Flags: packet.TCPAck, Seq: be32(h[4:]),
	}
	if svc.Challenge {
		// An ACK that is right would be taken for an answer.
		if s.Ack = w.engine.cookies.challenge(t, epoch); s.Ack-s.Seq <= 1 {
			v.lanes[i].discard(DropNoConnection) // once in 2^31 times; the client's next SYN has the same number, but not the next epoch
			return true
		}
		w.Counters.Challenges.add(1)
	} else {
		var o tcpOptions
		o.read(h)
		x := offerOf(&o, t.V6)
		s.Flags |= packet.TCPSyn
		s.Ack = s.Seq + 1
		s.Seq = w.engine.cookies.sign(t, s.Seq, x, epoch)
		offers(&s, w.cookieMSS(t.V6), x, cookieScale, stampOf(w.now), o.stamp)
		w.Counters.CookiesSent.add(1)
	}
	w.retort(v, i, &s, t.Src)
	return true
}

// shieldedEvery is how exactly the engine knows when the last cookie went out, in nanoseconds: the word is shared.
const shieldedEvery = 1_000_000_000

// stampOf is our timestamp in a SYN+ACK, in about milliseconds.
func stampOf(now int64) uint32 { return uint32(now >> 20) }

// cookieMSS is what we announce for a server that is not chosen yet: what fits all ports, and all tunnels if there are any.
func (w *Worker) cookieMSS(v6 bool) uint16 {
	if v6 {
		return w.snap.leastMTU - ipv6Len - tcpLen
	}
	return w.snap.leastMTU - ipv4Len - tcpLen
}

// leastMTU is the smallest MTU of the ports, in bytes, and less by what a tunnel takes if some server is behind one.
func (s *Snapshot) least() uint16 {
	least := 0xffff
	for i := range s.Ports {
		least = min(least, s.Ports[i].MTU)
	}
	if s.Overlay != nil {
		least -= tunnelRoom
	}
	return uint16(max(least, 576))
}

// tunnelRoom is what VXLAN over IPv6 takes, inner Ethernet header included, in bytes.
const tunnelRoom = 70

// retort sends s in place of the frame that it answers: in its chunk, so that a flood takes no memory from the pool.
func (w *Worker) retort(v *vector, i int, s *packet.Segment, to conntrack.Addr) {
	f, l := &v.frames[i], &v.lanes[i]
	if !reshape(f, s) {
		l.discard(DropNoMemory)
		return
	}
	w.Counters.Answered.add(1)
	l.verdict = goneVerdict
	w.emit(f, to, s.V6, l.segment)
}

// reshape makes the frame's IP packet s. It reports false if there is no room in the chunk.
func reshape(f *packet.Frame, s *packet.Segment) bool {
	n := s.Write(f.Chunk()[f.L3:])
	if n == 0 {
		return false
	}
	f.L4 = f.L3 + ipv4Len
	if s.V6 {
		f.L4 = f.L3 + ipv6Len
	}
	f.L3End = f.L3 + uint16(n)
	f.End = f.L3End
	f.Flags = s.Flags
	f.Kind = f.Kind&(packet.KindIPv4|packet.KindIPv6) | packet.KindTransport
	return true
}

// pressed reports whether half-open connections are so many that services with CookiesAuto ask for a sign of life. Half of their part of the table is
// left for those who give it.
func (e *Engine) pressed() bool { return e.Table.HalfOpen() > e.Table.HalfOpenCap()/2 }

// redeem takes a segment of no connection if it is the sign of life that we have asked for. It reports false if it is not.
func (w *Worker) redeem(v *vector, i int, svc *Service) bool {
	f, l, q := &v.frames[i], &v.lanes[i], &v.queries[i]
	if svc.Cookies == CookiesOff || f.Kind&fragment != 0 || w.now-w.engine.shielded.Load() > cookieLife+shieldedEvery {
		return false
	}
	h := f.Chunk()[f.L4:f.L3End]
	seq := be32(h[4:])
	if svc.Challenge {
		if f.Flags&packet.TCPRst == 0 || !w.engine.cookies.met(&q.Tuple, seq, w.now) || !intact(f) {
			return false
		}
		w.engine.vouched.add(&q.Tuple, w.now)
		w.Counters.Vouched.add(1)
		l.verdict = Consumed
		return true
	}
	if f.Flags&(packet.TCPSyn|packet.TCPRst|packet.TCPAck) != packet.TCPAck {
		return false
	}
	w.table.Lookup(v.queries[i : i+1])
	if q.Ref != 0 && w.known(v, i, q.Ref) {
		return true // a packet before this one in the vector, or another worker, has opened it
	}
	cookie, first := be32(h[8:])-1, seq-1
	x, ok := w.engine.cookies.verify(&q.Tuple, first, cookie, w.now)
	if !ok && len(h) == int(h[12]>>4)*4 {
		// The ACK was lost, and the client asks whether our window is open now, with a number that we have (RFC 9293 section 3.8.6.1).
		first = seq
		x, ok = w.engine.cookies.verify(&q.Tuple, first, cookie, w.now)
	}
	switch {
	case !ok:
		w.Counters.CookiesBad.add(1)
		return false
	case !intact(f):
		l.discard(DropChecksum)
		return true
	case !svc.admits(q.Src, q.V6):
		l.discard(DropDenied)
		return true
	}
	w.Counters.CookiesGood.add(1)
	var o tcpOptions
	o.read(h)
	w.splice = conntrack.Splice{Cookie: cookie, First: first}
	if o.stamped {
		x |= offerStamps
		w.splice.Stamp, w.splice.Theirs = o.echo, o.stamp
	}
	w.splice.Options = uint16(x)
	scale, _ := x.scale()
	w.splice.Window = uint16(min(uint32(be16(h[14:]))<<scale, 0xffff))
	if !petition(f, &w.splice) {
		l.discard(DropNoMemory)
		return true
	}
	w.splicing = true
	w.place(v, i, svc)
	w.splicing = false
	if l.verdict == Pending {
		w.await(&q.Tuple, 0)
	}
	return true
}
