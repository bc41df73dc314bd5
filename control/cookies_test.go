package control

import (
	"testing"

	"weir/control/config"
	"weir/dataplane"
)

// TestWhoIsAsked: when a service asks its clients, and how, follows from its configuration and the ways to its servers.
func TestWhoIsAsked(t *testing.T) {
	for _, c := range []struct {
		name, service string
		want          dataplane.Cookies
		challenge     bool
	}{
		{"by default", `{vip: 198.18.9.9, port: 80, backends: [{address: 198.18.1.10}]}`, dataplane.CookiesAuto, false},
		{"always", `{vip: 198.18.9.9, port: 80, syn_cookies: always, backends: [{address: 198.18.1.10, forward: fullnat}], fullnat: {addresses: [198.18.1.2], ports: 40000-50000}}`, dataplane.CookiesAlways, false},
		{"never", `{vip: 198.18.9.9, port: 80, syn_cookies: off, backends: [{address: 198.18.1.10}]}`, dataplane.CookiesOff, false},
		{"udp", `{vip: 198.18.9.9, port: 80, protocol: udp, backends: [{address: 198.18.1.10}]}`, dataplane.CookiesOff, false},
		{"sloppy", `{vip: 198.18.9.9, port: 80, sloppy_tcp: true, backends: [{address: 198.18.1.10}]}`, dataplane.CookiesOff, false},
		{"a server that is not NAT", `{vip: 198.18.9.9, port: 80, backends: [{address: 198.18.1.10}, {address: 198.18.1.11, forward: dr}]}`, dataplane.CookiesAuto, true},
		{"a tunnel", `{vip: 198.18.9.9, port: 80, forward: gue, backends: [{address: 198.18.1.10, tunnel_port: 6080}]}`, dataplane.CookiesAuto, true},
	} {
		cfg, diags := config.Parse("weir.yaml", []byte("version: 1\nports: [{name: wan, interface: eth1}]\nlimits: {half_open_per_source: 9, new_per_source: 8/s, unusual: 7/s}\nservices: ["+c.service+"]\n"))
		if cfg == nil {
			t.Fatalf("%s: %v", c.name, diags)
		}
		snap := compiledOf(t, cfg).snapshot
		if s := snap.Services.All[0]; s.Cookies != c.want || s.Challenge != c.challenge {
			t.Errorf("%s: %v, challenge %v; want %v, %v", c.name, s.Cookies, s.Challenge, c.want, c.challenge)
		}
		if snap.HalfOpenPerSource != 9 || snap.NewPerSource.PerSecond != 8 || snap.Unusual.PerSecond != 7 {
			t.Errorf("%s: limits of a source are %d and %d, of unusual packets %d", c.name, snap.HalfOpenPerSource, snap.NewPerSource.PerSecond, snap.Unusual.PerSecond)
		}
	}
}
