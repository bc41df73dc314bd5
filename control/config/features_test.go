package config

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestUnsupported takes everything away and demands that each thing used be named, at its place.
func TestUnsupported(t *testing.T) {
	c, diags := Load("testdata/valid/full.yaml")
	if len(diags) > 0 {
		t.Fatal(Errors(diags))
	}
	c.File = "full.yaml"
	got := Errors(c.Unsupported(Features{})).Error()
	if *update {
		if err := os.WriteFile("testdata/unsupported.want", []byte(got+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := strings.TrimSpace(string(contents(t, "testdata/unsupported.want"))); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestEachFeature takes one thing away at a time from a version that has all, and demands that a configuration which uses it be refused
// for that alone. A field of Features that nothing asks for would pass everything and fail here.
func TestEachFeature(t *testing.T) {
	full, diags := Load("testdata/valid/full.yaml")
	if len(diags) > 0 {
		t.Fatal(Errors(diags))
	}
	of := reflect.TypeFor[Features]()
	for i := range of.NumField() {
		name := of.Field(i).Name
		t.Run(name, func(t *testing.T) {
			have := AllFeatures()
			reflect.ValueOf(&have).Elem().Field(i).SetZero()
			if len(full.Unsupported(have)) == 0 {
				t.Error("full.yaml passes without it")
			}
		})
	}
	if diags := full.Unsupported(AllFeatures()); len(diags) > 0 {
		t.Errorf("a version that has all refuses %v", Errors(diags))
	}
}

// TestFirstStage is the gate of a version that has NAT and a few schedulers.
func TestFirstStage(t *testing.T) {
	have := Features{Drivers: []string{"af_xdp"}, Waits: Waits, XDPModes: XDPModes, Protocols: []string{"tcp", "udp"}, Schedulers: []string{"rr", "wlc"}, Forwards: []string{"nat"}}
	for _, x := range []struct{ name, text, want string }{
		{"all defaults", services("{vip: 198.18.9.9, port: 80, one_packet: false, masquerade: never, flags: [], timeouts: {udp: 300s}, conn_reuse_mode: 1, backends: [{address: 198.18.1.10, upper_threshold: 0}]}"), ""},
		{"forward of a backend", services("{vip: 198.18.9.9, port: 80, backends: [{address: 198.18.1.10, forward: gue}]}"),
			`f:3:83: error: services[0].backends[0].forward: "gue" is not built into this version (have: nat)`},
		{"forward of a service is told once", services("{vip: 198.18.9.9, port: 80, forward: gue, backends: [{address: 198.18.1.10}, {address: 198.18.1.11}]}"),
			`f:3:49: error: services[0].forward: "gue" is not built into this version (have: nat)`},
		{"scheduler", services("{vip: 198.18.9.9, port: 80, scheduler: mh, backends: [{address: 198.18.1.10}]}"),
			`f:3:51: error: services[0].scheduler: "mh" is not built into this version (have: rr, wlc)`},
		{"persistence", services("{vip: 198.18.9.9, port: 80, persistence: {}, backends: [{address: 198.18.1.10}]}"),
			`f:3:53: error: services[0].persistence: is not built into this version`},
		{"timeouts of a service", services("{vip: 198.18.9.9, port: 80, timeouts: {udp: 10s}, backends: [{address: 198.18.1.10}]}"),
			`f:3:50: error: services[0].timeouts: of its own for a service is not built into this version`},
		{"range", services("{vip: 198.18.9.9, port: 80-90, backends: [{address: 198.18.1.10}]}"),
			`f:3:36: error: services[0].port: a range is not built into this version`},
		{"fullnat without backends", services("{vip: 198.18.9.9, port: 80, forward: fullnat, fullnat: {addresses: [198.18.1.1]}}"),
			`f:3:49: error: services[0].forward: "fullnat" is not built into this version (have: nat)`},
	} {
		t.Run(x.name, func(t *testing.T) {
			c, diags := Parse("f", []byte(x.text))
			if HasErrors(diags) {
				t.Fatal(Errors(diags))
			}
			if got := Errors(c.Unsupported(have)).Error(); got != x.want {
				t.Errorf("got  %s\nwant %s", got, x.want)
			}
		})
	}
	// What nothing is built for says so.
	c, _ := Parse("f", []byte(services("{vip: 198.18.9.9, port: 80, scheduler: sh, flags: [sh-port], backends: [{address: 198.18.1.10}]}")))
	have.Schedulers = []string{"sh"}
	if got, want := Errors(c.Unsupported(have)).Error(), `f:3:62: error: services[0].flags: "sh-port" is not built into this version (have: none)`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
