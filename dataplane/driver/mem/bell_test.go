package mem

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// waits are the ways in which a worker sleeps on a descriptor. Each reports false after ten seconds without a wakeup.
var waits = []struct {
	name string
	open func(t *testing.T, fd int) (wait func() bool)
}{
	{"poll", func(t *testing.T, fd int) func() bool {
		return func() bool {
			n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10000)
			return n != 0
		}
	}},
	{"epoll level", func(t *testing.T, fd int) func() bool { return epoll(t, fd, unix.EPOLLIN) }},
	{"epoll edge", func(t *testing.T, fd int) func() bool { return epoll(t, fd, unix.EPOLLIN|unix.EPOLLET) }},
}

func epoll(t *testing.T, fd int, events uint32) func() bool {
	t.Helper()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(ep) })
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		t.Fatal(err)
	}
	return func() bool {
		n, _ := unix.EpollWait(ep, make([]unix.EpollEvent, 1), 10000)
		return n != 0
	}
}

// A worker that sleeps whenever Receive gives nothing, with a far end that injects at awkward moments, hears of every frame.
func TestNoWakeupIsLost(t *testing.T) {
	const frames = 6000
	for _, w := range waits {
		for _, vector := range []int{1, 8, 256} {
			t.Run(fmt.Sprintf("%s, vector %d", w.name, vector), func(t *testing.T) {
				t.Parallel()
				pool := newPool(t, 512)
				p, err := NewPort(pool, Options{Ring: 16})
				if err != nil {
					t.Fatal(err)
				}
				wait := w.open(t, p.FD())
				go func() {
					b := make([]byte, 8)
					for i := range uint64(frames) {
						binary.BigEndian.PutUint64(b, i)
						for !p.Inject(b) {
							runtime.Gosched()
						}
						if i%7 == 0 { // let the worker run dry now and then
							runtime.Gosched()
						}
						if i%500 == 0 {
							time.Sleep(50 * time.Microsecond)
						}
					}
				}()
				taken := make(chan error, 1)
				go func() {
					b := make([]byte, 64)
					for i := uint64(0); i < frames; {
						n, ok := p.Take(b)
						if !ok {
							runtime.Gosched()
							continue
						}
						if got := binary.BigEndian.Uint64(b); n != 8 || got != i {
							taken <- fmt.Errorf("took frame %d of %d bytes, want %d", got, n, i)
							return
						}
						i++
					}
					taken <- nil
				}()
				d := make([]packet.Desc, vector)
				for received, sleeps := 0, 0; received < frames; {
					n := p.Receive(d)
					if n == 0 {
						sleeps++
						if !wait() {
							t.Fatalf("asleep for ten seconds after %d of %d frames (%d sleeps): state %d, inbox %d", received, frames, sleeps, p.bell.state.Load(), p.in.ready())
						}
						continue
					}
					received += n
					for rest := d[:n]; len(rest) > 0; {
						k := p.Send(rest)
						if rest = rest[k:]; k == 0 {
							runtime.Gosched()
						}
					}
				}
				select {
				case err := <-taken:
					if err != nil {
						t.Error(err)
					}
				case <-time.After(10 * time.Second):
					t.Error("the far end did not get all frames within ten seconds")
				}
				if s := p.Stats(); s.Received != frames || s.Sent != frames || pool.Free() != pool.Chunks() {
					t.Errorf("stats %+v, %d of %d chunks free", s, pool.Free(), pool.Chunks())
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// The descriptor must not stay readable over an empty inbox, or a worker that sleeps would spin.
func TestAWorkerIsWokenForNothingAtMostOnce(t *testing.T) {
	p, err := NewPort(newPool(t, 512), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	readable := func() bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(p.FD()), Events: unix.POLLIN}}, 0)
		return n == 1
	}
	d := make([]packet.Desc, 2)
	for round := range 3 {
		if p.Receive(d) != 0 || readable() {
			t.Fatalf("round %d: readable and dry", round)
		}
		for range 3 {
			p.Inject([]byte("frame"))
		}
		for want := 3; want > 0; {
			if !readable() {
				t.Fatalf("round %d: not readable with %d frames in the inbox", round, want)
			}
			n := p.Receive(d)
			p.Send(d[:n])
			want -= n
		}
		if n := p.Receive(d); n != 0 {
			t.Fatalf("round %d: %d frames too many", round, n)
		}
	}
	if w := p.Stats().Wakeups; w != 3 {
		t.Errorf("%d writes to the eventfd for three bursts, want 3", w)
	}
}

// A frame that comes in while the worker arms, and for which it has no room, keeps the descriptor readable. arm is called where
// Receive would have seen the inbox empty.
func TestArmingSeesAFrameOfThatMoment(t *testing.T) {
	p, err := NewPort(newPool(t, 512), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.bell.state.Store(bellRung) // as after a burst; the eventfd is drained all the same
	p.in.push([]byte("published, the bell not rung yet"))
	if !p.bell.arm(&p.in) {
		t.Error("arm did not see the frame")
	}
	if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(p.FD()), Events: unix.POLLIN}}, 0); n != 1 {
		t.Error("not readable with a frame in the inbox")
	}
	p.bell.ring() // the producer comes to it at last: no second write
	if w := p.Stats().Wakeups; w != 1 {
		t.Errorf("%d writes, want 1", w)
	}
}

func TestCloseWhileTheFarEndInjects(t *testing.T) {
	for range 200 {
		p, err := NewPort(newPool(t, 16), Options{Ring: 16})
		if err != nil {
			t.Fatal(err)
		}
		started, stop, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			close(started)
			for {
				select {
				case <-stop:
					return
				default:
					p.Inject([]byte("frame"))
				}
			}
		}()
		<-started
		d := make([]packet.Desc, 4)
		p.Send(d[:p.Receive(d)])
		p.Receive(d[:0])
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		close(stop)
		<-done
		if p.Inject([]byte("frame")) {
			t.Fatal("injected after Close")
		}
		if p.FD() != -1 {
			t.Fatalf("descriptor %d after Close", p.FD())
		}
	}
}
