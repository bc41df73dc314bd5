package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/control"
	"weir/control/live"
)

// TestAdminSocket asks by curl.
func TestAdminSocket(t *testing.T) {
	needs(t, "curl")
	b := newBed(t, options{servers: 1})
	b.echoes(8000)
	d := b.start(b.web("rr"))
	curl := func(args ...string) (status, body string) {
		t.Helper()
		args = append([]string{"-sS", "--unix-socket", d.socket, "-w", "\n%{http_code} %{content_type}"}, args...)
		r := command(t, exec.Command("curl", args...))
		if r.code != 0 {
			t.Fatalf("curl %q: %v", args, r)
		}
		i := strings.LastIndex(r.out, "\n")
		return r.out[i+1:], r.out[:i]
	}
	info, err := os.Stat(d.socket)
	must(t, err)
	if info.Mode().Perm() != 0o660 {
		t.Errorf("the socket's mode is %v", info.Mode())
	}
	var at control.Status
	if _, body := curl("http://weir/status"); json.Unmarshal([]byte(body), &at) != nil || at.HalfOpenCap != at.Capacity/4 || at.HalfOpen != 0 ||
		at.TableMemory.Bytes < 424*at.Capacity || at.TableMemory.HugePages == "" {
		t.Errorf("GET /status: %s", body)
	}
	for _, name := range []string{"stats", "list", "conns", "drops", "ports", "workers", "status", "rates?interval=10ms"} {
		status, body := curl("http://weir/" + name)
		if status != "200 application/json" || !json.Valid([]byte(body)) {
			t.Errorf("GET /%s: %s\n%s", name, status, body)
		}
	}
	// Neighbour discovery may be counted at any moment, so a comparison may need another go.
	eventually(t, dialLimit, "weir stats -o json is what the socket says, and list, drops and ports are parts of it", func() bool {
		_, body := curl("http://weir/stats")
		var stats map[string]any
		must(t, json.Unmarshal([]byte(body), &stats))
		same := strings.TrimSpace(d.cli("stats", "-o", "json")) == strings.TrimSpace(body)
		for name, part := range map[string]any{"list": stats["services"], "drops": stats["drops"], "ports": stats["ports"]} {
			same = same && reflect.DeepEqual(part, view[any](d, name))
		}
		return same
	})
	for request, want := range map[string]string{
		"http://weir/nothing": "404", "http://weir/reload": "405", "http://weir/conns?limit=-1": "400", "http://weir/rates?interval=1h": "400",
	} {
		if status, body := curl(request); !strings.HasPrefix(status, want+" ") {
			t.Errorf("GET %s: %s %s", request, status, body)
		}
	}
	outcome := func(args ...string) (status string, o control.Outcome) {
		status, body := curl(append(args, "http://weir/reload")...)
		must(t, json.Unmarshal([]byte(body), &o))
		return status, o
	}
	if status, o := outcome("-X", "POST"); !strings.HasPrefix(status, "200 ") || !o.OK || o.Generation != 2 || o.Message != "services +0 -0 ~0, generation 2" {
		t.Errorf("POST /reload: %s %+v", status, o)
	}
	d.write("version: 1\nservices: 7\n")
	status, o := outcome("-X", "POST")
	if !strings.HasPrefix(status, "422 ") || o.OK || o.Generation != 2 || !strings.Contains(strings.Join(o.Diagnostics, "\n"), d.file+":2:11: error: services: ") {
		t.Errorf("POST /reload of a broken file: %s %+v", status, o)
	}
}

// TestExitCodesOfRun ends `weir run` in all the ways a script may have to tell apart.
func TestExitCodesOfRun(t *testing.T) {
	b := newBed(t, options{servers: 1})
	good := b.config("services:", b.service(vip4, "port: 80, protocol: tcp", 8000))
	for _, x := range []struct {
		name, config string
		args         []string
		code         int
		says         string
	}{
		{"no such device", strings.ReplaceAll(good, "interface: lan", "interface: lan7"), nil, 1, "lan7"},
		{"a driver of tests", strings.ReplaceAll(good, "driver: af_xdp", "driver: mem, mac: \"02:00:00:00:00:01\", addresses: [198.18.0.1/24]"), nil, 1, "driver mem"},
		{"a socket in no directory", good, []string{"--socket", b.dir + "/none/weir.sock"}, 1, "admin socket"},
		{"a level of no log", good, []string{"--log", "loud"}, 2, "loud"},
		{"a flag too many", good, []string{"--verbose"}, 2, "--verbose"},
		{"an argument too many", good, []string{"now"}, 2, "now"},
		{"no such file", good, []string{"-c", b.dir + "/none.yaml"}, 2, "no such file"},
		{"an HTTP address of somebody else", good + "\nadmin: {http: \"192.0.2.77:9180\"}\n", nil, 1, "admin.http: listen tcp 192.0.2.77:9180"},
		{"no token in its file", good + "\nadmin: {http: \"127.0.0.1:9180\", token_file: /dev/null}\n", nil, 1, "admin.token_file: /dev/null"},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := launch(t, b.lb, b.dir, x.config, x.args...)
			if code := d.wait(10 * time.Second); code != x.code || !strings.Contains(d.log.String(), x.says) {
				t.Errorf("exit %d, want %d and %q:\n%s", code, x.code, x.says, d.log)
			}
			for _, dev := range b.ports() {
				if id := xdp(t, b.lb, dev); id != 0 {
					t.Errorf("program %d stays on %s", id, dev)
				}
			}
			if _, err := os.Stat(d.socket); err == nil {
				t.Error("its socket stays")
			}
		})
	}
	t.Run("check --live", func(t *testing.T) {
		d := launch(t, b.lb, b.dir, good)
		d.ready()
		if out := d.cli("check", "-c", d.file, "--live"); !strings.HasSuffix(out, "weir.yaml: valid\n") {
			t.Errorf("%s", out)
		}
		d.write(strings.ReplaceAll(good, "interface: lan", "interface: lan7"))
		if r := d.try("check", "-c", d.file, "--live"); r.code != 3 || !strings.Contains(r.out, fmt.Sprintf("%s:4:", d.file)) || !strings.Contains(r.out, "ports[1].interface") {
			t.Errorf("a device that is not there: %v", r)
		}
		var report control.CheckReport
		r := d.try("check", "-c", d.file, "--live", "-o", "json")
		if err := json.Unmarshal([]byte(r.out), &report); err != nil || r.code != 3 || report.Valid || !slices.ContainsFunc(report.Findings, func(f live.Finding) bool {
			return f.Level == live.Error && f.Line == 4 && f.Path == "ports[1].interface"
		}) {
			t.Errorf("as JSON: %v, %v", err, r)
		}
		if r := d.try("check", "-c", d.file, "-o", "yaml"); r.code != 2 {
			t.Errorf("-o yaml: %v", r)
		}
		if r := d.try("check", "-c", d.file); r.code != 0 {
			t.Errorf("without --live: %v", r)
		}
		if code := d.stop(); code != 0 {
			t.Errorf("SIGTERM: exit %d", code)
		}
	})
}
