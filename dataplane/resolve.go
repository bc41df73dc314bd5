package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/dataplane/route"
)

// resolve finds, by the destination that each packet is about to get, the port it leaves by and its next hop's MAC address. Nothing of
// the packet has been changed yet, so what cannot leave is answered as it came.
func (w *Worker) resolve(v *vector) {
	v.tunnels = false
	for _, k := range v.rest.all() {
		i := int(k)
		l := &v.lanes[i]
		if l.verdict != Pending {
			continue
		}
		f := &v.frames[i]
		var dst conntrack.Addr
		var vni uint32
		v6, path, overhead := f.Kind&packet.KindIPv6 != 0, 0xffff, 0
		switch {
		case l.flags.forward() != ForwardNAT:
			b := w.backend(l.backend)
			dst, v6, vni = b.Addr, b.V6, b.VNI
			if l.flags.forward().tunnels() {
				v.tunnels = true
				path, overhead = b.Path.mtu(w.now), l.flags.overhead(v6)
			}
		case l.ref != 0:
			dst, vni = w.destination(l.ref)
		default:
			dst, vni = v.tails[i].dst, v.tails[i].vni
		}
		if vni != 0 {
			w.resolveInto(v, i, vni, dst, v6)
			continue
		}
		mtu, ok := w.nextHop(l, dst, v6, v.queries[i].Ports)
		if !ok {
			l.discard(DropNoRoute)
			continue
		}
		if path < mtu {
			mtu, l.routeMTU = path, uint16(path)
		}
		if size := int(f.L3End - f.L3); size > mtu-overhead && whole(f, size, overhead) {
			w.tooBig(v, i, mtu-overhead)
		}
	}
}

// whole reports whether a packet may not be cut. IPv6 and DF forbid it. But every link takes IPv6 packets of 1280 bytes, also one that we
// make smaller by a tunnel: then its outer packet is cut (RFC 2473 7.1).
func whole(f *packet.Frame, size, overhead int) bool {
	if f.Kind&packet.KindIPv6 != 0 {
		return overhead == 0 || size > minPath6
	}
	return f.Kind&packet.KindICMPError != 0 || be16(f.Chunk()[f.L3+6:])&dontFragment != 0
}

const dontFragment = 0x4000 // in the IPv4 header's word of flags and fragment offset

// destination is where the packet goes once it is translated, and in which segment.
func (w *Worker) destination(ref conntrack.Ref) (dst conntrack.Addr, vni uint32) {
	if ref.V6() {
		e := w.table.Entry6(ref)
		return e.NewDst, e.NewSpace >> 8
	}
	e := w.table.Entry4(ref)
	return conntrack.Addr{Lo: uint64(e.NewDst)}, e.NewSpace >> 8
}

// resolveInto finds the station of dst in a segment, and holds the packet against what the way to it takes.
func (w *Worker) resolveInto(v *vector, i int, vni uint32, dst conntrack.Addr, v6 bool) {
	f, l := &v.frames[i], &v.lanes[i]
	s := w.segment(vni)
	if s == nil || s.Gateway == nil {
		l.discard(DropNoRoute)
		return
	}
	l.into, l.hop, l.v6 = refOf(s), dst, v6
	if !w.locate(l) {
		return // it waits
	}
	if mtu, size := int(l.routeMTU), int(f.L3End-f.L3); size > mtu && whole(f, size, 0) {
		w.tooBig(v, i, mtu)
	}
}

// nextHop writes port, hop and, if known, MAC address towards dst into l and returns the link's MTU in bytes. It reports false where no
// port of ours leads to dst.
func (w *Worker) nextHop(l *lane, dst conntrack.Addr, v6 bool, flow uint32) (mtu int, ok bool) {
	e := w.route(dst, v6)
	if e == nil || e.Kind != route.Unicast {
		return 0, false
	}
	h := e.Only()
	if h == nil {
		h = e.Hop(mix(dst.Hi, dst.Lo, uint64(flow)))
	}
	if h == nil || h.Port < 0 || h.Port >= len(w.snap.Ports) {
		return 0, false
	}
	l.out, l.routeMTU, l.hop, l.v6 = int16(h.Port), uint16(min(h.MTU, 0xffff)), dst, v6
	if h.Via.IsValid() {
		l.hop, l.v6 = AddrOf(h.Via)
	}
	l.mac = w.neighbor(int(l.out), l.hop, l.v6)
	return w.mtu(l), true
}

// route is the one that leads to dst, or nil.
func (w *Worker) route(dst conntrack.Addr, v6 bool) *route.Entry {
	if v6 {
		return w.snap.Routes.Lookup6(dst.Hi, dst.Lo)
	}
	return w.snap.Routes.Lookup4(uint32(dst.Lo))
}

// mtu is that of the link in l, in bytes: the port's, or the route's if that is smaller.
func (w *Worker) mtu(l *lane) int {
	mtu := w.snap.Ports[l.out].MTU
	if l.routeMTU != 0 && int(l.routeMTU) < mtu {
		return int(l.routeMTU)
	}
	return mtu
}

func (w *Worker) neighbor(port int, hop conntrack.Addr, v6 bool) *[6]byte {
	if v6 {
		return w.snap.Neighbors.Lookup6(port, hop.Hi, hop.Lo)
	}
	return w.snap.Neighbors.Lookup4(port, uint32(hop.Lo))
}
