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

// inwardWay is the way of packets of the entry e into a segment, nil if they are for the stages.
func (w *Worker) inwardWay(e *conntrack.Entry4) *inward {
	x := &w.inward[e.Backend%inwardWays]
	if (x.epoch != w.epoch || x.tick != w.tick || x.backend != e.Backend) && !w.settleInward(x, e.Backend, e.NewSpace>>8, e.NewDst) {
		x.epoch = 0
		return nil
	}
	return x
}

// into translates a plain packet as e says and sends it into the tunnel.
func (w *Worker) into(x *inward, p *plain, q *conntrack.Query, e *conntrack.Entry4, f *packet.Frame) {
	f.Open(w.pool, packet.Desc{Addr: p.at, Len: uint32(p.size)})
	f.Headers = packet.Headers{
		Kind: packet.KindIPv4 | packet.KindTransport, L3: f.Start, L4: f.Start + ipv4Len, L3End: f.End,
		SrcPort: uint16(q.Ports >> 16), DstPort: uint16(q.Ports), Proto: p.proto, EtherType: packet.EtherTypeIPv4,
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
	front := uint16(etherLen)
	b := f.Chunk()
	if x.tag != 0 {
		front += 4
		put32(b[f.L3-6:], x.tag)
	}
	at := f.L3 - front
	put64(b[at:], x.dst)
	put32(b[at+8:], x.src)
	etherType := uint16(packet.EtherTypeIPv4)
	if x.tunnel.V6() {
		etherType = packet.EtherTypeIPv6
	}
	put16(b[f.L3-2:], etherType)
	f.Start = at
	w.transmit(int(x.device), f.Desc(), false)
}
