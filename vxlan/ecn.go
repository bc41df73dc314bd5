package vxlan

import (
	"encoding/binary"

	"weir/dataplane/packet"
)

// ECN codepoints (RFC 3168 section 5).
const (
	notECT = 0
	ect1   = 1
	ect0   = 2
	ce     = 3
)

// ecnDrop is no codepoint: the packet is dropped.
const ecnDrop = 4

// ecnOut is what the inner packet leaves a tunnel with, by its own codepoint and the outer one (RFC 6040 figure 4).
var ecnOut = [4][4]uint8{
	notECT: {notECT: notECT, ect0: notECT, ect1: notECT, ce: ecnDrop},
	ect0:   {notECT: ect0, ect0: ect0, ect1: ect1, ce: ce},
	ect1:   {notECT: ect1, ect0: ect1, ect1: ect1, ce: ce},
	ce:     {notECT: ce, ect0: ce, ect1: ce, ce: ce},
}

// passECN writes what the outer codepoint makes of the inner one into a frame, whose IP header may stand behind up to two tags. A frame
// that is not IP, or whose IP header is cut off or of another version, stays as it is: it is its receiver's to judge.
func passECN(frame []byte, outer uint8) Fault {
	if outer == notECT {
		return FaultNone // the first column changes nothing
	}
	at := etherLen
	for range 2 {
		if isTag(frame[at-etherLen:]) && len(frame) >= at+tagLen {
			at += tagLen
		}
	}
	h := frame[at:]
	switch binary.BigEndian.Uint16(frame[at-2:]) {
	case packet.EtherTypeIPv4:
		if len(h) < ipv4Len || h[0]>>4 != 4 {
			return FaultNone
		}
		was := h[1] & ecnMask
		now := ecnOut[was][outer]
		if now == ecnDrop {
			return FaultECN
		}
		if now != was {
			before := binary.BigEndian.Uint16(h)
			h[1] = h[1]&^ecnMask | now
			sum := packet.Update16(binary.BigEndian.Uint16(h[10:]), before, binary.BigEndian.Uint16(h))
			binary.BigEndian.PutUint16(h[10:], sum)
		}
	case packet.EtherTypeIPv6:
		if len(h) < ipv6Len || h[0]>>4 != 6 {
			return FaultNone
		}
		was := h[1] >> 4 & ecnMask
		now := ecnOut[was][outer]
		if now == ecnDrop {
			return FaultECN
		}
		h[1] = h[1]&^(ecnMask<<4) | now<<4
	}
	return FaultNone
}
