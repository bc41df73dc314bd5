package dataplane_test

import (
	"bytes"
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/route"
	"weir/vxlan"
)

// defaultRoute has a bed's routes lead everywhere.
func defaultRoute(x *Snapshot, _ *Engine) {
	x.Routes = route.NewTable([]route.Route{
		{To: netip.MustParsePrefix("198.18.0.0/24"), Hops: []route.Hop{{Port: wan, Weight: 1}}},
		{To: netip.MustParsePrefix("198.18.1.0/24"), Hops: []route.Hop{{Port: lan, Weight: 1}}},
		{To: netip.MustParsePrefix("0.0.0.0/0"), Hops: []route.Hop{{Via: router, Port: wan, Weight: 1}}},
		{To: netip.MustParsePrefix("::/0"), Hops: []route.Hop{{Via: netip.MustParseAddr("2001:db8::2"), Port: wan, Weight: 1}}},
	})
}

// tunnelEnds has an overlay know where tunnels end.
func tunnelEnds(addrs ...netip.Addr) bedOption {
	var all []route.Route
	for _, a := range addrs {
		all = append(all, route.Route{To: netip.PrefixFrom(a, a.BitLen()), Hops: []route.Hop{{Weight: 1}}})
	}
	return func(x *Snapshot, _ *Engine) {
		x.Overlay.Ends, x.Overlay.EndPorts = route.NewTable(all), []uint16{vxlan.Port, 8472}
	}
}

// A default route leads everywhere, but not what a tenant must not reach by it: what is inside, what is no address of a host, and tunnels.
func TestDefaultRouteOfATenant(t *testing.T) {
	b := newTenants(t, routedTenants(), defaultRoute)
	tunnelEnds(peerVTEP, vtep)(&b.snap, b.engine)
	b.publish()
	b.known(2, "198.19.3.7", hostMAC, false)
	c := port("198.19.3.7", 50000)
	inTunnel := func(vni uint32) []byte {
		ip := tunneled(peerVTEP, vni, inFrame(vxlan.Broadcast, localMAC, 0x88b5, make([]byte, 50)))
		return ip[28:] // the VXLAN header and what follows
	}
	forged := pkttest.UDP(c, netip.AddrPortFrom(peerVTEP, vxlan.Port)).Payload(inTunnel(5001))
	for _, x := range []struct {
		name string
		in   pkttest.Packet
		out  bool
		drop Drop
		told [2]byte
	}{
		{"outwards", pkttest.UDP(c, port("203.0.113.9", 9)), true, DropNone, [2]byte{}},
		{"its own network", pkttest.UDP(c, port("198.19.3.9", 9)), false, DropNone, [2]byte{3, 0}},
		{"loopback", pkttest.UDP(c, port("127.0.0.1", 9)), false, DropNoRoute, [2]byte{}},
		{"no address", pkttest.UDP(c, port("0.0.0.0", 9)), false, DropNoRoute, [2]byte{}},
		{"from the gateway's own address", pkttest.UDP(port("198.19.3.1", 9), port("203.0.113.9", 9)), false, DropMartian, [2]byte{}},
		{"IPv6 loopback", pkttest.UDP(port("2001:db8:5003::7", 9), port("::1", 9)), false, DropNoRoute, [2]byte{}},
		{"a frame of another tenant's into a peer's tunnel", forged, false, DropVXLANRouted, [2]byte{}},
		{"the first fragment of one", pkttest.UDP(c, netip.AddrPortFrom(peerVTEP, vxlan.Port)).Payload(inTunnel(5001)).Fragment(7, 0, true), false, DropVXLANRouted, [2]byte{}},
		{"the port that a peer has of its own", pkttest.UDP(c, netip.AddrPortFrom(peerVTEP, 8472)).Payload(inTunnel(5001)), false, DropVXLANRouted, [2]byte{}},
		{"another port of a peer", pkttest.UDP(c, netip.AddrPortFrom(peerVTEP, 53)), true, DropNone, [2]byte{}},
		{"the port of somebody who is no tunnel's end", pkttest.UDP(c, port("203.0.113.9", vxlan.Port)), true, DropNone, [2]byte{}},
	} {
		in := x.in.Bytes()
		b.behind(2, inFrame(gateOf(2), hostMAC, etherTypeOf(in), in))
		if d := b.dropped(); d != x.drop {
			t.Errorf("%s: dropped as %v, want %v", x.name, d, x.drop)
		}
		out := b.take(wan)
		switch {
		case x.out:
			if out == nil || !bytes.Equal(out[14:], x.in.TTL(63).Bytes()) {
				t.Errorf("%s: became %x", x.name, out)
			}
		case x.told != [2]byte{}:
			if len(out) < 14+36+14+22 || [2]byte(out[14+36+14+20:]) != x.told {
				t.Errorf("%s: told %x", x.name, out)
			}
		case out != nil:
			t.Errorf("%s: became %x", x.name, out)
		}
		b.silent(x.name)
	}
	if v, _ := b.engine.Verdicts(); v.Punted != 0 {
		t.Errorf("%d went to the host", v.Punted)
	}
}

// A gateway is a router: it answers at each of its addresses, also to who comes from another segment. And it asks no station for a VIP, which is of its own
// segment alone.
func TestGatewaysOfOthers(t *testing.T) {
	svc := serving{vip: netip.MustParseAddrPort("198.19.2.100:80"), servers: []Backend{inSegment(netip.MustParseAddrPort("198.19.2.7:80"), 5002, "198.19.2.1")}}.within(5002)
	outer := serving{vip: netip.MustParseAddrPort("198.19.3.100:80"), servers: []Backend{inSegment(netip.MustParseAddrPort("198.19.3.7:80"), 5003, "198.19.3.1")}}.within(5003)
	b := newTenants(t, routedTenants(), svc.option(t), outer.option(t))
	b.known(0, "198.19.1.7", hostMAC, false)
	a, gateB := netip.MustParseAddr("198.19.1.7"), netip.MustParseAddr("198.19.2.1")
	b.behind(0, inFrame(gateOf(0), hostMAC, 0x0800, pkttest.Echo(a, gateB, 3, 4).Bytes()))
	if vni, out := b.outer(); vni != 5001 || out == nil || !bytes.Equal(out[14:], pkttest.EchoReply(gateB, a, 3, 4).Bytes()) || b.answered() != 1 {
		t.Errorf("ping to the gateway of B: into %d went %x (%v)", vni, out, b.dropped())
	}
	b.behind(0, inFrame(gateOf(0), hostMAC, 0x0800, pkttest.TCP(netip.AddrPortFrom(a, 9), netip.AddrPortFrom(gateB, 22)).SYN().Bytes()))
	if vni, out := b.outer(); vni != 5001 || out == nil || out[14+33]&0x14 != 0x14 {
		t.Errorf("TCP to the gateway of B: into %d went %x (%v)", vni, out, b.dropped())
	}
	b.behind(0, inFrame(gateOf(0), hostMAC, 0x0800, pkttest.TCP(netip.AddrPortFrom(a, 9), netip.MustParseAddrPort("198.19.2.100:80")).SYN().Bytes()))
	if vni, out := b.outer(); vni != 5001 || out == nil || [2]byte(out[34:]) != [2]byte{3, 0} || b.worker.Holding() != 0 {
		t.Errorf("to a VIP of B's: into %d went %x, %d wait (%v)", vni, out, b.worker.Holding(), b.dropped())
	}
	b.silent("a VIP of B's")
	b.fromClient(pkttest.TCP(client, netip.MustParseAddrPort("198.19.3.100:80")).SYN().Bytes())
	b.round()
	if out := b.take(wan); out == nil || [2]byte(out[34:]) != [2]byte{3, 0} || b.worker.Holding() != 0 {
		t.Errorf("from outside to a VIP of C's: %x, %d wait (%v)", out, b.worker.Holding(), b.dropped())
	}
	b.silent("a VIP of C's")
}

// Later fragments from outside for a segment that find no room to wait are dropped: they are never the host's.
func TestManyFragmentsFromOutside(t *testing.T) {
	b := newTenants(t, routedTenants())
	b.known(2, "198.19.3.7", hostMAC, false)
	whole := pkttest.UDP(client, port("198.19.3.7", 9)).Payload(make([]byte, 64))
	const all, room = 70, 64
	for i := range all {
		b.fromClient(whole.Cut(uint32(2000+i), 32)[1])
	}
	b.round()
	if v, drops := b.engine.Verdicts(); v.Held != room || drops[DropFragmentAlone] != all-room || v.Punted != 0 {
		t.Errorf("%+v, %d dropped", v, drops[DropFragmentAlone])
	}
	b.now += 6e6
	b.round()
	n := 0
	for vni, f := b.outer(); f != nil; vni, f = b.outer() {
		if vni != 5003 {
			t.Errorf("into segment %d went %x", vni, f)
		}
		n++
	}
	if n != room || b.worker.Holding() != 0 {
		t.Errorf("%d left, %d wait", n, b.worker.Holding())
	}
}
