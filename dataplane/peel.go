package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/vxlan"
)

// peel takes the commonest frame of a tunnel out of it: a plain packet from a station that is known where it is, to its segment's gateway. It does
// what decap does with such a frame, but before anything is looked up, so that there need be no more than a glance at the outer headers
// and one at the inner ones. Of any other it reports false and has changed nothing.
func (w *Worker) peel(v *vector, i int) bool {
	o, p, d := w.snap.Overlay, &v.plain[i], v.descs[i]
	mem := w.pool.Memory()
	ip := mem[p.at : d.Addr+uint64(d.Len)]
	inner, s, at, ok := o.Segments.Peel(ip[:min(int(be16(ip[2:])), len(ip))])
	if !ok || s.Gateway == nil || !s.Learning || !o.ends(conntrack.Addr{Lo: uint64(be32(ip[16:]))}, be16(ip[ipv4Len+2:])) {
		return false
	}
	src, now := vxlan.MACOf(inner[6:]), vxlan.SecondOf(w.now)
	if vxlan.MACOf(inner) != s.Gateway.MAC || src == s.Gateway.MAC {
		return false
	}
	front := uint64(vxlan.Overhead4)
	d = packet.Desc{Addr: p.at - etherLen + front, Len: uint32(len(inner))}
	in := [1]packet.Desc{d}
	w.glance(v.plain[i:i+1], v.narrow[i:i+1], in[:])
	if p.size == 0 || !o.Stations.Knows(s.Index, src, at, now) {
		*p = plain{}
		return false
	}
	v.descs[i] = d
	v.narrow[i].Rest |= uint64(s.VNI) << 8
	p.home = refOf(s)
	w.countIn(&vxlan.Arrival{Segment: s, At: at}, len(inner))
	w.segmentCounters(s.Index).Gateway.add(1)
	return true
}

// ends reports whether tunnels over IPv4 end at this address and UDP port.
func (o *Overlay) ends(addr conntrack.Addr, port uint16) bool {
	for i := range o.VTEPs {
		if x := &o.VTEPs[i]; x.Port == port && x.Addr == addr && !x.V6 {
			return true
		}
	}
	return false
}
