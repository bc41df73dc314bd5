package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/vxlan"
)

// inward is how packets to a server in a segment leave, through the tunnel to the peer that it is behind: what resolveInto, enter and tunnel find
// for each packet. Stations move and fall silent while the snapshot is the same, so it is kept for one tick only.
type inward struct {
	way
	tick    conntrack.Tick
	backend uint32
	segment *vxlan.Segment
	tunnel  *vxlan.Tunnel
	station vxlan.MAC
	count   *PlaceCounters
}

// inwardWays is how many of them a worker keeps, by the last bits of the backend's ID.
const inwardWays = 256

// settleInward writes the way of packets to a backend's address in a segment into x. It reports false of all that the stages must see to: the
// station's MAC address is unknown, or where it is, or it is not behind a peer, or there is no one way to that.
func (w *Worker) settleInward(x *inward, backend, vni, dst uint32) bool {
	s := w.segment(vni)
	if s == nil || s.Gateway == nil {
		return false
	}
	l := lane{into: refOf(s), hop: conntrack.Addr{Lo: uint64(dst)}}
	if !w.locate(&l) {
		return false
	}
	i, ok := l.place.Peer()
	t := s.Tunnel(l.place)
	if !ok || t == nil || !w.settleWay(&x.way, conntrack.Addr(s.Peers[i].Addr), t.V6()) {
		return false
	}
	x.mtu = uint16(max(min(int(l.routeMTU), int(x.mtu)-t.Overhead()), 0))
	x.tick, x.backend, x.segment, x.tunnel, x.station, x.count = w.tick, backend, s, t, l.station, w.placeCounters(s, l.place)
	return true
}

// into translates frame i as its entry says and sends it into the tunnel that its way leads through.
func (w *Worker) into(v *vector, i int) {
	p, q, f := &v.plain[i], &v.narrow[i], &v.frames[i]
	e := w.table.Entry4(q.Ref)
	x := &w.inward[e.Backend%inwardWays]
	f.Open(w.pool, packet.Desc{Addr: p.at, Len: uint32(p.size)})
	f.Headers = packet.Headers{
		Kind: packet.KindIPv4 | packet.KindTransport, L3: f.Start, L4: f.Start + ipv4Len, L3End: f.End,
		SrcPort: uint16(q.Rest >> 48), DstPort: uint16(q.Rest >> 32), Proto: p.proto, EtherType: packet.EtherTypeIPv4,
	}
	rewrite4(f, e)
	f.Start -= etherLen
	h := f.Bytes()[:etherLen]
	x.station.Put(h)
	x.segment.Gateway.MAC.Put(h[6:])
	put16(h[12:], packet.EtherTypeIPv4)
	size := f.Len()
	if !x.tunnel.Encap(f, w.snap.Overlay.Entropy.Of(f)) {
		x.count.OutDropped.add(1)
		w.lose(f, x.segment, DropNoMemory, false)
		return
	}
	w.countOut(x.segment, x.count, size)
	b := f.Chunk()
	at := f.L3 - etherLen
	if x.tag != 0 {
		at -= 4
		put32(b[f.L3-4:], x.tag)
	}
	put64(b[at:], x.head)
	put64(b[at+6:], x.tail)
	f.Start = at
	w.transmit(int(x.device), f.Desc(), false)
}
