package dataplane

import (
	"net/netip"
	"slices"

	"weir/conntrack"
)

// Services finds the service of a packet that belongs to no connection. It is immutable.
//
// A VIP, an address or a prefix, is one slot of an open-addressed table; its services are a short list sorted by nothing, since a VIP rarely
// has more than a few ranges, behind an exact table of (VIP, protocol, port) that settles nearly every look-up. An address belongs to the
// longest VIP that holds it and is asked for that one's services alone. A VIP may belong to a segment, where others may have the same.
type Services struct {
	All []Service // by slot

	vips  []vipSlot // power of two, load at most one half; index 0 of ranges stands for an empty slot
	exact []exactSlot
	lists [][]uint32 // by VIP: slots of its services that are ranges
	seed  uint64
	nets  [2][]uint8 // by family: lengths of the VIPs that are prefixes, the longest first
}

// vip is an address or a prefix: bits of addr, all others zero.
type vip struct {
	addr conntrack.Addr
	vni  uint32 // of its segment, 0: none
	bits uint8
	v6   bool
}

type vipSlot struct {
	vip
	list uint32 // index into lists plus one, 0: free slot
}

type exactSlot struct {
	vip
	protocol uint8
	port     uint16
	service  uint32 // slot plus one, 0: free slot
}

// NewServices builds the tables of all. Two services must not share an identity; of two that overlap, an exact port wins over a range.
func NewServices(all []Service) *Services {
	s := &Services{All: all, seed: 0x9e3779b97f4a7c15}
	size := 8
	for size < 4*len(all) {
		size *= 2
	}
	s.vips = make([]vipSlot, size)
	s.exact = make([]exactSlot, size)
	for i := range all {
		svc := &all[i]
		v := vipOf(svc.VIP, svc.VNI)
		slot := s.vip(v)
		if slot.list == 0 {
			s.lists = append(s.lists, nil)
			*slot = vipSlot{v, uint32(len(s.lists))}
			s.learn(v)
		}
		if svc.Port == svc.PortTo {
			*s.slot(v, svc.Protocol, svc.Port) = exactSlot{v, svc.Protocol, svc.Port, uint32(i) + 1}
		} else {
			s.lists[slot.list-1] = append(s.lists[slot.list-1], uint32(i))
		}
	}
	return s
}

func vipOf(p netip.Prefix, vni uint32) vip {
	addr, v6 := AddrOf(p.Masked().Addr())
	return vip{addr, vni, uint8(p.Bits()), v6}
}

// hostVIP is the VIP of one address.
func hostVIP(addr conntrack.Addr, v6 bool, vni uint32) vip {
	if v6 {
		return vip{addr, vni, 128, true}
	}
	return vip{addr, vni, 32, false}
}

// within is the first bits of v, an address.
func (v vip) within(bits uint8) vip {
	switch {
	case !v.v6:
		v.addr.Lo &= uint64(^uint32(0) << (32 - bits))
	case bits <= 64:
		v.addr = conntrack.Addr{Hi: v.addr.Hi & (^uint64(0) << (64 - bits))}
	default:
		v.addr.Lo &= ^uint64(0) << (128 - bits)
	}
	v.bits = bits
	return v
}

// learn notes the length of a VIP that is a prefix.
func (s *Services) learn(v vip) {
	if v == hostVIP(v.addr, v.v6, v.vni) {
		return
	}
	all := &s.nets[0]
	if v.v6 {
		all = &s.nets[1]
	}
	if at, found := slices.BinarySearchFunc(*all, v.bits, func(a, b uint8) int { return int(b) - int(a) }); !found {
		*all = slices.Insert(*all, at, v.bits)
	}
}

// locate finds the VIP that an address belongs to; the slot's list is 0 if to none.
func (s *Services) locate(host vip) *vipSlot {
	slot := s.vip(host)
	if slot.list != 0 {
		return slot
	}
	nets := s.nets[0]
	if host.v6 {
		nets = s.nets[1]
	}
	for _, bits := range nets {
		if n := s.vip(host.within(bits)); n.list != 0 {
			return n
		}
	}
	return slot
}

// Find returns the service of (addr, protocol, port), or nil. known says that addr is a VIP, whether or not it has that service.
func (s *Services) Find(addr conntrack.Addr, v6 bool, protocol uint8, port uint16) (svc *Service, known bool) {
	return s.find(hostVIP(addr, v6, 0), protocol, port)
}

// FindFrom is Find for a packet that came out of segment vni, 0 for none: a VIP of that segment's comes before the same one outside.
func (s *Services) FindFrom(vni uint32, addr conntrack.Addr, v6 bool, protocol uint8, port uint16) (svc *Service, known bool) {
	if vni != 0 {
		if svc, known = s.find(hostVIP(addr, v6, vni), protocol, port); known {
			return svc, true
		}
	}
	return s.Find(addr, v6, protocol, port)
}

func (s *Services) find(host vip, protocol uint8, port uint16) (svc *Service, known bool) {
	if e := s.slot(host, protocol, port); e.service != 0 {
		return &s.All[e.service-1], true
	}
	vip := s.locate(host)
	if vip.list == 0 {
		return nil, false
	}
	if vip.vip != host {
		if e := s.slot(vip.vip, protocol, port); e.service != 0 {
			return &s.All[e.service-1], true
		}
	}
	for _, i := range s.lists[vip.list-1] {
		if svc := &s.All[i]; svc.Protocol == protocol && svc.Port <= port && port <= svc.PortTo {
			return svc, true
		}
	}
	return nil, true
}

// IsVIP reports whether addr is the VIP of any service that is in no segment.
func (s *Services) IsVIP(addr conntrack.Addr, v6 bool) bool {
	return s.locate(hostVIP(addr, v6, 0)).list != 0
}

// IsVIPIn reports whether addr is the VIP of a service in segment vni.
func (s *Services) IsVIPIn(vni uint32, addr conntrack.Addr, v6 bool) bool {
	return s.vip(hostVIP(addr, v6, vni)).list != 0
}

// IsVIPFrom reports whether addr is a VIP for packets that came out of segment vni, 0 for none.
func (s *Services) IsVIPFrom(vni uint32, addr conntrack.Addr, v6 bool) bool {
	return vni != 0 && s.IsVIPIn(vni, addr, v6) || s.IsVIP(addr, v6)
}

func (s *Services) vip(v vip) *vipSlot {
	mask := uint64(len(s.vips) - 1)
	for i := mix(s.seed^uint64(v.vni)<<8^uint64(v.bits), v.addr.Hi, v.addr.Lo); ; i++ {
		e := &s.vips[i&mask]
		if e.list == 0 || e.vip == v {
			return e
		}
	}
}

func (s *Services) slot(v vip, protocol uint8, port uint16) *exactSlot {
	mask := uint64(len(s.exact) - 1)
	for i := mix(s.seed^uint64(v.vni)<<8^uint64(v.bits), v.addr.Hi, v.addr.Lo^uint64(protocol)<<32^uint64(port)<<40); ; i++ {
		e := &s.exact[i&mask]
		if e.service == 0 || e.vip == v && e.protocol == protocol && e.port == port {
			return e
		}
	}
}

// mix hashes two words. The keys are configuration, not packets, so no secret is needed.
func mix(seed, a, b uint64) uint64 {
	h := (a ^ seed) * 0xff51afd7ed558ccd
	h = (h ^ h>>32 ^ b) * 0xc4ceb9fe1a85ec53
	return h ^ h>>29
}

// AddrOf turns a into the words that tuples are made of. An IPv4 address mapped into IPv6 counts as IPv4.
func AddrOf(a netip.Addr) (addr conntrack.Addr, v6 bool) {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		return conntrack.Addr{Lo: uint64(be32(b[:]))}, false
	}
	b := a.As16()
	return conntrack.Addr{Hi: be64(b[:8]), Lo: be64(b[8:])}, true
}

// NetipOf is the inverse of AddrOf.
func NetipOf(addr conntrack.Addr, v6 bool) netip.Addr {
	if !v6 {
		var b [4]byte
		put32(b[:], uint32(addr.Lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	put64(b[:8], addr.Hi)
	put64(b[8:], addr.Lo)
	return netip.AddrFrom16(b)
}
