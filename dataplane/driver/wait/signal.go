package wait

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ioSignal is the real-time signal that the descriptors raise. Real-time, because signals of that kind queue and name their descriptor's
// event; in the middle of the range, because C libraries and debuggers use its ends.
const ioSignal = 44

// signal is what mode Signal needs. It lives with Go's runtime as follows:
//
//   - The signal is blocked in the mask of the worker's thread only, and raised for that thread only (F_OWNER_TID); blocked, it waits in
//     the thread's queue until rt_sigtimedwait takes it. The runtime changes the mask of a thread only while it makes threads,
//     and restores it; threads that it makes have the process's first mask.
//   - A signal that comes when it is not blocked reaches the runtime's handler, which ignores those that nobody has asked for.
//   - The runtime preempts by SIGURG; that ends rt_sigtimedwait with EINTR, a return for no reason.
//   - O_ASYNC is on only from Arm to Disarm, so that a busy worker has no signals made for it.
//
// The owner is a thread, so the worker must have called runtime.LockOSThread before its first Arm, and Arm and Sleep must be called on that thread.
type signal struct {
	thread atomic.Int32 // whose signal it is; 0: not bound yet
	stale  bool         // the descriptors have no owner yet
	flags  []int        // of fds, without O_ASYNC; -1: not usable
	on     bool         // O_ASYNC is set
	err    error        // of binding
}

// raise sends the signal to the worker's thread, for Notify.
func (s *signal) raise() {
	_ = unix.Tgkill(unix.Getpid(), int(s.thread.Load()), unix.Signal(ioSignal)) // EAGAIN: the queue is full, so something else wakes it
}

// errSilent is of a descriptor that takes O_ASYNC for nothing: eventfds, regular files.
var errSilent = errors.New("raises no signals")

// Bind prepares the calling thread, which must be the worker's own and locked, in mode Signal; in others it does nothing. The first Arm
// does it if nobody has; but Arm cannot return the error. While a descriptor is of a kind that raises no signals, Bind fails and the worker is
// busy, rather than deaf.
func (w *Waiter) Bind() error {
	if w.mode != Signal {
		return nil
	}
	return w.bindSignal()
}

// Unbind ends what Bind began, on the same thread, which is about to end: the next worker's Bind is on another.
func (w *Waiter) Unbind() {
	w.disarmSignal()
	w.signal.stale = true
	w.signal.thread.Store(0)
}

func (w *Waiter) bindSignal() error {
	s := &w.signal
	if s.thread.Load() == 0 {
		if errno := maskSignal(unix.SIG_BLOCK, ioSignal); errno != 0 {
			return fmt.Errorf("rt_sigprocmask: %w", errno)
		}
		s.thread.Store(int32(unix.Gettid()))
	}
	if !s.stale {
		return s.err
	}
	s.stale, s.err = false, nil
	s.flags = s.flags[:0]
	for _, fd := range w.fds {
		flags := -1
		if !w.leftOut(fd) {
			var err error
			switch flags, err = own(fd, int(s.thread.Load())); {
			case errors.Is(err, errSilent):
				s.err = fmt.Errorf("descriptor %d %w: mode signal is not for it", fd, err)
				flags = -1
			case err != nil:
				w.fail(fd)
				flags = -1
			}
		}
		s.flags = append(s.flags, flags)
	}
	return s.err
}

// own makes fd raise ioSignal for the thread once O_ASYNC is set, and returns its flags. The kernel lets O_ASYNC be set on any descriptor, but the
// flag stays only on one that can raise signals.
func own(fd, thread int) (flags int, err error) {
	if flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil {
		return 0, err
	}
	if errno := setOwner(fd, thread); errno != 0 {
		return 0, errno
	}
	if _, err = unix.FcntlInt(uintptr(fd), unix.F_SETSIG, ioSignal); err != nil {
		return 0, err
	}
	flags &^= unix.O_ASYNC
	if _, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_ASYNC); err != nil {
		return 0, err
	}
	now, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	}
	if err == nil && now&unix.O_ASYNC == 0 {
		err = errSilent
	}
	return flags, err
}

// armSignal switches the signals on.
func (w *Waiter) armSignal() error {
	s := &w.signal
	if s.thread.Load() == 0 || s.stale {
		if err := w.bindSignal(); err != nil {
			return err
		}
	}
	if s.err != nil {
		return s.err
	}
	if !s.on {
		s.on = true
		w.setAsync(unix.O_ASYNC)
	}
	return nil
}

func (w *Waiter) disarmSignal() {
	s := &w.signal
	if !s.on {
		return
	}
	s.on = false
	w.setAsync(0)
	w.takeSignals()
}

// setAsync sets the flags of all descriptors with async added. One that is closed meanwhile is left alone.
func (w *Waiter) setAsync(async int) {
	for i, flags := range w.signal.flags {
		if flags >= 0 {
			w.called(1)
			if _, err := unix.FcntlInt(uintptr(w.fds[i]), unix.F_SETFL, flags|async); err != nil {
				w.signal.flags[i] = -1
				w.fail(w.fds[i])
			}
		}
	}
}

// takeSignals takes all signals that have been raised so far.
func (w *Waiter) takeSignals() {
	var now unix.Timespec
	for {
		w.called(1)
		if _, errno := takeSignal(ioSignal, &now); errno != 0 && errno != unix.EINTR {
			return
		}
	}
}

func (w *Waiter) sleepSignal(limit *unix.Timespec) (e Event) {
	if w.signal.stale { // after failedFor
		w.signal.on = false
		if err := w.armSignal(); err != nil {
			return 0
		}
		return 0 // what came before the descriptor was armed raised nothing, so look again
	}
	band, errno := takeSignal(ioSignal, limit)
	switch errno {
	case 0:
	case unix.EAGAIN:
		return Timeout
	default: // EINTR
		return 0
	}
	for {
		switch {
		case band.fd < 0: // from Notify
		case band.events&pollFailed != 0:
			e |= Ready
			if i := w.position(band.fd); i >= 0 {
				w.fail(band.fd)
				_, _ = unix.FcntlInt(uintptr(band.fd), unix.F_SETFL, w.signal.flags[i])
				w.signal.flags[i] = -1
			}
		default:
			e |= Ready
		}
		var now unix.Timespec
		w.called(1)
		if band, errno = takeSignal(ioSignal, &now); errno != 0 {
			return e
		}
	}
}

// position is the index of fd among the descriptors that are armed, or -1.
func (w *Waiter) position(fd int) int {
	for i, f := range w.fds {
		if f == fd && i < len(w.signal.flags) && w.signal.flags[i] >= 0 {
			return i
		}
	}
	return -1
}

// release unblocks the signal if this is the thread that it is blocked on.
func (s *signal) release(fds []int) {
	for i, flags := range s.flags {
		if flags >= 0 && s.on && i < len(fds) {
			_, _ = unix.FcntlInt(uintptr(fds[i]), unix.F_SETFL, flags)
		}
	}
	if t := s.thread.Load(); t == 0 || int(t) != unix.Gettid() {
		return
	}
	var now unix.Timespec
	for {
		if _, errno := takeSignal(ioSignal, &now); errno != 0 && errno != unix.EINTR {
			break
		}
	}
	_ = maskSignal(unix.SIG_UNBLOCK, ioSignal)
	s.thread.Store(0)
}
