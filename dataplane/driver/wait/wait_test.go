package wait

import (
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var sleepers = []Mode{Adaptive, Poll, EpollLevel, EpollEdge, Signal}

// pair is a descriptor that a worker waits for and its other end. A datagram is a frame.
func pair(t testing.TB, kind int) (worker, source int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

func newWaiter(t testing.TB, m Mode, fds ...int) *Waiter {
	t.Helper()
	w, err := New(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SetFDs(fds); err != nil {
		t.Fatal(err)
	}
	if err := w.Bind(); err != nil {
		t.Fatal(err)
	}
	return w
}

// onThread runs f for each mode in a goroutine with a thread of its own, as a worker has.
func onThread(t *testing.T, modes []Mode, f func(t *testing.T, m Mode)) {
	for _, m := range modes {
		t.Run(m.String(), func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			f(t, m)
		})
	}
}

// sleep arms and sleeps, as often as the mode wants to look again first.
func sleep(w *Waiter, timeout time.Duration) Event {
	for end := time.Now().Add(time.Second); !w.Arm(); {
		if time.Now().After(end) {
			return Notified
		}
	}
	defer w.Disarm()
	return w.Sleep(timeout)
}

// One event is under way at a time, so a wakeup that is lost is not made good by the next: the worker sleeps until its timeout, and
// the test fails. The gap before each event is random, about as long as the way from an empty round into the system call.
func TestNoWakeupIsLost(t *testing.T) {
	events, most := 60_000, 10*time.Second // a busy machine does fewer
	if testing.Short() {
		events = 20_000
	}
	onThread(t, sleepers, func(t *testing.T, m Mode) {
		workerFD, sourceFD := pair(t, unix.SOCK_DGRAM)
		defer unix.Close(workerFD)
		defer unix.Close(sourceFD)
		w := newWaiter(t, m, workerFD)
		defer w.Close()

		var seen, published atomic.Int64
		var stop atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			random := rand.New(rand.NewPCG(1, uint64(m)))
			for i := int64(0); i < int64(events); i++ {
				for seen.Load() != i {
					if stop.Load() {
						return
					}
					runtime.Gosched()
				}
				for gap, began := time.Duration(random.ExpFloat64()*4000), time.Now(); time.Since(began) < gap; {
				}
				if random.IntN(4) == 0 {
					published.Add(1)
					w.Notify()
				} else if _, err := unix.Write(sourceFD, []byte{1}); err != nil {
					t.Errorf("write: %v", err)
					return
				}
			}
		}()
		defer func() { stop.Store(true); <-done }()

		var control int64
		var b [8]byte
		round := func() (n int) {
			for {
				if got, err := unix.Read(workerFD, b[:]); got <= 0 || err != nil {
					break
				}
				n++
			}
			if p := published.Load(); p != control {
				n += int(p - control)
				control = p
			}
			seen.Add(int64(n))
			return n
		}
		for began := time.Now(); seen.Load() < int64(events) && time.Since(began) < most; {
			if round() > 0 {
				w.Worked()
				continue
			}
			if !w.Arm() {
				continue
			}
			if round() == 0 {
				if e := w.Sleep(5 * time.Second); e&Timeout != 0 {
					if n := round(); n > 0 { // else it is the other side that was held up
						t.Fatalf("slept until the timeout after %d events, of which the last %d were there", seen.Load(), n)
					}
				}
			} else {
				w.Worked()
			}
			w.Disarm()
		}
		sleeps, spurious := w.Sleeps()
		n := uint64(seen.Load())
		t.Logf("%d events, %d sleeps, %d of them for nothing", n, sleeps, spurious)
		if n == 0 || m != Adaptive && sleeps < n/20 {
			t.Errorf("only %d sleeps for %d events: the test hardly tests", sleeps, n)
		}
	})
}

func TestReasonsToWakeUp(t *testing.T) {
	onThread(t, sleepers, func(t *testing.T, m Mode) {
		workerFD, sourceFD := pair(t, unix.SOCK_DGRAM)
		defer unix.Close(workerFD)
		defer unix.Close(sourceFD)
		w := newWaiter(t, m, -1, workerFD)
		defer w.Close()
		later := func(f func()) { time.AfterFunc(20*time.Millisecond, f) }

		began := time.Now()
		if e := sleep(w, 30*time.Millisecond); e != Timeout && e != 0 {
			t.Errorf("nothing happens: %v, want Timeout", e)
		} else if e == Timeout && time.Since(began) < 30*time.Millisecond {
			t.Errorf("nothing happens: woke up after %v, want 30ms", time.Since(began))
		}
		later(func() { unix.Write(sourceFD, []byte{1}) })
		if e := awaken(w); e&Ready == 0 || e&Notified != 0 {
			t.Errorf("a frame arrives: %v, want Ready", e)
		}
		var b [8]byte
		unix.Read(workerFD, b[:])
		later(w.Notify)
		if e := awaken(w); e != Notified {
			t.Errorf("Notify while asleep: %v, want Notified", e)
		}
		for range 3 {
			w.Notify()
		}
		if w.mode == Adaptive {
			w.spin.limit = 0
		}
		if w.Arm() {
			t.Error("Notify while awake: Arm reports true, want false so that a round sees what changed")
		}
		if e := sleep(w, 20*time.Millisecond); e&(Ready|Notified) != 0 {
			t.Errorf("nothing happens after three Notify: %v, want Timeout: they are one event", e)
		}
		if !w.Arm() {
			t.Fatal("Arm reports false")
		}
		w.Notify() // between Arm and Sleep
		began = time.Now()
		if e := w.Sleep(5 * time.Second); e&Notified == 0 || time.Since(began) > 4*time.Second {
			t.Errorf("Notify before Sleep: %v after %v, want Notified at once", e, time.Since(began))
		}
		w.Disarm()
		if !w.Arm() {
			t.Fatal("Arm reports false")
		}
		unix.Write(sourceFD, []byte{1}) // between Arm and Sleep
		if e := w.Sleep(5 * time.Second); e&Ready == 0 {
			t.Errorf("a frame before Sleep: %v, want Ready", e)
		}
		w.Disarm()
		unix.Read(workerFD, b[:])

		other, source := pair(t, unix.SOCK_DGRAM) // a queue came back with another descriptor
		defer unix.Close(other)
		defer unix.Close(source)
		if err := w.SetFDs([]int{other}); err != nil {
			t.Fatal(err)
		}
		later(func() { unix.Write(source, []byte{1}) })
		if e := awaken(w); e&Ready == 0 {
			t.Errorf("a frame arrives on a new descriptor: %v, want Ready", e)
		}
	})
}

// awaken sleeps until something happens: an interrupted system call may end a sleep for no reason.
func awaken(w *Waiter) (e Event) {
	for range 1000 {
		if e = sleep(w, 5*time.Second); e != 0 {
			break
		}
	}
	return e
}

func TestIdleWorkerCostsNothing(t *testing.T) {
	onThread(t, sleepers, func(t *testing.T, m Mode) {
		workerFD, sourceFD := pair(t, unix.SOCK_DGRAM)
		defer unix.Close(workerFD)
		defer unix.Close(sourceFD)
		w := newWaiter(t, m, workerFD)
		defer w.Close()
		sleep(w, 0)
		before, began, rounds := threadTime(t), time.Now(), 0
		for time.Since(began) < 300*time.Millisecond {
			rounds++
			if w.Arm() {
				w.Sleep(100 * time.Millisecond)
				w.Disarm()
			}
		}
		if used := threadTime(t) - before; used > 30*time.Millisecond {
			t.Errorf("%v of CPU in %v of idleness (%d rounds)", used, time.Since(began), rounds)
		}
	})
}

func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// A descriptor with an error or without a peer is ready at once, always. The worker must hear of it and must not spin on it.
func TestFailedDescriptor(t *testing.T) {
	onThread(t, sleepers, func(t *testing.T, m Mode) {
		good, goodSource := pair(t, unix.SOCK_DGRAM)
		bad, badSource := pair(t, unix.SOCK_STREAM)
		defer unix.Close(good)
		defer unix.Close(goodSource)
		defer unix.Close(bad)
		w := newWaiter(t, m, good, bad)
		defer w.Close()
		time.AfterFunc(20*time.Millisecond, func() { unix.Close(badSource) })
		if e := awaken(w); e&Failed == 0 {
			t.Errorf("the other end hangs up: %v, want Failed", e)
		}
		if f := w.FailedFDs(); len(f) != 1 || f[0] != bad {
			t.Errorf("failed descriptors %v, want [%d]", f, bad)
		}
		returns := 0
		for began := time.Now(); time.Since(began) < 350*time.Millisecond; {
			sleep(w, time.Second)
			returns++
		}
		if returns > 20 {
			t.Errorf("woke up %d times in 350ms for a descriptor that hung up, want about one in 100ms", returns)
		}
		if err := w.SetFDs([]int{good}); err != nil {
			t.Fatal(err)
		}
		for !w.Arm() {
		}
		unix.Write(goodSource, []byte{1})
		if e := w.Sleep(5 * time.Second); e != Ready {
			t.Errorf("a frame on the other descriptor: %v, want Ready alone", e)
		}
		w.Disarm()
	})
}

func TestClosedDescriptor(t *testing.T) {
	onThread(t, sleepers, func(t *testing.T, m Mode) {
		w := newWaiter(t, m)
		defer w.Close()
		a, b := pair(t, unix.SOCK_DGRAM)
		unix.Close(b)
		unix.Close(a)
		if err := w.SetFDs([]int{a}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if e := awaken(w); e&Failed == 0 || time.Since(began) > 4*time.Second {
			t.Errorf("the descriptor is not open: %v after %v, want Failed at once", e, time.Since(began))
		}
	})
}

func TestBusyNeverSleeps(t *testing.T) {
	w := newWaiter(t, Busy)
	defer w.Close()
	for range 1000 {
		if w.Arm() {
			t.Fatal("Arm reports true")
		}
	}
}

func TestWaitingDoesNotAllocate(t *testing.T) {
	onThread(t, append([]Mode{Busy}, sleepers...), func(t *testing.T, m Mode) {
		workerFD, sourceFD := pair(t, unix.SOCK_DGRAM)
		defer unix.Close(workerFD)
		defer unix.Close(sourceFD)
		w := newWaiter(t, m, workerFD)
		defer w.Close()
		unix.Write(sourceFD, []byte{1}) // never read: always ready
		if n := testing.AllocsPerRun(200, func() {
			w.Worked()
			w.spin.limit = 0
			if w.Arm() {
				w.Sleep(time.Microsecond)
				w.Disarm()
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

func TestModeNames(t *testing.T) {
	for m := range modeCount {
		b, err := m.MarshalText()
		var back Mode
		if err != nil || back.UnmarshalText(b) != nil || back != m || m.String() != string(b) {
			t.Errorf("%d: %q, %v, back %v", m, b, err, back)
		}
	}
	for _, bad := range []string{"", "Busy", "epoll", "adaptive "} {
		if m, err := ParseMode(bad); err == nil {
			t.Errorf("ParseMode(%q) = %v, want an error", bad, m)
		}
	}
	if _, err := New(modeCount); err == nil {
		t.Error("New of an unknown mode succeeds")
	}
}
