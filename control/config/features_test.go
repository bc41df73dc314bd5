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

// TestForwardIsToldOnce names a way to forward where it is written, whichever place that is.
func TestForwardIsToldOnce(t *testing.T) {
	const segment = "vxlan: {segments: [{vni: 1, vtep: 192.0.2.1, gateway: {address: 172.16.1.1/24, mac: \"02:00:00:00:50:01\"}}]}\n"
	for _, x := range []struct{ name, text, want string }{
		{"of a backend", services("{vip: 198.18.9.9, port: 80, backends: [{address: 172.16.1.7, vni: 1, forward: vxlan}]}") + segment,
			`f:3:90: error: services[0].backends[0].forward: vxlan is not built into this version`},
		{"of a service", services("{vip: 198.18.9.9, port: 80, forward: vxlan-dr, backends: [{address: 172.16.1.7, vni: 1}, {address: 172.16.1.8, vni: 1}]}") + segment,
			`f:3:49: error: services[0].forward: vxlan-dr is not built into this version`},
		{"built", services("{vip: 198.18.9.9, port: 80, forward: gue, backends: [{address: 198.18.1.10}]}"), ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			c, diags := Parse("f", []byte(x.text))
			if HasErrors(diags) {
				t.Fatal(Errors(diags))
			}
			if got := Errors(c.Unsupported(Features{VXLAN: true})).Error(); got != x.want {
				t.Errorf("got  %s\nwant %s", got, x.want)
			}
		})
	}
}
