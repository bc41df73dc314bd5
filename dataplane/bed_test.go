package dataplane_test

import (
	"net/netip"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/route"
	"weir/dataplane/sched"
	"weir/dataplane/steer"
)

// The test network: clients behind a router on wan, servers on lan.
var (
	wanMAC    = pkttest.MAC("02:00:00:00:01:01")
	lanMAC    = pkttest.MAC("02:00:00:00:01:02")
	routerMAC = pkttest.MAC("02:00:00:00:01:03")
	webMAC    = pkttest.MAC("02:00:00:00:01:10")
	secondMAC = pkttest.MAC("02:00:00:00:01:11")
	gateMAC   = pkttest.MAC("02:00:00:00:01:fe")

	client  = netip.MustParseAddrPort("198.18.128.7:4000")
	vip     = netip.MustParseAddrPort("198.18.9.9:80")
	web     = netip.MustParseAddrPort("198.18.1.10:8000")
	client6 = netip.MustParseAddrPort("[2001:db8:c::7]:4000")
	vip6    = netip.MustParseAddrPort("[2001:db8:9::9]:80")
	web6    = netip.MustParseAddrPort("[2001:db8:1::10]:8000")
	dns     = netip.MustParseAddrPort("198.18.9.9:53")
	dnsReal = netip.MustParseAddrPort("198.18.1.10:5353")

	router = netip.MustParseAddr("198.18.0.2")
	lanIP  = netip.MustParseAddr("198.18.1.1")
	lanIP6 = netip.MustParseAddr("2001:db8:1::1")

	// Servers beside web's: a second one on the link, and one behind a gateway.
	second  = netip.MustParseAddr("198.18.1.11")
	second6 = netip.MustParseAddr("2001:db8:1::11")
	remote  = netip.MustParseAddr("198.18.7.10")
	remote6 = netip.MustParseAddr("2001:db8:7::10")
)

const (
	wan = 0
	lan = 1
)

// bed is an engine of one worker over two memory ports with the services web (TCP, both families) and dns (UDP), one server each.
type bed struct {
	t      testing.TB
	engine *Engine
	worker *Worker
	pool   *packet.Pool
	ports  [2]*mem.Port
	snap   Snapshot
	now    int64
	before Verdicts
	drops  [NumDrops]uint64
}

type bedOption func(*Snapshot, *Engine)

func newBed(t testing.TB, options ...bedOption) *bed {
	t.Helper()
	return newBedOver(t, func(q driver.Queue, _ *packet.Pool) driver.Queue { return q }, options...)
}

// newBedOver is a bed whose worker sees its queues through what over makes of them.
func newBedOver(t testing.TB, over func(driver.Queue, *packet.Pool) driver.Queue, options ...bedOption) *bed {
	t.Helper()
	table, err := conntrack.New(conntrack.Options{Capacity: 1024, Workers: 1, HalfOpen: 1024}) // so that SYNs alone fill it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	b := &bed{t: t, now: 1e12, engine: NewEngine(Options{Table: table, MaxBackends: 64})}
	timeouts := conntrack.DefaultTimeouts()
	var backends []Backend
	var services []Service
	for _, s := range []struct {
		vip, real netip.AddrPort
		proto     uint8
	}{{vip, web, packet.ProtoTCP}, {dns, dnsReal, packet.ProtoUDP}, {vip6, web6, packet.ProtoTCP}} {
		id := uint32(len(backends))
		load := new(sched.Load)
		plan, err := sched.New("rr", sched.Options{}, 1, []sched.Dest{{Load: load, ID: id, Weight: 1, LastWeight: 1, Addr: s.real.Addr(), Port: s.real.Port()}})
		if err != nil {
			t.Fatal(err)
		}
		addr, v6 := AddrOf(s.real.Addr())
		backends = append(backends, Backend{Timeouts: &timeouts, Load: load, Live: true, V6: v6, Port: s.real.Port(), Addr: addr, Weight: 1, ReuseMode: 1})
		services = append(services, Service{Protocol: s.proto, VIP: steer.One(s.vip.Addr()), Port: s.vip.Port(), PortTo: s.vip.Port(), Plan: plan,
			State: new(sched.State), Dests: []uint32{id}})
	}
	prefix := netip.MustParsePrefix
	b.snap = Snapshot{
		Generation: 1,
		Ports: []Port{
			{Name: "wan", MAC: [6]byte(wanMAC), MTU: 1500, Filtered: true, Addresses: []netip.Prefix{prefix("198.18.0.1/24"), prefix("2001:db8::1/64")}},
			{Name: "lan", Device: lan, MAC: [6]byte(lanMAC), MTU: 1500, Filtered: true, Addresses: []netip.Prefix{prefix("198.18.1.1/24"), prefix("2001:db8:1::1/64")}},
		},
		Backends: backends,
		Services: NewServices(services),
		Routes: route.NewTable([]route.Route{
			{To: prefix("198.18.0.0/24"), Hops: []route.Hop{{Port: wan, Weight: 1}}},
			{To: prefix("198.18.128.0/17"), Hops: []route.Hop{{Via: router, Port: wan, Weight: 1}}},
			{To: prefix("198.18.1.0/24"), Hops: []route.Hop{{Port: lan, Weight: 1}}},
			{To: prefix("2001:db8:c::/48"), Hops: []route.Hop{{Via: netip.MustParseAddr("2001:db8::2"), Port: wan, Weight: 1}}},
			{To: prefix("2001:db8:1::/64"), Hops: []route.Hop{{Port: lan, Weight: 1}}},
			{To: prefix("198.18.7.0/24"), Hops: []route.Hop{{Via: netip.MustParseAddr("198.18.1.254"), Port: lan, Weight: 1}}},
			{To: prefix("2001:db8:7::/64"), Hops: []route.Hop{{Via: netip.MustParseAddr("2001:db8:1::fe"), Port: lan, Weight: 1}}},
		}),
		Neighbors: neighbors(),
		Local: map[netip.Addr]struct{}{
			lanIP: {}, netip.MustParseAddr("198.18.0.1"): {}, netip.MustParseAddr("2001:db8::1"): {}, netip.MustParseAddr("2001:db8:1::1"): {},
		},
		Answers: Rate{PerSecond: 1000},
	}
	for _, o := range options {
		o(&b.snap, b.engine)
	}
	b.publish()
	if b.pool, err = packet.NewPool(make([]byte, 256*2048), 2048); err != nil {
		t.Fatal(err)
	}
	var queues []driver.Queue
	for i := range b.ports {
		if b.ports[i], err = mem.NewPort(b.pool, mem.Options{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.ports[i].Close() })
		queues = append(queues, over(b.ports[i], b.pool))
	}
	b.worker = b.engine.AddWorker(b.pool, queues)
	return b
}

// neighbors are those known from the start.
func neighbors(without ...netip.Addr) *route.Neighbors {
	var all []route.Neighbor
next:
	for _, n := range []route.Neighbor{
		{Port: wan, Addr: router, MAC: [6]byte(routerMAC), Valid: true},
		{Port: wan, Addr: netip.MustParseAddr("2001:db8::2"), MAC: [6]byte(routerMAC), Valid: true},
		{Port: lan, Addr: web.Addr(), MAC: [6]byte(webMAC), Valid: true},
		{Port: lan, Addr: web6.Addr(), MAC: [6]byte(webMAC), Valid: true},
		{Port: lan, Addr: second, MAC: [6]byte(secondMAC), Valid: true},
		{Port: lan, Addr: second6, MAC: [6]byte(secondMAC), Valid: true},
		{Port: lan, Addr: netip.MustParseAddr("198.18.1.254"), MAC: [6]byte(gateMAC), Valid: true},
		{Port: lan, Addr: netip.MustParseAddr("2001:db8:1::fe"), MAC: [6]byte(gateMAC), Valid: true},
	} {
		for _, a := range without {
			if n.Addr == a {
				continue next
			}
		}
		all = append(all, n)
	}
	return route.NewNeighbors(all)
}

func (b *bed) publish() {
	b.t.Helper()
	s := b.snap
	if err := b.engine.Publish(&s); err != nil {
		b.t.Fatal(err)
	}
}

// inject puts a frame on a port's wire.
func (b *bed) inject(port int, frame []byte) {
	b.t.Helper()
	if !b.ports[port].Inject(frame) {
		b.t.Fatal("the port takes no frame")
	}
}

// fromClient and fromServer put a packet on the wire as the router or a server would.
func (b *bed) fromClient(ip []byte) {
	b.t.Helper()
	b.inject(wan, pkttest.Frame(ip, routerMAC, wanMAC))
}
func (b *bed) fromServer(ip []byte) { b.t.Helper(); b.inject(lan, pkttest.Frame(ip, webMAC, lanMAC)) }

// round turns one round and checks that verdicts add up and no chunk is lost.
func (b *bed) round() {
	b.t.Helper()
	b.before, b.drops = b.engine.Verdicts()
	b.worker.Round(b.now)
	v, _ := b.engine.Verdicts()
	if sum := v.Forwarded + v.Answered + v.Punted + v.Consumed + v.Dropped + v.Held; sum != v.Received {
		b.t.Fatalf("received %d, but the verdicts' sum is %d: %+v", v.Received, sum, v)
	}
	if free := b.pool.Free() + b.worker.Holding(); free != b.pool.Chunks() {
		b.t.Fatalf("%d of %d chunks are free or held", free, b.pool.Chunks())
	}
}

// take returns the next frame that left by port, nil if there is none.
func (b *bed) take(port int) []byte {
	buf := make([]byte, 4096)
	n, ok := b.ports[port].Take(buf)
	if !ok {
		return nil
	}
	return buf[:n]
}

// open makes a connection known in both directions: SYN, SYN+ACK, ACK.
func (b *bed) open(client, vip, real netip.AddrPort) {
	b.t.Helper()
	b.fromClient(pkttest.TCP(client, vip).SYN().Bytes())
	b.round()
	b.fromServer(pkttest.TCP(real, client).SYN().Ack(1).Bytes())
	b.round()
	b.fromClient(pkttest.TCP(client, vip).Seq(1).Ack(1).Bytes())
	b.round()
	for _, port := range []int{lan, wan, lan} {
		if b.take(port) == nil {
			b.t.Fatalf("opening %s -> %s: a packet of the handshake was not forwarded", client, vip)
		}
	}
}
