package main_test

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"weir/control"
)

// TestCookiesWithLinux has Linux' own TCP at both ends of connections that begin with a cookie, by every way of forwarding that has them joined, and
// by one where the client is challenged instead.
func TestCookiesWithLinux(t *testing.T) {
	f := newForwardBed(t, options{})
	sum := f.serve(8 << 20)
	for _, s := range f.servers[:3] {
		f.awaitListener(s, portWeb)
	}
	for i := range 2 {
		f.listen(i, 7000, func(c net.Conn) { // the server speaks first
			if _, err := io.WriteString(c, "hello\n"); err == nil {
				echo(c)
			}
		})
	}
	services := func(vip string, n int) string {
		server := server4
		if strings.Contains(vip, ":") {
			server = server6
		}
		var b strings.Builder
		b.WriteString("services:\n")
		for _, port := range []int{portWeb, 7000, 7001} {
			fmt.Fprintf(&b, "  - {vip: %q, port: %d, syn_cookies: always, forward: nat, backends: [{address: %q}]}\n", numbered(vip, n), port, server(0))
		}
		local := local4
		if strings.Contains(vip, ":") {
			local = local6
		}
		fmt.Fprintf(&b, "  - {vip: %q, port: %d, syn_cookies: always, forward: fullnat, fullnat: {addresses: [%q], client_address: toa}, backends: [{address: %q}]}\n", numbered(vip, n+1), portWeb, local, server(2))
		fmt.Fprintf(&b, "  - {vip: %q, port: %d, syn_cookies: always, forward: dr, backends: [{address: %q}]}\n", numbered(vip, n+2), portWeb, server(1))
		return b.String()
	}
	d := f.start(f.config(services(vip4, 0), strings.TrimPrefix(services(vip6, 0), "services:\n")))
	for _, vip := range []string{vip4, vip6} {
		for i, way := range []string{"nat", "fullnat", "dr"} {
			t.Run(way+" "+vip, func(t *testing.T) {
				f := f.with(t)
				at := numbered(vip, i)
				before := d.status(t)
				for range 3 {
					f.curl("http://" + hostPort(at, portWeb) + "/who")
				}
				if got := sha256.Sum256([]byte(f.curl("http://" + hostPort(at, portWeb) + "/blob"))); got != sum {
					t.Errorf("8 MiB came as %x, want %x", got, sum)
				}
				after := d.status(t)
				if sent, asked := after.Cookies.Sent-before.Cookies.Sent, after.Cookies.Challenges-before.Cookies.Challenges; way == "dr" && asked == 0 || way != "dr" && sent < 4 {
					t.Errorf("%d cookies were sent, %d clients challenged", sent, asked)
				}
			})
		}
		t.Run("the server speaks first "+vip, func(t *testing.T) {
			c, err := dial(f.client, "tcp", hostPort(numbered(vip, 0), 7000))
			must(t, err)
			defer c.Close()
			must(t, c.SetDeadline(time.Now().Add(dialLimit)))
			if line, err := bufio.NewReaderSize(c, 16).ReadString('\n'); err != nil || line != "hello\n" {
				t.Fatalf("the server said %q, %v", line, err)
			}
			if err := pingPong(c, dialLimit); err != nil {
				t.Error(err)
			}
		})
		t.Run("nobody listens "+vip, func(t *testing.T) {
			c, err := dial(f.client, "tcp", hostPort(numbered(vip, 0), 7001))
			if err == nil { // weir has answered for the server; its refusal may come before or after the client has looked
				defer c.Close()
				must(t, c.SetDeadline(time.Now().Add(dialLimit)))
				_, err = c.Read(make([]byte, 1))
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%v, want a reset", err)
			}
		})
	}
}

// status is the daemon's, in the hands of a subtest.
func (d *daemon) status(t testing.TB) control.Status {
	return view[control.Status](d.with(t), "status")
}

// TestFloodOfSYNs sends SYNs from addresses that nobody has as fast as pktgen can, by packet sockets and by live frames, several times as many as weir
// has room to take, while honest clients open connections, and others that are open talk on.
func TestFloodOfSYNs(t *testing.T) {
	for _, driver := range []string{"af_packet", "xdp"} {
		t.Run(driver, func(t *testing.T) { floodOfSYNs(t, driver) })
	}
}

func floodOfSYNs(t *testing.T, driver string) {
	b := newBed(t, options{servers: 2})
	for i, s := range b.servers {
		b.nginx(i, 8000)
		b.listen(i, 7000, echo)
		b.awaitListener(s, 7000)
	}
	d := b.start(b.config("conntrack: {max_connections: 16384}", "services:", b.service(vip4, "port: 80, scheduler: rr", 8000), b.service(vip4, "port: 7000, scheduler: rr", 7000)))
	var streams []net.Conn
	for range 20 {
		c, err := dial(b.client, "tcp", hostPort(vip4, 7000))
		must(t, err)
		defer c.Close()
		must(t, pingPong(c, dialLimit))
		streams = append(streams, c)
	}
	if sent := d.status(t).Cookies.Sent; sent != 0 {
		t.Fatalf("%d cookies without a flood", sent)
	}
	gen, said := background(t, b.client, weir(t), "pktgen", "--driver", driver, "--tx", "eth0", "--tx-only", "--traffic", "syn", "--src", "198.18.128.0/17",
		"--dst", vip4, "--dst-port", "80", "--dst-mac", wanMAC, "--flows", "0", "--shuffle", "--duration", "120s", "--quiet")
	eventually(t, 20*time.Second, "the flood fills its part", func() bool { return d.status(t).Cookies.Sent > 10000 })
	resident := residentKiB(t, d.pid())

	clients, each := 4, 25
	if n, err := strconv.Atoi(os.Getenv("WEIR_HONEST")); err == nil { // more of them than a test run has
		clients, each = 64, n/64
	}
	var good, bad atomic.Int64
	var last atomic.Value
	var wg sync.WaitGroup
	for range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range each {
				if err := b.ask(hostPort(vip4, 80)); err != nil {
					last.Store(err)
					bad.Add(1)
				} else {
					good.Add(1)
				}
			}
		}()
	}
	wg.Wait()
	for i, c := range streams {
		if err := pingPong(c, patience); err != nil {
			t.Errorf("stream %d, which was open before: %v", i, err)
		}
	}
	s := d.status(t)
	v := d.stats().Verdicts
	grown := residentKiB(t, d.pid()) - resident
	t.Logf("%d of %d honest requests served; %d frames received, %d cookies sent, %d good, %d bad; %d of %d half-open; resident %+d KiB",
		good.Load(), clients*each, v.Received, s.Cookies.Sent, s.Cookies.Good, s.Cookies.Bad, s.HalfOpen, s.HalfOpenCap, grown)
	if n := bad.Load(); n*100 > int64(clients*each) {
		t.Errorf("%d of %d honest requests failed, the last with %v", n, clients*each, last.Load())
	}
	if s.Cookies.Good == 0 {
		t.Error("no honest client came by a cookie")
	}
	if s.Evicted != 0 || s.HalfOpen > s.HalfOpenCap {
		t.Errorf("%d gave way, %d are half-open of %d", s.Evicted, s.HalfOpen, s.HalfOpenCap)
	}
	if grown > 32<<10 {
		t.Errorf("the daemon has grown by %d KiB under the flood", grown)
	}
	if gen.ProcessState != nil {
		t.Errorf("the flood ended early: %s", said)
	}
}

// patience is how long an honest client tries under a flood that takes the rings, too: Linux sends a SYN again after 1, 3, 7 and 15 s.
const patience = 30 * time.Second

// ask is one honest request of its own connection.
func (b *bed) ask(to string) error {
	var c net.Conn
	err := b.client.Exec(func() (err error) {
		c, err = (&net.Dialer{Timeout: patience}).Dial("tcp", to)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		err = fmt.Errorf("the server said %q", answer)
	}
	return err
}

// residentKiB is the memory of a process that is there.
func residentKiB(t testing.TB, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			must(t, err)
			return n
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
