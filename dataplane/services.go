package dataplane

import (
	"net/netip"

	"weir/conntrack"
)

// Services finds the service of a packet that belongs to no connection. It is immutable.
//
// A VIP is one slot of an open-addressed table; its services are a short list sorted by nothing, since a VIP rarely has more than a few
// ranges, behind an exact table of (VIP, protocol, port) that settles nearly every look-up.
type Services struct {
	All []Service // by slot

	vips  []vipSlot // power of two, load at most one half; index 0 of ranges stands for an empty slot
	exact []exactSlot
	lists [][]uint32 // by VIP: slots of its services that are ranges
	seed  uint64
}

type vipSlot struct {
	addr conntrack.Addr
	v6   bool
	list uint32 // index into lists plus one, 0: free slot
}

type exactSlot struct {
	addr     conntrack.Addr
	v6       bool
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
		addr, v6 := AddrOf(svc.VIP)
		vip := s.vip(addr, v6)
		if vip.list == 0 {
			s.lists = append(s.lists, nil)
			*vip = vipSlot{addr: addr, v6: v6, list: uint32(len(s.lists))}
		}
		if svc.Port == svc.PortTo {
			*s.slot(addr, v6, svc.Protocol, svc.Port) = exactSlot{addr, v6, svc.Protocol, svc.Port, uint32(i) + 1}
		} else {
			s.lists[vip.list-1] = append(s.lists[vip.list-1], uint32(i))
		}
	}
	return s
}

// Find returns the service of (addr, protocol, port), or nil. known says that addr is a VIP, whether or not it has that service.
func (s *Services) Find(addr conntrack.Addr, v6 bool, protocol uint8, port uint16) (svc *Service, known bool) {
	if e := s.slot(addr, v6, protocol, port); e.service != 0 {
		return &s.All[e.service-1], true
	}
	vip := s.vip(addr, v6)
	if vip.list == 0 {
		return nil, false
	}
	for _, i := range s.lists[vip.list-1] {
		if svc := &s.All[i]; svc.Protocol == protocol && svc.Port <= port && port <= svc.PortTo {
			return svc, true
		}
	}
	return nil, true
}

// IsVIP reports whether addr is the VIP of any service.
func (s *Services) IsVIP(addr conntrack.Addr, v6 bool) bool { return s.vip(addr, v6).list != 0 }

func (s *Services) vip(addr conntrack.Addr, v6 bool) *vipSlot {
	mask := uint64(len(s.vips) - 1)
	for i := mix(s.seed, addr.Hi, addr.Lo); ; i++ {
		e := &s.vips[i&mask]
		if e.list == 0 || e.addr == addr && e.v6 == v6 {
			return e
		}
	}
}

func (s *Services) slot(addr conntrack.Addr, v6 bool, protocol uint8, port uint16) *exactSlot {
	mask := uint64(len(s.exact) - 1)
	for i := mix(s.seed, addr.Hi, addr.Lo^uint64(protocol)<<32^uint64(port)<<40); ; i++ {
		e := &s.exact[i&mask]
		if e.service == 0 || e.addr == addr && e.v6 == v6 && e.protocol == protocol && e.port == port {
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
