// Package wait is how a worker waits when its queues are empty.
//
// A [Waiter] belongs to one worker; only Notify may be called by others. The worker's loop is
//
//	for {
//		if round() > 0 {
//			w.Worked()
//			continue
//		}
//		if w.Arm() {
//			if round() == 0 { // look once more
//				w.Sleep(timeout)
//			} else {
//				w.Worked()
//			}
//			w.Disarm()
//		}
//	}
//
// No wakeup is lost. What arrives on a descriptor after Arm makes it ready, or raises a signal, whether or not Sleep has begun; what arrived
// before is found by the round in between. Notify leaves a note first and looks second whether the worker is armed; Arm does
// the two the other way round; so one of them sees the other.
//
//	        Arm                    Sleep               returns               Disarm
//	awake ------> armed ----------------> asleep ----------------> armed -----------> awake
//	  | Arm finds a note, or it is too early to sleep                                   ^
//	  +---------------------------------------------------------------------------------+
//
// Between Worked and Arm nothing costs a system call. A control event goes to a sleeping worker through an eventfd in the same wait set; to one
// that is awake it is only the note.
package wait

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Mode is a way of waiting.
type Mode uint8

const (
	Adaptive   Mode = iota // look again for a while, then as Poll; for how long follows how long the gaps are
	Busy                   // never sleep
	Poll                   // ppoll(2) at once
	EpollLevel             // epoll(7), level-triggered, at once
	EpollEdge              // epoll(7), edge-triggered, at once
	Signal                 // rt_sigtimedwait(2) for the signal that the descriptors raise (O_ASYNC), at once
	modeCount
)

var modeNames = [modeCount]string{"adaptive", "busy", "poll", "epoll-level", "epoll-edge", "signal"}

// ParseMode reads a mode's name.
func ParseMode(s string) (Mode, error) {
	for m, name := range modeNames {
		if s == name {
			return Mode(m), nil
		}
	}
	return 0, fmt.Errorf("wait %q: must be busy, poll, epoll-level, epoll-edge, signal or adaptive", s)
}

func (m Mode) String() string {
	if m < modeCount {
		return modeNames[m]
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// MarshalText and UnmarshalText make a Mode its name in YAML and JSON.
func (m Mode) MarshalText() ([]byte, error) {
	if m >= modeCount {
		return nil, fmt.Errorf("wait mode %d is unknown", uint8(m))
	}
	return []byte(modeNames[m]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *Mode) UnmarshalText(b []byte) (err error) {
	*m, err = ParseMode(string(b))
	return err
}

// Event says why Sleep returned, as bits. None means: for no reason that concerns the worker (an interrupted system call), as it may.
type Event uint8

const (
	Ready    Event = 1 << iota // a descriptor is readable
	Notified                   // Notify was called since the last time this was said
	Timeout                    // the time is over
	Failed                     // a descriptor reports an error, a hang-up or that it is not open; see FailedFDs
)

// failedFor is how long a descriptor that reports an error is left out. It would be ready again at once, always; but the error may
// pass, with a link that comes up, say.
const failedFor = 100 * time.Millisecond

// Waiter is how one worker waits. All methods but Notify are the worker's, on one locked thread; SetFDs may also be called before it runs.
type Waiter struct {
	// read for every empty round
	mode  Mode
	spin  spin
	armed atomic.Bool // Notify must write to the eventfd
	note  atomic.Bool // Notify was called

	// used to sleep
	event    int // the eventfd
	fds      []int
	failed   []int     // those of fds that are left out
	unsaid   bool      // a failure that Sleep has not reported yet
	retry    time.Time // when failed are taken in again
	timeout  unix.Timespec
	polled   []unix.PollFd // Poll and Adaptive: the eventfd, then fds
	epoll    int           // the epoll instance, or -1
	events   [16]unix.EpollEvent
	signal   signal
	scratch  [8]byte
	sleeps   atomic.Uint64
	spurious atomic.Uint64
	calls    atomic.Uint64
}

// New makes a waiter. It needs no rights.
func New(m Mode) (*Waiter, error) {
	if m >= modeCount {
		return nil, fmt.Errorf("wait mode %d is unknown", uint8(m))
	}
	w := &Waiter{mode: m, event: -1, epoll: -1}
	w.spin.reset()
	var err error
	if w.event, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if m == EpollLevel || m == EpollEdge {
		if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			unix.Close(w.event)
			return nil, fmt.Errorf("epoll_create1: %w", err)
		}
	}
	if err := w.SetFDs(nil); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// Mode is the mode that the waiter was made for.
func (w *Waiter) Mode() Mode { return w.mode }

// SetFDs sets the descriptors that wake the worker when they are readable; negative ones are left out. It must be called again when one of them
// changes or is closed and made anew with the same number.
func (w *Waiter) SetFDs(fds []int) error {
	w.fds, w.failed = w.fds[:0], w.failed[:0]
	for _, fd := range fds {
		if fd >= 0 {
			w.fds = append(w.fds, fd)
		}
	}
	if cap(w.failed) < len(w.fds) {
		w.failed = make([]int, 0, len(w.fds)) // so that Sleep need not
	}
	return w.apply()
}

// apply brings the wait set in line with fds and failed.
func (w *Waiter) apply() error {
	switch w.mode {
	case Poll, Adaptive:
		w.applyPoll()
	case EpollLevel, EpollEdge:
		return w.applyEpoll()
	case Signal:
		w.signal.stale = true // the owner of the signal is the worker's thread, which this need not be
	}
	return nil
}

// leftOut reports whether fd is in failed.
func (w *Waiter) leftOut(fd int) bool {
	for _, f := range w.failed {
		if f == fd {
			return true
		}
	}
	return false
}

// fail leaves fd out for a while.
func (w *Waiter) fail(fd int) {
	if w.leftOut(fd) || len(w.failed) == cap(w.failed) {
		return
	}
	w.failed = append(w.failed, fd)
	w.retry, w.unsaid = time.Now().Add(failedFor), true
}

// FailedFDs are the descriptors that reported an error and are left out, for failedFor or until SetFDs. Valid until the next call of w's.
func (w *Waiter) FailedFDs() []int { return w.failed }

// Notify wakes the worker if it sleeps and lets its next Sleep, or the Sleep it is about to begin, return at once. It may be called from any
// goroutine, after what it is to notice has been published.
func (w *Waiter) Notify() {
	w.note.Store(true)
	if w.armed.Load() {
		w.wake()
	}
}

// wake makes Sleep return, now or as soon as it begins.
func (w *Waiter) wake() {
	if w.mode == Signal {
		w.signal.raise()
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(w.event, one[:]) // EAGAIN: it is readable as it is
}

// Worked tells that a round found something to do. It may be left out where no mode needs it but Adaptive.
func (w *Waiter) Worked() {
	if w.spin.idle {
		w.spin.gapEnded(time.Now())
	}
}

// Arm is called after a round that found nothing. If it reports true, the worker must look once more, call Sleep if there is still nothing, and
// call Disarm in any case. If it reports false, it is too early to sleep, or there is a control event to see: the worker goes on.
func (w *Waiter) Arm() bool {
	switch w.mode {
	case Busy:
		return false
	case Adaptive:
		if w.spin.goOn(time.Now()) {
			return false
		}
	case Signal:
		if err := w.armSignal(); err != nil {
			return false // busy rather than deaf; bind says why
		}
	}
	w.armed.Store(true)
	if w.note.Load() { // after armed: see Notify
		w.note.Store(false)
		w.Disarm()
		return false
	}
	return true
}

// Sleep waits until a descriptor is readable, Notify is called or the time is over; a negative timeout is none. It may return for no
// reason. It allocates nothing.
func (w *Waiter) Sleep(timeout time.Duration) Event {
	early := false // it is our own time that is over
	if len(w.failed) > 0 {
		left := time.Until(w.retry)
		if left <= 0 {
			w.failed = w.failed[:0]
			_ = w.apply() // a descriptor that cannot be added is failed again
		} else if timeout < 0 || timeout > left {
			timeout, early = left, true
		}
	}
	if w.unsaid {
		timeout = 0 // the worker should hear of it now
	}
	w.timeout = unix.NsecToTimespec(max(timeout, 0).Nanoseconds())
	limit := &w.timeout
	if timeout < 0 {
		limit = nil
	}
	w.sleeps.Add(1)
	w.called(1)
	var e Event
	switch w.mode {
	case Poll, Adaptive:
		e = w.sleepPoll(limit)
	case EpollLevel, EpollEdge:
		e = w.sleepEpoll(limit)
	case Signal:
		e = w.sleepSignal(limit)
	}
	if early {
		e &^= Timeout
	}
	if w.unsaid {
		w.unsaid = false
		e = e&^Timeout | Failed
	}
	if w.note.Load() {
		w.note.Store(false)
		e |= Notified
	}
	if e == 0 {
		w.spurious.Add(1)
	}
	return e
}

// Disarm ends what Arm began.
func (w *Waiter) Disarm() {
	w.armed.Store(false)
	if w.mode == Signal {
		w.disarmSignal()
	}
}

// drain empties the eventfd.
func (w *Waiter) drain() {
	_, _ = unix.Read(w.event, w.scratch[:]) // EAGAIN: it is empty
	w.called(1)
}

// called counts system calls of the worker's, which alone writes.
func (w *Waiter) called(n int) { w.calls.Store(w.calls.Load() + uint64(n)) }

// Calls is how many system calls the worker has made to wait, those that changed the wait set aside. It may be called from any goroutine.
func (w *Waiter) Calls() uint64 { return w.calls.Load() }

// Sleeps is how often the worker slept, and how often for nothing. It may be called from any goroutine.
func (w *Waiter) Sleeps() (all, spurious uint64) { return w.sleeps.Load(), w.spurious.Load() }

// Close releases the waiter after its worker has stopped; on the worker's own thread, it also unblocks the signal. Notify must not be called any more.
func (w *Waiter) Close() error {
	if w.mode == Signal {
		w.signal.release(w.fds)
	}
	if w.epoll >= 0 {
		unix.Close(w.epoll)
		w.epoll = -1
	}
	if w.event >= 0 {
		unix.Close(w.event)
		w.event = -1
	}
	return nil
}
