package packet

import "encoding/binary"

const (
	answerTTL = 64 // TTL and hop limit of what we say in our own name

	// ecnMask are the two bits of TOS and traffic class that an answer does not take over: they are about another packet's way (RFC 3168).
	ecnMask = 0x03
)

// MayAnswer reports whether f, an IP packet without a fault, may be answered at all: by an ICMP error, a RST or an echo reply. Not so
// (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)):
//
//   - an ICMP error, which could be the answer to an answer; ICMPv6 redirect is one in this respect;
//   - a fragment other than the first;
//   - what came to many at once: to a group MAC, or to a multicast or the limited broadcast address;
//   - a source that is no single host: unspecified, loopback, multicast, broadcast, class E.
//
// The broadcast address of a subnet is known to whoever knows the subnets, not here. That a RST is never answered by a RST is the
// caller's to see to.
func MayAnswer(f *Frame) bool {
	if f.Kind&(KindICMPError|KindLaterFragment|KindBroadcast) != 0 {
		return false
	}
	b := f.chunk[f.L3:]
	switch {
	case f.Kind&KindIPv4 != 0:
		src, dst := b[12], b[16] // the first byte says it all: 0, 127, and 224 upwards
		return src != 0 && src != 127 && src < 224 && dst < 224
	case f.Kind&KindIPv6 != 0:
		if f.Proto == ProtoICMPv6 && f.Kind&KindTransport != 0 && f.ICMPType == icmp6Redirect {
			return false
		}
		if b[8] == 0xff || b[24] == 0xff {
			return false
		}
		hi, lo := binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
		return hi != 0 || lo > 1 // neither :: nor ::1
	}
	return false
}

// Reset writes the RST that answers the TCP segment in f, from its destination to its source, and returns the length of the IP packet:
// 40 bytes, or 60 with IPv6. The segment's ACK decides which of the two forms it is (RFC 9293 section 3.10.7.1). As the kernel's, it
// has DF set and IP ID 0, and takes over DSCP.
//
// It returns 0 if b is too short, or f is not a whole TCP segment: the length of a fragmented one is not known.
func Reset(b []byte, f *Frame) int {
	if f.Kind&KindTransport == 0 || f.Proto != ProtoTCP || f.Kind&(KindFirstFragment|KindLaterFragment) != 0 {
		return 0
	}
	p := f.chunk[f.L3:f.L3End]
	s := f.chunk[f.L4:f.L3End]
	if len(s) < tcpLen {
		return 0
	}
	n := ipv4Len + tcpLen
	if f.Kind&KindIPv6 != 0 {
		n = ipv6Len + tcpLen
	}
	if len(b) < n {
		return 0
	}
	b = b[:n]
	t := b[n-tcpLen:]
	var seq, ack uint32
	flags := byte(TCPRst)
	if s[13]&TCPAck != 0 {
		seq = binary.BigEndian.Uint32(s[8:])
	} else {
		flags |= TCPAck
		ack = binary.BigEndian.Uint32(s[4:]) + uint32(len(s)) - uint32(s[12]>>4)*4
		if s[13]&TCPSyn != 0 {
			ack++
		}
		if s[13]&TCPFin != 0 {
			ack++
		}
	}
	copy(t[0:2], s[2:4])
	copy(t[2:4], s[0:2])
	binary.BigEndian.PutUint32(t[4:], seq)
	binary.BigEndian.PutUint32(t[8:], ack)
	t[12], t[13] = tcpLen/4<<4, flags
	clear(t[14:]) // window, checksum, urgent pointer
	if f.Kind&KindIPv6 != 0 {
		src, dst := [16]byte(p[24:40]), [16]byte(p[8:24])
		class := p[0]<<4 | p[1]>>4
		header6(b, class&^ecnMask, ProtoTCP, src, dst)
		binary.BigEndian.PutUint16(t[16:], TransportSum6(src, dst, ProtoTCP, t))
		return n
	}
	src, dst := [4]byte(p[16:20]), [4]byte(p[12:16])
	header4(b, p[1]&^ecnMask, 0, flagDF, ProtoTCP, src, dst)
	binary.BigEndian.PutUint16(t[16:], TransportSum4(src, dst, ProtoTCP, t))
	return n
}

// EchoReply turns the echo request ip, an IP packet from its first byte to its last, into the reply to it, in place: the addresses change
// places, the type changes, TTL or hop limit is 64. IP ID, options and extension headers stay. The ICMP checksum is corrected, not made
// anew: a damaged request becomes a reply as damaged.
//
// It reports false, and leaves ip alone, if that is not a whole echo request: another message, a fragment, or one with a
// routing header, which may not be reflected (RFC 8200 section 8.4).
func EchoReply(ip []byte) bool {
	if len(ip) < ipv4Len {
		return false
	}
	switch ip[0] >> 4 {
	case 4:
		return echoReply4(ip)
	case 6:
		return echoReply6(ip)
	}
	return false
}

func echoReply4(ip []byte) bool {
	headerLen := int(ip[0]&0xf) * 4
	if headerLen < ipv4Len || headerLen+icmpLen > len(ip) || ip[9] != ProtoICMP ||
		binary.BigEndian.Uint16(ip[6:])&(flagMF|offsetMask) != 0 {
		return false
	}
	m := ip[headerLen:]
	if m[0] != icmpEcho {
		return false
	}
	src, dst := binary.BigEndian.Uint32(ip[12:]), binary.BigEndian.Uint32(ip[16:])
	binary.BigEndian.PutUint32(ip[12:], dst)
	binary.BigEndian.PutUint32(ip[16:], src)
	ip[8] = answerTTL
	seal4(ip[:headerLen])
	sum := Update16(binary.BigEndian.Uint16(m[2:]), icmpEcho<<8|uint16(m[1]), icmpEchoReply<<8|uint16(m[1]))
	if sum == 0 {
		sum = 0xffff // the other zero: a reply can be all zero, and then a checksum of zero is wrong
	}
	m[0] = icmpEchoReply
	binary.BigEndian.PutUint16(m[2:], sum)
	return true
}

func echoReply6(ip []byte) bool {
	if len(ip) < ipv6Len {
		return false
	}
	at, proto := ipv6Len, ip[6]
	if isExtension(proto) {
		x := walkExtensions(ip, at, proto)
		if x.fault != FaultNone || x.fragment || x.routing {
			return false
		}
		at, proto = x.at, x.proto
	}
	if proto != ProtoICMPv6 || at+icmpLen > len(ip) || ip[at] != icmp6Echo {
		return false
	}
	m := ip[at:]
	src := [16]byte(ip[8:24])
	copy(ip[8:24], ip[24:40])
	copy(ip[24:40], src[:])
	ip[7] = answerTTL
	sum := Update16(binary.BigEndian.Uint16(m[2:]), icmp6Echo<<8|uint16(m[1]), icmp6EchoReply<<8|uint16(m[1]))
	m[0] = icmp6EchoReply
	binary.BigEndian.PutUint16(m[2:], sum)
	return true
}
