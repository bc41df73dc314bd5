package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/dataplane/route"
)

// way is how packets to one place leave: what resolve finds for each packet, kept while the snapshot is the same, with the Ethernet
// header ready to be written.
type way struct {
	epoch  uint32 // it is valid while this is the worker's
	first  uint32 // the first address that it is the way to
	span   uint32 // and how many more
	tag    uint32 // the last 4 bytes of the Ethernet header if the port has a VLAN tag, else 0
	head   uint64 // the first 8 bytes of the Ethernet header
	tail   uint64 // 8 bytes from the sixth on: the source, and the type of what follows
	device int16  // the port whose queue it is
	mtu    uint16 // of the IP packet, in bytes; 0: there is no one way, and the stages see to each packet
}

// clientWays is how many ways to clients a worker keeps: one for each value of the last bits of an address. Most lead to a router and so to all
// clients of a network.
const clientWays = 16

// look loads the snapshot.
func (w *Worker) look() {
	if s := w.engine.snapshot.Load(); s != w.snap {
		w.snap = s
		w.epoch++ // wraps after 136 years of one snapshot a second
	}
}

// settleWay writes the way of packets to dst into x. It reports false where there is none, where the next hop's MAC address is not known, and where
// it differs from flow to flow.
func (w *Worker) settleWay(x *way, dst conntrack.Addr, v6 bool) bool {
	e := w.route(dst, v6)
	if e == nil || e.Kind != route.Unicast || e.Only() == nil {
		return false
	}
	var l lane
	mtu, ok := w.nextHop(&l, dst, v6, 0)
	if !ok || l.mac == nil {
		return false
	}
	p := &w.snap.Ports[l.out]
	var head [etherLen]byte
	copy(head[:], l.mac[:])
	copy(head[6:], p.MAC[:])
	etherType, tag := uint16(packet.EtherTypeIPv4), uint32(0)
	if v6 {
		etherType = packet.EtherTypeIPv6
	}
	if p.VLAN != 0 {
		etherType, tag = packet.EtherTypeVLAN, uint32(p.VLAN)<<16|uint32(etherType)
	}
	put16(head[12:], etherType)
	*x = way{epoch: w.epoch, span: ^uint32(0), tag: tag, head: be64(head[:]), tail: be64(head[6:]), device: int16(p.Device), mtu: uint16(min(mtu, 0xffff))}
	return true
}

// settleBackend finds the way to a server. It reports false where there is none, and then x takes no packets as long as the snapshot is the same.
func (w *Worker) settleBackend(x *way, b *Backend) bool {
	if !w.settleWay(x, b.Addr, b.V6) {
		*x = way{epoch: w.epoch, span: ^uint32(0)}
		return false
	}
	return true
}

// settleClient finds the way to a client.
func (w *Worker) settleClient(dst uint32) bool {
	x := &w.ways[dst%clientWays]
	if !w.settleWay(x, conntrack.Addr{Lo: uint64(dst)}, false) {
		*x = way{epoch: w.epoch, first: dst}
		return false
	}
	x.first, x.span = dst, 0
	if first, last, via := w.snap.Routes.Interval4(dst); via {
		x.first, x.span = first, last-first
	}
	return true
}
