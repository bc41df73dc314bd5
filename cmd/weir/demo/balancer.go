package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"weir/configs"
	"weir/control"
	"weir/control/host/testnet"
)

// balancer is a `weir run` in the balancer's namespace: this very program.
type balancer struct {
	space  *testnet.Space
	cmd    *testnet.Cmd
	ended  chan struct{}
	exe    string
	config string
	socket string
	log    log
	client *control.Client
}

// log gathers what the balancer writes.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// balance starts the balancer with the demo's configuration and waits until packets flow.
func (b *bed) balance(ctx context.Context, wait string) (*balancer, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	lb := &balancer{
		space: b.lb, exe: exe, ended: make(chan struct{}),
		config: filepath.Join(b.dir, "weir.yaml"), socket: filepath.Join(b.dir, "weir.sock"),
	}
	lb.client = control.NewClient(lb.socket)
	if err := lb.write(configs.Demo + fmt.Sprintf("\nengine: {wait: %s, state_dir: none} # it leaves nothing behind\n", wait)); err != nil {
		return nil, err
	}
	lb.cmd = b.lb.Command(exe, "run", "-c", lb.config, "--socket", lb.socket)
	lb.cmd.Stdout, lb.cmd.Stderr = &lb.log, &lb.log
	lb.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ^C is for the demo, which then stops the balancer
	if err := lb.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = lb.cmd.Wait() // its exit code is looked at where it matters
		close(lb.ended)
	}()
	for deadline := time.Now().Add(20 * time.Second); ; {
		var s control.Status
		if lb.client.Get("/status", &s) == nil {
			return lb, nil
		}
		select {
		case <-lb.ended:
			return lb, errors.New("weir run is not ready")
		case <-ctx.Done():
			return lb, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return lb, errors.New("weir run is not ready after 20 s")
		}
	}
}

// write replaces the configuration file at once; a reload is up to the caller.
func (lb *balancer) write(text string) error {
	if err := os.WriteFile(lb.config+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(lb.config+".new", lb.config)
}

// weir runs a command of weir against the balancer and returns all that it printed.
func (lb *balancer) weir(args ...string) (string, error) {
	c := lb.space.Command(lb.exe, append(args, "--socket", lb.socket)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as the balancer
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		return "", err
	}
	late := time.AfterFunc(20*time.Second, func() { _ = c.Process.Kill() }) // one that has ended by then is none to kill
	defer late.Stop()
	if err := c.Wait(); err != nil {
		return out.String(), fmt.Errorf("weir %s: %w", strings.Join(args, " "), err)
	}
	return out.String(), nil
}

// hup reloads by SIGHUP and waits until the configuration is in force.
func (lb *balancer) hup(ctx context.Context) (generation uint64, err error) {
	var before, after control.Status
	if err := lb.client.Get("/status", &before); err != nil {
		return 0, err
	}
	if err := lb.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return 0, err
	}
	for range 200 {
		if err := lb.client.Get("/status", &after); err != nil {
			return 0, err
		}
		if after.Generation > before.Generation {
			return after.Generation, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return 0, fmt.Errorf("no new generation after SIGHUP: %s", after.LastReload)
}

// alive is an error if a balancer that was started has ended. The kernel resets the connections of one that was killed a moment before it
// is reaped, hence the wait.
func (lb *balancer) alive() error {
	if lb == nil {
		return nil
	}
	select {
	case <-lb.ended:
		return fmt.Errorf("the balancer has ended: %v", lb.cmd.ProcessState)
	case <-time.After(300 * time.Millisecond):
		return nil
	}
}

// stop ends the balancer by SIGTERM, which must go well.
func (lb *balancer) stop() error {
	if err := lb.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-lb.ended:
	case <-time.After(10 * time.Second):
		return errors.New("weir run still runs 10 s after SIGTERM")
	}
	if code := lb.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("weir run: exit %d", code)
	}
	return nil
}

// close ends a balancer that still runs. One that did not stop by itself may have left pins and notes that outlive the namespace.
func (lb *balancer) close() error {
	select {
	case <-lb.ended:
	default:
		_ = lb.stop() // what was wrong with it is no news now
	}
	select {
	case <-lb.ended:
	default:
		_ = lb.cmd.Process.Kill()
		<-lb.ended
	}
	if lb.cmd.ProcessState.ExitCode() == 0 {
		return nil
	}
	if out, err := lb.weir("cleanup"); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// edit is the configuration with the weights of the web service changed and, if gone is not empty, without that server.
func edit(text string, weights [3]int, gone string) string {
	lines := strings.Split(text, "\n")
	kept := lines[:0]
	for _, line := range lines {
		for i, name := range servers {
			if strings.Contains(line, "{name: "+name+",") {
				at := strings.Index(line, "weight: ")
				if at >= 0 {
					line = line[:at] + fmt.Sprintf("weight: %d}", weights[i])
				}
				if name == gone {
					line = ""
				}
			}
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "\n")
}
