package packet

import "encoding/binary"

const (
	icmpEchoReply      = 0
	icmpUnreachable    = 3
	icmpSourceQuench   = 4
	icmpRedirect       = 5
	icmpEcho           = 8
	icmpTimeExceeded   = 11
	icmpParameter      = 12
	icmp6Informational = 128 // the lowest type of ICMPv6 that is not an error (RFC 4443 section 2.1)
	icmp6Echo          = 128
	icmp6EchoReply     = 129
	icmp6Redirect      = 137
)

// parseTransport reads the transport header at l4. b ends where the IP packet ends, or where the frame does if that is earlier. Of
// a protocol that is not known here nothing is said: KindTransport stays unset.
func parseTransport(f *Frame, b []byte, l4 int, proto uint8, kind Kind) Fault {
	t := b[l4:]
	switch proto {
	case ProtoTCP:
		if len(t) < tcpLen {
			return cutOff(f, t, kind)
		}
		readPorts(f, t, kind)
		f.Flags = t[13]
		size := int(t[12]>>4) * 4
		if size < tcpLen || size > len(t) {
			if size > len(t) && kind&KindFirstFragment != 0 {
				return FaultFragment // options that only the second fragment completes
			}
			return FaultTCPOffset
		}
	case ProtoUDP:
		if len(t) < udpLen {
			return cutOff(f, t, kind)
		}
		readPorts(f, t, kind)
		size := int(binary.BigEndian.Uint16(t[4:]))
		if size < udpLen || size > len(t) && kind&KindFirstFragment == 0 {
			return FaultLength
		}
	case ProtoSCTP:
		if len(t) < sctpLen {
			return cutOff(f, t, kind)
		}
		readPorts(f, t, kind)
		f.Flags = sctpFlags(t[sctpLen:])
	case ProtoICMP:
		if kind&KindIPv4 != 0 {
			return parseICMP(f, b, l4, kind)
		}
	case ProtoICMPv6:
		if kind&KindIPv6 != 0 {
			return parseICMPv6(f, b, l4, kind)
		}
	}
	return FaultNone
}

func readPorts(f *Frame, t []byte, kind Kind) {
	f.SrcPort, f.DstPort = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
	f.Kind = kind | KindTransport
}

// cutOff names what is wrong with a transport header that the packet ends in: a fragment may be cut, but not there (RFC 1858 section 3).
func cutOff(f *Frame, t []byte, kind Kind) Fault {
	if len(t) >= 4 {
		readPorts(f, t, kind)
	}
	if kind&KindFirstFragment != 0 {
		return FaultFragment
	}
	return FaultShort
}

func parseICMP(f *Frame, b []byte, l4 int, kind Kind) Fault {
	m := b[l4:]
	if len(m) < icmpLen {
		return FaultICMP
	}
	kind |= KindTransport
	f.ICMPType, f.ICMPCode = m[0], m[1]
	switch m[0] {
	case icmpEcho, icmpEchoReply:
		f.SrcPort = binary.BigEndian.Uint16(m[4:])
		f.DstPort = f.SrcPort
	case icmpUnreachable, icmpSourceQuench, icmpRedirect, icmpTimeExceeded, icmpParameter: // RFC 1122 section 3.2.2
		kind |= KindICMPError | parseQuote4(f, b, l4+icmpLen)
	}
	f.Kind = kind
	return FaultNone
}

func parseICMPv6(f *Frame, b []byte, l4 int, kind Kind) Fault {
	m := b[l4:]
	if len(m) < icmpLen {
		return FaultICMP
	}
	kind |= KindTransport
	f.ICMPType, f.ICMPCode = m[0], m[1]
	switch {
	case m[0] < icmp6Informational: // also types that are not assigned yet (RFC 4443 section 2.4 (a))
		kind |= KindICMPError | parseQuote6(f, b, l4+icmpLen)
	case m[0] == icmp6Echo || m[0] == icmp6EchoReply:
		f.SrcPort = binary.BigEndian.Uint16(m[4:])
		f.DstPort = f.SrcPort
	}
	f.Kind = kind
	return FaultNone
}

// Requote makes the IP packet of either family at offset at of an ICMP error's chunk the quoted one: what a tunnel's packet, which the error
// quotes, carried. It reports whether that is there, with 8 bytes of its transport header, and which family it is of.
func Requote(f *Frame, at uint16) (v6, ok bool) {
	b := f.chunk[:f.L3End]
	if int(at) >= len(b) {
		return false, false
	}
	if b[at]>>4 == 6 {
		return true, parseQuote6(f, b, int(at)) != 0
	}
	return false, parseQuote4(f, b, int(at)) != 0
}

// parseQuote4 reads the IPv4 packet that an ICMP error quotes from offset at on, and returns KindQuote if it is of use. To quote less than 8
// bytes of its transport header, or a fragment without any, is no fault, just an error that nobody can be told of. The quoted
// checksum, TTL and total length are not judged, since routers on the way have changed them, some of them wrongly.
func parseQuote4(f *Frame, b []byte, at int) Kind {
	q := b[at:]
	if len(q) < ipv4Len || q[0]>>4 != 4 {
		return 0
	}
	headerLen := int(q[0]&0xf) * 4
	if headerLen < ipv4Len || binary.BigEndian.Uint16(q[6:])&offsetMask != 0 {
		return 0
	}
	return readQuote(f, b, at, at+headerLen, q[9])
}

// parseQuote6 is parseQuote4 for ICMPv6.
func parseQuote6(f *Frame, b []byte, at int) Kind {
	q := b[at:]
	if len(q) < ipv6Len || q[0]>>4 != 6 {
		return 0
	}
	l4, proto := at+ipv6Len, q[6]
	if isExtension(proto) {
		x := walkExtensions(b, l4, proto)
		if x.fault != FaultNone || x.offset != 0 {
			return 0
		}
		l4, proto = x.at, x.proto
	}
	return readQuote(f, b, at, l4, proto)
}

// readQuote reads the ports of a quoted packet whose headers lie at l3 and l4.
func readQuote(f *Frame, b []byte, l3, l4 int, proto uint8) Kind {
	if l4+8 > len(b) {
		return 0
	}
	t := b[l4:][:8]
	f.QuoteL3, f.QuoteL4, f.QuoteProto = uint16(l3), uint16(l4), proto
	switch {
	case proto == ProtoTCP || proto == ProtoUDP || proto == ProtoSCTP:
		f.QuoteSrc, f.QuoteDst = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
	case proto == ProtoICMP && (t[0] == icmpEcho || t[0] == icmpEchoReply),
		proto == ProtoICMPv6 && (t[0] == icmp6Echo || t[0] == icmp6EchoReply):
		f.QuoteSrc = binary.BigEndian.Uint16(t[4:])
		f.QuoteDst = f.QuoteSrc
	}
	return KindQuote
}
