package host

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Change is what an [Event] is about.
type Change uint8

const (
	ChangeAll      Change = iota // anything may have changed: read all anew. The first event, and one after each overflow
	ChangeLink                   // Link, without its addresses
	ChangeAddress                // Address
	ChangeRoute                  // a route of the main or local table, To; or a next hop object, To invalid
	ChangeNeighbor               // Neighbor
	ChangeEnd                    // the watch has ended by Err, the last event
)

func (c Change) String() string {
	return [...]string{"all", "link", "address", "route", "neighbor", "end"}[c]
}

// Event is one change of the host, after it happened. Only the field that Change names is valid.
type Event struct {
	Change   Change
	Gone     bool // it is no more
	Link     Link
	Address  Address
	To       netip.Prefix
	Neighbor Neighbor
	Err      error
}

// watchBuffer is the receive buffer of the watch in bytes: some ten thousand notifications, a burst as a routing daemon makes at its start.
const watchBuffer = 4 << 20

// groups are the multicast groups of rtnetlink that the watch joins.
var groups = []uint{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_NEXTHOP,
}

// Watch sends every change of links, addresses, routes and neighbours to events until ctx ends, then closes events. It subscribes
// before it returns, and the first event is ChangeAll: whoever reads after that misses nothing.
//
// When the kernel finds no room in the socket's buffer, because events is not read fast enough, notifications are lost; what waits in
// the buffer is then older than what was lost and is thrown away, and the next event is ChangeAll.
func (h *Host) Watch(ctx context.Context, events chan<- Event) error {
	return h.watch(ctx, events, watchBuffer)
}

func (h *Host) watch(ctx context.Context, events chan<- Event, buffer int) error {
	fd := -1
	err := h.in(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return fail("socket", "NETLINK_ROUTE", err)
	}
	// Beyond net.core.rmem_max only with CAP_NET_ADMIN; less room means more ChangeAll, not less truth.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	addr := unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for _, g := range groups {
		addr.Groups |= 1 << (g - 1)
	}
	if err := unix.Bind(fd, &addr); err != nil {
		unix.Close(fd)
		return fail("bind", "NETLINK_ROUTE groups", err)
	}
	file := os.NewFile(uintptr(fd), "netlink") // non-blocking, so the runtime waits for it, and Close ends the wait
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return fail("poll", "NETLINK_ROUTE groups", err)
	}
	forget := context.AfterFunc(ctx, func() { file.Close() })
	go func() {
		defer close(events)
		defer file.Close()
		defer forget()
		w := watcher{conn: conn, ctx: ctx, events: events, b: make([]byte, messageSize)}
		if err := w.run(); err != nil && ctx.Err() == nil {
			w.send(Event{Change: ChangeEnd, Err: fail("recvfrom", "NETLINK_ROUTE groups", err)})
		}
	}()
	return nil
}

// messageSize is the most that one receive gives, in bytes: the kernel fills a dump's buffer up to 32 KiB, a notification is below 4.
const messageSize = 1 << 16

// watcher is the one goroutine of a watch.
type watcher struct {
	conn   syscall.RawConn
	ctx    context.Context
	events chan<- Event
	b      []byte
}

func (w *watcher) send(e Event) bool {
	select {
	case w.events <- e:
		return true
	case <-w.ctx.Done():
		return false
	}
}

func (w *watcher) run() error {
	if !w.send(Event{Change: ChangeAll}) {
		return nil
	}
	for {
		n, from, err := w.receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			if err := w.drain(); err != nil {
				return err
			}
			if !w.send(Event{Change: ChangeAll}) {
				return nil
			}
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		}
		if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != nl.PidKernel {
			continue // any process may send to us; only the kernel is believed
		}
		msgs, err := syscall.ParseNetlinkMessage(w.b[:n])
		if err != nil {
			return err
		}
		for _, m := range msgs {
			if e, ok := parseEvent(m.Header.Type, m.Data); ok && !w.send(e) {
				return nil
			}
		}
	}
}

// receive waits for the next datagram.
func (w *watcher) receive() (n int, from unix.Sockaddr, err error) {
	waitErr := w.conn.Read(func(fd uintptr) bool {
		n, from, err = unix.Recvfrom(int(fd), w.b, 0)
		return !errors.Is(err, unix.EAGAIN)
	})
	if waitErr != nil {
		return 0, nil, waitErr
	}
	return n, from, err
}

// drain empties the socket. The kernel sends nothing to a socket that overflowed until it is empty.
func (w *watcher) drain() error {
	var err error
	waitErr := w.conn.Read(func(fd uintptr) bool {
		for w.ctx.Err() == nil {
			_, _, err = unix.Recvfrom(int(fd), w.b, unix.MSG_DONTWAIT)
			switch {
			case errors.Is(err, unix.EAGAIN):
				err = nil
				return true
			case err == nil, errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EINTR):
			default:
				return true
			}
		}
		return true
	})
	return errors.Join(waitErr, err)
}

// parseEvent reads one notification. It reports false for what is of no interest: bridge entries, multicast groups, other tables.
func parseEvent(typ uint16, msg []byte) (e Event, ok bool) {
	switch typ {
	case unix.RTM_DELLINK, unix.RTM_DELADDR, unix.RTM_DELNEIGH, unix.RTM_DELROUTE:
		e.Gone = true
	}
	switch typ {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		e.Change = ChangeLink
		e.Link, ok = parseLink(msg)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		e.Change = ChangeAddress
		e.Address, ok = parseAddress(msg)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		e.Change = ChangeNeighbor
		e.Neighbor, ok = parseNeighbor(msg)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		var r kernelRoute
		r, ok = parseRoute(msg)
		ok = ok && (r.table == unix.RT_TABLE_MAIN || r.table == unix.RT_TABLE_LOCAL)
		e.Change, e.To = ChangeRoute, r.to
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		e.Change, ok = ChangeRoute, true
	}
	return e, ok
}
