package config

import (
	"net/netip"

	"go.yaml.in/yaml/v3"
)

var peerTable = table[Peer]{"vxlan.segments[].peers[]", []field[Peer]{
	{"address", func(d *decoder, v value, p *Peer) { d.routable(v, &p.Address, "a peer") }},
	{"port", func(d *decoder, v value, p *Peer) { integer(d, v, &p.Port, 1, 65535) }},
	{"udp_checksum", func(d *decoder, v value, p *Peer) { d.checksum(v, &p.UDPChecksum) }},
}}

// decodePeer takes a peer of s: its address, or a mapping where something of it is not as the segment has it. The segment's own keys of the same
// names stand before peers in its table.
func decodePeer(d *decoder, v value, s *Segment, p *Peer) bool {
	*p = Peer{Port: s.Port, UDPChecksum: s.UDPChecksum}
	if d.schema != nil {
		d.either(d.described(func() { d.routable(v, &p.Address, "a peer") }),
			d.described(func() { decodeMapping(d, v, p, nil, &peerTable); d.require(nil, "address") }))
		return true
	}
	if v.node.Kind != yaml.MappingNode {
		p.Place = Place{Pos: v.pos(), Path: v.path}
		return d.routable(v, &p.Address, "a peer")
	}
	if decodeMapping(d, v, p, &p.Place, &peerTable) {
		d.require(&p.Place, "address")
	}
	return true
}

// checksum sets to to what true and false mean where they are said of one segment or peer.
func (d *decoder) checksum(v value, to *Checksum) {
	before, made := d.errors, false
	switch d.boolean(v, &made); {
	case d.errors > before:
	case made:
		*to = ChecksumMade
	default:
		*to = ChecksumNever
	}
}

// inheritable sets to to a number in a range, or to what the packet inside a tunnel has.
func (d *decoder) inheritable(v value, to *Inheritable, low, high int64) {
	if d.either(schema{"const": "inherit"}, whole(low, high)) {
		return
	}
	if v.node.Kind == yaml.ScalarNode && v.node.ShortTag() == "!!str" {
		if v.node.Value == "inherit" {
			to.Inherit = true
			return
		}
		if _, ok := number(v.node.Value); !ok {
			near := ""
			if !d.full() {
				near = nearest(v.node.Value, []string{"inherit"})
			}
			d.suggestf(v.pos(), v.path, near, "must be %d to %d or inherit, not %s", low, high, quoted(v.node.Value))
			return
		}
	}
	n := int(to.Value)
	integer(d, v, &n, low, high)
	to.Value = uint8(n)
}

// group sets to to a multicast group that can stand for the VTEPs of a segment.
func (d *decoder) group(v value, to *netip.Addr) {
	var a netip.Addr
	switch {
	case !d.address(v, &a):
	case !a.IsMulticast():
		d.errorf(v.pos(), v.path, "must be a multicast address such as 239.1.1.1 or ff05::1, not %s", a)
	case a.IsInterfaceLocalMulticast():
		d.errorf(v.pos(), v.path, "%s does not leave the host (RFC 4291 section 2.7)", a)
	default:
		*to = a
	}
}
