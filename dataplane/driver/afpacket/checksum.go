package afpacket

import (
	"encoding/binary"
	"hash/crc32"

	"weir/dataplane/packet"
)

// sctpOffset is where SCTP has its checksum, and of all protocols whose checksum the kernel leaves to the hardware only SCTP: TCP has it
// at 16, UDP, UDP-Lite and DCCP at 6, ICMPv6 at 2, GRE at 4.
const sctpOffset = 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// finishChecksum does what the kernel left to the hardware: it sums frame from start on and writes the result offset bytes behind
// start, as skb_checksum_help does. For the Internet checksum the field already holds the sum of the pseudo-header (RFC 1071,
// RFC 8200 section 8.1), not complemented, so it is the same for IPv4 and IPv6, behind extension headers and inside tunnels, whose
// outer checksum is right already (local checksum offload). For SCTP it is a CRC32c over everything, the field as zero (RFC 9260
// section 6.8), in little-endian order.
//
// It reports false, and leaves the frame alone, if the field does not lie within frame behind its Ethernet header.
func finishChecksum(frame []byte, start, offset int) bool {
	width := 2
	if offset == sctpOffset {
		width = 4
	}
	if start < ethernetHeader || start+offset+width > len(frame) {
		return false
	}
	body := frame[start:]
	field := body[offset:][:width]
	if offset == sctpOffset {
		clear(field)
		binary.LittleEndian.PutUint32(field, crc32.Checksum(body, castagnoli))
		return true
	}
	sum := packet.Sum(body)
	if sum == 0 {
		sum = 0xffff // zero means none in UDP (RFC 768); elsewhere the two are equal
	}
	binary.BigEndian.PutUint16(field, sum)
	return true
}
