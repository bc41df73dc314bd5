package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestTop watches a real daemon on a pseudo-terminal: the tables, keys, and that the daemon goes away. Then it has no daemon to ask.
func TestTop(t *testing.T) {
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip("no script(1) to make a pseudo-terminal (Debian bsdutils)")
	}
	b := newBed(t, options{servers: 1})
	b.echoes(8000)
	d := b.start(b.config("services:", b.service(vip4, "name: web, port: 80, protocol: tcp, scheduler: rr", 8000, 1)))
	works(t, b.client, hostPort(vip4, 80), 1)

	var once struct {
		Seconds  float64 `json:"seconds"`
		Services []struct {
			Service  string `json:"service"`
			Backends int    `json:"backends"`
		} `json:"services"`
		Workers []any `json:"workers"`
	}
	out := d.cli("top", "--once", "--interval", "100ms", "-o", "json")
	must(t, json.Unmarshal([]byte(out), &once))
	if once.Seconds < 0.1 || len(once.Workers) == 0 || len(once.Services) != 1 || once.Services[0].Service != "198.18.9.9:80" || once.Services[0].Backends != 1 {
		t.Errorf("top --once -o json: %s", out)
	}
	if out := d.cli("top", "--once", "--interval", "100ms"); !strings.Contains(out, "IN PKT/S") || !strings.Contains(out, "198.18.9.9:80") {
		t.Errorf("top --once: %s", out)
	}
	if r := d.try("top"); r.code != 2 || !strings.Contains(r.errors, "--once") {
		t.Errorf("top without a terminal: %v", r)
	}

	screen := &output{}
	cmd := exec.Command(script, "-qefc", fmt.Sprintf("stty rows 24 cols 120; exec %s top --interval 100ms --socket %s", weir(t), d.socket), "/dev/null")
	cmd.Env = append(cmd.Environ(), "TERM=xterm-256color")
	cmd.Stdout, cmd.Stderr = screen, screen
	keys, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	shows := func(word string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !strings.Contains(screen.String(), word); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the screen never showed %q: %q", word, screen.String())
			}
		}
	}
	press := func(k string) {
		t.Helper()
		_, err := io.WriteString(keys, k)
		must(t, err)
	}
	shows("198.18.9.9:80") // only what differs is drawn later, so words are waited for that have no letter in common with what was there
	press("/")
	shows("filter:")
	press("\r")
	if code := d.stop(); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
	shows("NO ANSWER")
	press("q")
	must(t, cmd.Wait()) // script ends with the code of top
	if r := d.try("top", "--once"); r.code != 5 {
		t.Errorf("no daemon: %v", r)
	}
}
