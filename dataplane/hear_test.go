package dataplane_test

import (
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

// TestAdvertisements: what an advertisement's flags say decides whether it moves an address (RFC 4861 section 7.2.5). One without the override flag, as
// somebody sends who answers in another's stead, moves none.
func TestAdvertisements(t *testing.T) {
	const other = vxlan.MAC(0x020000000f0f)
	host := netip.MustParseAddr("2001:db8:5001::7")
	addr, _ := vxlan.AddrOf(host)
	for _, x := range []struct {
		name string
		put  func([]byte, *vxlan.ND) int
		want vxlan.MAC
	}{
		{"an answer in the host's stead", func(b []byte, n *vxlan.ND) int { return vxlan.PutNDProxy(b, n, other, false) }, hostMAC},
		{"an answer of the host's", func(b []byte, n *vxlan.ND) int { return vxlan.PutNDReply(b, n, other, false) }, other},
		{"an announcement", func(b []byte, n *vxlan.ND) int { return vxlan.PutNDAnnouncement(b, other, addr, false) }, other},
	} {
		b := newTenants(t, routedTenants())
		b.known(0, host.String(), hostMAC, false)
		g := b.overlay.ByIndex[0].Gateway
		frame := make([]byte, 128)
		frame = frame[:x.put(frame, &vxlan.ND{Src: g.LinkLocal(), MAC: g.MAC, SrcMAC: g.MAC, Target: addr})]
		b.behind(0, frame)
		if mac := b.overlay.Hosts.Known(0, addr, true, vxlan.SecondOf(b.now)); mac != x.want {
			t.Errorf("%s: the host is now at %s, want %s", x.name, mac, x.want)
		}
	}
}

// TestStaleHostIsAsked: a host that was not heard of for 30 s is asked itself, and its answer confirms it, also one over IPv6 that does not
// name its MAC, as Linux answers (RFC 4861 section 7.2.4). One that is silent is asked for by all, while what is for it still goes to it.
func TestStaleHostIsAsked(t *testing.T) {
	for to, src := range map[string]string{"198.19.1.7": "198.19.2.7", "2001:db8:5001::7": "2001:db8:5002::7"} {
		b := newTenants(t, []tenantOf{loneTenant[0], {vni: 5002, networks: []string{"198.19.2.1/24", "2001:db8:5002::1/64"}, reaches: []int{0}}})
		host, g := netip.MustParseAddr(to), b.overlay.ByIndex[0].Gateway
		ip := pkttest.Echo(netip.MustParseAddr(src), host, 1, 1).Bytes()
		asked := vxlan.Broadcast // whom a request for the host goes to that is for all
		if host.Is6() {
			asked = 0x3333ff000007
		}
		// next sends a packet to the host after that time. It returns whom a request went to, 0: none did, and whether the packet went to the host.
		next := func(after int64) (request vxlan.MAC, came bool) {
			b.now += after
			b.empty()
			b.behind(1, inFrame(gateOf(1), hostMAC, etherTypeOf(ip), ip))
			for {
				switch _, f := b.outer(); {
				case f == nil:
					return request, came
				case f[12] == 0x08 && f[13] == 0x06 || len(f) > 54 && f[12] == 0x86 && f[20] == packet.ProtoICMPv6 && f[54] == 135:
					request = vxlan.MACOf(f)
				default:
					came = vxlan.MACOf(f) == hostMAC
				}
			}
		}
		b.known(0, to, hostMAC, false)
		if ask, came := next(1e9); ask != 0 || !came {
			t.Errorf("%s, just known: asked %v, came %v", to, ask, came)
		}
		if ask, came := next(30e9); ask != hostMAC || !came {
			t.Errorf("%s, not heard of for 31 s: asked %v, came %v", to, ask, came)
		}
		if host.Is4() {
			b.known(0, to, hostMAC, false)
		} else {
			bare := pkttest.ICMP(host, g.LinkLocal().Netip(true), 136, 0, 0x60000000).TTL(255).Payload(host.AsSlice())
			b.behind(0, inFrame(g.MAC, hostMAC, packet.EtherTypeIPv6, bare.Bytes()))
		}
		if ask, came := next(29e9); ask != 0 || !came {
			t.Errorf("%s, 29 s after its answer: asked %v, came %v", to, ask, came)
		}
		for i, want := range []vxlan.MAC{hostMAC, hostMAC, hostMAC, asked, asked, asked} {
			if ask, came := next(1e9); ask != want || !came {
				t.Errorf("%s, silent for %d s: asked %v, want %v; came %v", to, 30+i, ask, want, came)
			}
		}
		if ask, came := next(1e9); ask != asked || came {
			t.Errorf("%s, given up: asked %v, came %v", to, ask, came)
		}
	}
}

// TestFloodLimitOfTwinsCopies: what a segment may flood bounds broadcasts, and the copies of answers that other gateways with our MAC get.
func TestFloodLimitOfTwinsCopies(t *testing.T) {
	b := newTenants(t, loneTenant)
	g := gateOf(0)
	limit := new(vxlan.Gate)
	limit.Set(10)
	b.overlay.ByIndex[0].BUM = limit                            // before the worker has seen it
	b.behind(0, inFrame(localMAC, g, 0x88b5, make([]byte, 50))) // from a twin; unknown, so it is flooded: one
	b.empty()
	copies, floods := 0, 0
	answer := inFrame(g, localMAC, 0x0806, arp(2, localMAC, netip.MustParseAddr("198.19.1.8"), g, gateIP))
	for range 8 {
		b.local(0, answer)
		if _, f := b.outer(); f != nil {
			copies++
		}
		if b.consumed() != 1 {
			t.Fatalf("an answer to the gateway: %v", b.dropped())
		}
	}
	for range 5 {
		b.local(0, inFrame(vxlan.Broadcast, localMAC, 0x88b5, make([]byte, 50)))
		if _, f := b.outer(); f != nil {
			floods++
		} else if d := b.dropped(); d != DropFloodLimit {
			t.Errorf("dropped as %v", d)
		}
	}
	if copies != 8 || floods != 1 {
		t.Errorf("%d copies and %d floods, want 8 and 1", copies, floods)
	}
	for range 3 {
		b.local(0, answer)
		if _, f := b.outer(); f != nil || b.consumed() != 1 {
			t.Errorf("beyond the limit: %x (%v)", f, b.dropped())
		}
	}
}

// TestStolenAddresses: a station that says an address of the gateway's, or a VIP, is its own convinces nobody: not us, nor the stations that hear it.
// Whoever asks whether somebody has it, or announces it, is told.
func TestStolenAddresses(t *testing.T) {
	const thief = vxlan.MAC(0x020000000bad)
	b := newTenants(t, loneTenant, serving{vip: tenantVIP, servers: []Backend{inSegment(inside, 5001, "198.19.1.1")}}.within(5001).option(t))
	g := b.overlay.ByIndex[0].Gateway
	victim, gate, other := netip.MustParseAddr("198.19.1.8"), netip.MustParseAddr("198.19.1.1"), netip.MustParseAddr("198.19.1.9")
	gate6, _ := vxlan.AddrOf(netip.MustParseAddr("2001:db8:5001::1"))
	victim6, _ := vxlan.AddrOf(netip.MustParseAddr("2001:db8:5001::8"))
	nd := func(put func([]byte) int) []byte { f := make([]byte, 128); return f[:put(f)] }
	masked := inFrame(vxlan.Broadcast, thief, 0x0806, arp(2, thief, gate, 0, victim))
	vxlan.MAC(0x020000000bae).Put(masked[6:]) // the frame's source is not the sender's
	for _, x := range []struct {
		name     string
		in       []byte
		drop     Drop
		answered bool
	}{
		{"a reply to all for the gateway's address", inFrame(vxlan.Broadcast, thief, 0x0806, arp(2, thief, gate, 0, victim)), DropOwnAddress, false},
		{"a reply to a station for the gateway's address", inFrame(hostMAC, thief, 0x0806, arp(2, thief, gate, hostMAC, victim)), DropOwnAddress, false},
		{"a reply to the gateway for its own address", inFrame(g.MAC, thief, 0x0806, arp(2, thief, gate, g.MAC, gate)), DropOwnAddress, false},
		{"a reply whose frame has another source", masked, DropOwnAddress, false},
		{"a reply for the VIP", inFrame(vxlan.Broadcast, thief, 0x0806, arp(2, thief, tenantVIP.Addr(), 0, victim)), DropOwnAddress, false},
		{"a request from the gateway's address", inFrame(vxlan.Broadcast, thief, 0x0806, arp(1, thief, gate, 0, victim)), DropOwnAddress, false},
		{"an announcement of it", inFrame(vxlan.Broadcast, thief, 0x0806, arp(1, thief, gate, 0, gate)), DropNone, true},
		{"a probe for it", inFrame(vxlan.Broadcast, thief, 0x0806, arp(1, thief, netip.AddrFrom4([4]byte{}), 0, gate)), DropNone, true},
		{"an advertisement of it", nd(func(f []byte) int { return vxlan.PutNDAnnouncement(f, thief, gate6, true) }), DropOwnAddress, false},
		{"an advertisement of its link-local one", nd(func(f []byte) int { return vxlan.PutNDAnnouncement(f, thief, g.LinkLocal(), true) }), DropOwnAddress, false},
		{"a solicitation from it", nd(func(f []byte) int { return vxlan.PutNDRequest(f, 0, thief, gate6, victim6) }), DropOwnAddress, false},
		{"an address of the station's own", inFrame(vxlan.Broadcast, thief, 0x0806, arp(2, thief, other, 0, victim)), DropNone, false},
	} {
		for _, local := range []bool{true, false} {
			if local {
				b.local(0, x.in)
			} else {
				b.behind(0, x.in)
			}
			if d := b.dropped(); d != x.drop || b.answered() == 1 != x.answered {
				t.Errorf("%s: dropped as %v, want %v; %d answered", x.name, d, x.drop, b.answered())
			}
			_, out := b.access()
			if local {
				if x.answered {
					if out == nil || vxlan.MACOf(out[6:]) != g.MAC {
						t.Errorf("%s: answered with %x", x.name, out)
					}
				}
				_, out = b.outer()
			} else if x.answered {
				_, out = b.outer()
				if out == nil || vxlan.MACOf(out[6:]) != g.MAC {
					t.Errorf("%s: answered with %x", x.name, out)
				}
				out = nil
			}
			if passed := out != nil; passed != (x.drop == DropNone && !x.answered) {
				t.Errorf("%s: to others went %x", x.name, out)
			}
			b.empty()
		}
	}
	for _, a := range []vxlan.Addr{gate6, g.LinkLocal()} {
		if mac := b.overlay.Hosts.Known(0, a, true, vxlan.SecondOf(b.now)); mac != 0 {
			t.Errorf("%v was learned to be at %s", a.Netip(true), mac)
		}
	}
}
