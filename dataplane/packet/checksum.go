package packet

import (
	"encoding/binary"
	"math/bits"
)

// The Internet checksum (RFC 1071) is the complement of the one's complement sum of all 16-bit words. That sum has two zeros, 0x0000
// and 0xffff, which a receiver cannot tell apart, but comparing bytes can:
//
//   - Adding with end-around carry never turns a sum that is not 0x0000 into 0x0000. So the checksum of bytes that are not all zero is
//     never 0xffff, and the functions below that update a checksum keep it so: what they give for a checksum that was made by Sum is what
//     Sum would give for the new bytes, as long as these are not all zero. No IP header is, nor is any pseudo header.
//   - In UDP a checksum of 0x0000 means that there is none, and 0xffff is sent in its place (RFC 768). That is the caller's to do. A
//     0xffff that was received counts as 0x0000 here, as it must.
//
// Words are added eight bytes at a time in the machine's order, which the sum does not depend on (RFC 1071 section 2B), and swapped once.

// Sum is the Internet checksum of b, as it is written into a header whose checksum field is zero in b; an odd byte at the end counts
// as if a zero followed it. Over bytes that contain their own checksum it is zero if the checksum is right.
func Sum(b []byte) uint16 {
	return ^bits.ReverseBytes16(fold(add(0, b)))
}

// TransportSum4 is the checksum of a TCP or UDP segment with the pseudo header of IPv4 (RFC 9293 section 3.1). segment starts at its
// own header and has at most 65535 bytes; its checksum field must be zero, or be right for a result of zero.
func TransportSum4(src, dst [4]byte, proto uint8, segment []byte) uint16 {
	s := uint64(binary.LittleEndian.Uint32(src[:])) + uint64(binary.LittleEndian.Uint32(dst[:])) +
		uint64(proto)<<8 + uint64(bits.ReverseBytes16(uint16(len(segment))))
	return ^bits.ReverseBytes16(fold(add(s, segment)))
}

// TransportSum6 is the checksum of a TCP, UDP or ICMPv6 message with the pseudo header of IPv6 (RFC 8200 section 8.1). dst is the final
// destination. The message starts at its own header; its checksum field must be zero, or be right for a result of zero.
func TransportSum6(src, dst [16]byte, proto uint8, message []byte) uint16 {
	s, c := bits.Add64(binary.LittleEndian.Uint64(src[:]), binary.LittleEndian.Uint64(src[8:]), 0)
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(dst[:]), c)
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(dst[8:]), c)
	s, c = bits.Add64(s, uint64(bits.ReverseBytes32(uint32(len(message)))), c)
	s, c = bits.Add64(s, uint64(proto)<<8, c)
	return ^bits.ReverseBytes16(fold(add(s+c, message))) // s+c cannot wrap: the last summand was small
}

// Update16 is the checksum that was before, after one 16-bit word of what it covers has changed from old to now (RFC 1624 equation 3).
// A wrong checksum stays wrong by the same amount.
func Update16(before, old, now uint16) uint16 {
	return ApplyDelta(before, Diff16(0, old, now))
}

// Diff16 adds to the delta d that a 16-bit word changes from old to now. A delta is what many changes together do to a checksum, so that
// a connection can work it out once: begin with zero, add every word that changes, keep the result, and give it to ApplyDelta for each
// packet. The order does not matter. Addresses change two checksums, that of the IPv4 header and that of the transport; ports one.
func Diff16(d, old, now uint16) uint16 {
	return fold(uint64(d) + uint64(^old) + uint64(now))
}

// Diff32 adds to the delta d that two adjacent words, such as an IPv4 address, change from old to now.
func Diff32(d uint16, old, now uint32) uint16 {
	return fold(uint64(d) + uint64(^old) + uint64(now))
}

// ApplyDelta is the checksum check after the changes that d stands for. A wrong checksum stays wrong by the same amount.
func ApplyDelta(check, d uint16) uint16 {
	s := uint32(^check) + uint32(d)
	return ^uint16(s + s>>16) // the one carry that there can be cannot cause another
}

// headerIntact reports whether the checksum of an IPv4 header without options, of which h holds at least 20 bytes, is right.
func headerIntact(h []byte) bool {
	_ = h[19]
	s, c := bits.Add64(binary.LittleEndian.Uint64(h), binary.LittleEndian.Uint64(h[8:]), 0)
	s, c = bits.Add64(s, uint64(binary.LittleEndian.Uint32(h[16:])), c)
	return fold(s+c) == 0xffff // s+c cannot wrap: the last summand was small
}

// add is the one's complement sum of s and the words of b in little-endian order, over 64 bits.
func add(s uint64, b []byte) uint64 {
	var c uint64 // carried from one addition to the next, and around the end
	for len(b) >= 32 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[8:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[16:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[24:]), c)
		b = b[32:]
	}
	for len(b) >= 8 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), c)
		b = b[8:]
	}
	var tail uint64
	if len(b) >= 4 {
		tail = uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		tail += uint64(binary.LittleEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		tail += uint64(b[0])
	}
	s, c = bits.Add64(s, tail, c)
	s, c = bits.Add64(s, 0, c) // a carry out of here leaves s zero
	return s + c
}

// fold is the one's complement sum of the four 16-bit words of s. To add a number to itself with its halves swapped leaves in the upper
// half the sum of both and, out of the lower half, its end-around carry.
func fold(s uint64) uint16 {
	s += bits.RotateLeft64(s, 32)
	t := uint32(s >> 32)
	t += bits.RotateLeft32(t, 16)
	return uint16(t >> 16)
}
