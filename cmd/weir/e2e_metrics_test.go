package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/control"
)

// asks has curl ask the daemon over HTTP in the balancer's namespace, and returns status and body.
func (d *daemon) asks(args ...string) (status, body string) {
	d.t.Helper()
	args = append([]string{"-sS", "--max-time", "30", "-w", "\n%{http_code}"}, args...)
	r := command(d.t, d.space.Command("curl", args...))
	if r.code != 0 {
		return "", r.out
	}
	i := strings.LastIndex(r.out, "\n")
	return r.out[i+1:], r.out[:i]
}

// names are the metrics of a scrape, with their labels.
func names(text string) (all []string) {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			all = append(all, line[:strings.LastIndexByte(line, ' ')])
		}
	}
	return all
}

// TestMetricsOverHTTP scrapes a daemon under traffic, over TCP and over the socket, and has Prometheus's linter look at it.
func TestMetricsOverHTTP(t *testing.T) {
	needs(t, "curl")
	b := newBed(t, options{servers: 2})
	b.echoes(8000)
	d := b.start(b.config("admin: {http: \"127.0.0.1:9180\"}", "services:", b.service(vip4, "name: web, port: 80, protocol: tcp, scheduler: rr", 8000)))
	works(t, b.client, hostPort(vip4, 80), 4)
	d.settled()
	const url = "http://127.0.0.1:9180"
	status, text := d.asks(url + "/metrics")
	if status != "200" {
		t.Fatalf("GET /metrics: %s\n%s", status, text)
	}
	if over := command(t, exec.Command("curl", "-sS", "--unix-socket", d.socket, "http://weir/metrics")); fmt.Sprint(names(over.out)) != fmt.Sprint(names(text)) {
		t.Errorf("the socket has other metrics:\n%s", over)
	}
	view := d.stats()
	for _, want := range []string{
		`weir_service_connections_total{service="web",vip="198.18.9.9",port="80",protocol="tcp",} 4`,
		`weir_backend_connections_total{service="web",vip="198.18.9.9",port="80",protocol="tcp",backend="198.18.1.11:8000",} 2`,
		fmt.Sprintf(`weir_backend_bytes_total{service="web",vip="198.18.9.9",port="80",protocol="tcp",backend="198.18.1.11:8000",direction="out"} %d`, view.Services[0].Backends[0].OutBytes),
		`weir_config_generation 1`,
		`weir_config_last_reload_successful 1`,
		`weir_port_up{port="lan"} 1`,
		`weir_worker_heartbeat_age_seconds{worker="0"} `,
		`weir_drops_total{reason="table_full"} 0`,
		`weir_steering_frames_total{rule="take_service"} `,
		`weir_conntrack_connections_limit `,
		`process_resident_memory_bytes `,
		`go_goroutines `,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("there is no %s", want)
		}
	}
	if promtool, err := exec.LookPath("promtool"); err != nil {
		t.Log("promtool is not there: nobody looked at the format")
	} else {
		c := exec.Command(promtool, "check", "metrics")
		c.Stdin = strings.NewReader(text)
		if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("promtool check metrics: %v\n%s", err, out)
		}
	}
	for _, name := range []string{"stats", "list", "conns", "drops", "ports", "workers", "status", "rates?interval=10ms", "vxlan", "fdb"} {
		if status, body := d.asks(url + "/" + name); status != "200" || !json.Valid([]byte(body)) {
			t.Errorf("GET /%s: %s\n%s", name, status, body)
		}
	}
	d.write("version: 1\nservices: 7\n")
	d.try("reload")
	if _, text := d.asks(url + "/metrics"); !strings.Contains(text, "\nweir_config_last_reload_successful 0\n") || !strings.Contains(text, "\nweir_config_generation 1\n") {
		t.Error("a refused reload does not show")
	}
}

// TestHealthOverHTTP takes a port's device down and up again.
func TestHealthOverHTTP(t *testing.T) {
	needs(t, "curl")
	b := newBed(t, options{servers: 1})
	d := b.start(b.config("admin: {http: \"127.0.0.1:9180\"}", "services: []"))
	const url = "http://127.0.0.1:9180"
	for _, name := range []string{"livez", "readyz"} {
		eventually(t, 20*time.Second, "GET /"+name+" is well", func() bool {
			status, body := d.asks(url + "/" + name)
			return status == "200" && body == "ok\n"
		})
	}
	if _, body := d.asks(url + "/readyz?verbose"); body != "[+] control loop\n[+] worker 0\n[+] not stopping\n[+] port wan\n[+] port lan\nok\n" {
		t.Errorf("GET /readyz?verbose: %q", body)
	}
	must(t, b.lb.IP("link set lan down"))
	eventually(t, 20*time.Second, "a device that is down is not ready", func() bool {
		status, body := d.asks(url + "/readyz")
		return status == "503" && body == "[-] port lan: the device is down\n"
	})
	if status, body := d.asks(url + "/livez"); status != "200" {
		t.Errorf("GET /livez: %s %q", status, body)
	}
	must(t, b.lb.IP("link set lan up"))
	eventually(t, 20*time.Second, "and is ready when it is back", func() bool {
		status, _ := d.asks(url + "/readyz")
		return status == "200"
	})
}

// TestChangesOverHTTP: nothing without a token, all with it; and what a reload makes of address, token and profiles.
func TestChangesOverHTTP(t *testing.T) {
	needs(t, "curl")
	b := newBed(t, options{servers: 1})
	config := func(admin string) string { return b.config("admin: "+admin, "services: []") }
	d := b.start(config(`{http: "127.0.0.1:9180"}`))
	const url, header = "http://127.0.0.1:9180", "Authorization: Bearer "
	wants := func(what, want string, args ...string) (body string) {
		t.Helper()
		status, body := d.asks(args...)
		if status != want {
			t.Errorf("%s: %s, want %s: %s", what, status, want, body)
		}
		return body
	}
	wants("a change without a token configured", "403", "-X", "POST", url+"/reload")
	token := filepath.Join(b.dir, "token")
	must(t, os.WriteFile(token, []byte("the-first-of-tokens\n"), 0o600))
	d.reload(config(fmt.Sprintf(`{http: "127.0.0.1:9180", token_file: %s}`, token)))
	wants("a change without it", "401", "-X", "POST", url+"/reload")
	var o control.Outcome
	if body := wants("with it", "200", "-X", "POST", "-H", header+"the-first-of-tokens", url+"/reload"); json.Unmarshal([]byte(body), &o) != nil || !o.OK || o.Generation != 3 {
		t.Errorf("POST /reload: %s", body)
	}
	wants("profiles", "404", url+"/debug/pprof/")
	must(t, os.WriteFile(token, []byte("the-second-of-tokens\n"), 0o600))
	d.cli("reload")
	wants("the token of before", "401", "-X", "POST", "-H", header+"the-first-of-tokens", url+"/reload")
	wants("a station that is none", "404", "-X", "POST", "-H", header+"the-second-of-tokens", "-d", `{"vni": 7, "mac": "02:00:00:00:00:07"}`, url+"/fdb/del")

	// What cannot be is refused as a whole.
	for _, x := range []struct{ name, admin, says string }{
		{"a token that is not there", `{http: "127.0.0.1:9180", token_file: /none}`, "admin.token_file: open /none: no such file"},
		{"an address that is not ours", `{http: "192.0.2.77:9180"}`, "admin.http: listen tcp 192.0.2.77:9180"},
	} {
		d.write(config(x.admin))
		if r := d.try("reload"); r.code != 3 || !strings.Contains(r.String(), x.says) {
			t.Errorf("%s: %v", x.name, r)
		}
	}
	wants("after a refusal", "404", "-X", "POST", "-H", header+"the-second-of-tokens", "-d", `{"vni": 7, "mac": "02:00:00:00:00:07"}`, url+"/fdb/del")

	// Another address; the reload is asked for over the one that goes.
	const other = "http://127.0.0.1:9181"
	d.write(config(`{http: "127.0.0.1:9181", pprof: true}`))
	if body := wants("a move", "200", "-X", "POST", "-H", header+"the-second-of-tokens", url+"/reload"); !strings.Contains(body, `"ok": true`) {
		t.Errorf("POST /reload: %s", body)
	}
	if status, body := d.asks(url + "/livez"); status != "" {
		t.Errorf("the old address answers: %s %s", status, body)
	}
	wants("the new one", "200", other+"/livez")
	wants("profiles", "200", other+"/debug/pprof/goroutine?debug=1")
	wants("a change without a token configured", "403", "-X", "POST", other+"/reload")
	d.reload(config("{}"))
	if status, body := d.asks(other + "/livez"); status != "" {
		t.Errorf("it answers when it is off: %s %s", status, body)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
}
