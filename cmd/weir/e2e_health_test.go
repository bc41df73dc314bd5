package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/control"
)

// healthLimit is how long a change of health may take to be seen. A busy machine is no dead server: checks have timeouts of this length, and
// what is dead in these tests says so at once.
const healthLimit = 30 * time.Second

// condition is the state of backend i of the first service.
func (d *daemon) condition(i int) control.BackendView {
	d.t.Helper()
	return view[[]control.ServiceView](d, "list")[0].Backends[i]
}

// becomes waits until backend i of the first service is in a state.
func (d *daemon) becomes(i int, state string) {
	d.t.Helper()
	eventually(d.t, healthLimit, fmt.Sprintf("server %d is %s", i+1, state), func() bool { return d.condition(i).State == state })
}

// get makes an HTTP request over a connection of its own and returns the body, which is the server's name.
func get(b *bed, vip string) (name string, err error) {
	c, err := dial(b.client, "tcp", hostPort(vip, 80))
	if err != nil {
		return "", err
	}
	defer c.Close()
	must(b.t, c.SetDeadline(time.Now().Add(healthLimit)))
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return "", err
	}
	if version, rest, _ := strings.Cut(string(answer), " "); !strings.HasPrefix(version, "HTTP/1.") || !strings.HasPrefix(rest, "200 ") {
		return "", fmt.Errorf("answer %.40q", answer)
	}
	_, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	return strings.TrimSpace(body), nil
}

// stopNginx ends the nginx whose files are at root, and returns when nobody listens at its port any more.
func (b *bed) stopNginx(i, port int, root string) {
	b.t.Helper()
	pid, err := os.ReadFile(filepath.Join(root, "..", "nginx.pid"))
	must(b.t, err)
	var n int
	_, err = fmt.Sscan(string(pid), &n)
	must(b.t, err)
	must(b.t, syscall.Kill(n, syscall.SIGTERM))
	eventually(b.t, 10*time.Second, "nginx has ended", func() bool {
		c, err := dial(b.servers[i], "tcp", hostPort("127.0.0.1", port))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

// TestADyingServerUnderLoad ends one of three nginx while requests are made all the time, and brings it back.
func TestADyingServerUnderLoad(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			b := newBed(t, options{})
			var roots []string
			for i := range b.servers {
				roots = append(roots, b.nginx(i, 8000))
			}
			check := fmt.Sprintf("check: {type: http, interval: 200ms, timeout: %v}, slow_start: 3s, port: 80, protocol: tcp, scheduler: wrr", healthLimit)
			d := b.start(b.config("services:", b.service(f.vip, check, 8000)))
			eventually(t, healthLimit, "all were checked", func() bool {
				for i := range b.servers {
					if c := d.condition(i).Check; c == nil || c.Answers == 0 {
						return false
					}
				}
				return true
			})

			var stop, known atomic.Bool // known: the server is known to be dead
			var failed, late, made atomic.Int64
			done := make(chan string, 4)
			for range cap(done) {
				go func() {
					last := ""
					for !stop.Load() {
						was := known.Load()
						name, err := get(b, f.vip)
						made.Add(1)
						if err != nil {
							failed.Add(1)
						}
						if was && known.Load() && (err != nil || name == "s2") {
							late.Add(1)
							last = fmt.Sprint(name, err)
						}
					}
					done <- last
				}()
			}
			moves := func(n int64) {
				t.Helper()
				begun := made.Load()
				eventually(t, healthLimit, "requests are made", func() bool { return made.Load() > begun+n })
			}
			moves(20)
			if n := failed.Load(); n != 0 {
				t.Errorf("%d requests failed while all was well", n)
			}
			b.stopNginx(1, 8000, roots[1])
			d.becomes(1, "down")
			known.Store(true)
			lost := failed.Load()
			moves(50)
			known.Store(false)
			b.nginx(1, 8000)
			d.becomes(1, "up")
			moves(20)
			stop.Store(true)
			for range cap(done) {
				if last := <-done; last != "" {
					t.Error("with the server down, a request came to", last)
				}
			}
			t.Logf("%d requests, %d failed before the server was down, %d afterwards", made.Load(), lost, late.Load())
			if x := d.condition(1); x.Why != "" || x.Weight != 1 {
				t.Errorf("in the end it is %+v", x)
			}
			got := map[string]int{}
			for range 30 {
				name, err := get(b, f.vip)
				must(t, err)
				got[name]++
			}
			if got["s1"] != 10 || got["s2"] != 10 || got["s3"] != 10 {
				t.Errorf("in the end requests went to %v", got)
			}
			log := d.log.String()
			at := 0
			for _, want := range []string{"old=up new=down reason=\"connect: connection refused\"", "old=down new=slow_start", "old=slow_start new=up"} {
				n := strings.Index(log[at:], want)
				if n < 0 {
					t.Fatalf("the log does not tell %q", want)
				}
				at += n
			}
		})
	}
}

// window is a listener at a port of each server that checks look at and no client does.
type window struct {
	b     *bed
	opens []net.Listener
}

func (b *bed) windows(port int) *window {
	w := &window{b: b, opens: make([]net.Listener, len(b.servers))}
	for i := range b.servers {
		w.open(i, port)
	}
	b.t.Cleanup(func() {
		for _, l := range w.opens {
			l.Close()
		}
	})
	return w
}

func (w *window) open(i, port int) {
	w.b.t.Helper()
	must(w.b.t, w.b.servers[i].Exec(func() (err error) {
		w.opens[i], err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}))
	go accept(w.opens[i], func(net.Conn) {})
}

// TestOnDown is about connections to a server that serves on but whose check fails.
func TestOnDown(t *testing.T) {
	for _, x := range []struct {
		how  string
		want error
	}{{"keep", nil}, {"reset", unix.ECONNRESET}, {"reschedule", os.ErrDeadlineExceeded}} {
		t.Run(x.how, func(t *testing.T) {
			b := newBed(t, options{servers: 2})
			b.named(8000)
			w := b.windows(8001)
			head := fmt.Sprintf("check: {port: 8001, interval: 200ms, timeout: %v}, on_down: %s, port: 80, protocol: tcp, scheduler: rr", healthLimit, x.how)
			d := b.start(b.config("services:", b.service(vip4, head, 8000)+b.service(vip6, head, 8000)))
			conns := map[string]net.Conn{}
			for _, f := range families {
				for range 2 {
					c, name := reach(t, b, f.vip, 80)
					conns[f.name+name] = c
				}
			}
			w.opens[1].Close()
			d.becomes(1, "down")
			eventually(t, healthLimit, "both services have it down", func() bool {
				return view[[]control.ServiceView](d, "list")[1].Backends[1].State == "down"
			})
			for _, f := range families {
				if got := sequence(t, b, f.vip, 4); got != "s1 s1 s1 s1" {
					t.Errorf("%s: with s2 down, connections went to %s", f.name, got)
				}
				limit := dialLimit
				if x.how == "reschedule" {
					limit = 300 * time.Millisecond
				}
				if err := pingPong(conns[f.name+"s2"], limit); !errors.Is(err, x.want) || (err == nil) != (x.want == nil) {
					t.Errorf("%s: a connection to s2 ends with %v, want %v", f.name, err, x.want)
				}
				must(t, pingPong(conns[f.name+"s1"], dialLimit))
			}
			w.open(1, 8001)
			d.becomes(1, "up")
			eventually(t, healthLimit, "both services have it up", func() bool {
				return view[[]control.ServiceView](d, "list")[1].Backends[1].State == "up"
			})
			for _, f := range families {
				if got := sequence(t, b, f.vip, 4); strings.Count(got, "s2") != 2 {
					t.Errorf("%s: with s2 up again, connections went to %s", f.name, got)
				}
			}
			if x.how == "reschedule" { // what fell silent goes on: the client's kernel sends it again
				c := conns["IPv4s2"]
				must(t, c.SetDeadline(time.Now().Add(healthLimit)))
				if _, err := io.ReadFull(c, make([]byte, len("the river divides"))); err != nil {
					t.Errorf("a connection that fell silent does not go on: %v", err)
				}
			}
		})
	}
}

// TestSYNsLeaveADeadServer takes a server's link down, so that nobody refuses: connections that were being made to it are made to another one, whoever
// has found out.
func TestSYNsLeaveADeadServer(t *testing.T) {
	for _, x := range []struct{ name, service, backend, why string }{
		{"a check", "", ", check: {interval: 200ms, timeout: 500ms, fall: 2}", "no answer in time"},
		{"clients", ", passive: {syns: 3, for: 1h}", "", "SYNs in a row without an answer"},
	} {
		t.Run(x.name, func(t *testing.T) {
			b := newBed(t, options{servers: 2})
			b.named(8000)
			d := b.start(b.config(fmt.Sprintf("services:\n  - {vip: %s, port: 80, scheduler: rr%s, backends: [{address: %s, port: 8000}, {address: %s, port: 8000%s}]}\n",
				vip4, x.service, server4(0), server4(1), x.backend)))
			if got := sequence(t, b, vip4, 2); !strings.Contains(got, "s2") {
				t.Fatalf("connections went to %s", got) // and the way to s2 is known, so SYNs do not wait for a neighbour
			}
			must(t, b.servers[1].Exec(func() error {
				l, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return netlink.LinkSetDown(l)
			}))
			names := make(chan string, 10)
			for range cap(names) {
				go func() { names <- b.nameOf(vip4) }()
			}
			for range cap(names) {
				if name := <-names; name != "s1" {
					t.Errorf("a connection came to %s", name)
				}
			}
			if x2 := d.condition(1); x2.State != "down" || !strings.Contains(x2.Why, x.why) {
				t.Errorf("the dead server is %+v", x2)
			}
		})
	}
}

// nameOf is the server that a connection comes to, however often its SYN must be sent, or what went wrong.
func (b *bed) nameOf(vip string) string {
	var c net.Conn
	if err := b.client.Exec(func() (err error) {
		c, err = net.DialTimeout("tcp", hostPort(vip, 80), healthLimit)
		return err
	}); err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(healthLimit))
	name := make([]byte, 3)
	if _, err := io.ReadFull(c, name); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(name))
}

// TestDrainLosesNothing drains a server in the middle of a download, and then gives it a deadline.
func TestDrainLosesNothing(t *testing.T) {
	b := newBed(t, options{servers: 2})
	const half = 256 << 10
	gate := make(chan struct{}) // the second half of a download waits for it
	for i := range b.servers {
		mux := http.NewServeMux()
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, b.servers[i].Name) })
		mux.HandleFunc("/file", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, half))
			_ = http.NewResponseController(w).Flush()
			<-gate
			_, _ = w.Write(make([]byte, half))
		})
		b.serveHTTP(i, 8000, mux, func(s *http.Server, l net.Listener) { _ = s.Serve(l) })
	}
	config := func(state string) string {
		return b.config(fmt.Sprintf("services:\n  - {vip: %s, port: 80, scheduler: rr, backends: [{address: %s, port: 8000}, {address: %s, port: 8000%s}]}\n",
			vip4, server4(0), server4(1), state))
	}
	d := b.start(config(""))
	type download struct {
		size int64
		err  error
	}
	downloads := make(chan download, 2)
	for range cap(downloads) {
		go func() {
			var x download
			var c net.Conn
			if c, x.err = dial(b.client, "tcp", hostPort(vip4, 80)); x.err == nil {
				defer c.Close()
				fmt.Fprint(c, "GET /file HTTP/1.0\r\n\r\n")
				x.size, x.err = io.Copy(io.Discard, c)
			}
			downloads <- x
		}()
	}
	eventually(t, healthLimit, "both servers have a download", func() bool {
		return d.condition(0).Active == 1 && d.condition(1).Active == 1
	})
	d.reload(config(", state: drain"))
	if x := d.condition(1); x.State != "drain" || x.Left != 1 || x.Weight != 0 {
		t.Errorf("the server that drains is %+v", x)
	}
	if out := d.cli("list"); !regexp.MustCompile(`drain [0-9ms]+, 1 left`).MatchString(out) {
		t.Errorf("weir list:\n%s", out)
	}
	if out := d.cli("status"); !strings.Contains(out, "1 drain, 1 connections left") {
		t.Errorf("weir status:\n%s", out)
	}
	for range 4 {
		if name, err := get(b, vip4); err != nil || name != "s1" {
			t.Errorf("a request came to %s, %v", name, err)
		}
	}
	close(gate)
	for range cap(downloads) {
		if x := <-downloads; x.err != nil || x.size < 2*half {
			t.Errorf("a download of %d bytes got %d, %v", 2*half, x.size, x.err)
		}
	}

	d.reload(config(""))
	b.named(9000)
	echoes := strings.ReplaceAll(config(""), "port: 8000", "port: 9000")
	d.reload(echoes)
	var second net.Conn
	for second == nil {
		if c, name := reach(t, b, vip4, 80); name == "s2" {
			second = c
		}
	}
	d.reload(strings.ReplaceAll(config(", state: drain, drain_timeout: 1s"), "port: 8000", "port: 9000"))
	d.becomes(1, "drained")
	if err := pingPong(second, dialLimit); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("after the deadline a connection ends with %v", err)
	}
	if x := d.condition(1); x.Left != 0 {
		t.Errorf("after the deadline it is %+v", x)
	}
}

// TestEveryKindOfCheck has servers that serve and one that does not exist, asked in each way, over both families.
func TestEveryKindOfCheck(t *testing.T) {
	b := newBed(t, options{servers: 1})
	b.named(8000)
	b.nginx(0, 8080)
	b.answerUDP(0, 5353, func(q []byte) []byte {
		if len(q) > 2 {
			q[2] |= 0x80
		}
		return q
	})
	secure := b.secure(0, 8443)
	checks := []string{
		"tcp", "{type: tcp, expect: s1}", "{type: http, port: 8080, expect: s1, path: /}", "{type: http, port: 8080, method: HEAD}",
		"{type: https, port: 8443}", "{type: https, port: 8443, verify: true, sni: www.example, ca_file: " + secure + "}",
		"{type: udp, port: 5353, send: hello, expect: he}", "{type: dns, port: 5353}", "icmp",
		`{type: exec, command: [/bin/sh, -c, "case $WEIR_ADDRESS in *11) exit 0;; esac; echo nobody; exit 1"]}`,
	}
	within := func(c string, timeout time.Duration) string {
		if !strings.HasPrefix(c, "{") {
			c = "{type: " + c + "}"
		}
		return strings.Replace(c, "{", fmt.Sprintf("{interval: 300ms, timeout: %v, ", timeout), 1)
	}
	text := ""
	for n, c := range checks {
		c = within(c, healthLimit)
		text += fmt.Sprintf("  - {name: c%d, vip: 198.18.9.%d, port: 80, check: %s, backends: [{address: %s, port: 8000}]}\n", n, n+1, c, server4(0))
		text += fmt.Sprintf("  - {name: c%dv6, vip: \"2001:db8:9::%d\", port: 80, check: %s, backends: [{address: \"%s\", port: 8000}]}\n", n, n+1, c, server6(0))
	}
	for n, c := range checks {
		if strings.Contains(c, "ca_file") {
			continue
		}
		c = within(c, 300*time.Millisecond)
		text += fmt.Sprintf("  - {name: dead%d, vip: 198.18.10.%d, port: 80, check: %s, backends: [{address: 198.18.1.99, port: 8000}]}\n", n, n+1, c)
	}
	d := b.start(b.config("services:", text))
	var wrong string
	for deadline := time.Now().Add(2 * healthLimit); ; time.Sleep(50 * time.Millisecond) {
		wrong = ""
		for _, s := range view[[]control.ServiceView](d, "list") {
			x := s.Backends[0]
			alive := !strings.HasPrefix(s.Name, "dead")
			if x.Check == nil || x.Check.Answers == 0 || alive != (x.State == "up") || alive && x.Check.Answers == x.Check.Failed {
				wrong += fmt.Sprintf("%s: %s %s %+v\n", s.Name, x.State, x.Why, x.Check)
			}
		}
		if wrong == "" || time.Now().After(deadline) {
			break
		}
	}
	if wrong != "" {
		t.Errorf("not as it should be:\n%s", wrong)
	}
	t.Logf("\n%s", d.cli("list"))
}

// secure serves HTTPS at a port of server i, with a certificate for www.example, and returns the file of its authority.
func (b *bed) secure(i, port int) (authority string) {
	b.t.Helper()
	certificate, key, authority := certificateFor(b.t, "www.example")
	b.serveHTTP(i, port, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, b.servers[i].Name) }),
		func(s *http.Server, l net.Listener) { _ = s.ServeTLS(l, certificate, key) })
	return authority
}

// serveHTTP runs an HTTP server at a port of server i, as serve does it.
func (b *bed) serveHTTP(i, port int, h http.Handler, serve func(*http.Server, net.Listener)) {
	b.t.Helper()
	s := &http.Server{Handler: h, ErrorLog: quiet}
	var l net.Listener
	must(b.t, b.servers[i].Exec(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}))
	go serve(s, l)
	b.t.Cleanup(func() { s.Close() })
}
