package config

import (
	"net/netip"
	"slices"
)

// checkTenancy checks a service whose VIPs live in a segment: its gateway answers for them there, so each is one address of a family that the
// gateway speaks, and what a server answers must come back to it.
func (d *decoder) checkTenancy(s *Service, segments map[uint32]*Segment) {
	if s.VNI == 0 {
		return
	}
	seg := segments[s.VNI]
	if seg == nil || seg.Gateway == nil {
		switch {
		case seg == nil && !unread(&d.config.VXLAN):
			d.errorf(s.Field("vni"), s.Path+".vni", "segment %d is not among vxlan.segments", s.VNI)
		case seg != nil && !seg.bad("gateway"):
			d.errorf(s.Field("vni"), s.Path+".vni", "segment %d has no gateway, which answers for the VIPs in it", s.VNI)
		}
		return
	}
	for i, vip := range s.VIPs {
		pos, path := d.item(&s.Place, "vips", i)
		if s.Given("vip") {
			pos, path = s.Field("vip"), s.Path+".vip"
		}
		switch {
		case !vip.IsSingleIP():
			d.errorf(pos, path, "a VIP in a segment is one address, not %s", vip)
		case !seg.Gateway.Speaks(vip.Addr().Is4()) && !gatewayUnread(seg.Gateway):
			d.errorf(pos, path, "%s is %s, but the gateway of segment %d has no such address", vip.Addr(), family(vip.Addr()), s.VNI)
		}
	}
	for i := range s.Backends {
		b := &s.Backends[i]
		switch {
		case b.Forward == "dr" || carriesBoth(b.Forward):
			d.errorf(b.Field("forward"), b.Path+".forward", "%s leaves the answer to the server, which has no way into segment %d: use nat, fullnat or vxlan",
				b.Forward, s.VNI)
		case b.Forward == "vxlan-dr" && b.VNI != 0 && b.VNI != s.VNI:
			d.errorf(b.Field("vni"), b.Path+".vni", "must be the service's segment %d: vxlan-dr leaves the answer to the server", s.VNI)
		}
	}
}

// gatewayUnread reports whether a gateway's addresses could not be read.
func gatewayUnread(g *Gateway) bool { return g.bad("address") || g.bad("addresses") }

// checkGateway checks the addresses of a segment's gateway.
func (d *decoder) checkGateway(g *Gateway) {
	one, many := g.Given("address"), g.Given("addresses")
	switch {
	case one && many:
		d.errorf(g.Field("addresses"), g.Path+".addresses", "address is given, too: write one of them")
	case !one && !many:
		d.errorf(g.Pos, g.Path, "address is missing")
	case many && len(g.Addresses) == 0 && !g.bad("addresses"):
		d.errorf(g.Field("addresses"), g.Path+".addresses", "is empty: at least one address is needed")
	}
	seen := map[netip.Addr]bool{}
	for i, p := range g.Addresses {
		if seen[p.Addr()] {
			pos, path := d.item(&g.Place, "addresses", i)
			d.errorf(pos, path, "duplicate address %s", p.Addr())
		}
		seen[p.Addr()] = true
		if a := p.Addr(); a.Is4() && p.Bits() < 31 && (a == p.Masked().Addr() || a == lastOf(p)) {
			pos, path := d.item(&g.Place, "addresses", i)
			d.errorf(pos, path, "%s is the first or last address of its network, which no station has", p)
		}
	}
}

// lastOf is the last address of an IPv4 network: what is sent there is for all.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}

// network is a network of a segment, and where it is said that packets are routed into it.
type network struct {
	prefix  netip.Prefix
	segment *Segment
	pos     Pos
	path    string
}

// checkReaches checks where segments are routed: to segments that there are, between networks that do not overlap, and both ways.
func (d *decoder) checkReaches(segments map[uint32]*Segment) {
	var outside []network // of all segments that reach the underlay
	for i := range d.config.VXLAN.Segments {
		s := &d.config.VXLAN.Segments[i]
		if s.Gateway == nil {
			continue
		}
		reached := networksOf(s, s.Gateway.Pos, s.Gateway.Path)
		seen := map[Reach]bool{}
		for n, r := range s.Gateway.Reaches {
			pos, path := d.item(&s.Gateway.Place, "reaches", n)
			to := segments[r.VNI]
			switch {
			case seen[r]:
				d.errorf(pos, path, "stands twice")
			case r.VNI == 0:
				outside = append(outside, networksOf(s, pos, path)...)
			case to == nil && !unread(&d.config.VXLAN):
				d.errorf(pos, path, "segment %d is not among vxlan.segments", r.VNI)
			case to != nil && to.Gateway == nil && !to.bad("gateway"):
				d.errorf(pos, path, "segment %d has no gateway, from which stations in it are reached", r.VNI)
			case to != nil && to.Gateway != nil && to != s:
				reached = append(reached, networksOf(to, pos, path)...)
				if !to.bad("gateway") && !to.Gateway.bad("reaches") && !slices.Contains(to.Gateway.Reaches, Reach{s.VNI}) {
					d.warnf(pos, path, "segment %d does not reach %d: answers do not come back", r.VNI, s.VNI)
				}
			}
			seen[r] = true
		}
		d.disjoint(reached, "in one segment")
	}
	d.disjoint(outside, "outside")
	d.checkOutside(outside)
}

// checkOutside keeps VIPs that are prefixes from being a network that is routed as well.
func (d *decoder) checkOutside(outside []network) {
	known := map[netip.Prefix]*Segment{}
	for _, x := range outside {
		known[x.prefix] = x.segment
	}
	for i := range d.config.Services {
		s := &d.config.Services[i]
		for n, vip := range s.VIPs {
			if seg := known[vip]; seg != nil && s.VNI == 0 {
				pos, path := d.item(&s.Place, "vips", n)
				if s.Given("vip") {
					pos, path = s.Field("vip"), s.Path+".vip"
				}
				d.errorf(pos, path, "%s is the network of segment %d, which reaches the underlay", vip, seg.VNI)
			}
		}
	}
}

// disjoint demands that the networks of different segments do not overlap. Of two that do, the one that was said later is told of.
func (d *decoder) disjoint(all []network, where string) {
	byLength := slices.Clone(all)
	slices.SortStableFunc(byLength, func(a, b network) int { return a.prefix.Bits() - b.prefix.Bits() })
	known := map[netip.Prefix]network{} // those before, and
	var lengths []int                   // their lengths
	for _, n := range byLength {
		if len(lengths) == 0 || lengths[len(lengths)-1] != n.prefix.Bits() {
			lengths = append(lengths, n.prefix.Bits())
		}
		for _, bits := range lengths {
			wide, err := n.prefix.Addr().Prefix(bits)
			x, y := n, known[wide]
			if err != nil || y.segment == nil || y.segment == x.segment {
				continue
			}
			if x.pos.before(y.pos) {
				x, y = y, x
			}
			d.errorf(x.pos, x.path, "%s of segment %d and %s of segment %d overlap: they cannot be told apart %s", x.prefix, x.segment.VNI, y.prefix, y.segment.VNI, where)
			break
		}
		if _, there := known[n.prefix]; !there {
			known[n.prefix] = n
		}
	}
}

// before reports whether p stands before o in the file.
func (p Pos) before(o Pos) bool { return p.Line < o.Line || p.Line == o.Line && p.Col < o.Col }

// networksOf are those of a segment's gateway.
func networksOf(s *Segment, pos Pos, path string) (all []network) {
	for _, p := range s.Gateway.Addresses {
		all = append(all, network{p.Masked(), s, pos, path})
	}
	return all
}
