package wait

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// armed arms w, as often as its mode wants to look again first.
func armed(t *testing.T, w *Waiter) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !w.Arm(); {
		if time.Now().After(end) {
			t.Fatal("Arm reports false for five seconds")
		}
	}
}

// long is a timeout that nothing but a lost wakeup waits for.
const long = 20 * time.Second

// The worker may be woken for nothing: by a signal to its thread, or by a wakeup meant for an event it has seen. It is told so, and sleeps
// on: the wakeup is used up.
func TestSpuriousWakeup(t *testing.T) {
	onThread(t, sleepers, func(t *testing.T, m Mode) {
		workerFD, sourceFD := pair(t, unix.SOCK_DGRAM)
		defer unix.Close(workerFD)
		defer unix.Close(sourceFD)
		w := newWaiter(t, m, workerFD)
		defer w.Close()
		thread := unix.Gettid()
		for _, tt := range []struct {
			name string
			wake func()
		}{
			{"a wakeup of Notify's whose note was seen", w.wake},
			{"a signal of the runtime's", func() { _ = unix.Tgkill(unix.Getpid(), thread, unix.SIGURG) }},
		} {
			_, before := w.Sleeps()
			armed(t, w)
			timer := time.AfterFunc(20*time.Millisecond, tt.wake)
			e := w.Sleep(long)
			timer.Stop()
			w.Disarm()
			if e != 0 {
				t.Errorf("%s: %v, want a return for nothing", tt.name, e)
			}
			if _, n := w.Sleeps(); n == before {
				t.Errorf("%s: not counted as spurious", tt.name)
			}
		}
		for range 100 { // the runtime may send more of its signals; the wakeup itself must be gone
			if e := sleep(w, 30*time.Millisecond); e == Timeout {
				return
			}
		}
		t.Error("a hundred wakeups for nothing after one")
	})
}

// A frame that comes after the last look, and a control event that does, make the sleep that begins then end at once.
func TestEventWhileGoingToSleep(t *testing.T) {
	onThread(t, sleepers, func(t *testing.T, m Mode) {
		workerFD, sourceFD := pair(t, unix.SOCK_DGRAM)
		defer unix.Close(workerFD)
		defer unix.Close(sourceFD)
		w := newWaiter(t, m, workerFD)
		defer w.Close()
		var b [8]byte
		for range 200 {
			armed(t, w)
			unix.Read(workerFD, b[:]) // the last look: nothing
			unix.Write(sourceFD, []byte{1})
			if e := asleep(w); e&Ready == 0 {
				t.Fatalf("a frame: %v, want Ready", e)
			}
			w.Disarm()
			unix.Read(workerFD, b[:])

			armed(t, w)
			w.Notify()
			if e := asleep(w); e&Notified == 0 {
				t.Fatalf("a control event: %v, want Notified", e)
			}
			w.Disarm()
		}
	})
}

// asleep sleeps, and again where that ended for nothing: the runtime interrupts system calls.
func asleep(w *Waiter) (e Event) {
	for range 1000 {
		if e = w.Sleep(long); e != 0 {
			break
		}
	}
	return e
}

// Control publishes, then notifies; a worker that sleeps wakes and sees what was published, whatever the moment.
func TestControlEventWhileAsleep(t *testing.T) {
	onThread(t, sleepers, func(t *testing.T, m Mode) {
		const events = 500
		w := newWaiter(t, m)
		defer w.Close()
		var published, seen atomic.Int64
		var stop atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := int64(1); i <= events; i++ {
				for seen.Load() != i-1 && !stop.Load() {
					runtime.Gosched()
				}
				if i%3 == 0 {
					time.Sleep(200 * time.Microsecond) // it is asleep by then
				}
				published.Store(i)
				w.Notify()
			}
		}()
		defer func() { stop.Store(true); <-done }()
		for seen.Load() < events {
			if seen.Store(published.Load()); seen.Load() == events || !w.Arm() {
				continue
			}
			if seen.Load() == published.Load() {
				if e := w.Sleep(long); e&Timeout != 0 {
					t.Fatalf("slept through event %d of %d", published.Load(), events)
				}
			}
			w.Disarm()
		}
	})
}

// POLLERR: an error is pending on the socket, and stays ready until somebody reads it.
func TestErrorOfADescriptor(t *testing.T) {
	onThread(t, sleepers, func(t *testing.T, m Mode) {
		bad, peer := pair(t, unix.SOCK_STREAM)
		defer unix.Close(bad)
		w := newWaiter(t, m, bad)
		defer w.Close()
		unix.Write(bad, []byte("never read"))
		time.AfterFunc(20*time.Millisecond, func() { unix.Close(peer) }) // with unread bytes: ECONNRESET
		if e := awaken(w); e&Failed == 0 {
			t.Errorf("an error is pending: %v, want Failed", e)
		}
		p := []unix.PollFd{{Fd: int32(bad)}}
		if _, err := unix.Poll(p, 0); err != nil || p[0].Revents&unix.POLLERR == 0 {
			t.Skipf("this kernel reports %#x, %v for a connection that was reset, not POLLERR", p[0].Revents, err)
		}
		if f := w.FailedFDs(); len(f) != 1 || f[0] != bad {
			t.Errorf("failed descriptors %v, want [%d]", f, bad)
		}
		before, _ := w.Sleeps()
		for began := time.Now(); time.Since(began) < 300*time.Millisecond; {
			sleep(w, time.Second)
		}
		if after, _ := w.Sleeps(); after-before > 20 {
			t.Errorf("%d sleeps in 300ms with an error pending, want about one in 100ms", after-before)
		}
	})
}

// A descriptor that raises no signals must not make a worker deaf in mode signal: it is busy instead, and says why.
func TestSilentDescriptor(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	w, err := New(Signal)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.SetFDs([]int{fd}); err != nil {
		t.Fatal(err)
	}
	if err := w.Bind(); err == nil {
		t.Fatal("Bind succeeds with an eventfd, which raises no signals")
	}
	if w.Arm() {
		t.Error("Arm reports true: the worker would sleep and hear nothing")
	}
	workerFD, sourceFD := pair(t, unix.SOCK_DGRAM)
	defer unix.Close(workerFD)
	defer unix.Close(sourceFD)
	if err := w.SetFDs([]int{workerFD}); err != nil {
		t.Fatal(err)
	}
	if err := w.Bind(); err != nil {
		t.Errorf("Bind with a socket instead: %v", err)
	}
}

// Several workers wait for one descriptor: poll wakes them all, epoll one (EPOLLEXCLUSIVE).
func TestOneOfSeveralWaitersIsWoken(t *testing.T) {
	const events = 40
	herd := herdOf(t, Poll, events)
	for _, m := range []Mode{EpollLevel, EpollEdge} {
		var got uint64
		for range 3 { // a worker that is late to sleep again finds the next event by itself, and counts as woken
			if got = herdOf(t, m, events); got <= events+events/2 {
				break
			}
		}
		t.Logf("%d events: %v woke %d workers, poll %d", events, m, got, herd)
		if got < events || got > events+events/2 {
			t.Errorf("%v: %d workers woken for %d events, want one each; poll woke %d", m, got, events, herd)
		}
	}
}

// herdOf is how many of four workers that wait for one descriptor are woken for some events, one at a time, in all.
func herdOf(t *testing.T, m Mode, events uint64) uint64 {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var all [4]*Waiter
	var taken, woken atomic.Uint64
	var stop atomic.Bool
	var running sync.WaitGroup
	for i := range all {
		w := newWaiter(t, m, fd)
		defer w.Close()
		all[i] = w
		running.Add(1)
		go func() {
			defer running.Done()
			runtime.LockOSThread()
			for !stop.Load() {
				if !w.Arm() {
					continue
				}
				if w.Sleep(time.Second)&Ready != 0 {
					woken.Add(1)
					time.Sleep(time.Millisecond) // the event is still there for whoever was woken, too
					var b [8]byte
					if n, _ := unix.Read(fd, b[:]); n == 8 {
						taken.Add(binary.NativeEndian.Uint64(b[:]))
					}
				}
				w.Disarm()
			}
		}()
	}
	one := binary.NativeEndian.AppendUint64(nil, 1)
	for i := range events {
		time.Sleep(3 * time.Millisecond) // all are asleep again
		unix.Write(fd, one)
		for end := time.Now().Add(long); taken.Load() <= i; time.Sleep(100 * time.Microsecond) {
			if time.Now().After(end) {
				t.Fatalf("%v: nobody woke for event %d", m, i)
			}
		}
	}
	stop.Store(true)
	for _, w := range all {
		w.Notify()
	}
	running.Wait()
	return woken.Load()
}
