package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weir/control/host/testnet"
)

// TestVXLANCheck has `weir check --live` and the log say what of the host does not fit a segment: a VTEP that is no address of it, and access
// ports that carry more than tunnels do, or that the host has an address on.
func TestVXLANCheck(t *testing.T) {
	seg := &overlay{vni: 5001, routed: true, access: make([]*testnet.Space, 1)}
	b := newOverlayBed(t, options{}, vxlanPort, seg)
	text := b.config(nil)
	file := filepath.Join(b.dir, "checked.yaml")
	must(t, os.WriteFile(file, []byte(text), 0o644))
	check := func(args ...string) string {
		t.Helper()
		r := command(t, b.lb.Command(weir(t), append([]string{"check", "-c", file}, args...)...))
		if r.code != 0 {
			t.Fatalf("check %q: %v", args, r)
		}
		return r.out + r.errors
	}
	const long, absent = "vxlan.segments[0].access[0].port: the MTU of acc5001a is 1500, but through the tunnels of", "vxlan.segments[0].vtep: the VTEP " + ourVTEP4 + " is no address of this host"
	if out := check(); strings.Contains(out, "warning") {
		t.Errorf("without the host: %s", out)
	}
	if out := check("--live"); strings.Count(out, "warning: "+long) != 1 || strings.Contains(out, absent) {
		t.Errorf("access ports of 1500 bytes: %s", out)
	}
	must(t, b.lb.IP("link set acc5001a mtu 1450"))
	must(t, b.lb.IP("addr del "+ourVTEP4+"/32 dev lo"))
	if out := check("--live"); strings.Contains(out, long) || strings.Count(out, "warning: "+absent) != 1 {
		t.Errorf("access ports of 1450 bytes, no VTEP: %s", out)
	}
	must(t, b.lb.Address("acc5001a", "192.0.2.77/25"))
	const deaf = "vxlan.segments[0].access[0].port: the host has the address 192.0.2.77/25 on acc5001a"
	if out := check("--live"); strings.Count(out, "warning: "+deaf) != 1 {
		t.Errorf("an access port that the host has an address on: %s", out)
	}
	must(t, b.lb.IP("addr del 192.0.2.77/25 dev acc5001a"))
	d := b.start(text)
	says := func(what string) func() bool { return func() bool { return strings.Contains(d.log.String(), what) } }
	eventually(t, dialLimit, "the log tells of the VTEP", says(fmt.Sprintf("the VTEP %s is no address of this host", ourVTEP4)))
	must(t, b.lb.Address("lo", ourVTEP4+"/32"))
	eventually(t, dialLimit, "the log tells that it is there", says("underlay is as it should be"))
	must(t, b.lb.Address("acc5001a", "192.0.2.77/25"))
	eventually(t, dialLimit, "the log tells of the access port's address", says("the host has the address 192.0.2.77/25 on acc5001a"))
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	b.cleared(d)
}
