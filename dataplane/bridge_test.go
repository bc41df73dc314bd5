package dataplane_test

import (
	"testing"

	. "weir/dataplane"
	"weir/vxlan"
)

// TestBridgeKeepsOrder sends many frames in one vector, known, unknown and for all: those of one place leave in the order in which they came.
func TestBridgeKeepsOrder(t *testing.T) {
	b := newBed(t, overlaid(t)...)
	b.inject(lan, append(append(append([]byte(nil), inFrame(vxlan.Broadcast, localMAC, 0x88b5, nil)[:12]...), 0x81, 0, 0, 30), inFrame(vxlan.Broadcast, localMAC, 0x88b5, make([]byte, 50))[12:]...))
	b.round()
	for b.take(wan) != nil {
	}
	const frames = 60
	for i := range frames {
		dst := []vxlan.MAC{localMAC, vxlan.Broadcast, 0x020000000c09}[i%3]
		b.fromClient(tunneled(peerVTEP, tenantVNI, inFrame(dst, hostMAC, 0x88b5, append([]byte{byte(i)}, make([]byte, 50)...))))
	}
	b.round()
	for i := range frames {
		out := b.take(lan)
		if out == nil || out[18] != byte(i) {
			t.Fatalf("frame %d became %x (%v)", i, out, b.dropped())
		}
	}
	if out := b.take(lan); out != nil {
		t.Errorf("one more left: %x", out)
	}
}

// TestBridgeLooksUpWhatTheVectorTaught has a station speak in the same vector as others speak to it, before them and after.
func TestBridgeLooksUpWhatTheVectorTaught(t *testing.T) {
	b := newBed(t, overlaid(t)...)
	to := func(dst, src vxlan.MAC) []byte {
		return tunneled(peerVTEP, tenantVNI, inFrame(dst, src, 0x88b5, make([]byte, 50)))
	}
	const other = vxlan.MAC(0x020000000d0a)
	b.fromClient(to(hostMAC, other)) // is where the frame came from, as the next one shows
	b.fromClient(to(vxlan.Broadcast, hostMAC))
	b.round()
	_, drops := b.engine.Verdicts()
	if out := b.take(lan); out == nil || vxlan.MACOf(out) != vxlan.Broadcast || b.take(lan) != nil {
		t.Errorf("to the access port went %x", out)
	}
	c := b.snap.Overlay.Counts[0]
	if sum, lost := c.Sum(); sum.InFrames != 2 || lost != drops || drops[DropSameSide] != 1 {
		t.Errorf("counted %+v, %v; dropped %v", sum, lost, drops)
	}
}
