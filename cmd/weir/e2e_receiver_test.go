package main_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host/testnet"
	"weir/dataplane/packet/pkttest"
)

// receiver is what a server has of ipip, gre and gue devices, where the kernel has none: sockets take the packets of the tunnels, and what is
// inside goes into the server's kernel through a TUN device. The server has the VIPs on lo and answers clients by its own routes.
type receiver struct {
	space *testnet.Space
	tun   int
	taken atomic.Int64 // packets that were taken out of a tunnel

	mu    sync.Mutex
	seen  map[string]int // whole tunneled packets on the server's device, by name: "gue 6in4"
	wrong []string       // what is wrong with them
}

// receive gives a server the ends of all tunnels, at each of its addresses. Its packets have crossed hops routers since weir.
func (b *bed) receive(s *testnet.Space, hops int, addrs ...string) *receiver {
	b.t.Helper()
	r := &receiver{space: s, seen: map[string]int{}}
	r.open(b.t)
	for _, a := range addrs {
		family := 4
		if strings.Contains(a, ":") {
			family = 6
		}
		for _, proto := range []int{unix.IPPROTO_IPIP, unix.IPPROTO_IPV6} {
			r.take(b.t, fmt.Sprintf("ip%d:%d", family, proto), a, nil)
		}
		r.take(b.t, fmt.Sprintf("ip%d:%d", family, unix.IPPROTO_GRE), a, untypeGRE)
		r.take(b.t, fmt.Sprintf("udp%d", family), hostPort(a, guePort), untypeGUE)
	}
	frames(b.t, s, "eth0", func(f []byte) { r.see(f[14:], hops) })
	return r
}

// open makes the TUN device.
func (r *receiver) open(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("servers cannot take packets out of tunnels: %v", err)
	}
	must(t, r.space.Exec(func() (err error) {
		if r.tun, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return os.NewSyscallError("open /dev/net/tun", err)
		}
		ifr, err := unix.NewIfreq("tun0")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return os.NewSyscallError("TUNSETIFF", unix.IoctlIfreq(r.tun, unix.TUNSETIFF, ifr))
	}))
	t.Cleanup(func() { unix.Close(r.tun) })
	must(t, r.space.IP("link set tun0 up"))
}

// take listens for the packets of one tunnel at an address until the test ends. The kernel has taken off the outer IP header, and UDP's; untype
// takes off what else is in front.
func (r *receiver) take(t testing.TB, network, addr string, untype func(b []byte) (version byte, inner []byte, err error)) {
	t.Helper()
	var c net.PacketConn
	must(t, r.space.Exec(func() (err error) {
		c, err = net.ListenPacket(network, addr)
		return err
	}))
	onSocket(t, c.(syscall.Conn), func(fd int) error {
		// A raw socket that is full looks to the kernel as if there were none, and it says so by ICMP.
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
		if err == nil && network == "udp6" { // as fou needs it, too: a tunnel over IPv6 may leave the checksum out (RFC 6935)
			err = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX, 1)
		}
		return err
	})
	var done sync.WaitGroup
	done.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				return // closed
			}
			inner := buf[:n]
			if untype != nil {
				if _, inner, err = untype(inner); err != nil {
					continue // see has told of it
				}
			}
			r.taken.Add(1) // before the server can answer
			_, _ = unix.Write(r.tun, inner)
		}
	})
	t.Cleanup(func() {
		c.Close()
		done.Wait()
	})
}

// see judges what is on the server's device.
func (r *receiver) see(ip []byte, hops int) {
	x, ok, err := tunneledOf(ip)
	if !ok {
		return
	}
	if err == nil && !x.fragment {
		err = x.judge(ip, hops)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil:
		if len(r.wrong) < 5 {
			r.wrong = append(r.wrong, fmt.Sprintf("%v: % x ...", err, ip[:min(len(ip), 80)]))
		}
	case !x.fragment:
		r.seen[x.String()]++
	}
}

// count is how many whole packets of a tunnel there were. Everything that was wrong with any fails the test.
func (r *receiver) count(t testing.TB, tunnel string) int {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.wrong {
		t.Errorf("at %s: %s", r.space.Name, w)
	}
	return r.seen[tunnel]
}

// TestReceiver has the servers' end of every tunnel take a datagram out, which the server's own socket at the VIP answers straight to the client,
// and has it find fault with outer headers that are wrong. Nobody balances.
func TestReceiver(t *testing.T) {
	f := newForwardBed(t, options{})
	r := f.ends[f.servers[0]]
	raw := packetSocket(t, f.lb, "lan", 0)
	lan, err := net.ParseMAC(lanMAC)
	must(t, err)
	s1, err := net.ParseMAC(serverMAC(0))
	must(t, err)
	for i, tunnel := range tunnels {
		src, dst, client, vip := lan4, server4(0), client4, vip4
		if strings.Contains(tunnel, "in6") {
			src, dst = lan6, server6(0)
		}
		if strings.Contains(tunnel, "6in") {
			client, vip = client6, vip6
		}
		var c net.PacketConn
		must(t, f.client.Exec(func() (err error) {
			c, err = net.ListenPacket("udp", hostPort(client, 20000+i))
			return err
		}))
		defer c.Close()
		inner := pkttest.UDP(netip.MustParseAddrPort(hostPort(client, 20000+i)), netip.MustParseAddrPort(hostPort(vip, 53))).TTL(63).TOS(0xbb).DF()
		outer := wrap(tunnel, netip.MustParseAddr(src), netip.MustParseAddr(dst), inner.Payload([]byte("who?")).Bytes())
		send := func(p pkttest.Packet) {
			_, err := unix.Write(raw, p.Frame(lan, s1))
			must(t, err)
		}
		right := outer.TTL(63).TOS(0xba)
		if strings.Contains(tunnel, "in4") {
			right = right.DF()
		}
		send(right)
		must(t, c.SetDeadline(time.Now().Add(dialLimit)))
		buf := make([]byte, 100)
		n, from, err := c.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "s1 who?" || from.String() != hostPort(vip, 53) {
			t.Errorf("%s: %q from %v, %v", tunnel, buf[:n], from, err)
		}
		eventually(t, dialLimit, tunnel+" was seen once and found right", func() bool { return r.count(t, tunnel) == 1 })
		for what, p := range map[string]pkttest.Packet{"TTL": right.TTL(64), "traffic class": right.TOS(0xbb)} {
			send(p)
			f.blames(t, r, tunnel, what)
		}
	}
}

// blames waits until the receiver has found fault with a packet, and clears that.
func (f *forwardBed) blames(t testing.TB, r *receiver, tunnel, what string) {
	t.Helper()
	eventually(t, dialLimit, fmt.Sprintf("%s: a wrong %s is found", tunnel, what), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		found := len(r.wrong) == 1 && bytes.HasPrefix([]byte(r.wrong[0]), []byte(what))
		r.wrong = nil
		return found
	})
}
