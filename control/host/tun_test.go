package host_test

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"weir/control/host"
)

// udp is an IP packet with one datagram.
func udp(t *testing.T, from, to string, payload string) []byte {
	t.Helper()
	src, dst := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	var l3 gopacket.SerializableLayer
	u := &layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}
	if src.Addr().Is4() {
		l := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
		must(t, u.SetNetworkLayerForChecksum(l))
		l3 = l
	} else {
		l := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
		must(t, u.SetNetworkLayerForChecksum(l))
		l3 = l
	}
	b := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l3, u, gopacket.Payload(payload)))
	return b.Bytes()
}

func newTUN(t *testing.T, h *host.Host, o host.TUNOptions) *host.TUN {
	t.Helper()
	tun, err := h.NewTUN(o)
	if err != nil && strings.Contains(err.Error(), "modprobe tun") {
		t.Skipf("no TUN: %v", err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, tun.Close()) })
	return tun
}

func TestTUNHandsPacketsToTheHost(t *testing.T) {
	for _, tc := range []struct {
		name    string
		sysctl  map[string]string // of the host, before
		warning bool
	}{
		{name: "as a host is by default"},
		{name: "strict reverse path filter for all", sysctl: map[string]string{"net/ipv4/conf/all/rp_filter": "1"}, warning: true},
		{name: "loose reverse path filter for all", sysctl: map[string]string{"net/ipv4/conf/all/rp_filter": "2"}, warning: true},
		{name: "strict for new devices", sysctl: map[string]string{"net/ipv4/conf/default/rp_filter": "1"}},
		{name: "IPv6 is off on new devices", sysctl: map[string]string{"net/ipv6/conf/default/disable_ipv6": "1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t)
			for key, value := range tc.sysctl {
				must(t, p.lb.Sysctl(key, value))
			}
			ip(t, p.lb, "route add 198.18.128.0/17 via 198.18.0.2") // the clients, behind the port
			tun := newTUN(t, p.h, host.TUNOptions{MTU: 1400})
			if (tun.Warning() != "") != tc.warning {
				t.Errorf("warning %q", tun.Warning())
			}
			for _, at := range []struct{ name, from, to string }{
				{"from a client", "198.18.128.5:1000", "198.18.0.1:53"},
				{"from a client, IPv6", "[2001:db8::c5]:1000", "[2001:db8::1]:53"},
				{"from an address of this host (a VIP to a VIP)", "198.18.0.1:1000", "198.18.0.1:53"},
			} {
				var c net.PacketConn
				must(t, p.lb.Exec(func() (err error) { c, err = net.ListenPacket("udp", at.to); return err }))
				if errno := tun.Write(udp(t, at.from, at.to, "handed back")); errno != 0 {
					t.Errorf("%s: write: %v", at.name, errno)
				}
				must(t, c.SetReadDeadline(time.Now().Add(2*time.Second)))
				b := make([]byte, 100)
				n, from, err := c.ReadFrom(b)
				if err != nil || string(b[:n]) != "handed back" || from.String() != at.from {
					t.Errorf("%s: the socket got %q from %v, %v", at.name, b[:n], from, err)
				}
				c.Close()
			}
		})
	}
}

func TestTUNDevice(t *testing.T) {
	p := newPair(t)
	first := newTUN(t, p.h, host.TUNOptions{MTU: 1400, Queue: 5})
	second := newTUN(t, p.h, host.TUNOptions{})
	named := newTUN(t, p.h, host.TUNOptions{Name: "back"})
	if first.Name() != "weir0" || second.Name() != "weir1" || named.Name() != "back" {
		t.Errorf("names %s %s %s, want weir0 weir1 back", first.Name(), second.Name(), named.Name())
	}
	if _, err := p.h.NewTUN(host.TUNOptions{Name: "wan"}); err == nil || !strings.Contains(err.Error(), "TUNSETIFF wan") {
		t.Errorf("a name that a port has: %v", err)
	}
	l, err := p.h.Link("weir0")
	must(t, err)
	if !l.Up || l.MTU != 1400 || l.Index != first.Index() || len(l.Addresses) != 0 {
		t.Errorf("weir0 is %+v, want it up, MTU 1400, index %d, without an address", l, first.Index())
	}
	if out := ip(t, p.lb, "link show weir0"); !strings.Contains(out, "qlen 5") {
		t.Errorf("ip shows %q, want a queue of 5", out)
	}
	for key, want := range map[string]string{"ipv4/conf/weir0/rp_filter": "0", "ipv4/conf/weir0/accept_local": "1", "ipv6/conf/weir0/accept_ra": "0"} {
		if got, err := p.h.Sysctl("net/" + key); err != nil || got != want {
			t.Errorf("%s is %s, %v, want %s", key, got, err, want)
		}
	}
	for name, packet := range map[string][]byte{"empty": {}, "neither IPv4 nor IPv6": {0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if errno := first.Write(packet); errno != unix.EINVAL {
			t.Errorf("%s: %v, want EINVAL", name, errno)
		}
	}
	must(t, p.h.SetUp("weir0", false))
	if errno := first.Write(udp(t, "198.18.0.2:1", "198.18.0.1:1", "")); errno != unix.EIO {
		t.Errorf("set down: %v, want EIO", errno)
	}
	must(t, first.Close())
	if _, err := p.h.Link("weir0"); err == nil {
		t.Error("weir0 is there after Close")
	}
	must(t, first.Close())
}

// TestTUNIsTakenOver: also where the host's reverse path filter has given the device an address, which it then has already.
func TestTUNIsTakenOver(t *testing.T) {
	for _, filter := range []string{"0", "1", "2"} {
		t.Run("rp_filter "+filter, func(t *testing.T) {
			p := newPair(t)
			must(t, p.lb.Sysctl("net/ipv4/conf/all/rp_filter", filter))
			former := newTUN(t, p.h, host.TUNOptions{MTU: 1400})
			fd, err := unix.FcntlInt(uintptr(former.FD()), unix.F_DUPFD_CLOEXEC, 0)
			must(t, err)
			tun, err := p.h.AdoptTUN(fd, former.Name(), host.TUNOptions{MTU: 1500})
			if err != nil {
				unix.Close(fd)
				t.Fatal(err)
			}
			defer func() { must(t, tun.Close()) }()
			l, err := p.h.Link(former.Name())
			must(t, err)
			if tun.Index() != former.Index() || tun.Warning() != former.Warning() || !l.Up || l.MTU != 1500 || len(l.Addresses) > 1 {
				t.Errorf("it is %+v, of index %d, warning %q", l, tun.Index(), tun.Warning())
			}
		})
	}
}

func TestTUNWritesOfSeveralWorkersAllArrive(t *testing.T) {
	p := newPair(t)
	tun := newTUN(t, p.h, host.TUNOptions{})
	var c net.PacketConn
	must(t, p.lb.Exec(func() (err error) { c, err = net.ListenPacket("udp", "198.18.0.1:53"); return err }))
	defer c.Close()
	const workers, each = 4, 50
	packet := udp(t, "198.18.0.2:1000", "198.18.0.1:53", "x")
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				if errno := tun.Write(packet); errno != 0 {
					t.Errorf("write: %v", errno)
				}
			}
		})
	}
	wg.Wait()
	must(t, c.SetReadDeadline(time.Now().Add(2*time.Second)))
	b := make([]byte, 100)
	for i := range workers * each {
		if _, _, err := c.ReadFrom(b); err != nil {
			t.Fatalf("%d of %d arrived: %v", i, workers*each, err)
		}
	}
}

func TestTUNWriteAllocatesNothing(t *testing.T) {
	p := newPair(t)
	tun := newTUN(t, p.h, host.TUNOptions{})
	good, bad := udp(t, "198.18.0.2:1000", "198.18.0.1:53", "x"), make([]byte, 40)
	var errno syscall.Errno
	if n := testing.AllocsPerRun(100, func() { errno = tun.Write(good) }); n != 0 || errno != 0 {
		t.Errorf("%v allocations, %v", n, errno)
	}
	if n := testing.AllocsPerRun(100, func() { errno = tun.Write(bad) }); n != 0 || errno != unix.EINVAL {
		t.Errorf("%v allocations for a refused packet, %v", n, errno)
	}
	must(t, p.h.SetUp(tun.Name(), false))
	if n := testing.AllocsPerRun(100, func() { errno = tun.Write(good) }); n != 0 || errno != unix.EIO {
		t.Errorf("%v allocations on a device that is down, %v", n, errno)
	}
}
