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
	tag    uint32 // the port's VLAN tag, 0: none
	dst    uint64 // the first 8 bytes of the Ethernet header
	src    uint32 // the next 4
	device int16  // the port whose queue it is
	mtu    uint16 // of the IP packet, in bytes
}

// clientWays is how many ways to clients a worker keeps: one for each value of the last bits of an address. Most lead to a router and so to all
// clients of a network.
const clientWays = 16

// interval is all addresses from first to last.
type interval struct{ first, last uint32 }

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
	var head [12]byte
	copy(head[:], l.mac[:])
	copy(head[6:], p.MAC[:])
	*x = way{epoch: w.epoch, dst: be64(head[:]), src: be32(head[8:]), device: int16(p.Device), mtu: uint16(min(mtu, 0xffff))}
	if p.VLAN != 0 {
		x.tag = packet.EtherTypeVLAN<<16 | uint32(p.VLAN)
	}
	return true
}

// settleClient finds the way to a client.
func (w *Worker) settleClient(dst uint32) bool {
	x, r := &w.ways[dst%clientWays], &w.clients[dst%clientWays]
	if !w.settleWay(x, conntrack.Addr{Lo: uint64(dst)}, false) {
		x.epoch = 0
		return false
	}
	r.first, r.last = dst, dst
	if first, last, via := w.snap.Routes.Interval4(dst); via {
		r.first, r.last = first, last
	}
	return true
}
