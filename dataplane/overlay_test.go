package dataplane_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

// The overlay of these tests: segment 5001, whose gateway is 198.19.1.1, with a peer behind wan and an access port, VLAN 30 of lan.
const (
	tenantVNI  = 5001
	gatewayMAC = vxlan.MAC(0x020000005001)
	hostMAC    = vxlan.MAC(0x020000000a07)
	localMAC   = vxlan.MAC(0x020000000b08)
)

var (
	vtep     = netip.MustParseAddr("198.18.0.1")
	peerVTEP = router
	gateIP   = netip.MustParseAddr("198.19.1.1")
	tenant   = netip.MustParseAddrPort("198.19.1.7:8080")
)

// overlaid puts the segment into a bed's snapshot, and a service into it.
func overlaid(t testing.TB) []bedOption {
	t.Helper()
	s, err := vxlan.NewSegment(vxlan.SegmentOptions{
		TunnelOptions: vxlan.TunnelOptions{VNI: tenantVNI, Local: vtep}, Peers: []vxlan.PeerOptions{{Addr: peerVTEP}},
		Access: []vxlan.Access{{Port: lan, VLAN: 30, Used: true}}, Learning: true,
		Gateway: &vxlan.Gateway{MAC: gatewayMAC, Addresses: []vxlan.Interface{{Addr: vxlan.Addr{Lo: 0xc6130101}, Bits: 24}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	segments, err := vxlan.NewSegments([]*vxlan.Segment{s})
	if err != nil {
		t.Fatal(err)
	}
	stations, err := vxlan.NewFDB(vxlan.FDBOptions{Capacity: 64, Segments: 1})
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := vxlan.NewNeighbors(vxlan.NeighborsOptions{Capacity: 64, Segments: 1})
	if err != nil {
		t.Fatal(err)
	}
	stations.Configure(0, 32, 300)
	hosts.Configure(0, 32, 300)
	if err := stations.Add(0, gatewayMAC, vxlan.AtGateway, 1); err != nil {
		t.Fatal(err)
	}
	addr, _ := AddrOf(vtep)
	b := server(tenant, ForwardNAT)
	b.VNI = tenantVNI
	web := serving{vip: netip.MustParseAddrPort("198.18.9.9:90"), servers: []Backend{b}}
	return []bedOption{web.option(t), func(x *Snapshot, _ *Engine) {
		x.Overlay = &Overlay{Segments: segments, ByIndex: []*vxlan.Segment{s}, VTEPs: []VTEP{{Addr: addr, Port: vxlan.Port}}, Access: []bool{false, true}, Stations: stations, Hosts: hosts,
			Strangers: vxlan.NewStrangers([2]uint64{}), Entropy: vxlan.NewEntropy([2]uint64{1, 2}),
			Counts: []SegmentCounts{{Segment: make([]SegmentCounters, 1), Peers: [][]PlaceCounters{make([]PlaceCounters, 1)}, Access: [][]PlaceCounters{make([]PlaceCounters, 1)}}}}
	}}
}

// inFrame is an Ethernet frame around ip, or around whatever payload with another type.
func inFrame(dst, src vxlan.MAC, etherType uint16, payload []byte) []byte {
	b := make([]byte, 14, 14+len(payload))
	dst.Put(b)
	src.Put(b[6:])
	binary.BigEndian.PutUint16(b[12:], etherType)
	return append(b, payload...)
}

// tunneled is the outer packet from the peer around a frame.
func tunneled(from netip.Addr, vni uint32, frame []byte) []byte {
	h := make([]byte, 8, 8+len(frame))
	h[0] = 8
	binary.BigEndian.PutUint32(h[4:], vni<<8)
	return pkttest.UDP(netip.AddrPortFrom(from, 50000), netip.AddrPortFrom(vtep, 4789)).Payload(append(h, frame...)).Bytes()
}

// inner is the frame in an outer packet of ours, nil if it is none.
func inner(t *testing.T, frame []byte) []byte {
	t.Helper()
	if frame == nil {
		return nil
	}
	ip := frame[14:]
	if err := pkttest.Verify(ip); err != nil {
		t.Fatalf("outer packet: %v", err)
	}
	if len(ip) < 36 || ip[9] != packet.ProtoUDP || binary.BigEndian.Uint16(ip[22:]) != 4789 {
		t.Fatalf("not a packet of a tunnel: %s", pkttest.String(ip))
	}
	if vni := binary.BigEndian.Uint32(ip[32:]) >> 8; vni != tenantVNI || ip[28] != 8 {
		t.Fatalf("VNI %d, flags %#x", vni, ip[28])
	}
	return ip[36:]
}

func arp(op uint16, senderMAC vxlan.MAC, sender netip.Addr, targetMAC vxlan.MAC, target netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, byte(op)}
	m := make([]byte, 6)
	senderMAC.Put(m)
	b = append(append(b, m...), sender.AsSlice()...)
	targetMAC.Put(m)
	return append(append(b, m...), target.AsSlice()...)
}

func TestServiceInASegment(t *testing.T) {
	b := newBed(t, overlaid(t)...)
	at := netip.MustParseAddrPort("198.18.9.9:90")
	b.fromClient(pkttest.TCP(client, at).SYN().Bytes())
	b.round()
	// The gateway does not know the host yet: it asks all, by the peer and by the access port, and the SYN waits.
	ask := inner(t, b.take(wan))
	if ask == nil || binary.BigEndian.Uint16(ask[12:]) != 0x0806 || vxlan.MACOf(ask) != vxlan.Broadcast || vxlan.MACOf(ask[6:]) != gatewayMAC {
		t.Fatalf("no ARP request went into the tunnel: %x", ask)
	}
	if tagged := b.take(lan); tagged == nil || binary.BigEndian.Uint16(tagged[12:]) != 0x8100 || binary.BigEndian.Uint16(tagged[14:]) != 30 {
		t.Fatalf("no ARP request went to the access port: %x", tagged)
	}
	if b.worker.Holding() != 1 {
		t.Fatalf("%d frames wait, want the SYN", b.worker.Holding())
	}
	b.fromClient(tunneled(peerVTEP, tenantVNI, inFrame(gatewayMAC, hostMAC, 0x0806, arp(2, hostMAC, tenant.Addr(), gatewayMAC, gateIP))))
	b.round()
	b.round()
	syn := inner(t, b.take(wan))
	want := pkttest.TCP(client, tenant).SYN().TTL(63).Bytes()
	if syn == nil || string(syn[14:]) != string(want) || vxlan.MACOf(syn) != hostMAC || vxlan.MACOf(syn[6:]) != gatewayMAC {
		t.Fatalf("the SYN became %x, want %s", syn, pkttest.String(want))
	}
	b.fromClient(tunneled(peerVTEP, tenantVNI, inFrame(gatewayMAC, hostMAC, 0x0800, pkttest.TCP(tenant, client).SYN().Ack(1).Bytes())))
	b.round()
	answer := b.take(wan)
	if want := pkttest.TCP(at, client).SYN().Ack(1).TTL(63).Bytes(); answer == nil || string(answer[14:]) != string(want) {
		t.Fatalf("the answer became %x, want %s (%v)", answer, pkttest.String(want), b.dropped())
	}
	// Without the segment the same packet is nobody's.
	b.fromClient(tunneled(peerVTEP, tenantVNI+1, inFrame(gatewayMAC, hostMAC, 0x0800, pkttest.TCP(tenant, client).Ack(1).Bytes())))
	b.round()
	if d := b.dropped(); d != DropVXLANVNI {
		t.Errorf("a frame of another segment was dropped as %v", d)
	}
	// Too large for the tunnel: the client is told what is left of 1500.
	big := pkttest.TCP(client, at).Seq(1).Ack(1).Size(1451).DF().Bytes()
	if out, _ := b.through(false, big); out == nil || out[20] != 3 || out[21] != 4 || binary.BigEndian.Uint16(out[26:]) != 1450 {
		t.Errorf("a segment of 1451 bytes became %s", pkttest.String(out))
	}
}

func TestBridging(t *testing.T) {
	b := newBed(t, overlaid(t)...)
	broadcast := inFrame(vxlan.Broadcast, hostMAC, 0x88b5, make([]byte, 50))
	b.fromClient(tunneled(peerVTEP, tenantVNI, broadcast))
	b.round()
	if out := b.take(lan); out == nil || string(out[18:]) != string(broadcast[14:]) || b.take(wan) != nil {
		t.Fatalf("a broadcast from the tunnel: access port %x", out)
	}
	// The access host answers: known unicast to the peer.
	unicast := inFrame(hostMAC, localMAC, 0x88b5, make([]byte, 60))
	tagged := append(append(append([]byte(nil), unicast[:12]...), 0x81, 0, 0, 30), unicast[12:]...)
	b.inject(lan, tagged)
	b.round()
	if out := inner(t, b.take(wan)); string(out) != string(unicast) || b.take(lan) != nil {
		t.Fatalf("a known unicast frame became %x", out)
	}
	// Unknown unicast from the access port goes to the peer only; from the peer to the access port only.
	unknown := inFrame(0x020000000c09, localMAC, 0x88b5, make([]byte, 60))
	b.inject(lan, append(append(append([]byte(nil), unknown[:12]...), 0x81, 0, 0, 30), unknown[12:]...))
	b.round()
	if out := inner(t, b.take(wan)); string(out) != string(unknown) || b.take(lan) != nil {
		t.Fatalf("an unknown unicast frame became %x", out)
	}
	for _, x := range []struct {
		name string
		in   []byte
		want Drop
	}{
		{"to a station where it came from", tunneled(peerVTEP, tenantVNI, inFrame(hostMAC, 0x020000000d0a, 0x88b5, make([]byte, 50))), DropSameSide},
		{"from a stranger", tunneled(netip.MustParseAddr("198.18.0.77"), tenantVNI, broadcast), DropVXLANPeer},
		{"from ourselves to ourselves", tunneled(peerVTEP, tenantVNI, inFrame(gatewayMAC, gatewayMAC, 0x88b5, make([]byte, 50))), DropOwnMAC},
		{"tagged", tunneled(peerVTEP, tenantVNI, append(append(append([]byte(nil), broadcast[:12]...), 0x81, 0, 0, 5), broadcast[12:]...)), DropVXLANTagged},
		{"cut off", tunneled(peerVTEP, tenantVNI, broadcast[:8]), DropVXLANShort},
		{"IP to the gateway for nobody", tunneled(peerVTEP, tenantVNI, inFrame(gatewayMAC, hostMAC, 0x0800, pkttest.UDP(tenant, client).Bytes())), DropNoRoute},
	} {
		b.fromClient(x.in)
		b.round()
		if d := b.dropped(); d != x.want {
			t.Errorf("%s: dropped as %v, want %v", x.name, d, x.want)
		}
		for p := range b.ports {
			if out := b.take(p); out != nil {
				t.Errorf("%s: %x left", x.name, out)
			}
		}
	}
}

func TestGatewayAnswers(t *testing.T) {
	b := newBed(t, overlaid(t)...)
	b.fromClient(tunneled(peerVTEP, tenantVNI, inFrame(vxlan.Broadcast, hostMAC, 0x0806, arp(1, hostMAC, tenant.Addr(), 0, gateIP))))
	b.round()
	if out := inner(t, b.take(wan)); out == nil || vxlan.MACOf(out) != hostMAC || string(out[14:]) != string(arp(2, gatewayMAC, gateIP, hostMAC, tenant.Addr())) {
		t.Fatalf("ARP for the gateway was answered with %x", out)
	}
	echo := pkttest.Echo(tenant.Addr(), gateIP, 7, 1)
	b.fromClient(tunneled(peerVTEP, tenantVNI, inFrame(gatewayMAC, hostMAC, 0x0800, echo.Bytes())))
	b.round()
	out := inner(t, b.take(wan))
	if out != nil && out[12] == 8 && out[13] == 6 {
		out = inner(t, b.take(wan)) // that the host asked is no proof that it hears us, so the gateway asks, too
	}
	if out == nil || out[14+20] != 0 || vxlan.MACOf(out) != hostMAC || pkttest.Verify(out[14:]) != nil {
		t.Fatalf("an echo request to the gateway was answered with %x (%v)", out, b.dropped())
	}
}

// A SYN into a segment, and a SYN+ACK out of one, announce no larger segments than fit into the tunnel; the checksum goes along.
func TestSegmentSizeIsClamped(t *testing.T) {
	b := newBed(t, overlaid(t)...)
	b.fromClient(tunneled(peerVTEP, tenantVNI, inFrame(gatewayMAC, hostMAC, 0x0806, arp(2, hostMAC, tenant.Addr(), gatewayMAC, gateIP))))
	b.round()
	at := netip.MustParseAddrPort("198.18.9.9:90")
	for name, x := range map[string]struct {
		options []byte
		at      int
		want    uint16
	}{
		"larger":                 {[]byte{2, 4, 0x05, 0xb4}, 22, 1410},
		"larger, at an odd byte": {[]byte{1, 2, 4, 0x05, 0xb4, 1, 1, 1}, 23, 1410},
		"smaller":                {[]byte{2, 4, 0x02, 0x00}, 22, 512},
	} {
		c := netip.AddrPortFrom(client.Addr(), uint16(5000+len(name)))
		b.fromClient(pkttest.TCP(c, at).SYN().TCPOptions(x.options...).Bytes())
		b.round()
		syn := inner(t, b.take(wan))
		if syn == nil || binary.BigEndian.Uint16(syn[34+x.at:]) != x.want || pkttest.Verify(syn[14:]) != nil {
			t.Errorf("%s: a SYN became %x (%v)", name, syn, b.dropped())
		}
		b.fromClient(tunneled(peerVTEP, tenantVNI, inFrame(gatewayMAC, hostMAC, 0x0800, pkttest.TCP(tenant, c).SYN().Ack(1).TCPOptions(x.options...).Bytes())))
		b.round()
		answer := b.take(wan)
		if answer == nil || binary.BigEndian.Uint16(answer[34+x.at:]) != x.want || pkttest.Verify(answer[14:]) != nil {
			t.Errorf("%s: a SYN+ACK became %x (%v)", name, answer, b.dropped())
		}
	}
}

// An IPv4 packet without DF that does not fit is cut before it enters the tunnel, whose own packets are never cut.
func TestWhatDoesNotFitIsCutInside(t *testing.T) {
	b := newBed(t, overlaid(t)...)
	at := netip.MustParseAddrPort("198.18.9.9:90")
	b.fromClient(tunneled(peerVTEP, tenantVNI, inFrame(gatewayMAC, hostMAC, 0x0806, arp(2, hostMAC, tenant.Addr(), gatewayMAC, gateIP))))
	b.round()
	b.fromClient(pkttest.TCP(client, at).SYN().Bytes())
	b.round()
	b.take(wan)
	b.fromClient(pkttest.TCP(client, at).Seq(1).Ack(1).Size(1500).Bytes())
	b.round()
	var pieces [][]byte
	for f := b.take(wan); f != nil; f = b.take(wan) {
		pieces = append(pieces, inner(t, f)[14:])
	}
	whole := pkttest.Join(pieces...)
	if want := pkttest.TCP(client, tenant).Seq(1).Ack(1).Size(1500).TTL(63).Bytes(); len(pieces) != 2 || string(whole) != string(want) {
		t.Fatalf("%d pieces: %s (%v)", len(pieces), pkttest.String(whole), b.dropped())
	}
}

// A bridged frame that does not fit into the tunnel: its sender is told by the gateway what does.
func TestStationIsToldOfTheTunnelsMTU(t *testing.T) {
	b := newBed(t, overlaid(t)...)
	b.fromClient(tunneled(peerVTEP, tenantVNI, inFrame(vxlan.Broadcast, hostMAC, 0x88b5, make([]byte, 50))))
	b.round()
	b.take(lan)
	big := pkttest.UDP(netip.MustParseAddrPort("198.19.1.8:9"), tenant).Payload(make([]byte, 1472)).DF().Bytes()
	frame := inFrame(hostMAC, localMAC, 0x0800, big)
	b.inject(lan, append(append(append([]byte(nil), frame[:12]...), 0x81, 0, 0, 30), frame[12:]...))
	b.round()
	out := b.take(lan)
	if out == nil || vxlan.MACOf(out) != localMAC || vxlan.MACOf(out[6:]) != gatewayMAC || binary.BigEndian.Uint16(out[14:]) != 30 {
		t.Fatalf("the sender got %x (%v)", out, b.dropped())
	}
	ip := out[18:]
	if err := pkttest.Verify(ip); err != nil || ip[20] != 3 || ip[21] != 4 || binary.BigEndian.Uint16(ip[26:]) != 1450 || netip.AddrFrom4([4]byte(ip[12:16])) != gateIP {
		t.Errorf("the sender was told %s (%v)", pkttest.String(ip), err)
	}
}

// TestStationsAgeInShortRounds: stations and hosts age whether a worker's rounds are short, in which less than a slot of their tables is due to be
// looked at, or long.
func TestStationsAgeInShortRounds(t *testing.T) {
	for _, every := range []time.Duration{100 * time.Microsecond, 3 * time.Millisecond, 5 * time.Millisecond, 100 * time.Millisecond} {
		b := newBed(t, overlaid(t)...)
		o := b.snap.Overlay
		o.Stations.Configure(0, 32, 3)
		o.Hosts.Configure(0, 32, 3)
		b.round()
		addr, _ := vxlan.AddrOf(tenant.Addr())
		start := b.now
		o.Stations.Learn(0, hostMAC, vxlan.AtPeer(0), vxlan.SecondOf(start))
		o.Hosts.Learn(0, addr, false, hostMAC, vxlan.Confirmed, vxlan.SecondOf(start))
		for stations, hosts := o.Stations.Len(), o.Hosts.Len(); o.Stations.Len() == stations || o.Hosts.Len() == hosts; {
			if b.now += int64(every); b.now > start+6e9 {
				t.Errorf("a round each %s: %d stations and %d hosts after 6 s, want one less of each", every, o.Stations.Len(), o.Hosts.Len())
				break
			}
			b.worker.Round(b.now)
		}
	}
}
