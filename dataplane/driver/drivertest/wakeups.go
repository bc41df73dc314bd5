package drivertest

import (
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"weir/dataplane/driver/wait"
	"weir/dataplane/packet"
)

// sleepers are the modes that sleep.
var sleepers = []wait.Mode{wait.Adaptive, wait.Poll, wait.EpollLevel, wait.EpollEdge, wait.Signal}

const (
	// nap is how long a worker of these tests sleeps at most. A frame that it sleeps through is a lost wakeup, and no stall of a shared
	// machine is as long; with a short nap the frame would merely be late, and a stall would look the same.
	nap = 20 * time.Second
	// late is what is worth a line in the log.
	late = 50 * time.Millisecond
)

// wakeupFrames is how many frames each mode is woken for: WEIR_WAKEUPS of them, a million for a long run.
func wakeupFrames(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("WEIR_WAKEUPS")); err == nil && n > 0 {
		return n
	}
	if testing.Short() {
		return 2_000
	}
	return 25_000
}

// Wakeups runs a worker that waits for the queue's descriptor in every mode that sleeps, and a far end that sends one frame at a time, each
// after a random gap, so that no frame makes good the wakeup that was lost for the one before. Inject is called by another goroutine.
// up, if not nil, sets the link down and up.
func Wakeups(t *testing.T, open func(t *testing.T) (link Link, up func(up bool))) {
	for _, m := range sleepers {
		t.Run(m.String(), func(t *testing.T) {
			link, up := open(t)
			defer link.Queue.Close()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			w, err := wait.New(m)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if err := w.SetFDs([]int{link.Queue.FD()}); err != nil {
				t.Fatal(err)
			}
			if err := w.Bind(); err != nil {
				t.Skipf("%s: %v", m, err)
			}
			s := sleeper{T: t, link: link, waiter: w, random: rand.New(rand.NewPCG(1, uint64(m)))}
			s.oneByOne(wakeupFrames(t))
			if up == nil {
				return
			}
			s.flap(up)
			s.oneByOne(200)
		})
	}
}

// sleeper is the worker.
type sleeper struct {
	*testing.T
	link   Link
	waiter *wait.Waiter
	random *rand.Rand
	got    [packet.VectorSize]packet.Desc
}

// round takes what is there and returns how many frames of ours that was.
func (s *sleeper) round() (n int) {
	for _, d := range s.got[:s.link.Queue.Receive(s.got[:])] {
		if ours(s.link.Pool.Bytes(d)) {
			n++
		}
		s.link.Pool.Put(d.Addr)
	}
	s.link.Queue.Flush()
	return n
}

// step is one turn of a worker's loop.
func (s *sleeper) step(sleep time.Duration) (frames int, e wait.Event, slept bool) {
	if frames = s.round(); frames > 0 {
		s.waiter.Worked()
		return frames, 0, false
	}
	if !s.waiter.Arm() {
		return 0, 0, false
	}
	if frames = s.round(); frames > 0 {
		s.waiter.Worked()
	} else {
		e, slept = s.waiter.Sleep(sleep), true
	}
	s.waiter.Disarm()
	return frames, e, slept
}

// gap is the pause before the next frame: mostly about as long as the way from an empty round into the system call, now and then longer than
// anybody spins.
func (s *sleeper) gap() time.Duration {
	if s.random.IntN(16) == 0 {
		return time.Duration(s.random.IntN(150_000))
	}
	return time.Duration(s.random.ExpFloat64() * 4000)
}

// oneByOne has frames sent and received, one after the other.
func (s *sleeper) oneByOne(frames int) {
	s.Helper()
	var seen atomic.Int64
	var sent atomic.Int64 // nanoseconds since start, of the frame that is under way; 0: it has not been sent
	var stop atomic.Bool
	start, done := time.Now(), make(chan struct{})
	frame := make([]byte, 60)
	copy(frame, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5")
	go func() {
		defer close(done)
		for i := range int64(frames) {
			for seen.Load() != i {
				if stop.Load() {
					return
				}
				runtime.Gosched()
			}
			for gap, began := s.gap(), time.Now(); time.Since(began) < gap; {
			}
			for !s.link.Inject(frame) {
				if stop.Load() {
					return
				}
				runtime.Gosched()
			}
			sent.Store(int64(time.Since(start)))
		}
	}()
	defer func() { stop.Store(true); <-done }()
	before, nothing := s.waiter.Sleeps()
	worst, lates := time.Duration(0), 0
	for seen.Load() < int64(frames) {
		n, e, slept := s.step(nap)
		if slept && e&wait.Timeout != 0 {
			at := sent.Load()
			if ago := time.Since(start) - time.Duration(at); at > 0 && ago > nap/2 {
				s.Fatalf("a lost wakeup: frame %d was sent %v ago, and the worker slept until its timeout of %v; a round now finds %d",
					seen.Load(), ago, nap, s.round())
			}
		}
		if n == 0 {
			continue
		}
		if n > 1 {
			s.Fatalf("%d frames at once, but one is sent at a time", n)
		}
		if at := sent.Swap(0); at > 0 { // else it came before its sender knew
			took := time.Since(start) - time.Duration(at)
			worst = max(worst, took)
			if took > late {
				lates++
			}
		}
		seen.Add(1)
	}
	sleeps, spurious := s.waiter.Sleeps()
	s.Logf("%d frames, %d sleeps, %d of them for nothing; the latest frame came after %v, %d after more than %v", frames, sleeps-before,
		spurious-nothing, worst, lates, late)
	if sleeps == before {
		s.Skip("the worker never slept: nothing was tested")
	}
}

// flap takes the link down under a worker that sleeps, and up again. The descriptor may report an error all the while (POLLERR); the worker
// must not spin on it.
func (s *sleeper) flap(up func(bool)) {
	s.Helper()
	up(false)
	returns := 0
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		if _, _, slept := s.step(50 * time.Millisecond); slept {
			returns++
		}
	}
	if returns > 40 {
		s.Errorf("the link is down: woke up %d times in 300ms with a timeout of 50ms", returns)
	}
	up(true)
	for end := time.Now().Add(patience); !s.link.Queue.Stats().Up; s.step(time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("the queue is not up again after %v", patience)
		}
	}
	for end := time.Now().Add(150 * time.Millisecond); time.Now().Before(end); { // the descriptor is taken in again
		s.step(10 * time.Millisecond)
	}
	if fd := s.link.Queue.FD(); fd >= 0 {
		if err := s.waiter.SetFDs([]int{fd}); err != nil {
			s.Fatal(err)
		}
	}
}
