package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/dataplane/route"
	"weir/vxlan"
)

// Overlay is the VXLAN segments of one snapshot, and the tables that outlive it: where stations are, and which MAC addresses have.
type Overlay struct {
	Segments  *vxlan.Segments
	ByIndex   []*vxlan.Segment // the same by their Index, which is stable from snapshot to snapshot; nil: free
	VTEPs     []VTEP           // ours
	Access    []bool           // by port: some VLAN of it belongs to a segment
	Stations  *vxlan.FDB
	Hosts     *vxlan.Neighbors
	Strangers *vxlan.Strangers
	Twins     *vxlan.Twins
	Entropy   vxlan.Entropy
	Counts    []SegmentCounts // by segment index

	Reach  []Reach      // by segment Index: where what comes to the gateway may go; shorter: nowhere
	Inward *route.Table // networks of segments that are reached from outside, see Reach; nil: none
	Ends   *route.Table // addresses at which tunnels of others end, and ours: what tenants must not send into; nil: none

	EndPorts []uint16 // UDP ports of all these, each once: a peer may have one of its own
}

// VTEP is an address and UDP port at which tunnels of ours end.
type VTEP struct {
	Addr conntrack.Addr
	V6   bool
	Port uint16
}

// segment is that of a VNI, nil if it is not configured.
func (w *Worker) segment(vni uint32) *vxlan.Segment {
	if w.snap.Overlay == nil {
		return nil
	}
	return w.snap.Overlay.Segments.ByVNI(vni)
}

// segmentRef is a segment's index plus one, zero for none.
type segmentRef uint16

func refOf(s *vxlan.Segment) segmentRef { return segmentRef(s.Index) + 1 }

// at is the segment of r as it is configured now, nil if it is no more.
func (w *Worker) at(r segmentRef) *vxlan.Segment {
	if o := w.snap.Overlay; o != nil && r != 0 && int(r) <= len(o.ByIndex) {
		return o.ByIndex[r-1]
	}
	return nil
}

// cameFrom is the segment that a packet which has waited came from, by its VNI, 0 for none. It reports false if there is no such segment any more.
func (w *Worker) cameFrom(vni uint32) (r segmentRef, ok bool) {
	if vni == 0 {
		return 0, true
	}
	s := w.segment(vni)
	if s == nil {
		return 0, false
	}
	return refOf(s), true
}

// ours reports whether f was sent to a tunnel end of ours.
func (o *Overlay) ours(f *packet.Frame) bool {
	if f.Proto != packet.ProtoUDP || f.Kind&packet.KindTransport == 0 {
		return false
	}
	_, dst := addresses(f, f.L3)
	return o.ends(dst, f.Kind&packet.KindIPv6 != 0, f.DstPort)
}

// goneVerdict marks a frame that has left, or has been counted and freed, before finish.
const goneVerdict Verdict = 0xfd

// decap takes frames out of tunnels, and those of access ports into their segments, learns where their senders are, and settles all that is
// not for a gateway of ours: bridged, or flooded. What stays pending with a segment is IP to its gateway.
func (w *Worker) decap(v *vector) {
	o := w.snap.Overlay
	if o == nil {
		return
	}
	for _, k := range v.odd.all() {
		i := int(k)
		f, l := &v.frames[i], &v.lanes[i]
		access := o.Access[f.Port] && l.verdict != passVerdict && l.drop != DropInvalidDescriptor
		if l.verdict != Pending && !access {
			continue
		}
		var a vxlan.Arrival
		fault := vxlan.FaultNone
		switch {
		case access:
			if a, fault = o.Segments.Enter(f); fault == vxlan.FaultAccess {
				continue // another VLAN of the port is ours as a port
			}
		case o.ours(f):
			if a, fault = o.Segments.Decap(f); fault == vxlan.FaultNone {
				if fault := packet.Parse(f); fault != packet.FaultNone {
					l.discard(faultDrops[fault])
				}
			}
		default:
			continue
		}
		if a.Segment != nil {
			l.home = refOf(a.Segment)
		}
		if fault == vxlan.FaultPeer || fault == vxlan.FaultNone && a.At == 0 {
			w.strange(&a)
		}
		if fault != vxlan.FaultNone {
			l.discard(vxlanDrops[fault])
			if a.At != 0 {
				w.placeCounters(a.Segment, a.At).InDropped.add(1)
			}
			continue
		}
		w.arrive(v, i, &a)
	}
	w.bridge(v)
}

// arrive takes a frame that has come into a segment. What was wrong with its IP packet concerns nobody but the gateway.
//
// The gateway's own MAC as source is a twin's, a gateway behind another VTEP that stands in for ours and has its address and MAC: it is
// never learned, and what it sends to stations on our ports is bridged, as Linux does with a bridge's own address. Should it be ours that
// has come back, that ends at our ports, as nothing goes from tunnel to tunnel. No twin is on a port, nor sends to itself: that is a loop.
func (w *Worker) arrive(v *vector, i int, a *vxlan.Arrival) {
	f, l, o, s := &v.frames[i], &v.lanes[i], w.snap.Overlay, a.Segment
	b := f.Bytes()
	w.countIn(a, len(b))
	dst, src := vxlan.MACOf(b), vxlan.MACOf(b[6:])
	forGateway := s.Gateway != nil && dst == s.Gateway.MAC
	twin := s.Gateway != nil && src == s.Gateway.MAC
	switch {
	case twin:
		if _, local := a.At.Access(); local || forGateway {
			l.discard(DropOwnMAC)
			return
		}
		o.Twins.Note(s.Index, vxlan.SecondOf(w.now))
	case s.Learning && a.At != 0:
		if o.Stations.Learn(s.Index, src, a.At, vxlan.SecondOf(w.now)) == vxlan.Static {
			l.discard(DropStaticMAC)
			return
		}
	case w.impostor(s, src, a.At):
		l.discard(DropStaticMAC)
		return
	}
	if forGateway = forGateway && f.VLANs == 0; forGateway { // the gateway is in none of the VLANs that a segment keeps
		w.segmentCounters(s.Index).Gateway.add(1)
	}
	if f.VLANs == 0 && (f.EtherType == packet.EtherTypeARP && w.hearARP(v, i, a, forGateway, twin) || f.Proto == packet.ProtoICMPv6 && w.hearND(v, i, a, forGateway, twin)) {
		return
	}
	if !forGateway {
		v.toBridge(i, s, a.At, dst)
		return
	}
	if f.Kind&(packet.KindIPv4|packet.KindIPv6) == 0 && l.verdict == Pending {
		l.discard(DropProtocol)
		return
	}
	l.segment = refOf(s)
}

// toBridge notes that frame i is for bridge, to a station of its segment.
func (v *vector) toBridge(i int, s *vxlan.Segment, from vxlan.Place, dst vxlan.MAC) {
	v.lanes[i].verdict = goneVerdict
	v.bridges[v.bridged], v.stations[v.bridged] = bridged{s, from, uint16(i)}, vxlan.Query{Segment: s.Index, MAC: dst}
	v.bridged++
}

// bridge sends each frame that is not for a gateway to where its station is, or to all: a group is no station, so nobody knows where it is. All of
// the vector's are looked up at once, by what all of its sources have taught. Each has its count and is gone afterwards.
func (w *Worker) bridge(v *vector) {
	if v.bridged == 0 {
		return
	}
	q := v.stations[:v.bridged]
	w.snap.Overlay.Stations.Lookup(q)
	for i := range q {
		b, to := &v.bridges[i], q[i].Place
		f, s := &v.frames[b.frame], b.segment
		if s.Clamp == vxlan.ClampAll && opensTCP(f) {
			w.clampFrom(f, s, b.from)
		}
		_, fromPeer := b.from.Peer()
		_, toPeer := to.Peer()
		switch {
		case to == 0:
			w.flood(f, s, b.from, false)
		case to == b.from:
			w.lose(f, s, DropSameSide, false)
		case (fromPeer || b.from == 0) && toPeer:
			w.lose(f, s, DropSplitHorizon, false)
		default:
			w.deliver(f, s, to, false)
		}
	}
}

// lose drops a frame of a segment that no lane speaks for any more; s is nil if the segment has gone meanwhile.
func (w *Worker) lose(f *packet.Frame, s *vxlan.Segment, d Drop, own bool) {
	w.pool.Put(f.Desc().Addr)
	if own {
		w.Counters.AnswerLost.add(1)
		return
	}
	w.Counters.Drops[d].add(1)
	if s != nil {
		w.countDrop(refOf(s), d)
	}
}

// deliver sends an inner frame to a place of its segment.
func (w *Worker) deliver(f *packet.Frame, s *vxlan.Segment, to vxlan.Place, own bool) {
	if i, ok := to.Access(); ok && int(i) < len(s.Access) && s.Access[i].Used {
		w.hand(f, s, int(i), own)
		return
	}
	if t := s.Tunnel(to); t != nil {
		w.tunnel(f, s, t, own)
		return
	}
	w.lose(f, s, DropNoStation, own)
}

// hand gives an inner frame to the segment's access port with index i, with its tag.
func (w *Worker) hand(f *packet.Frame, s *vxlan.Segment, i int, own bool) {
	a := s.Access[i]
	p, c, size := &w.snap.Ports[a.Port], w.placeCounters(s, vxlan.AtAccess(uint16(i))), f.Len()
	switch {
	case size-etherLen-tagLen*int(f.VLANs) > p.MTU:
		c.OutDropped.add(1)
		w.lose(f, s, DropTooBig, own)
	case a.VLAN != 0 && !vxlan.Tag(f, a.VLAN):
		c.OutDropped.add(1)
		w.lose(f, s, DropNoMemory, own)
	default:
		w.countOut(s, c, size)
		w.transmit(p.Device, f.Desc(), own)
	}
}

// Lengths in bytes.
const (
	etherLen = 14
	tagLen   = 4
)

// tunnel puts an inner frame into a tunnel, whose outer packet is never cut (RFC 7348 4.3). The next hop is found first: it is the same for
// the outer packet, and what does not fit is told so as it came.
func (w *Worker) tunnel(f *packet.Frame, s *vxlan.Segment, t *vxlan.Tunnel, own bool) {
	c, size, to := w.placeCounters(s, vxlan.AtPeer(t.Peer())), f.Len(), conntrack.Addr(s.Group)
	if i := t.Peer(); i != vxlan.NoPeer {
		to = conntrack.Addr(s.Peers[i].Addr)
	}
	var l lane
	entropy := w.snap.Overlay.Entropy.Of(f)
	mtu, ok := w.underlay(&l, s, t, to, entropy)
	reason := DropNoRoute
	if ok {
		if s.Clamp == vxlan.ClampAll && opensTCP(f) {
			clampMSS(f, mtu-t.Overhead()-tagLen*int(f.VLANs))
		}
		switch room := mtu - t.Overhead() + etherLen; {
		case size > room && !own && w.tellStation(f, s, room-etherLen):
			return
		case size > room:
			reason = DropTooBig
		case !t.Encap(f, entropy):
			reason = DropNoMemory
		default:
			w.countOut(s, c, size)
			w.leave(f, &l, own)
			return
		}
	}
	c.OutDropped.add(1)
	w.lose(f, s, reason, own)
}

// flood sends an inner frame to every place of its segment but the one it came from: to each access port, and, unless it came from a
// tunnel, to each peer (head-end replication). All but the last get a copy, which counts as sent.
func (w *Worker) flood(f *packet.Frame, s *vxlan.Segment, from vxlan.Place, own bool) {
	if !own && s.BUM != nil && !s.BUM.Allow(w.now) { // a gateway must hear from its hosts also while they flood
		w.lose(f, s, DropFloodLimit, own)
		return
	}
	c := w.segmentCounters(s.Index)
	tunnels := s.Flood
	if _, peer := from.Peer(); peer || from == 0 {
		tunnels = nil
	}
	last := -1 // of the access ports that get it
	if len(tunnels) == 0 {
		for i := range s.Access {
			if s.Access[i].Used && vxlan.AtAccess(uint16(i)) != from {
				last = i
			}
		}
		if last < 0 {
			w.lose(f, s, DropNoStation, own)
			return
		}
	}
	c.Floods.add(1)
	for i := range s.Access {
		if !s.Access[i].Used || vxlan.AtAccess(uint16(i)) == from || i == last {
			continue
		}
		if x, ok := w.copyOf(f); ok {
			c.Copies.add(1)
			w.hand(&x, s, i, true)
		} else {
			w.placeCounters(s, vxlan.AtAccess(uint16(i))).OutDropped.add(1)
		}
	}
	if last >= 0 {
		w.hand(f, s, last, own)
		return
	}
	for _, t := range tunnels[1:] {
		if x, ok := w.copyOf(f); ok {
			c.Copies.add(1)
			w.tunnel(&x, s, t, true)
		} else {
			w.placeCounters(s, vxlan.AtPeer(t.Peer())).OutDropped.add(1)
		}
	}
	w.tunnel(f, s, tunnels[0], own)
}

// copyOf copies an inner frame into a chunk of its own.
func (w *Worker) copyOf(f *packet.Frame) (c packet.Frame, ok bool) {
	addr, ok := w.pool.Get()
	if !ok {
		w.Counters.AnswerLost.add(1)
		return c, false
	}
	c.Open(w.pool, packet.Desc{Addr: addr + packet.Headroom, Len: uint32(w.pool.ChunkSize() - packet.Headroom)})
	if !c.SetLen(f.Len()) {
		w.pool.Put(addr)
		w.Counters.AnswerLost.add(1)
		return c, false
	}
	copy(c.Bytes(), f.Bytes())
	shift := c.Start - f.Start // offsets count from the chunk's first byte
	c.Headers = f.Headers
	c.L3, c.L4, c.L3End = f.L3+shift, f.L4+shift, f.L3End+shift
	return c, true
}
