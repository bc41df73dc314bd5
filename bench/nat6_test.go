package bench

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"weir/conntrack"
	"weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/route"
	"weir/dataplane/sched"
	"weir/dataplane/steer"
)

var (
	vip6    = netip.MustParseAddr("2001:db8:9::9")
	server6 = netip.MustParseAddr("2001:db8:1::10")
	router6 = netip.MustParseAddr("2001:db8::2")
	client6 = netip.MustParseAddrPort("[2001:db8:c::]:1024")
)

// Frames of connections over IPv6. There is no header checksum, and a wrong transport checksum stays wrong, so address and port are written as they are.
var (
	requestFrame6 = pkttest.UDP(client6, netip.AddrPortFrom(vip6, 53)).Frame(routerMAC[:], wanMAC[:])
	answerFrame6  = pkttest.UDP(netip.AddrPortFrom(server6, 5353), client6).Frame(serverMAC[:], lanMAC[:])
)

// aim6 makes f a frame of connection i: the last four bytes of the client's address and its port lie at these offsets.
func aim6(f []byte, addr, port, i int) {
	binary.BigEndian.PutUint32(f[addr:], uint32(i>>15))
	binary.BigEndian.PutUint16(f[port:], uint16(1024+i&0x7fff))
}

// withIPv6 adds a UDP service over IPv6 to a balancer.
func withIPv6(b *testing.B) func(*dataplane.Snapshot) {
	timeouts, load := conntrack.DefaultTimeouts(), new(sched.Load)
	plan, err := sched.New("rr", sched.Options{}, 1, []sched.Dest{{Load: load, ID: 1, Weight: 1, LastWeight: 1, Addr: server6, Port: 5353}})
	if err != nil {
		b.Fatal(err)
	}
	addr, _ := dataplane.AddrOf(server6)
	return func(s *dataplane.Snapshot) {
		s.Backends = append(s.Backends, dataplane.Backend{Timeouts: &timeouts, Load: load, Live: true, V6: true, Port: 5353, Addr: addr, Weight: 1})
		s.Services = dataplane.NewServices([]dataplane.Service{
			{Protocol: packet.ProtoUDP, VIP: steer.One(vip6), Port: 53, PortTo: 53, Plan: plan, State: new(sched.State), Dests: []uint32{1}},
		})
		s.Routes = route.NewTable([]route.Route{
			{To: netip.MustParsePrefix("::/0"), Hops: []route.Hop{{Via: router6, Port: 0, Weight: 1}}},
			{To: netip.MustParsePrefix("2001:db8:1::/64"), Hops: []route.Hop{{Port: 1, Weight: 1}}},
		})
		s.Neighbors = route.NewNeighbors([]route.Neighbor{
			{Port: 0, Addr: router6, MAC: routerMAC, Valid: true},
			{Port: 1, Addr: server6, MAC: serverMAC, Valid: true},
		})
	}
}

// BenchmarkNAT6 is BenchmarkNAT over IPv6.
func BenchmarkNAT6(b *testing.B) {
	for _, conns := range []int{1_000, 100_000, 1_000_000} {
		var x *balancer
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			frames := func(port int, f []byte, n, addr, number int, next func() int) {
				x.fill(b, port, f, n)
				for i := range n {
					aim6(x.ports[port].Frame(i), addr, number, next())
				}
			}
			if x == nil {
				x = newBalancer(b, conns, withIPv6(b))
				for at := 0; at < conns; at += vector {
					i := at
					frames(0, requestFrame6, min(vector, conns-at), 34, 54, func() int { i++; return i - 1 })
					x.round()
				}
				if got := x.engine.Table.Len(); got != conns {
					b.Fatalf("%d connections made of %d", got, conns)
				}
			}
			before, _ := x.engine.Verdicts()
			r := random(conns)
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += 2 * vector {
				frames(0, requestFrame6, vector, 34, 54, r.next)
				frames(1, answerFrame6, vector, 50, 56, r.next)
				x.round()
			}
			b.StopTimer()
			after, drops := x.engine.Verdicts()
			done := after.Forwarded - before.Forwarded
			if done != after.Received-before.Received {
				b.Fatalf("%d forwarded of %d: %v", done, after.Received-before.Received, drops)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(done), "ns/packet")
		})
	}
}
