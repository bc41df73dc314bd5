package control

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/steer"
	"weir/vxlan"
)

// overlayOf parses a configuration with these segments.
func overlayOf(t *testing.T, segments string) *config.Config {
	t.Helper()
	cfg, diags := config.Parse("f", []byte("version: 1\nports: [{name: wan, interface: eth1}, {name: lan, interface: eth2}]\nvxlan: {source_ports: 50000-50001, segments: ["+segments+"]}\n"))
	if config.HasErrors(diags) {
		t.Fatal(config.Errors(diags))
	}
	return cfg
}

// madeOf compiles the overlay of a configuration and settles its tables.
func madeOf(t *testing.T, r *registry, cfg *config.Config) (*dataplane.Overlay, *steer.Rules) {
	t.Helper()
	rules := &steer.Rules{Ports: []steer.Port{{Name: "wan"}, {Name: "lan"}}}
	o, err := r.compileOverlay(cfg, rules)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.overlay.settle(cfg, 1e9); err != nil {
		t.Fatal(err)
	}
	return o, rules
}

// TestSegmentOptions follows each key of a segment into what the data path and the steering get.
func TestSegmentOptions(t *testing.T) {
	o, rules := madeOf(t, newRegistry(8, 1), overlayOf(t, `
		{vni: 1, vtep: 192.0.2.1, peers: [192.0.2.2], access: [{port: wan}]},
		{vni: 2, vtep: 192.0.2.1, port: 8472, strict: true, keep_tags: true, mss_clamp: false, accept: any, learning: false, group: 239.1.1.1, group_interface: lan},
		{vni: 3, vtep: 192.0.2.1, port: 8472, mss_clamp: all, group: 239.1.1.1, group_interface: lan, fdb: [{mac: 02:00:00:00:00:01, vtep: 192.0.2.9}]}`))
	one, two, three := o.Segments.ByVNI(1), o.Segments.ByVNI(2), o.Segments.ByVNI(3)
	if one.Port != 4789 || one.Policy != (vxlan.Policy{}) || one.Clamp != vxlan.ClampServices || one.Open || !one.Learning || len(one.Flood) != 1 || one.Group != (vxlan.Addr{}) {
		t.Errorf("segment 1: %+v", one)
	}
	if two.Port != 8472 || two.Policy != (vxlan.Policy{Strict: true, KeepTags: true}) || two.Clamp != vxlan.ClampNone || !two.Open || two.Learning ||
		two.GroupPort != 1 || two.GroupMAC != [6]byte{0x01, 0, 0x5e, 1, 1, 1} {
		t.Errorf("segment 2: %+v", two)
	}
	if three.Clamp != vxlan.ClampAll || !three.Open || len(three.Flood) != 1 || three.Flood[0].Peer() != vxlan.NoPeer || len(three.Peers) != 1 {
		t.Errorf("segment 3: %+v", three)
	}
	a := netip.MustParseAddr
	want := []steer.VTEP{{Addr: a("192.0.2.1"), Port: 4789, VNIs: []uint32{1}}, {Addr: a("192.0.2.1"), Port: 8472, VNIs: []uint32{2, 3}}, {Addr: a("239.1.1.1"), Port: 8472, VNIs: []uint32{2, 3}}}
	if fmt.Sprint(rules.VTEPs) != fmt.Sprint(want) || len(o.VTEPs) != 3 {
		t.Errorf("tunnel ends %v, and %v in the data path, want %v", rules.VTEPs, o.VTEPs, want)
	}
	if !slices.Contains(rules.Ports[1].Groups, two.GroupMAC) || len(rules.Ports[0].Groups) != 0 || !slices.Equal(rules.Ports[0].Access, []uint16{0}) {
		t.Errorf("ports %+v", rules.Ports)
	}
}

// TestAccessVLANs has a VLAN be an access port in both ways it can be written, and a segment that keeps tags have all of a port's.
func TestAccessVLANs(t *testing.T) {
	cfg, diags := config.Parse("f", []byte(`version: 1
ports: [{name: a, interface: eth1, vlan: 5}, {name: b, interface: eth1}, {name: c, interface: eth2}]
vxlan: {segments: [{vni: 1, vtep: 192.0.2.1, access: [{port: a}, {port: b, vlan: 6}, {port: b}]}, {vni: 2, vtep: 192.0.2.1, keep_tags: true, access: [{port: c}]}]}`))
	if len(diags) > 0 {
		t.Fatal(config.Errors(diags))
	}
	rules := &steer.Rules{Ports: []steer.Port{{VLAN: 5}, {}, {}}}
	o, err := newRegistry(8, 1).compileOverlay(cfg, rules)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ port, vlan uint16 }{{0, 5}, {1, 6}, {1, 0}} {
		if s, _ := o.Segments.ByAccess(x.port, x.vlan); s == nil || s.VNI != 1 || !slices.Contains(rules.Ports[x.port].Access, x.vlan) {
			t.Errorf("VLAN %d of port %d: segment %v, steering takes %v", x.vlan, x.port, s, rules.Ports[x.port].Access)
		}
	}
	if s, _ := o.Segments.ByAccess(0, 0); s != nil || slices.Contains(rules.Ports[0].Access, 0) {
		t.Error("untagged frames are an access port of a port with a VLAN")
	}
	for i, p := range rules.Ports {
		if p.Trunk != (i == 2) {
			t.Errorf("port %d is a trunk: %v", i, p.Trunk)
		}
	}
}

// TestFloodLimitStays holds the limit to outliving a reload, so that a reload is no new burst, and to changing with it.
func TestFloodLimitStays(t *testing.T) {
	r := newRegistry(8, 1)
	limited := func(limit string) *vxlan.Gate {
		o, _ := madeOf(t, r, overlayOf(t, "{vni: 1, vtep: 192.0.2.1"+limit+"}"))
		return o.Segments.ByVNI(1).BUM
	}
	count := func(g *vxlan.Gate) (n int) {
		for range 100 {
			if g.Allow(1e12) {
				n++
			}
		}
		return n
	}
	for _, x := range []struct {
		limit string
		want  int
	}{{"", 100}, {", flood_limit: 20/s", 20}, {", flood_limit: 20/s, ageing: 1s", 0}, {", flood_limit: 0/s", 100}} {
		if got := count(limited(x.limit)); got != x.want {
			t.Errorf("with %q: %d of 100 at once, want %d", x.limit, got, x.want)
		}
	}
}

// TestAdoption follows a stranger of an open segment from its first frame until it is forgotten.
func TestAdoption(t *testing.T) {
	r := newRegistry(8, 1)
	const open = "{vni: 1, vtep: 192.0.2.1, accept: any, ageing: 10s, peers: [192.0.2.2]}, {vni: 2, vtep: 192.0.2.1, peers: [192.0.2.2]}"
	cfg := overlayOf(t, open)
	o, _ := madeOf(t, r, cfg)
	over := r.overlay
	index := o.Segments.ByVNI(1).Index
	note := func(segment uint16, a string, now vxlan.Second) {
		addr, v6 := vxlan.AddrOf(netip.MustParseAddr(a))
		over.strangers.Note(segment, addr, v6, now)
	}
	peers := func() string {
		o, _ = madeOf(t, r, cfg)
		var all []string
		for i, p := range o.Segments.ByVNI(1).Peers {
			if p.Tunnel == nil {
				all = append(all, "-")
				continue
			}
			a := p.Addr.Netip(false).String()
			if n := len(o.Segments.ByVNI(1).Flood); i == 0 && n != len(cfg.VXLAN.Segments[0].Peers) {
				t.Errorf("floods go to %d peers", n)
			}
			all = append(all, a)
		}
		return strings.Join(all, " ")
	}
	step := func(what string, now vxlan.Second, changed bool, want string) {
		t.Helper()
		if got := over.adopt(cfg, now); got != changed {
			t.Errorf("%s: changed: %v", what, got)
		}
		if got := peers(); got != want {
			t.Errorf("%s: peers %s, want %s", what, got, want)
		}
	}
	step("nobody came", 100, false, "192.0.2.2")
	note(index, "192.0.2.77", 100)
	note(index, "192.0.2.1", 100)    // our own
	note(index, "224.0.0.9", 100)    // a group
	note(1-index, "192.0.2.88", 100) // into a segment that is not open
	step("a stranger came", 101, true, "192.0.2.2 192.0.2.77")
	step("it is a peer now", 102, false, "192.0.2.2 192.0.2.77")
	note(index, "192.0.2.78", 95)
	step("one that came long ago", 103, false, "192.0.2.2 192.0.2.77")
	over.stations.Learn(index, 0x020000000009, vxlan.AtPeer(1), 105)
	step("a station is behind it", 120, false, "192.0.2.2 192.0.2.77")
	over.stations.Expire(130, over.stations.Slots())
	step("no more, but not for long", 130, false, "192.0.2.2 192.0.2.77")
	step("nor for longer", 131, true, "192.0.2.2 -")
	note(index, "192.0.2.79", 140)
	step("another takes its place", 140, true, "192.0.2.2 192.0.2.79")
	cfg = overlayOf(t, strings.Replace(open, "[192.0.2.2]", "[192.0.2.2, 192.0.2.79]", 1))
	if got := peers(); got != "192.0.2.2 192.0.2.79" || len(over.segments[1].adopted) != 0 {
		t.Errorf("it is configured: %s, adopted %v", got, over.segments[1].adopted)
	}
}

// TestAdoptionIsBounded has more strangers come than a segment takes.
func TestAdoptionIsBounded(t *testing.T) {
	r := newRegistry(8, 1)
	cfg := overlayOf(t, "{vni: 1, vtep: 192.0.2.1, accept: any}")
	madeOf(t, r, cfg)
	for i := range 3 * maxAdopted {
		now := vxlan.Second(100 + i/200) // 256 new ones a second are noted
		addr, v6 := vxlan.AddrOf(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}))
		r.overlay.strangers.Note(r.overlay.segments[1].index, addr, v6, now)
		if i%100 == 99 {
			r.overlay.adopt(cfg, now)
		}
	}
	o, _ := madeOf(t, r, cfg)
	if s := o.Segments.ByVNI(1); len(s.Peers) != maxAdopted || len(s.Flood) != 0 {
		t.Errorf("%d peers, %d of them are flooded to; want %d and none", len(s.Peers), len(s.Flood), maxAdopted)
	}
}
