package dataplane

import (
	"net/netip"
	"slices"

	"weir/conntrack"
)

// TapFilter says which frames an observer wants to see: those that fulfil each of its conditions, a condition being fulfilled by any of its
// values. Its zero value wants all. Addresses and ports are those of the packet as it came, outside and inside a tunnel of ours, those that
// it gets, and those of its server.
type TapFilter struct {
	Hosts     []netip.Prefix
	Ports     []uint16
	Protocols []uint8
	Services  []ServiceID
	Drops     []Drop
	On        []int // indices of ports that it came by, or left by
	Stages    Stage // zero: all
}

// ServiceID is the identity of a service.
type ServiceID struct {
	Protocol     uint8
	VIP          netip.Prefix
	VNI          uint32
	Port, PortTo uint16
}

// Stage says at which points of its way a frame is wanted, as bits.
type Stage uint8

const (
	StageReceived Stage = 1 << iota // as it came
	StageSent                       // as it left
	StageDropped                    // as it came, if it was dropped
)

// subject is what a filter is held against: all that is known of a frame before the stages have seen it, and a server's address afterwards.
type subject struct {
	wanted  uint8 // by which observers, as bits: surely, or unless something is found out later
	taken   bool  // the frame can be opened
	outer   heading
	inner   heading // of what a tunnel of ours carries
	becomes heading // of the packet that the connection makes of it
	ref     conntrack.Ref
	vni     uint32
	service *Service
	vip     bool
	sticks  bool
	was     conntrack.State
	rule    uint8
	ruled   bool
	related bool
}

// heading is addresses, ports and protocol of a packet.
type heading struct {
	src, dst   conntrack.Addr
	sport      uint16
	dport      uint16
	proto      uint8
	v6, ip, l4 bool // it is an IP packet, of IPv6; it has ports
}

// top is the heading that connections and services are looked up by.
func (s *subject) top() *heading {
	if s.inner.ip {
		return &s.inner
	}
	return &s.outer
}

// may reports whether the frame may be one that the filter wants, before the stages have seen it.
func (f *TapFilter) may(s *subject) bool {
	return f.fits(s) && (s.ref == 0 && s.service != nil || f.meets(s))
}

// fits holds what is known from the beginning against the filter.
func (f *TapFilter) fits(s *subject) bool {
	if len(f.Protocols) > 0 && !slices.Contains(f.Protocols, s.top().proto) && !(s.outer.ip && slices.Contains(f.Protocols, s.outer.proto)) {
		return false
	}
	if len(f.Services) > 0 && !f.serves(s.service) {
		return false
	}
	return true
}

func (f *TapFilter) serves(s *Service) bool {
	if s == nil {
		return false
	}
	for i := range f.Services {
		if x := &f.Services[i]; x.Protocol == s.Protocol && x.VIP == s.VIP && x.VNI == s.VNI && x.Port == s.Port && x.PortTo == s.PortTo {
			return true
		}
	}
	return false
}

// meets holds addresses and ports against the filter.
func (f *TapFilter) meets(s *subject) bool {
	all := [...]*heading{&s.outer, &s.inner, &s.becomes}
	if len(f.Hosts) > 0 {
		found := false
		for _, h := range all {
			found = found || h.ip && (f.host(h.src, h.v6) || f.host(h.dst, h.v6))
		}
		if !found {
			return false
		}
	}
	if len(f.Ports) > 0 {
		found := false
		for _, h := range all {
			found = found || h.l4 && (slices.Contains(f.Ports, h.sport) || slices.Contains(f.Ports, h.dport))
		}
		if !found {
			return false
		}
	}
	return true
}

func (f *TapFilter) host(a conntrack.Addr, v6 bool) bool {
	addr := NetipOf(a, v6)
	for _, p := range f.Hosts {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// wants decides when all is known of the frame.
func (f *TapFilter) wants(s *subject, e *Event) bool {
	if !f.fits(s) || !f.meets(s) {
		return false
	}
	if len(f.Drops) > 0 && (e.Verdict != Dropped || !slices.Contains(f.Drops, e.Drop)) {
		return false
	}
	if len(f.On) > 0 && !slices.Contains(f.On, e.Frame.Port) && (e.Sent.Port < 0 || !slices.Contains(f.On, e.Sent.Port)) {
		return false
	}
	switch st := f.Stages; {
	case st == 0, st&StageReceived != 0, st&StageDropped != 0 && e.Verdict == Dropped, st&StageSent != 0 && e.Sent.Port >= 0:
		return true
	}
	return false
}
