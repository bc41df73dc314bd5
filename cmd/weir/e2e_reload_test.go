package main_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// named makes every server tell its name and then echo, at a TCP port.
func (b *bed) named(port int) {
	b.t.Helper()
	for i, s := range b.servers {
		b.listen(i, port, func(c net.Conn) {
			if _, err := io.WriteString(c, s.Name+"\n"); err == nil {
				echo(c)
			}
		})
	}
}

// reach opens a connection to named servers and tells which one took it. The connection is closed with the test, if not before.
func reach(t testing.TB, b *bed, vip string, port int) (net.Conn, string) {
	t.Helper()
	c, err := dial(b.client, "tcp", hostPort(vip, port))
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.SetDeadline(time.Now().Add(dialLimit)))
	name, err := bufio.NewReaderSize(c, 16).ReadString('\n') // nothing follows before we send
	must(t, err)
	return c, strings.TrimSpace(name)
}

// sequence opens and closes n connections and returns the servers that took them.
func sequence(t testing.TB, b *bed, vip string, n int) string {
	t.Helper()
	var all []string
	for range n {
		c, name := reach(t, b, vip, 80)
		c.Close()
		all = append(all, name)
	}
	return strings.Join(all, " ")
}

// TestReloadKeepsWhatDidNotChange interrupts the scheduler's sequence by reloads of other parts: it goes on where it was, and so do
// the counters. A server whose weight is edited keeps its counters, too.
func TestReloadKeepsWhatDidNotChange(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			b := newBed(t, options{})
			b.named(8000)
			head := "port: 80, protocol: tcp, scheduler: wrr"
			other := map[string]string{vip4: "198.18.9.10", vip6: "2001:db8:9::10"}[f.vip]
			config := func(limit int, weights ...int) string {
				return b.config("services:", b.service(other, head, 8000, 1, limit), b.service(f.vip, head, 8000, weights...),
					fmt.Sprintf("limits: {answers: %d/s}", 100*limit))
			}
			d := b.start(config(1, 3, 2, 1))
			const round = "s1 s2 s3 s1 s1 s2" // as the kernel's, whose destinations were added one by one
			want := strings.Fields(strings.Repeat(round+" ", 3))
			got := strings.Fields(sequence(t, b, f.vip, 4))
			for i := range 7 {
				if i%2 == 0 {
					d.reload(config(i+2, 3, 2, 1))
				} else {
					d.write(config(i+2, 3, 2, 1))
					d.signal(syscall.SIGHUP)
					eventually(t, 5*time.Second, "SIGHUP reloads", func() bool { return d.now().Generation == uint64(i+2) })
				}
				got = append(got, strings.Fields(sequence(t, b, f.vip, 2))...)
			}
			if !slices.Equal(got, want) {
				t.Errorf("over seven reloads connections went to\n%v, not to\n%v", got, want)
			}
			before := d.settled()
			if s := before.Services[1]; before.Generation != 8 || s.Conns != 18 || s.Backends[0].Conns != 9 || s.Backends[1].Conns != 6 || s.Backends[2].Conns != 3 {
				t.Errorf("generation %d, counted %+v", before.Generation, s)
			}
			d.reload(config(9, 1, 2, 1))
			after := d.settled()
			if after.Services[1].Traffic != before.Services[1].Traffic {
				t.Errorf("an edit of a weight made %+v of the counters %+v", after.Services[1].Traffic, before.Services[1].Traffic)
			}
			for i, x := range after.Services[1].Backends {
				if x.Traffic != before.Services[1].Backends[i].Traffic {
					t.Errorf("an edit of a weight made %+v of server %d's %+v", x.Traffic, i, before.Services[1].Backends[i].Traffic)
				}
			}
			if w := after.Services[1].Backends[0].Weight; w != 1 {
				t.Errorf("the weight is %d", w)
			}
		})
	}
}

// TestReloadsUnderLoad edits everything that can be edited, by SIGHUP and by `weir reload`, while data flows in old connections and new ones are
// made all the time. Nothing of what stays configured may notice.
func TestReloadsUnderLoad(t *testing.T) {
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			b := newBed(t, o)
			b.echoes(8000)
			head := "port: 80, protocol: tcp, scheduler: wrr"
			config := func(i int) string {
				weights := []int{1 + i%3, 1 + i/2%4, 1} // never without s1 and s2, whose connections must not be touched
				if i%4 == 3 {
					weights = weights[:2]
				}
				services := b.service(vip4, head, 8000, weights...) + b.service(vip6, head, 8000, weights...)
				if i%2 == 1 {
					services = b.service("198.18.9.10", "port: 81, protocol: udp", 8000) + services + b.service("2001:db8:9::10", head, 8000, i)
				}
				return b.config("services:", services)
			}
			// The streams begin while there are two servers, so that none goes to the third, which comes and goes.
			d := b.start(config(3))
			old := append(streams(t, b.client, hostPort(vip4, 80), 4, dialLimit), streams(t, b.client, hostPort(vip6, 80), 4, dialLimit)...)
			var stop atomic.Bool
			made := make(chan error, 1)
			var count atomic.Int64
			go func() {
				for !stop.Load() {
					for _, f := range families {
						c, err := dial(b.client, "tcp", hostPort(f.vip, 80))
						if err != nil {
							made <- fmt.Errorf("connection %d: %w", count.Load(), err)
							return
						}
						count.Add(1)
						_ = c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT, and its server may be gone by now
						c.Close()
					}
				}
				made <- nil
			}()
			const rounds = 24
			for i := range rounds {
				begun := count.Load()
				if i%3 == 0 {
					d.write(config(i))
					d.signal(syscall.SIGHUP)
					eventually(t, 5*time.Second, "SIGHUP reloads", func() bool { return d.now().Generation == uint64(i+2) })
				} else {
					d.reload(config(i))
				}
				eventually(t, 5*time.Second, "connections are made", func() bool { return count.Load() > begun+4 || len(made) > 0 })
			}
			flows(t, old, 5*time.Second)
			stop.Store(true)
			if err := <-made; err != nil {
				t.Error(err)
			}
			finish(t, old)
			s := d.settled()
			if s.Generation != rounds+1 {
				t.Errorf("generation %d after %d reloads", s.Generation, rounds)
			}
			if lost := s.Verdicts.Dropped - s.Drops["backend_gone"] - s.Drops["no_connection"]; lost != 0 { // late segments of aborted connections
				t.Errorf("drops: %s", d.cli("drops"))
			}
			t.Logf("%d connections over %d reloads", count.Load(), rounds)
			for _, want := range []string{"services +2 -0 ~2, generation 3", "services +0 -2 ~2"} {
				if !strings.Contains(d.log.String(), want) {
					t.Errorf("the log does not tell %q", want)
				}
			}
		})
	}
}

// TestRefusedReloadsNameTheField changes one thing at a time that needs a restart, or breaks the file.
func TestRefusedReloadsNameTheField(t *testing.T) {
	b := newBed(t, options{})
	b.named(8000)
	service := "services:\n" + b.service(vip4, "port: 80, protocol: tcp", 8000)
	ports := "ports:\n  - {name: wan, interface: wan}\n  - {name: lan, interface: lan}\n"
	good := b.config(ports, service)
	d := b.start(good)
	c, _ := reach(t, b, vip4, 80)
	for _, x := range []struct{ name, config, says string }{
		{"wait", b.config("engine: {wait: poll}", ports, service), "engine.wait"},
		{"workers", b.config("engine: {workers: 1}", ports, service), "engine.workers"},
		{"name", b.config(strings.Replace(ports, "name: lan", "name: inside", 1), service), "ports[1].name"},
		{"driver", b.config(strings.Replace(ports, "interface: lan", "interface: lan, driver: af_packet", 1), service), "ports[1].driver"},
		{"interface", b.config(strings.Replace(ports, "interface: lan", "interface: lan2", 1), service), "ports[1].interface"},
		{"mode", b.config(strings.Replace(ports, "interface: wan", "interface: wan, xdp_mode: generic", 1), service), "ports[0].xdp_mode"},
		{"number of ports", b.config("ports:\n  - {name: wan, interface: wan}\n", service), "ports"},
		{"table", b.config(ports, "conntrack: {max_connections: 4096}", service), "conntrack.max_connections"},
		{"socket", b.config(ports, "admin: {socket: /run/elsewhere.sock}", service), "admin.socket"},
		{"scheduler", b.config(ports, strings.Replace(service, "protocol: tcp", "protocol: tcp, scheduler: wlx", 1)), "services[0].scheduler"},
		{"syntax", good + "]", "YAML"},
		{"nothing", "", "is empty"},
		{"gone", "", "no such file"},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := *d
			d.t = t
			d.write(x.config)
			if x.name == "gone" {
				must(t, os.Remove(d.file))
			}
			r := d.try("reload")
			if r.code != 3 || r.out != "" || !strings.Contains(r.errors, x.says) || !strings.Contains(r.errors, "refused, generation 1 keeps running") {
				t.Errorf("want exit 3 and %q, got %v", x.says, r)
			}
			if out := d.cli("status"); !strings.Contains(out, "last reload") || view[map[string]any](&d, "status")["last_reload_ok"] != false {
				t.Errorf("status does not tell of the refusal:\n%s", out)
			}
			must(t, pingPong(c, dialLimit))
		})
	}
	if d.now().Generation != 1 {
		t.Error("a refused configuration counts")
	}
	d.reload(good)
	if s := view[map[string]any](d, "status"); s["generation"] != 2.0 || s["last_reload_ok"] != true {
		t.Errorf("status %v", s)
	}
	must(t, pingPong(c, dialLimit))
}

// TestServersThatGo is about connections to a server that a reload takes away, and to one that is drained.
func TestServersThatGo(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			b := newBed(t, options{servers: 2})
			b.named(8000)
			config := func(extra string, weights ...int) string {
				return b.config("services:", b.service(f.vip, "port: 80, protocol: tcp, scheduler: rr"+extra, 8000, weights...))
			}
			d := b.start(config(""))
			first, at1 := reach(t, b, f.vip, 80)
			second, at2 := reach(t, b, f.vip, 80)
			if at1+at2 != "s1s2" {
				t.Fatalf("connections went to %s and %s", at1, at2)
			}

			d.reload(config("", 1, 0))
			if got := sequence(t, b, f.vip, 4); got != "s1 s1 s1 s1" {
				t.Errorf("with the weight of s2 zero, connections went to %s", got)
			}
			if err := pingPong(second, dialLimit); err != nil {
				t.Errorf("a server that drains lost its connection: %v", err)
			}
			if x := d.now().Services[0].Backends[1]; x.Weight != 0 || x.Active != 1 {
				t.Errorf("the server that drains is %+v", x)
			}

			d.reload(config("", 1)) // s2 is gone
			before := d.now().Drops["backend_gone"]
			if err := pingPong(second, 700*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a removed server's connection does not fall silent: %v", err)
			}
			if after := d.now().Drops["backend_gone"]; after <= before {
				t.Errorf("%d packets counted backend_gone", after-before)
			}
			must(t, pingPong(first, dialLimit))

			d.reload(config(""))
			// The client's kernel sends again what has fallen silent.
			must(t, second.SetDeadline(time.Now().Add(2*dialLimit)))
			echoed := make([]byte, len("the river divides"))
			if _, err := io.ReadFull(second, echoed); err != nil || string(echoed) != "the river divides" {
				t.Errorf("a server that has come back does not go on: %q, %v", echoed, err)
			}
			must(t, pingPong(second, dialLimit))
			if x := d.now().Services[0].Backends[1]; x.Active != 1 {
				t.Errorf("the server that came back counts %d active connections", x.Active)
			}

			d.reload(config(", expire_nodest_conn: true", 1))
			if err := pingPong(second, dialLimit); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("with expire_nodest_conn the client of a removed server gets %v", err)
			}
			if err := pingPong(first, dialLimit); err != nil {
				t.Errorf("the other server's connection: %v", err)
			}
		})
	}
}
