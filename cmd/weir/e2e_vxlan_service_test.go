package main_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"weir/control/host/testnet"
)

// Ports of an overlay bed's services. Servers listen on those 8000 higher.
const (
	webPort    = 80 // a file server
	echoPort   = 81 // tells its name, then echoes
	askPort    = 84 // UDP: tells its name and what it was asked
	closedPort = 85 // UDP: there is a service, but no server listens
	movedPort  = 82 // one server only, which moves about
	uploadPort = 83 // tells the hash of what it gets
)

// vip is a segment's service address, of the family that the gateway speaks.
func (o *overlay) vip() string {
	if o.gate6 {
		return fmt.Sprintf("2001:db8:9::%d", o.vni)
	}
	return fmt.Sprintf("198.18.9.%d", o.vni%1000+o.vni/1000*10)
}

// mover is the host of a segment that tests move from one VTEP to the other; its number is 5.
const mover = 5

// services are a segment's.
func (b *overlayBed) services(seg *overlay, forward string) string {
	var text strings.Builder
	for _, s := range []struct {
		port     int
		protocol string
		hosts    []int
	}{
		{webPort, "tcp", []int{0, 1}}, {echoPort, "tcp", []int{0, 1}}, {askPort, "udp", []int{0, 1}}, {closedPort, "udp", []int{0, 1}},
		{uploadPort, "tcp", []int{0, 1}}, {movedPort, "tcp", []int{mover}},
	} {
		var backends []string
		for _, h := range s.hosts {
			backends = append(backends, fmt.Sprintf("{address: %q, port: %d, vni: %d}", seg.host(h), 8000+s.port, seg.vni))
		}
		fmt.Fprintf(&text, "  - {vip: %q, port: %d, protocol: %s, scheduler: rr, forward: %s, backends: [%s]}\n",
			seg.vip(), s.port, s.protocol, forward, strings.Join(backends, ", "))
	}
	return text.String()
}

// allServices are those of all segments.
func (b *overlayBed) allServices() string {
	text := "services:\n"
	for _, seg := range b.segments {
		text += b.services(seg, "vxlan")
	}
	return text
}

// serve starts what is behind a segment's services: nginx with the files in dir, and the rest.
func (b *overlayBed) serve(t *testing.T, seg *overlay, dir string) {
	t.Helper()
	x := b.behind(t, seg)
	x.named(8000 + echoPort)
	for i, h := range seg.hosts {
		must(t, os.Symlink(dir, filepath.Join(x.nginx(i, 8000+webPort), "files")))
		x.listen(i, 8000+uploadPort, func(c net.Conn) { fmt.Fprintf(c, "%x", receive(c).sum) })
		answersAsk(t, h, seg.host(i))
	}
}

// answersAsk answers every datagram to the port for questions with the host's name and what it was asked.
func answersAsk(t *testing.T, h *testnet.Space, addr string) {
	t.Helper()
	var c net.PacketConn
	must(t, h.Exec(func() (err error) {
		c, err = net.ListenPacket("udp", hostPort(addr, 8000+askPort))
		return err
	}))
	t.Cleanup(func() { c.Close() })
	go answerAll(c, h.Name)
}

// reachesServices has a client outside use what is in the overlay.
func reachesServices(t *testing.T, b *overlayBed, d *daemon) {
	large, small := 100<<20, 8<<20
	if testing.Short() {
		large = 16 << 20
	}
	content := make([]byte, large)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(content)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "large"), content, 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "small"), content[:small], 0o644))
	whole, part := sha256.Sum256(content), sha256.Sum256(content[:small])
	for _, seg := range b.segments {
		t.Run(seg.String(), func(t *testing.T) {
			b.serve(t, seg, dir)
			b, d := b.behind(t, seg), d.with(t)
			before := d.settled()
			names := []string{seg.hosts[0].Name, seg.hosts[1].Name}
			t.Run("in turn", func(t *testing.T) {
				want := strings.Join([]string{names[0], names[1], names[0], names[1]}, " ")
				var got []string
				for range 4 {
					c, name := reach(t, b, seg.vip(), echoPort)
					must(t, pingPong(c, dialLimit))
					c.Close()
					got = append(got, name)
				}
				if strings.Join(got, " ") != want {
					t.Errorf("connections went to %v, not to %s", got, want)
				}
			})
			t.Run("curl", func(t *testing.T) {
				needs(t, "curl")
				for name, sum := range map[string][sha256.Size]byte{"large": whole, "small": part} { // one from each server
					h, begun := sha256.New(), time.Now()
					c := b.client.Command("curl", "-sS", "--fail", "--globoff", "--max-time", "30", "http://"+hostPort(seg.vip(), webPort)+"/files/"+name)
					var errs output
					c.Stdout, c.Stderr = h, &errs
					if err := c.Run(); err != nil || !bytes.Equal(h.Sum(nil), sum[:]) {
						t.Errorf("the %s file: %v, its hash is %x, not %x: %s", name, err, h.Sum(nil), sum, &errs)
					}
					t.Logf("the %s file took %v", name, time.Since(begun).Round(time.Millisecond))
				}
			})
			t.Run("upload", func(t *testing.T) {
				for range seg.hosts {
					c, err := dial(b.client, "tcp", hostPort(seg.vip(), uploadPort))
					must(t, err)
					must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
					_, err = c.Write(content[:small])
					must(t, err)
					must(t, c.(*net.TCPConn).CloseWrite())
					got, err := io.ReadAll(c)
					if err != nil || string(got) != fmt.Sprintf("%x", part) {
						t.Errorf("the server got %s, %v", got, err)
					}
					c.Close()
				}
			})
			t.Run("UDP", func(t *testing.T) {
				answers := map[string]int{}
				for i := range 4 {
					got, err := ask(b, hostPort(seg.vip(), askPort), []byte("who?"))
					if err != nil {
						t.Errorf("question %d: %v", i, err)
					}
					answers[string(got)]++
				}
				if want := map[string]int{names[0] + " who?": 2, names[1] + " who?": 2}; !maps.Equal(answers, want) {
					t.Errorf("four questions were answered by %v, not %v", answers, want)
				}
			})
			t.Run("an error of the server's", func(t *testing.T) {
				if got, err := ask(b, hostPort(seg.vip(), closedPort), []byte("anyone?")); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("of a port where nobody listens came %q, %v", got, err)
				}
			})
			s := d.settled()
			for _, x := range s.Services {
				if x.VIP.String() == seg.vip() && x.Port == webPort && (x.Conns != 2 || x.Backends[0].Conns != 1 || x.OutBytes < uint64(large)) {
					t.Errorf("counted %+v", x)
				}
			}
			before.Drops["no_station"] = s.Drops["no_station"] // broadcasts that VTEPs flood into a segment that has no ports here
			if !maps.Equal(s.Drops, before.Drops) {
				t.Errorf("drops are %v, not %v", s.Drops, before.Drops)
			}
		})
	}
}

// ask sends a datagram from the client and returns the answer. It asks again after a while, as clients do: a kernel on the way may have no room.
func ask(b *bed, to string, question []byte) ([]byte, error) {
	c, err := dial(b.client, "udp", to)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	buf := make([]byte, 4096)
	for end := time.Now().Add(dialLimit); ; {
		if _, err = c.Write(question); err != nil {
			return nil, err
		}
		_ = c.SetReadDeadline(time.Now().Add(dialLimit / 5))
		n, err := c.Read(buf)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(end) {
			return bytes.Clone(buf[:n]), err
		}
	}
}
