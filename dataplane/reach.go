package dataplane

import (
	"slices"

	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/dataplane/route"
	"weir/vxlan"
)

// Reach is where packets that come to a segment's gateway may be routed. Its zero value is nowhere: tenants are apart unless somebody says
// otherwise. What is for a service needs no leave.
type Reach struct {
	Segments *route.Table // networks of segments; the hop's port is the segment's Index. nil: none
	Underlay bool         // all that the snapshot's routes lead to, and from there back
}

// vni is the segment's, 0 if r names none that there is.
func (w *Worker) vni(r segmentRef) uint32 {
	if s := w.at(r); s != nil {
		return s.VNI
	}
	return 0
}

// segmentOf is the segment that a table of networks leads to, or nil.
func (o *Overlay) segmentOf(t *route.Table, dst conntrack.Addr, v6 bool) *vxlan.Segment {
	if t == nil {
		return nil
	}
	var e *route.Entry
	if v6 {
		e = t.Lookup6(dst.Hi, dst.Lo)
	} else {
		e = t.Lookup4(uint32(dst.Lo))
	}
	if e == nil {
		return nil
	}
	if h := e.Only(); h != nil && uint(h.Port) < uint(len(o.ByIndex)) {
		return o.ByIndex[h.Port]
	}
	return nil
}

// routes takes a packet that no connection has and no service waits for, if it came to a segment's gateway, or from outside to a network of a segment.
// It reports false for all else, which is the host's. What it leaves pending goes on as the tail of a connection that changes no address.
func (w *Worker) routes(v *vector, i int, src, dst conntrack.Addr, v6 bool, vni uint32) bool {
	l, o := &v.lanes[i], w.snap.Overlay
	if o == nil || w.snap.Services.IsVIPFrom(vni, dst, v6) {
		return false
	}
	if l.segment != 0 {
		w.toGateway(v, i, src, dst, v6)
		return true
	}
	s := o.segmentOf(o.Inward, dst, v6)
	if s == nil || s.Gateway == nil {
		return false
	}
	switch {
	case s.Gateway.Has(vxlan.Addr(dst), v6):
		w.answer(v, i)
	case o.segmentOf(o.Inward, src, v6) != nil || w.martian(src, v6, 0):
		v.lanes[i].discard(DropMartian) // from outside none of the inside comes
	default:
		w.enterFrom(v, i, src, dst, v6, s)
	}
	return true
}

// enterFrom routes a packet into segment s from elsewhere. A VIP in s is of s alone, and no station has it: nobody is asked for it.
func (w *Worker) enterFrom(v *vector, i int, src, dst conntrack.Addr, v6 bool, s *vxlan.Segment) {
	if w.snap.Services.IsVIPIn(s.VNI, dst, v6) {
		w.nowhere(v, i)
		return
	}
	w.forward(v, i, src, dst, v6, s.VNI)
}

// toGateway is routes for a packet that came out of a segment, to its gateway. Tenants' packets never meet the host: what they may reach says
// Reach, and from where the gateway's own networks, for nothing else has a way back.
func (w *Worker) toGateway(v *vector, i int, src, dst conntrack.Addr, v6 bool) {
	l, o, s := &v.lanes[i], w.snap.Overlay, w.at(v.lanes[i].segment)
	if s == nil || s.Gateway == nil {
		l.discard(DropNoRoute)
		return
	}
	if s.Gateway.Has(vxlan.Addr(dst), v6) {
		w.answer(v, i)
		return
	}
	var reach Reach
	if int(s.Index) < len(o.Reach) {
		reach = o.Reach[s.Index]
	}
	into := o.segmentOf(reach.Segments, dst, v6)
	switch {
	case reach == Reach{} || linkOnly(src, v6) || linkOnly(dst, v6):
		l.discard(DropNoRoute)
	case !s.Gateway.OnLink(vxlan.Addr(src), v6) || s.Gateway.Has(vxlan.Addr(src), v6) || w.martian(src, v6, s.VNI):
		l.discard(DropMartian)
	case into != nil && into.Gateway != nil && into.Gateway.Has(vxlan.Addr(dst), v6):
		w.answer(v, i)
	case into != nil && into.Gateway != nil:
		w.enterFrom(v, i, src, dst, v6, into)
	case !reach.Underlay || !w.leadsOut(dst, v6):
		w.nowhere(v, i)
	case o.smuggles(&v.frames[i], dst, v6):
		l.discard(DropVXLANRouted)
	default:
		w.forward(v, i, src, dst, v6, 0)
	}
}

// smuggles reports whether a packet that a tenant sends outwards would come out of a tunnel: who believes in the underlay, as Linux does with any
// source (RFC 7348 section 7), would take what is in it for a frame of the segment that it names, and tenants are not apart any more. Later
// fragments may go: without the first, which has the port, nobody puts them together.
func (o *Overlay) smuggles(f *packet.Frame, dst conntrack.Addr, v6 bool) bool {
	if f.Proto != packet.ProtoUDP || f.Kind&packet.KindTransport == 0 || o.Ends == nil {
		return false
	}
	return slices.Contains(o.EndPorts, f.DstPort) && covers(o.Ends, dst, v6)
}

// linkOnly reports whether a router must not forward packets from or to a (RFC 4291 section 2.5, RFC 3927 section 7, RFC 1812 section 5.3.7, and
// all groups).
func linkOnly(a conntrack.Addr, v6 bool) bool {
	if v6 {
		return a.Hi>>54 == 0xfe80>>6 || a.Hi>>56 == 0xff || a.Hi == 0 && a.Lo <= 1
	}
	first := a.Lo >> 24
	return a.Lo>>16 == 0xa9fe || first == 0 || first == 127 || first >= 0xe0
}

// leadsOut reports whether a route of ours leads to dst, and dst is not the host itself, nor in a segment: a default route leads there, too, and
// the router outside would send the packet back.
func (w *Worker) leadsOut(dst conntrack.Addr, v6 bool) bool {
	if o := w.snap.Overlay; o.segmentOf(o.Inward, dst, v6) != nil {
		return false
	}
	for i := range w.snap.Ports { // the kernel has a local route for each of its addresses, a replay has not
		for _, p := range w.snap.Ports[i].Addresses {
			if a, six := AddrOf(p.Addr()); a == dst && six == v6 {
				return false
			}
		}
	}
	e := w.route(dst, v6)
	if e == nil || e.Kind != route.Unicast {
		return false
	}
	for i := range e.Hops() {
		if h := &e.Hops()[i]; h.Port >= 0 && h.Port < len(w.snap.Ports) {
			return true
		}
	}
	return false
}

// forward sends a packet on as it is, into segment vni or, if that is 0, by the snapshot's routes.
func (w *Worker) forward(v *vector, i int, src, dst conntrack.Addr, v6 bool, vni uint32) {
	f, l := &v.frames[i], &v.lanes[i]
	switch {
	case f.Kind&packet.KindSourceRoute != 0:
		l.discard(DropSourceRoute)
	case f.TTL <= 1:
		w.timeExceeded(v, i)
	default:
		l.ref = 0
		v.tails[i] = tail{src: src, dst: dst, vni: vni, routed: true}
	}
}

// nowhere answers a packet that there is no route for.
func (w *Worker) nowhere(v *vector, i int) {
	if v.frames[i].Kind&packet.KindIPv6 != 0 {
		w.report(v, i, icmp6Unreachable, code6NoRoute, 0, DropNoRoute)
	} else {
		w.report(v, i, icmpUnreachable, codeNet, 0, DropNoRoute)
	}
}

// reporter is the address that an error about a packet of l from src to dst comes from. Into a segment its gateway speaks, or the VIP there.
func (w *Worker) reporter(l *lane, port int, src, dst conntrack.Addr, v6 bool) (conntrack.Addr, bool) {
	o := w.snap.Overlay
	if l.segment == 0 {
		if o != nil && o.Inward != nil {
			if s := o.segmentOf(o.Inward, dst, v6); s != nil && s.Gateway != nil && s.Gateway.Has(vxlan.Addr(dst), v6) {
				return dst, true
			}
		}
		return w.speaker(port, src, dst, v6)
	}
	s := w.at(l.segment)
	switch {
	case s == nil || s.Gateway == nil:
		return conntrack.Addr{}, false
	case s.Gateway.Has(vxlan.Addr(dst), v6) || w.snap.Services.IsVIPFrom(s.VNI, dst, v6):
		return dst, true
	}
	return conntrack.Addr(s.Gateway.Reporter(vxlan.Addr(src), v6)), true
}

// giveUp answers a packet that was routed, as it is in f, and whose next hop nobody is: host unreachable (RFC 1812 5.3.1, RFC 4443 3.1). vni is
// that of the segment it came from. It reports false, and nothing has happened, where it may not be answered.
func (w *Worker) giveUp(f *packet.Frame, vni uint32) bool {
	from, ok := w.cameFrom(vni)
	if !ok || !packet.MayAnswer(f) {
		return false
	}
	v6 := f.Kind&packet.KindIPv6 != 0
	src, dst := addresses(f, f.L3)
	l := lane{segment: from}
	speaker, ok := w.reporter(&l, int(f.Port), src, dst, v6)
	if !ok {
		return false
	}
	b := w.blank(f, &l)
	if b == nil {
		return false
	}
	typ, code := uint8(icmpUnreachable), uint8(codeHost)
	if v6 {
		typ, code = icmp6Unreachable, code6Address
	}
	w.say(&l, w.icmpError(b, speaker, src, v6, typ, code, 0, f.Chunk()[f.L3:f.L3End]), src, f.Kind)
	return l.verdict == Answered
}
