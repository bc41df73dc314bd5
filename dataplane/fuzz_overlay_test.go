package dataplane_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

// The overlay of FuzzOverlay has all there is to a segment, twice: VNI 5001 over IPv4 with a second peer whose next hop nobody knows, a second
// access port and a limit of floods; VNI 5002 over IPv6.
const (
	otherVNI     = 5002
	otherGateMAC = vxlan.MAC(0x020000005002)
	sixMAC       = vxlan.MAC(0x020000000a06)
)

var (
	vtep6       = netip.MustParseAddr("2001:db8::1")
	peer6       = netip.MustParseAddr("2001:db8::2")
	gate6       = netip.MustParseAddr("2001:db8:64::1")
	tenant6     = netip.MustParseAddrPort("[2001:db8:64::7]:8080")
	overlayVIP  = netip.MustParseAddrPort("198.18.9.9:90")
	overlayVIP6 = netip.MustParseAddrPort("[2001:db8:9::9]:90")
)

func fuzzedOverlay(t testing.TB) []bedOption {
	t.Helper()
	gate := func(mac vxlan.MAC, a netip.Addr) *vxlan.Gateway {
		addr, v6 := vxlan.AddrOf(a)
		return &vxlan.Gateway{MAC: mac, Addresses: []vxlan.Interface{{Addr: addr, V6: v6, Bits: 24}}}
	}
	bum := new(vxlan.Gate)
	bum.Set(100)
	var list []*vxlan.Segment
	for _, o := range []vxlan.SegmentOptions{
		{TunnelOptions: vxlan.TunnelOptions{VNI: tenantVNI, Local: vtep}, Peers: []vxlan.PeerOptions{{Addr: peerVTEP}, {Addr: netip.MustParseAddr("198.18.0.3")}},
			Access: []vxlan.Access{{Port: lan, VLAN: 30, Used: true}, {Port: lan, VLAN: 31, Used: true}}, Learning: true, Gateway: gate(gatewayMAC, gateIP), BUM: bum},
		{TunnelOptions: vxlan.TunnelOptions{VNI: otherVNI, Local: vtep6}, Index: 1, Peers: []vxlan.PeerOptions{{Addr: peer6}},
			Access: []vxlan.Access{{Port: lan, VLAN: 32, Used: true}}, Learning: true, Gateway: gate(otherGateMAC, gate6)},
	} {
		s, err := vxlan.NewSegment(o)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	segments, err := vxlan.NewSegments(list)
	if err != nil {
		t.Fatal(err)
	}
	options := overlaid(t)
	return append(options, func(s *Snapshot, _ *Engine) {
		// of overlaid's overlay the tables stay, but they are too small for two segments
		var err error
		o := s.Overlay
		if o.Stations, err = vxlan.NewFDB(vxlan.FDBOptions{Capacity: 16, Segments: 2, Secret: [2]uint64{1, 2}}); err != nil {
			t.Fatal(err)
		}
		if o.Hosts, err = vxlan.NewNeighbors(vxlan.NeighborsOptions{Capacity: 16, Segments: 2, Secret: [2]uint64{1, 2}}); err != nil {
			t.Fatal(err)
		}
		o.Segments, o.ByIndex, o.Counts = segments, list, nil
		for i, x := range list {
			o.Stations.Configure(uint16(i), 8, 2)
			o.Hosts.Configure(uint16(i), 8, 2)
			if err := o.Stations.Add(uint16(i), x.Gateway.MAC, vxlan.AtGateway, 1); err != nil {
				t.Fatal(err)
			}
			c := SegmentCounts{Segment: make([]SegmentCounters, 1)}
			for range x.Peers {
				c.Peers = append(c.Peers, make([]PlaceCounters, 1))
			}
			for range x.Access {
				c.Access = append(c.Access, make([]PlaceCounters, 1))
			}
			o.Counts = append(o.Counts, c)
		}
		a6, _ := AddrOf(vtep6)
		o.VTEPs = append(o.VTEPs, VTEP{Addr: a6, V6: true, Port: vxlan.Port})
	}, serving{vip: overlayVIP6, servers: []Backend{inSegment(tenant6, otherVNI, "")}}.option(t))
}

// Ways for a frame of FuzzOverlay's script to come: as it is, or wrapped so that fuzzing need not find out how.
const (
	byWAN    = iota // the bytes are the frame
	byLAN           // likewise
	inOuter         // the frame is in a tunnel from the peer, of VNI 5001
	inOuter6        // of VNI 5002, over IPv6
	tagged30
	tagged31
	tagged32
	repaired = 8  // besides: the inner IPv4 header's checksum, or that of ICMPv6, is made right
	later    = 16 // besides: a second passes before
)

// sent is one record of a script: how the frame comes, its length, the frame.
func sent(how byte, frame []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{how}, uint16(len(frame))), frame...)
}

// steps reads a script: at most 16 frames of at most 1600 bytes.
func steps(script []byte, f func(how byte, frame []byte)) {
	for n := 0; n < 16 && len(script) >= 3; n++ {
		size := int(binary.BigEndian.Uint16(script[1:])) % 1601
		frame := script[3:]
		how := script[0]
		frame = frame[:min(size, len(frame))]
		script = script[3+len(frame):]
		f(how, append([]byte(nil), frame...))
	}
}

// FuzzOverlay sends frames as a script says into an engine with two segments, each with gateway, tunnels, access ports and a service. Nothing
// panics, every frame has one verdict and no chunk is lost (bed.round checks both), no segment counts more drops than there were,
// what leaves into the underlay is sound, and nothing is held for ever.
func FuzzOverlay(f *testing.F) {
	overlaySeeds(f)
	b := newBed(f, fuzzedOverlay(f)...) // to make one costs more than a script
	f.Fuzz(func(t *testing.T, script []byte) {
		b.t = t
		b.forget()
		steps(script, func(how byte, frame []byte) {
			if how&later != 0 {
				b.now += 1e9
			}
			if how&repaired != 0 {
				repair(frame)
			}
			port := wan
			switch how & 7 {
			case byLAN:
				port = lan
			case inOuter:
				frame = pkttest.Frame(tunneled(peerVTEP, tenantVNI, frame), routerMAC, wanMAC)
			case inOuter6:
				frame = pkttest.Frame(tunneled6(frame), routerMAC, wanMAC)
			case tagged30, tagged31, tagged32:
				if port = lan; len(frame) >= 12 {
					frame = append(append(append([]byte(nil), frame[:12]...), 0x81, 0, 0, 26+how&7), frame[12:]...)
				}
			}
			if len(frame) == 0 {
				return
			}
			b.inject(port, frame)
			b.round()
			b.leaves(t)
		})
		for range 5 {
			b.now += 1e9
			b.round()
			b.leaves(t)
		}
		if n := b.worker.Holding(); n != 0 {
			t.Errorf("%d frames are still held", n)
		}
		b.countsAgree(t)
	})
}

// forget lets so much time pass that everything of the last script is forgotten: connections, fragments, limits, stations and hosts.
func (b *bed) forget() {
	b.now += 1e12
	b.worker.ExpireAll(b.now)
	o := b.snap.Overlay
	for o.Stations.Expire(vxlan.SecondOf(b.now), o.Stations.Slots())+o.Hosts.Expire(vxlan.SecondOf(b.now), o.Hosts.Slots()) > 0 {
	}
	b.round()
}

// leaves takes what has left by both ports, and judges it.
func (b *bed) leaves(t *testing.T) {
	t.Helper()
	for out := b.take(wan); out != nil; out = b.take(wan) {
		checkSound(t, out)
	}
	for out := b.take(lan); out != nil; out = b.take(lan) {
		if len(out) < 18 {
			t.Fatalf("a frame of %d bytes left", len(out))
		}
		if binary.BigEndian.Uint16(out[12:]) == packet.EtherTypeVLAN {
			if vlan := binary.BigEndian.Uint16(out[14:]); vlan < 30 || vlan > 32 {
				t.Errorf("a frame left into VLAN %d", vlan)
			}
			continue
		}
		checkSound(t, out)
	}
}

// countsAgree holds what segments counted against what the worker did.
func (b *bed) countsAgree(t *testing.T) {
	t.Helper()
	v, all := b.engine.Verdicts()
	var sums [NumDrops]uint64
	in := uint64(0)
	for i := range b.snap.Overlay.Counts {
		c := &b.snap.Overlay.Counts[i]
		s, drops := c.Sum()
		for d := range sums {
			sums[d] += drops[d]
		}
		in += s.InFrames
		var places PlaceTraffic
		for _, list := range [][][]PlaceCounters{c.Peers, c.Access} {
			for _, p := range list {
				x := SumPlace(p)
				places.InFrames += x.InFrames
				places.InBytes += x.InBytes
				places.OutFrames += x.OutFrames
				places.OutBytes += x.OutBytes
			}
		}
		if places.InFrames != s.InFrames || places.InBytes != s.InBytes || places.OutFrames != s.OutFrames || places.OutBytes != s.OutBytes {
			t.Errorf("segment %d counted %+v, its places %+v", i, s, places)
		}
	}
	for d := range sums {
		if sums[d] > all[d] {
			t.Errorf("segments dropped %d as %v, of %d in all", sums[d], Drop(d), all[d])
		}
	}
	if in > v.Received {
		t.Errorf("%d frames came into segments of %d received", in, v.Received)
	}
}

// tunneled6 is the outer packet from the IPv6 peer around a frame.
func tunneled6(frame []byte) []byte {
	h := append([]byte{8, 0, 0, 0, otherVNI >> 16, otherVNI >> 8 & 0xff, otherVNI & 0xff, 0}, frame...)
	return pkttest.UDP(netip.AddrPortFrom(peer6, 50000), netip.AddrPortFrom(vtep6, 4789)).Payload(h).Bytes()
}

// repair makes the checksums right that a mutation breaks first: the IPv4 header's, ICMP's and ICMPv6's. Without it fuzzing sees little behind the
// parser.
func repair(frame []byte) {
	if len(frame) < 14 {
		return
	}
	ip := frame[14:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		if len(ip) < 20 || int(ip[0]&15)*4 < 20 || int(ip[0]&15)*4 > len(ip) {
			return
		}
		h := ip[:ip[0]&15*4]
		h[10], h[11] = 0, 0
		binary.BigEndian.PutUint16(h[10:], packet.Sum(h))
		if m := ip[len(h):]; h[9] == packet.ProtoICMP && len(m) >= 4 {
			m[2], m[3] = 0, 0
			binary.BigEndian.PutUint16(m[2:], packet.Sum(m))
		}
	case 0x86dd:
		if len(ip) < 44 || ip[6] != packet.ProtoICMPv6 {
			return
		}
		m := ip[40:min(len(ip), 40+int(binary.BigEndian.Uint16(ip[4:])))]
		if len(m) >= 4 {
			m[2], m[3] = 0, 0
			binary.BigEndian.PutUint16(m[2:], packet.TransportSum6([16]byte(ip[8:24]), [16]byte(ip[24:40]), packet.ProtoICMPv6, m))
		}
	}
}

// overlaySeeds are scripts of everything that the overlay does.
func overlaySeeds(f *testing.F) {
	script := func(s ...[]byte) {
		var all []byte
		for _, x := range s {
			all = append(all, x...)
		}
		f.Add(all)
	}
	wanFrame := func(p pkttest.Packet) []byte { return p.Frame(routerMAC, wanMAC) }
	probe := func(dst, src vxlan.MAC) []byte { return inFrame(dst, src, 0x88b5, make([]byte, 46)) }
	know := sent(inOuter, inFrame(gatewayMAC, hostMAC, 0x0806, arp(2, hostMAC, tenant.Addr(), gatewayMAC, gateIP)))
	nd := func(typ uint8, flags uint32, dst vxlan.MAC, to, target netip.Addr) []byte {
		option := append(target.AsSlice(), 2, 1, 2, 0, 0, 0, 10, 6)
		if typ == 135 {
			option[16] = 1
		}
		return inFrame(dst, sixMAC, 0x86dd, pkttest.ICMP(tenant6.Addr(), to, typ, 0, flags).TTL(255).Payload(option).Bytes())
	}
	know6 := sent(inOuter6, nd(136, 0x60000000, otherGateMAC, gate6, tenant6.Addr()))
	script(sent(inOuter, probe(vxlan.Broadcast, hostMAC)), sent(tagged30, probe(hostMAC, localMAC)), sent(inOuter, probe(localMAC, hostMAC))) // bridging
	script(sent(tagged30, probe(vxlan.Broadcast, localMAC)), sent(later|tagged30, probe(vxlan.Broadcast, localMAC)))                          // floods, one of which waits
	script(sent(byWAN, wanFrame(pkttest.TCP(client, overlayVIP).SYN().TCPOptions(2, 4, 5, 180))), know,
		sent(inOuter, inFrame(gatewayMAC, hostMAC, 0x0800, pkttest.TCP(tenant, client).SYN().Ack(1).TCPOptions(2, 4, 5, 180).Bytes())),
		sent(byWAN, wanFrame(pkttest.TCP(client, overlayVIP).Seq(1).Ack(1).Size(1480))), sent(byWAN, wanFrame(pkttest.TCP(client, overlayVIP).Seq(1).Ack(1).Size(1480).DF())))
	script(sent(byWAN, wanFrame(pkttest.TCP(client6, overlayVIP6).SYN())), know6,
		sent(inOuter6, inFrame(otherGateMAC, sixMAC, 0x86dd, pkttest.TCP(tenant6, client6).SYN().Ack(1).Bytes())), sent(byWAN, wanFrame(pkttest.TCP(client6, overlayVIP6).Seq(1).Ack(1).Size(1480))))
	script(sent(inOuter, inFrame(vxlan.Broadcast, hostMAC, 0x0806, arp(1, hostMAC, tenant.Addr(), 0, gateIP))), // the gateway is asked for, and sends echoes
		sent(repaired|inOuter, inFrame(gatewayMAC, hostMAC, 0x0800, pkttest.Echo(tenant.Addr(), gateIP, 7, 1).Bytes())), know)
	script(sent(inOuter6, nd(135, 0, 0x3333ff000001, netip.MustParseAddr("ff02::1:ff00:1"), gate6)), sent(repaired|inOuter6, inFrame(otherGateMAC, sixMAC, 0x86dd, pkttest.Echo(tenant6.Addr(), gate6, 7, 1).Bytes())))
	script(know, sent(inOuter, probe(vxlan.Broadcast, hostMAC)), sent(repaired|tagged30, inFrame(hostMAC, localMAC, 0x0800, pkttest.UDP(client, tenant).Size(1500).DF().Bytes()))) // is told of the MTU
	script(know, sent(byWAN, wanFrame(pkttest.TCP(client, overlayVIP).SYN())), sent(repaired|inOuter, inFrame(gatewayMAC, hostMAC, 0x0800,
		pkttest.ICMPTooBig(netip.MustParseAddr("198.19.1.9"), client.Addr(), 1300, pkttest.TCP(client, tenant).SYN().TTL(63).Bytes()).Bytes())))
	script(know, sent(byWAN, pkttest.Frame(pkttest.TCP(client, overlayVIP).SYN().Size(900).Cut(9, 400)[1], routerMAC, wanMAC)), sent(byWAN, pkttest.Frame(pkttest.TCP(client, overlayVIP).SYN().Size(900).Cut(9, 400)[0], routerMAC, wanMAC)))
	script(sent(tagged32, probe(vxlan.Broadcast, sixMAC)), sent(tagged30, probe(vxlan.Broadcast, sixMAC)), sent(byLAN, probe(sixMAC, localMAC)))
	script(sent(byWAN, pkttest.Frame(tunneled(peerVTEP, tenantVNI, probe(localMAC, hostMAC)), routerMAC, wanMAC)), sent(byWAN, pkttest.Frame(tunneled(web.Addr(), otherVNI, probe(localMAC, hostMAC)), routerMAC, wanMAC)),
		sent(byWAN, pkttest.Frame(tunneled6(probe(localMAC, hostMAC)), routerMAC, wanMAC)))
	for i := range 6 { // a station that moves until it is frozen
		f.Add(append(sent(inOuter, probe(vxlan.Broadcast, hostMAC)), sent(byte(tagged30+i%2), probe(vxlan.Broadcast, hostMAC))...))
	}
}
