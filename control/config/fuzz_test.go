package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// FuzzParse holds any bytes to ending soon, in one of two ways: errors with places in the file, in order, or a configuration that
// later stages can rely on. The YAML library's own decoder is the oracle of what is YAML at all.
func FuzzParse(f *testing.F) {
	f.Add([]byte("*FFFFFF-\n#\tꌞ")) // an unknown anchor, with more lines read before it is noticed
	for _, pattern := range []string{"testdata/*/*.yaml", "../../configs/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10 {
			t.Skip("larger than what ends in the time allowed when everything in it is wrong")
		}
		start := cpuTime()
		c, diags := Parse("f", b)
		if took := cpuTime() - start; took > time.Second*slower {
			t.Errorf("took %v", took)
		}
		lines := strings.Split(string(b), "\n")
		for i, d := range diags {
			if d.File != "f" || d.Message == "" || strings.ContainsFunc(d.String(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("%q", d.String())
			}
			if d.Line < 1 || d.Col < 1 {
				t.Errorf("no place: %v", d)
			}
			// A lone carriage return ends a line for YAML; only where there is none can lines be counted here.
			if !slices.Contains(b, '\r') && !strings.ContainsAny(string(b), "\u0085\u2028\u2029") && d.Line > len(lines)+1 {
				t.Errorf("beyond the end: %v", d)
			}
			if i > 0 && (diags[i-1].Line > d.Line || diags[i-1].Line == d.Line && diags[i-1].Col > d.Col) {
				t.Errorf("out of order: %v, %v", diags[i-1], d)
			}
		}
		if HasErrors(diags) {
			return
		}
		var any any
		if err := yaml.Unmarshal(b, &any); err != nil {
			t.Errorf("passes, but YAML says %v", err)
		}
		if d := Compare(c, c); !d.Empty() {
			t.Errorf("differs from itself: %+v", d)
		}
		sound(t, c)
	})
}

// sound checks what users of a Config need not check.
func sound(t *testing.T, c *Config) {
	names := map[string]bool{}
	for i := range c.Ports {
		p := &c.Ports[i]
		if p.Name == "" || names[p.Name] || kernelDevice(p.Driver) && p.Interface == "" || !kernelDevice(p.Driver) && (!p.HasMAC || len(p.Addresses) == 0 || p.MTU == 0) {
			t.Errorf("port %+v", p)
		}
		names[p.Name] = true
	}
	if len(c.Ports) == 0 {
		t.Error("no ports")
	}
	for i := range c.Services {
		s := &c.Services[i]
		if s.Name == "" || len(s.VIPs) == 0 || s.Port == (PortRange{}) || s.Protocol == "" || s.Scheduler == "" || s.Forward == "" {
			t.Errorf("service %+v", s)
		}
		for j := range s.Backends {
			b := &s.Backends[j]
			if b.Name == "" || !b.Address.IsValid() || !slices.ContainsFunc(s.VIPs, b.Serves) || b.LowerThreshold > b.UpperThreshold ||
				b.Forward == "fullnat" && s.FullNAT == nil || overlay(b.Forward) != (b.VNI != 0) || (b.Forward == "gue") != (b.TunnelPort != 0) {
				t.Errorf("backend %+v", b)
			}
		}
	}
	for i := range c.Neighbors {
		if n := &c.Neighbors[i]; !n.Address.IsValid() || !names[n.Port] {
			t.Errorf("neighbor %+v", n)
		}
	}
	for i := range c.VXLAN.Segments {
		if s := &c.VXLAN.Segments[i]; s.VNI == 0 || !s.VTEP.IsValid() {
			t.Errorf("segment %+v", s)
		}
	}
}
