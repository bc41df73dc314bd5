package packet

import "encoding/binary"

// maxExtensions is the most IPv6 extension headers before the transport header. A host sends three at the most (RFC 8200 section 4.1
// has each type once, destination options twice); more are a way to make us work.
const maxExtensions = 8

// IPv6 extension headers (RFC 8200 section 4, AH: RFC 4302). ESP (50) hides what follows, and is therefore a transport that we do not know.
const (
	extHopByHop    = 0
	extRouting     = 43
	extFragment    = 44
	extAH          = 51
	extDestOptions = 60
)

// parseIPv6 reads the IPv6 header at l3 and its extension headers, and goes on to the transport header. b ends where the frame ends. A
// payload length of zero is just that: there are no jumbograms (RFC 2675) on our links.
func parseIPv6(f *Frame, b []byte, l3 int, kind Kind) Fault {
	h := b[l3:]
	if len(h) < ipv6Len || h[0]>>4 != 6 {
		f.Kind = kind
		if len(h) < ipv6Len {
			return FaultShort
		}
		return FaultVersion
	}
	kind |= KindIPv6
	f.Kind = kind
	l4, proto := l3+ipv6Len, h[6]
	f.L4, f.Proto, f.TTL = uint16(l4), proto, h[7]
	end := l4 + int(binary.BigEndian.Uint16(h[4:]))
	fault := FaultNone
	if end > len(b) {
		fault, end = FaultLength, len(b)
	}
	f.L3End = uint16(end)
	if isExtension(proto) {
		x := walkExtensions(b[:end], l4, proto)
		l4, proto = x.at, x.proto
		f.L4, f.Proto = uint16(l4), proto
		kind |= x.kind
		f.Kind = kind
		if x.fault != FaultNone {
			return fault.or(x.fault)
		}
		if x.fragment {
			f.FragmentID, f.FragmentOff = x.id, x.offset
			before := x.payload - 8 - l3 - ipv6Len // the extension headers in front of the fragment header
			bad := fragmentFault(int(x.offset), end-x.payload, x.more, proto, before)
			if bad != FaultNone || x.offset != 0 {
				return fault.or(bad)
			}
		}
	}
	return fault.or(parseTransport(f, b[:end], l4, proto, kind))
}

func isExtension(next uint8) bool {
	return next == extHopByHop || next == extRouting || next == extFragment || next == extAH || next == extDestOptions
}

// extensions is where the chain of extension headers led.
type extensions struct {
	at       int // offset behind the chain, or behind the fragment header of a later fragment
	payload  int // offset behind the fragment header, 0 if there is none
	id       uint32
	offset   uint16 // of a fragment, in bytes
	kind     Kind   // KindOptions, KindSourceRoute, KindFirstFragment, KindLaterFragment
	proto    uint8  // the last next header
	fault    Fault
	fragment bool // one of several fragments; an atomic one is not (RFC 6946)
	more     bool // fragments follow
	routing  bool // there is a routing header
}

// walkExtensions follows the extension headers of an IPv6 packet from offset at of b, whose end is the packet's; the first one's type
// is next. It stops behind the fragment header of a later fragment, since there the next header is not what follows.
func walkExtensions(b []byte, at int, next uint8) (x extensions) {
	x = extensions{at: at, proto: next, kind: KindOptions}
	for n := 0; isExtension(x.proto); n++ {
		if n == maxExtensions || x.proto == extHopByHop && n > 0 {
			x.fault = FaultExtension
			return x
		}
		h := b[x.at:]
		if len(h) < 8 {
			x.fault = FaultShort
			break
		}
		size := (int(h[1]) + 1) * 8
		switch x.proto {
		case extRouting:
			x.routing = true
			if h[3] != 0 { // segments left
				x.kind |= KindSourceRoute
			}
		case extAH:
			size = (int(h[1]) + 2) * 4
			if size < 12 { // RFC 4302 section 2: three words before the integrity check value
				x.fault = FaultLength
				return x
			}
		case extFragment:
			if x.payload != 0 {
				x.fault = FaultExtension
				return x
			}
			size = 8
			x.payload = x.at + size
			off := binary.BigEndian.Uint16(h[2:])
			x.offset, x.more = off&^7, off&1 != 0
			x.fragment = x.offset != 0 || x.more
			x.id = binary.BigEndian.Uint32(h[4:])
			if x.offset != 0 {
				x.kind |= KindLaterFragment
				x.at, x.proto = x.payload, h[0]
				return x
			}
			if x.fragment {
				x.kind |= KindFirstFragment
			}
		}
		if size > len(h) {
			x.fault = FaultLength
			break
		}
		x.at, x.proto = x.at+size, h[0]
	}
	if x.fault != FaultNone && x.kind&KindFirstFragment != 0 {
		x.fault = FaultFragment // the first fragment must hold the whole chain (RFC 7112 section 5)
	}
	return x
}
