package privilege

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// onThread calls f on a thread that has these capabilities and ends with f.
func onThread(t *testing.T, s sets, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() { // the first thread does not end; the next goroutine gets another one, as this is taken
			go func() { runtime.LockOSThread(); err := s.apply(); f(); done <- err }()
			select {}
		}
		err := s.apply()
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Skip(err)
	}
}

func TestCheck(t *testing.T) {
	now, err := current()
	if err != nil {
		t.Fatal(err)
	}
	if need := of(needed, kept); now.permitted&need != need {
		t.Skipf("needs root, has %v", Names())
	}
	for _, c := range append(needed, kept[0]) {
		less := now
		less.effective = of(needed, kept) &^ (1 << c.Bit)
		onThread(t, less, func() {
			err := Check(1 << 40)
			if limit := (unix.Rlimit{}); unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil && limit.Cur > 1<<40 && c.Bit == unix.CAP_IPC_LOCK {
				if err != nil {
					t.Errorf("without %s, which nothing needs here: %v", c.Name, err)
				}
				return
			}
			if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), c.Name+" (") || strings.Count(err.Error(), "CAP_") != 1 {
				t.Errorf("without %s: %v", c.Name, err)
			}
		})
	}
	all := now
	all.effective = of(needed, kept)
	onThread(t, all, func() {
		if err := Check(1 << 40); err != nil {
			t.Error(err)
		}
		if got := strings.Join(Names(), " "); got != "CAP_NET_BIND_SERVICE CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_PERFMON CAP_BPF" {
			t.Errorf("names %s", got)
		}
	})
	if now.permitted.has(unix.CAP_SYS_ADMIN) {
		admin := now
		admin.effective = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
		onThread(t, admin, func() {
			if err := Check(0); err != nil {
				t.Errorf("CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON: %v", err)
			}
		})
	}
}

// TestShed starts programs from goroutines wherever they run: for root nothing changes, and no thread that goes on has less than before.
func TestShed(t *testing.T) {
	before := strings.Join(Names(), " ")
	for range 20 {
		c := exec.Command("true")
		if err := Shed(c.Start); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan string)
	for range 20 {
		go func() { done <- strings.Join(Names(), " ") }()
	}
	for range 20 {
		if got := <-done; got != before {
			t.Errorf("a thread has %q, had %q", got, before)
		}
	}
	if err := Shed(func() error { return os.ErrInvalid }); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("the error is lost: %v", err)
	}
}

func TestLookup(t *testing.T) {
	if uid, gid, err := Lookup("root"); uid != 0 || gid != 0 || err != nil {
		t.Errorf("root: %d %d %v", uid, gid, err)
	}
	if _, _, err := Lookup("no-such-user"); err == nil || !strings.Contains(err.Error(), "--user no-such-user: ") {
		t.Error(err)
	}
}
