// Package systemd talks to the service manager that started the process, in the protocol of sd_notify(3): datagrams of NAME=VALUE lines to the
// socket that NOTIFY_SOCKET names. Without one nothing is sent and nothing fails, so weir runs the same under a shell.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Manager is the service manager. The zero value, and nil, is none.
type Manager struct {
	addr     *net.UnixAddr
	watchdog time.Duration
	environ  []string // as it was found
}

// Open reads what the manager says in the environment, and takes it out: programs that this process starts are not the service.
func Open() (*Manager, error) {
	get := func(name string) string {
		v := os.Getenv(name)
		_ = os.Unsetenv(name) // of a valid name it cannot fail
		return v
	}
	path, usec, pid := get("NOTIFY_SOCKET"), get("WATCHDOG_USEC"), get("WATCHDOG_PID")
	if path == "" {
		return &Manager{}, nil
	}
	if path[0] != '/' && path[0] != '@' { // sd_notify(3) knows vsock: and others, for virtual machines
		return nil, fmt.Errorf("NOTIFY_SOCKET %s: must be a path, or an abstract socket that begins with @", path)
	}
	m := &Manager{addr: &net.UnixAddr{Name: path, Net: "unixgram"}, environ: []string{"NOTIFY_SOCKET=" + path}}
	if usec != "" && (pid == "" || pid == strconv.Itoa(os.Getpid())) { // sd_watchdog_enabled(3): it may be meant for our parent
		n, err := strconv.ParseInt(usec, 10, 64)
		if err != nil || n <= 0 || n > int64(time.Duration(1<<63-1)/time.Microsecond) {
			return nil, fmt.Errorf("WATCHDOG_USEC %s: must be microseconds", usec)
		}
		m.watchdog = time.Duration(n) * time.Microsecond
		m.environ = append(m.environ, "WATCHDOG_USEC="+usec) // without WATCHDOG_PID it is meant for whoever has it
	}
	return m, nil
}

// Present reports whether there is one.
func (m *Manager) Present() bool { return m != nil && m.addr != nil }

// Watchdog is how long the manager waits for a sign of life before it ends the service; 0: for ever.
func (m *Manager) Watchdog() time.Duration {
	if m == nil {
		return 0
	}
	return m.watchdog
}

// Ready says that the service has started, or that a reload is over, and how it is: one line.
func (m *Manager) Ready(status string) error { return m.send("READY=1", "STATUS="+line(status)) }

// Reloading says that a reload begins. The manager needs its time in the same message (Type=notify-reload, systemd 253), to tell the
// answer to this reload from that to an earlier one.
func (m *Manager) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return os.NewSyscallError("clock_gettime", err)
	}
	return m.send("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

// Environ is what Open has taken out of the environment, for a process that takes this one's place.
func (m *Manager) Environ() []string {
	if m == nil {
		return nil
	}
	return m.environ
}

// MainPID says that the service's main process is another from now on: only what that says counts then. The manager takes it only of a process
// of the service's own.
func (m *Manager) MainPID(pid int) error { return m.send(fmt.Sprintf("MAINPID=%d", pid)) }

// Stopping says that a clean stop has begun.
func (m *Manager) Stopping() error { return m.send("STOPPING=1", "STATUS=stopping") }

// Status says how the service is, in one line.
func (m *Manager) Status(status string) error { return m.send("STATUS=" + line(status)) }

// Alive is a sign of life.
func (m *Manager) Alive() error { return m.send("WATCHDOG=1") }

// line keeps a text from being more than one assignment.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
}

// send sends one message. A manager that is not listening is an error; one that is slow is waited for no longer than a second.
func (m *Manager) send(assignments ...string) error {
	if !m.Present() {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, m.addr)
	if err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	defer c.Close()
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte(strings.Join(assignments, "\n"))); err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	return nil
}
