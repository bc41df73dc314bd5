package systemd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listener is a service manager's socket; hear returns the next message.
func listener(t *testing.T, path string) (hear func() string) {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return func() string {
		t.Helper()
		b := make([]byte, 4096)
		_ = l.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

// TestMessages is the protocol of sd_notify(3), over a path and over an abstract socket.
func TestMessages(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@weir-test-%d", os.Getpid())} {
		hear := listener(t, path)
		t.Setenv("NOTIFY_SOCKET", path)
		t.Setenv("WATCHDOG_USEC", "3000000")
		t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
		m, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		if !m.Present() || m.Watchdog() != 3*time.Second {
			t.Errorf("present %v, watchdog %v", m.Present(), m.Watchdog())
		}
		for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
			if v, there := os.LookupEnv(name); there {
				t.Errorf("programs that we start would still see %s=%s", name, v)
			}
		}
		for _, x := range []struct {
			say  func() error
			want string
		}{
			{func() error { return m.Ready("generation 1") }, "READY=1\nSTATUS=generation 1"},
			{func() error { return m.Status("one\nMAINPID=1") }, "STATUS=one MAINPID=1"},
			{m.Alive, "WATCHDOG=1"},
			{m.Stopping, "STOPPING=1\nSTATUS=stopping"},
		} {
			if err := x.say(); err != nil {
				t.Error(err)
			}
			if got := hear(); got != x.want {
				t.Errorf("said %q, want %q", got, x.want)
			}
		}
		var before, after unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
		if err := m.Reloading(); err != nil {
			t.Error(err)
		}
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
		var usec int64
		if n, err := fmt.Sscanf(hear(), "RELOADING=1\nMONOTONIC_USEC=%d", &usec); n != 1 || err != nil || usec < before.Nano()/1000 || usec > after.Nano()/1000 {
			t.Errorf("RELOADING with %d µs, must be between %d and %d (%v)", usec, before.Nano()/1000, after.Nano()/1000, err)
		}
	}
}

func TestOpen(t *testing.T) {
	for _, x := range []struct {
		name, socket, usec, pid string
		present                 bool
		watchdog                time.Duration
		err                     string
	}{
		{name: "no manager"},
		{name: "no manager, a watchdog of somebody else", usec: "1000000"},
		{name: "a manager", socket: "/run/systemd/notify", present: true},
		{name: "a watchdog for whoever is there", socket: "/n", usec: "500000", present: true, watchdog: 500 * time.Millisecond},
		{name: "a watchdog of our parent", socket: "/n", usec: "500000", pid: "1", present: true},
		{name: "no such family", socket: "vsock:2:1234", err: "NOTIFY_SOCKET vsock:2:1234"},
		{name: "no number", socket: "/n", usec: "1s", err: "WATCHDOG_USEC 1s"},
		{name: "zero", socket: "/n", usec: "0", err: "WATCHDOG_USEC 0"},
		{name: "more than there is time", socket: "/n", usec: "9223372036854775807", err: "WATCHDOG_USEC"},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Setenv("NOTIFY_SOCKET", x.socket)
			t.Setenv("WATCHDOG_USEC", x.usec)
			t.Setenv("WATCHDOG_PID", x.pid)
			m, err := Open()
			if x.err != "" {
				if err == nil || !strings.Contains(err.Error(), x.err) {
					t.Errorf("%v, want %q", err, x.err)
				}
				return
			}
			if err != nil || m.Present() != x.present || m.Watchdog() != x.watchdog {
				t.Errorf("present %v, watchdog %v, %v", m.Present(), m.Watchdog(), err)
			}
		})
	}
}

// TestNobodyListens: without a manager nothing fails; with one that is gone everything says so.
func TestNobodyListens(t *testing.T) {
	for _, m := range []*Manager{nil, {}} {
		if err := m.Ready(""); err != nil || m.Alive() != nil || m.Watchdog() != 0 || m.Present() {
			t.Errorf("no manager: %v", err)
		}
	}
	gone := &Manager{addr: &net.UnixAddr{Name: filepath.Join(t.TempDir(), "gone"), Net: "unixgram"}}
	if err := gone.Alive(); err == nil || !strings.Contains(err.Error(), "service manager") {
		t.Errorf("a manager that is gone: %v", err)
	}
}
