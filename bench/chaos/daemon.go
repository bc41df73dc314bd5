package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"weir/control"
	"weir/control/host/testnet"
)

// daemon is the balancer: one `weir run` after the other, with the same files.
type daemon struct {
	space  *testnet.Space
	exe    string
	dir    string
	env    []string
	group  *group        // that it runs in; nil: none
	clocks bool          // it can be started with another monotonic clock
	ahead  time.Duration // of the kernel's is the clock that it is started with next
	client *control.Client
	raw    http.Client // for what is no JSON

	log     tail
	cmd     *testnet.Cmd
	process atomic.Int64 // of cmd; who only looks on must not wait for a change of it
	ended   chan struct{}
	running atomic.Bool // it answers, as far as we have to do with it
	reload  sync.Mutex  // one reload at a time, and none while it is not running
}

func newDaemon(space *testnet.Space, exe, dir string, env []string) *daemon {
	d := &daemon{space: space, exe: exe, dir: dir, env: env}
	d.client = control.NewClient(d.socket())
	d.raw.Timeout = 10 * time.Second
	d.raw.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var x net.Dialer
		return x.DialContext(ctx, "unix", d.socket())
	}}
	return d
}

func (d *daemon) file() string   { return filepath.Join(d.dir, "weir.yaml") }
func (d *daemon) socket() string { return filepath.Join(d.dir, "weir.sock") }
func (d *daemon) pid() int       { return int(d.process.Load()) }

// write replaces the configuration file at once.
func (d *daemon) write(text string) error {
	if err := os.WriteFile(d.file()+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(d.file()+".new", d.file())
}

// start starts weir and waits until it answers.
func (d *daemon) start(more ...string) error {
	line := append([]string{d.exe, "run", "-c", d.file(), "--socket", d.socket(), "--log", "warn"}, more...)
	if d.ahead != 0 {
		line = append(otherClock(d.ahead), line...)
	}
	if d.group != nil {
		// It joins before it has any memory: what a process has already stays where it was counted.
		line = append([]string{"/bin/sh", "-c", `echo $$ > "$0" && exec "$@"`, d.group.procs()}, line...)
	}
	cmd, ended := d.space.Command(line[0], line[1:]...), make(chan struct{})
	cmd.Stdout, cmd.Stderr = &d.log, &d.log
	cmd.Env = append(os.Environ(), d.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ^C is for the suite
	if err := cmd.Start(); err != nil {
		return err
	}
	d.cmd, d.ended = cmd, ended
	d.process.Store(int64(cmd.Process.Pid))
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var s control.Status
		if d.client.Get("/status", &s) == nil && s.PID == d.pid() {
			d.running.Store(true)
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("weir run ended: %v: %s", cmd.ProcessState, d.log.String())
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("weir run does not answer after 30 s: %s", d.log.String())
		}
	}
}

// takeover starts another weir that takes over from this one, alive.
func (d *daemon) takeover() error {
	former, ended := d.cmd, d.ended
	if err := d.start("--takeover"); err != nil {
		return err
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		_ = former.Process.Kill()
		return errors.New("weir still ran 20 s after it was taken over from")
	}
	if code := former.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("weir ended with %v after it was taken over from", former.ProcessState)
	}
	return nil
}

// rest keeps reloads away until the function it returns is called.
func (d *daemon) rest() (resume func()) {
	d.running.Store(false)
	d.reload.Lock()
	return func() {
		d.running.Store(true)
		d.reload.Unlock()
	}
}

// kill ends weir as a crash would.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.ended
}

// stop ends weir by SIGTERM.
func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-d.ended:
	case <-time.After(20 * time.Second):
		d.kill()
		return errors.New("weir still ran 20 s after SIGTERM")
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("weir ended with %v after SIGTERM", d.cmd.ProcessState)
	}
	return nil
}

// alive reports whether weir has not ended by itself.
func (d *daemon) alive() bool {
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// close ends what runs and removes what it left.
func (d *daemon) close() error {
	if d.cmd == nil {
		return nil
	}
	if d.alive() {
		_ = d.cmd.Process.Signal(syscall.SIGCONT)
		if d.stop() == nil {
			return nil
		}
	}
	out, err := d.space.Command(d.exe, "cleanup", "--socket", d.socket()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("weir cleanup: %w: %s", err, out)
	}
	return nil
}

// drops are weir's counters by reason, nil while it is not there.
func (d *daemon) drops() (all map[string]uint64) {
	if d.running.Load() {
		_ = d.client.Get("/drops", &all) // nil then, too
	}
	return all
}

// text asks for a page that is no JSON.
func (d *daemon) text(path string) (string, error) {
	resp, err := d.raw.Get("http://weir" + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return string(b), err
}

// tail keeps the end of what a program says.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b.Len() > 1<<16 {
		t.b.Reset()
	}
	return t.b.Write(p)
}

// String is the last lines.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(t.b.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}
