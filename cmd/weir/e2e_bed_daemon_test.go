package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"weir/control"
	"weir/control/host/testnet"
)

// output is what a program writes, to be read while it still runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// daemon is a `weir run`.
type daemon struct {
	t      testing.TB
	space  *testnet.Space
	cmd    *testnet.Cmd
	log    *output // standard output and error
	file   string  // configuration
	socket string
	ended  chan struct{} // closed when the process has ended
}

// launch starts `weir run` in space with a configuration and socket in dir, and does not wait for anything. Its log is shown if the test fails,
// and it is killed when the test ends.
func launch(t testing.TB, space *testnet.Space, dir, config string, args ...string) *daemon {
	t.Helper()
	return launchBy(t, nil, space, dir, config, args...)
}

// launchBy is launch by a program, with its arguments, that executes what follows.
func launchBy(t testing.TB, by []string, space *testnet.Space, dir, config string, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, space: space, log: &output{}, file: filepath.Join(dir, "weir.yaml"), socket: filepath.Join(dir, "weir.sock"), ended: make(chan struct{})}
	d.write(config)
	line := slices.Concat(by, []string{weir(t), "run", "-c", d.file, "--socket", d.socket}, args)
	d.cmd = space.Command(line[0], line[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	must(t, d.cmd.Start())
	go func() {
		_ = d.cmd.Wait()
		close(d.ended)
	}()
	t.Cleanup(func() {
		d.kill()
		forget(space)
		if t.Failed() {
			t.Logf("log of weir %d (%v):\n%s", d.cmd.Process.Pid, d.cmd.ProcessState, d.log)
		}
	})
	return d
}

// forget removes the connection tables that weirs in a namespace have left for the next one.
func forget(space *testnet.Space) {
	for _, parent := range []string{"/run/weir", "/dev/shm/weir"} {
		dirs, _ := filepath.Glob(filepath.Join(parent, fmt.Sprintf("%d-*", space.Host().Namespace())))
		for _, dir := range dirs {
			_ = os.RemoveAll(dir)
		}
		_ = os.Remove(parent)
	}
}

// start starts the balancer and waits until it is ready: VIPs are bound, packets flow, the admin socket answers.
func (b *bed) start(config string, args ...string) *daemon {
	b.t.Helper()
	d := launch(b.t, b.lb, b.dir, config, args...)
	d.ready()
	return d
}

func (d *daemon) ready() {
	d.t.Helper()
	client := control.NewClient(d.socket)
	eventually(d.t, 20*time.Second, "weir runs", func() bool {
		select {
		case <-d.ended:
			d.t.Fatalf("weir run ended: %v", d.cmd.ProcessState)
		default:
		}
		var s control.Status
		return client.Get("/status", &s) == nil && s.PID == d.pid()
	})
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

// write makes config the daemon's configuration file; a reload is up to the caller. The daemon never sees half of it.
func (d *daemon) write(config string) {
	d.t.Helper()
	must(d.t, os.WriteFile(d.file+".new", []byte(config), 0o644))
	must(d.t, os.Rename(d.file+".new", d.file))
}

// reload makes config the daemon's configuration by `weir reload`, which must succeed.
func (d *daemon) reload(config string) {
	d.t.Helper()
	d.write(config)
	d.cli("reload")
}

func (d *daemon) signal(s syscall.Signal) {
	d.t.Helper()
	must(d.t, d.cmd.Process.Signal(s))
}

// stop ends the daemon by SIGTERM and returns its exit code. It fails the test if that takes long.
func (d *daemon) stop() int {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	return d.wait(10 * time.Second)
}

// wait waits for the daemon to end by itself, and returns its exit code.
func (d *daemon) wait(limit time.Duration) int {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(limit):
		d.t.Fatalf("weir still runs after %v", limit)
	}
	return d.cmd.ProcessState.ExitCode()
}

// kill ends the daemon by SIGKILL, as a crash would, and waits until it is gone. It may have ended before.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.ended
}

// result is what a program came to.
type result struct {
	code        int
	out, errors string
}

func (r result) String() string {
	return fmt.Sprintf("exit %d\nstdout: %s\nstderr: %s", r.code, r.out, r.errors)
}

// cli runs weir with these arguments and the daemon's socket. It must end with 0; its standard output is returned.
func (d *daemon) cli(args ...string) string {
	d.t.Helper()
	r := d.try(args...)
	if r.code != 0 {
		d.t.Fatalf("weir %q: %v", args, r)
	}
	return r.out
}

// try runs weir with these arguments and the daemon's socket.
func (d *daemon) try(args ...string) result {
	d.t.Helper()
	return command(d.t, d.space.Command(weir(d.t), append(args, "--socket", d.socket)...))
}

// view decodes the JSON of one of weir's views: `weir NAME -o json`.
func view[T any](d *daemon, name string, args ...string) (v T) {
	d.t.Helper()
	out := d.cli(append([]string{name, "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		d.t.Fatalf("weir %s -o json: %v in %s", name, err, out)
	}
	return v
}

func (d *daemon) stats() control.Stats { d.t.Helper(); return view[control.Stats](d, "stats") }

// settled waits until no packet has come for a moment and the books balance, and returns the counters.
func (d *daemon) settled() control.Stats {
	d.t.Helper()
	var s control.Stats
	eventually(d.t, 10*time.Second, "counters come to rest and received is the sum of the verdicts", func() bool {
		was := d.stats()
		time.Sleep(50 * time.Millisecond)
		s = d.stats()
		v := s.Verdicts
		return was.Verdicts == v && v.Received == v.Forwarded+v.Answered+v.Punted+v.Consumed+v.Dropped+v.Held
	})
	return s
}

// commandLimit is how long a program that a test runs may take.
const commandLimit = time.Minute

// runner is an *exec.Cmd or a *testnet.Cmd.
type runner interface {
	Start() error
	Wait() error
}

// command runs a program to its end and returns what it said. A program that cannot be started or does not end fails the test.
func command(t testing.TB, c runner) result {
	t.Helper()
	var cmd *exec.Cmd
	switch c := c.(type) {
	case *testnet.Cmd:
		cmd = c.Cmd
	case *exec.Cmd:
		cmd = c
	}
	var out, errs output
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	must(t, c.Start())
	timer := time.AfterFunc(commandLimit, func() { _ = cmd.Process.Kill() })
	err := c.Wait()
	if !timer.Stop() {
		t.Fatalf("%v still ran after %v: %s%s", cmd.Args, commandLimit, out.String(), errs.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// in runs a program in a namespace; it must end with 0. Its standard output is returned.
func in(t testing.TB, space *testnet.Space, name string, args ...string) string {
	t.Helper()
	r := command(t, space.Command(name, args...))
	if r.code != 0 {
		t.Fatalf("%s %q in %s: %v", name, args, space.Name, r)
	}
	return r.out
}

// background starts a program in a namespace that ends with the test, whose output is shown if the test fails.
func background(t testing.TB, space *testnet.Space, name string, args ...string) (*testnet.Cmd, *output) {
	t.Helper()
	c, o := space.Command(name, args...), &output{}
	c.Stdout, c.Stderr = o, o
	c.WaitDelay = time.Second // children that outlive it may keep its output open
	must(t, c.Start())
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM) // nginx takes its workers along
		timer := time.AfterFunc(2*time.Second, func() { _ = c.Process.Kill() })
		_ = c.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("%s in %s:\n%s", name, space.Name, o)
		}
	})
	return c, o
}

// with is the daemon in the hands of a subtest.
func (d *daemon) with(t testing.TB) *daemon {
	x := *d
	x.t = t
	return &x
}
