package packet

import "encoding/binary"

// Fragment4 writes the fragment of ip that begins at byte offset of its payload into b, and returns the fragment's length and the
// offset of the one after it, -1 behind the last. It is called with offset 0 first, then with what it returned:
//
//	for at := 0; at >= 0; {
//		n, next := Fragment4(b, ip, at, mtu)
//		...
//		at = next
//	}
//
// ip is an IPv4 packet whose DF bit is clear, mtu the most bytes a fragment may have from its IP header on. Each fragment has all of
// the header but what differs by RFC 791 section 3.2: offset, MF, checksum, and of the options only those with the copied flag behind the
// first. A packet that is a fragment itself is cut further: its offset is where these begin, and its MF bit stays on all of them. A packet
// that fits is written as it is.
//
// It returns 0 and -1 if b is too short, the packet no IPv4 packet that may be cut, or the MTU too small for 8 bytes of
// payload. b and ip must not overlap.
func Fragment4(b, ip []byte, offset, mtu int) (n, next int) {
	if len(ip) < ipv4Len || ip[0]>>4 != 4 {
		return 0, -1
	}
	headerLen, total := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	word := binary.BigEndian.Uint16(ip[6:])
	if headerLen < ipv4Len || total < headerLen || total > len(ip) || offset < 0 || offset&7 != 0 {
		return 0, -1
	}
	if offset == 0 && total <= mtu {
		if total > len(b) {
			return 0, -1
		}
		return copy(b, ip[:total]), -1
	}
	payload := ip[headerLen:total]
	if word&flagDF != 0 || offset >= len(payload) || len(b) < headerLen {
		return 0, -1
	}
	payload = payload[offset:]
	copy(b, ip[:headerLen])
	if offset > 0 {
		headerLen = keepCopied(b[:headerLen])
		b[0] = 4<<4 | byte(headerLen/4)
	}
	size, more := len(payload), word&flagMF
	next = -1
	if headerLen+size > mtu {
		size = (mtu - headerLen) &^ 7
		more, next = flagMF, offset+size
	}
	if size <= 0 || headerLen+size > len(b) {
		return 0, -1
	}
	n = headerLen + copy(b[headerLen:], payload[:size])
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	binary.BigEndian.PutUint16(b[6:], word&^(flagMF|offsetMask)|more|(word&offsetMask+uint16(offset/8))&offsetMask)
	seal4(b[:headerLen])
	return n, next
}

// keepCopied takes the options without the copied flag out of the IPv4 header h and returns the header's new length, filled up to a
// multiple of four with the end-of-list option. What comes behind an option with an impossible length goes with it.
func keepCopied(h []byte) int {
	n := ipv4Len
	for o := h[ipv4Len:]; len(o) > 0 && o[0] != optEnd; {
		if o[0] == optNOP {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			break
		}
		size := int(o[1]) // before an option is moved over its own length
		if o[0]&0x80 != 0 {
			n += copy(h[n:], o[:size])
		}
		o = o[size:]
	}
	for n&3 != 0 {
		h[n] = optEnd
		n++
	}
	return n
}
