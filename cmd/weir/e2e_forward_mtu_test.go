package main_test

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mtuIPv6 is what every IPv6 link carries (RFC 8200 section 5). A host ignores it when it is told less.
const mtuIPv6 = 1280

// TestPathMTUInEveryMode has a link of 1300 bytes behind the balancer. A client that sends with "don't fragment" learns what is left of it for its
// own packets, as a datagram's error and in TCP, and then everything works.
func TestPathMTUInEveryMode(t *testing.T) {
	t.Run("the balancer's own link", func(t *testing.T) {
		f := newForwardBed(t, options{})
		// The servers that answer by the balancer must not send what this link cannot carry: nobody would tell them.
		for _, s := range f.servers[:3] {
			must(t, s.IP(fmt.Sprintf("link set eth0 mtu %d", remoteMTU)))
		}
		must(t, f.lb.IP(fmt.Sprintf("link set lan mtu %d", remoteMTU)))
		f.pathMTU(append(f.addressModes(), tunnelModes(f.servers[0], server4(0), server6(0), 4)...))
	})
	t.Run("a router's link", func(t *testing.T) {
		f := newForwardBed(t, options{})
		var modes []mode
		for i, fam := range families {
			client, lan, server := []string{client4, client6}[i], []string{lan4, lan6}[i], []string{remote4, remote6}[i]
			modes = append(modes,
				mode{name: "nat " + fam.name, forward: "nat", vip: numbered(fam.vip, 0), server: server, space: f.remote, peer: client},
				mode{name: "fullnat " + fam.name, forward: "fullnat", vip: numbered(fam.vip, 2), server: server, space: f.remote, peer: lan,
					options: fmt.Sprintf("fullnat: {addresses: [%q], ports: 40000-44999}, ", lan)})
		}
		f.pathMTU(append(modes, tunnelModes(f.remote, remote4, remote6, 4)...))
	})
}

// pathMTU has a client learn of each mode's path what the narrow link leaves, first by datagrams and then in TCP.
func (f *forwardBed) pathMTU(modes []mode) {
	f.t.Helper()
	const size = 1 << 20
	sum := f.serve(size)
	d := f.start(f.config("services:", modes[0].services()))
	for _, m := range modes {
		if m.forward == "gue" && m.backend != "" {
			continue // UDP's checksum takes no room
		}
		f.t.(*testing.T).Run(m.name, func(t *testing.T) {
			f := f.with(t)
			d := d.with(t)
			d.reload(f.config("services:", m.services()))
			c := f.undivided(m)
			header := 20 + 8
			if m.v6() {
				header = 40 + 8
			}
			want := remoteMTU - m.overhead()
			if m.v6() {
				want = max(want, mtuIPv6) // packets up to that are cut outside the tunnel (RFC 2473 section 7.1)
			}
			mtu := 1500
			for end := time.Now().Add(dialLimit); mtu > want && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				_, _ = c.Write(make([]byte, mtu-header)) // as long as it will go; there may be a narrow link behind a narrow link
				mtu = knownMTU(t, c, m.v6())
			}
			if mtu != want {
				t.Errorf("the client knows a path MTU of %d, want %d", mtu, want)
			}
			var err error
			for range 3 { // an error that is still to be told comes with the first
				if err = say(c, m.space.Name, mtu-header-len(m.space.Name)-1); err == nil {
					break
				}
			}
			if err != nil {
				t.Errorf("the largest answer that fits: %v", err)
			}
			if n, err := c.Write(make([]byte, mtu-header)); err != nil {
				t.Errorf("the largest that fits: %d, %v", n, err)
			}
			if _, err := c.Write(make([]byte, mtu-header+1)); !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("a byte more than fits: %v", err)
			}
			if err := f.upload(m.vip, size); err != nil {
				t.Errorf("upload: %v", err)
			}
			if got := f.download("http://" + hostPort(m.vip, portWeb) + "/blob"); got.err != nil || got.n != size || got.sum != sum {
				t.Errorf("download: %d bytes of %d, %v", got.n, size, got.err)
			}
			if m.tunnel() != "" && f.ends[m.space].count(t, m.tunnel()) == 0 {
				t.Errorf("no packet came through the tunnel: %v", f.ends[m.space].seen)
			}
		})
	}
	d.settled()
}

// undivided is a UDP connection to a mode's echo service whose datagrams bear DF, or which IPv6 does not cut.
func (f *forwardBed) undivided(m mode) *net.UDPConn {
	f.t.Helper()
	c, err := dial(f.client, "udp", hostPort(m.vip, portEcho))
	must(f.t, err)
	f.t.Cleanup(func() { c.Close() })
	u := c.(*net.UDPConn)
	onSocket(f.t, u, func(fd int) error {
		if !m.v6() {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO); err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1)
	})
	return u
}

// knownMTU is what the client's kernel knows of the path that a socket is connected by.
func knownMTU(t testing.TB, c *net.UDPConn, v6 bool) (mtu int) {
	t.Helper()
	onSocket(t, c, func(fd int) (err error) {
		if v6 {
			mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU)
		} else {
			mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
		}
		return err
	})
	return mtu
}

// onSocket does something to a socket.
func onSocket(t testing.TB, c syscall.Conn, do func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { err = do(int(fd)) }))
	must(t, err)
}
