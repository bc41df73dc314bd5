package control

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weir/control/admin"
	"weir/control/config"
	"weir/control/events"
	"weir/dataplane"
)

// apart is the host's side of a daemon that has no host: what a replay takes for it.
type apart struct{ t testing.TB }

func (a apart) reconfigured(cfg *config.Config) *surroundings {
	s, err := offline(cfg)
	if err != nil {
		a.t.Error(err)
	}
	return s
}
func (a apart) apply(x *compiled, publish func() error) error { return publish() }
func (a apart) bind(*config.Config, *compiled) error          { return nil }
func (a apart) complaints() []string                          { return nil }
func (a apart) steered() map[string]uint64                    { return map[string]uint64{"take_service": 1} }
func (a apart) views(cfg *config.Config, s *dataplane.Snapshot) (all []PortView) {
	for i := range s.Ports {
		all = append(all, PortView{Name: s.Ports[i].Name, Driver: "mem", Mode: "mem", Setup: "weir", Up: true, MAC: macText(s.Ports[i].MAC), MTU: s.Ports[i].MTU})
	}
	return all
}

// apiBed is a daemon without a host: its configuration is a file, its control goroutine runs, and its API answers.
type apiBed struct {
	*coreBed
	control *Control
	client  *Client
	log     *strings.Builder
	path    string
}

func newAPIBed(t *testing.T, services string) *apiBed {
	t.Helper()
	dir := t.TempDir()
	b := &apiBed{coreBed: newCoreBed(t, services), log: &strings.Builder{}, path: filepath.Join(dir, "weir.yaml")}
	kept := events.NewLog(keptEvents)
	log := slog.New(kept.Handler(slog.NewTextHandler(b.log, nil)))
	b.write(services)
	b.control = &Control{core: b.core, log: log, events: kept, outside: apart{t}, asks: make(chan func()), file: b.core.cfg,
		options: Options{Config: b.path, Version: "test", Logger: log}, front: admin.NewFront(log, refuse)}
	b.core.clock = func() int64 { return b.now }
	b.control.pulse.now()
	go func() {
		for do := range b.control.asks {
			do()
		}
	}()
	l, err := net.Listen("unix", filepath.Join(dir, "weir.sock"))
	if err != nil {
		t.Fatal(err)
	}
	a := b.control.serve(l, b.control.handler())
	t.Cleanup(func() { a.close(); close(b.control.asks) })
	b.client = NewClient(l.Addr().String())
	return b
}

// write makes services the daemon's file.
func (b *apiBed) write(services string) {
	b.t.Helper()
	if err := os.WriteFile(b.path, []byte(coreHead+services), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// ask sends a request and returns status and body.
func (b *apiBed) ask(method, path, body string) (int, string) {
	b.t.Helper()
	r, err := http.NewRequest(method, "http://weir"+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := b.client.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// must asks for a change that must be made.
func (b *apiBed) must(method, path, body string) (o Outcome) {
	b.t.Helper()
	status, text := b.ask(method, path, body)
	if err := json.Unmarshal([]byte(text), &o); err != nil || status != 200 || !o.OK {
		b.t.Fatalf("%s %s %s: %d %s", method, path, body, status, text)
	}
	return o
}

// backends are the service's, as "address weight state".
func (b *apiBed) backends() (all []string) {
	b.t.Helper()
	for _, x := range b.view().Backends {
		all = append(all, strings.Join([]string{x.Address.String(), string('0' + rune(x.Weight)), x.State}, " "))
	}
	return all
}

func (b *apiBed) has(what string, want ...string) {
	b.t.Helper()
	if got := b.backends(); !slices.Equal(got, want) {
		b.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// TestChangesBesideTheFile: each is in force at once, is a generation of its own, is counted as different from the file, and goes with a reload.
func TestChangesBesideTheFile(t *testing.T) {
	b := newAPIBed(t, web("10 2", "11 1"))
	const w10, w11 = "/services/web/backends/198.18.1.10", "/services/198.18.9.9:80/backends/198.18.1.11:8000"
	if o := b.must("PATCH", w10, `{"weight": 5}`); o.Generation != 2 || o.Changes != 1 || o.Message != "services +0 -0 ~1, generation 2" {
		t.Errorf("%+v", o)
	}
	b.has("a weight", "198.18.1.10 5 up", "198.18.1.11 1 up")
	b.must("PATCH", w10, `{"weight": 7}`)
	if o := b.must("PATCH", w10, `{"weight": 4}`); o.Changes != 1 {
		t.Errorf("three edits of one weight are %d changes", o.Changes)
	}
	b.must("PATCH", w11, `{"state": "drain"}`)
	if o := b.must("POST", "/services/tcp-198.18.9.9:80/backends", `{"address": "198.18.1.12", "port": 8000, "weight": 3}`); o.Changes != 3 {
		t.Errorf("%+v", o)
	}
	b.has("a drain and a new one", "198.18.1.12 3 up", "198.18.1.10 4 up", "198.18.1.11 0 drain")
	got := b.connect()
	for range 30 {
		if to := b.connect(); to == 11 {
			t.Fatal("the server in drain got a connection")
		} else if to == 12 {
			got = to
		}
	}
	if got != 12 {
		t.Error("the new server got none")
	}
	if status := b.control.Status(); status.Changes != 3 || status.Generation != 6 {
		t.Errorf("status: %d changes, generation %d", status.Changes, status.Generation)
	}
	_, text := b.ask("GET", "/config/changes", "")
	for _, want := range []string{`"op": "set"`, `"op": "add"`, `"backend": "198.18.1.12:8000"`, `"state": "drain"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
	if o := b.must("PATCH", w11, `{"state": "up"}`); o.Changes != 2 {
		t.Errorf("a change back to what the file says stays a change: %+v", o)
	}
	b.must("PATCH", w11, `{"state": "down"}`)
	b.has("taken out", "198.18.1.12 3 up", "198.18.1.10 4 up", "198.18.1.11 0 down")

	if o := b.must("POST", "/reload?keep=true", ""); o.Changes != 3 || !strings.HasSuffix(o.Message, ", 3 changes not in the file kept") {
		t.Errorf("%+v", o)
	}
	b.has("a reload that keeps", "198.18.1.12 3 up", "198.18.1.10 4 up", "198.18.1.11 0 down")
	b.write(web("10 2"))
	o := b.must("POST", "/reload?keep=true", "")
	if o.Changes != 2 || len(o.Diagnostics) != 1 || !strings.Contains(o.Diagnostics[0], "no longer applies: set tcp 198.18.9.9:80 198.18.1.11:8000") {
		t.Errorf("%+v", o)
	}
	b.has("without one of them", "198.18.1.12 3 up", "198.18.1.10 4 up")
	b.write(web("10 2", "12 1"))
	if o := b.must("POST", "/reload?keep=true", ""); o.Changes != 1 || !strings.Contains(strings.Join(o.Diagnostics, ""), "has this backend already") {
		t.Errorf("the file has by now what was added: %+v", o)
	}
	b.has("and now the file has it", "198.18.1.10 4 up", "198.18.1.12 1 up")
	if o := b.must("POST", "/reload", ""); o.Changes != 0 || !strings.HasSuffix(o.Message, ", 1 change not in the file undone") {
		t.Errorf("%+v", o)
	}
	b.has("a plain reload", "198.18.1.10 2 up", "198.18.1.12 1 up")
}

// TestReplaceAndDelete: PUT says all of a backend, and DELETE takes what the file or a request has put there.
func TestReplaceAndDelete(t *testing.T) {
	b := newAPIBed(t, web("10 2", "11 1"))
	b.must("PATCH", "/services/web/backends/198.18.1.10", `{"upper_threshold": 9}`)
	b.must("PUT", "/services/web/backends/198.18.1.10:8000", `{"weight": 3}`)
	if v, err := b.core.Backend("web", "198.18.1.10"); err != nil || v.Upper != 0 || v.Weight != 3 {
		t.Errorf("%+v %v", v, err)
	}
	b.must("PUT", "/services/web/backends/198.18.1.12:8000", `{"weight": 1}`)
	b.must("PUT", "/services/web/backends/198.18.1.12:8000", `{"weight": 2, "name": "w12"}`)
	b.has("put", "198.18.1.12 2 up", "198.18.1.10 3 up", "198.18.1.11 1 up")
	if o := b.must("DELETE", "/services/web/backends/w12", ""); o.Changes != 1 {
		t.Errorf("what came and went again is a change: %+v", o)
	}
	if o := b.must("DELETE", "/services/web/backends/198.18.1.10", ""); o.Changes != 1 {
		t.Errorf("%+v", o)
	}
	b.has("deleted", "198.18.1.11 1 up")
	if o := b.must("POST", "/services/web/backends", `{"address": "198.18.1.10", "port": 8000, "weight": 9}`); o.Changes != 2 {
		t.Errorf("%+v", o)
	}
	b.has("and back, differently", "198.18.1.10 9 up", "198.18.1.11 1 up")
	b.must("POST", "/reload?keep=1", "")
	b.has("kept", "198.18.1.10 9 up", "198.18.1.11 1 up")
}

// TestChangesRefused: nothing changes, and the answer says why.
func TestChangesRefused(t *testing.T) {
	b := newAPIBed(t, web("10 2", "11 1")+"  - {name: b, vip: 198.18.9.9, port: 81, backends: [{address: 198.18.1.10}]}\n")
	before := b.core.stats()
	for _, x := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"PATCH", "/services/nobody/backends/198.18.1.10", `{"weight": 1}`, 404, "no such service: nobody"},
		{"PATCH", "/services/web/backends/198.18.1.77", `{"weight": 1}`, 404, "no such backend: web has no 198.18.1.77"},
		{"PATCH", "/services/198.18.9.9/backends/198.18.1.10", `{"weight": 1}`, 409, "several answer to that: tcp 198.18.9.9:80, tcp 198.18.9.9:81"},
		{"PATCH", "/services/web/backends/198.18.1.10", `{"weight": -1}`, 422, "weight: must be 0 to 65535, not -1"},
		{"PATCH", "/services/web/backends/198.18.1.10", `{"weight": "1"}`, 422, "weight: must be a whole number, not text"},
		{"PATCH", "/services/web/backends/198.18.1.10", `{"weight": 1e2}`, 422, "weight: must be a whole number in decimal"},
		{"PATCH", "/services/web/backends/198.18.1.10", `{"wieght": 1}`, 422, `wieght: unknown key (did you mean "weight"?)`},
		{"PATCH", "/services/web/backends/198.18.1.10", `{"state": "dead"}`, 422, "state: unknown state"},
		{"PATCH", "/services/web/backends/198.18.1.10", `{"address": "198.18.1.12"}`, 422, "address: is the backend's identity"},
		{"PATCH", "/services/web/backends/198.18.1.10", `{"forward": "dr"}`, 422, "port: must be the service's port 80"},
		{"PATCH", "/services/web/backends/198.18.1.10", `[]`, 400, "must be a JSON object of keys"},
		{"PATCH", "/services/web/backends/198.18.1.10", `null`, 400, "must be a JSON object of keys"},
		{"PATCH", "/services/web/backends/198.18.1.10", `{"weight": 1} x`, 400, "must be one JSON object"},
		{"PATCH", "/services/web/backends/198.18.1.10", ``, 400, "must be a JSON object of keys"},
		{"PATCH", "/services/web/backends/198.18.1.10", `{"check": ` + strings.Repeat(`{"check":`, 9000) + `1` + strings.Repeat("}", 9001), 413, "too large"},
		{"PATCH", "/services/web/backends/198.18.1.10", `{"check": ` + strings.Repeat(`[`, 900) + strings.Repeat("]", 900) + "}", 422, "nested more than 64 levels deep"},
		{"POST", "/services/web/backends", `{"weight": 1}`, 422, "address is missing"},
		{"POST", "/services/web/backends", `{"address": "198.18.1.10", "port": 8000}`, 409, "has this backend already"},
		{"POST", "/services/web/backends", `{"address": "198.18.9.9"}`, 422, "198.18.9.9 is the VIP of the service itself"},
		{"POST", "/services/web/backends", `{"address": "2001:db8::1"}`, 422, "is IPv6, but the service is IPv4 only"},
		{"PUT", "/services/web/backends/198.18.1.12:8000", `{"port": 81}`, 422, "port: is 81 here, but 8000 is asked for"},
		{"PUT", "/services/web/backends/w12", `{"weight": 1}`, 400, "w12: must be an address, or ADDRESS:PORT"},
		{"DELETE", "/services/web/backends/198.18.1.12", "", 404, "no such backend"},
		{"POST", "/reload?keep=perhaps", "", 400, `keep "perhaps": must be true or false`},
		{"GET", "/services/nobody", "", 404, "no such service"},
		{"GET", "/services/web/backends/198.18.1.77", "", 404, "no such backend"},
	} {
		status, text := b.ask(x.method, x.path, x.body)
		var f Failure
		if err := json.Unmarshal([]byte(text), &f); err != nil || status != x.status || !strings.Contains(f.Error, x.says) {
			t.Errorf("%s %s %.60s: %d %s, want %d and %q", x.method, x.path, x.body, status, text, x.status, x.says)
		}
	}
	after := b.core.stats()
	if after.Generation != before.Generation || len(b.control.Edits()) != 0 {
		t.Errorf("generation %d, changes %v", after.Generation, b.control.Edits())
	}
	b.write("")
	if o, err := b.client.Reload(); err != nil || o.OK != true {
		t.Errorf("%+v %v", o, err)
	}
	b.write("  - {name: web}\n")
	if o, err := b.client.ReloadKeeping(); err != nil || o.OK || len(o.Diagnostics) == 0 {
		t.Errorf("a reload of a broken file: %+v %v", o, err)
	}
}

// TestDiffWithTheFile: what runs is compared with the file as it is now, not as it was loaded.
func TestDiffWithTheFile(t *testing.T) {
	b := newAPIBed(t, web("10 2", "11 1"))
	diff := func() string {
		var d ConfigDiff
		if err := b.client.Get("/config/diff", &d); err != nil {
			return err.Error()
		}
		var lines []string
		for _, c := range d.Changes {
			lines = append(lines, c.String())
		}
		return strings.Join(lines, "\n")
	}
	if got := diff(); got != "" {
		t.Errorf("at the start: %s", got)
	}
	b.must("PATCH", "/services/web/backends/198.18.1.10", `{"weight": 5}`)
	b.write(web("10 2", "11 1", "12 1"))
	if got, want := diff(), "- tcp 198.18.9.9:80 198.18.1.12:8000\n~ tcp 198.18.9.9:80 198.18.1.10:8000 weight: 2 -> 5"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	b.write("  - 7\n")
	if got := diff(); !strings.Contains(got, "weir.yaml:12:5: error: services[0]") {
		t.Errorf("of a file that is not valid: %s", got)
	}
	if status, _ := b.ask("GET", "/config/diff", ""); status != 422 {
		t.Errorf("status %d", status)
	}
}
