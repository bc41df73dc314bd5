package dataplane_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

// A SYN from one segment into another announces no more than both have room for: what answers it comes the way of the first.
func TestClampBetweenSegments(t *testing.T) {
	b := newTenants(t, routedTenants())
	b.known(0, "198.19.1.7", hostMAC, false)
	b.known(1, "198.19.2.8", localMAC, true)
	syn := func(from, to netip.AddrPort, ack bool) pkttest.Packet {
		p := pkttest.TCP(from, to).SYN().TCPOptions(2, 4, 0x05, 0xb4)
		if ack {
			p = p.Ack(1)
		}
		return p
	}
	near, far := port("198.19.2.8", 9), port("198.19.1.7", 9)
	mss := func(name string, frame []byte) {
		if frame == nil {
			t.Errorf("%s: nothing left (%v)", name, b.dropped())
			return
		}
		if got := binary.BigEndian.Uint16(frame[14+42:]); got != 1410 || pkttest.Verify(frame[14:]) != nil {
			t.Errorf("%s: an MSS of %d, want 1410 (%v)", name, got, pkttest.Verify(frame[14:]))
		}
	}
	b.behind(0, inFrame(gateOf(0), hostMAC, 0x0800, syn(far, near, false).Bytes()))
	_, f := b.access()
	mss("out of the tunnel to a port", f)
	b.local(1, inFrame(gateOf(1), localMAC, 0x0800, syn(near, far, true).Bytes()))
	_, f = b.outer()
	mss("from a port into the tunnel", f)
}

// A packet for a station that nobody knows the place of goes to all of them, so it must fit everywhere.
func TestRoomWhereNobodyKnowsTheStation(t *testing.T) {
	b := newTenants(t, routedTenants(), func(x *Snapshot, _ *Engine) { x.Ports[lan].MTU = 1400 })
	b.known(0, "198.19.1.7", hostMAC, false)
	addr, _ := vxlan.AddrOf(netip.MustParseAddr("198.19.2.9"))
	b.overlay.Hosts.Learn(1, addr, false, localMAC, vxlan.Confirmed, vxlan.SecondOf(b.now))
	in := pkttest.UDP(port("198.19.1.7", 9), port("198.19.2.9", 9)).Size(1440)
	b.behind(0, inFrame(gateOf(0), hostMAC, 0x0800, in.DF().Bytes()))
	if vni, f := b.outer(); vni != 5001 || f == nil || [2]byte(f[34:]) != [2]byte{3, 4} || binary.BigEndian.Uint16(f[40:]) != 1400 {
		t.Errorf("with DF: into %d went %x (%v)", vni, f, b.dropped())
	}
	b.empty()
	in = pkttest.UDP(port("198.19.1.7", 9), port("198.19.2.9", 9)).Size(1440)
	b.behind(0, inFrame(gateOf(0), hostMAC, 0x0800, in.Bytes()))
	for range 2 { // both pieces go to both places
		if i, f := b.access(); i != 1 || f == nil || len(f) > 14+1400 || pkttest.Verify(f[14:]) != nil {
			t.Errorf("without DF: to port %d went %x (%v)", i, f, b.dropped())
		}
		if vni, f := b.outer(); vni != 5002 || f == nil || pkttest.Verify(f[14:]) != nil {
			t.Errorf("without DF: into %d went %x (%v)", vni, f, b.dropped())
		}
	}
	b.silent("two pieces to two places")
}
