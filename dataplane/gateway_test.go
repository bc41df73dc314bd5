package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

var loneTenant = []tenantOf{{vni: 5001, networks: []string{"198.19.1.1/24", "198.19.5.1/24", "2001:db8:5001::1/64"}}}

// A gateway answers for each of its addresses and for its link-local one, and for nobody else's.
func TestGatewayOfSeveralAddresses(t *testing.T) {
	b := newTenants(t, loneTenant)
	g := b.overlay.ByIndex[0].Gateway
	local := g.LinkLocal().Netip(true).String()
	for addr, want := range map[string]bool{"198.19.1.1": true, "198.19.5.1": true, "198.19.1.2": false, "2001:db8:5001::1": true, local: true, "2001:db8:5001::2": false, "fe80::1": false} {
		a := netip.MustParseAddr(addr)
		ask := make([]byte, 128)
		if a.Is4() {
			ask = inFrame(vxlan.Broadcast, hostMAC, 0x0806, arp(1, hostMAC, tenant.Addr(), 0, a))
		} else {
			from, _ := vxlan.AddrOf(netip.MustParseAddr("2001:db8:5001::7"))
			to, _ := vxlan.AddrOf(a)
			ask = ask[:vxlan.PutNDRequest(ask, 0, hostMAC, from, to)]
		}
		b.behind(0, ask)
		vni, out := b.outer()
		if !want {
			if out != nil || b.answered() != 0 {
				t.Errorf("%s was answered for: %x", addr, out)
			}
			if _, flooded := b.access(); !bytes.Equal(flooded, ask) {
				t.Errorf("the request for %s was not flooded: %x", addr, flooded)
			}
			continue
		}
		if vni != 5001 || out == nil || vxlan.MACOf(out) != hostMAC || vxlan.MACOf(out[6:]) != g.MAC || b.answered() != 1 {
			t.Errorf("%s was not answered for: %x (%v)", addr, out, b.dropped())
			continue
		}
		if a.Is4() {
			if !bytes.Equal(out[14:], arp(2, g.MAC, a, hostMAC, tenant.Addr())) {
				t.Errorf("%s: the answer was %x", addr, out)
			}
		} else if err := pkttest.Verify(out[14:]); err != nil || out[54] != 136 || out[58] != 0xe0 || netip.AddrFrom16([16]byte(out[62:])) != a {
			t.Errorf("%s: the answer was %s, %v", addr, pkttest.String(out[14:]), err)
		}
		b.silent(addr)
		// It is a host that echoes.
		from := netip.MustParseAddr("198.19.1.7")
		if a.Is6() {
			from = netip.MustParseAddr("2001:db8:5001::7")
		}
		b.known(0, from.String(), hostMAC, false)
		echo := pkttest.Echo(from, a, 7, 1).Bytes()
		b.behind(0, inFrame(g.MAC, hostMAC, etherTypeOf(echo), echo))
		if _, out := b.outer(); out == nil || !bytes.Equal(out[14:], pkttest.EchoReply(a, from, 7, 1).Bytes()) {
			t.Errorf("an echo request to %s was answered with %x (%v)", addr, out, b.dropped())
		}
	}
}

// A gateway asks from its address in the network of who is asked for.
func TestGatewayAsksFromTheRightNetwork(t *testing.T) {
	b := newTenants(t, []tenantOf{loneTenant[0], {vni: 5002, networks: []string{"198.19.2.1/24", "2001:db8:5002::1/64"}, reaches: []int{0}}})
	for to, from := range map[string]string{"198.19.1.7": "198.19.1.1", "198.19.5.7": "198.19.5.1", "2001:db8:5001::7": "2001:db8:5001::1"} {
		src, dst := netip.MustParseAddr("198.19.2.7"), netip.MustParseAddr(to)
		if dst.Is6() {
			src = netip.MustParseAddr("2001:db8:5002::7")
		}
		ip := pkttest.Echo(src, dst, 1, 1).Bytes()
		b.behind(1, inFrame(gateOf(1), hostMAC, etherTypeOf(ip), ip))
		vni, ask := b.outer()
		if vni != 5001 || ask == nil {
			t.Errorf("nobody was asked for %s (%v)", to, b.dropped())
			continue
		}
		var got netip.Addr
		if dst.Is4() {
			got = netip.AddrFrom4([4]byte(ask[28:]))
		} else {
			got = netip.AddrFrom16([16]byte(ask[22:]))
		}
		if got.String() != from {
			t.Errorf("%s was asked for from %s, want %s", to, got, from)
		}
		b.access()
		b.after(2e9) // what waits is given up
		b.empty()
	}
}

// Frames from the gateway's own MAC are another gateway's that has the same (anycast). What it sends is bridged, and what its MAC is, and
// what it says of its addresses, is never learned.
func TestSharedGatewayMAC(t *testing.T) {
	b := newTenants(t, loneTenant)
	g := gateOf(0)
	from := netip.MustParseAddr("198.19.1.1")
	stationIP := netip.MustParseAddr("198.19.1.8")
	b.local(0, inFrame(vxlan.Broadcast, localMAC, 0x88b5, make([]byte, 50))) // the station on our port
	b.empty()
	reply := inFrame(g, localMAC, 0x0806, arp(2, localMAC, stationIP, g, from))
	b.local(0, reply)
	if b.consumed() != 1 {
		t.Fatalf("an answer to the gateway: %v", b.dropped())
	}
	b.silent("an answer to the only gateway")

	routed := pkttest.UDP(client, netip.AddrPortFrom(stationIP, 9)).Bytes()
	for _, x := range []struct {
		name    string
		in      []byte
		flooded bool
	}{
		{"a packet that it routes to a station on our port", inFrame(localMAC, g, 0x0800, routed), true},
		{"its request for a station", inFrame(vxlan.Broadcast, g, 0x0806, arp(1, g, from, 0, stationIP)), true},
		{"its request for the address that we share", inFrame(vxlan.Broadcast, g, 0x0806, arp(1, g, netip.MustParseAddr("198.19.1.2"), 0, from)), true},
		{"its announcement", inFrame(vxlan.Broadcast, g, 0x0806, arp(1, g, from, 0, from)), true},
		{"a packet to a station that nobody knows", inFrame(0x020000000c0c, g, 0x0800, routed), true},
	} {
		b.behind(0, x.in)
		if _, out := b.access(); !bytes.Equal(out, x.in) {
			t.Errorf("%s: to the port went %x (%v)", x.name, out, b.dropped())
		}
		b.silent(x.name)
		if at := b.place(0, g); at != vxlan.AtGateway {
			t.Fatalf("%s: the gateway is now at %x", x.name, at)
		}
	}
	now := vxlan.SecondOf(b.now)
	for _, a := range []string{"198.19.1.1", "198.19.1.2"} {
		addr, _ := vxlan.AddrOf(netip.MustParseAddr(a))
		if mac := b.overlay.Hosts.Known(0, addr, false, now); mac != 0 {
			t.Errorf("%s was learned to be at %s", a, mac)
		}
	}

	// What a station on our port answers the gateway the other one hears as well: it may have asked.
	b.local(0, reply)
	if vni, out := b.outer(); vni != 5001 || !bytes.Equal(out, reply) || b.consumed() != 1 {
		t.Errorf("an answer to one of two gateways: in the tunnel %x (%v)", out, b.dropped())
	}
	b.silent("an answer to one of two gateways")
	b.behind(0, inFrame(g, hostMAC, 0x0806, arp(2, hostMAC, tenant.Addr(), g, from)))
	b.silent("an answer out of the tunnel")

	for _, x := range []struct {
		name  string
		in    []byte
		local bool
		want  Drop
	}{
		{"to itself", inFrame(g, g, 0x0800, routed), false, DropOwnMAC},
		{"on our own port: a loop", inFrame(vxlan.Broadcast, g, 0x88b5, make([]byte, 50)), true, DropOwnMAC},
		{"on our own port, to a station", inFrame(hostMAC, g, 0x88b5, make([]byte, 50)), true, DropOwnMAC},
		{"to a station behind a tunnel", inFrame(hostMAC, g, 0x0800, routed), false, DropSameSide},
	} {
		if x.local {
			b.local(0, x.in)
		} else {
			b.behind(0, x.in)
		}
		if d := b.dropped(); d != x.want {
			t.Errorf("%s: dropped as %v, want %v", x.name, d, x.want)
		}
		b.silent(x.name)
	}

	// 300 s of silence later it is alone again.
	b.now += 301e9
	b.local(0, inFrame(vxlan.Broadcast, localMAC, 0x88b5, make([]byte, 50)))
	b.empty()
	b.local(0, reply)
	b.silent("an answer to a gateway that was shared")
}

// A station whose frame does not fit is told in its own family, also by a gateway that has no address there (RFC 7600).
func TestStationOfTheOtherFamilyIsToldOfTheMTU(t *testing.T) {
	for name, x := range map[string]struct {
		network string
		six     bool
		from    string
	}{
		"IPv6 packet, IPv4 gateway": {"198.19.1.1/24", true, "fe80::ff:fe00:5001"},
		"IPv4 packet, IPv6 gateway": {"2001:db8:5001::1/64", false, "192.0.0.8"},
		"IPv6 packet, IPv6 gateway": {"2001:db8:5001::1/64", true, "2001:db8:5001::1"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newTenants(t, []tenantOf{{vni: 5001, networks: []string{x.network}}})
			b.behind(0, inFrame(vxlan.Broadcast, hostMAC, 0x88b5, make([]byte, 50)))
			b.empty()
			src, dst := netip.MustParseAddrPort("198.19.1.8:9"), tenant
			if x.six {
				src, dst = netip.MustParseAddrPort("[2001:db8:5001::8]:9"), netip.MustParseAddrPort("[2001:db8:5001::7]:9")
			}
			big := pkttest.UDP(src, dst).Payload(make([]byte, 1440)).DF().Bytes()
			b.local(0, inFrame(hostMAC, localMAC, etherTypeOf(big), big))
			_, out := b.access()
			if out == nil || vxlan.MACOf(out) != localMAC || vxlan.MACOf(out[6:]) != gateOf(0) || pkttest.Verify(out[14:]) != nil {
				t.Fatalf("the sender got %x (%v)", out, b.dropped())
			}
			ip := out[14:]
			from, mtu, typ := netip.AddrFrom4([4]byte(ip[12:])), uint32(binary.BigEndian.Uint16(ip[26:])), ip[20]
			want := byte(3)
			if x.six {
				from, mtu, typ, want = netip.AddrFrom16([16]byte(ip[8:])), binary.BigEndian.Uint32(ip[44:]), ip[40], 2
			}
			if from.String() != x.from || mtu != 1450 || typ != want {
				t.Errorf("%s told of %d bytes with type %d, want %s", from, mtu, typ, x.from)
			}
		})
	}
}
