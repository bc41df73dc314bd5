package control

import (
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/config"
	"weir/control/handover"
	"weir/dataplane/driver/afxdp"
	"weir/dataplane/steer"
)

// conversation is both ends of one.
func conversation(t *testing.T) (former, successor *handover.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*handover.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "conversation")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = handover.New(c.(*net.UnixConn))
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

// TestNobodyEndsASuccessorsConnections: a request to end connections that comes while they are handed over is refused by the former process, whose
// locks are not the successor's, and done if that does not take them in the end.
func TestNobodyEndsASuccessorsConnections(t *testing.T) {
	for _, taken := range []bool{true, false} {
		b := newCoreBed(t, web("10 1"))
		if b.connect() != 10 {
			t.Fatal("no connection")
		}
		u, err := afxdp.NewUmem(afxdp.UmemOptions{Chunks: 16})
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c := &Control{core: b.core, log: slog.New(slog.DiscardHandler), ports: &ports{umems: []*afxdp.Umem{u}}, left: make(chan struct{}), listener: l}
		former, successor := conversation(t)
		over := make(chan error, 1)
		go func() { over <- c.surrenderTo(former, -1, readyMessage{}, nil) }()
		say := func(err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}
		hear := func(kind string, to any) {
			t.Helper()
			_, err := successor.Receive(time.Second, kind, to)
			say(err)
		}
		hear("state", new(handState))
		type result struct {
			n   int
			err error
		}
		deleted := make(chan result, 1)
		go func() {
			n, err := c.deleteConns(httptest.NewRequest("DELETE", "/conns?all=true", nil))
			deleted <- result{n, err}
		}()
		time.Sleep(20 * time.Millisecond)
		if taken {
			say(successor.Send(time.Second, "prepared", nothing{}))
			hear("commit", &nothing{})
			say(successor.Send(time.Second, "forwarding", nothing{}))
			hear("farewell", &nothing{})
			say(<-over)
			if r := <-deleted; r.n != 0 || !errors.Is(r.err, ErrLeft) || b.core.engine.Table.Len() != 1 {
				t.Errorf("of the successor's connections %d were ended, %d are left: %v", r.n, b.core.engine.Table.Len(), r.err)
			}
		} else {
			successor.Abort(errors.New("for a test"))
			if err := <-over; !errors.Is(err, handover.ErrAborted) {
				t.Errorf("the takeover ends with %v", err)
			}
			if r := <-deleted; r.n != 1 || r.err != nil {
				t.Errorf("of the connections that stay %d were ended: %v", r.n, r.err)
			}
		}
	}
}

// TestReloadOfWhoHasLeft: a process that has handed over has refused no configuration, and has no generation that keeps running.
func TestReloadOfWhoHasLeft(t *testing.T) {
	c := &Control{core: newCoreBed(t, web("10 1")).core, log: slog.New(slog.DiscardHandler), asks: make(chan func()), left: make(chan struct{})}
	close(c.left)
	w := httptest.NewRecorder()
	c.handler().ServeHTTP(w, httptest.NewRequest("POST", "/reload", nil))
	if text := w.Body.String(); w.Code != 503 || !strings.Contains(text, ErrLeft.Error()) || strings.Contains(text, "generation") {
		t.Errorf("%d %s", w.Code, text)
	}
}

// TestTheSuccessorHasEnded: this process begins anew when the successor that does not work is dead, killed if it must be, and not before.
func TestTheSuccessorHasEnded(t *testing.T) {
	for _, gone := range []bool{true, false} {
		successor := exec.Command("sleep", map[bool]string{true: "0.2", false: "60"}[gone])
		if err := successor.Start(); err != nil {
			t.Skip(err)
		}
		alive, err := unix.PidfdOpen(successor.Process.Pid, 0)
		if err != nil {
			t.Skip(err)
		}
		why := map[bool]error{true: handover.ErrGone, false: handover.ErrSilent}[gone]
		c := &Control{log: slog.New(slog.DiscardHandler), left: make(chan struct{})}
		again := 0
		c.options.Again = func() error {
			if again++; !ended(alive, 0) {
				t.Errorf("%v: it begins anew while the successor lives", why)
			}
			return nil
		}
		if err := c.reclaim(alive, why); err != nil || again != 1 || !c.handed {
			t.Errorf("%v: began anew %d times, handed %v: %v", why, again, c.handed, err)
		}
		_ = successor.Process.Kill()
		_ = successor.Wait()
		unix.Close(alive)
	}
}

// TestAPortThatIsNotReady: a queue whose socket the steering does not know is no successor's, who would never make it known.
func TestAPortThatIsNotReady(t *testing.T) {
	cfg := &config.Config{Ports: []config.Port{{Name: "wan", Driver: "af_xdp"}}}
	c := &Control{core: &core{cfg: cfg, state: &state{file: os.Stdin}}, ports: &ports{program: new(steer.Program), missing: map[string]string{}}}
	for _, x := range []struct {
		registered    uint32
		missing, says string
	}{{0, "", "not pinned"}, {1, "", "port wan is not ready: its device has come back"}, {1, "the device is new", "port wan is not ready: the device is new"}} {
		c.ports.rings = []*ring{{queue: new(afxdp.Queue), registered: x.registered}}
		c.ports.missing["wan"] = x.missing
		if err := c.giveable(); err == nil || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%v, want %q", err, x.says)
		}
	}
}
