package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// warnServices tells what a service says to no effect.
func (d *decoder) warnServices() {
	for i := range d.config.Services {
		s := &d.config.Services[i]
		if s.keys == nil || s.Protocol == "" || d.isSettled(i) {
			continue
		}
		d.warnAdmission(s)
		if len(s.Backends) > 0 && !anyBad(s.Backends, "backup") && !anyOf(s.Backends, func(b *Backend) bool { return !b.Backup || b.keys == nil }) {
			d.warnf(s.Field("backends"), s.Path+".backends", "all are backups: they are as good as ordinary ones, there being no others")
		}
		unless := func(useful bool, key, why string) {
			if useful {
				return
			}
			for _, place := range []*Place{&s.Place, &s.Conntrack.Place} {
				if place.Given(key) {
					d.warnf(place.Field(key), join(place.Path, key), "has no effect %s", why)
				}
			}
		}
		unless(s.Protocol == "tcp" || !s.Conntrack.SloppyTCP, "sloppy_tcp", "on "+s.Protocol)
		unless(s.Protocol == "tcp" || !slices.Contains([]string{"auto", "always"}, s.Conntrack.SynCookies), "syn_cookies", "on "+s.Protocol)
		unless(!s.Conntrack.SloppyTCP || s.Conntrack.SynCookies == "off" || s.Protocol != "tcp", "syn_cookies", "with sloppy_tcp, which takes any segment for an opening one")
		unless(s.Protocol != "udp", "conn_reuse_mode", "on udp, which knows no SYN")
		unless(s.Persistence != nil || s.bad("persistence") || !s.Conntrack.ExpireQuiescentTemplate, "expire_quiescent_template", "without persistence")
	}
}

// warnAdmission tells of networks that are allowed, and denied as a whole. The other way round one is an exception of the other.
func (d *decoder) warnAdmission(s *Service) {
	covers := func(wide, narrow netip.Prefix) bool {
		return wide.Bits() <= narrow.Bits() && wide.Contains(narrow.Addr())
	}
	for i, a := range s.Allow {
		pos, path := d.item(&s.Place, "allow", i)
		if n := slices.IndexFunc(s.Deny, func(x netip.Prefix) bool { return covers(x, a) }); n >= 0 {
			d.warnf(pos, path, "%s is within %s, which deny has: nobody of it is admitted", a, s.Deny[n])
		}
	}
}

// AccessWarnings names the access ports on whose link the host has an address: every frame of such a port is its segment's, as on a port of a
// bridge, so nobody on the link reaches the host by it any more. Of links that are VLANs of a device the addresses are not known.
func (c *Config) AccessWarnings(links []Link) (diags []Diagnostic) {
	for i := range c.VXLAN.Segments {
		for j := range c.VXLAN.Segments[i].Access {
			a := &c.VXLAN.Segments[i].Access[j]
			n := slices.IndexFunc(c.Ports, func(p Port) bool { return p.Name == a.Port })
			if n < 0 || a.VLAN != 0 || c.Ports[n].VLAN != 0 {
				continue
			}
			for _, p := range links[n].Addresses {
				if !p.Addr().IsLinkLocalUnicast() {
					diags = append(diags, cured(fmt.Sprintf("ip addr del %s dev %s", p, c.Ports[n].Interface), c.Warnf(a.Field("port"), a.Path+".port",
						"the host has the address %s on %s, and is reached there no more: every frame of an access port is its segment's", p, printable(a.Port))))
					break
				}
			}
		}
	}
	return diags
}

// cured is d with the command that sets it right.
func cured(command string, d Diagnostic) Diagnostic {
	d.Cure = command
	return d
}

// Link is what is known of a port's link: nothing where MTU is 0.
type Link struct {
	MTU       int // of the IP packet in bytes
	Addresses []netip.Prefix
}

// bytes that a tunnel takes off the MTU of its underlay, over either family: outer IP, UDP and VXLAN headers, and the inner Ethernet header.
const (
	overhead4 = 20 + 8 + 8 + 14
	overhead6 = 40 + 8 + 8 + 14
)

// MTUWarnings names the access ports whose packets do not fit into their segment's tunnels. links are the ports' by their index; where the underlay
// leaves by is guessed from addresses, and nothing is said where its MTU is not known.
func (c *Config) MTUWarnings(links []Link) (diags []Diagnostic) {
	for i := range c.VXLAN.Segments {
		s := &c.VXLAN.Segments[i]
		overhead := overhead4
		if s.VTEP.Is6() {
			overhead = overhead6
		}
		under := c.underlay(s, links)
		if under < 0 || links[under].MTU == 0 || !s.VTEP.IsValid() {
			continue
		}
		room := links[under].MTU - overhead
		for j := range s.Access {
			a := &s.Access[j]
			n := slices.IndexFunc(c.Ports, func(p Port) bool { return p.Name == a.Port })
			if n < 0 || links[n].MTU <= room {
				continue
			}
			diags = append(diags, cured(fmt.Sprintf("ip link set dev %s mtu %d", c.Ports[n].Interface, room), c.Warnf(a.Field("port"), a.Path+".port",
				"the MTU of %s is %d, but through the tunnels of %s, whose MTU is %d, go packets of %d bytes: that for %s and its stations, or %d for %s",
				printable(a.Port), links[n].MTU, printable(c.Ports[under].Name), links[under].MTU, room, printable(a.Port), links[n].MTU+overhead, printable(c.Ports[under].Name))))
		}
	}
	return diags
}

// underlay guesses the port that the tunnels of a segment leave by: that of the group, the one on whose link a peer is, else the one with the
// largest MTU that is no access port. It returns -1 where that may be one of which nothing is known.
func (c *Config) underlay(s *Segment, links []Link) int {
	if s.GroupInterface != "" {
		return slices.IndexFunc(c.Ports, func(p Port) bool { return p.Name == s.GroupInterface })
	}
	best, unknown := -1, false
	for i := range c.Ports {
		if c.isAccess(&c.Ports[i]) {
			continue
		}
		for _, prefix := range links[i].Addresses {
			if slices.ContainsFunc(s.Peers, func(p Peer) bool { return prefix.Contains(p.Address) }) {
				return i
			}
		}
		unknown = unknown || links[i].MTU == 0
		if best < 0 || links[i].MTU > links[best].MTU {
			best = i
		}
	}
	if unknown {
		return -1
	}
	return best
}

// isAccess reports whether all of a port is an access port of some segment.
func (c *Config) isAccess(p *Port) bool {
	for i := range c.VXLAN.Segments {
		for _, a := range c.VXLAN.Segments[i].Access {
			if a.Port == p.Name && a.VLAN == 0 {
				return true
			}
		}
	}
	return false
}

// WrittenLinks are the ports' links as far as the configuration gives them.
func (c *Config) WrittenLinks() []Link {
	links := make([]Link, len(c.Ports))
	for i := range c.Ports {
		p := &c.Ports[i]
		links[i].Addresses = p.Addresses
		if p.Given("mtu") && !p.bad("mtu") {
			links[i].MTU = p.MTU
		}
	}
	return links
}
