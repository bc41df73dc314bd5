package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

// A request for a station that is known is answered in its stead, in its own name, and is not flooded. All that RFC 9161 wants to pass does.
func TestSuppression(t *testing.T) {
	const router = vxlan.MAC(0x020000000e01)
	b := newTenants(t, []tenantOf{
		{vni: 5001, networks: []string{"198.19.1.1/24"}, suppress: true},
		{vni: 5002, suppress: true, noGate: true},
		{vni: 5003, networks: []string{"198.19.1.1/24"}},
	})
	remote, local := netip.MustParseAddr("198.19.1.7"), netip.MustParseAddr("198.19.1.8")
	remote6, routerIP6, quiet6 := netip.MustParseAddr("2001:db8:5001::7"), netip.MustParseAddr("2001:db8:5001::fe"), netip.MustParseAddr("2001:db8:5001::9")
	addr := func(a netip.Addr) vxlan.Addr { x, _ := vxlan.AddrOf(a); return x }
	for i := range 3 {
		b.behind(i, inFrame(vxlan.Broadcast, hostMAC, 0x0806, arp(1, hostMAC, remote, 0, remote)))
		b.local(i, inFrame(vxlan.Broadcast, localMAC, 0x0806, arp(1, localMAC, local, 0, local)))
		na := func(mac vxlan.MAC, a netip.Addr, router bool) []byte {
			f := make([]byte, 128)
			return f[:vxlan.PutNDAnnouncement(f, mac, addr(a), router)]
		}
		b.behind(i, na(hostMAC, remote6, false))
		b.behind(i, na(router, routerIP6, true))
		ns := make([]byte, 128) // tells of itself, but not whether it is a router
		b.behind(i, ns[:vxlan.PutNDRequest(ns, 0, hostMAC, addr(quiet6), addr(netip.MustParseAddr("2001:db8:5001::77")))])
		b.empty()
	}
	asker, asker6 := netip.MustParseAddr("198.19.1.9"), netip.MustParseAddr("2001:db8:5001::8")
	const askerMAC = vxlan.MAC(0x020000000b09)
	who := func(op uint16, sender, target netip.Addr) []byte {
		return inFrame(vxlan.Broadcast, askerMAC, 0x0806, arp(op, askerMAC, sender, 0, target))
	}
	ns := func(station vxlan.MAC, target netip.Addr) []byte {
		f := make([]byte, 128)
		return f[:vxlan.PutNDRequest(f, station, askerMAC, addr(asker6), addr(target))]
	}
	dad := func(target netip.Addr) []byte { // from nowhere, without the option
		f := ns(0, target)
		ip := f[14:][:64]
		clear(ip[8:24])
		ip[5], ip[42], ip[43] = 24, 0, 0
		binary.BigEndian.PutUint16(ip[42:], packet.TransportSum6([16]byte(ip[8:]), [16]byte(ip[24:]), packet.ProtoICMPv6, ip[40:]))
		return append(append([]byte(nil), f[:14]...), ip...)
	}
	unicast := who(1, asker, remote)
	hostMAC.Put(unicast)
	none := netip.AddrFrom4([4]byte{})
	for _, x := range []struct {
		name   string
		i      int
		tunnel bool
		in     []byte
		from   vxlan.MAC // who is answered for; 0: nobody
		router bool
	}{
		{name: "a station behind a tunnel", in: who(1, asker, remote), from: hostMAC},
		{name: "a station on the same port: it hears the request itself", in: who(1, asker, local)},
		{name: "a station on a port, asked for out of a tunnel", tunnel: true, in: who(1, asker, local), from: localMAC},
		{name: "a station behind a tunnel, asked for out of a tunnel", tunnel: true, in: who(1, asker, remote)},
		{name: "nobody", in: who(1, asker, netip.MustParseAddr("198.19.1.99"))},
		{name: "a probe, before an address is used", in: who(1, none, remote)},
		{name: "a gratuitous request", in: who(1, asker, asker)},
		{name: "a gratuitous request for another's address", in: who(1, remote, remote)},
		{name: "a request to the station itself", in: unicast},
		{name: "a reply", in: who(2, asker, remote)},
		{name: "ND: a host", in: ns(0, remote6), from: hostMAC},
		{name: "ND: a router", in: ns(0, routerIP6), from: router, router: true},
		{name: "ND: a station that has not said whether it is a router", in: ns(0, quiet6)},
		{name: "ND: to the station itself", in: ns(hostMAC, remote6)},
		{name: "ND: duplicate address detection", in: dad(remote6)},
		{name: "without a gateway", i: 1, in: who(1, asker, remote), from: hostMAC},
		{name: "without a gateway, ND", i: 1, in: ns(0, remote6), from: hostMAC},
		{name: "without suppression", i: 2, in: who(1, asker, remote)},
		{name: "without suppression, ND", i: 2, in: ns(0, remote6)},
	} {
		before := b.overlay.Hosts.Count(uint16(x.i), vxlan.NeighborProxied)
		var answer, flooded []byte
		if x.tunnel {
			b.behind(x.i, x.in)
			_, answer = b.outer()
			_, flooded = b.access()
		} else {
			b.local(x.i, x.in)
			_, answer = b.access()
			_, flooded = b.outer()
		}
		b.silent(x.name)
		count := b.overlay.Hosts.Count(uint16(x.i), vxlan.NeighborProxied) - before
		if x.from == 0 {
			if answer != nil || !bytes.Equal(flooded, x.in) || count != 0 {
				t.Errorf("%s: answered with %x, flooded %x, %d counted (%v)", x.name, answer, flooded, count, b.dropped())
			}
			continue
		}
		if answer == nil || vxlan.MACOf(answer) != askerMAC || vxlan.MACOf(answer[6:]) != x.from || flooded != nil || count != 1 || b.answered() != 1 {
			t.Errorf("%s: answered with %x, flooded %x, %d counted (%v)", x.name, answer, flooded, count, b.dropped())
			continue
		}
		if answer[12] == 0x86 {
			flags := byte(0x40)
			if x.router {
				flags |= 0x80
			}
			if err := pkttest.Verify(answer[14:]); err != nil || answer[54] != 136 || answer[58] != flags || vxlan.MACOf(answer[80:]) != x.from {
				t.Errorf("%s: answered with %s, flags %#x, %v", x.name, pkttest.String(answer[14:]), answer[58], err)
			}
		}
	}

	// Once the FDB has forgotten where it is, or the neighbours what it has, nobody is answered for.
	b.now += 301e9
	for range 3 {
		b.round()
		b.now += 1e9
	}
	b.local(0, who(1, asker, remote))
	if _, out := b.access(); out != nil {
		t.Errorf("after the ageing time: %x", out)
	}
}
