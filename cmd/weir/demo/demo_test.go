package demo

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestDemo(t *testing.T) {
	p := start(t, nil)
	p.end(0)
	for _, want := range []string{
		"GET http://198.18.9.9/, 600 times: w1 300, w2 200, w3 100",
		"GET http://[2001:db8:9::9]/, 60 times: w1 30, w2 20, w3 10",
		"UDP to 198.18.9.9:53, 30 clients: w1 10, w2 10, w3 10",
		"every byte right, none broken",
		`weir.yaml:22:16: error: services[0].scheduler: unknown scheduler "wrrr" (did you mean "wrr"?)`,
		"web6   60 connections counted,   60 made",
		"Nothing is left behind.",
	} {
		if !strings.Contains(p.String(), want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	if strings.Contains(p.String(), "\x1b") {
		t.Error("colours without a terminal")
	}
	if t.Failed() {
		t.Log(p)
	}
}

func TestDemoCleansUpWheneverItIsEnded(t *testing.T) {
	for _, c := range []struct {
		name   string
		at     string // what has been shown by then
		signal func(*process) error
	}{
		{"^C while the network is made", "1. ", func(p *process) error { return syscall.Kill(-p.Process.Pid, syscall.SIGINT) }},
		{"^C while the balancer starts", "2. ", func(p *process) error { return syscall.Kill(-p.Process.Pid, syscall.SIGINT) }},
		{"SIGTERM amid requests", "3. ", func(p *process) error { return p.Process.Signal(syscall.SIGTERM) }},
		{"^C amid downloads and reloads", "6. ", func(p *process) error { return syscall.Kill(-p.Process.Pid, syscall.SIGINT) }},
		{"the terminal is closed", "6. ", func(p *process) error { return syscall.Kill(-p.Process.Pid, syscall.SIGHUP) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := start(t, nil)
			p.await("\n" + c.at)
			if err := c.signal(p); err != nil {
				t.Fatal(err)
			}
			p.end(1)
			if !strings.Contains(p.String(), "weir: interrupted; nothing is left behind") {
				t.Errorf("it says\n%s", p)
			}
		})
	}
}

// TestDemoIntoABrokenPipe is `weir demo | head -1`.
func TestDemoIntoABrokenPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, w)
	w.Close()
	if _, err := r.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	p.end(1)
	if !strings.Contains(p.String(), "broken pipe") {
		t.Errorf("it says\n%s", p)
	}
}

func TestDemoSaysWhatIsWrong(t *testing.T) {
	p := start(t, nil)
	p.await("\n6. ")
	for _, pid := range p.processes() {
		if line, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); bytes.Contains(line, []byte("\x00run\x00")) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.end(1)
	for _, want := range []string{"weir: step 6, 8 downloads", "the balancer has ended: signal: killed", "The balancer's log:", "level=INFO msg=running"} {
		if !strings.Contains(p.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, p)
		}
	}
}

// TestDemoKept does what a kept demo says can be done.
func TestDemoKept(t *testing.T) {
	p := start(t, nil, "--keep", "--wait", "poll")
	p.await("ip -n ")
	run := func(pattern string, more ...string) string {
		line := regexp.MustCompile(pattern).FindString(p.String())
		if line == "" {
			t.Fatalf("no %s in\n%s", pattern, p)
		}
		words := append(strings.Fields(line), more...)
		out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v\n%s", words, err, out)
		}
		return string(out)
	}
	if out := run(`/\S+ status --socket \S+`, "-o", "json"); !strings.Contains(out, `"last_reload"`) {
		t.Errorf("the status is %s", out)
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Log("no curl: ", err)
	} else if out := run(`nsenter --net=\S+ curl http://198.18.9.9/`, "-s"); out != "w1" && out != "w2" && out != "w3" {
		t.Errorf("curl got %q", out)
	}
	if out := run(`ip -n \S+ -d addr`); !strings.Contains(out, "198.18.9.9") {
		t.Errorf("no VIP in %s", out)
	}
	if err := syscall.Kill(-p.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	p.end(0)
}

func TestDemoNeedsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("becoming somebody else needs root")
	}
	exe, err := weir()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, "demo")
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := c.CombinedOutput()
	if errors.Is(err, os.ErrPermission) {
		t.Skip(err) // a temporary directory that others may not enter
	}
	if c.ProcessState.ExitCode() != 6 || !strings.Contains(string(out), "run it as root") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestDemoRefusesAWaitModeThatIsNone(t *testing.T) {
	p := start(t, nil, "--wait", "often")
	p.end(2)
}

func TestEdit(t *testing.T) {
	text := "a\n  - {name: w1, address: x, weight: 3}\n  - {name: w2, address: y, weight: 2}\n  - {name: d1, address: z}\n"
	if got, want := edit(text, [3]int{7, 8, 9}, "w2"), "a\n  - {name: w1, address: x, weight: 7}\n\n  - {name: d1, address: z}\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestScreen(t *testing.T) {
	var b bytes.Buffer
	s := screen{w: &b}
	s.title(3, "x")
	s.command("list", "-o", "ipvsadm")
	s.show("%s", netip.MustParseAddr("192.0.2.1"))
	if want := "\n3. x\n     $ weir list -o ipvsadm\n     192.0.2.1\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
	b.Reset()
	s.color = true
	s.title(1, "y")
	if want := "\n\x1b[1m1. y\x1b[0m\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
	r, w := io.Pipe()
	r.Close()
	s = screen{w: w}
	s.say("lost")
	s.w = &b
	b.Reset()
	if s.say("never"); s.err == nil || b.Len() > 0 {
		t.Errorf("after a failed write: err %v, %q written", s.err, b.String())
	}
}
