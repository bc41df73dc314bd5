package main_test

import (
	"encoding/json"
	"strings"
	"testing"

	"weir/control"
)

// TestChangesByCommand changes a daemon by every verb, and looks at what it says and at what clients get.
func TestChangesByCommand(t *testing.T) {
	b := newBed(t, options{})
	b.named(8000)
	d := b.start(b.config("services:", b.service(vip4, "name: web, port: 80, protocol: tcp, scheduler: wrr", 8000, 1, 1, 0)))
	said := func(want string, args ...string) {
		t.Helper()
		if out := d.cli(args...); !strings.Contains(out, want) {
			t.Errorf("weir %q says %q, not %q", args, out, want)
		}
	}
	refused := func(code int, want string, args ...string) {
		t.Helper()
		if r := d.try(args...); r.code != code || !strings.Contains(r.out+r.errors, want) {
			t.Errorf("weir %q: %v; want %d and %q", args, r, code, want)
		}
	}
	said("generation 2", "backend", "set", "web", "198.18.1.13", "--weight", "5")
	said("generation 3", "backend", "set", hostPort(vip4, 80), "198.18.1.11:8000", "--state", "drain")
	said("generation 4", "backend", "del", "tcp-"+hostPort(vip4, 80), "198.18.1.12")
	if got := sequence(t, b, vip4, 4); got != "s3 s3 s3 s3" {
		t.Errorf("connections go to %s", got)
	}
	said("3 changes not in the file", "status")
	said("198.18.1.13:8000", "config", "changes")
	refused(4, "~ tcp 198.18.9.9:80 198.18.1.13:8000 weight: 0 -> 5", "config", "diff")
	refused(3, "weight: must be 0 to 65535, not -1", "backend", "set", "web", "198.18.1.13", "--weight", "-1")
	refused(1, "no such backend", "backend", "del", "web", "198.18.1.77")
	refused(2, "say what to set", "backend", "set", "web", "198.18.1.13")
	refused(2, "say which", "conns", "del")

	said("deleted 4", "conns", "del", "--service", "web")
	said("services zeroed: 1", "stats", "zero", "web")
	if s := d.now().Services[0]; s.Conns != 0 || s.Zeroed == nil {
		t.Errorf("%+v", s)
	}
	said("3 changes not in the file kept", "reload", "--keep")
	said("generation 6", "backend", "add", "web", "198.18.1.12:8000", "--weight", "7", "--name", "w2")
	var o control.Outcome
	if out := d.cli("backend", "set", "web", "w2", "--set", "upper_threshold=9", "-o", "json"); json.Unmarshal([]byte(out), &o) != nil || !o.OK || o.Generation != 7 || o.Changes != 4 {
		t.Errorf("%s", out)
	}
	said("4 changes not in the file undone", "reload")
	said("", "config", "diff")
	if s := d.now().Services[0]; len(s.Backends) != 3 || s.Backends[0].State != "up" || s.Backends[2].Weight != 0 {
		t.Errorf("%+v", s)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
}
