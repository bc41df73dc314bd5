package main_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is a service manager's side of sd_notify(3).
type manager struct {
	t testing.TB
	l *net.UnixConn
}

// manage makes what is started from now on a service of a manager with that watchdog.
func manage(t *testing.T, watchdog time.Duration) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_PID", "")
	t.Setenv("WATCHDOG_USEC", fmt.Sprint(watchdog.Microseconds()))
	return &manager{t, l}
}

// hear returns the next message that begins so; others of the kinds that may come at any time are passed over.
func (m *manager) hear(prefix string, limit time.Duration) (string, bool) {
	m.t.Helper()
	b := make([]byte, 4096)
	_ = m.l.SetReadDeadline(time.Now().Add(limit))
	for {
		n, err := m.l.Read(b)
		switch s := string(b[:n]); {
		case err != nil:
			return "", false
		case strings.HasPrefix(s, prefix):
			return s, true
		case strings.HasPrefix(s, "WATCHDOG=1"), strings.HasPrefix(s, "STATUS="):
		default:
			m.t.Errorf("heard %q while waiting for %s", s, prefix)
		}
	}
}

// TestServiceManager: what systemd is told from the start to the end, and that it is not told that we live when a worker hangs.
func TestServiceManager(t *testing.T) {
	b := newBed(t, options{servers: 1})
	m := manage(t, 3*time.Second)
	d := launch(t, b.lb, b.dir, b.config("engine: {wait: busy}\nservices:", b.service(vip4, "port: 80", 8000)))
	const long = 60 * time.Second
	say := func(prefix string, words ...string) {
		t.Helper()
		got, ok := m.hear(prefix, long)
		if !ok {
			t.Fatalf("no %s", prefix)
		}
		for _, w := range words {
			if !strings.Contains(got, w) {
				t.Errorf("%q lacks %q", got, w)
			}
		}
	}
	say("READY=1\n", "STATUS=generation 1, services 1, servers 1 of 1 up, workers 1")
	if out := in(t, b.lb, "ip", "addr", "show", "dev", "lo"); !strings.Contains(out, vip4+"/32") {
		t.Errorf("ready before the VIP is bound:\n%s", out)
	}
	say("WATCHDOG=1")
	say("WATCHDOG=1")
	d.signal(syscall.SIGHUP)
	say("RELOADING=1\nMONOTONIC_USEC=")
	say("READY=1\n", "STATUS=generation 2, ")
	d.write("version: 1\nservices: 7\n")
	if r := d.try("reload"); r.code != 3 {
		t.Errorf("a reload of a broken file: %v", r)
	}
	say("RELOADING=1\nMONOTONIC_USEC=")
	say("READY=1\n", "STATUS=generation 2, ", "last reload refused: ")
	t.Run("a worker hangs", func(t *testing.T) {
		runtime.LockOSThread() // a tracer is a thread
		defer runtime.UnlockOSThread()
		tid := busiest(t, d.pid())
		if err := unix.PtraceAttach(tid); err != nil {
			t.Skipf("ptrace: %v", err)
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(tid, &status, unix.WALL, nil); err != nil || !status.Stopped() {
			t.Fatalf("wait for the thread to stop: %v, %v", status, err)
		}
		// 1.5 s after its last move the worker counts as stuck; what was sent until then may be heard.
		for deadline := time.Now().Add(2500 * time.Millisecond); time.Now().Before(deadline); {
			m.hear("WATCHDOG=1", time.Until(deadline))
		}
		if _, ok := m.hear("WATCHDOG=1", 5*time.Second); ok {
			t.Error("a sign of life from a daemon whose worker hangs")
		}
		must(t, unix.PtraceDetach(tid))
		if _, ok := m.hear("WATCHDOG=1", long); !ok {
			t.Error("no sign of life after the worker went on")
		}
	})
	d.signal(syscall.SIGTERM)
	say("STOPPING=1\n")
	if code := d.wait(20 * time.Second); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// busiest is the thread of a process that uses the most CPU: with `wait: busy` a worker.
func busiest(t *testing.T, pid int) (tid int) {
	t.Helper()
	used := func() map[int]uint64 {
		all := map[int]uint64{}
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		must(t, err)
		for _, task := range tasks {
			var id int
			var user, system uint64
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, task.Name()))
			if err != nil {
				continue // it has ended
			}
			f := strings.Fields(string(stat)[strings.LastIndexByte(string(stat), ')')+1:]) // proc(5): from field 3 on
			_, _ = fmt.Sscan(task.Name(), &id)
			_, _ = fmt.Sscan(f[11], &user)
			_, _ = fmt.Sscan(f[12], &system)
			all[id] = user + system
		}
		return all
	}
	before := used()
	time.Sleep(500 * time.Millisecond)
	most := uint64(0)
	for id, n := range used() {
		if n -= before[id]; n > most {
			tid, most = id, n
		}
	}
	if tid == 0 {
		t.Fatal("no thread works")
	}
	return tid
}
