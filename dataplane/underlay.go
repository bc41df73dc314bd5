package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/vxlan"
)

// underlay finds the way of an outer packet, as nextHop does: to a peer by route, to the group by the port it was joined on, where the
// next hop's MAC address follows from the group's.
func (w *Worker) underlay(l *lane, s *vxlan.Segment, t *vxlan.Tunnel, to conntrack.Addr, flow uint32) (mtu int, ok bool) {
	if t.Peer() != vxlan.NoPeer {
		return w.nextHop(l, to, t.V6(), flow)
	}
	if int(s.GroupPort) >= len(w.snap.Ports) {
		return 0, false
	}
	l.out, l.routeMTU, l.hop, l.v6, l.mac = int16(s.GroupPort), 0, to, t.V6(), &s.GroupMAC
	return w.mtu(l), true
}

// strange counts the source of a frame that is no peer of its segment. In an open segment control makes it one, so that stations behind it are
// learned; it is told of a new one at once.
func (w *Worker) strange(a *vxlan.Arrival) {
	fresh := w.snap.Overlay.Strangers.Note(a.Segment.Index, a.Src, a.V6, vxlan.SecondOf(w.now))
	if fresh && a.Segment.Open && w.engine.Wake != nil {
		w.engine.Wake()
	}
}

// impostor reports whether the source of a frame that nothing is learned of is a static entry of another place.
func (w *Worker) impostor(s *vxlan.Segment, src vxlan.MAC, at vxlan.Place) bool {
	q := [1]vxlan.Query{{Segment: s.Index, MAC: src}}
	w.snap.Overlay.Stations.Lookup(q[:])
	return q[0].Static && q[0].Place != at
}

// opensTCP reports whether a bridged frame is a SYN whose options can be read. What is wrong with it otherwise is its receiver's to find.
func opensTCP(f *packet.Frame) bool {
	if f.Kind&packet.KindTransport == 0 || f.Proto != packet.ProtoTCP || f.Flags&packet.TCPSyn == 0 || f.Kind&(fragment|packet.KindICMPError) != 0 {
		return false
	}
	t := f.Chunk()[f.L4:f.L3End]
	if len(t) < tcpLen {
		return false
	}
	n := int(t[12]>>4) * 4
	return n >= tcpLen && n <= len(t)
}

// clampFrom is clampMSS for a bridged frame that came through a tunnel: what its sender gets back has to fit there.
func (w *Worker) clampFrom(f *packet.Frame, s *vxlan.Segment, from vxlan.Place) {
	t := s.Tunnel(from)
	if t == nil {
		return
	}
	var way lane
	if mtu, ok := w.underlay(&way, s, t, conntrack.Addr(s.Peers[t.Peer()].Addr), 0); ok {
		clampMSS(f, mtu-t.Overhead()-tagLen*int(f.VLANs))
	}
}
