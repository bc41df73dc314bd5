package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"weir/control"
	"weir/control/handover"
)

const (
	takeoverVersion = 1
	handTime        = 20 * time.Second
)

// conversation is a connection through the balancer that is there the whole time.
func conversation(t *testing.T, b *bed) *stamped {
	t.Helper()
	c, err := dial(b.client, "tcp", hostPort(vip4, 80))
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return &stamped{name: "conversation", conn: c}
}

// TestSuccessorDies is a successor that gets as far as each step of a takeover, and no further. Before the commit the former weir goes on as it was;
// after it, it begins anew in the same process, as after a crash. Either way the connection goes on, and the next takeover is one.
func TestSuccessorDies(t *testing.T) {
	needsPins(t)
	b := newBed(t, options{})
	b.listen(0, 8000, echo)
	config := b.config("services:\n", b.service(vip4, "port: 80, protocol: tcp", 8000, 1, 0, 0))
	d := b.start(config)
	c := conversation(t, b)
	must(t, c.round(handTime))

	// steps is the conversation of a successor that knows what to say, one message at a time.
	steps := []struct {
		name string
		do   func(*handover.Conn) error
	}{
		{"connected", func(*handover.Conn) error { return nil }},
		{"has the offer", func(h *handover.Conn) error {
			files, err := h.Receive(handTime, "offer", &json.RawMessage{})
			handover.Close(files)
			return err
		}},
		{"is ready", func(h *handover.Conn) error { return h.Send(handTime, "ready", map[string]int{"pid": 1}) }},
		{"has the state", func(h *handover.Conn) error {
			_, err := h.Receive(handTime, "state", &json.RawMessage{})
			return err
		}},
		{"is prepared", func(h *handover.Conn) error {
			err := h.Send(handTime, "prepared", struct{}{})
			if err == nil {
				_, err = h.Receive(handTime, "commit", &json.RawMessage{})
			}
			return err
		}},
	}
	for n, last := range steps {
		for _, end := range []string{"dies", "gives up", "is silent"} {
			if end == "is silent" && n != 3 || end == "gives up" && n == 4 {
				continue // takes a minute; after the commit nobody gives up
			}
			t.Run(last.name+" and "+end, func(t *testing.T) {
				before := view[control.Status](d, "status")
				var h *handover.Conn
				eventually(t, handTime, "the takeover before is over", func() (ok bool) {
					var err error
					h, err = handover.Dial(d.socket, takeoverVersion, handTime)
					return err == nil
				})
				defer h.Close()
				for _, s := range steps[:n+1] {
					must(t, s.do(h))
				}
				if n > 0 {
					if _, err := handover.Dial(d.socket, takeoverVersion, handTime); !errors.Is(err, handover.ErrRefused) || !strings.Contains(err.Error(), "under way") {
						t.Errorf("a second takeover at the same time: %v", err)
					}
				}
				switch end {
				case "dies":
					h.Close()
				case "gives up":
					h.Abort(errors.New("for a test"))
				case "is silent":
					if _, err := h.Receive(handTime, "its word", &json.RawMessage{}); !errors.Is(err, handover.ErrAborted) {
						t.Errorf("to silence it says %v, want that it gives up", err)
					}
				}
				must(t, c.round(handTime))
				var after control.Status
				eventually(t, handTime, "the weir goes on", func() bool {
					return control.NewClient(d.socket).Get("/status", &after) == nil && (n < 4 || !after.Started.Equal(before.Started))
				})
				if after.PID != d.pid() || n < 4 && !after.Started.Equal(before.Started) || after.Connections < 1 {
					t.Errorf("pid %d started at %v with %d connections, before it was %d at %v", after.PID, after.Started, after.Connections, before.PID, before.Started)
				}
				whole(t, d)
				if n == 4 { // what it reports as counted is of the new life
					d.ready()
				}
			})
		}
	}
	d = b.takeover(d, config)
	must(t, c.round(handTime))
	whole(t, d)
	if r := d.try("reload"); r.code != 0 {
		t.Errorf("a reload afterwards: %v", r)
	}
	second := launch(t, b.lb, b.dir, config) // the kernel tells who listens, not who once made the socket
	if code, want := second.wait(handTime), fmt.Sprintf("another weir runs as pid %d", d.pid()); code != 1 || !strings.Contains(second.log.String(), want) {
		t.Errorf("a second weir ends with %d, want %q: %s", code, want, second.log)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// between stands between a weir and its successor. It listens where the weir did, and hands every message on. Before it does so with that of the kind after it
// acts, and if that says so it is the last one.
func between(t *testing.T, d *daemon, after string, act func() (last bool)) {
	t.Helper()
	aside := d.socket + ".aside"
	must(t, os.Rename(d.socket, aside))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.socket, Net: "unix"})
	must(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		defer os.Remove(aside)
		var c *net.UnixConn
		request := make([]byte, 4096) // is all there, for nothing follows before the answer
		for {
			var err error
			if c, err = l.AcceptUnix(); err != nil {
				return
			}
			defer c.Close()
			if n, err := c.Read(request); err == nil && bytes.HasPrefix(request[:n], []byte("POST "+handover.Path)) {
				break
			}
			c.Close() // somebody who asks whether the successor works already
		}
		former, err := handover.Dial(aside, takeoverVersion, handTime)
		if err != nil {
			t.Error(err)
			return
		}
		defer former.Close()
		if _, err := c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\n\r\n")); err != nil {
			t.Error(err)
			return
		}
		successor := handover.New(c)
		for _, m := range []struct {
			kind     string
			from, to *handover.Conn
		}{{"offer", former, successor}, {"ready", successor, former}, {"state", former, successor}, {"prepared", successor, former}, {"commit", former, successor}} {
			var body json.RawMessage
			files, err := m.from.Receive(handTime, m.kind, &body)
			last := false
			if errors.Is(err, handover.ErrAborted) { // hands that on, too
				m.to.Abort(err)
				return
			}
			if err == nil {
				if m.kind == after { // before the successor knows
					l.Close()
					if err := os.Rename(aside, d.socket); err != nil {
						t.Error(err)
					}
					last = act()
				}
				err = m.to.Send(handTime, m.kind, body, files...)
				handover.Close(files)
			}
			if err != nil {
				t.Error(err)
				return
			}
			if last {
				return
			}
		}
	}()
}

// TestFormerDies is a weir that dies while it hands over. A successor that has everything goes on; one that has not starts as after a crash. The connection
// lives through both.
func TestFormerDies(t *testing.T) {
	needsPins(t)
	for _, x := range []struct {
		after string
		alive bool // what the successor has, it has from a living weir
	}{{"offer", false}, {"state", true}} {
		t.Run("after the "+x.after, func(t *testing.T) {
			b := newBed(t, options{})
			b.listen(0, 8000, echo)
			config := b.config("services:\n", b.service(vip4, "port: 80, protocol: tcp", 8000, 1, 0, 0))
			d := b.start(config)
			c := conversation(t, b)
			must(t, c.round(handTime))
			between(t, d, x.after, func() bool { d.kill(); return true })
			next := launch(t, b.lb, b.dir, config, "--takeover")
			next.ready()
			must(t, c.round(handTime))
			s := view[control.Status](next, "status")
			if (s.Takeover != nil) != x.alive || s.TakenOver != 1 {
				t.Errorf("takeover %+v of %d connections", s.Takeover, s.TakenOver)
			}
			whole(t, next)
			if code := next.stop(); code != 0 {
				t.Errorf("exit %d", code)
			}
		})
	}
}

// TestSuccessorIsEnded: who ends a successor that does not work yet, politely, has the weir that works go on.
func TestSuccessorIsEnded(t *testing.T) {
	needsPins(t)
	for _, after := range []string{"offer", "state"} {
		t.Run("after the "+after, func(t *testing.T) {
			b := newBed(t, options{})
			b.listen(0, 8000, echo)
			config := b.config("services:\n", b.service(vip4, "port: 80, protocol: tcp", 8000, 1, 0, 0))
			d := b.start(config)
			c := conversation(t, b)
			must(t, c.round(handTime))
			var next *daemon
			launched := make(chan struct{})
			between(t, d, after, func() bool {
				<-launched
				next.signal(syscall.SIGTERM)
				time.Sleep(50 * time.Millisecond) // until it knows
				return false
			})
			next = launch(t, b.lb, b.dir, config, "--takeover")
			close(launched)
			if code := next.wait(handTime); code != 1 {
				t.Errorf("the successor ends with %d: %s", code, next.log)
			}
			must(t, c.round(handTime))
			if s := view[control.Status](d, "status"); s.PID != d.pid() {
				t.Errorf("pid %d answers, want %d", s.PID, d.pid())
			}
			whole(t, d)
			if code := d.stop(); code != 0 {
				t.Errorf("exit %d", code)
			}
		})
	}
}

// TestTakeoverRefused: a successor that cannot be one ends with the reason, and the weir goes on untouched.
func TestTakeoverRefused(t *testing.T) {
	needsPins(t)
	b := newBed(t, options{})
	b.listen(0, 8000, echo)
	of := func(from, to int) (all string) {
		for port := from; port <= to; port++ {
			all += b.service(vip4, fmt.Sprintf("port: %d, protocol: tcp", port), 8000, 1, 0, 0)
		}
		return all
	}
	services := "services:\n" + of(80, 179)
	good := b.config(services)
	crowd := "services:\n" + of(1001, 2000) // the steering program's maps have room for 1024
	lonely := launch(t, b.lb, b.dir, good, "--takeover")
	if code := lonely.wait(handTime); code != 5 || !strings.Contains(lonely.log.String(), "no weir answers") {
		t.Errorf("with nobody to take over from it ends with %d: %s", code, lonely.log)
	}
	d := b.start(good)
	c := conversation(t, b)
	for _, x := range []struct {
		name, config string
		code         int
		says         string
	}{
		// First, as it gets as far as the table's file, which is gone with the subtest.
		{"no room for old and new services together", b.config(crowd), 1, "entries are needed while old and new rules hold together"},
		{"a broken file", "version: 1\nservices: 7\n", 3, "services"},
		{"another number of workers", b.config("engine: {workers: 2}", services), 1, "workers: it has 1, here it is 2"},
		{"a table of another size", b.config("conntrack: {max_connections: 4096}", services), 1, "conntrack.max_connections: it has 1048576, here it is 4096"},
		{"another place", b.config("engine: {state_dir: /dev/shm/weir-other}", services), 1, "engine.state_dir"},
		{"a port less", b.config("ports: [{name: wan, interface: wan, driver: af_xdp}]", services), 1, "interfaces of ports: it has lan wan, here it is wan"},
	} {
		t.Run(x.name, func(t *testing.T) {
			before := view[control.Status](d, "status")
			next := launch(t, b.lb, b.dir, x.config, "--takeover")
			if code := next.wait(handTime); code != x.code || !strings.Contains(next.log.String(), x.says) {
				t.Errorf("ends with %d, want %d and %q:\n%s", code, x.code, x.says, next.log)
			}
			must(t, c.round(handTime))
			if after := view[control.Status](d, "status"); after.PID != before.PID || after.Generation != before.Generation {
				t.Errorf("pid %d generation %d, before %d and %d", after.PID, after.Generation, before.PID, before.Generation)
			}
			whole(t, d)
		})
	}
	d.write(good)
	if r := d.try("reload"); r.code != 0 {
		t.Errorf("a reload afterwards: %v", r)
	}
	d.kill() // a start makes room
	b.start(b.config(crowd))
	works(t, b.client, hostPort(vip4, 1001), 1)
}

// upgraded sends SIGUSR2 to the weir of a pid that serves d's socket, and waits until its child has taken over.
func (d *daemon) upgraded(pid int) (s control.Status) {
	d.t.Helper()
	must(d.t, syscall.Kill(pid, syscall.SIGUSR2))
	eventually(d.t, handTime, "another weir answers", func() bool {
		s = control.Status{}
		return control.NewClient(d.socket).Get("/status", &s) == nil && s.PID != pid
	})
	if s.Takeover == nil || s.Takeover.PID != pid {
		d.t.Fatalf("takeover %+v, want one from %d", s.Takeover, pid)
	}
	return s
}

// ends stops the weir of a pid that serves d's socket.
func (d *daemon) ends(pid int) {
	d.t.Helper()
	must(d.t, syscall.Kill(pid, syscall.SIGTERM))
	eventually(d.t, handTime, "the last one ends", func() bool {
		_, err := os.Stat(d.socket)
		return errors.Is(err, os.ErrNotExist)
	})
}

// TestUpgradeBySignal is SIGUSR2 to a service: its own child takes over, the service manager is told of it before it speaks itself, and the
// next signal goes to the child.
func TestUpgradeBySignal(t *testing.T) {
	needsPins(t)
	b := newBed(t, options{})
	b.listen(0, 8000, echo)
	m := manage(t, 5*time.Second)
	config := b.config("services:\n", b.service(vip4, "port: 80, protocol: tcp", 8000, 1, 0, 0))
	d := b.start(config)
	pid := d.pid()
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) }) // it has the daemon's output open
	c := conversation(t, b)
	must(t, c.round(handTime))
	say := func(what string) {
		t.Helper()
		if _, ok := m.hear(what, handTime); !ok {
			t.Fatalf("the service manager does not hear %s", what)
		}
	}
	say("READY=1")
	t.Setenv("NOTIFY_SOCKET", "")
	stranger := launch(t, b.lb, b.dir, config, "--takeover")
	if code := stranger.wait(handTime); code != 1 || !strings.Contains(stranger.log.String(), "SIGUSR2") {
		t.Errorf("a stranger to the service manager ends with %d: %s", code, stranger.log)
	}
	for range 2 {
		must(t, c.round(handTime))
		pid = d.upgraded(pid).PID
		say(fmt.Sprintf("MAINPID=%d", pid))
		say("READY=1")
		say("WATCHDOG=1")
	}
	must(t, c.round(handTime))
	d.ends(pid)
	pid = d.pid()
}
