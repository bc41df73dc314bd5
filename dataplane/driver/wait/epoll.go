package wait

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// applyEpoll makes the instance anew: descriptors that were closed have left the old one by themselves, which cannot be asked about.
//
// Adding a descriptor reports it at once if it is ready, with edges, too; so none is lost by being added late. After that an edge is every
// arrival, and epoll reports a descriptor only if it is readable by the time it does. A worker that sleeps only after a round
// that found nothing needs no more: what arrived since Arm is a new edge.
func (w *Waiter) applyEpoll() error {
	fresh, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	unix.Close(w.epoll)
	w.epoll = fresh
	if err := w.watch(w.event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	for _, fd := range w.fds {
		if w.leftOut(fd) {
			continue
		}
		if err := w.watch(fd); err != nil {
			w.fail(fd) // not open: as ppoll says by POLLNVAL
		}
	}
	return nil
}

func (w *Waiter) watch(fd int) error {
	// Exclusive: of several workers that wait for one descriptor, one is woken (Linux 4.5). A queue has one worker, so this costs
	// nothing; where a driver lets workers share a socket, it keeps all but one asleep. The eventfd is ours alone.
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE, Fd: int32(fd)}
	if w.mode == EpollEdge {
		ev.Events |= unix.EPOLLET
	}
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &ev)
}

func (w *Waiter) sleepEpoll(limit *unix.Timespec) (e Event) {
	n, errno := epollWait(w.epoll, w.events[:], limit)
	switch {
	case errno != 0: // EINTR
		return 0
	case n == 0:
		return Timeout
	}
	for i := range w.events[:n] {
		ev := &w.events[i]
		fd := int(ev.Fd)
		if fd == w.event {
			w.drain()
			continue
		}
		if ev.Events&unix.EPOLLIN != 0 {
			e |= Ready
		}
		if ev.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			w.fail(fd)
			_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, fd, nil) // EBADF or ENOENT: it has left by itself
		}
	}
	return e
}
