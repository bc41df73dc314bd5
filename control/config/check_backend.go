package config

import (
	"net/netip"
	"slices"
	"strings"
)

func (d *decoder) checkBackends(s *Service, segments map[uint32]*Segment) {
	if len(s.Backends) == 0 {
		if !s.bad("backends") {
			d.warnf(s.Field("backends"), s.Path, "has no backends: every connection is refused")
		}
		return
	}
	type identity struct {
		address netip.Addr
		port    uint16
		vni     uint32
	}
	seen := map[identity]*Backend{}
	names := map[string]*Backend{}
	weights := 0
	for i := range s.Backends {
		b := &s.Backends[i]
		if b.keys == nil {
			weights++ // no mapping: said already
			continue
		}
		if b.Weight > 0 || b.bad("weight") {
			weights++
		}
		if b.Given("name") && b.Name != "" {
			if first := names[b.Name]; first != nil {
				d.errorf(b.Field("name"), b.Path+".name", "duplicate backend name %s, first in %s", quoted(b.Name), d.line(first.Field("name").Line))
			} else {
				names[b.Name] = b
			}
		}
		if b.Address.IsValid() && !b.bad("port") && !b.bad("vni") && !s.bad("port") {
			id := identity{b.Address, b.Port, b.VNI}
			if first := seen[id]; first != nil {
				d.errorf(b.Field("address"), b.Path+".address", "duplicate backend %s, first in %s", b.identity(), d.line(first.Pos.Line))
			} else {
				seen[id] = b
			}
		}
		d.checkAddress(s, b)
		d.checkForward(s, b, segments)
		if !b.bad("upper_threshold") && !b.bad("lower_threshold") && b.LowerThreshold > b.UpperThreshold {
			d.errorf(b.Field("lower_threshold"), b.Path+".lower_threshold", "must not be above upper_threshold, %d", b.UpperThreshold)
		}
	}
	d.checkNames(s)
	if weights == 0 {
		d.warnf(s.Field("backends"), s.Path+".backends", "all have weight 0: no connection can begin")
	}
	if s.bad("vips") || s.bad("vip") || s.bad("forward") || anyBad(s.Backends, "address") || anyBad(s.Backends, "forward") {
		return
	}
	for i, vip := range s.VIPs {
		served := anyOf(s.Backends, func(b *Backend) bool { return b.Serves(vip) })
		// With one VIP, or one family, each backend was told of already.
		if !served && familiesOf(s.VIPs) != family(vip.Addr()) {
			pos, path := d.item(&s.Place, "vips", i)
			d.errorf(pos, path, "no backend can serve %s: there is none of %s", VIPText(vip), family(vip.Addr()))
		}
	}
}

// checkNames refuses names that are other backends' identities: those go by them, too, in requests and in metrics.
func (d *decoder) checkNames(s *Service) {
	var known map[string]*Backend // by identity; made for the first name that looks like one
	for i := range s.Backends {
		b := &s.Backends[i]
		if !b.Given("name") || !strings.Contains(b.Name, ":") {
			continue
		}
		if known == nil {
			known = make(map[string]*Backend, len(s.Backends))
			for j := range s.Backends {
				if o := &s.Backends[j]; o.Address.IsValid() && known[o.identity()] == nil {
					known[o.identity()] = o
				}
			}
		}
		if o := known[b.Name]; o != nil && o.identity() != b.identity() {
			d.errorf(b.Field("name"), b.Path+".name", "%s is another backend, in %s: give this one a name of its own", printableText(b.Name), d.line(o.Pos.Line))
		}
	}
}

// checkAddress checks the backend's address against the service's VIPs.
func (d *decoder) checkAddress(s *Service, b *Backend) {
	if !b.Address.IsValid() {
		return
	}
	for _, vip := range s.VIPs {
		switch {
		case !vip.Contains(b.Address) || s.VNI != 0 && s.VNI != b.VNI:
		case vip.IsSingleIP():
			d.errorf(b.Field("address"), b.Path+".address", "%s is the VIP of the service itself", b.Address)
		default:
			d.errorf(b.Field("address"), b.Path+".address", "%s is in the VIP of the service itself, %s", b.Address, vip)
		}
	}
	if b.Forward == "" || len(s.VIPs) == 0 || s.bad("vip") || s.bad("vips") {
		return
	}
	if !slices.ContainsFunc(s.VIPs, b.Serves) {
		d.errorf(b.Field("address"), b.Path+".address", "%s is %s, but the service is %s only: forward: %s keeps the family", b.Address,
			family(b.Address), familiesOf(s.VIPs), b.Forward)
	}
}

// checkServers refuses backends that are VIPs of other services: the host has these addresses, so no port leads to them.
func (d *decoder) checkServers(s *Service, vips map[place]*Service) {
	for i := range s.Backends {
		b := &s.Backends[i]
		if other := vips[place{b.Address, b.VNI}]; other != nil && other != s {
			d.errorf(b.Field("address"), b.Path+".address", "%s is the VIP of %s: services cannot be chained", b.Address, other.Path)
		}
	}
}

// checkForward checks what depends on how the backend is forwarded to.
func (d *decoder) checkForward(s *Service, b *Backend, segments map[uint32]*Segment) {
	if b.Forward == "" {
		return
	}
	if keepsPort(b.Forward) && !b.bad("port") && s.Port != (PortRange{}) {
		switch {
		case s.Port.Single() && b.Port != s.Port.From:
			d.errorf(b.Field("port"), b.Path+".port", "must be the service's port %s: forward: %s does not change the packet", s.Port, b.Forward)
		case !s.Port.Single() && b.Port != 0:
			d.errorf(b.Field("port"), b.Path+".port", "must be 0, the client's port: forward: %s does not change the packet", b.Forward)
		}
	}
	if b.TunnelChecksum && b.Forward != "gue" && b.Forward != "gre" {
		d.errorf(b.Field("tunnel_checksum"), b.Path+".tunnel_checksum", "is for forward: gue and gre only, not for %s", b.Forward)
	}
	if b.Given("tunnel_port") && b.Forward != "gue" {
		d.errorf(b.Field("tunnel_port"), b.Path+".tunnel_port", "is for forward: gue only, not for %s", b.Forward)
	}
	switch {
	case !overlay(b.Forward):
		if b.Given("vni") {
			d.errorf(b.Field("vni"), b.Path+".vni", "is for forward: vxlan and vxlan-dr only, not for %s", b.Forward)
		}
	case !b.Given("vni"):
		d.errorf(b.Pos, b.Path, "vni is missing: forward: %s needs it", b.Forward)
	case b.VNI != 0:
		seg := segments[b.VNI]
		switch {
		case seg == nil && !unread(&d.config.VXLAN):
			d.errorf(b.Field("vni"), b.Path+".vni", "segment %d is not among vxlan.segments", b.VNI)
		case seg != nil && seg.Gateway == nil && !seg.bad("gateway"):
			d.errorf(b.Field("vni"), b.Path+".vni", "segment %d has no gateway, from which backends in it are reached", b.VNI)
		case seg != nil && seg.Gateway != nil && b.Address.IsValid() && !gatewayUnread(seg.Gateway):
			d.checkReached(b, seg.Gateway)
		}
	}
}

// checkReached checks that a gateway can reach a backend in its segment: it asks for its MAC address there, so it must be a station on the link.
func (d *decoder) checkReached(b *Backend, g *Gateway) {
	on := false
	for _, p := range g.Addresses {
		if p.Addr() == b.Address {
			d.errorf(b.Field("address"), b.Path+".address", "%s is the address of the segment's gateway, which is ours", b.Address)
			return
		}
		on = on || p.Contains(b.Address)
	}
	if !on && g.Speaks(b.Address.Is4()) {
		d.warnf(b.Field("address"), b.Path+".address", "%s is in no network of the gateway of segment %d: it is reached only if a station answers ARP or ND for it", b.Address, b.VNI)
	}
}

// unread reports whether a segment's VNI could not be read, so that a segment that seems to be missing may be that one.
func unread(x *VXLAN) bool {
	return x.bad("segments") && (len(x.Segments) == 0 || slices.ContainsFunc(x.Segments, func(s Segment) bool { return s.VNI == 0 }))
}
