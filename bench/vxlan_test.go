package bench

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"weir/dataplane"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/route"
	"weir/vxlan"
)

// The overlay of these benchmarks: one segment between lan, an access port, and VTEPs behind wan. All stations are known by static entries.
const (
	vni        = 5001
	gateway    = vxlan.MAC(0x020000005001)
	hostMAC    = vxlan.MAC(0x0200aa000000) // of the first station behind a peer
	localMAC   = vxlan.MAC(0x0200bb000000) // of the first one on the access port
	stations   = 1 << 10                   // of either kind, unless a benchmark has others
	afterOuter = 50                        // bytes, where the inner frame begins
)

var ourVTEP = netip.MustParseAddr("198.18.0.1")

func peerVTEP(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 0, byte(100 + i)}) }

// overlaid puts the segment into a balancer's snapshot, with so many stations of either kind, and the service's server behind the first peer if it is to be there.
func overlaid(b *testing.B, peers, stations int, service bool) func(*dataplane.Snapshot) {
	b.Helper()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	o := vxlan.SegmentOptions{TunnelOptions: vxlan.TunnelOptions{VNI: vni, Local: ourVTEP}, Access: []vxlan.Access{{Port: 1, Used: true}},
		Learning: true, Gateway: &vxlan.Gateway{MAC: gateway, Addresses: []vxlan.Interface{{Addr: vxlan.Addr{Lo: 0xc6120101}, Bits: 24}}}}
	neighbors := []route.Neighbor{{Port: 0, Addr: netip.MustParseAddr("198.18.0.2"), MAC: routerMAC, Valid: true}, {Port: 1, Addr: server, MAC: serverMAC, Valid: true}}
	counts := dataplane.SegmentCounts{Segment: make([]dataplane.SegmentCounters, 1), Access: [][]dataplane.PlaceCounters{make([]dataplane.PlaceCounters, 1)}}
	for i := range peers {
		o.Peers = append(o.Peers, vxlan.PeerOptions{Addr: peerVTEP(i)})
		counts.Peers = append(counts.Peers, make([]dataplane.PlaceCounters, 1))
		neighbors = append(neighbors, route.Neighbor{Port: 0, Addr: peerVTEP(i), MAC: routerMAC, Valid: true})
	}
	segment, err := vxlan.NewSegment(o)
	must(err)
	segments, err := vxlan.NewSegments([]*vxlan.Segment{segment})
	must(err)
	fdb, err := vxlan.NewFDB(vxlan.FDBOptions{Capacity: 4*stations + 8, Segments: 1, Secret: [2]uint64{1, 2}})
	must(err)
	hosts, err := vxlan.NewNeighbors(vxlan.NeighborsOptions{Capacity: 64, Segments: 1, Secret: [2]uint64{1, 2}})
	must(err)
	fdb.Configure(0, uint32(stations), 300)
	hosts.Configure(0, 64, 300)
	must(fdb.Add(0, gateway, vxlan.AtGateway, 1))
	for i := range stations {
		must(fdb.Add(0, hostMAC+vxlan.MAC(i), vxlan.AtPeer(uint16(i%peers)), 1))
		must(fdb.Add(0, localMAC+vxlan.MAC(i), vxlan.AtAccess(0), 1))
	}
	addr, v6 := vxlan.AddrOf(server)
	hosts.Learn(0, addr, v6, hostMAC, vxlan.Confirmed, 1)
	vtep, _ := dataplane.AddrOf(ourVTEP)
	return func(s *dataplane.Snapshot) {
		s.Neighbors = route.NewNeighbors(neighbors)
		if service {
			s.Backends[0].VNI = vni
		}
		s.Overlay = &dataplane.Overlay{Segments: segments, ByIndex: []*vxlan.Segment{segment}, VTEPs: []dataplane.VTEP{{Addr: vtep, Port: vxlan.Port}},
			Access: []bool{false, true}, Stations: fdb, Hosts: hosts, Strangers: vxlan.NewStrangers([2]uint64{1, 2}), Entropy: vxlan.NewEntropy([2]uint64{1, 2}),
			Counts: []dataplane.SegmentCounts{counts}}
	}
}

// inTunnel is a frame as the first peer sends it.
func inTunnel(frame []byte) []byte {
	h := make([]byte, 8, 8+len(frame))
	h[0] = 8
	binary.BigEndian.PutUint32(h[4:], vni<<8)
	return pkttest.UDP(netip.AddrPortFrom(peerVTEP(0), 50000), netip.AddrPortFrom(ourVTEP, vxlan.Port)).NoChecksum().Payload(append(h, frame...)).Frame(routerMAC[:], wanMAC[:])
}

// between is a frame of 60 bytes from one station to another.
func between(src, dst vxlan.MAC) []byte {
	var s, d [6]byte
	src.Put(s[:])
	dst.Put(d[:])
	return pkttest.UDP(client(0), netip.MustParseAddrPort("198.18.1.7:9")).Payload(make([]byte, 18)).Frame(s[:], d[:])
}

// number makes the MAC address that b begins with that of a kind's station i.
func number(b []byte, i int) { binary.BigEndian.PutUint16(b[4:], uint16(i)) }

// run takes rounds of frames, which prepare puts in place, through the worker, and reports nanoseconds a received frame. Each must be forwarded,
// and nothing allocated.
func (x *balancer) run(b *testing.B, frames int, prepare func()) {
	b.Helper()
	round := func() {
		prepare()
		x.round()
	}
	if n := testing.AllocsPerRun(20, round); n != 0 {
		b.Errorf("%v allocations a round", n)
	}
	before, _ := x.engine.Verdicts()
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += frames {
		round()
	}
	b.StopTimer()
	after, drops := x.engine.Verdicts()
	done := after.Forwarded - before.Forwarded
	if done == 0 || done != after.Received-before.Received {
		b.Fatalf("%d forwarded of %d: %v", done, after.Received-before.Received, drops)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(done), "ns/packet")
}

// BenchmarkVXLANEncap is the whole pipeline for frames from an access port to stations behind 8 peers, each a random one of 1024.
func BenchmarkVXLANEncap(b *testing.B) {
	x := newBalancer(b, 1000, overlaid(b, 8, stations, false))
	f, r := between(localMAC, hostMAC), random(stations)
	x.run(b, vector, func() {
		x.fill(b, 1, f, vector)
		for n := range vector {
			i, f := r.next(), x.ports[1].Frame(n)
			number(f, i)
			number(f[6:], stations-1-i)
		}
	})
}

// BenchmarkVXLANDecap is the other direction: frames from a peer to stations on an access port.
func BenchmarkVXLANDecap(b *testing.B) {
	x := newBalancer(b, 1000, overlaid(b, 1, stations, false))
	f, r := inTunnel(between(hostMAC, localMAC)), random(stations)
	x.run(b, vector, func() {
		x.fill(b, 0, f, vector)
		for n := range vector {
			i, f := r.next(), x.ports[0].Frame(n)
			number(f[afterOuter:], i)
			number(f[afterOuter+6:], stations-1-i)
		}
	})
}

// BenchmarkNATVXLAN is BenchmarkNAT with the server in a segment: requests are translated and go into a tunnel in one pass, answers come out of
// it and are translated back.
func BenchmarkNATVXLAN(b *testing.B) {
	for _, conns := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			x := newBalancer(b, conns, overlaid(b, 8, 8, true))
			x.open(b, conns)
			inner := append([]byte(nil), answerFrame...)
			gateway.Put(inner)
			hostMAC.Put(inner[6:])
			f, r := inTunnel(inner), random(conns)
			x.run(b, 2*vector, func() {
				x.requests(b, vector, r)
				x.fill(b, 0, f, vector)
				for n := range vector {
					aim(x.ports[0].Frame(vector+n), afterOuter+30, afterOuter+36, r.next())
				}
			})
		})
	}
}

// BenchmarkRequests is what encapsulation adds: clients' packets of established connections, to a server on a port and to one in a segment.
func BenchmarkRequests(b *testing.B) {
	const conns = 1000
	for _, c := range []struct {
		name    string
		options []func(*dataplane.Snapshot)
	}{{"to=port", nil}, {"to=segment", []func(*dataplane.Snapshot){overlaid(b, 8, 8, true)}}} {
		b.Run(c.name, func(b *testing.B) {
			x, r := newBalancer(b, conns, c.options...), random(conns)
			x.open(b, conns)
			x.run(b, vector, func() { x.requests(b, vector, r) })
		})
	}
}

// BenchmarkFlood is a broadcast from an access port, a copy of which goes to every peer. ns/copy is the cost of each.
func BenchmarkFlood(b *testing.B) {
	for _, peers := range []int{8, 64} {
		b.Run(fmt.Sprintf("peers=%d", peers), func(b *testing.B) {
			x := newBalancer(b, 1000, overlaid(b, peers, 1, false))
			f := between(localMAC, vxlan.Broadcast)
			sent := x.worker.Counters.Sum().Sent
			x.run(b, vector, func() {
				x.fill(b, 1, f, vector)
			})
			if v, _ := x.engine.Verdicts(); x.worker.Counters.Sum().Sent-sent != v.Forwarded*uint64(peers-1) {
				b.Fatalf("%d copies of %d frames to %d peers", x.worker.Counters.Sum().Sent-sent, v.Forwarded, peers)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64((b.N+vector-1)/vector*vector)/float64(peers), "ns/copy")
		})
	}
}

// BenchmarkBridge is BenchmarkVXLANDecap with more stations than caches hold: each frame asks the table for its source and its destination.
func BenchmarkBridge(b *testing.B) {
	for _, n := range []int{1 << 10, 1 << 16} {
		b.Run(fmt.Sprintf("stations=%d", n), func(b *testing.B) {
			x := newBalancer(b, 1000, overlaid(b, 1, n, false))
			f, r := inTunnel(between(hostMAC, localMAC)), random(n)
			x.run(b, vector, func() {
				x.fill(b, 0, f, vector)
				for n := range vector {
					f := x.ports[0].Frame(n)
					number(f[afterOuter:], r.next())
					number(f[afterOuter+6:], r.next())
				}
			})
		})
	}
}
