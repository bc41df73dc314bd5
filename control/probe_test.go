package control

import (
	"net/http/httptest"
	"testing"
	"time"

	"weir/control/config"
	"weir/dataplane"
)

// TestHealth: who does not move is dead, who is dead or has a port that is down is not ready, and so is who is about to stop.
func TestHealth(t *testing.T) {
	cfg, diags := config.Parse("f", []byte("version: 1\nports: [{name: wan, interface: eth1}, {name: vlan, interface: eth1, vlan: 5}, {name: lan, interface: eth2}]\n"))
	if config.HasErrors(diags) {
		t.Fatal(config.Errors(diags))
	}
	c := &Control{core: &core{cfg: cfg}, ports: &ports{cfg: cfg, beats: make([]beat, 2), missing: map[string]string{}}}
	long := func() int64 { return dataplane.Monotonic() - int64(deadAfter) - int64(time.Second) }
	well := func() {
		c.pulse.now()
		for i := range c.ports.beats {
			c.ports.beats[i].now()
		}
		clear(c.ports.missing)
		c.stopping.Store(false)
	}
	const stuck = " has not moved for 11s\n"
	for _, x := range []struct {
		name          string
		trouble       func()
		livez, readyz string
	}{
		{"before the first sign of life", func() { c.pulse.last.Store(0); c.ports.beats[0].last.Store(0) }, "ok\n", "ok\n"},
		{"well", func() {}, "ok\n", "ok\n"},
		{"nearly dead", func() { c.ports.beats[1].at(dataplane.Monotonic() - int64(deadAfter)/2) }, "ok\n", "ok\n"},
		{"a worker is stuck", func() { c.ports.beats[1].at(long()) }, "[-] worker 1:" + stuck, "[-] worker 1:" + stuck},
		{"the control loop is stuck", func() { c.pulse.at(long()) }, "[-] control loop:" + stuck, "[-] control loop:" + stuck},
		{"a port is down", func() { c.ports.missing["lan"] = "the link is down" }, "ok\n", "[-] port lan: the link is down\n"},
		{"it stops", func() { c.stopping.Store(true) }, "ok\n", "[-] not stopping: the daemon is stopping\n"},
	} {
		t.Run(x.name, func(t *testing.T) {
			well()
			x.trouble()
			for _, y := range []struct {
				path, want string
				probes     func() []probe
			}{{"/livez", x.livez, c.alive}, {"/readyz", x.readyz, c.ready}} {
				w := httptest.NewRecorder()
				probed(y.probes)(w, httptest.NewRequest("GET", y.path, nil))
				status := 503
				if y.want == "ok\n" {
					status = 200
				}
				if w.Body.String() != y.want || w.Code != status {
					t.Errorf("%s: %d %q, want %d %q", y.path, w.Code, w.Body, status, y.want)
				}
			}
		})
	}
	well()
	w := httptest.NewRecorder()
	probed(c.ready)(w, httptest.NewRequest("GET", "/readyz?verbose", nil))
	if want := "[+] control loop\n[+] worker 0\n[+] worker 1\n[+] not stopping\n[+] port wan\n[+] port lan\nok\n"; w.Body.String() != want {
		t.Errorf("%q, want %q", w.Body, want)
	}
}
