package main_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host/testnet"
)

// mode is one way to forward to one server.
type mode struct {
	name    string // "dr IPv4", "gue 6in4"
	forward string
	vip     string
	server  string // its address
	space   *testnet.Space
	options string // further keys of the service
	backend string // further keys of the backend
	peer    string // who the server sees: the client itself or, with a source rewritten, the balancer
}

// Ports of the servers and of their services. dr and tunnels keep the packet, so they are the same.
const (
	portEcho   = 53   // UDP: the server's name and what was said
	portWeb    = 80   // nginx
	portOther  = 8080 // nginx, too
	portDigest = 9000 // TCP: SHA-256 of all that came
	portSCTP   = 5000 // SCTP: an echo
)

// services is a configuration's part for the mode.
func (m mode) services() (text string) {
	for _, port := range []string{
		fmt.Sprintf("port: %d, protocol: udp", portEcho), fmt.Sprintf("port: %d", portWeb), fmt.Sprintf("port: %d", portDigest),
	} {
		text += fmt.Sprintf("  - {vip: %q, %s, scheduler: rr, forward: %s, %sbackends: [{%saddress: %q}]}\n", m.vip, port, m.forward, m.options, m.backend, m.server)
	}
	return text
}

// v6 says if the client speaks IPv6.
func (m mode) v6() bool { return strings.Contains(m.vip, ":") }

// tunnel is the mode's name if it is one.
func (m mode) tunnel() string {
	switch m.forward {
	case "ipip", "gre", "gue":
		return m.name
	}
	return ""
}

// overhead is what the mode puts in front of a packet, in bytes.
func (m mode) overhead() int {
	if m.tunnel() == "" {
		return 0
	}
	n := map[string]int{"ipip": 0, "gre": 4, "gue": 8 + 4}[m.forward]
	if m.forward == "gre" && m.backend != "" {
		n += 4 // the checksum
	}
	if strings.Contains(m.server, ":") {
		return n + 40
	}
	return n + 20
}

// tunnelModes are all tunnels to one server, VIPs numbered from first on.
func tunnelModes(s *testnet.Space, addr4, addr6 string, first int) (all []mode) {
	for i, name := range tunnels {
		m := mode{name: name, vip: numbered(vip4, first+i), server: addr4, space: s, peer: client4}
		m.forward, _, _ = strings.Cut(name, " ")
		if strings.Contains(name, "6in") {
			m.vip, m.peer = numbered(vip6, first+i), client6
		}
		if strings.Contains(name, "in6") {
			m.server = addr6
		}
		if strings.HasSuffix(name, withChecksum) {
			m.backend = "tunnel_checksum: true, "
		}
		all = append(all, m)
	}
	return all
}

// addressModes are the ways that change addresses or nothing at all. nat and dr go to a server that has a route to the client, fullnat and
// masquerade to one that has none.
func (f *forwardBed) addressModes() (all []mode) {
	for i, fam := range families {
		client, lan, server := []string{client4, client6}[i], []string{lan4, lan6}[i], []func(int) string{server4, server6}[i]
		local := []string{local4, local6}[i]
		all = append(all,
			mode{name: "nat " + fam.name, forward: "nat", vip: numbered(fam.vip, 0), server: server(0), space: f.servers[0], peer: client},
			mode{name: "dr " + fam.name, forward: "dr", vip: numbered(fam.vip, 1), server: server(0), space: f.servers[0], peer: client},
			mode{name: "fullnat " + fam.name, forward: "fullnat", vip: numbered(fam.vip, 2), server: server(2), space: f.servers[2], peer: local,
				options: fmt.Sprintf("fullnat: {addresses: [%q]}, ", local)},
			mode{name: "masquerade " + fam.name, forward: "nat", vip: numbered(fam.vip, 3), server: server(2), space: f.servers[2], peer: lan,
				options: "masquerade: always, "})
	}
	return all
}

// serve starts what modes' services need on every server, with a file of size bytes at /blob. Its hash is returned.
func (f *forwardBed) serve(size int64) (sum [sha256.Size]byte) {
	f.t.Helper()
	blob := filepath.Join(f.dir, "blob")
	file, err := os.Create(blob)
	must(f.t, err)
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(file, h), io.LimitReader(rand.NewChaCha8([32]byte{3}), size))
	must(f.t, err)
	must(f.t, file.Close())
	for i, s := range f.servers {
		root := f.nginx(i, portWeb, fmt.Sprintf(`listen 0.0.0.0:%d; listen [::]:%[1]d; location = /who { return 200 "%s $remote_addr\n"; }`, portOther, s.Name))
		must(f.t, os.Symlink(blob, filepath.Join(root, "blob")))
		f.listen(i, portDigest, digest)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// digest answers with the hash of all that came.
func digest(c net.Conn) {
	h := sha256.New()
	if _, err := io.Copy(h, c); err == nil {
		_, _ = c.Write(h.Sum(nil)) // the client tells if it does not come
	}
}

// download gets a URL by curl and returns its length and hash.
func (f *forwardBed) download(url string) moved {
	f.t.Helper()
	needs(f.t, "curl")
	h := sha256.New()
	var n countingWriter
	c, errs := f.client.Command("curl", "-sS", "--fail", "--globoff", "--max-time", "30", url), &output{}
	c.Stdout, c.Stderr = io.MultiWriter(h, &n), errs
	if err := c.Run(); err != nil {
		return moved{n: int64(n), err: fmt.Errorf("curl %s: %w: %s", url, err, errs)}
	}
	return moved{sum: [sha256.Size]byte(h.Sum(nil)), n: int64(n)}
}

type countingWriter int64

func (n *countingWriter) Write(b []byte) (int, error) {
	*n += countingWriter(len(b))
	return len(b), nil
}

// upload sends n bytes to a VIP's digest and compares what it answers.
func (f *forwardBed) upload(vip string, n int64) error {
	c, err := dial(f.client, "tcp", hostPort(vip, portDigest))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(c, h), io.LimitReader(rand.NewChaCha8([32]byte{4}), n)); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, h.Sum(nil)) {
		err = fmt.Errorf("of %d bytes the server got others", n)
	}
	return err
}

// say sends a datagram of n bytes and wants it back from a server of that name.
func say(c net.Conn, server string, n int) error {
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	message := make([]byte, n)
	for i := range message {
		message[i] = byte('a' + i%23)
	}
	if _, err := c.Write(message); err != nil {
		return err
	}
	buf := make([]byte, 16<<10)
	m, err := c.Read(buf)
	if err != nil {
		return err
	}
	if want := server + " " + string(message); string(buf[:m]) != want {
		return fmt.Errorf("sent %d bytes, got %d, which begin with %q", n, m, buf[:min(m, 10)])
	}
	return nil
}

// TestEveryForwardingMode has a real client and a real server work through each, in each family: HTTP, 100 MiB of it, an upload, datagrams,
// and datagrams in fragments. The servers' answers to dr and tunnels go past the balancer.
func TestEveryForwardingMode(t *testing.T) {
	size := int64(100 << 20)
	if testing.Short() {
		size = 4 << 20
	}
	f := newForwardBed(t, options{})
	sum := f.serve(size)
	modes := append(f.addressModes(), tunnelModes(f.servers[0], server4(0), server6(0), 4)...)
	d := f.start(f.config("services:", modes[0].services()))
	var dropped, tooBig uint64 // until now
	for _, m := range modes {
		if m.backend != "" {
			continue // a checksum changes nothing here; TestPathMTUInEveryMode and TestUserModeLinux have these
		}
		t.Run(m.name, func(t *testing.T) {
			f := f.with(t)
			d := d.with(t)
			d.reload(f.config("services:", m.services()))
			if got, want := f.curl("http://"+hostPort(m.vip, portWeb)+"/who"), m.space.Name+" "+m.peer+"\n"; got != want {
				t.Errorf("the server says %q, want %q", got, want)
			}
			c, err := dial(f.client, "udp", hostPort(m.vip, portEcho))
			must(t, err)
			defer c.Close()
			for _, tos := range []int{0, 0xb8, 0xb9, 0xba, 0xbb} { // expedited forwarding, with each code point of ECN
				onSocket(t, c.(*net.UDPConn), func(fd int) error {
					if m.v6() {
						return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tos)
					}
					return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, tos)
				})
				if err := say(c, m.space.Name, 100); err != nil {
					t.Errorf("traffic class %#02x: %v", tos, err)
				}
			}
			// A fragment that fills the client's link is too large for the tunnel. Over IPv4 it is cut once more. Over IPv6 the client must
			// be told, and tries again.
			err = say(c, m.space.Name, 8<<10)
			for range 3 {
				if err != nil && m.v6() && m.tunnel() != "" {
					err = say(c, m.space.Name, 8<<10)
				}
			}
			if err != nil {
				t.Errorf("8 KiB: %v", err)
			}
			if err := f.upload(m.vip, size/8); err != nil {
				t.Errorf("upload: %v", err)
			}
			begun := time.Now()
			if got := f.download("http://" + hostPort(m.vip, portWeb) + "/blob"); got.err != nil || got.n != size || got.sum != sum {
				t.Errorf("download: %d bytes of %d, %v", got.n, size, got.err)
			}
			t.Logf("%d MiB in %v", size>>20, time.Since(begun).Round(time.Millisecond))
			s := d.settled()
			if s.Services[0].Conns != 1 || s.Services[1].Conns != 2 || s.Services[2].Conns != 1 {
				t.Errorf("connections counted: %+v", s.Services)
			}
			back := s.Services[1].OutPackets > 0
			if want := m.tunnel() == "" && m.forward != "dr"; back != want {
				t.Errorf("answers came through the balancer: %v, want %v", back, want)
			}
			// Later fragments that are too large are not answered for, but their first is.
			// What a ring had no room for while the worker had no CPU TCP sends again.
			lost := s.Verdicts.Dropped - s.Drops["fill_ring_empty"] - s.Drops["rx_ring_full"]
			if lost != dropped && (!m.v6() || m.tunnel() == "" || lost-dropped != s.Drops["too_big"]-tooBig) {
				t.Errorf("drops: %s", d.cli("drops"))
			}
			dropped, tooBig = lost, s.Drops["too_big"]
			if m.tunnel() != "" && f.ends[m.space].count(t, m.tunnel()) == 0 {
				t.Errorf("no packet came through the tunnel: %v", f.ends[m.space].seen)
			}
		})
	}
}
