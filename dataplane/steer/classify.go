package steer

import (
	"encoding/binary"

	"weir/dataplane/packet"
)

// Classify decides whose the frame f is that came in by the engine's port of that index, exactly as the program does for the port's
// device. It allocates nothing and looks only at the frame's bytes; f need not have been parsed.
func Classify(r *Compiled, port int, f *packet.Frame) Verdict {
	return Explain(r, port, f).Verdict()
}

// Explain is Classify and says which rule decided.
func Explain(r *Compiled, port int, f *packet.Frame) Reason {
	if uint(port) >= uint(len(r.devices)) {
		return PassNotOurPort
	}
	return r.explain(r.devices[port], f.Bytes())
}

func (c *Compiled) explain(device uint32, b []byte) Reason {
	if len(b) < 14 {
		return PassShort
	}
	etherType := binary.BigEndian.Uint16(b[12:])
	vlan, off := uint16(0), 14
	tagged := isTag(etherType)
	if tagged {
		if len(b) < 18 {
			return PassShort
		}
		vlan, etherType, off = binary.BigEndian.Uint16(b[14:])&0xfff, binary.BigEndian.Uint16(b[16:]), 18
	}

	bits := c.vlans.get(macKey(device, vlan, 0))
	if bits == 0 && tagged {
		bits = c.vlans.get(macKey(device, vlanOther, 0))
	}
	switch {
	case bits == 0:
		return PassNotOurPort
	case bits&portAccess != 0:
		return TakeAccess
	}
	station := c.macs.get(macKey(device, vlan, mac(b)))
	if station == 0 {
		if etherType == packet.EtherTypeARP {
			return PassARPND
		}
		return PassNotOurMAC
	}

	if tagged && isTag(etherType) { // a stacked tag is looked through: the outer one says whose the frame is
		if len(b) < 22 {
			return PassShort
		}
		etherType, off = binary.BigEndian.Uint16(b[20:]), 22
	}
	var t tuple
	switch etherType {
	case packet.EtherTypeARP:
		return PassARPND
	case packet.EtherTypeIPv4:
		if !walk(&t, b, off, 4, 4) {
			return PassShort
		}
	case packet.EtherTypeIPv6:
		if !walk(&t, b, off, 6, 4) {
			return PassShort
		}
	default:
		return PassNotIP
	}
	return c.rules(&t, b, station&portGroup != 0)
}

// rules asks rules 2 to 6, and the part of rule 1 that is about ND. A frame to a group's MAC address may be for another group that has the
// same, or is the host's own business: it is asked rule 2 alone.
func (c *Compiled) rules(t *tuple, b []byte, group bool) Reason {
	if t.family == 6 && t.isICMP() && t.shape == shapeWhole && t.icmp >= 133 && t.icmp <= 137 {
		return PassARPND
	}
	var q tuple // what an ICMP error quotes, if it can be attributed
	quotes := t.isError() && walk(&q, b, t.l4+8, t.family, quoteMin) && q.shape == shapeWhole &&
		(balanced(q.proto) || isTunnel(q.proto)) && len(b)-q.l4 >= quoteMin
	fromUs := quotes && q.src == t.dst

	bits := c.hosts.get(key{t.dst.hi, t.dst.lo, uint64(t.family)})
	if group {
		if bits &= hostVTEP; bits == 0 {
			return PassNotOurMAC
		}
	}
	if bits == 0 {
		if n, is := c.nets.longest(t.dst, t.family); is != 0 {
			if is&hostVIP == 0 {
				return TakeRouted
			}
			k := setAt(kindNet, n.family, 0, n.addr)
			k.rest |= uint64(n.bits) << bitsShift
			return c.toVIP(k, t, &q, fromUs, is&hostVIPRanges != 0)
		}
		return c.fromServer(t, &q, quotes)
	}
	if bits&hostNAT != 0 {
		k := setAt(kindNAT, t.family, 0, t.dst)
		switch {
		case fromUs && hasPorts(q.proto) && c.has(k, q.srcPort, true):
			return TakeNAT
		case hasPorts(t.proto) && t.shape == shapeLater:
			return TakeNAT
		case hasPorts(t.proto) && t.shape == shapeWhole && c.has(k, t.dstPort, true):
			return TakeNAT
		}
	}
	if bits&hostVTEP != 0 && t.proto == packet.ProtoUDP && t.shape == shapeWhole && len(b)-t.l4 >= 16 {
		vni := binary.BigEndian.Uint32(b[t.l4+12:]) >> 8
		if c.vnis.get(vniKey(t.dst, t.family, t.dstPort, vni)) != 0 {
			return TakeVXLAN
		}
	}
	if bits&hostVIP != 0 {
		return c.toVIP(setAt(kindService, t.family, 0, t.dst), t, &q, fromUs, bits&hostVIPRanges != 0)
	}
	if bits&(hostLocal|hostNAT|hostVTEP) != 0 {
		if fromUs && c.tunneled(&q) {
			return TakeTunnelICMP
		}
		return PassHost
	}
	return c.fromServer(t, &q, quotes)
}

// toVIP is rule 3: what a VIP is sent. Its sets have k but for the protocol.
func (c *Compiled) toVIP(k key, t, q *tuple, fromUs, ranged bool) Reason {
	switch {
	case t.shape == shapeMalformed:
		return TakeMalformed
	case t.shape == shapeLater || t.first:
		return TakeFragment
	case balanced(t.proto) && c.has(k.of(t.proto), t.dstPort, ranged):
		return TakeService
	case fromUs && c.has(k.of(q.proto), q.srcPort, ranged):
		return TakeICMP
	case fromUs && c.tunneled(q):
		return TakeTunnelICMP
	}
	return PassVIP
}

// tunneled reports whether a packet of ours, which an ICMP error quotes, was one of a tunnel.
func (c *Compiled) tunneled(q *tuple) bool {
	return c.has(setAt(kindTunnel, q.family, q.proto, q.dst), q.dstPort, false)
}

// fromServer is rule 5: what a server answers, and errors about what it was sent, by whomever.
func (c *Compiled) fromServer(t, q *tuple, quotes bool) Reason {
	if quotes {
		bits := c.hosts.get(key{q.dst.hi, q.dst.lo, uint64(t.family)})
		if bits&hostServer != 0 && c.has(setAt(kindServer, t.family, q.proto, q.dst), q.dstPort, bits&hostServerRanges != 0) {
			return TakeServerICMP
		}
		return PassOther
	}
	if !balanced(t.proto) || t.shape == shapeMalformed {
		return PassOther
	}
	bits := c.hosts.get(key{t.src.hi, t.src.lo, uint64(t.family)})
	if bits&hostServer == 0 {
		return PassOther
	}
	if t.shape == shapeLater && hasPorts(t.proto) {
		return TakeServerFragment // of whatever port
	}
	switch {
	case !c.has(setAt(kindServer, t.family, t.proto, t.src), t.srcPort, bits&hostServerRanges != 0):
		return PassOther
	case t.shape == shapeLater:
		return TakeServerFragment
	}
	return TakeServer
}

func isTag(etherType uint16) bool {
	return etherType == packet.EtherTypeVLAN || etherType == packet.EtherTypeQinQ
}

// mac is the six bytes at the front of b as a number.
func mac(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint32(b))<<16 | uint64(binary.BigEndian.Uint16(b[4:]))
}
