package dataplane_test

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	. "weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/driver/wait"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// A runner sleeps a tenth of a second at most, so a wakeup that is lost is a packet that is late. Here it sleeps for a minute: a packet that
// is not there after half of it was slept through, whatever the machine does.
const (
	minute = time.Minute
	enough = minute / 2
)

// running starts a runner of one worker over two memory ports, which waits in mode m.
func running(t *testing.T, m wait.Mode) (*Engine, *Runner, [2]*mem.Port, *Snapshot) {
	t.Helper()
	one := newBed(t)
	e := NewEngine(Options{Table: one.engine.Table, MaxBackends: 16, MaxWorkers: 1})
	snap := one.snap
	if err := e.Publish(&snap); err != nil {
		t.Fatal(err)
	}
	pool, err := packet.NewPool(make([]byte, 1024*2048), 2048)
	if err != nil {
		t.Fatal(err)
	}
	var ports [2]*mem.Port
	for i := range ports {
		if ports[i], err = mem.NewPort(pool, mem.Options{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ports[i].Close() })
	}
	waiter, err := wait.New(m)
	if err != nil {
		t.Fatal(err)
	}
	r := &Runner{Worker: e.AddWorker(pool, []driver.Queue{ports[0], ports[1]}), Waiter: waiter, CPU: -1}
	r.SleepAtMost(minute)
	r.Start()
	t.Cleanup(func() { r.Stop(); waiter.Close() })
	return e, r, ports, &snap
}

// within calls ok until it is true, for half the time that the runner may sleep.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(enough); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v, so it was slept through", what, enough)
		}
	}
}

// Single packets at random gaps through the whole worker, in every mode that can wait for memory ports: signal cannot, and is busy instead.
func TestRunnerWakesForEveryPacket(t *testing.T) {
	for _, m := range []wait.Mode{wait.Busy, wait.Adaptive, wait.Poll, wait.EpollLevel, wait.EpollEdge, wait.Signal} {
		t.Run(m.String(), func(t *testing.T) {
			packets := 5000
			if testing.Short() {
				packets = 500
			}
			e, _, ports, _ := running(t, m)
			random := rand.New(rand.NewPCG(3, uint64(m)))
			buf := make([]byte, 2048)
			request := pkttest.UDP(client, dns).Payload([]byte("ping")).Frame(routerMAC, wanMAC)
			before, _ := e.Verdicts()
			for i := range packets {
				gap := time.Duration(random.ExpFloat64() * 4000)
				if random.IntN(16) == 0 {
					gap = time.Duration(random.IntN(150_000))
				}
				for began := time.Now(); time.Since(began) < gap; {
				}
				if !ports[wan].Inject(request) {
					t.Fatal("no room for a packet")
				}
				within(t, "a packet", func() bool { v, _ := e.Verdicts(); return v.Received-before.Received == uint64(i+1) })
				ports[lan].Take(buf)
			}
		})
	}
}

// What control publishes while the worker sleeps is known to it as soon as it is notified: it goes through a round.
func TestRunnerWakesForControl(t *testing.T) {
	for _, m := range []wait.Mode{wait.Adaptive, wait.Poll, wait.EpollLevel, wait.EpollEdge, wait.Signal} {
		t.Run(m.String(), func(t *testing.T) {
			e, r, _, snap := running(t, m)
			for g := range uint64(200) {
				s := *snap
				s.Generation = g + 2
				if err := e.Publish(&s); err != nil {
					t.Fatal(err)
				}
				before := r.Worker.Counters.Sum().Rounds
				r.Waiter.Notify()
				within(t, "a round after Notify", func() bool { return r.Worker.Counters.Sum().Rounds > before })
				if g%4 == 0 {
					time.Sleep(time.Millisecond) // it sleeps by then
				}
			}
			began := time.Now()
			r.Stop()
			if took := time.Since(began); took > enough {
				t.Errorf("Stop took %v: it did not wake the worker", took)
			}
		})
	}
}
