package bench

import (
	"encoding/binary"
	"net/netip"

	"weir/dataplane/packet"
)

// answerNeighbor turns an ARP request (RFC 826) or an IPv6 neighbour solicitation (RFC 4861 section 4.3) for one of own into the answer, in
// place, and returns its length, or 0 if b is no such question.
func answerNeighbor(b []byte, mac [6]byte, own []Range) int {
	if len(b) < 42 {
		return 0
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case packet.EtherTypeARP:
		return answerARP(b, mac, own)
	case packet.EtherTypeIPv6:
		return answerND(b, mac, own)
	}
	return 0
}

func owned(own []Range, a netip.Addr) bool {
	for _, r := range own {
		if r.contains(a) {
			return true
		}
	}
	return false
}

func answerARP(b []byte, mac [6]byte, own []Range) int {
	arp := b[14:42]
	if binary.BigEndian.Uint64(arp) != 0x0001080006040001 || !owned(own, netip.AddrFrom4([4]byte(arp[24:28]))) {
		return 0
	}
	arp[7] = 2
	target := [4]byte(arp[24:28])
	copy(arp[18:28], arp[8:18]) // the asker's addresses
	copy(arp[8:14], mac[:])
	copy(arp[14:18], target[:])
	copy(b, b[6:12])
	copy(b[6:12], mac[:])
	return len(b)
}

func answerND(b []byte, mac [6]byte, own []Range) int {
	const l4 = 54
	if len(b) < l4+24 || b[20] != packet.ProtoICMPv6 || b[21] != 255 || b[l4] != 135 {
		return 0
	}
	target := netip.AddrFrom16([16]byte(b[l4+8 : l4+24]))
	asker := [16]byte(b[22:38])
	if len(b) < l4+32 || !owned(own, target) || asker == [16]byte{} { // an asker without address tests whether its own is taken
		return 0
	}
	copy(b, b[6:12])
	copy(b[6:12], mac[:])
	binary.BigEndian.PutUint16(b[18:], 32)
	copy(b[38:54], asker[:])
	copy(b[22:38], b[l4+8:l4+24])
	icmp := b[l4 : l4+32]
	icmp[0], icmp[1] = 136, 0
	binary.BigEndian.PutUint16(icmp[2:], 0)
	binary.BigEndian.PutUint32(icmp[4:], 0x60000000) // solicited, override
	icmp[24], icmp[25] = 2, 1                        // target's link-layer address
	copy(icmp[26:], mac[:])
	binary.BigEndian.PutUint16(icmp[2:], packet.TransportSum6([16]byte(b[22:38]), asker, packet.ProtoICMPv6, icmp))
	return l4 + 32
}
