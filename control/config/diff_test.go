package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const before = `version: 1
ports:
  - {name: wan, interface: eth1}
  - {name: lan, interface: eth2, queues: "0-1"}
services:
  - {name: web, vip: 198.18.9.9, port: 80, scheduler: wrr, backends: [&w1 {address: 198.18.1.10, weight: 3}, {address: 198.18.1.11}]}
  - {name: dns, vip: 198.18.9.9, port: 53, protocol: udp, backends: [*w1]}
  - {name: both, vips: [198.18.9.1, "2001:db8:9::1"], port: 80, backends: [{address: 198.18.1.10}, {address: "2001:db8:1::10"}]}
`

// TestCompare changes one thing at a time.
func TestCompare(t *testing.T) {
	for _, x := range []struct {
		name, old, new string // replaced in before
		want           string
		sections       []string
		restart        []string
	}{
		{name: "nothing", want: "services +0 -0 ~0"},
		{name: "place in the file", old: "services:", new: "# a line more\n\nservices:", want: "services +0 -0 ~0"},
		{name: "a default written down", old: "name: dns,", new: "name: dns, scheduler: wlc, persistence: ,", want: "services +0 -0 ~0"},
		{name: "a weight", old: "weight: 3", new: "weight: 4", want: "services +0 -0 ~2"},
		{name: "a name", old: "name: dns", new: "name: names", want: "services +0 -0 ~1"},
		{name: "a port", old: "port: 53", new: "port: 5353", want: "services +1 -1 ~0"},
		{name: "the order of backends", old: "{address: 198.18.1.11}]", new: "{address: 198.18.1.9}]", want: "services +0 -0 ~1"},
		{name: "a second VIP", old: "vip: 198.18.9.9, port: 53", new: "vips: [198.18.9.9, 198.18.9.8], port: 53", want: "services +1 -0 ~0"},
		{name: "a VIP less", old: `[198.18.9.1, "2001:db8:9::1"], port: 80, backends: [{address: 198.18.1.10}, `,
			new: `["2001:db8:9::1"], port: 80, backends: [`, want: "services +0 -1 ~0"},
		{name: "a backend of one family", old: `{address: "2001:db8:1::10"}`, new: `{address: "2001:db8:1::11"}`, want: "services +0 -0 ~1"},
		{name: "timeouts of all", old: "services:", new: "conntrack: {timeouts: {udp: 10s}}\nservices:", want: "services +0 -0 ~4"},
		{name: "routes", old: "services:", new: "routes: [{to: 198.18.128.0/17, via: 198.18.0.2}]\nservices:", want: "services +0 -0 ~0", sections: []string{"routes"}},
		{name: "segments that come", old: "services:", new: "vxlan: {segments: [{vni: 1, vtep: 192.0.2.1}, {vni: 2, vtep: 192.0.2.1}]}\nservices:", want: "services +0 -0 ~0, segments +2 -0 ~0", sections: []string{"vxlan"}},
		{name: "grace and limits", old: "services:", new: "grace: 1s\nlimits: {answers: 1/s}\nservices:", want: "services +0 -0 ~0", sections: []string{"limits", "grace"}},
		{name: "VLAN of a port", old: "eth1", new: "eth1, vlan: 5", want: "services +0 -0 ~0", sections: []string{"ports"}},
		{name: "queues", old: `"0-1"`, new: `"0-2"`, want: "services +0 -0 ~0", restart: []string{"ports[1].queues"}},
		{name: "interface and driver", old: "eth1", new: "eth3, driver: af_packet", want: "services +0 -0 ~0", restart: []string{"ports[0].driver", "ports[0].interface"}},
		{name: "name of a port", old: "name: lan", new: "name: lan2", want: "services +0 -0 ~0", restart: []string{"ports[1].name"}},
		{name: "a port more", old: "services:", new: "  - {name: dmz, interface: eth3}\nservices:", want: "services +0 -0 ~0", sections: []string{"ports"}, restart: []string{"ports"}},
		{name: "engine", old: "services:", new: "engine: {workers: 2, wait: busy, state_dir: none}\nservices:", want: "services +0 -0 ~0", restart: []string{"engine.workers", "engine.wait", "engine.state_dir"}},
		{name: "max_connections", old: "services:", new: "conntrack: {max_connections: 2048}\nservices:", want: "services +0 -0 ~0", restart: []string{"conntrack.max_connections"}},
		{name: "socket and http", old: "services:", new: "admin: {socket: /tmp/w, http: \"127.0.0.1:1\"}\nservices:", want: "services +0 -0 ~0", sections: []string{"admin"}, restart: []string{"admin.socket"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			if x.old != "" && !strings.Contains(before, x.old) {
				t.Fatalf("%q is not there to be changed", x.old)
			}
			old, next := parsed(t, before), parsed(t, strings.Replace(before, x.old, x.new, 1))
			d := Compare(old, next)
			if d.String() != x.want || !slices.Equal(d.Sections, x.sections) || !slices.Equal(d.Restart, x.restart) {
				t.Errorf("%s, sections %q, restart %q\nwant %s, sections %q, restart %q", d, d.Sections, d.Restart, x.want, x.sections, x.restart)
			}
			if !slices.Equal(RestartFields(old, next), x.restart) {
				t.Errorf("RestartFields differ from Compare's")
			}
			if d.Empty() != (x.want == "services +0 -0 ~0" && x.sections == nil && x.restart == nil) {
				t.Errorf("Empty is %t", d.Empty())
			}
			back := Compare(next, old)
			if len(back.Added) != len(d.Removed) || len(back.Removed) != len(d.Added) || len(back.Changed) != len(d.Changed) {
				t.Errorf("the way back is %s", back)
			}
		})
	}
}

// TestReloadLog holds a reload to the words of the contract.
func TestReloadLog(t *testing.T) {
	next := strings.Replace(before, "weight: 3", "weight: 5", 1) + "  - {name: new, vip: 198.18.9.5, port: 80, backends: [{address: 198.18.1.10}]}\n"
	d := Compare(parsed(t, before), parsed(t, next))
	if got, want := fmt.Sprintf("%s, generation %d", d, 8), "services +1 -0 ~2, generation 8"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !slices.Equal(d.Added, []string{"tcp 198.18.9.5:80"}) || !slices.Equal(d.Changed, []string{"tcp 198.18.9.9:80", "udp 198.18.9.9:53"}) {
		t.Errorf("added %q, changed %q", d.Added, d.Changed)
	}
}

// TestRefusals tells the place of what needs a restart, and both values.
func TestRefusals(t *testing.T) {
	d := Compare(parsed(t, before), parsed(t, strings.Replace(before, `queues: "0-1"`, "queues: all", 1)))
	want := `f:4:42: error: ports[1].queues: a change needs a restart: it is "0-1" in the running configuration, all here`
	if got := Errors(d.Refusals).Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func parsed(t *testing.T, text string) *Config {
	t.Helper()
	c, diags := Parse("f", []byte(text))
	if HasErrors(diags) {
		t.Fatalf("%v\n%s", Errors(diags), text)
	}
	return c
}

// TestCompareSegments has segments come, go and change, by VNI: their order is nothing, and what they have of the section is theirs.
func TestCompareSegments(t *testing.T) {
	const (
		one   = "{vni: 1, vtep: 192.0.2.1, peers: [192.0.2.2], ageing: 60s}"
		two   = "{vni: 2, vtep: 192.0.2.1}"
		three = "{vni: 3, vtep: 192.0.2.1, port: 8472}"
	)
	head := "version: 1\nports: [{name: wan, interface: eth1}]\nvxlan: {%s segments: [%s]}\n"
	old := parsed(t, fmt.Sprintf(head, "", one+", "+two))
	for _, x := range []struct{ name, section, list, want string }{
		{"nothing", "", one + ", " + two, ""},
		{"another order", "", two + ", " + one, ""},
		{"one comes", "", one + ", " + two + ", " + three, ", segments +1 -0 ~0"},
		{"one goes, one changes", "", strings.Replace(one, "60s", "61s", 1), ", segments +0 -1 ~1"},
		{"one for another", "", three + ", " + one, ", segments +1 -1 ~0"},
		{"the port of all", "port: 8472,", one + ", " + two, ", segments +0 -0 ~2"},
	} {
		if got, want := Compare(old, parsed(t, fmt.Sprintf(head, x.section, x.list))).String(), "services +0 -0 ~0"+x.want; got != want {
			t.Errorf("%s: %s, want %s", x.name, got, want)
		}
	}
}

// TestAdminCanBeReloaded changes each of its keys alone: all but the socket are for a reload to take over.
func TestAdminCanBeReloaded(t *testing.T) {
	const was = `{http: "127.0.0.1:1", token_file: /a, pprof: true}`
	for _, x := range []struct {
		admin    string
		sections []string
	}{
		{was, nil},
		{`{http: "127.0.0.1:2", token_file: /a, pprof: true}`, []string{"admin"}},
		{`{http: "127.0.0.1:1", token_file: /b, pprof: true}`, []string{"admin"}},
		{`{http: "127.0.0.1:1", token_file: /a, pprof: false}`, []string{"admin"}},
		{`{http: "127.0.0.1:1", token_file: /a, pprof: true, hosts: [lb1]}`, []string{"admin"}},
	} {
		of := func(admin string) *Config { return parsed(t, before+"admin: "+admin+"\n") }
		if d := Compare(of(was), of(x.admin)); !slices.Equal(d.Sections, x.sections) || len(d.Restart) > 0 {
			t.Errorf("%s: sections %q, restart %q", x.admin, d.Sections, d.Restart)
		}
	}
}
