package demo

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// weir is the binary under test, made once, where other users can run it.
var weir = sync.OnceValues(func() (exe string, err error) {
	if exe, err = os.MkdirTemp("", "weir-demo-test-"); err != nil {
		return "", err
	}
	exe = filepath.Join(exe, "weir")
	if out, err := exec.Command("go", "build", "-o", exe, "weir/cmd/weir").CombinedOutput(); err != nil {
		return exe, errors.New(string(out))
	}
	return exe, os.Chmod(filepath.Dir(exe), 0o755)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Geteuid() == 0 {
		if exe, _ := weir(); exe != "" {
			os.RemoveAll(filepath.Dir(exe))
		}
	}
	os.Exit(code)
}

// process is a `weir demo` as a user runs it.
type process struct {
	*exec.Cmd
	t    *testing.T
	done chan struct{}
	mu   sync.Mutex
	out  bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// start starts a demo. stdout is nil for where String finds it.
func start(t *testing.T, stdout io.Writer, args ...string) *process {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	exe, err := weir()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(exe, append([]string{"demo"}, args...)...), t: t, done: make(chan struct{})}
	p.Stdout, p.Stderr = stdout, p
	if stdout == nil {
		p.Stdout = p
	}
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that ^C can be sent to the group, as a terminal does
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.Cmd.Wait() // the tests look at the state
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(30 * time.Second):
			_ = p.Process.Kill()
		}
	})
	return p
}

// await waits until the demo has shown text.
func (p *process) await(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(p.String(), text); time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.done:
			p.t.Fatalf("it ended before %q:\n%s", text, p)
		default:
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("no %q:\n%s", text, p)
		}
	}
}

// end waits for the end with that exit code and demands that nothing is left.
func (p *process) end(code int) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.t.Fatalf("it does not end:\n%s", p)
	}
	if got := p.ProcessState.ExitCode(); got != code {
		p.t.Errorf("exit %d, want %d:\n%s", got, code, p)
	}
	names, err := filepath.Glob("/run/netns/wdemo-" + strconv.Itoa(p.Process.Pid) + "-*")
	if err != nil || len(names) > 0 {
		p.t.Errorf("namespaces left: %v %v", names, err)
	}
	if pids := p.processes(); len(pids) > 0 {
		p.t.Errorf("processes left: %v", pids)
	}
	// The balancer says where its configuration is; the directory holds the socket, too.
	for _, dir := range regexp.MustCompile(`/\S*/weir-demo-\d+`).FindAllString(p.String(), -1) {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			p.t.Errorf("%s is left: %v", dir, err)
		}
	}
}

// processes are all that run the binary under test.
func (p *process) processes() (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, l := range links {
		if exe, err := os.Readlink(l); err == nil && exe == p.Path {
			pid, _ := strconv.Atoi(strings.Split(l, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}
