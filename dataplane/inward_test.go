package dataplane_test

import (
	"bytes"
	"net/netip"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/route"
	"weir/vxlan"
)

// TestExpressIntoSegment sends packets of one connection into tunnels of every kind. Each must be what the tunnel itself makes of the translated
// packet, behind the next hop's Ethernet header.
func TestExpressIntoSegment(t *testing.T) {
	at := netip.MustParseAddrPort("198.18.9.9:90")
	vtep6, peer6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	for _, c := range []struct {
		name string
		edit func(o *vxlan.SegmentOptions)
		vlan uint16 // of the underlay
		v6   bool
	}{
		{name: "IPv4", edit: func(*vxlan.SegmentOptions) {}},
		{name: "IPv4, other ports, DSCP and TTL", edit: func(o *vxlan.SegmentOptions) { o.SourcePorts, o.DSCP, o.TTL = [2]uint16{2000, 2002}, 46, 9 }},
		{name: "IPv4, inherited TTL", edit: func(o *vxlan.SegmentOptions) { o.InheritTTL = true }},
		{name: "IPv4, inherited DSCP", edit: func(o *vxlan.SegmentOptions) { o.InheritDSCP = true }},
		{name: "IPv4 with checksum", edit: func(o *vxlan.SegmentOptions) { o.Checksum = true }},
		{name: "IPv4 in a VLAN", edit: func(*vxlan.SegmentOptions) {}, vlan: 7},
		{name: "IPv6", edit: func(o *vxlan.SegmentOptions) { o.Local, o.Peers[0].Addr = vtep6, peer6 }, v6: true},
		{name: "IPv6 in a VLAN", edit: func(o *vxlan.SegmentOptions) { o.Local, o.Peers[0].Addr = vtep6, peer6 }, vlan: 7, v6: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, append(shaped(t, c.edit), func(s *Snapshot, _ *Engine) {
				s.Ports[wan].VLAN = c.vlan
				s.Routes = route.NewTable([]route.Route{
					{To: netip.MustParsePrefix("198.18.0.0/24"), Hops: []route.Hop{{Port: wan, Weight: 1}}},
					{To: netip.MustParsePrefix("198.18.128.0/17"), Hops: []route.Hop{{Via: router, Port: wan, Weight: 1}}},
					{To: netip.MustParsePrefix("2001:db8::/64"), Hops: []route.Hop{{Port: wan, Weight: 1}}},
				})
				addr, v6 := AddrOf(vtep6)
				s.Overlay.VTEPs = append(s.Overlay.VTEPs, VTEP{Addr: addr, V6: v6, Port: vxlan.Port})
			})...)
			o := b.snap.Overlay
			s := o.ByIndex[0]
			if err := o.Stations.Add(0, hostMAC, vxlan.AtPeer(0), 1); err != nil {
				t.Fatal(err)
			}
			addr, _ := vxlan.AddrOf(tenant.Addr())
			o.Hosts.Learn(0, addr, false, hostMAC, vxlan.Confirmed, vxlan.SecondOf(b.now))
			var vlans []uint16
			if c.vlan != 0 {
				vlans = []uint16{c.vlan}
			}
			in := func(ip []byte) []byte {
				b.inject(wan, pkttest.Frame(ip, routerMAC, wanMAC, vlans...))
				b.round()
				out := b.take(wan)
				if out == nil {
					t.Fatalf("%s was not forwarded (%v)", pkttest.String(ip), b.dropped())
				}
				return out
			}
			in(pkttest.TCP(client, at).SYN().Bytes())
			answer := append([]byte{8, 0, 0, 0, 0, tenantVNI >> 8, tenantVNI & 0xff, 0}, inFrame(gatewayMAC, hostMAC, 0x0800, pkttest.TCP(tenant, client).SYN().Ack(1).Bytes())...)
			from, to := netip.AddrPortFrom(peerVTEP, 50000), netip.AddrPortFrom(vtep, 4789)
			if c.v6 {
				from, to = netip.AddrPortFrom(peer6, 50000), netip.AddrPortFrom(vtep6, 4789)
			}
			in(pkttest.UDP(from, to).Payload(answer).Bytes())
			in(pkttest.TCP(client, at).Seq(1).Ack(1).Bytes())

			pool, err := packet.NewPool(make([]byte, 2048), 2048)
			if err != nil {
				t.Fatal(err)
			}
			before := packet.Headroom - s.Tunnel(vxlan.AtPeer(0)).Overhead()
			link := pkttest.Frame(nil, wanMAC, routerMAC, vlans...)
			frames, sum := uint64(0), uint64(0)
			for tos := range 256 {
				ttl, size := uint8(2+tos%200), 40+tos
				out := in(pkttest.TCP(client, at).Seq(1).Ack(1).TTL(ttl).TOS(uint8(tos)).Size(size).Bytes())
				inner := inFrame(hostMAC, gatewayMAC, 0x0800, pkttest.TCP(client, tenant).Seq(1).Ack(1).TTL(ttl-1).TOS(uint8(tos)).Size(size).Bytes())
				frames, sum = frames+1, sum+uint64(len(inner))
				copy(pool.Memory()[packet.Headroom:], inner)
				var f packet.Frame
				if !f.Open(pool, packet.Desc{Addr: packet.Headroom, Len: uint32(len(inner))}) || packet.Parse(&f) != packet.FaultNone {
					t.Fatal("the inner frame is not one")
				}
				f.DstPort = at.Port() // flows are told apart by the ports that they came with
				if !s.Tunnel(vxlan.AtPeer(0)).Encap(&f, o.Entropy.Of(&f)) || int(f.Start) != before+14 {
					t.Fatalf("the outer header begins at %d", f.Start)
				}
				if !bytes.Equal(out[:12], link[:12]) || !bytes.Equal(out[len(link):], f.Bytes()) {
					t.Fatalf("TOS %#x became\n% x, want\n% x % x", tos, out, link, f.Bytes())
				}
				if err := pkttest.Verify(out[len(link):]); err != nil {
					t.Fatal(err)
				}
			}
			total, _ := o.Counts[0].Sum()
			peer := SumPlace(o.Counts[0].Peers[0])
			if total.OutFrames != frames+2 || peer.OutFrames != frames+2 || peer.OutBytes != total.OutBytes || peer.OutBytes <= sum || peer.OutBytes > sum+150 {
				t.Errorf("counted %+v, to the peer %+v; want %d frames and two of the handshake, and %d bytes of these", total, peer, frames, sum)
			}
		})
	}
}

// TestExpressAsksAll sends vectors to a server in a segment that has stopped to answer ARP, so that first it and then all of the segment's 300 VTEPs are
// asked for it, in the midst of express. The requests lie in the same outbox as the packets, and all of them leave.
func TestExpressAsksAll(t *testing.T) {
	const peers = 300
	at := netip.MustParseAddrPort("198.18.9.9:90")
	one := newBed(t, append(shaped(t, func(o *vxlan.SegmentOptions) {
		for i := range peers - 1 {
			o.Peers = append(o.Peers, vxlan.PeerOptions{Addr: netip.AddrFrom4([4]byte{198, 18, 130 + byte(i>>8), byte(i)})}) // behind the router
		}
	}), func(s *Snapshot, _ *Engine) { s.Overlay.Counts = nil })...)
	b := roomy(t, one, 2048)
	o := b.snap.Overlay
	if err := o.Stations.Add(0, hostMAC, vxlan.AtPeer(0), 1); err != nil {
		t.Fatal(err)
	}
	addr, _ := vxlan.AddrOf(tenant.Addr())
	o.Hosts.Learn(0, addr, false, hostMAC, vxlan.Confirmed, vxlan.SecondOf(b.now))
	b.fromClient(pkttest.TCP(client, at).SYN().Bytes())
	b.round()
	b.fromClient(tunneled(peerVTEP, tenantVNI, inFrame(gatewayMAC, hostMAC, 0x0800, pkttest.TCP(tenant, client).SYN().Ack(1).Bytes())))
	b.round()
	b.fromClient(pkttest.TCP(client, at).Seq(1).Ack(1).Bytes())
	b.round()
	for b.take(wan) != nil {
	}
	b.now += 31e9
	asked := 0
	for second := 0; asked < 2 && second < 10; second++ {
		for range packet.VectorSize {
			b.fromClient(pkttest.TCP(client, at).Seq(1).Ack(1).Bytes())
		}
		b.round()
		n := 0
		for b.take(wan) != nil {
			n++
		}
		switch n {
		case packet.VectorSize + 1: // it alone is asked
		case packet.VectorSize + peers:
			asked++
		default:
			t.Errorf("second %d: %d frames left, want %d packets, and 1 request or %d", second, n, packet.VectorSize, peers)
		}
		b.now += 1e9
	}
	if asked < 2 {
		t.Errorf("all were asked %d times while the server's address was known, want 2: the test shows nothing", asked)
	}
}

// roomy is a bed of the snapshot of another, with more frame memory.
func roomy(t testing.TB, one *bed, chunks int) *bed {
	t.Helper()
	table, err := conntrack.New(conntrack.Options{Capacity: 1024, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	b := &bed{t: t, now: one.now, engine: NewEngine(Options{Table: table, MaxBackends: 64}), snap: one.snap}
	b.publish()
	if b.pool, err = packet.NewPool(make([]byte, chunks*2048), 2048); err != nil {
		t.Fatal(err)
	}
	var queues []driver.Queue
	for i := range b.ports {
		if b.ports[i], err = mem.NewPort(b.pool, mem.Options{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.ports[i].Close() })
		queues = append(queues, b.ports[i])
	}
	b.worker = b.engine.AddWorker(b.pool, queues)
	return b
}
