package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unicode"

	"weir/control/privilege"
)

// askExec runs a program, which says by its exit code whether the server serves and by the first line of its output why not. It finds the
// server's address and port in its environment, WEIR_ADDRESS and WEIR_PORT, and is killed, its children with it, when its time is over.
// It is of weir's user, without capabilities unless that is root.
func askExec(ctx context.Context, c *Check) error {
	words := strings.Split(c.Command, "\x00")
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	var out firstLine
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "WEIR_ADDRESS="+c.Target.Addr().String(), fmt.Sprintf("WEIR_PORT=%d", c.Target.Port()))
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 100 * time.Millisecond // for who keeps its output open though he is in another group
	err := privilege.Shed(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil: // a daemon that it started has its output still
		return nil
	case !errors.As(err, &exit):
		return plain("exec", err)
	case out.text() != "":
		return fmt.Errorf("exec: %v: %s", exit, out.text())
	}
	return fmt.Errorf("exec: %v", exit)
}

// firstLine keeps the beginning of what is written.
type firstLine struct{ b []byte }

func (f *firstLine) Write(p []byte) (int, error) {
	f.b = append(f.b, p[:min(len(p), max(0, 200-len(f.b)))]...)
	return len(p), nil
}

// text is the first line, fit for a log.
func (f *firstLine) text() string {
	line, _, _ := bytes.Cut(f.b, []byte("\n"))
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, string(line)))
}
