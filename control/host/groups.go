package host

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Membership is a multicast group on a device.
type Membership struct {
	Ifindex int
	Group   netip.Addr
}

func (m Membership) String() string { return fmt.Sprintf("%s on device %d", m.Group, m.Ifindex) }

// Groups has the kernel be a member of multicast groups: it reports so by IGMP or MLD, answers queries, has the device take the group's
// frames, and leaves when the sockets that stand for the memberships are closed, however the process ends. Nothing is received by them:
// they are bound to no port.
type Groups struct {
	h *Host

	mu     sync.Mutex
	joined map[Membership]int // its socket: one may have no more than net.ipv4.igmp_max_memberships, 20
}

// NewGroups joins nothing yet.
func (h *Host) NewGroups() *Groups { return &Groups{h: h, joined: map[Membership]int{}} }

// Set makes the memberships those of want: joins what is missing, leaves the others. On an error what could be done is done; the error names
// the rest, and the next Set tries again. A device that is made anew has another index, so it is joined anew.
func (g *Groups) Set(want []Membership) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for m, fd := range g.joined {
		if !slices.Contains(want, m) {
			delete(g.joined, m)
			errs = append(errs, fail("close", m.String(), unix.Close(fd)))
		}
	}
	for _, m := range want {
		if _, is := g.joined[m]; is {
			continue
		}
		err := g.h.in(func() error {
			fd, err := join(m)
			if err == nil {
				g.joined[m] = fd
			}
			return err
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// join opens the socket of a membership in the calling thread's namespace.
func join(m Membership) (fd int, err error) {
	family := unix.AF_INET
	if m.Group.Is6() {
		family = unix.AF_INET6
	}
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, fail("socket", "UDP", err)
	}
	call := "IP_ADD_MEMBERSHIP"
	if m.Group.Is4() {
		err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: m.Group.As4(), Ifindex: int32(m.Ifindex)})
	} else {
		call = "IPV6_JOIN_GROUP"
		err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: m.Group.As16(), Interface: uint32(m.Ifindex)})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fail(call, m.String(), err)
	}
	return fd, nil
}

// Joined are the memberships there are, by device, then group.
func (g *Groups) Joined() []Membership {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.SortedFunc(maps.Keys(g.joined), func(a, b Membership) int {
		return cmp.Or(a.Ifindex-b.Ifindex, a.Group.Compare(b.Group))
	})
}

// Close leaves all groups.
func (g *Groups) Close() error { return g.Set(nil) }
