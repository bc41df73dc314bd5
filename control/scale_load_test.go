package control

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"weir/conntrack"
	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/driver/wait"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// gaps is a queue that notes how long its worker stays away. The busy worker comes back within microseconds, unless something holds it.
type gaps struct {
	driver.Queue
	last    time.Time
	over    atomic.Int64 // nanoseconds: longer gaps are counted
	longest atomic.Int64
	longer  atomic.Int64
}

func (g *gaps) Receive(d []packet.Desc) int {
	now := time.Now()
	if gap := int64(now.Sub(g.last)); !g.last.IsZero() {
		if gap > g.longest.Load() {
			g.longest.Store(gap)
		}
		if gap > g.over.Load() {
			g.longer.Add(1)
		}
	}
	g.last = now
	return g.Queue.Receive(d)
}

// TestReloadsUnderLoad reloads thousands of services again and again while packets of connections to them pass: not one may be lost. How long
// the worker stays away from its queues meanwhile stands beside how long it did just before, with control idle: a shared machine stops it
// by itself. WEIR_SCALE=1 is the full size, 10,000 services with ten servers each.
func TestReloadsUnderLoad(t *testing.T) {
	n, quiet := 300, 200*time.Millisecond
	if os.Getenv("WEIR_SCALE") != "" {
		n, quiet = 10_000, 3*time.Second
	}
	dir := t.TempDir()
	paths := []string{write(t, dir, "a.yaml", many(n, 0)), write(t, dir, "b.yaml", many(n, 1))}
	table, err := conntrack.New(conntrack.Options{Capacity: 1 << 16, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	c := newCore(table, 1, 1)
	var reader config.Reader
	began := time.Now()
	c.install(t, mustLoad(t, reader.Load, paths[0]))
	t.Logf("%d services with 10 servers each loaded in %v", n, time.Since(began))

	pool, err := packet.NewPool(make([]byte, 4096*2048), 2048)
	if err != nil {
		t.Fatal(err)
	}
	var ports [2]*mem.Port
	for i := range ports {
		if ports[i], err = mem.NewPort(pool, mem.Options{Ring: 1 << 14}); err != nil {
			t.Fatal(err)
		}
		defer ports[i].Close()
	}
	g := &gaps{Queue: ports[0]}
	waiter, err := wait.New(wait.Busy)
	if err != nil {
		t.Fatal(err)
	}
	defer waiter.Close()
	r := &dataplane.Runner{Worker: c.engine.AddWorker(pool, []driver.Queue{g, ports[1]}), Waiter: waiter, CPU: runtime.NumCPU() - 1}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + 2)) // as a daemon does, and that
	undo, err := confine([]int{r.CPU})
	if err != nil {
		t.Skip(err)
	}
	defer undo()
	r.Start()
	defer r.Stop()

	// A sender with a connection to each of some services, at a steady pace.
	var stop atomic.Bool
	var sent atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		const conns, gap = 256, 10 * time.Microsecond
		var syn, ack [conns][]byte
		for i := range conns {
			client := netip.AddrPortFrom(netip.MustParseAddr("198.18.0.2"), uint16(10000+i))
			vip := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, byte(i * n / conns >> 8), byte(i * n / conns)}), 80)
			router, wan := pkttest.MAC("02:00:00:00:00:01"), pkttest.MAC("02:00:00:00:01:01")
			syn[i], ack[i] = pkttest.TCP(client, vip).SYN().Frame(router, wan), pkttest.TCP(client, vip).Seq(1).Ack(1).Frame(router, wan)
		}
		taken := int64(0)
		for began := time.Now(); !stop.Load(); {
			for {
				if _, ok := ports[1].Take(nil); !ok {
					break
				}
				taken++
			}
			i := sent.Load()
			if time.Duration(i)*gap > time.Since(began) || i-taken >= 1<<14 { // what is under way has room at the far end
				continue
			}
			f := syn[i%conns]
			if i >= conns {
				f = ack[i%conns]
			}
			if ports[0].Inject(f) { // a full ring is the sender's to wait for
				sent.Add(1)
			}
		}
	}()
	defer func() { stop.Store(true); <-done }()

	time.Sleep(20 * time.Millisecond)
	g.longest.Store(0)
	time.Sleep(quiet)
	idle := g.longest.Load()
	g.over.Store(idle)
	g.longest.Store(0)
	g.longer.Store(0)
	var took []time.Duration
	cpu := used(t)
	for i := 1; i <= 5; i++ {
		began := time.Now()
		cfg := mustLoad(t, reader.Load, paths[i&1])
		if d := config.Compare(c.cfg, cfg); len(d.Changed) != n/10 {
			t.Fatalf("%d services changed, want %d", len(d.Changed), n/10)
		}
		c.mu.Lock()
		c.install(t, cfg)
		c.mu.Unlock()
		waiter.Notify()
		took = append(took, time.Since(began))
	}
	cpu = used(t) - cpu
	longest, longer := time.Duration(g.longest.Load()), g.longer.Load()
	stop.Store(true)
	<-done
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		v, drops := c.engine.Verdicts()
		if v.Received == uint64(sent.Load()) && v.Forwarded+v.Held == v.Received {
			if v.Held == 0 {
				break
			}
		}
		if time.Now().After(end) {
			text := ""
			for d := dataplane.Drop(1); d < dataplane.NumDrops; d++ {
				if drops[d] > 0 {
					text += fmt.Sprintf(" %s %d", d, drops[d])
				}
			}
			t.Fatalf("sent %d, but %+v, dropped:%s", sent.Load(), v, text)
		}
	}
	t.Logf("%d packets, none lost; reloads took %v (process CPU with worker and sender %v); longest gap between two looks %v, %v with control idle; %d gaps were longer than that",
		sent.Load(), took, cpu, longest, time.Duration(idle), longer)
}
