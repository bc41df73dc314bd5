package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/vxlan"
)

// peel takes the commonest frames of a tunnel out of it: from a station that is known where it is, a plain packet to the segment's gateway, or IPv4
// to another station. It does what decap does with such a frame, but before anything is looked up, so that there need be no more than a
// glance at the outer headers and one at the inner ones. Of any other it reports false and has changed nothing.
func (w *Worker) peel(v *vector, i int) bool {
	o, p, d := w.snap.Overlay, &v.plain[i], v.descs[i]
	ip := w.pool.Memory()[p.at : d.Addr+uint64(d.Len)]
	inner, s, at, ok := o.Segments.Peel(ip[:min(int(be16(ip[2:])), len(ip))])
	if !ok || !s.Learning || !o.ends(conntrack.Addr{Lo: uint64(be32(ip[16:]))}, false, be16(ip[ipv4Len+2:])) {
		return false
	}
	dst, src, now := vxlan.MACOf(inner), vxlan.MACOf(inner[6:]), vxlan.SecondOf(w.now)
	d = packet.Desc{Addr: p.at + vxlan.Overhead4 - etherLen, Len: uint32(len(inner))}
	switch {
	case s.Gateway != nil && src == s.Gateway.MAC:
		return false
	case s.Gateway != nil && dst == s.Gateway.MAC:
		in := [1]packet.Desc{d}
		w.glance(v.plain[i:i+1], v.narrow[i:i+1], in[:])
		if p.size == 0 || !o.Stations.Knows(s.Index, src, at, now) {
			*p = plain{}
			return false
		}
		v.descs[i] = d
		v.narrow[i].Rest |= uint64(s.VNI) << 8
		p.home = refOf(s)
		w.segmentCounters(s.Index).Gateway.add(1)
	case dst.Group() || s.Clamp == vxlan.ClampAll || be16(inner[12:]) != packet.EtherTypeIPv4 || !o.Stations.Knows(s.Index, src, at, now):
		return false
	default:
		f := &v.frames[i]
		f.Open(w.pool, d)
		f.Headers, f.Port = packet.Headers{}, uint16(v.port)
		*p = plain{}
		v.lanes[i] = lane{home: refOf(s)}
		v.toBridge(i, s, at, dst)
	}
	w.countIn(&vxlan.Arrival{Segment: s, At: at}, len(inner))
	return true
}

// ends reports whether tunnels of ours end at this address and UDP port.
func (o *Overlay) ends(addr conntrack.Addr, v6 bool, port uint16) bool {
	for i := range o.VTEPs {
		if x := &o.VTEPs[i]; x.Port == port && x.Addr == addr && x.V6 == v6 {
			return true
		}
	}
	return false
}
