package packet

import "encoding/binary"

// Largest ICMP errors that we send, in bytes from the IP header on: what every host can take (RFC 1812 section 4.3.2.3), and what every
// link can carry (RFC 4443 section 2.4 (c)).
const (
	maxError4 = 576
	maxError6 = 1280
)

// errorPrecedence is the TOS of an ICMPv4 error beside what it takes over: internetwork control (RFC 1812 section 4.3.2.5).
const errorPrecedence = 0xc0

// ICMPError4 writes an ICMP error from src to dst that quotes the IPv4 packet quoted, or as much of it as makes 576 bytes in all, and
// returns its length from the IP header on. id is the IP ID; DF is clear. rest are the four bytes behind the checksum, such as the
// next-hop MTU of "fragmentation needed" (RFC 1191).
//
// It returns 0 if b is too short for that, or quoted for an IPv4 header. b and quoted must not overlap. [MayAnswer] says if the
// packet may be answered.
func ICMPError4(b []byte, id uint16, src, dst [4]byte, typ, code uint8, rest uint32, quoted []byte) int {
	quoted = quoted[:min(len(quoted), maxError4-ipv4Len-icmpLen)]
	n := ipv4Len + icmpLen + len(quoted)
	if len(quoted) < ipv4Len || n > len(b) {
		return 0
	}
	b = b[:n]
	header4(b, errorPrecedence|quoted[1]&0x1c, id, 0, ProtoICMP, src, dst)
	m := b[ipv4Len:]
	icmpHeader(m, typ, code, rest)
	copy(m[icmpLen:], quoted)
	binary.BigEndian.PutUint16(m[2:], Sum(m))
	return n
}

// ICMPError6 writes an ICMPv6 error from src to dst that quotes the IPv6 packet quoted, or as much of it as makes 1280 bytes in all, and
// returns its length from the IPv6 header on. rest are the four bytes behind the checksum, such as the MTU of "packet too big".
//
// It returns 0 if b is too short for that, or quoted for an IPv6 header. b and quoted must not overlap. [MayAnswer] says if the
// packet may be answered.
func ICMPError6(b []byte, src, dst [16]byte, typ, code uint8, rest uint32, quoted []byte) int {
	quoted = quoted[:min(len(quoted), maxError6-ipv6Len-icmpLen)]
	n := ipv6Len + icmpLen + len(quoted)
	if len(quoted) < ipv6Len || n > len(b) {
		return 0
	}
	b = b[:n]
	header6(b, 0, ProtoICMPv6, src, dst)
	m := b[ipv6Len:]
	icmpHeader(m, typ, code, rest)
	copy(m[icmpLen:], quoted)
	binary.BigEndian.PutUint16(m[2:], TransportSum6(src, dst, ProtoICMPv6, m))
	return n
}

// icmpHeader begins the message m, of either ICMP, with a checksum of zero.
func icmpHeader(m []byte, typ, code uint8, rest uint32) {
	m[0], m[1], m[2], m[3] = typ, code, 0, 0
	binary.BigEndian.PutUint32(m[4:], rest)
}

// header4 begins the IPv4 packet b, whose length is the packet's, with a header without options.
func header4(b []byte, tos uint8, id, fragment uint16, proto uint8, src, dst [4]byte) {
	h := b[:ipv4Len]
	h[0], h[1] = 4<<4|ipv4Len/4, tos
	binary.BigEndian.PutUint16(h[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(h[4:], id)
	binary.BigEndian.PutUint16(h[6:], fragment)
	h[8], h[9] = answerTTL, proto
	copy(h[12:], src[:])
	copy(h[16:], dst[:])
	seal4(h)
}

// header6 begins the IPv6 packet b, whose length is the packet's.
func header6(b []byte, class, proto uint8, src, dst [16]byte) {
	h := b[:ipv6Len]
	binary.BigEndian.PutUint32(h, 6<<28|uint32(class)<<20)
	binary.BigEndian.PutUint16(h[4:], uint16(len(b)-ipv6Len))
	h[6], h[7] = proto, answerTTL
	copy(h[8:], src[:])
	copy(h[24:], dst[:])
}

// seal4 writes the checksum of the IPv4 header h.
func seal4(h []byte) {
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], Sum(h))
}
