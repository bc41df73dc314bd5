package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// Types and codes of ICMP (RFC 792, RFC 1191) and ICMPv6 (RFC 4443).
const (
	icmpEchoReply    = 0
	icmpUnreachable  = 3
	icmpSourceQuench = 4
	icmpEcho         = 8
	icmpTimeExceeded = 11

	codeNet        = 0 // of unreachable
	codeHost       = 1
	codePort       = 3
	codeFragNeeded = 4

	icmp6Unreachable  = 1
	icmp6TooBig       = 2
	icmp6TimeExceeded = 3
	icmp6Echo         = 128

	code6NoRoute = 0 // of unreachable
	code6Address = 3
	code6Port    = 4
)

// relate takes an ICMP error: one that quotes a packet of a connection goes to whoever sent that packet, translated. It neither moves the
// connection's state nor restarts its timer (RFC 5508 REQ-6): anybody can send one.
func (w *Worker) relate(v *vector, i int) {
	f, l, ref := &v.frames[i], &v.lanes[i], v.queries[i].Ref
	if f.Kind&fragment != 0 {
		l.discard(DropFragmentAlone)
		return
	}
	src, dst := addresses(f, f.L3)
	v6, vni := f.Kind&packet.KindIPv6 != 0, w.vni(l.segment)
	if ref == 0 {
		switch {
		case l.segment == 0 && w.fromTunnel(v, i):
		case w.routes(v, i, src, dst, v6, vni):
		case l.segment != 0 || w.snap.Services.IsVIP(dst, v6):
			l.discard(DropICMPUnrelated)
		default:
			l.verdict = Punted
		}
		return
	}
	if !icmpIntact(f) {
		l.discard(DropICMPChecksum)
		return
	}
	if f.TTL <= 1 {
		l.discard(DropTTL) // an error is never answered by an error
		return
	}
	id := w.table.Backend(ref)
	w.count(f, id, ref)
	l.ref, l.backend = ref, id
	if !ref.Reply() {
		l.flags = connFlags(w.table.Flags(ref))
	}
}

// icmpIntact verifies the message's checksum. The translation makes a new one, which would hide the damage.
func icmpIntact(f *packet.Frame) bool {
	b := f.Chunk()
	msg := b[f.L4:f.L3End]
	if f.Proto == packet.ProtoICMP {
		return packet.Sum(msg) == 0
	}
	h := b[f.L3:][:40]
	return packet.TransportSum6([16]byte(h[8:24]), [16]byte(h[24:40]), packet.ProtoICMPv6, msg) == 0
}

// rewriteError translates an ICMP error and the packet that it quotes. The quoted packet went the other way than the entry's, so its
// source becomes the entry's new destination, and so on. The transport checksum in the quote is left alone, as the kernel leaves it: it
// is often cut off, and nobody verifies it.
//
//	to the client side:  outer source the VIP, destination the client;  quoted  client -> VIP
//	to the server:       outer source as it was, destination the server; quoted  server -> client
func (w *Worker) rewriteError(f *packet.Frame, ref conntrack.Ref) {
	b := f.Chunk()
	h, q := b[f.L3:], b[f.QuoteL3:]
	msg := b[f.L4:f.L3End]
	put16(msg[2:], 0)
	if f.QuoteProto == packet.ProtoTCP && !ref.Reply() && w.table.Spliced(ref) {
		// A server believes what is said of its packets if their numbers are its own.
		if a, ok := w.table.Answered(ref); ok {
			put32(b[f.QuoteL4+4:], be32(b[f.QuoteL4+4:])+a.Seq)
		}
	}
	if ref.V6() {
		e := w.table.Entry6(ref)
		if ref.Reply() {
			put64(h[8:], e.NewSrc.Hi)
			put64(h[16:], e.NewSrc.Lo)
		}
		put64(h[24:], e.NewDst.Hi)
		put64(h[32:], e.NewDst.Lo)
		h[7]--
		put64(q[8:], e.NewDst.Hi)
		put64(q[16:], e.NewDst.Lo)
		put64(q[24:], e.NewSrc.Hi)
		put64(q[32:], e.NewSrc.Lo)
		rewriteQuotedPorts(f, e.NewPorts)
		put16(msg[2:], packet.TransportSum6([16]byte(h[8:24]), [16]byte(h[24:40]), packet.ProtoICMPv6, msg))
		return
	}
	e := w.table.Entry4(ref)
	if ref.Reply() {
		put32(h[12:], e.NewSrc)
	}
	put32(h[16:], e.NewDst)
	h[8]--
	fillHeader4(h)
	put32(q[12:], e.NewDst)
	put32(q[16:], e.NewSrc)
	rewriteQuotedPorts(f, e.NewPorts)
	fillHeader4(q)
	put16(msg[2:], packet.Sum(msg))
}

// rewriteQuotedPorts writes the ports of an entry, turned round, into the quoted packet, if it has any.
func rewriteQuotedPorts(f *packet.Frame, ports uint32) {
	if balanced(f.QuoteProto) {
		put32(f.Chunk()[f.QuoteL4:], ports<<16|ports>>16)
	}
}

// fillHeader4 writes the checksum of the IPv4 header that h begins with.
func fillHeader4(h []byte) {
	h = h[:int(h[0]&0xf)*4]
	put16(h[10:], 0)
	put16(h[10:], packet.Sum(h))
}
