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
	total   *SegmentCounters
	count   *PlaceCounters
	ready   bool          // head is all that goes in front of a packet
	head    [headLen]byte // outer Ethernet, IPv4, UDP and VXLAN, but for what differs from packet to packet; inner Ethernet
	sum     uint32        // of the outer IPv4 header's words, not folded
}

// headLen is what stands in front of an inner IP packet, in bytes, where the underlay is IPv4 without a tag.
const headLen = vxlan.Overhead4 + etherLen

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
	x.tick, x.backend, x.segment, x.tunnel = w.tick, backend, s, t
	x.total, x.count = w.segmentCounters(s.Index), w.placeCounters(s, l.place)
	outer, sum, plain := t.Prefix()
	x.ready, x.sum = plain && x.tag == 0, sum
	put64(x.head[:], x.way.head)
	put64(x.head[6:], x.way.tail)
	copy(x.head[etherLen:], outer[:])
	inner := x.head[headLen-etherLen:]
	l.station.Put(inner)
	s.Gateway.MAC.Put(inner[6:])
	put16(inner[12:], packet.EtherTypeIPv4)
	return true
}

// enclose sends frame i, which dispatch has translated, into the tunnel that its way leads through.
func (w *Worker) enclose(v *vector, i int) {
	p, q := &v.plain[i], &v.narrow[i]
	e := w.table.Entry4(q.Ref)
	x := &w.inward[e.Backend%inwardWays]
	if !x.ready || p.at&uint64(w.pool.ChunkSize()-1) < headLen {
		w.into(x, p, q, &v.frames[i])
		return
	}
	entropy := w.snap.Overlay.Entropy.Of4(uint64(e.NewSrc)<<32|uint64(e.NewDst), uint32(q.Rest>>32), p.proto)
	h, ecn := headAt(w.pool.Memory(), p.at)
	*h = x.head
	size := uint32(p.size) + headLen - etherLen // of the outer IP packet
	sum := x.sum + uint32(ecn) + size
	sum = sum>>16 + sum&0xffff
	h[etherLen+1] |= ecn
	put16(h[etherLen+2:], uint16(size))
	put16(h[etherLen+10:], ^uint16(sum>>16+sum))
	put16(h[etherLen+ipv4Len:], x.tunnel.SourcePort(entropy))
	put16(h[etherLen+ipv4Len+4:], uint16(size-ipv4Len))
	x.total.out(x.count, int(p.size)+etherLen)
	o := &w.out[x.device]
	o.desc[o.n&(outboxSize-1)] = packet.Desc{Addr: p.at - headLen, Len: uint32(p.size) + headLen}
	o.n++
}

// into is enclose by the tunnel's own means: over IPv6, with a checksum, with a VLAN tag.
func (w *Worker) into(x *inward, p *plain, q *conntrack.Query4, f *packet.Frame) {
	f.Open(w.pool, packet.Desc{Addr: p.at, Len: uint32(p.size)})
	f.Headers = packet.Headers{
		Kind: packet.KindIPv4 | packet.KindTransport, L3: f.Start, L4: f.Start + ipv4Len, L3End: f.End,
		SrcPort: uint16(q.Rest >> 48), DstPort: uint16(q.Rest >> 32), Proto: p.proto, EtherType: packet.EtherTypeIPv4,
	}
	f.Start -= etherLen
	copy(f.Bytes(), x.head[headLen-etherLen:])
	size := f.Len()
	if !x.tunnel.Encap(f, w.snap.Overlay.Entropy.Of(f)) {
		x.count.OutDropped.add(1)
		w.lose(f, x.segment, DropNoMemory, false)
		return
	}
	x.total.out(x.count, size)
	b := f.Chunk()
	at := f.L3 - etherLen
	if x.tag != 0 {
		at -= 4
		put32(b[f.L3-4:], x.tag)
	}
	put64(b[at:], x.way.head)
	put64(b[at+6:], x.tail)
	f.Start = at
	w.transmit(int(x.device), f.Desc(), false)
}
