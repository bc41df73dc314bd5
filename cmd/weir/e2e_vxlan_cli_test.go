package main_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weir/control"
)

// segmentView is what weir vxlan says of a segment.
func (d *daemon) segmentView(seg *overlay) control.SegmentView {
	d.t.Helper()
	all := view[[]control.SegmentView](d, "vxlan", fmt.Sprint(seg.vni))
	if len(all) != 1 || int(all[0].VNI) != seg.vni {
		d.t.Fatalf("weir vxlan %d: %+v", seg.vni, all)
	}
	return all[0]
}

// where is the place that weir fdb has for a station, and its kind; "" if it is not known.
func (d *daemon) where(seg *overlay, mac string) (kind, place string) {
	d.t.Helper()
	r := d.try("fdb", "list", "--vni", fmt.Sprint(seg.vni), "--mac", mac)
	if r.code != 0 {
		d.t.Fatalf("weir fdb list: %v", r)
	}
	for line := range strings.Lines(r.out) {
		if f := strings.Fields(line); len(f) > 4 && f[1] == mac {
			return f[len(f)-3], strings.Join(f[2:len(f)-3], " ")
		}
	}
	return "", ""
}

// TestVXLANCommands has an operator look at segments and say where stations are.
func TestVXLANCommands(t *testing.T) {
	over6 := &overlay{vni: 6001, over6: true}
	b := newOverlayBed(t, options{}, vxlanPort, overlays()[0], over6)
	seg := b.segments[0]
	d := b.start(b.config(nil, b.allServices()))
	vni, vtep0, vtep1 := fmt.Sprint(seg.vni), seg.theirs(0), seg.theirs(1)
	const learned, byHand, from = "02:00:00:00:69:01", "02:00:00:00:69:02", "02:00:00:00:69:fe"
	w := b.watch(t, seg)
	w.expect("a station behind VTEP 0", "host0", everyone, learned, "access0", "access1", "host1")

	t.Run("segments", func(t *testing.T) {
		d := d.with(t)
		before := d.segmentView(seg)
		w.expect("goes to VTEP 0 alone", "access0", learned, from, "host0", "vtep0")
		for i := range 20 {
			w.send("access0", learned, from, fmt.Sprint("burst ", i))
		}
		w.settle()
		v := d.segmentView(seg)
		if v.State != "up" || v.Reason != "" || v.BUMMode != "head-end" || v.VTEP.String() != seg.ours() || v.Port != vxlanPort || v.Gateway.MAC != gateMAC {
			t.Errorf("%+v", v)
		}
		if len(v.Peers) != 2 || len(v.Access) != 2 || v.Peers[0].Address.String() != vtep0 || v.Peers[0].State != "resolved" || v.Access[0].Port != seg.port(0) {
			t.Fatalf("%+v", v)
		}
		// Stations speak by themselves now and then, so at least.
		if n := v.Peers[0].OutFrames - before.Peers[0].OutFrames; n < 21 || v.Peers[0].OutBytes-before.Peers[0].OutBytes < 21*60 {
			t.Errorf("%d frames to VTEP 0", n)
		}
		if n := v.Peers[1].OutFrames - before.Peers[1].OutFrames; n >= 21 {
			t.Errorf("%d frames to VTEP 1", n)
		}
		if n := v.Access[0].InFrames - before.Access[0].InFrames; n < 21 || v.Peers[0].Stations < 1 || v.Stations.Used < 3 || v.Floods == 0 || v.Copies == 0 {
			t.Errorf("%d frames from the access port: %+v", n, v)
		}
		if v := d.segmentView(over6); v.State != "up" || v.VTEP.String() != over6.ours() || len(v.Peers) != 2 || len(v.Access) != 0 {
			t.Errorf("%+v", v)
		}
		if all := view[control.Stats](d, "stats").VXLAN; len(all) != 2 {
			t.Errorf("weir stats has %d segments", len(all))
		}
		for args, words := range map[string]string{
			"vxlan":                      "VNI STATE up head-end " + vni + " 6001 " + vtep0 + " resolved flooded access " + seg.port(0),
			"vxlan " + vni:               "gateway " + gateMAC + " learning kept for 300 s floods moves way to " + vtep1,
			"vxlan -o huawei":            "Number of vxlan vni: 2 BD-ID State " + vni,
			"fdb":                        "MAC PLACE KIND AGE " + learned + " " + staticMAC + " static own gateway vtep " + vtep1,
			"fdb list --vni " + vni:      learned + " learned",
			"fdb neighbors --vni " + vni: "VNI ADDRESS MAC STATE",
		} {
			out := d.cli(strings.Fields(args)...)
			for _, word := range strings.Fields(words) {
				if !strings.Contains(out, word) {
					t.Errorf("weir %s lacks %q:\n%s", args, word, out)
				}
			}
		}
		const block = `    BD ID                  : %d
    State                  : up
    NVE                    : -
    Source Address         : %s
    Source IPv6 Address    : %s
    UDP Port               : 4789
    BUM Mode               : head-end
    Group Address          : -
    Peer List              : %s
    IPv6 Peer List         : %s
`
		for s, want := range map[*overlay]string{
			seg:   fmt.Sprintf(block, seg.vni, seg.ours(), "-", vtep0+" "+vtep1, "-"),
			over6: fmt.Sprintf(block, over6.vni, "-", over6.ours(), "-", over6.theirs(0)+" "+over6.theirs(1)),
		} {
			if got := d.cli("vxlan", "-o", "huawei", fmt.Sprint(s.vni)); got != want {
				t.Errorf("weir vxlan -o huawei %d:\n%swant\n%s", s.vni, got, want)
			}
		}
	})

	t.Run("stations", func(t *testing.T) {
		d := d.with(t)
		at := func(mac, kind, place string) {
			t.Helper()
			if k, p := d.where(seg, mac); k != kind || p != place {
				t.Errorf("%s is %q at %q, want %q at %q", mac, k, p, kind, place)
			}
		}
		at(learned, "learned", "vtep "+vtep0)
		at(byHand, "", "")
		if out := d.cli("fdb", "add", "--vni", vni, "--mac", byHand, "--vtep", vtep1); out != "added 1\n" {
			t.Errorf("weir fdb add: %q", out)
		}
		at(byHand, "runtime", "vtep "+vtep1)
		sentTo := func(what string, places ...string) { // what has no station behind its VTEP is flooded there by the kernel, which is its business
			t.Helper()
			w.serial++
			text := fmt.Sprint(what, " ", w.serial)
			w.send("access0", byHand, from, text)
			w.settle()
			got := w.counts(text)
			for _, p := range []string{"vtep0", "vtep1", "access1"} {
				if want := slices.Contains(places, p); got[p] != map[bool]int{true: 1}[want] {
					t.Errorf("%s: came to %v, want %v", what, got, places)
				}
			}
		}
		sentTo("added", "vtep1")
		d.cli("reload")
		sentTo("after a reload", "vtep1")
		d.cli("fdb", "add", "--vni", vni, "--mac", byHand, "--port", seg.port(1))
		at(byHand, "runtime", "port "+seg.port(1))
		sentTo("now on an access port", "access1")
		d.cli("fdb", "flush")
		at(learned, "", "")
		at(byHand, "runtime", "port "+seg.port(1))
		at(staticMAC, "static", "vtep "+vtep1)
		d.cli("fdb", "del", "--vni", vni, "--mac", byHand)
		sentTo("removed", "vtep0", "vtep1", "access1")
	})

	t.Run("refusals", func(t *testing.T) {
		d := d.with(t)
		for _, x := range []struct {
			args string
			code int
			says string
		}{
			{"vxlan 7", 1, "no such segment: VNI 7"},
			{"vxlan 0", 2, "must be 1 to 16777215"},
			{"vxlan seven", 2, "must be 1 to 16777215"},
			{"vxlan 1 2", 2, "at most 1 arg"},
			{"vxlan -o xml", 2, "no such layout"},
			{"fdb forget", 2, "unknown command"},
			{"fdb list --vni 16777216", 2, "must be 1 to 16777215"},
			{"fdb list --mac ff:ff:ff:ff:ff:ff", 2, "not the MAC address of one station"},
			{"fdb list --vni 7", 1, "no such segment: VNI 7"},
			{"fdb neighbors --vni 7", 1, "no such segment: VNI 7"},
			{"fdb add --mac " + byHand + " --vtep " + vtep0, 2, "vni"},
			{"fdb add --vni " + vni + " --vtep " + vtep0, 2, "mac"},
			{"fdb add --vni " + vni + " --mac " + byHand, 2, "--vtep or --port"},
			{"fdb add --vni " + vni + " --mac 01:00:5e:00:00:01 --vtep " + vtep0, 2, "not the MAC address of one station"},
			{"fdb add --vni " + vni + " --mac " + byHand + " --vtep nowhere", 2, "must be an address"},
			{"fdb add --vni " + vni + " --mac " + byHand + " --vtep " + vtep0 + " --port lan", 2, "not both"},
			{"fdb add --vni " + vni + " --mac " + byHand + " --vtep " + vtep0 + " --vlan 3", 2, "--vlan"},
			{"fdb add --vni " + vni + " --mac " + byHand + " --vtep 192.0.2.99", 1, "must be one of its peers or access ports"},
			{"fdb add --vni " + vni + " --mac " + byHand + " --port lan", 1, "must be one of its peers or access ports"},
			{"fdb add --vni " + vni + " --mac " + staticMAC + " --vtep " + vtep0, 1, "it is in the configuration"},
			{"fdb del --vni " + vni + " --mac " + gateMAC, 1, "it is in the configuration"},
			{"fdb del --vni " + vni + " --mac " + byHand, 1, "no such station"},
			{"fdb flush --vni 7", 1, "no such segment: VNI 7"},
			{"fdb flush --vtep 192.0.2.99", 1, "no such place"},
		} {
			r := d.try(strings.Fields(x.args)...)
			if r.code != x.code || !strings.Contains(r.errors, x.says) {
				t.Errorf("weir %s: %v; want exit %d and %q", x.args, r, x.code, x.says)
			}
		}
	})
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestVXLANCommandsWithoutADaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	for _, args := range []string{"vxlan", "fdb", "fdb flush", "fdb del --vni 1 --mac 02:00:00:00:00:01"} {
		if r := run(t, append(strings.Fields(args), "--socket", socket)...); r.code != 5 || !strings.Contains(r.errors, "no weir answers") {
			t.Errorf("weir %s: %v", args, r)
		}
	}
}
