// Package bench measures weir. Its numbers mean something as ratios taken in one run on one machine.
package bench

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"weir/conntrack"
	"weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/route"
	"weir/dataplane/sched"
	"weir/dataplane/steer"
)

var (
	vip       = netip.MustParseAddr("198.18.9.9")
	server    = netip.MustParseAddr("198.18.1.10")
	wanMAC    = [6]byte{2, 0, 0, 0, 1, 1}
	lanMAC    = [6]byte{2, 0, 0, 0, 1, 2}
	routerMAC = [6]byte{2, 0, 0, 0, 1, 3}
	serverMAC = [6]byte{2, 0, 0, 0, 1, 4}
)

// balancer is an engine of one worker with one service, over UDP and over TCP, over two ports whose frames never leave memory.
type balancer struct {
	engine   *dataplane.Engine
	worker   *dataplane.Worker
	pool     *packet.Pool
	ports    [2]*mem.Recycler
	timeouts conntrack.Timeouts // of the service's connections
	now      int64
}

func newBalancer(b *testing.B, conns int, options ...func(*dataplane.Snapshot)) *balancer {
	b.Helper()
	table, err := conntrack.New(conntrack.Options{Capacity: conns, Workers: 1, Secret: [2]uint64{1, 2}})
	if err != nil {
		b.Fatal(err)
	}
	load := new(sched.Load)
	plan, err := sched.New("rr", sched.Options{}, 1, []sched.Dest{{Load: load, Weight: 1, LastWeight: 1, Addr: server, Port: 5353}})
	if err != nil {
		b.Fatal(err)
	}
	addr, _ := dataplane.AddrOf(server)
	x := &balancer{engine: dataplane.NewEngine(dataplane.Options{Table: table, MaxBackends: 16}), timeouts: conntrack.DefaultTimeouts(), now: 1e9}
	snap := &dataplane.Snapshot{
		Ports: []dataplane.Port{
			{Name: "wan", MAC: wanMAC, MTU: 1500, Filtered: true, Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/24")}},
			{Name: "lan", Device: 1, MAC: lanMAC, MTU: 1500, Filtered: true, Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.1.1/24")}},
		},
		Backends: []dataplane.Backend{{Timeouts: &x.timeouts, Load: load, Live: true, Port: 5353, Addr: addr, Weight: 1}},
		Services: dataplane.NewServices([]dataplane.Service{
			{Protocol: packet.ProtoUDP, VIP: steer.One(vip), Port: 53, PortTo: 53, Plan: plan, State: new(sched.State), Dests: []uint32{0}},
			{Protocol: packet.ProtoTCP, VIP: steer.One(vip), Port: 53, PortTo: 53, Plan: plan, State: new(sched.State), Dests: []uint32{0}},
		}),
		Routes: route.NewTable([]route.Route{
			{To: netip.MustParsePrefix("0.0.0.0/0"), Hops: []route.Hop{{Via: netip.MustParseAddr("198.18.0.2"), Port: 0, Weight: 1}}},
			{To: netip.MustParsePrefix("198.18.0.0/24"), Hops: []route.Hop{{Port: 0, Weight: 1}}},
			{To: netip.MustParsePrefix("198.18.1.0/24"), Hops: []route.Hop{{Port: 1, Weight: 1}}},
		}),
		Neighbors: route.NewNeighbors([]route.Neighbor{
			{Port: 0, Addr: netip.MustParseAddr("198.18.0.2"), MAC: routerMAC, Valid: true},
			{Port: 1, Addr: server, MAC: serverMAC, Valid: true},
		}),
	}
	for _, change := range options {
		change(snap)
	}
	if err := x.engine.Publish(snap); err != nil {
		b.Fatal(err)
	}
	pool, err := packet.NewPool(make([]byte, 4096*2048), 2048)
	if err != nil {
		b.Fatal(err)
	}
	x.pool, x.ports = pool, [2]*mem.Recycler{mem.NewRecycler(pool), mem.NewRecycler(pool)}
	x.worker = x.engine.AddWorker(pool, []driver.Queue{x.ports[0], x.ports[1]})
	return x
}

// client is the address and port of connection i. The two halves of the address always have the same sum, so that frames of
// all connections have the same header checksum and a benchmark can turn one into another by writing six bytes.
func client(i int) netip.AddrPort {
	hi, lo := uint16(0x6440)+uint16(i>>15), uint16(0xfffe)-uint16(i>>15)
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(hi >> 8), byte(hi), byte(lo >> 8), byte(lo)}), uint16(1024+i&0x7fff))
}

// frames of the connections as they arrive: 60 bytes, 64 with the frame check sequence that no driver shows.
var (
	requestFrame = pkttest.UDP(client(0), netip.AddrPortFrom(vip, 53)).Payload(make([]byte, 18)).Frame(routerMAC[:], wanMAC[:])
	answerFrame  = pkttest.UDP(netip.AddrPortFrom(server, 5353), client(0)).Payload(make([]byte, 18)).Frame(serverMAC[:], lanMAC[:])
	synFrame     = pkttest.TCP(client(0), netip.AddrPortFrom(vip, 53)).SYN().Frame(routerMAC[:], wanMAC[:])
)

// aim makes f a frame of connection i: address and port lie at these offsets.
func aim(f []byte, addr, port, i int) {
	hi, lo, p := uint16(0x6440)+uint16(i>>15), uint16(0xfffe)-uint16(i>>15), uint16(1024+i&0x7fff)
	binary.BigEndian.PutUint32(f[addr:], uint32(hi)<<16|uint32(lo))
	binary.BigEndian.PutUint16(f[port:], p)
}

// open sends the first packet of each of so many connections.
func (x *balancer) open(b *testing.B, conns int) {
	for from := 0; from < conns; from += vector {
		n := min(vector, conns-from)
		x.fill(b, 0, requestFrame, n)
		for i := range n {
			aim(x.ports[0].Frame(i), 26, 34, from+i)
		}
		x.round()
	}
	if got := x.engine.Table.Len(); got != conns {
		b.Fatalf("%d connections made of %d", got, conns)
	}
}

// requests and answers put frames of n random connections where the next round finds them.
func (x *balancer) requests(b *testing.B, n int, r *sequence) {
	x.frames(b, 0, requestFrame, n, 26, 34, r)
}

func (x *balancer) answers(b *testing.B, n int, r *sequence) {
	x.frames(b, 1, answerFrame, n, 30, 36, r)
}

// frames writes f of n random connections, whose address and port lie at these offsets, in one pass.
func (x *balancer) frames(b *testing.B, port int, f []byte, n, addr, number int, r *sequence) {
	d, mem := x.ports[port].Room(len(f), n), x.pool.Memory()
	if len(d) != n {
		b.Fatal("no room for the frames")
	}
	var whole [64]byte
	copy(whole[:], f)
	for i := range d {
		room := (*[64]byte)(mem[d[i].Addr:])
		*room = whole
		aim(room[:], addr, number, r.next())
	}
}

func (x *balancer) fill(b *testing.B, port int, f []byte, n int) {
	if x.ports[port].Fill(f, n) != n {
		b.Fatal("no room for the frames")
	}
}

// round takes what was prepared through the worker.
func (x *balancer) round() { x.after(1000) }

// after is round when so many nanoseconds have passed since the last one.
func (x *balancer) after(ns int64) {
	x.now += ns
	x.worker.Round(x.now)
}

const vector = 64

// BenchmarkNAT is the whole pipeline for packets of established connections, each a random one of all, both directions in turn. What
// preparing a frame costs is in it, a copy of 60 bytes and a random number; the yardstick pays for the same.
func BenchmarkNAT(b *testing.B) {
	for _, conns := range []int{1_000, 100_000, 1_000_000, 10_000_000} {
		var x *balancer // made once, for the function below is called several times
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			if x == nil {
				x = newBalancer(b, conns)
				x.open(b, conns)
			}
			before, _ := x.engine.Verdicts()
			r := random(conns)
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += 2 * vector {
				x.requests(b, vector, r)
				x.answers(b, vector, r)
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
