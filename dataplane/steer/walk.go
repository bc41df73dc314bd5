package steer

import (
	"encoding/binary"

	"weir/dataplane/packet"
)

// maxExtensions is how many IPv6 extension headers the program walks over, since it may not loop without bound. A packet with more is
// malformed to it and to its twin.
const maxExtensions = 6

// IPv6 extension headers that stand before a transport header (RFC 8200 section 4, RFC 4302).
const (
	extHopByHop    = 0
	extRouting     = 43
	extFragment    = 44
	extAuth        = 51
	extDestination = 60
)

// quoteMin is how many bytes of the transport header an ICMP error must quote to be attributed (RFC 792).
const quoteMin = 8

// shape is how far a packet's headers could be followed.
type shape uint8

const (
	shapeWhole     shape = iota // ports, or ICMP type, are there if the protocol has them
	shapeLater                  // a fragment that is not the first
	shapeMalformed              // the addresses are there, what stands before the ports is cut off or contradicts itself
)

// tuple is what the rules ask of a packet, or of one that it quotes.
type tuple struct {
	src, dst addr
	family   uint8 // 4 or 6
	proto    uint8
	shape    shape
	first    bool // the first of several fragments
	icmp     uint8
	srcPort  uint16
	dstPort  uint16
	l4       int // offset of the transport header
}

// walk follows the IP headers at b[off:] as the program does: by the bytes that are there, whatever length fields and checksums say,
// which are the engine's to judge. It does not use packet.Parse's findings, because a packet that Parse finds a fault with must still
// go where the program would send it. It reports false if the addresses are not all there.
func walk(t *tuple, b []byte, off int, family uint8, minL4 int) bool {
	*t = tuple{family: family}
	if family == 4 {
		if len(b)-off < 20 {
			return false
		}
		walk4(t, b, off)
	} else {
		if len(b)-off < 40 {
			return false
		}
		walk6(t, b, off)
	}
	if t.shape == shapeWhole {
		transport(t, b, minL4)
	}
	return true
}

func walk4(t *tuple, b []byte, off int) {
	h := b[off : off+20]
	t.src.lo = uint64(binary.BigEndian.Uint32(h[12:]))
	t.dst.lo = uint64(binary.BigEndian.Uint32(h[16:]))
	t.proto = h[9]
	words := int(h[0] & 0xf)
	t.l4 = off + 4*words
	if h[0]>>4 != 4 || words < 5 || t.l4 > len(b) {
		t.shape = shapeMalformed
		return
	}
	fragment := binary.BigEndian.Uint16(h[6:])
	if fragment&0x1fff != 0 {
		t.shape = shapeLater
	} else {
		t.first = fragment&0x2000 != 0
	}
}

func walk6(t *tuple, b []byte, off int) {
	h := b[off : off+40]
	t.src = addr{binary.BigEndian.Uint64(h[8:]), binary.BigEndian.Uint64(h[16:])}
	t.dst = addr{binary.BigEndian.Uint64(h[24:]), binary.BigEndian.Uint64(h[32:])}
	t.proto = h[6]
	t.l4 = off + 40
	if h[0]>>4 != 6 {
		t.shape = shapeMalformed
		return
	}
	for n := 0; ; n++ {
		switch t.proto {
		case extHopByHop, extRouting, extDestination, extAuth, extFragment:
		default:
			return
		}
		if n == maxExtensions || len(b)-t.l4 < 8 {
			t.shape = shapeMalformed
			return
		}
		x := b[t.l4 : t.l4+8]
		switch t.proto {
		case extFragment:
			t.l4 += 8
			t.proto = x[0]
			fragment := binary.BigEndian.Uint16(x[2:])
			if fragment&^7 != 0 {
				t.shape = shapeLater
				return
			}
			if fragment&1 != 0 { // without it the packet is whole: an atomic fragment (RFC 6946)
				t.first = true
			}
			continue
		case extAuth:
			t.l4 += (int(x[1]) + 2) * 4
		default:
			t.l4 += (int(x[1]) + 1) * 8
		}
		t.proto = x[0]
	}
}

// transport reads ports or ICMP type, of a header of which at least minL4 bytes must be there.
func transport(t *tuple, b []byte, minL4 int) {
	switch {
	case hasPorts(t.proto):
		if len(b)-t.l4 < minL4 {
			t.shape = shapeMalformed
			return
		}
		t.srcPort = binary.BigEndian.Uint16(b[t.l4:])
		t.dstPort = binary.BigEndian.Uint16(b[t.l4+2:])
	case t.isICMP():
		if len(b)-t.l4 < 8 {
			t.shape = shapeMalformed
			return
		}
		t.icmp = b[t.l4]
	}
}

// isICMP reports whether the packet is of its own family's ICMP.
func (t *tuple) isICMP() bool {
	return t.family == 4 && t.proto == packet.ProtoICMP || t.family == 6 && t.proto == packet.ProtoICMPv6
}

// isError reports whether the packet is an ICMP error of those that IPVS translates: unreachable, source quench and time exceeded in
// IPv4; all in IPv6. Redirects and parameter problems of IPv4 are the kernel's.
func (t *tuple) isError() bool {
	if t.shape != shapeWhole || !t.isICMP() {
		return false
	}
	if t.family == 6 {
		return t.icmp < 128
	}
	return t.icmp == 3 || t.icmp == 4 || t.icmp == 11
}
