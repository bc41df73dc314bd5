package dataplane_test

import (
	"bytes"
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

// replaced is a bed of the tenants list, in whose snapshot a reload has given their indices to others: tenant i is now next[i].
func (b *tenants) replaced(t *testing.T, next []tenantOf, options ...bedOption) {
	t.Helper()
	o := newTenants(t, next).overlay
	for i := range next { // what was learned of the former tenant is flushed, and the new one has just the same hosts
		addr, _ := vxlan.AddrOf(inside.Addr())
		o.Hosts.Learn(uint16(i), addr, false, hostMAC, vxlan.Confirmed, vxlan.SecondOf(b.now))
		o.Stations.Learn(uint16(i), hostMAC, vxlan.AtPeer(0), vxlan.SecondOf(b.now))
	}
	b.overlay = o
	b.snap.Overlay = o
	for _, x := range options {
		x(&b.snap, b.engine)
	}
	b.publish()
}

// What waits while a reload gives its segment's index to another tenant goes to nobody, and nobody else is told of it.
func TestNothingHeldGoesToAnotherTenant(t *testing.T) {
	list := []tenantOf{{vni: 5001, networks: []string{"198.19.1.1/24"}}, {vni: 5002, networks: []string{"198.19.2.1/24"}, reaches: []int{0}}}
	others := []tenantOf{{vni: 6001, networks: []string{"198.19.1.1/24"}}, {vni: 6002, networks: []string{"198.19.2.1/24"}, reaches: []int{0}}}
	at := netip.MustParseAddrPort("198.18.9.9:90")
	toService := pkttest.UDP(client, at).Bytes()
	routed := pkttest.UDP(port("198.19.2.7", 9), inside)
	pieces := routed.Payload(make([]byte, 64)).Cut(9, 32)
	for _, x := range []struct {
		name string
		send func(*tenants)
		held int
	}{
		{"a service's packet into it", func(b *tenants) { b.fromClient(toService); b.round() }, 1},
		{"a routed packet into it", func(b *tenants) { b.behind(1, inFrame(gateOf(1), localMAC, 0x0800, routed.Bytes())) }, 1},
		{"a fragment out of it", func(b *tenants) { b.behind(1, inFrame(gateOf(1), localMAC, 0x0800, pieces[1])) }, 1},
	} {
		b := newTenants(t, list, serving{vip: at, protocol: packet.ProtoUDP, servers: []Backend{inSegment(inside, 5001, "")}}.option(t))
		x.send(b)
		b.empty() // the gateway's requests
		if b.worker.Holding() != x.held {
			t.Fatalf("%s: %d wait (%v)", x.name, b.worker.Holding(), b.dropped())
		}
		b.replaced(t, others)
		for range 4 {
			b.round()
			if d := b.dropped(); d != DropNone && d != DropNoRoute {
				t.Errorf("%s: dropped as %v", x.name, d)
			}
			for vni, f := b.outer(); f != nil; vni, f = b.outer() {
				t.Errorf("%s: into segment %d went %x", x.name, vni, f)
			}
			b.empty()
			b.now += 4e8
		}
		v, drops := b.engine.Verdicts()
		if b.worker.Holding() != 0 || drops[DropNoRoute] != 1 || v.Held != 0 || v.Forwarded != 0 {
			t.Errorf("%s: %d wait still, %+v, %d without a route", x.name, b.worker.Holding(), v, drops[DropNoRoute])
		}
	}
}

// A packet for a host of the tenant that has an index now does not join those that wait for the former one's.
func TestHeldForTwoTenantsOfOneIndex(t *testing.T) {
	list := []tenantOf{{vni: 5001, networks: []string{"198.19.1.1/24"}}, {vni: 5002, networks: []string{"198.19.2.1/24"}, reaches: []int{0}}}
	others := []tenantOf{{vni: 6001, networks: []string{"198.19.1.1/24"}}, {vni: 6002, networks: []string{"198.19.2.1/24"}, reaches: []int{0}}}
	b := newTenants(t, list)
	in := pkttest.UDP(port("198.19.2.7", 9), port("198.19.1.9", 9))
	b.behind(1, inFrame(gateOf(1), localMAC, 0x0800, in.Bytes()))
	b.replaced(t, others)
	b.empty()
	b.behind(1, inFrame(gateOf(1), localMAC, 0x0800, in.Payload([]byte("new")).Bytes())) // the old one is still there when it comes
	b.empty()
	if b.worker.Holding() != 1 {
		t.Fatalf("%d wait (%v)", b.worker.Holding(), b.dropped())
	}
	b.behind(0, inFrame(gateOf(0), hostMAC, 0x0806, arp(2, hostMAC, netip.MustParseAddr("198.19.1.9"), gateOf(0), gateIP)))
	vni, f := b.outer()
	if vni != 6001 || f == nil || !bytes.HasSuffix(f, []byte("new")) {
		t.Errorf("into %d went %x", vni, f)
	}
	b.silent("what waited for the former tenant")
}

// A tenant that looks for hosts where none are leaves room for the services' packets that wait for their next hop.
func TestScansLeaveRoomToWait(t *testing.T) {
	b := newTenants(t, routedTenants(), func(x *Snapshot, _ *Engine) { x.Neighbors = neighbors(web.Addr()) })
	b.known(0, "198.19.1.7", hostMAC, false)
	b.known(2, "198.19.3.7", hostMAC, false)
	for i := range 50 { // hosts of a segment, and on the link of our servers
		b.behind(0, inFrame(gateOf(0), hostMAC, 0x0800, pkttest.UDP(port("198.19.1.7", 9), netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, 2, byte(100 + i)}), 9)).Bytes()))
		b.empty()
		b.behind(2, inFrame(gateOf(2), hostMAC, 0x0800, pkttest.UDP(port("198.19.3.7", 9), netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 1, byte(100 + i)}), 9)).Bytes()))
	}
	const others = 32
	if v, drops := b.engine.Verdicts(); v.Held != others || drops[DropNoNeighbor] != 100-others {
		t.Fatalf("%d wait, %d were dropped", v.Held, drops[DropNoNeighbor])
	}
	b.fromClient(pkttest.TCP(client, vip).SYN().Bytes())
	b.round()
	if v, _ := b.engine.Verdicts(); v.Held != others+1 {
		t.Errorf("%d wait (%v)", v.Held, b.dropped())
	}
	b.snap.Neighbors = neighbors()
	b.publish()
	b.round()
	if out := b.take(lan); out == nil || !bytes.Equal(out[14:], pkttest.TCP(client, web).SYN().TTL(63).Bytes()) {
		t.Errorf("the service's packet became %x (%v)", out, b.dropped())
	}
}
