package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/vxlan"
)

// ARP and ND that come into a segment: they are noticed, answered for the gateway and its VIPs, where the segment suppresses also for stations
// that are known, and passed on.

// hearARP takes notice of an ARP message and answers a request for the gateway. It reports whether that was all there was to do. twin says that
// another gateway sent it, with our MAC: it tells of nobody but itself.
func (w *Worker) hearARP(v *vector, i int, a *vxlan.Arrival, forGateway, twin bool) bool {
	f, l, s := &v.frames[i], &v.lanes[i], a.Segment
	m, ok := vxlan.ReadARP(f)
	g := s.Gateway
	asked := ok && !m.Reply && !twin && w.answersTo(s, m.Target, false) // a twin's request: an answer would go to ourselves
	if !asked && (m.Sender != vxlan.Addr{}) && w.answersTo(s, m.Sender, false) && m.SenderMAC != g.MAC {
		l.discard(DropOwnAddress) // also if nobody should believe it; whoever announces our address is told whose it is
		return true
	}
	if !ok {
		return forGateway && w.swallow(l)
	}
	if g == nil && !s.Suppress {
		return false
	}
	if (m.Sender != vxlan.Addr{}) && !twin && !w.answersTo(s, m.Sender, false) {
		proof := vxlan.Heard
		if m.Reply && forGateway {
			proof = vxlan.Confirmed
		}
		w.snap.Overlay.Hosts.Learn(s.Index, m.Sender, false, m.SenderMAC, proof, vxlan.SecondOf(w.now))
	}
	switch {
	case m.Reply:
		return forGateway && w.heardForAll(f, l, a)
	case asked:
		w.reply(l, s, a.At, func(b []byte) int { return vxlan.PutARPReply(b, &m, g.MAC) })
		return true
	}
	if s.Suppress && !forGateway && vxlan.MACOf(f.Bytes()).Group() && (m.Sender != vxlan.Addr{}) && !m.Gratuitous() {
		if mac, _ := w.proxy(s, a.At, m.Target, false, m.SenderMAC); mac != 0 {
			w.reply(l, s, a.At, func(b []byte) int { return vxlan.PutARPReply(b, &m, mac) })
			return true
		}
	}
	return forGateway && w.swallow(l)
}

// hearND is hearARP for neighbour discovery.
func (w *Worker) hearND(v *vector, i int, a *vxlan.Arrival, forGateway, twin bool) bool {
	f, l, s := &v.frames[i], &v.lanes[i], a.Segment
	m, ok := vxlan.ReadND(f)
	if !ok {
		return false
	}
	g := s.Gateway
	if g == nil && !s.Suppress {
		return false
	}
	hosts, now := w.snap.Overlay.Hosts, vxlan.SecondOf(w.now)
	ours := w.answersTo(s, m.Tells(), true)
	if ours && m.MAC != g.MAC && !(twin && m.MAC == 0) {
		l.discard(DropOwnAddress)
		return true
	}
	switch {
	case ours || twin:
	case m.MAC == 0:
		if m.Advertisement && m.Solicited {
			hosts.Confirm(s.Index, m.Target, true, m.SrcMAC, now)
			hosts.Advertised(s.Index, m.Target, m.SrcMAC, m.Router)
		}
	case m.Advertisement:
		proof := vxlan.Claim // RFC 4861 section 7.2.5
		switch {
		case m.Solicited && m.Override:
			proof = vxlan.Confirmed
		case m.Solicited:
			proof = vxlan.Seconded
		case m.Override:
			proof = vxlan.Heard
		}
		hosts.Learn(s.Index, m.Target, true, m.MAC, proof, now)
		hosts.Advertised(s.Index, m.Target, m.MAC, m.Router)
	case m.Src != vxlan.Addr{}:
		hosts.Learn(s.Index, m.Src, true, m.MAC, vxlan.Heard, now)
	}
	switch {
	case m.Advertisement:
		return forGateway && w.heardForAll(f, l, a)
	case twin:
	case w.answersTo(s, m.Target, true):
		w.reply(l, s, a.At, func(b []byte) int { return vxlan.PutNDReply(b, &m, g.MAC, true) })
		return true
	}
	if s.Suppress && !forGateway && vxlan.MACOf(f.Bytes()).Group() && (m.Src != vxlan.Addr{}) {
		if mac, router := w.proxy(s, a.At, m.Target, true, m.SrcMAC); mac != 0 {
			w.reply(l, s, a.At, func(b []byte) int { return vxlan.PutNDProxy(b, &m, mac, router) })
			return true
		}
	}
	return forGateway && w.swallow(l)
}

// answersTo reports whether an address of a segment is the gateway's to answer for: its own, or that of a service in the segment.
func (w *Worker) answersTo(s *vxlan.Segment, addr vxlan.Addr, v6 bool) bool {
	return s.Gateway != nil && (s.Gateway.Has(addr, v6) || w.snap.Services.IsVIPIn(s.VNI, conntrack.Addr(addr), v6))
}

// proxy is the MAC of a station that a request from asker at a place can be answered for, 0 if it cannot (RFC 9161 section 3): it was heard of
// lately, it is still known where it is, and that is not where the request comes from, for there it hears the request itself. A request
// out of a tunnel is answered for stations on our own ports alone: those behind other VTEPs get a copy of it there.
func (w *Worker) proxy(s *vxlan.Segment, from vxlan.Place, target vxlan.Addr, v6 bool, asker vxlan.MAC) (mac vxlan.MAC, router bool) {
	o := w.snap.Overlay
	mac, router = o.Hosts.Proxy(s.Index, target, v6, vxlan.SecondOf(w.now))
	if mac == 0 || mac == asker || from == 0 {
		return 0, false
	}
	q := [1]vxlan.Query{{Segment: s.Index, MAC: mac}}
	o.Stations.Lookup(q[:])
	_, tunnel := from.Peer()
	_, local := q[0].Place.Access()
	if q[0].Place == 0 || q[0].Place == from || tunnel && !local {
		return 0, false
	}
	o.Hosts.Proxied(s.Index)
	return mac, router
}

// heardForAll ends an answer to the gateway that was heard. If other gateways have its MAC, too, one of them may be who asked: what a station on
// a port of ours says they hear as well, by copies in the tunnels. What came out of a tunnel came to whom its VTEP holds for the one that asked.
func (w *Worker) heardForAll(f *packet.Frame, l *lane, a *vxlan.Arrival) bool {
	s := a.Segment
	_, local := a.At.Access()
	if local && w.snap.Overlay.Twins.Heard(s.Index, vxlan.SecondOf(w.now)) && (s.BUM == nil || s.BUM.Allow(w.now)) { // it is a flood like any
		for _, t := range s.Flood {
			if c, ok := w.copyOf(f); ok {
				w.tunnel(&c, s, t, true)
			}
		}
	}
	return w.swallow(l)
}

func (w *Worker) swallow(l *lane) bool {
	l.verdict = Consumed
	return true
}
