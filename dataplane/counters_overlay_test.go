package dataplane_test

import (
	"reflect"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

// Workers that count for the same segment or peer must not share cache lines.
func TestOverlayCountersAreWholeCacheLines(t *testing.T) {
	if n := reflect.TypeFor[SegmentCounters]().Size(); n%64 != 0 {
		t.Errorf("SegmentCounters are %d bytes", n)
	}
	if n := reflect.TypeFor[PlaceCounters]().Size(); n != 64 {
		t.Errorf("PlaceCounters are %d bytes", n)
	}
}

// Each frame of a segment is counted where it came in, where it went, and why it did not.
func TestSegmentCounts(t *testing.T) {
	tag := func(f []byte) []byte {
		return append(append(append([]byte(nil), f[:12]...), 0x81, 0, 0, 30), f[12:]...)
	}
	const other = vxlan.MAC(0x020000000d0a)
	small, large := make([]byte, 50), make([]byte, 1490)
	for _, x := range []struct {
		name    string
		before  [][]byte // through the tunnel, not counted
		port    int
		in      []byte
		segment SegmentTraffic
		peer    PlaceTraffic
		access  PlaceTraffic
		drop    Drop
	}{
		{name: "a broadcast from the peer goes to the access port", in: tunneled(peerVTEP, tenantVNI, inFrame(vxlan.Broadcast, hostMAC, 0x88b5, small)),
			segment: SegmentTraffic{InFrames: 1, InBytes: 64, OutFrames: 1, OutBytes: 64, Floods: 1},
			peer:    PlaceTraffic{InFrames: 1, InBytes: 64}, access: PlaceTraffic{OutFrames: 1, OutBytes: 64}},
		{name: "an unknown station's from the access port to the peer; the tag counts nowhere", port: lan, in: tag(inFrame(hostMAC, localMAC, 0x88b5, small)),
			segment: SegmentTraffic{InFrames: 1, InBytes: 64, OutFrames: 1, OutBytes: 64, Floods: 1},
			access:  PlaceTraffic{InFrames: 1, InBytes: 64}, peer: PlaceTraffic{OutFrames: 1, OutBytes: 64}},
		{name: "a known station's is no flood", before: [][]byte{inFrame(vxlan.Broadcast, hostMAC, 0x88b5, small)}, port: lan, in: tag(inFrame(hostMAC, localMAC, 0x88b5, small)),
			segment: SegmentTraffic{InFrames: 1, InBytes: 64, OutFrames: 1, OutBytes: 64},
			access:  PlaceTraffic{InFrames: 1, InBytes: 64}, peer: PlaceTraffic{OutFrames: 1, OutBytes: 64}},
		{name: "too large for the tunnel", port: lan, in: tag(inFrame(hostMAC, localMAC, 0x88b5, large)), drop: DropTooBig,
			segment: SegmentTraffic{InFrames: 1, InBytes: 1504, Floods: 1}, access: PlaceTraffic{InFrames: 1, InBytes: 1504}, peer: PlaceTraffic{OutDropped: 1}},
		{name: "to where it came from", before: [][]byte{inFrame(vxlan.Broadcast, hostMAC, 0x88b5, small)}, in: tunneled(peerVTEP, tenantVNI, inFrame(hostMAC, other, 0x88b5, small)),
			drop: DropSameSide, segment: SegmentTraffic{InFrames: 1, InBytes: 64}, peer: PlaceTraffic{InFrames: 1, InBytes: 64}},
		{name: "a fault of the peer's is refused at the door", in: tunneled(peerVTEP, tenantVNI, inFrame(hostMAC, vxlan.Broadcast, 0x88b5, small)),
			drop: DropVXLANSourceMAC, peer: PlaceTraffic{InDropped: 1}},
		{name: "a stranger's is the segment's loss", in: tunneled(web.Addr(), tenantVNI, inFrame(hostMAC, other, 0x88b5, small)), drop: DropVXLANPeer},
		{name: "for the gateway, which has no way for it", in: tunneled(peerVTEP, tenantVNI, inFrame(gatewayMAC, hostMAC, 0x0800, pkttest.UDP(tenant, client).Bytes())),
			drop: DropNoRoute, segment: SegmentTraffic{InFrames: 1, InBytes: 42, ToGateway: 1}, peer: PlaceTraffic{InFrames: 1, InBytes: 42}},
	} {
		t.Run(x.name, func(t *testing.T) {
			b := newBed(t, overlaid(t)...)
			c := &b.snap.Overlay.Counts[0]
			for _, f := range x.before {
				b.fromClient(tunneled(peerVTEP, tenantVNI, f))
				b.round()
			}
			c.Segment[0], c.Peers[0][0], c.Access[0][0] = SegmentCounters{}, PlaceCounters{}, PlaceCounters{}
			if x.port == lan {
				b.inject(lan, x.in)
			} else {
				b.fromClient(x.in)
			}
			b.round()
			segment, drops := c.Sum()
			if segment != x.segment {
				t.Errorf("segment: %+v, want %+v", segment, x.segment)
			}
			if got := SumPlace(c.Peers[0]); got != x.peer {
				t.Errorf("peer: %+v, want %+v", got, x.peer)
			}
			if got := SumPlace(c.Access[0]); got != x.access {
				t.Errorf("access port: %+v, want %+v", got, x.access)
			}
			_, all := b.engine.Verdicts()
			for d := range drops {
				want := uint64(0)
				if Drop(d) == x.drop && d != 0 {
					want = 1
				}
				if drops[d] != want || all[d] != want {
					t.Errorf("%v: %d in the segment, %d in all, want %d", Drop(d), drops[d], all[d], want)
				}
			}
		})
	}
}
