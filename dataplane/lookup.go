package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// lookup asks the connection table for all frames of the vector at once. An ICMP error is asked for by the packet it quotes, turned
// round: the quoted packet went the other way, so its reverse is the tuple of the connection's packets that come the error's way.
//
// Those that are plain and of IPv4 are asked for by themselves, in half the space. Most vectors have nothing else.
func (w *Worker) lookup(v *vector) {
	if v.odd.n+v.six.n+v.gone > 0 {
		w.lookupOdd(v)
		return
	}
	v.missed = w.table.Lookup4(v.narrow[:v.n])
}

// lookupOdd is lookup for a vector in which not all is plain and of IPv4.
func (w *Worker) lookupOdd(v *vector) {
	plain := v.n - v.odd.n - v.six.n - v.gone
	others := v.six
	for _, k := range v.odd.all() {
		i := int(k)
		q, p := &v.queries[i], &v.plain[i]
		q.Ref, q.Space = 0, 0
		v.narrow[i].Rest, v.narrow[i].Ref = 0, 0 // no question
		if v.lanes[i].verdict != Pending {
			continue
		}
		f := &v.frames[i]
		ask(f, &q.Tuple)
		if q.Space == 0 {
			continue
		}
		if r := v.lanes[i].segment; r != 0 {
			q.Space |= w.at(r).VNI << 8
		}
		if w.note(p, f); p.size != 0 {
			v.narrow[i] = q.Narrow()
			plain++
			continue
		}
		v.asked[uint8(others.n)].Tuple = q.Tuple
		others.add(i)
	}
	v.missed = true
	if plain > 0 {
		v.missed = w.table.Lookup4(v.narrow[:v.n])
	}
	if others.n > 0 {
		w.table.Lookup(v.asked[:others.n])
		for j := v.six.n; j < others.n; j++ { // express6 has those before it
			v.queries[others.at[j]].Ref = v.asked[j].Ref
		}
	}
}

// ask writes the tuple that f is to be looked up by into t; Space stays zero when f can belong to no connection.
func ask(f *packet.Frame, t *conntrack.Tuple) {
	t.V6 = f.Kind&packet.KindIPv6 != 0
	switch {
	case f.Kind&packet.KindTransport != 0 && balanced(f.Proto):
		t.Src, t.Dst = addresses(f, f.L3)
		t.Ports = uint32(f.SrcPort)<<16 | uint32(f.DstPort)
		t.Space = uint32(f.Proto)
	case f.Kind&packet.KindQuote != 0 && translatable(f) && balanced(f.QuoteProto):
		t.Dst, t.Src = addresses(f, f.QuoteL3)
		t.Ports = uint32(f.QuoteDst)<<16 | uint32(f.QuoteSrc)
		t.Space = uint32(f.QuoteProto)
	case follows(f.Proto) && f.Kind&(packet.KindIPv4|packet.KindIPv6) != 0 && f.Kind&packet.KindLaterFragment == 0:
		t.Src, t.Dst = addresses(f, f.L3)
		t.Ports, t.Space = isakmp<<16|isakmp, packet.ProtoUDP
	case f.Kind&packet.KindQuote != 0 && translatable(f) && follows(f.QuoteProto):
		t.Dst, t.Src = addresses(f, f.QuoteL3)
		t.Ports, t.Space = isakmp<<16|isakmp, packet.ProtoUDP
	default:
		t.Space, t.Ports = 0, 0
	}
}

// isakmp is the port at which two hosts agree on how to encrypt (RFC 7296). ESP and AH, which have no ports, belong to the connection between
// these of the same addresses, as in kernel IPVS (ip_vs_proto_ah_esp.c).
const isakmp = 500

// follows reports whether packets of a protocol follow another connection of their addresses.
func follows(proto uint8) bool { return proto == packet.ProtoESP || proto == packet.ProtoAH }

// balanced are the protocols that services have.
func balanced(proto uint8) bool {
	return proto == packet.ProtoTCP || proto == packet.ProtoUDP || proto == packet.ProtoSCTP
}

// translatable are the ICMP errors that kernel IPVS translates: destination unreachable, source quench and time exceeded of ICMP, every
// error of ICMPv6. Redirects and parameter problems are between neighbours and end here.
func translatable(f *packet.Frame) bool {
	if f.Proto == packet.ProtoICMPv6 {
		return true
	}
	return f.ICMPType == icmpUnreachable || f.ICMPType == icmpSourceQuench || f.ICMPType == icmpTimeExceeded
}
