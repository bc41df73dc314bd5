package control

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"weir/dataplane"
	"weir/dataplane/route"
)

const segmentsOfTwoVTEPs = `
vxlan:
  segments:
    - {vni: 5001, vtep: 198.18.0.1, peers: [198.18.0.21, 198.18.0.22], gateway: {address: 172.16.1.1/24, mac: 02:00:00:00:50:01, reaches: [underlay]}}
    - {vni: 5002, vtep: 198.18.1.1, peers: [198.18.0.22], fdb: [{mac: 02:00:00:00:01:0a, vtep: 198.18.0.23}]}
    - {vni: 5003, vtep: "2001:db8::1", peers: [{address: "2001:db8::21", port: 8472}]}
`

// TestTunnelEnds: what tenants must not send VXLAN to are the tunnel ends of all segments, the replication lists' and those of static stations, and ours.
func TestTunnelEnds(t *testing.T) {
	b := newCoreBed(t, through("nat"))
	b.reload(through("nat") + segmentsOfTwoVTEPs)
	ends := b.core.engine.Snapshot().Overlay.Ends
	if ports := b.core.engine.Snapshot().Overlay.EndPorts; !slices.Equal(ports, []uint16{4789, 8472}) {
		t.Errorf("ports %v", ports)
	}
	for addr, want := range map[string]bool{
		"198.18.0.1": true, "198.18.1.1": true, "198.18.0.21": true, "198.18.0.22": true, "198.18.0.23": true, "2001:db8::1": true, "2001:db8::21": true,
		"198.18.0.24": false, "172.16.1.1": false, "2001:db8::22": false,
	} {
		if got := has(ends, addr); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	b.reload(through("nat"))
	if o := b.core.engine.Snapshot().Overlay; has(o.Ends, "198.18.0.21") {
		t.Error("without segments a tunnel's end is left")
	}
}

// TestATwinGoesWithItsSegment: the segment that gets the index of another has heard of no gateway with its MAC.
func TestATwinGoesWithItsSegment(t *testing.T) {
	b := newCoreBed(t, through("nat"))
	const one = "vxlan: {segments: [{vni: %d, vtep: 198.18.0.1, peers: [198.18.0.21]}]}\n"
	b.reload(through("nat") + fmt.Sprintf(one, 5001))
	o := b.core.engine.Snapshot().Overlay
	o.Twins.Note(0, 1000)
	b.reload(through("nat") + fmt.Sprintf(one, 5001))
	if !o.Twins.Heard(0, 1001) {
		t.Error("a reload of the same segment forgot its twin")
	}
	b.reload(through("nat") + fmt.Sprintf(one, 5002))
	if s := b.core.engine.Snapshot().Overlay.ByIndex[0]; s.VNI != 5002 || o.Twins.Heard(0, 1001) {
		t.Errorf("segment %d has another's twin", s.VNI)
	}
}

func has(t *route.Table, addr string) bool {
	a, v6 := dataplane.AddrOf(netip.MustParseAddr(addr))
	if v6 {
		return t.Lookup6(a.Hi, a.Lo) != nil
	}
	return t.Lookup4(uint32(a.Lo)) != nil
}
