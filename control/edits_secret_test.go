package control

import (
	"strings"
	"testing"
)

// TestChangesAndSecrets: who may change weights shall not run programs or read files, and what is secret is shown nowhere.
func TestChangesAndSecrets(t *testing.T) {
	b := newAPIBed(t, web("10 2", "11 1"))
	const path = "/services/web/backends/198.18.1.10"
	for _, keys := range []string{`{"check": {"type": "exec", "command": ["/bin/true"]}}`, `{"check": {"type": "tcp", "send_file": "/etc/shadow"}}`, `{"check": {"type": "https", "verify": true, "ca_file": "/etc/ca"}}`} {
		if status, text := b.ask("PATCH", path, keys); status != 422 || !strings.Contains(text, "may stand in the file only") {
			t.Errorf("%s: %d %s", keys, status, text)
		}
	}
	b.must("PATCH", path, `{"check": {"type": "http", "authorization": "Basic geheim"}}`)
	b.must("PATCH", path, `{"check": {"interval": "5s"}}`)
	c, err := b.core.cfg.FindService("web")
	if err != nil || c.Backends[0].Check.Authorization != "Basic geheim" || c.Backends[0].Check.Interval != 5e9 {
		t.Errorf("%+v %v", c, err)
	}
	for _, path := range []string{"/config/changes", "/config/diff", "/services", "/stats", "/status"} {
		if status, text := b.ask("GET", path, ""); status != 200 || strings.Contains(text, "geheim") {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	b.write("  []\n")
	b.must("POST", "/reload?keep=true", "")
	if strings.Contains(b.log.String(), "geheim") {
		t.Errorf("the log tells: %s", b.log)
	}
}
