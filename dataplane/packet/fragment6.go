package packet

import "encoding/binary"

// Fragment6 writes the fragment of ip that begins at byte offset of its payload into b, and returns the fragment's length and the offset of
// the one after it, -1 behind the last. It is called as [Fragment4] is.
//
// ip is an IPv6 packet of our own making, whose first header behind the fixed one begins the fragmentable part: only a packet's source
// may fragment it (RFC 8200 section 4.5). id is the same for all fragments of a packet and of no other that its receiver could still be
// waiting for pieces of. A packet that fits mtu is written as it is.
//
// It returns 0 and -1 if b is too short, the packet no IPv6 packet, or the MTU too small for 8 bytes of payload. b and ip must not overlap.
func Fragment6(b, ip []byte, id uint32, offset, mtu int) (n, next int) {
	const fragmentLen = 8
	if len(ip) < ipv6Len || ip[0]>>4 != 6 || offset < 0 || offset&7 != 0 {
		return 0, -1
	}
	total := ipv6Len + int(binary.BigEndian.Uint16(ip[4:]))
	if total > len(ip) {
		return 0, -1
	}
	if offset == 0 && total <= mtu {
		if total > len(b) {
			return 0, -1
		}
		return copy(b, ip[:total]), -1
	}
	payload := ip[ipv6Len:total]
	if offset >= len(payload) || len(b) < ipv6Len+fragmentLen {
		return 0, -1
	}
	payload = payload[offset:]
	size, more := len(payload), uint16(0)
	next = -1
	if ipv6Len+fragmentLen+size > mtu {
		size = (mtu - ipv6Len - fragmentLen) &^ 7
		more, next = 1, offset+size
	}
	if size <= 0 || ipv6Len+fragmentLen+size > len(b) {
		return 0, -1
	}
	copy(b, ip[:ipv6Len])
	b[6] = extFragment
	binary.BigEndian.PutUint16(b[4:], uint16(fragmentLen+size))
	h := b[ipv6Len:][:fragmentLen]
	h[0], h[1] = ip[6], 0
	binary.BigEndian.PutUint16(h[2:], uint16(offset)|more)
	binary.BigEndian.PutUint32(h[4:], id)
	return ipv6Len + fragmentLen + copy(b[ipv6Len+fragmentLen:], payload[:size]), next
}
