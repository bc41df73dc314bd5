package dataplane_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
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

// TestExpressIntoSegmentTwins plays the same datagrams, to three servers in a segment and one outside, into two engines. The frames of the second are for a
// group, which glance does not mind, on a port of a segment, where nobody glances: there all goes through the stages. Stations move, age and are asked for,
// the next hop of tunnels is lost and found. What leaves and all that is counted must be the same.
func TestExpressIntoSegmentTwins(t *testing.T) {
	const servers = 3
	at := netip.MustParseAddrPort("198.18.9.9:91")
	addrs := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, 1, byte(20 + i)}), 8080)
	}
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 5))
		var beds [2]*bed
		for k := range beds {
			s := serving{vip: at, protocol: packet.ProtoUDP, servers: []Backend{server(netip.AddrPortFrom(second, 77), ForwardNAT)}}
			for i := range servers {
				s.servers = append(s.servers, inSegment(addrs(i), tenantVNI, ""))
			}
			beds[k] = newBed(t, append(shaped(t, func(o *vxlan.SegmentOptions) {
				o.Peers = append(o.Peers, vxlan.PeerOptions{Addr: second}, vxlan.PeerOptions{Addr: netip.MustParseAddr("198.18.128.200")})
				o.Checksum = seed%3 == 1
			}), s.option(t), func(s *Snapshot, _ *Engine) {
				s.Ports[lan].MTU = 1400
				c := &s.Overlay.Counts[0]
				c.Peers = append(c.Peers, make([]PlaceCounters, 1), make([]PlaceCounters, 1))
				s.Overlay.Access[wan] = k == 1
			})...)
		}
		frames := 0
		for step := range 400 {
			for range 1 + r.IntN(40) {
				f := toSegment(r, at).Frame(routerMAC, wanMAC)
				beds[0].inject(wan, f)
				f[0] |= 1
				beds[1].inject(wan, f)
			}
			asked, moved := r.IntN(20*servers), r.IntN(20*servers)
			to := []vxlan.Place{vxlan.AtPeer(0), vxlan.AtPeer(1), vxlan.AtPeer(2), vxlan.AtAccess(0)}[r.IntN(4)]
			change, now := r.IntN(40), beds[0].now+5e6+int64(r.IntN(3))*int64(r.IntN(900e6)) // a tick at least: ways are kept for one
			for _, b := range beds {
				b.now = now
				o, second := b.snap.Overlay, vxlan.SecondOf(now)
				if asked < servers {
					addr, _ := vxlan.AddrOf(addrs(asked).Addr())
					o.Hosts.Learn(0, addr, false, hostMAC+vxlan.MAC(asked), vxlan.Confirmed, second)
				}
				if moved < servers {
					o.Stations.Learn(0, hostMAC+vxlan.MAC(moved), to, second)
				}
				if change == 0 {
					b.snap.Neighbors = neighbors(router)
				} else if change == 1 {
					b.snap.Neighbors = neighbors()
				}
				if change < 2 {
					b.publish()
				}
				b.round()
			}
			for _, port := range []int{wan, lan} {
				var all [2][][]byte
				for k, b := range beds {
					for f := b.take(port); f != nil; f = b.take(port) {
						all[k] = append(all[k], f)
					}
					slices.SortFunc(all[k], bytes.Compare)
				}
				if !slices.EqualFunc(all[0], all[1], bytes.Equal) {
					t.Fatalf("seed %d, step %d: at port %d left %s\nthrough the stages %s", seed, step, port, shown(all[0]), shown(all[1]))
				}
				frames += len(all[0])
			}
			if a, b := intoSegment(beds[0]), intoSegment(beds[1]); a != b {
				t.Fatalf("seed %d, step %d: counted %s\nthrough the stages %s", seed, step, a, b)
			}
		}
		if frames < 4000 {
			t.Errorf("seed %d: only %d frames left", seed, frames)
		}
	}
}

// toSegment is a datagram of a few flows to a service, which may go on: nobody answers what is for a group.
func toSegment(r *rand.Rand, at netip.AddrPort) pkttest.Packet {
	flow := uint16(r.IntN(24))
	p := pkttest.UDP(netip.AddrPortFrom(randomClient(flow%5).Addr(), 3000+flow), at).TOS(uint8(r.IntN(256))).TTL(uint8(2 + r.IntN(200)))
	p = p.Size(len(p.Bytes()) + r.IntN(60))
	switch r.IntN(30) {
	case 0:
		p = p.NoChecksum()
	case 1:
		p = p.BadChecksum()
	case 2:
		p = p.Options(1, 1, 1, 0)
	case 3:
		p = p.Size(1340 + r.IntN(160)) // some are cut
	case 4:
		p = p.Fragment(uint32(r.IntN(3)), 0, true)
	}
	return p
}

// intoSegment is all that is counted of packets into the segment.
func intoSegment(b *bed) string {
	o := b.snap.Overlay
	total, drops := o.Counts[0].Sum()
	text := fmt.Sprintf("%+v\n%+v %+v\nport %+v\n", state(b), total, drops, SumPlace(o.Counts[0].Access[0]))
	for i := range o.Counts[0].Peers {
		text += fmt.Sprintf("peer %+v\n", SumPlace(o.Counts[0].Peers[i]))
	}
	for id := range uint32(8) {
		text += fmt.Sprintf("server %+v\n", b.engine.Backend(id))
	}
	return text
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
