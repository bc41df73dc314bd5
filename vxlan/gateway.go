package vxlan

// Gateway is our own station in a segment: one MAC, with an address of either family or several.
//
// It has a link-local IPv6 address as every IPv6 node has, made of its MAC (RFC 4291 appendix A), also when it has no other: errors
// about IPv6 packets then come from there.
type Gateway struct {
	MAC       MAC
	Addresses []Interface
}

// Interface is an address of a gateway with the network that it is in.
type Interface struct {
	Addr Addr
	V6   bool
	Bits uint8 // of the network's prefix
}

// Holds reports whether a lies in the interface's network.
func (i *Interface) Holds(a Addr, v6 bool) bool {
	if i.V6 != v6 {
		return false
	}
	hi, lo := i.Addr.Hi^a.Hi, i.Addr.Lo^a.Lo
	switch {
	case !v6:
		return lo>>(32-i.Bits) == 0
	case i.Bits <= 64:
		return hi>>(64-i.Bits) == 0
	}
	return hi == 0 && lo>>(128-i.Bits) == 0
}

// LinkLocal is the gateway's address in fe80::/64: its MAC with ff:fe in the middle and the universal bit turned.
func (g *Gateway) LinkLocal() Addr {
	m := uint64(g.MAC)
	return Addr{linkLocal, (m>>24<<40 | 0xfffe<<24 | m&0xffffff) ^ 1<<57}
}

const linkLocal = 0xfe80 << 48 // the first word of addresses in fe80::/64

// Speaks reports whether the gateway is configured with an address of a family.
func (g *Gateway) Speaks(v6 bool) bool {
	for i := range g.Addresses {
		if g.Addresses[i].V6 == v6 {
			return true
		}
	}
	return false
}

// Has reports whether a is an address of the gateway's. The link-local one is, of a gateway that speaks IPv6.
func (g *Gateway) Has(a Addr, v6 bool) bool {
	for i := range g.Addresses {
		if x := &g.Addresses[i]; x.Addr == a && x.V6 == v6 {
			return true
		}
	}
	return v6 && a == g.LinkLocal() && g.Speaks(true)
}

// OnLink reports whether a lies in one of the gateway's networks.
func (g *Gateway) OnLink(a Addr, v6 bool) bool {
	for i := range g.Addresses {
		if g.Addresses[i].Holds(a, v6) {
			return true
		}
	}
	return false
}

// Source is the address that the gateway speaks to a station from: the one in the station's network, the link-local one to a link-local
// station (RFC 6724 section 5 rule 2), else its first of the family. It reports false where the gateway has none.
func (g *Gateway) Source(to Addr, v6 bool) (a Addr, ok bool) {
	if v6 && to.Hi>>54 == linkLocal>>54 {
		return g.LinkLocal(), true
	}
	for i := range g.Addresses {
		x := &g.Addresses[i]
		if x.Holds(to, v6) {
			return x.Addr, true
		}
		if x.V6 == v6 && !ok {
			a, ok = x.Addr, true
		}
	}
	return a, ok
}

// dummy4 is 192.0.0.8, which stands for the sender of an IPv4 error that has no IPv4 address (RFC 7600), as in Linux.
var dummy4 = Addr{Lo: 192<<24 | 8}

// Reporter is Source for an error, which also a gateway without an address of the family can send.
func (g *Gateway) Reporter(to Addr, v6 bool) Addr {
	switch a, ok := g.Source(to, v6); {
	case ok:
		return a
	case v6:
		return g.LinkLocal()
	}
	return dummy4
}
