package packet

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// sctpFlags are the Flags of an SCTP packet whose chunks are b, as far as they are there.
func sctpFlags(b []byte) uint8 {
	if len(b) < chunkLen {
		return SCTPNoChunk
	}
	chunk := b[0]
	if chunk == SCTPCookieEcho || chunk == SCTPCookieAck {
		n := int(binary.BigEndian.Uint16(b[2:]))
		if next := (n + 3) &^ 3; n >= chunkLen && next+chunkLen <= len(b) && b[next] == SCTPAbort {
			return chunk | SCTPAbortBehind
		}
	}
	if chunk > SCTPShutdownComplete {
		return SCTPData
	}
	return chunk
}

// The checksum of SCTP is the CRC32c of the whole packet from its common header on, taken with zeros in its place and sent with its least significant byte
// first (RFC 9260 section 6.8 and appendix A):
//
//	 0               2               4                8         12
//	| source port   | dest port     | verification   | checksum | chunks ...
//
// It has no pseudo header, so that an address may change without it. Ports may not. But a CRC is linear: what the checksum becomes depends on the
// bits that change and on how far from the end they stand, and not on any other byte. So the payload is not read to translate a packet, and
// a wrong checksum stays wrong by as much.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// zeros stand in for payload. Its pages are never written.
var zeros [2048]byte

// SCTPSum is the checksum of an SCTP packet, which has at least its common header of 12 bytes. Whatever stands in the checksum's place counts as
// zero.
func SCTPSum(b []byte) uint32 {
	c := crc32.Update(0, castagnoli, b[:8])
	c = crc32.Update(c, castagnoli, zeros[:4])
	return crc32.Update(c, castagnoli, b[12:])
}

// SCTPIntact reports whether the checksum of an SCTP packet, which has at least its common header, is right.
func SCTPIntact(b []byte) bool { return binary.LittleEndian.Uint32(b[8:]) == SCTPSum(b) }

// SCTPDelta is what the checksum of an SCTP packet of n bytes changes by, to be combined with it by exclusive or, when its ports change from old to now.
// Ports are the header's first word: the source port is the upper half.
//
// In the register of the CRC the first word of a message is as good as four zeros and a register that began with that word. Those of
// two messages that agree in all that follows differ by what is left of the words' difference, after as many zeros as the messages
// have bytes.
func SCTPDelta(old, now uint32, n int) uint32 {
	c := ^bits.ReverseBytes32(old ^ now) // crc32 keeps the register's complement
	for ; n > len(zeros); n -= len(zeros) {
		c = crc32.Update(c, castagnoli, zeros[:])
	}
	return ^crc32.Update(c, castagnoli, zeros[:n])
}

// TranslateSCTP gives an SCTP packet, all of which is b, other ports and the checksum that goes with them. If its ports are these already it is left
// as it is.
func TranslateSCTP(b []byte, ports uint32) {
	_ = b[11]
	old := binary.BigEndian.Uint32(b)
	if old == ports {
		return
	}
	binary.BigEndian.PutUint32(b, ports)
	binary.LittleEndian.PutUint32(b[8:], binary.LittleEndian.Uint32(b[8:])^SCTPDelta(old, ports, len(b)))
}
