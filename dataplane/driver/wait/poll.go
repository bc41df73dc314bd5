package wait

import "golang.org/x/sys/unix"

// pollFailed are the events that ppoll(2) and epoll(7) report unasked, and that stay until the cause is gone.
const pollFailed = unix.POLLERR | unix.POLLHUP | unix.POLLNVAL

func (w *Waiter) applyPoll() {
	w.polled = append(w.polled[:0], unix.PollFd{Fd: int32(w.event), Events: unix.POLLIN})
	for _, fd := range w.fds {
		if !w.leftOut(fd) {
			// POLLIN alone: POLLOUT of an AF_XDP socket is true while its send ring is half empty, so always.
			w.polled = append(w.polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
}

func (w *Waiter) sleepPoll(limit *unix.Timespec) (e Event) {
	n, err := unix.Ppoll(w.polled, limit, nil)
	switch {
	case err != nil: // EINTR
		return 0
	case n == 0:
		return Timeout
	}
	if w.polled[0].Revents != 0 {
		w.drain()
	}
	for i := range w.polled[1:] {
		p := &w.polled[1+i]
		if p.Revents&unix.POLLIN != 0 {
			e |= Ready
		}
		if p.Revents&pollFailed != 0 {
			w.fail(int(p.Fd))
		}
	}
	if w.unsaid {
		w.applyPoll()
	}
	return e
}
