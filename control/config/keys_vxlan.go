package config

import (
	"net/netip"
	"time"
)

// maxVNI is the largest VXLAN network identifier, of 24 bits (RFC 7348 section 5).
const maxVNI = 1<<24 - 1

// What there can be of segments, and of stations in all of them together.
const (
	MaxSegments = 4096
	MaxStations = 1 << 18
)

var vxlanTable = table[VXLAN]{"vxlan", []field[VXLAN]{
	{"port", func(d *decoder, v value, x *VXLAN) { integer(d, v, &x.Port, 1, 65535) }},
	{"source_ports", func(d *decoder, v value, x *VXLAN) { d.ports(v, &x.SourcePorts, false) }},
	{"udp_checksum", func(d *decoder, v value, x *VXLAN) { d.boolean(v, &x.UDPChecksum) }},
	{"segments", func(d *decoder, v value, x *VXLAN) { decodeList(d, v, &x.Segments, decodeSegment) }},
}}

var segmentTable = table[Segment]{"vxlan.segments[]", []field[Segment]{
	{"vni", func(d *decoder, v value, s *Segment) { integer(d, v, &s.VNI, 1, maxVNI) }},
	{"vtep", func(d *decoder, v value, s *Segment) { d.routable(v, &s.VTEP, "a VTEP") }},
	{"port", func(d *decoder, v value, s *Segment) { integer(d, v, &s.Port, 1, 65535) }},
	{"udp_checksum", func(d *decoder, v value, s *Segment) { d.checksum(v, &s.UDPChecksum) }},
	{"peers", func(d *decoder, v value, s *Segment) {
		decodeList(d, v, &s.Peers, func(d *decoder, v value, p *Peer) bool { return decodePeer(d, v, s, p) })
	}},
	{"group", func(d *decoder, v value, s *Segment) { d.group(v, &s.Group) }},
	{"group_interface", func(d *decoder, v value, s *Segment) { d.name(v, &s.GroupInterface) }},
	{"accept", func(d *decoder, v value, s *Segment) { d.enum(v, &s.Accept, "source of frames", Accepts) }},
	{"strict", func(d *decoder, v value, s *Segment) { d.boolean(v, &s.Strict) }},
	{"keep_tags", func(d *decoder, v value, s *Segment) { d.boolean(v, &s.KeepTags) }},
	{"ttl", func(d *decoder, v value, s *Segment) { d.inheritable(v, &s.TTL, 1, 255) }},
	{"dscp", func(d *decoder, v value, s *Segment) { d.inheritable(v, &s.DSCP, 0, 63) }},
	{"flood_limit", func(d *decoder, v value, s *Segment) { d.rate(v, &s.FloodLimit, 1_000_000) }},
	{"mss_clamp", func(d *decoder, v value, s *Segment) { d.enum(v, &s.MSSClamp, "extent of the clamp", MSSClamps) }},
	{"access", func(d *decoder, v value, s *Segment) { decodeList(d, v, &s.Access, decodeAccess) }},
	{"fdb", func(d *decoder, v value, s *Segment) { decodeList(d, v, &s.FDB, decodeFDB) }},
	{"learning", func(d *decoder, v value, s *Segment) { d.boolean(v, &s.Learning) }},
	{"ageing", func(d *decoder, v value, s *Segment) { d.duration(v, &s.Ageing, time.Second, longest) }},
	{"max_entries", func(d *decoder, v value, s *Segment) { integer(d, v, &s.MaxEntries, 1, MaxStations) }},
	{"suppression", func(d *decoder, v value, s *Segment) { d.boolean(v, &s.Suppression) }},
	{"gateway", func(d *decoder, v value, s *Segment) { s.Gateway = decodeGateway(d, v) }},
}}

func decodeSegment(d *decoder, v value, s *Segment) bool {
	x := &d.config.VXLAN
	*s = Segment{Learning: true, Ageing: 300 * time.Second, MaxEntries: 16384, Port: x.Port, TTL: Inheritable{Value: 64}, MSSClamp: MSSClamps[0], Accept: Accepts[0]}
	if x.UDPChecksum {
		s.UDPChecksum = ChecksumMade
	}
	if decodeMapping(d, v, s, &s.Place, &segmentTable) {
		d.require(&s.Place, "vni", "vtep")
		if s.Given("group") && !s.Given("peers") && !s.Given("accept") {
			s.Accept = Accepts[1] // who sends to a group is not known beforehand
		}
	}
	return true
}

var accessTable = table[Access]{"vxlan.segments[].access[]", []field[Access]{
	{"port", func(d *decoder, v value, a *Access) { d.name(v, &a.Port) }},
	{"vlan", func(d *decoder, v value, a *Access) { integer(d, v, &a.VLAN, 0, 4094) }},
}}

func decodeAccess(d *decoder, v value, a *Access) bool {
	if decodeMapping(d, v, a, &a.Place, &accessTable) {
		d.require(&a.Place, "port")
	}
	return true
}

var fdbTable = table[FDB]{"vxlan.segments[].fdb[]", []field[FDB]{
	{"mac", func(d *decoder, v value, f *FDB) { d.mac(v, &f.MAC) }},
	{"vtep", func(d *decoder, v value, f *FDB) { d.routable(v, &f.VTEP, "a VTEP") }},
}}

func decodeFDB(d *decoder, v value, f *FDB) bool {
	if decodeMapping(d, v, f, &f.Place, &fdbTable) {
		d.require(&f.Place, "mac", "vtep")
	}
	return true
}

var gatewayTable = table[Gateway]{"vxlan.segments[].gateway", []field[Gateway]{
	{"address", func(d *decoder, v value, g *Gateway) {
		var p netip.Prefix
		if decodeGatewayAddress(d, v, &p) {
			g.Addresses = append(g.Addresses, p)
		}
	}},
	{"addresses", func(d *decoder, v value, g *Gateway) { decodeList(d, v, &g.Addresses, decodeGatewayAddress) }},
	{"mac", func(d *decoder, v value, g *Gateway) { d.mac(v, &g.MAC) }},
	{"reaches", func(d *decoder, v value, g *Gateway) { decodeList(d, v, &g.Reaches, decodeReach) }},
}}

func decodeGatewayAddress(d *decoder, v value, p *netip.Prefix) bool {
	if !d.stationPrefix(v, p) {
		return false
	}
	if p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
		d.errorf(v.pos(), v.path, "a gateway's link-local address is made of its MAC: leave out %s", p)
		return false
	}
	return true
}

func decodeReach(d *decoder, v value, r *Reach) bool {
	if d.either(schema{"const": "underlay"}, whole(1, maxVNI)) {
		return false
	}
	switch s, ok := d.scalar(v, "a segment's VNI or underlay"); {
	case !ok:
		return false
	case s == "underlay":
		return true
	case v.node.ShortTag() != "!!int":
		d.suggestf(v.pos(), v.path, nearest(s, []string{"underlay"}), "must be a segment's VNI or underlay, not %s", quoted(s))
		return false
	}
	integer(d, v, &r.VNI, 1, maxVNI)
	return r.VNI != 0
}

func decodeGateway(d *decoder, v value) *Gateway {
	if isNull(v.node) {
		return nil
	}
	g := &Gateway{}
	if decodeMapping(d, v, g, &g.Place, &gatewayTable) {
		d.require(&g.Place, "mac")
	}
	return g
}

// Keys are all keys there are, such as services[].backends[].weight, in the order of the tables.
func Keys() (keys []string) {
	add := func(path string, names []string) {
		for _, n := range names {
			keys = append(keys, join(path, n))
		}
	}
	add(rootTable.path, rootTable.keys())
	add(engineTable.path, engineTable.keys())
	add(workersTable.path, workersTable.keys())
	add(portTable.path, portTable.keys())
	add(routeTable.path, routeTable.keys())
	add(neighborTable.path, neighborTable.keys())
	add(serviceTable.path, serviceTable.keys())
	add(persistenceTable.path, persistenceTable.keys())
	add(fullNATTable.path, fullNATTable.keys())
	add(masqueradeTable.path, masqueradeTable.keys())
	add(checkTable.path, checkTable.keys())
	add(passiveTable.path, passiveTable.keys())
	add(serviceConntrackTable.path, serviceConntrackTable.keys())
	add(backendTable.path, backendTable.keys())
	add(conntrackTable.path, conntrackTable.keys())
	add(timeoutsTable.path, timeoutsTable.keys())
	add(limitsTable.path, limitsTable.keys())
	add(vxlanTable.path, vxlanTable.keys())
	add(segmentTable.path, segmentTable.keys())
	add(peerTable.path, peerTable.keys())
	add(accessTable.path, accessTable.keys())
	add(fdbTable.path, fdbTable.keys())
	add(gatewayTable.path, gatewayTable.keys())
	add(adminTable.path, adminTable.keys())
	return keys
}
