package control

import (
	"net/netip"
	"slices"

	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/route"
	"weir/dataplane/steer"
	"weir/vxlan"
)

// gatewayOf is our station in a segment as the data path knows it, nil if there is none.
func gatewayOf(g *config.Gateway) *vxlan.Gateway {
	if g == nil {
		return nil
	}
	out := &vxlan.Gateway{MAC: vxlan.MACOf(g.MAC[:])}
	for _, p := range g.Addresses {
		addr, v6 := vxlan.AddrOf(p.Addr())
		out.Addresses = append(out.Addresses, vxlan.Interface{Addr: addr, V6: v6, Bits: uint8(p.Bits())})
	}
	return out
}

// gatewaysOf are those of all segments by VNI.
func gatewaysOf(cfg *config.Config) map[uint32]*vxlan.Gateway {
	all := map[uint32]*vxlan.Gateway{}
	for i := range cfg.VXLAN.Segments {
		all[cfg.VXLAN.Segments[i].VNI] = gatewayOf(cfg.VXLAN.Segments[i].Gateway)
	}
	return all
}

// reach makes the tables of what segments may reach, and has steering take what comes from outside for those that the underlay reaches.
func (o *overlay) reach(cfg *config.Config, out *dataplane.Overlay, rules *steer.Rules) {
	segments := map[uint32]*config.Segment{}
	for i := range cfg.VXLAN.Segments {
		segments[cfg.VXLAN.Segments[i].VNI] = &cfg.VXLAN.Segments[i]
	}
	into := func(s *config.Segment) (routes []route.Route) { // a table of networks: the hop's port is the segment's index
		for _, p := range s.Gateway.Addresses {
			hop := route.Hop{Port: int(o.segments[s.VNI].index), Weight: 1}
			routes = append(routes, route.Route{To: p.Masked(), Kind: route.Unicast, Hops: []route.Hop{hop}})
		}
		return routes
	}
	out.Reach = make([]dataplane.Reach, len(out.ByIndex))
	var inward []route.Route
	for vni, s := range segments {
		if s.Gateway == nil {
			continue
		}
		var inside []route.Route
		r := &out.Reach[o.segments[vni].index]
		r.Underlay = s.Gateway.Underlay()
		if r.Underlay {
			inward = append(inward, into(s)...)
		}
		for _, to := range s.Gateway.Reaches {
			if t := segments[to.VNI]; t != nil && t.Gateway != nil {
				inside = append(inside, into(t)...)
			}
		}
		if len(inside) > 0 {
			r.Segments = route.NewTable(inside)
		}
	}
	if len(inward) == 0 {
		return
	}
	out.Inward = route.NewTable(inward)
	for _, x := range inward {
		if !x.To.IsSingleIP() { // the gateway's own address alone is nobody's to be reached at
			rules.Routed = append(rules.Routed, x.To)
		}
	}
}

// endsOf is a table of all addresses at which tunnels of the segments end, and their UDP ports.
func endsOf(list []*vxlan.Segment) (table *route.Table, ports []uint16) {
	seen := map[netip.Addr]bool{}
	var all []route.Route
	add := func(a vxlan.Addr, v6 bool, port uint16) {
		if !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
		if at := a.Netip(v6); !seen[at] {
			seen[at] = true
			all = append(all, route.Route{To: netip.PrefixFrom(at, at.BitLen()), Kind: route.Unicast, Hops: []route.Hop{{Weight: 1}}})
		}
	}
	for _, s := range list {
		add(s.VTEP, s.V6, s.Port)
		for _, p := range s.Peers {
			if p.Tunnel != nil {
				add(p.Addr, s.V6, p.Tunnel.Port())
			}
		}
	}
	return route.NewTable(all), ports
}
