package testnet

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/control/host"
)

// Space is one namespace of a Net.
type Space struct {
	Name string // as it was asked for
	File string // in /run/netns

	net  *Net
	fd   int
	host *host.Host
}

// Host is the namespace as package host knows it. It is closed with the network.
func (s *Space) Host() *host.Host { return s.host }

// Exec runs f in the namespace, on the caller's goroutine, locked to its thread meanwhile. Goroutines that f starts are not in it.
func (s *Space) Exec(f func() error) error { return onThread(s.fd, f) }

// onThread runs f with the thread in the namespace ns, or where it is if ns is negative, and takes the thread back then, also when f
// panics or ends the goroutine (t.Fatal).
func onThread(ns int, f func() error) error {
	runtime.LockOSThread()
	old, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		// A thread that cannot go back stays locked, so that it ends with its goroutine.
		if unix.Setns(old, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		unix.Close(old)
	}()
	if ns >= 0 {
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("setns: %w (needs root)", err)
		}
	}
	return f()
}

// Address adds addresses, "198.18.0.1/24" or "2001:db8::1/64", to a device. They are usable when it returns: there is no duplicate
// address detection, and it waits for the local routes, which the kernel makes for IPv6 from a work queue, a moment later.
func (s *Space) Address(dev string, addrs ...string) error {
	err := s.Exec(func() error {
		link, err := netlink.LinkByName(dev)
		if err != nil {
			return fmt.Errorf("%s: %w", dev, err)
		}
		for _, a := range addrs {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return fmt.Errorf("address %s: %w", a, err)
			}
			if addr.IP.To4() == nil {
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return fmt.Errorf("address %s on %s: %w", a, dev, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := s.awaitLocal(netip.MustParsePrefix(a).Addr()); err != nil {
			return fmt.Errorf("address %s on %s: %w", a, dev, err)
		}
	}
	return nil
}

// awaitLocal waits until the host takes packets for addr as its own. It does not on a device that is down, where there is nothing to
// wait for.
func (s *Space) awaitLocal(addr netip.Addr) error {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		locals, err := s.host.Locals()
		if err != nil || slices.Contains(locals, netip.PrefixFrom(addr, addr.BitLen())) || time.Now().After(deadline) {
			return err
		}
	}
}

// Route adds a route: to is a prefix, or "default" for that of via's family.
func (s *Space) Route(to, via string) error {
	gw, err := netip.ParseAddr(via)
	if err != nil {
		return err
	}
	if to == "default" {
		to = "0.0.0.0/0"
		if gw.Is6() {
			to = "::/0"
		}
	}
	dst, err := netlink.ParseIPNet(to)
	if err != nil {
		return fmt.Errorf("route to %s: %w", to, err)
	}
	return s.Exec(func() error {
		if err := netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: gw.AsSlice()}); err != nil {
			return fmt.Errorf("route to %s via %s: %w", to, via, err)
		}
		return nil
	})
}

// Neighbor adds a permanent neighbour.
func (s *Space) Neighbor(dev, addr, mac string) error {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return err
	}
	return s.Exec(func() error {
		link, err := netlink.LinkByName(dev)
		if err != nil {
			return fmt.Errorf("%s: %w", dev, err)
		}
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: net.ParseIP(addr), HardwareAddr: hw, State: netlink.NUD_PERMANENT})
	})
}

// Sysctl sets a kernel setting of the namespace, by a key with slashes: net/ipv4/ip_forward.
func (s *Space) Sysctl(key, value string) error {
	return s.Exec(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) })
}

// IP runs `ip` inside with the arguments in line, which are separated by blanks. Its error holds what ip said.
func (s *Space) IP(line string) error {
	out, err := s.Command("ip", strings.Fields(line)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", line, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// MAC is the address of a device, as text; empty if there is no such device.
func (s *Space) MAC(dev string) string {
	l, err := s.host.Link(dev)
	if err != nil {
		return ""
	}
	return net.HardwareAddr(l.MAC[:]).String()
}

func parseMAC(s string) (net.HardwareAddr, error) {
	if s == "" {
		return nil, nil
	}
	return net.ParseMAC(s)
}
