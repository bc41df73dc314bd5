package control

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
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
	last time.Time
	on   atomic.Bool // they are noted
	n    atomic.Int32
	long [1 << 16]time.Duration // those worth noting
}

func (g *gaps) Receive(d []packet.Desc) int {
	now := time.Now()
	if gap := now.Sub(g.last); gap > 50*time.Microsecond && !g.last.IsZero() && g.on.Load() && int(g.n.Load()) < len(g.long) {
		g.long[g.n.Load()] = gap
		g.n.Add(1)
	}
	g.last = now
	return g.Queue.Receive(d)
}

// begin notes gaps from here on, and forgets former ones.
func (g *gaps) begin() {
	g.n.Store(0)
	g.on.Store(true)
}

// take ends the noting.
func (g *gaps) take() []time.Duration {
	g.on.Store(false)
	time.Sleep(time.Millisecond)
	return slices.Clone(g.long[:g.n.Load()])
}

// neighbour is a process that makes the same reloads as the test, on the CPUs that control has, and has no worker. What the machine does to a
// worker while it is as busy as that is not ours.
type neighbour struct {
	cmd *exec.Cmd
	ask io.Writer
	did *bufio.Scanner
}

const neighbourEnv = "WEIR_TEST_NEIGHBOUR" // the directory of its files

func newNeighbour(t *testing.T, dir string) *neighbour {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestNeighbour$", "-test.v")
	cmd.Env = append(os.Environ(), neighbourEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	return &neighbour{cmd, in, bufio.NewScanner(out)}
}

// reload has it make one, and returns when it is made.
func (n *neighbour) reload(t *testing.T) {
	t.Helper()
	if _, err := fmt.Fprintln(n.ask); err != nil {
		t.Fatal("the neighbour:", err)
	}
	for n.did.Scan() {
		if n.did.Text() == "reloaded" {
			return
		}
	}
	t.Fatal("the neighbour ended:", n.did.Err())
}

// TestNeighbour is what a neighbour runs.
func TestNeighbour(t *testing.T) {
	dir := os.Getenv(neighbourEnv)
	if dir == "" {
		t.Skip("it runs beside TestReloadsUnderLoad")
	}
	c := newScaleCore(t)
	var reader config.Reader
	asked := bufio.NewScanner(os.Stdin)
	for i := 0; asked.Scan(); i++ {
		c.install(t, mustLoad(t, reader.Load, filepath.Join(dir, []string{"a.yaml", "b.yaml"}[i&1])))
		fmt.Println("reloaded")
	}
}

// sender has a connection to each of some services, and sends on them at a steady pace.
type sender struct {
	stop atomic.Bool
	done chan struct{}
	sent int // until it has ended, its own
}

// send sends to services of many(n) into one port, and takes what comes out of the other. What is due it sends once a millisecond, or it would take
// from control the time that packets off a wire do not.
func send(n int, in, out *mem.Port) *sender {
	s := &sender{done: make(chan struct{})}
	go func() {
		defer close(s.done)
		const conns, gap, room = 256, 10 * time.Microsecond, 1 << 14
		var syn, ack [conns][]byte
		for i := range conns {
			client := netip.AddrPortFrom(netip.MustParseAddr("198.18.0.2"), uint16(10000+i))
			vip := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, byte(i * n / conns >> 8), byte(i * n / conns)}), 80)
			router, wan := pkttest.MAC("02:00:00:00:00:01"), pkttest.MAC("02:00:00:00:01:01")
			syn[i], ack[i] = pkttest.TCP(client, vip).SYN().Frame(router, wan), pkttest.TCP(client, vip).Seq(1).Ack(1).Frame(router, wan)
		}
		for began, taken := time.Now(), 0; !s.stop.Load(); {
			for {
				if _, ok := out.Take(nil); !ok {
					break
				}
				taken++
			}
			if time.Duration(s.sent)*gap > time.Since(began) || s.sent-taken >= room { // what is under way has room at the far end
				time.Sleep(time.Millisecond)
				continue
			}
			f := syn[s.sent%conns]
			if s.sent >= conns {
				f = ack[s.sent%conns]
			}
			if in.Inject(f) { // a full ring is the sender's to wait for
				s.sent++
			}
		}
	}()
	return s
}

func (s *sender) end() {
	s.stop.Store(true)
	<-s.done
}

// TestReloadsUnderLoad reloads thousands of services again and again while packets of connections to them pass: not one may be lost. How long
// the worker stays away from its queues meanwhile stands beside how long it does with control idle and other processes at the same work in its
// place, in turns: a shared machine stops a worker by itself. WEIR_SCALE=1 is the full size, 10,000 services with ten servers each.
func TestReloadsUnderLoad(t *testing.T) {
	const reloads = 5
	n, pause, full := 300, 20*time.Millisecond, os.Getenv("WEIR_SCALE") != ""
	if full {
		n, pause = 10_000, 500*time.Millisecond
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
	runtime.GC() // as start does
	r.Start()
	defer r.Stop()

	from := send(n, ports[0], ports[1])
	defer from.end()

	beside := []*neighbour{newNeighbour(t, dir), newNeighbour(t, dir), newNeighbour(t, dir)} // what the machine does by itself must not be missed
	for _, x := range beside {
		x.reload(t)
	}
	var took, theirs []time.Duration
	var idle, busy []time.Duration // gaps, the longest first
	var rests rest
	for i := 1; i <= reloads; i++ {
		g.begin()
		for _, x := range beside { // in turns, each as long after its last: memory that was not in use for a while is slow here and there
			began := time.Now()
			x.reload(t)
			theirs = append(theirs, time.Since(began))
			time.Sleep(pause)
		}
		idle = append(idle, g.take()...)
		g.begin()
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
		rests.take()
		time.Sleep(pause)
		busy = append(busy, g.take()...)
	}
	longest := slices.Max(append(idle, 0))
	busy = slices.DeleteFunc(busy, func(d time.Duration) bool { return d <= longest })
	from.end()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		v, drops := c.engine.Verdicts()
		if v.Received == uint64(from.sent) && v.Forwarded == v.Received && v.Held == 0 {
			break
		}
		if time.Now().After(end) {
			text := ""
			for d := dataplane.Drop(1); d < dataplane.NumDrops; d++ {
				if drops[d] > 0 {
					text += fmt.Sprintf(" %s %d", d, drops[d])
				}
			}
			t.Fatalf("sent %d, but %+v, dropped:%s", from.sent, v, text)
		}
	}
	slices.Sort(took)
	slices.Sort(theirs)
	t.Logf("%d packets, none lost; reloads took %v, median %v of the neighbours'; longest gap between two looks %v while they reloaded; longer ones while we did: %v",
		from.sent, took, theirs[len(theirs)/2], longest, busy)
	if full && len(busy) > 2 {
		t.Errorf("%d gaps were longer than the longest while neighbours reloaded, want 2 at most", len(busy))
	}
}
