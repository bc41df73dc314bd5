package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// fromTunnel takes an ICMP error about an outer packet of ours: the client that sent what it carried is told, in an error of its own
// family that quotes its own packet (RFC 2003 4, RFC 2473 8). If the packet was too big, the way's MTU is learned, and the client
// told what is left of it. It reports false if f quotes no packet of our tunnels.
//
//	received  IP | ICMP | quoted: IP (UDP GUE, or GRE) | IP | 8 bytes at least
//	sent      IP | ICMP | quoted: IP | ...
func (w *Worker) fromTunnel(v *vector, i int) bool {
	f, l := &v.frames[i], &v.lanes[i]
	if f.Kind&packet.KindQuote == 0 || !translatable(f) {
		return false
	}
	outer6 := f.Kind&packet.KindIPv6 != 0
	source, server := addresses(f, f.QuoteL3)
	if !w.local(source, outer6) {
		return false // of a client: one behind NAT, or one that is about to be sent the error
	}
	path := w.snap.Paths[NetipOf(server, outer6)]
	at, tunnel := carried(f)
	if path == nil || !tunnel {
		return false
	}
	if !icmpIntact(f) {
		l.discard(DropICMPChecksum)
		return true
	}
	mtu, tooBig := nextMTU(f)
	v6, ok := packet.Requote(f, at)
	if !ok {
		l.verdict = Consumed // too little is quoted to know whose packet it was, if it was any: whoever knows a server could say so
		return true
	}
	t, ref := w.quotedConn(f, v6)
	if ref == 0 || w.backend(w.table.Backend(ref)).Addr != server || !w.backend(w.table.Backend(ref)).Live {
		l.discard(DropICMPUnrelated)
		return true
	}
	flags := connFlags(w.table.Flags(ref))
	q := f.Chunk()[f.QuoteL3:f.L3End]
	typ, code, rest := f.ICMPType, f.ICMPCode, uint32(0)
	switch {
	case tooBig:
		path.learn(mtu, outer6, w.now)
		mtu = path.mtu(w.now) - flags.overhead(outer6)
		typ, code, rest = icmpUnreachable, codeFragNeeded, uint32(mtu)
		if v6 {
			typ, code, rest = icmp6TooBig, 0, uint32(max(mtu, minPath6))
		}
		ok = v6 && int(be16(q[4:]))+ipv6Len > minPath6 || !v6 && be16(q[6:])&dontFragment != 0 // else the next one is cut
	case v6 != outer6:
		typ, code, ok = otherFamily(typ, code, v6)
	}
	if !ok {
		l.verdict = Consumed
		return true
	}
	b := w.blank(f, l)
	if b == nil {
		return true
	}
	kind := packet.KindIPv4
	if v6 {
		kind = packet.KindIPv6
	}
	w.say(l, w.icmpError(b, t.Dst, t.Src, v6, typ, code, rest, q), t.Src, kind)
	return true
}

// carried is where, in an ICMP error that quotes a tunnel's packet, the packet begins that the tunnel carried.
func carried(f *packet.Frame) (at uint16, tunnel bool) {
	b := f.Chunk()[f.QuoteL4:f.L3End]
	switch f.QuoteProto {
	case packet.ProtoIPIP, packet.ProtoIPv6:
		return f.QuoteL4, true
	case packet.ProtoGRE:
		if be16(b)&greChecksum != 0 {
			return f.QuoteL4 + greLen + greSum, true
		}
		return f.QuoteL4 + greLen, true
	case packet.ProtoUDP:
		return f.QuoteL4 + udpLen + gueLen, true
	}
	return 0, false
}

// nextMTU is the MTU that an error says, in bytes, and whether it is about a packet that was too big.
func nextMTU(f *packet.Frame) (mtu int, tooBig bool) {
	m := f.Chunk()[f.L4:]
	if f.Proto == packet.ProtoICMPv6 {
		return int(min(be32(m[4:]), 0xffff)), f.ICMPType == icmp6TooBig
	}
	return int(be16(m[6:])), f.ICMPType == icmpUnreachable && f.ICMPCode == codeFragNeeded
}

// quotedConn finds the connection of the client's packet that f quotes now.
func (w *Worker) quotedConn(f *packet.Frame, v6 bool) (t conntrack.Tuple, ref conntrack.Ref) {
	kind, proto, typ := f.Kind, f.Proto, f.ICMPType
	f.Kind, f.Proto, f.ICMPType = packet.KindQuote|packet.KindIPv4, packet.ProtoICMP, icmpUnreachable
	if v6 {
		f.Kind, f.Proto = packet.KindQuote|packet.KindIPv6, packet.ProtoICMPv6
	}
	var q [1]conntrack.Query
	ask(f, &q[0].Tuple) // turned round, as for every error
	f.Kind, f.Proto, f.ICMPType = kind, proto, typ
	t = q[0].Tuple
	t.Src, t.Dst, t.Ports = t.Dst, t.Src, t.Ports<<16|t.Ports>>16
	q[0].Tuple = t
	w.table.Lookup(q[:])
	return t, q[0].Ref
}

// otherFamily turns the type and code of an error about an outer packet into those of the family of what it carried (RFC 7915 4.2, 5.2). It
// reports false for what has no meaning there.
func otherFamily(typ, code uint8, to6 bool) (uint8, uint8, bool) {
	const prohibited4, prohibited6, host4, address6 = 13, 1, 1, 3
	if to6 {
		switch {
		case typ == icmpUnreachable && (code == 9 || code == 10 || code == prohibited4):
			return icmp6Unreachable, prohibited6, true
		case typ == icmpUnreachable:
			return icmp6Unreachable, address6, true
		case typ == icmpTimeExceeded && code == 0:
			return icmp6TimeExceeded, 0, true
		}
		return 0, 0, false
	}
	switch {
	case typ == icmp6Unreachable && code == prohibited6:
		return icmpUnreachable, prohibited4, true
	case typ == icmp6Unreachable:
		return icmpUnreachable, host4, true
	case typ == icmp6TimeExceeded && code == 0:
		return icmpTimeExceeded, 0, true
	}
	return 0, 0, false
}
