package packet

import "encoding/binary"

// Lengths in bytes of the headers as they are without options.
const (
	etherLen = 14
	tagLen   = 4
	ipv4Len  = 20
	ipv6Len  = 40
	tcpLen   = 20
	udpLen   = 8
	sctpLen  = 12
	chunkLen = 4 // of SCTP: type, flags and length
	icmpLen  = 8
)

const (
	flagMF     = 0x2000 // of the IPv4 word of flags and fragment offset: more fragments follow
	flagDF     = 0x4000 // don't fragment
	offsetMask = 0x1fff // the fragment offset in units of 8 bytes

	optEnd  = 0   // ends an IPv4 option list
	optNOP  = 1   // is one byte, as optEnd is; all others have a length byte
	optLSRR = 131 // loose source and record route (RFC 791 section 3.1)
	optSSRR = 137 // strict source and record route
)

// Parse finds the headers of f and writes all of f.Headers; nothing of an earlier frame is left. A frame that is not IP (ARP, LLDP, or
// one with more than two tags) is no fault: its Kind has neither KindIPv4 nor KindIPv6, and L3 is where its payload begins.
//
// Transport checksums are not verified: translating by difference keeps a wrong one wrong, so that the receiver sees it.
//
// A frame with a fault must be dropped, but whoever asks first if it was for us (package steer) can read what could still be
// read: with KindIPv4 or KindIPv6 the fixed IP header is there and L3 points at it; with KindTransport the ports are. Without a fault
// Start <= L3 <= L4 <= L3End <= End; with one, all of these lie within the frame.
func Parse(f *Frame) Fault {
	end := f.End
	f.Headers = Headers{L3: end, L4: end, L3End: end}
	b := f.chunk[:end]
	l3 := int(f.Start) + etherLen
	if l3 > len(b) {
		return FaultShort
	}
	e := b[f.Start:][:etherLen]
	kind := Kind(e[0]&1) * KindBroadcast
	etherType := binary.BigEndian.Uint16(e[12:])
	if etherType == EtherTypeVLAN || etherType == EtherTypeQinQ {
		if l3, etherType = parseTags(f, b, l3, etherType); l3 > len(b) {
			f.Kind = kind
			return FaultShort
		}
	}
	f.EtherType = etherType
	f.L3, f.L4 = uint16(l3), uint16(l3)
	switch etherType {
	case EtherTypeIPv4:
		return parseIPv4(f, b, l3, kind)
	case EtherTypeIPv6:
		return parseIPv6(f, b, l3, kind)
	}
	f.Kind = kind
	return FaultNone
}

// parseTags reads one or two tags, the first of which begins at offset at behind its own Ethernet type. It returns where the frame goes on,
// beyond the end of b if a tag is cut off, and with which Ethernet type.
func parseTags(f *Frame, b []byte, at int, etherType uint16) (int, uint16) {
	for f.VLANs < 2 && (etherType == EtherTypeVLAN || etherType == EtherTypeQinQ) {
		tag := b[at:]
		at += tagLen
		if len(tag) < tagLen {
			break
		}
		if f.VLANs == 0 {
			f.VLAN = binary.BigEndian.Uint16(tag) & 0xfff
		}
		etherType = binary.BigEndian.Uint16(tag[2:])
		f.VLANs++
	}
	return at, etherType
}

// parseIPv4 reads the IPv4 header at l3 and goes on to the transport header. The checks come in the kernel's order (ip_rcv), so that a
// damaged header is a wrong checksum rather than whatever length the damage made. b ends where the frame ends.
//
// What is known so far is handed down in registers, kind above all: to read back from f what has just been stored there costs more
// than all of the comparisons here.
func parseIPv4(f *Frame, b []byte, l3 int, kind Kind) Fault {
	h := b[l3:]
	if len(h) < ipv4Len || h[0]>>4 != 4 {
		f.Kind = kind
		if len(h) < ipv4Len {
			return FaultShort
		}
		return FaultVersion
	}
	kind |= KindIPv4
	f.Kind = kind
	proto := h[9]
	f.TTL, f.Proto = h[8], proto
	headerLen := ipv4Len
	fault := FaultNone
	if h[0] == 4<<4|ipv4Len/4 {
		if !headerIntact(h) {
			fault = FaultIPChecksum
		}
	} else {
		headerLen = int(h[0]&0xf) * 4
		if headerLen < ipv4Len || headerLen > len(h) {
			return FaultHeaderLen
		}
		var options Kind
		options, fault = parseOptions(h[:headerLen])
		kind |= options
		f.Kind = kind
	}
	total := int(binary.BigEndian.Uint16(h[2:]))
	if total < headerLen {
		return fault.or(FaultHeaderLen)
	}
	if total > len(h) {
		fault, total = fault.or(FaultLength), len(h)
	}
	l4 := l3 + headerLen
	f.L4 = uint16(l4)
	f.L3End = uint16(l3 + total)
	if frag := binary.BigEndian.Uint16(h[6:]); frag&(flagMF|offsetMask) != 0 {
		f.FragmentID = uint32(binary.BigEndian.Uint16(h[4:]))
		f.FragmentOff = frag & offsetMask * 8
		bad := fragmentFault(int(frag&offsetMask)*8, total-headerLen, frag&flagMF != 0, proto, headerLen)
		if frag&offsetMask != 0 {
			f.Kind = kind | KindLaterFragment
			return fault.or(bad)
		}
		kind |= KindFirstFragment
		f.Kind = kind
		if bad != FaultNone {
			return fault.or(bad)
		}
	}
	bad := parseTransport(f, b[:l3+total], l4, proto, kind)
	if fault != FaultNone {
		return fault
	}
	return bad
}

// parseOptions reads the options of an IPv4 header, all of which is h, and verifies its checksum.
func parseOptions(h []byte) (Kind, Fault) {
	kind := KindOptions
	if Sum(h) != 0 {
		return kind, FaultIPChecksum
	}
	for o := h[ipv4Len:]; len(o) > 0 && o[0] != optEnd; {
		if o[0] == optNOP {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return kind, FaultLength
		}
		if o[0] == optLSRR || o[0] == optSSRR {
			kind |= KindSourceRoute
		}
		o = o[o[1]:]
	}
	return kind, FaultNone
}

// fragmentFault judges a fragment whose payload of n bytes belongs at offset, in bytes, of the datagram. before is how many bytes in front
// of the payload the length field of the reassembled packet counts; it can hold 65535 (RFC 791, RFC 8200 section 4.5).
func fragmentFault(offset, n int, more bool, proto uint8, before int) Fault {
	switch {
	case n == 0: // empty: could be sent forever, and the datagram would never be complete
		return FaultFragment
	case more && n%8 != 0:
		return FaultFragment
	case before+offset+n > 65535:
		return FaultFragment
	case offset == 8 && proto == ProtoTCP: // would overwrite the flags of the first fragment (RFC 3128 section 2)
		return FaultFragment
	}
	return FaultNone
}
