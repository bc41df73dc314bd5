package vxlan

import (
	"encoding/binary"

	"weir/dataplane/packet"
)

// Policy is what a segment makes of what the RFC leaves open.
type Policy struct {
	Strict     bool // refuse reserved bits, as Linux does, instead of ignoring them (RFC 7348 section 5)
	KeepTags   bool // let tagged inner frames in as they are (section 6.1)
	NoChecksum bool // do not verify UDP checksums (section 5: "may")
}

// Outer is what the outer headers of a received packet say.
type Outer struct {
	Src, Dst Addr
	VNI      uint32
	Port     uint16 // the UDP port it was sent to
	V6       bool
}

// ReadOuter reads the outer headers of f, which [packet.Parse] found to be UDP without a fault, and changes nothing. Reserved
// bits are ignored here: if a segment minds them, Decap does.
func ReadOuter(f *packet.Frame) (o Outer, fault Fault) {
	switch {
	case f.Kind&(packet.KindFirstFragment|packet.KindLaterFragment) != 0:
		return o, FaultFragment
	case f.Kind&packet.KindSourceRoute != 0:
		return o, FaultSourceRoute
	case f.Kind&packet.KindTransport == 0 || f.Proto != packet.ProtoUDP:
		return o, FaultShort
	}
	o.Port = f.DstPort
	h := f.Chunk()[f.L3:]
	if f.Kind&packet.KindIPv6 != 0 {
		h = h[:ipv6Len]
		o.V6, o.Src, o.Dst = true, addr6(h[8:]), addr6(h[24:])
	} else {
		h = h[:ipv4Len]
		o.Src, o.Dst = addr4(h[12:]), addr4(h[16:])
	}
	udp := f.Chunk()[f.L4:f.L3End]
	if len(udp) < udpLen {
		return o, FaultShort
	}
	size := int(binary.BigEndian.Uint16(udp[4:]))
	if size > len(udp) || size < udpLen+headerLen+etherLen {
		return o, FaultShort
	}
	o.VNI, fault = readHeader(udp[udpLen:size], false)
	return o, fault
}

// Decap takes the inner frame out of f, whose outer headers ReadOuter found without a fault: afterwards Start and End enclose it, and f must be
// parsed anew. The source port and what lies behind the UDP datagram say nothing. The UDP checksum is verified if there is one. A
// priority tag, of VLAN 0, is taken off. ECN goes from the outer to the inner IP header (RFC 6040 section 4.2).
func Decap(f *packet.Frame, p Policy) Fault {
	chunk := f.Chunk()
	udp := chunk[f.L4:f.L3End]
	udp = udp[:binary.BigEndian.Uint16(udp[4:])]
	if p.Strict {
		if _, fault := readHeader(udp[udpLen:], true); fault != FaultNone {
			return fault
		}
	}
	outer := chunk[f.L3:]
	v6 := f.Kind&packet.KindIPv6 != 0
	if binary.BigEndian.Uint16(udp[6:]) != 0 && !p.NoChecksum && !intact(outer, udp, v6) {
		return FaultChecksum
	}
	ecn := outer[1]
	if v6 {
		ecn >>= 4
	}
	start := f.L4 + udpLen + headerLen
	end := f.L4 + uint16(len(udp))
	inner := chunk[start:end]
	if !MACOf(inner[6:]).station() {
		return FaultSourceMAC
	}
	if isTag(inner) && !p.KeepTags {
		if len(inner) < etherLen+tagLen || binary.BigEndian.Uint16(inner[etherLen:])&0xfff != 0 {
			return FaultTagged
		}
		untag(inner)
		start += tagLen
		if inner = inner[tagLen:]; isTag(inner) {
			return FaultTagged
		}
	}
	if fault := passECN(inner, ecn&ecnMask); fault != FaultNone {
		return fault
	}
	f.Start, f.End = start, end
	return FaultNone
}

// intact reports whether the checksum of a UDP datagram is right. outer begins with its IP header.
func intact(outer, udp []byte, v6 bool) bool {
	if v6 {
		return packet.TransportSum6([16]byte(outer[8:]), [16]byte(outer[24:]), packet.ProtoUDP, udp) == 0
	}
	return packet.TransportSum4([4]byte(outer[12:]), [4]byte(outer[16:]), packet.ProtoUDP, udp) == 0
}
