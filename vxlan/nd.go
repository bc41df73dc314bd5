package vxlan

import (
	"encoding/binary"

	"weir/dataplane/packet"
)

// Neighbour discovery (RFC 4861 sections 4.3 and 4.4), behind the IPv6 header:
//
//	0     1     2          4                 8               24
//	| 135 | 0   | checksum | reserved        | target        | options: 1 source MAC
//	| 136 | 0   | checksum | R S O  reserved | target        | options: 2 target MAC
const (
	ndSolicitation  = 135
	ndAdvertisement = 136
	ndLen           = 24
	ndSourceMAC     = 1
	ndTargetMAC     = 2
	ndOptionLen     = 8 // of a MAC option
	ndHopLimit      = 255

	ndRouter    = 0x80 // flags of an advertisement
	ndSolicited = 0x40
	ndOverride  = 0x20
)

// NDLen is the length in bytes of the frames that the Put functions of ND write.
const NDLen = etherLen + ipv6Len + ndLen + ndOptionLen

// ND is a neighbour solicitation or advertisement.
type ND struct {
	Advertisement bool
	Solicited     bool // of an advertisement
	Override      bool
	Router        bool // of an advertisement: the target is a router
	MAC           MAC  // of the option; 0: there is none
	Src           Addr // of the packet; zero in a solicitation that detects duplicates
	SrcMAC        MAC  // of the frame
	Target        Addr
}

// Tells is the address whose MAC n tells: an advertisement its target's, a solicitation its sender's.
func (n *ND) Tells() Addr {
	if n.Advertisement {
		return n.Target
	}
	return n.Src
}

// ReadND reads the neighbour solicitation or advertisement in f, as Parse found it. It reports false for all else, and for one that a node
// must discard (RFC 4861 sections 7.1.1 and 7.1.2).
func ReadND(f *packet.Frame) (n ND, ok bool) {
	const fragment = packet.KindFirstFragment | packet.KindLaterFragment
	if f.Kind&packet.KindIPv6 == 0 || f.Kind&packet.KindTransport == 0 || f.Kind&fragment != 0 || f.Proto != packet.ProtoICMPv6 ||
		f.ICMPType != ndSolicitation && f.ICMPType != ndAdvertisement {
		return n, false
	}
	h, m := f.Chunk()[f.L3:f.L4], f.Chunk()[f.L4:f.L3End]
	if f.TTL != ndHopLimit || f.ICMPCode != 0 || len(m) < ndLen {
		return n, false
	}
	src, dst := addr6(h[8:]), addr6(h[24:])
	n = ND{
		Advertisement: f.ICMPType == ndAdvertisement, Solicited: m[4]&ndSolicited != 0, Override: m[4]&ndOverride != 0, Router: f.ICMPType == ndAdvertisement && m[4]&ndRouter != 0,
		Src: src, SrcMAC: MACOf(f.Bytes()[6:]), Target: addr6(m[8:]),
	}
	want := byte(ndSourceMAC)
	if n.Advertisement {
		want = ndTargetMAC
	}
	for o := m[ndLen:]; len(o) > 0; {
		if len(o) < 8 || o[1] == 0 || int(o[1])*8 > len(o) {
			return n, false
		}
		if o[0] == want && o[1] == 1 {
			n.MAC = MACOf(o[2:])
		}
		o = o[int(o[1])*8:]
	}
	switch unspecified := (src == Addr{}); {
	case !unicast(n.Target, true) || !unspecified && !unicast(src, true):
		return n, false
	case n.MAC != 0 && !n.MAC.station() || !n.SrcMAC.station():
		return n, false
	case n.Advertisement && (unspecified || n.Solicited && dst.Hi>>56 == 0xff):
		return n, false
	case !n.Advertisement && unspecified && (dst != solicitedNode(n.Target) || n.MAC != 0):
		return n, false
	}
	return n, packet.TransportSum6([16]byte(h[8:]), [16]byte(h[24:]), packet.ProtoICMPv6, m) == 0
}

// solicitedNode is the group that whoever has a listens to (RFC 4291 section 2.7.1).
func solicitedNode(a Addr) Addr { return Addr{0xff02 << 48, 1<<32 | 0xff<<24 | a.Lo&0xffffff} }

// allNodes is the group of all nodes of a link.
var allNodes = Addr{0xff02 << 48, 1}

// groupMAC is the MAC of an IPv6 group (RFC 2464 section 7).
func groupMAC(a Addr) MAC { return 0x3333<<32 | MAC(uint32(a.Lo)) }

// PutNDReply writes the advertisement that answers the solicitation n: Target has the given MAC, and is a router if that is said. A solicitation
// that detects duplicates is answered to all (RFC 4861 section 7.2.4). It returns NDLen, or 0 if b is shorter.
func PutNDReply(b []byte, n *ND, mac MAC, router bool) int {
	flags := byte(ndOverride)
	if router {
		flags |= ndRouter
	}
	dst, to := n.Src, n.MAC
	if to == 0 {
		to = n.SrcMAC
	}
	if dst == (Addr{}) {
		dst, to = allNodes, groupMAC(allNodes)
	} else {
		flags |= ndSolicited
	}
	return putND(b, to, mac, n.Target, dst, ndAdvertisement, flags, n.Target)
}

// PutNDProxy is PutNDReply in another station's stead. It claims less: without the override flag what the station says itself prevails
// (RFC 4861 section 7.2.8).
func PutNDProxy(b []byte, n *ND, mac MAC, router bool) int {
	flags, to := byte(ndSolicited), n.MAC
	if router {
		flags |= ndRouter
	}
	if to == 0 {
		to = n.SrcMAC
	}
	return putND(b, to, mac, n.Target, n.Src, ndAdvertisement, flags, n.Target)
}

// PutNDRequest writes a solicitation of the station (mac, addr) for target's MAC, to all if station is zero, else to that station.
func PutNDRequest(b []byte, station, mac MAC, addr, target Addr) int {
	if station != 0 {
		return putND(b, station, mac, addr, target, ndSolicitation, 0, target)
	}
	to := solicitedNode(target)
	return putND(b, groupMAC(to), mac, addr, to, ndSolicitation, 0, target)
}

// PutNDAnnouncement writes an unsolicited advertisement: all who know addr learn that it has the given MAC (RFC 4861 section 7.2.6).
func PutNDAnnouncement(b []byte, mac MAC, addr Addr, router bool) int {
	flags := byte(ndOverride)
	if router {
		flags |= ndRouter
	}
	return putND(b, groupMAC(allNodes), mac, addr, allNodes, ndAdvertisement, flags, addr)
}

func putND(b []byte, to, mac MAC, src, dst Addr, kind, flags byte, target Addr) int {
	if len(b) < NDLen {
		return 0
	}
	b = b[:NDLen]
	clear(b)
	to.Put(b)
	mac.Put(b[6:])
	binary.BigEndian.PutUint16(b[12:], packet.EtherTypeIPv6)
	h, m := b[etherLen:][:ipv6Len], b[etherLen+ipv6Len:]
	h[0], h[6], h[7] = 6<<4, packet.ProtoICMPv6, ndHopLimit
	binary.BigEndian.PutUint16(h[4:], uint16(len(m)))
	src.put6(h[8:])
	dst.put6(h[24:])
	m[0], m[4] = kind, flags
	target.put6(m[8:])
	m[ndLen], m[ndLen+1] = ndSourceMAC, 1
	if kind == ndAdvertisement {
		m[ndLen] = ndTargetMAC
	}
	mac.Put(m[ndLen+2:])
	binary.BigEndian.PutUint16(m[2:], packet.TransportSum6([16]byte(h[8:]), [16]byte(h[24:]), packet.ProtoICMPv6, m))
	return NDLen
}
