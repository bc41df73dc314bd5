package judge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weir/dataplane/packet/pkttest"
)

// devices are the balancer's two, by side; far ends are the outer ends of their veth pairs, where the scenario's packets come and go.
var (
	devices = [2]string{"c", "s"}
	farEnds = [2]string{"c0", "s0"}
)

// kernelBed is the kernel's IPVS between two links: a namespace of its own for the balancer, one for the far ends. The calling thread stays
// in the balancer's namespace and must be given up afterwards; with it, and the taps, the namespaces go.
type kernelBed struct {
	ipvs *ipvs
	taps [2]*tap
}

func newKernelBed(s *Script) (b *kernelBed, err error) {
	b = &kernelBed{}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return b, fmt.Errorf("unshare: %w", err)
	}
	far, err := netns.Get()
	if err != nil {
		return b, err
	}
	defer far.Close()
	if err := sysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil {
		return b, err
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return b, fmt.Errorf("unshare: %w", err)
	}
	balancer, err := netns.Get()
	if err != nil {
		return b, err
	}
	defer balancer.Close()
	for side, name := range devices {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr, attrs.MTU = name, pkttest.MAC(ourMACs[side]), (&Recording{MTU: s.MTU}).mtu(side)
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: farEnds[side], PeerMTU: 9000, PeerNamespace: netlink.NsFd(far)}); err != nil {
			return b, fmt.Errorf("ip link add %s: %w", name, err)
		}
	}
	if err := netns.Set(far); err != nil {
		return b, err
	}
	for side, name := range farEnds {
		link, err := up(name)
		if err != nil {
			return b, err
		}
		if err := netlink.LinkSetARPOff(link); err != nil {
			return b, fmt.Errorf("ip link set %s arp off: %w", name, err)
		}
		if b.taps[side], err = newTap(link.Attrs().Index); err != nil {
			return b, err
		}
	}
	if err := netns.Set(balancer); err != nil {
		return b, err
	}
	if err := b.host(s); err != nil {
		return b, err
	}
	if err := b.configure(s); err != nil {
		return b, err
	}
	return b, b.ready()
}

func (b *kernelBed) close() {
	for _, t := range b.taps {
		if t != nil {
			t.close()
		}
	}
}

// host gives the balancer's kernel its devices, addresses, routes and neighbours.
func (b *kernelBed) host(s *Script) error {
	for key, value := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/default/rp_filter": "0",
		"net/ipv4/conf/all/send_redirects": "0", "net/ipv4/conf/default/send_redirects": "0",
		"net/ipv4/icmp_ratelimit": "0", "net/ipv6/icmp/ratelimit": "0", "net/ipv6/conf/default/accept_dad": "0",
	} {
		if err := sysctl(key, value); err != nil {
			return err
		}
	}
	lo, err := up("lo")
	if err != nil {
		return err
	}
	eth, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer eth.Close()
	var links [2]netlink.Link
	for side, name := range devices {
		// A checksum left to the device would never be seen here.
		if err := eth.Change(name, map[string]bool{"tx-checksum-ip-generic": false, "tx-checksum-sctp": false}); err != nil {
			return fmt.Errorf("ethtool -K %s tx off: %w", name, err)
		}
		if links[side], err = up(name); err != nil {
			return err
		}
		for _, a := range []string{fmt.Sprintf("198.18.%d.1/24", side), fmt.Sprintf("2001:db8:%d::1/64", side)} {
			if err := addAddress(links[side], a); err != nil {
				return err
			}
		}
	}
	for _, v := range s.vips() {
		if err := addAddress(lo, netip.PrefixFrom(v, v.BitLen()).String()); err != nil {
			return err
		}
	}
	if err := neighbor(links[Client], "198.18.0.2", clientMAC); err != nil {
		return err
	}
	if err := neighbor(links[Client], "2001:db8::2", clientMAC); err != nil {
		return err
	}
	for i := range serverCount {
		for _, v6 := range []bool{false, true} {
			if err := neighbor(links[Server], serverAddress(i, v6), serverMAC(i)); err != nil {
				return err
			}
		}
	}
	for _, r := range [][2]string{{"198.18.128.0/17", "198.18.0.2"}, {"2001:db8:c::/48", "2001:db8::2"}} {
		dst, err := netlink.ParseIPNet(r[0])
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(r[1]), LinkIndex: links[Client].Attrs().Index}); err != nil {
			return fmt.Errorf("ip route add %s via %s: %w", r[0], r[1], err)
		}
	}
	return nil
}

// configure sets options, timeouts and services.
func (b *kernelBed) configure(s *Script) (err error) {
	if b.ipvs, err = newIPVS(); err != nil {
		return err
	}
	for key, value := range s.Options {
		if err := sysctl("net/ipv4/vs/"+key, fmt.Sprint(value)); err != nil {
			return err
		}
	}
	if s.Timeouts != nil {
		if err := b.ipvs.setTimeouts(s.Timeouts); err != nil {
			return err
		}
	}
	for i := range s.Services {
		if err := b.ipvs.addService(&s.Services[i]); err != nil {
			return err
		}
	}
	return nil
}

// vips are the addresses of all services there ever are.
func (s *Script) vips() (all []netip.Addr) {
	seen := map[string]bool{}
	add := func(v string) {
		if !seen[v] {
			seen[v] = true
			if a, err := netip.ParseAddr(v); err == nil {
				all = append(all, a)
			}
		}
	}
	for i := range s.Services {
		add(s.Services[i].VIP)
	}
	for i := range s.Ops {
		if e := s.Ops[i].Edit; e != nil && e.AddService != nil {
			add(e.AddService.VIP)
		}
	}
	return all
}

func up(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return nil, fmt.Errorf("ip link set %s up: %w", name, err)
	}
	return link, nil
}

func addAddress(link netlink.Link, prefix string) error {
	a, err := netlink.ParseAddr(prefix)
	if err != nil {
		return err
	}
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, a); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("ip addr add %s dev %s: %w", prefix, link.Attrs().Name, err)
	}
	return nil
}

func neighbor(link netlink.Link, address, mac string) error {
	if err := netlink.NeighAdd(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: net.ParseIP(address), HardwareAddr: pkttest.MAC(mac),
		State: netlink.NUD_PERMANENT}); err != nil {
		return fmt.Errorf("ip neigh add %s lladdr %s: %w", address, mac, err)
	}
	return nil
}

// sysctl writes one of the calling thread's network namespace.
func sysctl(key, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl %s=%s: %w", strings.ReplaceAll(key, "/", "."), value, err)
	}
	return nil
}
