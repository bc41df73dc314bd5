package dataplane_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

// shaped is overlaid with the segment made otherwise, and the tunnel ends to fit.
func shaped(t testing.TB, edit func(o *vxlan.SegmentOptions)) []bedOption {
	t.Helper()
	o := vxlan.SegmentOptions{
		TunnelOptions: vxlan.TunnelOptions{VNI: tenantVNI, Local: vtep}, Peers: []vxlan.PeerOptions{{Addr: peerVTEP}},
		Access: []vxlan.Access{{Port: lan, VLAN: 30, Used: true}}, Learning: true,
		Gateway: &vxlan.Gateway{MAC: gatewayMAC, Addresses: []vxlan.Interface{{Addr: vxlan.Addr{Lo: 0xc6130101}, Bits: 24}}},
	}
	edit(&o)
	s, err := vxlan.NewSegment(o)
	if err != nil {
		t.Fatal(err)
	}
	segments, err := vxlan.NewSegments([]*vxlan.Segment{s})
	if err != nil {
		t.Fatal(err)
	}
	return append(overlaid(t), func(x *Snapshot, _ *Engine) {
		x.Overlay.Segments, x.Overlay.ByIndex = segments, []*vxlan.Segment{s}
		if o.Group.IsValid() {
			addr, v6 := AddrOf(o.Group)
			x.Overlay.VTEPs = append(x.Overlay.VTEPs, VTEP{Addr: addr, V6: v6, Port: vxlan.Port})
		}
	})
}

// tag puts a VLAN tag into a frame.
func tag(vlan uint16, frame []byte) []byte {
	return slices.Concat(frame[:12], []byte{0x81, 0, byte(vlan >> 8), byte(vlan)}, frame[12:])
}

// stranger is a VTEP that nobody has configured.
var stranger = netip.MustParseAddr("198.18.0.77")

// Lines 16, 40 and 44 of docs/rfc7348.md: a group gets one copy of what is for all, at the MAC address that follows from its own, and nothing of
// what came through a tunnel.
func TestFloodToGroup(t *testing.T) {
	group := netip.MustParseAddr("239.129.2.3")
	b := newBed(t, shaped(t, func(o *vxlan.SegmentOptions) { o.Group, o.GroupPort, o.Open = group, wan, true })...)
	woken := 0
	b.engine.Wake = func() { woken++ }
	frame := inFrame(vxlan.Broadcast, localMAC, 0x88b5, make([]byte, 50))
	b.inject(lan, tag(30, frame))
	b.round()
	out := b.take(wan)
	if string(inner(t, out)) != string(frame) || b.take(wan) != nil {
		t.Fatalf("a broadcast became %x", out)
	}
	if want := [6]byte{0x01, 0x00, 0x5e, 1, 2, 3}; [6]byte(out) != want || [6]byte(out[6:]) != [6]byte(wanMAC) || netip.AddrFrom4([4]byte(out[30:])) != group {
		t.Errorf("it went to % x from % x, %v", out[:6], out[6:12], netip.AddrFrom4([4]byte(out[30:])))
	}
	// Whoever sends to the group is heard, but nothing is learned of it until control has made it a peer.
	payload := append([]byte{8, 0, 0, 0, 0, tenantVNI >> 8, tenantVNI & 0xff, 0}, inFrame(vxlan.Broadcast, hostMAC, 0x88b5, make([]byte, 50))...)
	to := pkttest.UDP(netip.AddrPortFrom(stranger, 50000), netip.AddrPortFrom(group, 4789)).Payload(payload).Bytes()
	for range 3 {
		b.fromClient(to)
		b.round()
		if out := b.take(lan); out == nil || vxlan.MACOf(out[6:]) != hostMAC || b.take(wan) != nil {
			t.Fatalf("a stranger's broadcast to the group became %x (%v)", out, b.dropped())
		}
	}
	if list, _ := b.snap.Overlay.Strangers.List(); len(list) != 1 || list[0].Addr != stranger || list[0].Count != 3 || woken != 1 {
		t.Errorf("strangers %+v, control was woken %d times", list, woken)
	}
	b.inject(lan, tag(30, inFrame(hostMAC, localMAC, 0x88b5, make([]byte, 50))))
	b.round()
	if out := b.take(wan); out == nil || netip.AddrFrom4([4]byte(out[30:])) != group {
		t.Errorf("what is for a station behind a stranger became %x, want it to be flooded", out)
	}
	b.inject(lan, tag(30, inFrame(vxlan.Broadcast, localMAC, 0x88b5, make([]byte, 1460))))
	b.round()
	if d := b.dropped(); d != DropTooBig {
		t.Errorf("what is too large for the group's port was dropped as %v", d)
	}
}

func TestFloodLimit(t *testing.T) {
	gate := new(vxlan.Gate)
	gate.Set(10)
	b := newBed(t, shaped(t, func(o *vxlan.SegmentOptions) { o.BUM = gate })...)
	flood := inFrame(0x020000000c09, localMAC, 0x88b5, make([]byte, 50)) // unknown unicast
	count := func(n int) (sent int) {
		for range n {
			b.inject(lan, tag(30, flood))
			b.round()
			if b.take(wan) != nil {
				sent++
			} else if d := b.dropped(); d != DropFloodLimit {
				t.Fatalf("dropped as %v", d)
			}
		}
		return sent
	}
	if n := count(40); n != 10 {
		t.Errorf("of 40 frames at once %d were flooded, want the burst of 10", n)
	}
	b.now += 500e6
	if n := count(40); n != 5 {
		t.Errorf("half a second later %d were flooded, want 5", n)
	}
	// The gateway asks for a host nevertheless.
	b.fromClient(pkttest.TCP(client, netip.MustParseAddrPort("198.18.9.9:90")).SYN().Bytes())
	b.round()
	if ask := inner(t, b.take(wan)); ask == nil || binary.BigEndian.Uint16(ask[12:]) != 0x0806 {
		t.Errorf("the gateway's request became %x", ask)
	}
}

// A static station's frame from elsewhere is dropped also where nothing is learned: of a stranger, and without learning.
func TestImpostors(t *testing.T) {
	const fixed = vxlan.MAC(0x020000000f09)
	for name, edit := range map[string]func(o *vxlan.SegmentOptions){
		"open":             func(o *vxlan.SegmentOptions) { o.Open = true },
		"without learning": func(o *vxlan.SegmentOptions) { o.Open, o.Learning = true, false },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, shaped(t, edit)...)
			if err := b.snap.Overlay.Stations.Add(0, fixed, vxlan.AtPeer(0), 1); err != nil {
				t.Fatal(err)
			}
			for _, x := range []struct {
				from netip.Addr
				mac  vxlan.MAC
				want Drop
			}{
				{stranger, hostMAC, DropNone}, {peerVTEP, fixed, DropNone}, {stranger, fixed, DropStaticMAC},
				{stranger, gatewayMAC, DropNone}, // it may be a gateway that shares ours
			} {
				b.fromClient(tunneled(x.from, tenantVNI, inFrame(vxlan.Broadcast, x.mac, 0x88b5, make([]byte, 50))))
				b.round()
				if out := b.take(lan); (out != nil) != (x.want == DropNone) || x.want != DropNone && b.dropped() != x.want {
					t.Errorf("%v from %v: %x left, dropped as %v, want %v", x.mac, x.from, out, b.dropped(), x.want)
				}
			}
		})
	}
}

// mssOf is the MSS in the SYN of a frame without tag, whose checksum must be right.
func mssOf(t *testing.T, frame []byte) int {
	t.Helper()
	if frame == nil {
		t.Fatal("nothing left")
	}
	ip := frame[14:]
	if err := pkttest.Verify(ip); err != nil {
		t.Fatal(err)
	}
	return int(binary.BigEndian.Uint16(ip[20+20+2:]))
}

func TestMSSClamp(t *testing.T) {
	at := netip.MustParseAddrPort("198.18.9.9:90")
	mss := []byte{2, 4, 0x05, 0xb4} // 1460
	for _, x := range []struct {
		name             string
		clamp            vxlan.Clamp
		service, bridged int
	}{{"services", vxlan.ClampServices, 1410, 1460}, {"none", vxlan.ClampNone, 1460, 1460}, {"all", vxlan.ClampAll, 1410, 1410}} {
		t.Run(x.name, func(t *testing.T) {
			b := newBed(t, shaped(t, func(o *vxlan.SegmentOptions) { o.Clamp = x.clamp })...)
			syn := pkttest.TCP(client, at).SYN().TCPOptions(mss...)
			b.fromClient(tunneled(peerVTEP, tenantVNI, inFrame(gatewayMAC, hostMAC, 0x0806, arp(1, hostMAC, tenant.Addr(), 0, gateIP))))
			b.round()
			for b.take(wan) != nil { // the gateway's answers
			}
			b.fromClient(syn.Bytes())
			b.round()
			out := b.take(wan)
			for out != nil && inner(t, out)[12] == 8 && inner(t, out)[13] == 6 { // it asks whether the host is there still
				out = b.take(wan)
			}
			if got := mssOf(t, inner(t, out)); got != x.service {
				t.Errorf("to a service: MSS %d, want %d", got, x.service)
			}
			b.fromClient(tunneled(peerVTEP, tenantVNI, inFrame(gatewayMAC, hostMAC, 0x0800, pkttest.TCP(tenant, client).SYN().Ack(1).TCPOptions(mss...).Bytes())))
			b.round()
			if got := mssOf(t, b.take(wan)); got != x.service {
				t.Errorf("from a service: MSS %d, want %d", got, x.service)
			}
			other := netip.MustParseAddrPort("198.19.1.8:9")
			b.inject(lan, tag(30, inFrame(hostMAC, localMAC, 0x0800, pkttest.TCP(other, tenant).SYN().TCPOptions(mss...).Bytes())))
			b.round()
			if got := mssOf(t, inner(t, b.take(wan))); got != x.bridged {
				t.Errorf("bridged into the tunnel: MSS %d, want %d", got, x.bridged)
			}
			b.fromClient(tunneled(peerVTEP, tenantVNI, inFrame(localMAC, hostMAC, 0x0800, pkttest.TCP(tenant, other).SYN().Ack(1).TCPOptions(mss...).Bytes())))
			b.round()
			back := b.take(lan)
			if got := mssOf(t, slices.Concat(back[:12], back[16:])); got != x.bridged {
				t.Errorf("bridged out of the tunnel: MSS %d, want %d", got, x.bridged)
			}
			// What is wrong with a bridged segment is its receiver's to find.
			for _, offset := range []byte{0, 4, 15} {
				bad := pkttest.TCP(other, tenant).SYN().TCPOptions(mss...).Bytes()
				bad[20+12] = offset << 4
				frame := inFrame(hostMAC, localMAC, 0x0800, bad)
				b.inject(lan, tag(30, frame))
				b.round()
				if out := inner(t, b.take(wan)); string(out) != string(frame) {
					t.Errorf("with a data offset of %d it became %x", offset, out)
				}
			}
		})
	}
}

// Line 31: tags that a segment keeps go through both ways, and the gateway is in none of their VLANs.
func TestKeptTags(t *testing.T) {
	b := newBed(t, shaped(t, func(o *vxlan.SegmentOptions) { o.Policy.KeepTags = true })...)
	in := tag(7, inFrame(vxlan.Broadcast, hostMAC, 0x88b5, make([]byte, 50)))
	b.fromClient(tunneled(peerVTEP, tenantVNI, in))
	b.round()
	if out := b.take(lan); string(out) != string(tag(30, in)) {
		t.Fatalf("%x became %x (%v)", in, out, b.dropped())
	}
	back := tag(7, inFrame(hostMAC, localMAC, 0x88b5, make([]byte, 50)))
	b.inject(lan, tag(30, back))
	b.round()
	if out := inner(t, b.take(wan)); string(out) != string(back) {
		t.Fatalf("%x became %x (%v)", back, out, b.dropped())
	}
	// A tag is no part of what an MTU counts.
	long := tag(7, inFrame(localMAC, hostMAC, 0x88b5, make([]byte, 1446)))
	b.fromClient(tunneled(peerVTEP, tenantVNI, long))
	b.snap.Ports = slices.Clone(b.snap.Ports)
	b.snap.Ports[lan].MTU = 1446
	b.publish()
	b.round()
	if out := b.take(lan); string(out) != string(tag(30, long)) {
		t.Errorf("%d bytes with a tag became %d (%v)", len(long), len(out), b.dropped())
	}
	b.fromClient(tunneled(peerVTEP, tenantVNI, tag(7, inFrame(vxlan.Broadcast, hostMAC, 0x0806, arp(1, hostMAC, tenant.Addr(), 0, gateIP)))))
	b.round()
	if out := b.take(lan); out == nil || b.take(wan) != nil {
		t.Errorf("a tagged ARP request for the gateway was answered, and not bridged: %x", out)
	}
}

// FuzzSegment puts any bytes into a segment, by its access port and through its tunnel, with every option that reads more of a frame. Verdicts
// and chunks must add up, whatever it is.
func FuzzSegment(f *testing.F) {
	mss := []byte{2, 4, 0x05, 0xb4}
	other := netip.MustParseAddrPort("198.19.1.8:9")
	syn := inFrame(hostMAC, localMAC, 0x0800, pkttest.TCP(other, tenant).SYN().TCPOptions(mss...).Bytes())
	for _, seed := range [][]byte{
		syn, tag(7, syn), tag(7, tag(8, syn)), inFrame(vxlan.Broadcast, hostMAC, 0x0806, arp(1, hostMAC, tenant.Addr(), 0, gateIP)), syn[:14], syn[:40],
		inFrame(gatewayMAC, hostMAC, 0x0800, pkttest.Echo(tenant.Addr(), gateIP, 7, 1).Bytes()), inFrame(vxlan.Broadcast, localMAC, 0x88b5, make([]byte, 1500)),
		inFrame(hostMAC, localMAC, 0x86dd, pkttest.TCP(client6, web6).SYN().TCPOptions(mss...).Bytes()),
	} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	gate := new(vxlan.Gate)
	gate.Set(1000)
	b := newBed(f, shaped(f, func(o *vxlan.SegmentOptions) {
		o.Group, o.GroupPort, o.Open, o.Clamp, o.Policy.KeepTags, o.BUM = netip.MustParseAddr("239.1.1.1"), wan, true, vxlan.ClampAll, true, gate
		o.InheritTTL, o.InheritDSCP = true, true
	})...)
	f.Fuzz(func(t *testing.T, frame []byte, tunnel bool) {
		if len(frame) > 1700 || len(frame) < 14 {
			t.Skip("no frame that a driver gives out")
		}
		b.t = t
		b.now += 1e6
		if tunnel {
			b.fromClient(tunneled(stranger, tenantVNI, frame))
		} else {
			b.inject(lan, tag(30, frame))
		}
		b.round()
		for p := range b.ports {
			for b.take(p) != nil {
			}
		}
	})
}

// A stranger that asks the gateway in an open segment is answered in the group, which it listens to. Without a group no tunnel leads to it until it is a
// peer: the answer is not flooded to those who are, for whoever forges its source would have many frames sent for one.
func TestAnswersToStrangers(t *testing.T) {
	group := netip.MustParseAddr("239.129.2.3")
	others := []vxlan.PeerOptions{{Addr: peerVTEP}, {Addr: netip.MustParseAddr("198.18.0.21")}, {Addr: netip.MustParseAddr("198.18.0.22")}}
	for name, x := range map[string]struct {
		edit func(o *vxlan.SegmentOptions)
		sent int
	}{
		"group":    {func(o *vxlan.SegmentOptions) { o.Group, o.GroupPort, o.Open = group, wan, true }, 1},
		"head-end": {func(o *vxlan.SegmentOptions) { o.Peers, o.Open = others, true }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, shaped(t, x.edit)...)
			ask := inFrame(vxlan.Broadcast, hostMAC, 0x0806, arp(1, hostMAC, tenant.Addr(), 0, gateIP))
			b.fromClient(tunneled(stranger, tenantVNI, ask))
			b.round()
			sent := 0
			for out := b.take(wan); out != nil; out = b.take(wan) {
				if f := inner(t, out); vxlan.MACOf(f) != hostMAC || netip.AddrFrom4([4]byte(out[30:])) != group {
					t.Errorf("to %v went %x", netip.AddrFrom4([4]byte(out[30:])), f)
				}
				sent++
			}
			v, _ := b.engine.Verdicts()
			if lost := b.worker.Counters.Sum().AnswerLost; sent != x.sent || v.Answered != 1 || lost != uint64(1-x.sent) || b.worker.Holding() != 0 || b.take(lan) != nil {
				t.Errorf("%d frames were sent, want %d; %d answered, %d lost, %d wait", sent, x.sent, v.Answered, lost, b.worker.Holding())
			}
		})
	}
}
