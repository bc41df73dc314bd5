package dataplane_test

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// TestNothingIsLeft has two workers open, move and end connections of persistent, full NAT and one-packet services with few clients, ports and entries,
// so that they get in each other's way, while control removes servers, ends their connections, and brings them back in another mode. When the last
// timeout is over, no count, no template, no entry and no chunk may be left.
func TestNothingIsLeft(t *testing.T) {
	const capacity = 192
	persistent := func(s *Service) { s.Persistence = &Persistence{Mask4: 0xfffffffe} }
	to := func(a netip.Addr, way Forward) Backend { return server(netip.AddrPortFrom(a, 80), way) }
	sourced := func(a netip.Addr) Backend {
		b := to(a, ForwardNAT)
		own, _ := AddrOf(lanIP)
		b.Sources = &Sources{Addrs: []conntrack.Addr{own}, From: 40000, To: 40039, Cursor: new(Cursor), TOA: true}
		return b
	}
	address := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("198.18.9.20"), port) }
	one := newBed(t,
		serving{vip: address(80), servers: []Backend{to(web.Addr(), ForwardNAT), to(second, ForwardIPIP)}, edit: persistent}.option(t),
		serving{vip: address(81), servers: []Backend{sourced(web.Addr()), sourced(second)}}.option(t),
		serving{vip: address(82), protocol: packet.ProtoUDP, servers: []Backend{to(web.Addr(), ForwardDR), sourced(second)}, edit: func(s *Service) {
			persistent(s)
			s.OnePacket = true
		}}.option(t))
	table, err := conntrack.New(conntrack.Options{Capacity: capacity, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	e := NewEngine(Options{Table: table, MaxBackends: 16, MaxWorkers: 2})
	snap := one.snap
	if err := e.Publish(&snap); err != nil {
		t.Fatal(err)
	}
	var clock atomic.Int64
	clock.Store(1e12)
	var stop atomic.Bool
	var wg sync.WaitGroup
	var pools [2]*packet.Pool
	for i := range pools {
		if pools[i], err = packet.NewPool(make([]byte, 256*2048), 2048); err != nil {
			t.Fatal(err)
		}
		var ports [2]*mem.Port
		for p := range ports {
			if ports[p], err = mem.NewPort(pools[i], mem.Options{}); err != nil {
				t.Fatal(err)
			}
			defer ports[p].Close()
		}
		w := e.AddWorker(pools[i], []driver.Queue{ports[wan], ports[lan]})
		wg.Go(func() {
			r, buf := rand.New(rand.NewPCG(1, uint64(i))), make([]byte, 2048)
			for !stop.Load() {
				for range 8 {
					c := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 128, byte(1 + r.IntN(8))}), uint16(4000+r.IntN(12)))
					v := address(uint16(80 + r.IntN(3)))
					p := pkttest.TCP(c, v)
					if v.Port() == 82 {
						p = pkttest.UDP(c, v).Payload(payload)
					} else {
						p = []pkttest.Packet{p.SYN(), p.SYN(), p.Ack(1), p.FIN().Ack(1), p.RST()}[r.IntN(5)]
					}
					ports[wan].Inject(p.Frame(routerMAC, wanMAC))
				}
				w.Round(clock.Load())
				for p := range ports {
					for _, ok := ports[p].Take(buf); ok; _, ok = ports[p].Take(buf) {
						if p == lan && buf[14+9] == packet.ProtoTCP && r.IntN(2) == 0 { // its server answers
							s, d := netip.AddrFrom4([4]byte(buf[26:30])), netip.AddrFrom4([4]byte(buf[30:34]))
							back := pkttest.TCP(netip.AddrPortFrom(d, uint16(buf[36])<<8|uint16(buf[37])), netip.AddrPortFrom(s, uint16(buf[34])<<8|uint16(buf[35])))
							ports[lan].Inject([]pkttest.Packet{back.SYN().Ack(1), back.Ack(1), back.FIN().Ack(1)}[r.IntN(3)].Frame(webMAC, lanMAC))
						}
					}
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(2, 3))
	const enough = 1000 // packets, for which a busy machine takes longer
	forwarded := func() uint64 { v, _ := e.Verdicts(); return v.Forwarded }
	for began := time.Now(); time.Since(began) < time.Second || forwarded() < enough && time.Since(began) < 30*time.Second; time.Sleep(200 * time.Microsecond) {
		clock.Add(int64(r.IntN(20)) * 1e8)
		s := one.snap
		s.Backends = append([]Backend(nil), s.Backends...)
		gone := map[uint32]bool{}
		for id := ownServers; id < len(s.Backends); id++ {
			b := &s.Backends[id]
			b.Live, b.ExpireNow = r.IntN(3) > 0, r.IntN(2) > 0
			if b.Sources == nil && b.Path != nil {
				b.Forward = []Forward{ForwardNAT, ForwardDR, ForwardIPIP}[r.IntN(3)]
			}
			if !b.Live && b.ExpireNow {
				gone[uint32(id)] = true
			}
		}
		if err := e.Publish(&s); err != nil {
			t.Fatal(err)
		}
		e.Purge(func(id uint32) bool { return gone[id] })
	}
	stop.Store(true)
	wg.Wait()
	v, drops := e.Verdicts()
	if v.Forwarded < enough {
		t.Errorf("only %d forwarded, drops %v", v.Forwarded, drops)
	}
	for range 4 { // templates wait for their connections
		now := clock.Add(1000e9)
		for _, w := range e.Workers() {
			w.ExpireAll(now)
			w.Round(now)
		}
	}
	for id := range one.snap.Backends {
		if l := one.snap.Backends[id].Load; l.Active() != 0 || l.Inactive() != 0 || l.Persistent() != 0 {
			t.Errorf("server %d has %d active, %d inactive, %d persistent", id, l.Active(), l.Inactive(), l.Persistent())
		}
	}
	if n := table.Len(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	for i, w := range e.Workers() {
		if free := pools[i].Free() + w.Holding(); free != pools[i].Chunks() {
			t.Errorf("worker %d: %d of %d chunks", i, free, pools[i].Chunks())
		}
	}
}
