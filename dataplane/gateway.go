package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/vxlan"
)

// A segment's gateway is our own station in it: it answers ARP and ND for its addresses, finds out the MAC addresses of hosts that
// packets go to, and what it forwards gets its MAC as source.

// reply sends a frame of the gateway's, which put writes, to where the frame of l came from. A VTEP that is no peer (yet) hears what is sent to the
// group, but no tunnel leads to it: the copies for each peer would be many frames for one, and none of them for who asked.
func (w *Worker) reply(l *lane, s *vxlan.Segment, to vxlan.Place, put func([]byte) int) {
	l.verdict = Answered
	if f, ok := w.frame(put); ok {
		switch {
		case to != 0:
			w.deliver(&f, s, to, true)
		case s.Group != vxlan.Addr{}:
			w.tunnel(&f, s, s.Flood[0], true)
		default:
			w.lose(&f, s, DropNoStation, true)
		}
	}
}

// frame makes an Ethernet frame of our own.
func (w *Worker) frame(put func([]byte) int) (f packet.Frame, ok bool) {
	addr, ok := w.pool.Get()
	if !ok {
		w.Counters.AnswerLost.add(1)
		return f, false
	}
	f.Open(w.pool, packet.Desc{Addr: addr + packet.Headroom, Len: uint32(w.pool.ChunkSize() - packet.Headroom)})
	f.SetLen(put(f.Bytes()))
	packet.Parse(&f)
	return f, true
}

// locate finds the station that has the address in l.hop of the segment that l leads into. It reports false while its MAC is unknown, and
// then sees to it that it is asked for.
func (w *Worker) locate(l *lane) bool {
	o, s, now := w.snap.Overlay, w.at(l.into), vxlan.SecondOf(w.now)
	if s == nil || s.Gateway == nil {
		return false
	}
	q := [1]vxlan.NeighborQuery{{Segment: s.Index, Addr: vxlan.Addr(l.hop), V6: l.v6}}
	o.Hosts.Resolve(q[:], now)
	switch q[0].Ask {
	case vxlan.AskStation:
		w.askFor(s, q[0].Addr, l.v6, q[0].MAC)
	case vxlan.AskAll: // also while the MAC of a station that does not answer is still used
		w.askFor(s, q[0].Addr, l.v6, 0)
	}
	if l.station = q[0].MAC; l.station == 0 {
		return false
	}
	p := [1]vxlan.Query{{Segment: s.Index, MAC: l.station}}
	o.Stations.Lookup(p[:])
	l.place = p[0].Place
	l.routeMTU = uint16(w.room(l))
	return true
}

// askFor sends a request for the MAC of addr: to the station that had it, or if that is zero to all. A gateway that has no address in IPv6
// asks from its link-local one, where it has none in IPv4 nobody can be asked.
func (w *Worker) askFor(s *vxlan.Segment, addr vxlan.Addr, v6 bool, known vxlan.MAC) {
	g := s.Gateway
	from, ok := g.Source(addr, v6)
	if !ok && v6 {
		from, ok = g.LinkLocal(), true
	}
	if !ok {
		return
	}
	f, ok := w.frame(func(b []byte) int {
		if v6 {
			return vxlan.PutNDRequest(b, known, g.MAC, from, addr)
		}
		dst := known
		if dst == 0 {
			dst = vxlan.Broadcast
		}
		return vxlan.PutARPRequest(b, dst, g.MAC, from, addr)
	})
	if !ok {
		return
	}
	if known != 0 {
		q := [1]vxlan.Query{{Segment: s.Index, MAC: known}}
		if w.snap.Overlay.Stations.Lookup(q[:]); q[0].Place != 0 {
			w.deliver(&f, s, q[0].Place, true)
			return
		}
	}
	w.flood(&f, s, vxlan.AtGateway, true)
}

// room is the MTU of IP packets on the way that l leads: to its station, or if nobody knows where that is, to all places of the segment.
func (w *Worker) room(l *lane) int {
	s := w.at(l.into)
	if s == nil {
		return 0xffff // a reload has just taken it away: the frame will not get there
	}
	if i, ok := l.place.Access(); ok && int(i) < len(s.Access) {
		return w.snap.Ports[s.Access[i].Port].MTU
	}
	least := 0xffff
	if i, ok := l.place.Peer(); ok && int(i) < len(s.Peers) && s.Peers[i].Tunnel != nil {
		return w.roomTo(&s.Peers[i], least)
	}
	for i := range s.Access {
		if s.Access[i].Used {
			least = min(least, w.snap.Ports[s.Access[i].Port].MTU)
		}
	}
	for i := range s.Peers {
		if s.Peers[i].Tunnel != nil {
			least = w.roomTo(&s.Peers[i], least)
		}
	}
	if (s.Group != vxlan.Addr{}) && s.Tunnel(l.place) == nil && int(s.GroupPort) < len(w.snap.Ports) {
		least = min(least, w.snap.Ports[s.GroupPort].MTU-s.Flood[0].Overhead())
	}
	return least
}

// roomTo is what a tunnel takes, or most if that is less, or there is no way to the peer.
func (w *Worker) roomTo(p *vxlan.Peer, most int) int {
	var under lane
	mtu, ok := w.nextHop(&under, conntrack.Addr(p.Addr), p.Tunnel.V6(), 0)
	if !ok {
		return most
	}
	return max(min(most, mtu-p.Tunnel.Overhead()), 0)
}

// enter sends a translated IP packet into the segment that l leads into, from the gateway to the station.
func (w *Worker) enter(f *packet.Frame, l *lane, own bool) {
	if l.station == 0 {
		w.wait(f, l, own)
		return
	}
	s := w.at(l.into)
	if s == nil || s.Gateway == nil {
		w.lose(f, s, DropNoRoute, own)
		return
	}
	if int(f.L3End-f.L3) > int(l.routeMTU) && f.Kind&packet.KindIPv4 != 0 {
		w.cut(f, l, own)
		return
	}
	b := f.Chunk()
	f.Start, f.End = f.L3-etherLen, f.L3End
	l.station.Put(b[f.Start:])
	s.Gateway.MAC.Put(b[f.Start+6:])
	f.EtherType = packet.EtherTypeIPv4
	if f.Kind&packet.KindIPv6 != 0 {
		f.EtherType = packet.EtherTypeIPv6
	}
	put16(b[f.Start+12:], f.EtherType)
	f.VLANs, f.VLAN = 0, 0
	if l.place == 0 {
		w.flood(f, s, vxlan.AtGateway, own)
		return
	}
	w.deliver(f, s, l.place, own)
}

// cut sends an IPv4 packet without DF into a segment in pieces that fit the way: the tunnel's own packets are never cut. The first piece carries
// the frame's verdict.
func (w *Worker) cut(f *packet.Frame, l *lane, own bool) {
	ip := f.Chunk()[f.L3:f.L3End]
	sent := false
	for offset := 0; offset >= 0; {
		addr, ok := w.pool.Get()
		if !ok {
			break
		}
		var piece packet.Frame
		piece.Open(w.pool, packet.Desc{Addr: addr + packet.Headroom, Len: uint32(w.pool.ChunkSize() - packet.Headroom)})
		n, next := packet.Fragment4(piece.Bytes(), ip, offset, int(l.routeMTU))
		if n == 0 {
			w.pool.Put(addr)
			break
		}
		piece.Headers = f.Headers
		piece.L3, piece.L3End = piece.Start, piece.Start+uint16(n)
		piece.L4 = piece.L3 + f.L4 - f.L3
		piece.Kind = f.Kind&^packet.KindTransport | packet.KindLaterFragment // one path for all pieces
		w.enter(&piece, l, own || sent)
		sent, offset = true, next
	}
	if sent {
		w.pool.Put(f.Desc().Addr)
		return
	}
	w.lose(f, w.at(l.into), DropTooBig, own)
}

// tellStation answers a bridged IP packet that does not fit into its tunnel in the gateway's name, with the MTU that does (RFC 7348 4.3). It
// reports false, and leaves f alone, where there is no gateway, the frame is the gateway's, or it may not be answered.
func (w *Worker) tellStation(f *packet.Frame, s *vxlan.Segment, mtu int) bool {
	g := s.Gateway
	v6 := f.Kind&packet.KindIPv6 != 0
	if g == nil || f.Kind&(packet.KindIPv4|packet.KindIPv6) == 0 || !packet.MayAnswer(f) || !whole(f, int(f.L3End-f.L3), 0) {
		return false
	}
	station := vxlan.MACOf(f.Bytes()[6:])
	if station == g.MAC {
		return false
	}
	src, _ := addresses(f, f.L3)
	if !w.engine.answers.allow(w.now, refOf(s), src) {
		return false
	}
	typ, code, rest := uint8(icmpUnreachable), uint8(codeFragNeeded), uint32(mtu)
	etherType := uint16(packet.EtherTypeIPv4)
	if v6 {
		typ, code, rest, etherType = icmp6TooBig, 0, uint32(max(mtu, minPath6)), packet.EtherTypeIPv6
	}
	from := conntrack.Addr(g.Reporter(vxlan.Addr(src), v6))
	answer, ok := w.frame(func(b []byte) int {
		station.Put(b)
		g.MAC.Put(b[6:])
		put16(b[12:], etherType)
		return etherLen + w.icmpError(b[etherLen:], from, src, v6, typ, code, rest, f.Chunk()[f.L3:f.L3End])
	})
	if !ok {
		return false
	}
	w.Counters.Answered.add(1)
	w.pool.Put(f.Desc().Addr)
	q := [1]vxlan.Query{{Segment: s.Index, MAC: station}}
	if w.snap.Overlay.Stations.Lookup(q[:]); q[0].Place != 0 {
		w.deliver(&answer, s, q[0].Place, true)
	} else {
		w.flood(&answer, s, vxlan.AtGateway, true)
	}
	return true
}
