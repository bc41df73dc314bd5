package host

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"weir/dataplane/route"
)

// Routes are the routes of the main table, of both families, in the kernel's order: unicast with all next hops, blackhole,
// unreachable and prohibit. Hops on a device that is no port's have Port -1: the route is known, but the kernel must take it.
//
// Left out are routes that the data path cannot follow as the kernel does: those for one TOS or for source prefixes (IPv6 subtrees),
// link-local ones, and whatever policy rules send to other tables (see Advise). A hop whose device has no carrier is left out where the
// kernel does so; a route left without any goes, too.
func (h *Host) Routes(ports PortMap) ([]route.Route, error) {
	links, err := h.Links()
	if err != nil {
		return nil, err
	}
	return h.routes(ports, mtus(links))
}

// Locals are the addresses and prefixes of the local table: those that this host itself answers for.
func (h *Host) Locals() ([]netip.Prefix, error) {
	var out []netip.Prefix
	err := h.dumpTable(unix.RT_TABLE_LOCAL, func() { out = nil }, func(r kernelRoute) {
		if r.typ == unix.RTN_LOCAL {
			out = append(out, r.to)
		}
	})
	return out, err
}

// mtus are the MTUs of devices by index.
func mtus(links []Link) map[int]int {
	m := make(map[int]int, len(links))
	for _, l := range links {
		m[l.Index] = l.MTU
	}
	return m
}

func (h *Host) routes(ports PortMap, mtu map[int]int) ([]route.Route, error) {
	var found []kernelRoute
	bare := false // a route names a next hop object and nothing else (net.ipv4.nexthop_compat_mode=0)
	err := h.dumpTable(unix.RT_TABLE_MAIN, func() { found, bare = nil, false }, func(r kernelRoute) {
		found = append(found, r)
		bare = bare || r.nexthop != 0 && len(r.hops) == 0
	})
	if err != nil {
		return nil, err
	}
	var objects map[uint32]nexthop
	if bare {
		if objects, err = h.nexthops(); err != nil {
			return nil, err
		}
	}
	var out []route.Route
	for _, r := range found {
		if r.nexthop != 0 && len(r.hops) == 0 {
			r = r.resolve(objects)
		}
		if conv, ok := r.route(ports, mtu); ok {
			out = append(out, conv)
		}
	}
	return out, nil
}

// dumpTable reads the routes of one table, both families.
func (h *Host) dumpTable(table uint8, reset func(), each func(kernelRoute)) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var got []kernelRoute
		// struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags. Only the table is a filter.
		header := append(raw{family, 0, 0, 0, table, 0, 0, 0}, 0, 0, 0, 0)
		err := h.dump(unix.RTM_GETROUTE, func() { got = got[:0] }, func(msg []byte) {
			if r, ok := parseRoute(msg); ok && r.table == uint32(table) {
				got = append(got, r)
			}
		}, header)
		if err != nil {
			return fail("RTM_GETROUTE", "all", err)
		}
		if family == unix.AF_INET {
			reset()
		}
		for _, r := range got {
			each(r)
		}
	}
	return nil
}

// kernelRoute is a route as netlink tells it.
type kernelRoute struct {
	to       netip.Prefix
	table    uint32
	typ      uint8 // RTN_*
	protocol uint8 // RTPROT_*, or a number of whoever made it
	metric   uint32
	mtu      uint32 // RTAX_MTU; 0 if the route has none of its own
	nexthop  uint32 // of the next hop object; 0 if the hops are the route's own
	hops     []kernelHop
}

type kernelHop struct {
	ifindex int
	via     netip.Addr
	weight  int
	flags   uint8 // RTNH_F_*
	encap   bool  // the kernel would add a header (MPLS, SRv6) that we do not
}

// parseRoute reads an RTM_NEWROUTE or RTM_DELROUTE message. It reports false for what is no route of ours to follow.
func parseRoute(msg []byte) (kernelRoute, bool) {
	if len(msg) < unix.SizeofRtMsg {
		return kernelRoute{}, false
	}
	family, bits, srcBits, tos := msg[0], int(msg[1]), msg[2], msg[3]
	flags := u32(msg[8:])
	r := kernelRoute{table: uint32(msg[4]), protocol: msg[5], typ: msg[7]}
	dst := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	} else if family != unix.AF_INET {
		return kernelRoute{}, false
	}
	single := kernelHop{weight: 1, flags: uint8(flags)}
	attrs(msg[unix.SizeofRtMsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.RTA_DST:
			dst = ipAttr(v)
		case unix.RTA_TABLE:
			r.table = u32(v)
		case unix.RTA_PRIORITY:
			r.metric = u32(v)
		case unix.RTA_METRICS:
			attrs(v, func(typ uint16, v []byte) {
				if typ == unix.RTAX_MTU {
					r.mtu = u32(v)
				}
			})
		case unix.RTA_MULTIPATH:
			r.hops = parseMultipath(v)
		case rtaNextHopID:
			r.nexthop = u32(v)
		default:
			single.attr(typ, v)
		}
	})
	if len(r.hops) == 0 && single.ifindex != 0 {
		r.hops = []kernelHop{single}
	}
	r.to = netip.PrefixFrom(dst, bits)
	ok := r.to.IsValid() && srcBits == 0 && tos == 0 && flags&unix.RTM_F_CLONED == 0 && !dst.IsLinkLocalUnicast()
	return r, ok
}

// attr reads an attribute that a next hop has, be it the route's only one or one of several.
func (p *kernelHop) attr(typ uint16, v []byte) {
	switch typ {
	case unix.RTA_OIF:
		p.ifindex = int(u32(v))
	case unix.RTA_GATEWAY:
		p.via = ipAttr(v)
	case unix.RTA_VIA: // a gateway of the other family (RFC 5549): family in two bytes, then the address
		if len(v) > 2 {
			p.via = ipAttr(v[2:])
		}
	case unix.RTA_ENCAP_TYPE:
		p.encap = true
	}
}

// parseMultipath reads struct rtnexthop after struct rtnexthop: length, flags, weight less one, device; then attributes.
func parseMultipath(b []byte) (hops []kernelHop) {
	for len(b) >= unix.SizeofRtNexthop {
		n := int(u16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		p := kernelHop{flags: b[2], weight: int(b[3]) + 1, ifindex: int(u32(b[4:]))}
		attrs(b[unix.SizeofRtNexthop:n], p.attr)
		hops = append(hops, p)
		b = b[min((n+3)&^3, len(b)):]
	}
	return hops
}

// kinds are the route types that the data path knows. A throw in the main table ends the look-up in a host without further rules,
// which is then answered as unreachable.
var kinds = map[uint8]route.Kind{
	unix.RTN_UNICAST:     route.Unicast,
	unix.RTN_BLACKHOLE:   route.Blackhole,
	unix.RTN_UNREACHABLE: route.Unreachable,
	unix.RTN_PROHIBIT:    route.Prohibit,
	unix.RTN_THROW:       route.Unreachable,
	unix.RTN_LOCAL:       route.Local,
}

// route is r in the data path's words.
func (r kernelRoute) route(ports PortMap, mtu map[int]int) (route.Route, bool) {
	kind, ok := kinds[r.typ]
	out := route.Route{To: r.to, Kind: kind, Metric: int(r.metric)}
	if kind != route.Unicast {
		return out, ok
	}
	for _, p := range r.hops {
		// Linkdown is set without carrier; the kernel goes on using such a hop unless ignore_routes_with_linkdown is set, and then
		// marks it dead as well.
		if p.flags&unix.RTNH_F_DEAD != 0 {
			continue
		}
		hop := route.Hop{Via: p.via, Port: ports.Port(p.ifindex), Weight: p.weight, MTU: mtu[p.ifindex]}
		if m := int(r.mtu); m != 0 && (hop.MTU == 0 || m < hop.MTU) {
			hop.MTU = m
		}
		if p.encap {
			hop.Port = -1
		}
		out.Hops = append(out.Hops, hop)
	}
	return out, ok && len(out.Hops) > 0
}

// nexthop is a next hop object (`ip nexthop`), or a group of them.
type nexthop struct {
	hop       kernelHop
	blackhole bool
	group     []member
}

type member struct {
	id     uint32
	weight int
}

// nexthops are all next hop objects by number. A kernel before 5.3 has none.
func (h *Host) nexthops() (map[uint32]nexthop, error) {
	var out map[uint32]nexthop
	err := h.dump(unix.RTM_GETNEXTHOP, func() { out = make(map[uint32]nexthop) }, func(msg []byte) {
		if id, n, ok := parseNexthop(msg); ok {
			out[id] = n
		}
	}, raw(make([]byte, 8))) // struct nhmsg
	return out, fail("RTM_GETNEXTHOP", "all", err)
}

func parseNexthop(msg []byte) (id uint32, n nexthop, ok bool) {
	const sizeofNhMsg = 8
	if len(msg) < sizeofNhMsg {
		return 0, n, false
	}
	n.hop = kernelHop{weight: 1, flags: uint8(u32(msg[4:]))}
	attrs(msg[sizeofNhMsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.NHA_ID:
			id = u32(v)
		case unix.NHA_BLACKHOLE:
			n.blackhole = true
		case unix.NHA_OIF:
			n.hop.ifindex = int(u32(v))
		case unix.NHA_GATEWAY:
			n.hop.via = ipAttr(v)
		case unix.NHA_ENCAP_TYPE:
			n.hop.encap = true
		case unix.NHA_GROUP: // struct nexthop_grp: id, low byte of the weight less one, its high byte (Linux 6.12), reserved
			for ; len(v) >= 8; v = v[8:] {
				n.group = append(n.group, member{u32(v), int(v[4]) | int(v[5])<<8 + 1})
			}
		}
	})
	return id, n, id != 0
}

// resolve gives r the hops of its next hop object. A group has no groups in it; a blackhole stands alone.
func (r kernelRoute) resolve(objects map[uint32]nexthop) kernelRoute {
	n := objects[r.nexthop]
	switch {
	case n.blackhole:
		r.typ = unix.RTN_BLACKHOLE
	case len(n.group) > 0:
		for _, m := range n.group {
			o := objects[m.id]
			if o.blackhole {
				r.typ = unix.RTN_BLACKHOLE
			}
			hop := o.hop
			hop.weight = m.weight
			r.hops = append(r.hops, hop)
		}
		r.hops = slices.DeleteFunc(r.hops, func(p kernelHop) bool { return p.ifindex == 0 })
	case n.hop.ifindex != 0:
		r.hops = []kernelHop{n.hop}
	}
	return r
}
