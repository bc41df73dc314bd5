package main_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/control/host/testnet"
)

// hostPort is address:port, with brackets around an IPv6 address.
func hostPort(addr string, port int) string { return net.JoinHostPort(addr, fmt.Sprint(port)) }

// nginx starts nginx in the namespace of server i. It answers / with the server's name, and serves the files in the directory that is
// returned. lines go into its server block.
func (b *bed) nginx(i, port int, lines ...string) (root string) {
	b.t.Helper()
	needs(b.t, "nginx")
	s := b.servers[i]
	prefix := filepath.Join(b.t.TempDir(), "nginx")
	root = filepath.Join(prefix, "html")
	must(b.t, os.MkdirAll(root, 0o755))
	config := fmt.Sprintf(`
daemon off;
user root;
worker_processes 1;
error_log stderr warn;
pid nginx.pid;
events { worker_connections 2048; }
http {
    access_log off;
    sendfile on;
    default_type application/octet-stream;
    keepalive_requests 1000000;
    client_max_body_size 0;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen 0.0.0.0:%d;
        listen [::]:%d;
        root %s;
        location = / { return 200 "%s\n"; }
        %s
    }
}
`, port, port, root, s.Name, strings.Join(lines, "\n        "))
	file := filepath.Join(prefix, "nginx.conf")
	must(b.t, os.WriteFile(file, []byte(config), 0o644))
	background(b.t, s, "nginx", "-p", prefix, "-c", file, "-e", "stderr")
	b.awaitListener(s, port)
	return root
}

// awaitListener waits until something in the namespace takes TCP connections on a port.
func (b *bed) awaitListener(s *testnet.Space, port int) {
	b.t.Helper()
	eventually(b.t, 10*time.Second, fmt.Sprintf("%s listens on %d", s.Name, port), func() bool {
		c, err := dial(s, "tcp", hostPort("127.0.0.1", port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// curl runs curl on the client with these arguments, quietly and with a limit of time, and returns what it printed.
func (b *bed) curl(args ...string) string {
	b.t.Helper()
	needs(b.t, "curl")
	return in(b.t, b.client, "curl", append([]string{"-sS", "--fail", "--globoff", "--max-time", "20"}, args...)...)
}

// dialLimit is how long a connection may take to be made.
const dialLimit = 5 * time.Second

// dial connects from a namespace to an address and port that are numbers.
func dial(s *testnet.Space, network, to string) (c net.Conn, err error) {
	return dialFrom(s, network, "", to)
}

// dialFrom is dial from a source address and port of the caller's choice.
func dialFrom(s *testnet.Space, network, from, to string) (c net.Conn, err error) {
	d := net.Dialer{Timeout: dialLimit}
	if from != "" {
		at := netip.MustParseAddrPort(from)
		d.LocalAddr = net.TCPAddrFromAddrPort(at)
		if strings.HasPrefix(network, "udp") {
			d.LocalAddr = net.UDPAddrFromAddrPort(at)
		}
	}
	err = s.Exec(func() error {
		c, err = d.Dial(network, to)
		return err
	})
	return c, err
}

// listen accepts TCP connections at a port of server i, on every address of it, and has each served by its own goroutine. serve may
// return at any time; the connection is closed then.
func (b *bed) listen(i, port int, serve func(c net.Conn)) {
	b.t.Helper()
	var l net.Listener
	must(b.t, b.servers[i].Exec(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}))
	b.t.Cleanup(func() { l.Close() })
	go accept(l, serve)
}

// accept has each connection served by its own goroutine until the listener is closed.
func accept(l net.Listener, serve func(c net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

// answerUDP answers every datagram to a port of server i with what answer makes of it, from the address that it was sent to.
func (b *bed) answerUDP(i, port int, answer func(request []byte) []byte) {
	b.t.Helper()
	for _, addr := range []string{server4(i), server6(i)} {
		var c net.PacketConn
		must(b.t, b.servers[i].Exec(func() (err error) {
			c, err = net.ListenPacket("udp", hostPort(addr, port))
			return err
		}))
		b.t.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 64<<10)
			for {
				n, from, err := c.ReadFrom(buf)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					_, _ = c.WriteTo(answer(buf[:n]), from)
				}
			}
		}()
	}
}

// echo sends what it reads back, until the peer has had enough.
func echo(c net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pingPong sends a message over a connection to an echo server and wants it back within limit.
func pingPong(c net.Conn, limit time.Duration) error {
	message := []byte("the river divides")
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := c.Write(message); err != nil {
		return err
	}
	got := make([]byte, len(message))
	for n := 0; n < len(got); {
		m, err := c.Read(got[n:])
		if err != nil {
			return err
		}
		n += m
	}
	if string(got) != string(message) {
		return fmt.Errorf("sent %q, got %q", message, got)
	}
	return nil
}

// tallied is how often each of names occurs in the lines of s.
func tallied(t testing.TB, s string) map[string]int {
	t.Helper()
	all := map[string]int{}
	for _, line := range strings.Fields(s) {
		all[line]++
	}
	return all
}
