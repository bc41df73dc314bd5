package dataplane_test

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/driver/wait"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// TestWorkersShareConnections runs two workers on threads of their own: requests come in at the first, the servers' answers at the second,
// while control publishes snapshots and reads counters all the time. Every packet must be forwarded, translated, and counted once.
func TestWorkersShareConnections(t *testing.T) {
	const flows, rounds = 50, 20
	one := newBed(t) // for its snapshot
	table, err := conntrack.New(conntrack.Options{Capacity: 4096, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	e := NewEngine(Options{Table: table, MaxBackends: 16, MaxWorkers: 2})
	snap := one.snap
	if err := e.Publish(&snap); err != nil {
		t.Fatal(err)
	}
	var ports [2][2]*mem.Port
	var runners []*Runner
	for w := range ports {
		pool, err := packet.NewPool(make([]byte, 1024*2048), 2048)
		if err != nil {
			t.Fatal(err)
		}
		var queues []driver.Queue
		for p := range ports[w] {
			if ports[w][p], err = mem.NewPort(pool, mem.Options{}); err != nil {
				t.Fatal(err)
			}
			queues = append(queues, ports[w][p])
		}
		waiter, err := wait.New(wait.Adaptive)
		if err != nil {
			t.Fatal(err)
		}
		runners = append(runners, &Runner{Worker: e.AddWorker(pool, queues), Waiter: waiter, CPU: -1})
	}
	for _, r := range runners {
		r.Start()
	}
	var stop atomic.Bool
	var control sync.WaitGroup
	control.Add(1)
	go func() {
		defer control.Done()
		for g := uint64(2); !stop.Load(); g++ {
			s := one.snap
			s.Generation = g
			_ = e.Publish(&s)
			for _, r := range runners {
				r.Waiter.Notify()
			}
			v, _ := e.Verdicts()
			if settled := v.Forwarded + v.Answered + v.Punted + v.Consumed + v.Dropped + v.Held; settled > v.Received {
				t.Errorf("settled %d of %d frames: %+v", settled, v.Received, v)
			}
			table.Range(conntrack.TickOf(Monotonic()), func(*conntrack.Info) bool { return true })
			time.Sleep(time.Millisecond)
		}
	}()
	take := func(p *mem.Port, what string, want []byte) {
		t.Helper()
		buf := make([]byte, 2048)
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Microsecond) {
			if n, ok := p.Take(buf); ok {
				if string(buf[14:n]) != string(want) {
					t.Fatalf("%s: got %s", what, pkttest.String(buf[14:n]))
				}
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: nothing came out", what)
			}
		}
	}
	for i := range flows {
		c := netip.AddrPortFrom(client.Addr(), uint16(5000+i))
		ports[0][wan].Inject(pkttest.TCP(c, vip).SYN().Frame(routerMAC, wanMAC))
		take(ports[0][lan], "SYN", pkttest.TCP(c, web).SYN().TTL(63).Bytes())
		ports[1][lan].Inject(pkttest.TCP(web, c).SYN().Ack(1).Frame(webMAC, lanMAC))
		take(ports[1][wan], "SYN+ACK at the other worker", pkttest.TCP(vip, c).SYN().Ack(1).TTL(63).Bytes())
		for n := range uint32(rounds) {
			ports[0][wan].Inject(pkttest.TCP(c, vip).Seq(n).Ack(1).Frame(routerMAC, wanMAC))
			ports[1][lan].Inject(pkttest.TCP(web, c).Seq(n).Ack(1).Frame(webMAC, lanMAC))
			take(ports[0][lan], "request", pkttest.TCP(c, web).Seq(n).Ack(1).TTL(63).Bytes())
			take(ports[1][wan], "answer", pkttest.TCP(vip, c).Seq(n).Ack(1).TTL(63).Bytes())
		}
	}
	stop.Store(true)
	control.Wait()
	for _, r := range runners {
		r.Stop()
		r.Waiter.Close()
	}
	const packets = flows * (2 + 2*rounds)
	if v, drops := e.Verdicts(); v.Received != packets || v.Forwarded != packets {
		t.Errorf("received %d, forwarded %d, want %d of each (drops %v)", v.Received, v.Forwarded, packets, drops)
	}
	if n := e.Backend(0); n.Conns != flows || n.InPackets != flows*(1+rounds) || n.OutPackets != flows*(1+rounds) {
		t.Errorf("counted %+v", n)
	}
	if load := one.snap.Backends[0].Load; load.Active() != flows || load.Inactive() != 0 {
		t.Errorf("active %d, inactive %d, want %d and 0", load.Active(), load.Inactive(), flows)
	}
}
