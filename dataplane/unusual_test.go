package dataplane_test

import (
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

// TestUnusual sends more fragments, ICMP messages and packets whose TTL is used up than limits.unusual has for a moment: each kind has its own budget,
// the burst of which is a tenth of a second's, others are not concerned, and nothing is lost track of.
func TestUnusual(t *testing.T) {
	quoted := pkttest.TCP(vip, client).Bytes()
	quoted6 := pkttest.TCP(vip6, client6).Bytes()
	first := func(i int) pkttest.Packet { return pkttest.UDP(client, dns).Size(508).Fragment(uint32(i), 0, true) }
	for _, c := range []struct {
		name  string
		frame func(i int) pkttest.Packet
		other func(i int) pkttest.Packet // of another kind
	}{
		{"first fragments", first, func(int) pkttest.Packet { return pkttest.UDP(client, dns).TTL(1) }},
		{"later fragments", func(i int) pkttest.Packet { return pkttest.UDP(client, dns).Size(508).Fragment(uint32(i), 64, false) },
			func(int) pkttest.Packet { return pkttest.Echo(client.Addr(), vip.Addr(), 1, 1) }},
		{"fragments of IPv6", func(i int) pkttest.Packet { return pkttest.UDP(client6, vip6).Size(508).Fragment(uint32(i), 64, false) }, nil},
		{"extension headers", func(int) pkttest.Packet { return pkttest.TCP(client6, vip6).HopByHop() }, nil},
		{"ICMP errors", func(int) pkttest.Packet { return pkttest.ICMPPortUnreachable(router, vip.Addr(), quoted) }, first},
		{"echo requests", func(i int) pkttest.Packet { return pkttest.Echo(client.Addr(), vip.Addr(), uint16(i), 1) }, first},
		{"ICMPv6 errors", func(int) pkttest.Packet { return pkttest.ICMPError(router6, vip6.Addr(), 1, 4, 0, quoted6) }, first},
		{"TTL of one", func(int) pkttest.Packet { return pkttest.UDP(client, dns).TTL(1) }, first},
		{"hop limit of one", func(int) pkttest.Packet { return pkttest.TCP(client6, vip6).TTL(1) }, first},
	} {
		for _, link := range []struct {
			vlan   uint16
			shared bool
		}{{0, false}, {7, false}, {7, true}} {
			t.Run(c.name, func(t *testing.T) {
				vlan := link.vlan
				b := newBed(t, func(s *Snapshot, _ *Engine) {
					s.Unusual, s.Ports[wan].VLAN, s.Ports[wan].Shared = Rate{PerSecond: 100}, vlan, link.shared
				})
				in := func(p pkttest.Packet) {
					if f := p.Bytes(); vlan == 0 {
						b.fromClient(f)
					} else {
						b.inject(wan, pkttest.Frame(f, routerMAC, wanMAC, vlan))
					}
				}
				lost := func() uint64 {
					_, drops := b.engine.Verdicts()
					return drops[DropUnusualLimit]
				}
				plain := func(i int) pkttest.Packet {
					return pkttest.UDP(netip.AddrPortFrom(client.Addr(), uint16(5000+i)), dns)
				}
				for i := range 25 {
					in(c.frame(i))
					in(plain(i))
				}
				before, _ := b.engine.Verdicts()
				b.round()
				after, _ := b.engine.Verdicts()
				if lost() != 15 {
					t.Errorf("%d of 25 are lost, want 15", lost())
				}
				if got := after.Forwarded - before.Forwarded; got < 25 {
					t.Errorf("%d are forwarded, of 25 that are usual", got)
				}
				b.now += 5e7 // half of the burst
				for i := range 12 {
					in(c.frame(100 + i))
				}
				b.round()
				if lost() != 15+7 {
					t.Errorf("%d of 12 are lost half of the burst later, want 7", lost()-15)
				}
				if c.other != nil {
					in(c.other(200))
					b.round()
					if lost() != 22 {
						t.Errorf("another kind has the same budget")
					}
				}
				b.snap.Unusual = Rate{}
				b.publish()
				for i := range 20 {
					in(c.frame(300 + i))
				}
				b.round()
				if lost() != 22 {
					t.Errorf("without a limit %d are lost", lost()-22)
				}
				b.now += 60e9 // what waits gives up
				b.round()
			})
		}
	}
}

// TestUnusualLeavesOthersAlone drops fragments between the frames of a connection, in a vector of nothing else, and in one without any.
func TestUnusualLeavesOthersAlone(t *testing.T) {
	b := newBed(t, func(s *Snapshot, _ *Engine) { s.Unusual = Rate{PerSecond: 1} })
	b.open(client, vip, web)
	b.open(client6, vip6, web6)
	later := pkttest.UDP(client, dns).Size(508).Fragment(1, 64, false).Bytes()
	b.fromClient(later) // the only one for this second: it waits for its first
	b.round()
	for _, vector := range []struct{ fragments, v4, v6 int }{{9, 9, 9}, {9, 0, 0}, {0, 9, 0}, {9, 9, 0}, {9, 0, 9}} {
		for i := range 9 {
			if i < vector.fragments {
				b.fromClient(later)
			}
			if i < vector.v4 {
				b.fromClient(pkttest.TCP(client, vip).Seq(1).Ack(1).Bytes())
			}
			if i < vector.v6 {
				b.fromClient(pkttest.TCP(client6, vip6).Seq(1).Ack(1).Bytes())
			}
		}
		b.round()
		n := 0
		for b.take(lan) != nil {
			n++
		}
		_, drops := b.engine.Verdicts()
		if lost := drops[DropUnusualLimit] - b.drops[DropUnusualLimit]; n != vector.v4+vector.v6 || lost != uint64(vector.fragments) {
			t.Errorf("%+v: %d left and %d were dropped", vector, n, lost)
		}
	}
}

// TestUnusualTunnels uses up the budget for packets without TTL: frames out of a tunnel come in all the same, with a TTL of 1 as Linux gives those for
// a group, over either family and in a VLAN, while other packets to a tunnel end are none of them.
func TestUnusualTunnels(t *testing.T) {
	frame := inFrame(localMAC, hostMAC, 0x0800, pkttest.UDP(tenant, client).Bytes())
	b := newBed(t, append(fuzzedOverlay(t), func(s *Snapshot, _ *Engine) { s.Unusual = Rate{PerSecond: 10} })...)
	o := b.snap.Overlay
	for i := range uint16(2) {
		o.Stations.Learn(i, localMAC, vxlan.AtAccess(0), vxlan.SecondOf(b.now))
	}
	for range 2 {
		b.fromClient(pkttest.UDP(client, dns).TTL(1).Bytes())
	}
	b.round()
	lost := func() uint64 {
		_, drops := b.engine.Verdicts()
		return drops[DropUnusualLimit]
	}
	if lost() != 1 {
		t.Fatalf("%d of 2 packets are lost, want 1: the budget is not used up", lost())
	}
	payload := func(vni uint32) []byte {
		return append([]byte{8, 0, 0, 0, byte(vni >> 16), byte(vni >> 8), byte(vni), 0}, frame...)
	}
	from, to := netip.AddrPortFrom(peerVTEP, 50000), netip.AddrPortFrom(vtep, 4789)
	over4 := pkttest.UDP(from, to).Payload(payload(tenantVNI)).TTL(1)
	over6 := pkttest.UDP(netip.AddrPortFrom(peer6, 50000), netip.AddrPortFrom(vtep6, 4789)).Payload(payload(otherVNI)).TTL(1)
	for _, c := range []struct {
		name string
		p    pkttest.Packet
		lost uint64
	}{
		{"IPv4", over4, 0},
		{"IPv4 with options", over4.Options(1, 1, 1, 0), 0},
		{"IPv6", over6, 0},
		{"another port", pkttest.UDP(from, netip.AddrPortFrom(vtep, 4790)).TTL(1), 1},
		{"another address", pkttest.UDP(from, netip.AddrPortFrom(vip.Addr(), 4789)).TTL(1), 1},
		{"another address of IPv6", pkttest.UDP(client6, netip.AddrPortFrom(vip6.Addr(), 4789)).TTL(1), 1},
		{"another protocol", pkttest.TCP(from, to).TTL(1), 1},
	} {
		for _, vlan := range []uint16{0, 7} {
			before := lost()
			if vlan == 0 {
				b.fromClient(c.p.Bytes())
			} else {
				b.inject(wan, pkttest.Frame(c.p.Bytes(), routerMAC, wanMAC, vlan))
			}
			b.round()
			n := 0
			for b.take(lan) != nil {
				n++
			}
			if got := lost() - before; got != c.lost || n != int(1-c.lost) {
				t.Errorf("%s, VLAN %d: %d lost, %d left for the station", c.name, vlan, got, n)
			}
		}
	}
}

// TestUnusualBridged: what stations say to each other through an access port has no budget, nor has anything else that comes by its device.
func TestUnusualBridged(t *testing.T) {
	for _, shared := range []bool{false, true} {
		b := newBed(t, append(fuzzedOverlay(t), func(s *Snapshot, _ *Engine) {
			s.Unusual, s.Ports[lan].Shared = Rate{PerSecond: 10}, shared
		})...)
		b.snap.Overlay.Stations.Learn(0, hostMAC, vxlan.AtAccess(1), vxlan.SecondOf(b.now))
		frame := inFrame(hostMAC, localMAC, 0x0800, pkttest.Echo(tenant.Addr(), client.Addr(), 1, 1).Bytes())
		for range 20 {
			b.inject(lan, tagged(30, frame))
		}
		b.round()
		n := 0
		for b.take(lan) != nil {
			n++
		}
		if n != 20 {
			t.Errorf("shared %v: %d of 20 frames were bridged (%v)", shared, n, b.dropped())
		}
	}
}
