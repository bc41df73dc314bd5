package afxdp

import (
	"testing"
	"time"

	"weir/dataplane/driver/drivertest"
	"weir/dataplane/driver/wait"
	"weir/dataplane/packet"
)

func TestEveryFrameWakesTheWorker(t *testing.T) {
	drivertest.Wakeups(t, func(t *testing.T) (drivertest.Link, func(bool)) {
		inNamespace(t)
		u := testUmem(t, UmemOptions{})
		p := openPort(t, u, "va", Options{})
		return drivertest.Link{Queue: p.Queue, Pool: u.pool, Inject: p.far.inject}, func(up bool) { setLink(t, "va", up) }
	})
}

// When the device vanishes, a worker that sleeps in any mode does not spin, and it wakes for the socket that comes after.
func TestWaitingForALostDevice(t *testing.T) {
	for _, m := range []wait.Mode{wait.Adaptive, wait.Poll, wait.EpollLevel, wait.EpollEdge, wait.Signal} {
		t.Run(m.String(), func(t *testing.T) {
			inNamespace(t)
			u := testUmem(t, UmemOptions{})
			p := openPort(t, u, "va", Options{})
			w, err := wait.New(m)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if err := w.SetFDs([]int{p.FD()}); err != nil {
				t.Fatal(err)
			}
			if err := w.Bind(); err != nil {
				t.Fatal(err)
			}
			var d [packet.VectorSize]packet.Desc
			round := func() int {
				n := p.Receive(d[:])
				for _, d := range d[:n] {
					u.pool.Put(d.Addr)
				}
				p.Flush()
				return n
			}
			oneByOne := func(frames int) {
				t.Helper()
				sent, done := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(done)
					for range sent {
						for end := time.Now().Add(30 * time.Microsecond); time.Now().Before(end); {
						}
						p.far.inject(testFrame(0, 60))
					}
				}()
				defer func() { close(sent); <-done }()
				for i := range frames {
					sent <- struct{}{}
					for got := 0; got == 0; {
						if got = round(); got > 0 {
							w.Worked()
							break
						}
						if w.Arm() {
							if got = round(); got == 0 {
								if e := w.Sleep(5 * time.Second); e&wait.Timeout != 0 {
									t.Fatalf("frame %d: slept until the timeout", i)
								}
							}
							w.Disarm()
						}
					}
				}
			}
			oneByOne(200)

			p.program.close()
			deleteLink(t, "va")
			returns := 0
			for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
				round()
				if w.Arm() {
					w.Sleep(50 * time.Millisecond)
					w.Disarm()
					returns++
				}
			}
			if p.FD() != -1 || returns > 30 {
				t.Errorf("the device is gone: descriptor %d, woke up %d times in 300ms with a timeout of 50ms", p.FD(), returns)
			}
			addVeth(t, "va", "vap")
			eventually(t, "the queue is back", func() bool { round(); return p.Stats().Up })
			p.program, p.far = attach(t, "va", ModeNative), openFar(t, "vap")
			p.register(t, p.Queue)
			if err := w.SetFDs([]int{p.FD()}); err != nil {
				t.Fatal(err)
			}
			oneByOne(200)
			sleeps, spurious := w.Sleeps()
			t.Logf("%d sleeps, %d for nothing", sleeps, spurious)
		})
	}
}
