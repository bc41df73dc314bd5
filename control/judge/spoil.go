package judge

import (
	"encoding/binary"
	"hash/crc32"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// ipOptions are what IPv4 headers have besides.
var ipOptions = map[string][]byte{
	"nop": {1, 1, 1, 0},
	"rr":  {7, 7, 4, 0, 0, 0, 0}, // record route with room for one address
	"ra":  {148, 4, 0, 0},        // router alert
}

// spoil damages a packet.
func spoil(ip []byte, how string) []byte {
	v4 := ip[0]>>4 == 4
	at := 40
	if v4 {
		at = int(ip[0]&15) * 4
	}
	sum, _ := checksumAt(ip)
	switch how {
	case "sum": // of the transport
		ip[at+sum] ^= 0x5a
	case "ipsum":
		if v4 {
			ip[10] ^= 0x5a
		}
	case "short": // the last bytes are missing
		ip = ip[:len(ip)-min(6, len(ip)-at)]
	case "trailer": // bytes behind the packet
		ip = append(ip, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff)
	case "tiny": // the transport header is cut off, and the lengths say so
		ip = ip[:at+6]
		if v4 {
			binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
			pkttest.Seal(ip)
		} else {
			binary.BigEndian.PutUint16(ip[4:], 6)
		}
	case "ihl":
		if v4 {
			ip[0] = 0x44
		}
	case "version":
		ip[0] = ip[0]&15 | 0x50
	}
	return ip
}

// sealSCTP writes the checksum of an SCTP packet (RFC 9260 section 6.8).
func sealSCTP(ip []byte) {
	h, err := headersOf(ip)
	if err != nil || len(h.payload) < 12 {
		return
	}
	clear(h.payload[8:12])
	binary.LittleEndian.PutUint32(h.payload[8:], crc32.Checksum(h.payload, crc32.MakeTable(crc32.Castagnoli)))
}

// checksumAt is where in its transport header a packet's checksum stands.
func checksumAt(ip []byte) (at int, proto uint8) {
	proto = ip[9]
	if ip[0]>>4 == 6 {
		proto = ip[6]
	}
	switch proto {
	case packet.ProtoTCP:
		return 16, proto
	case packet.ProtoUDP:
		return 6, proto
	case protoSCTP:
		return 8, proto
	}
	return 2, proto
}

const protoSCTP = 132

// datagramOffset is where in its datagram a fragment begins; 0 of a packet that is whole.
func datagramOffset(ip []byte) int {
	if ip[0]>>4 == 4 {
		return int(binary.BigEndian.Uint16(ip[6:])&0x1fff) * 8
	}
	if ip[6] == 44 && len(ip) >= 48 {
		return int(binary.BigEndian.Uint16(ip[42:]) &^ 7)
	}
	return 0
}

// lengthOf is a packet's without what follows it in its frame.
func lengthOf(ip []byte) int {
	if ip[0]>>4 == 6 {
		return min(len(ip), 40+int(binary.BigEndian.Uint16(ip[4:])))
	}
	return min(len(ip), int(binary.BigEndian.Uint16(ip[2:])))
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}
