package dataplane_test

import (
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/vxlan"
)

// TestAdvertisements: what an advertisement's flags say decides whether it moves an address (RFC 4861 section 7.2.5). One without the override flag, as
// somebody sends who answers in another's stead, moves none.
func TestAdvertisements(t *testing.T) {
	const other = vxlan.MAC(0x020000000f0f)
	host := netip.MustParseAddr("2001:db8:5001::7")
	addr, _ := vxlan.AddrOf(host)
	for _, x := range []struct {
		name string
		put  func([]byte, *vxlan.ND) int
		want vxlan.MAC
	}{
		{"an answer in the host's stead", func(b []byte, n *vxlan.ND) int { return vxlan.PutNDProxy(b, n, other, false) }, hostMAC},
		{"an answer of the host's", func(b []byte, n *vxlan.ND) int { return vxlan.PutNDReply(b, n, other, false) }, other},
		{"an announcement", func(b []byte, n *vxlan.ND) int { return vxlan.PutNDAnnouncement(b, other, addr, false) }, other},
	} {
		b := newTenants(t, routedTenants())
		b.known(0, host.String(), hostMAC, false)
		g := b.overlay.ByIndex[0].Gateway
		frame := make([]byte, 128)
		frame = frame[:x.put(frame, &vxlan.ND{Src: g.LinkLocal(), MAC: g.MAC, SrcMAC: g.MAC, Target: addr})]
		b.behind(0, frame)
		if mac := b.overlay.Hosts.Known(0, addr, true, vxlan.SecondOf(b.now)); mac != x.want {
			t.Errorf("%s: the host is now at %s, want %s", x.name, mac, x.want)
		}
	}
}

// TestFloodLimitOfTwinsCopies: what a segment may flood bounds broadcasts, and the copies of answers that other gateways with our MAC get.
func TestFloodLimitOfTwinsCopies(t *testing.T) {
	b := newTenants(t, loneTenant)
	g := gateOf(0)
	limit := new(vxlan.Gate)
	limit.Set(10)
	b.overlay.ByIndex[0].BUM = limit                            // before the worker has seen it
	b.behind(0, inFrame(localMAC, g, 0x88b5, make([]byte, 50))) // from a twin; unknown, so it is flooded: one
	b.empty()
	copies, floods := 0, 0
	answer := inFrame(g, localMAC, 0x0806, arp(2, localMAC, netip.MustParseAddr("198.19.1.8"), g, gateIP))
	for range 8 {
		b.local(0, answer)
		if _, f := b.outer(); f != nil {
			copies++
		}
		if b.consumed() != 1 {
			t.Fatalf("an answer to the gateway: %v", b.dropped())
		}
	}
	for range 5 {
		b.local(0, inFrame(vxlan.Broadcast, localMAC, 0x88b5, make([]byte, 50)))
		if _, f := b.outer(); f != nil {
			floods++
		} else if d := b.dropped(); d != DropFloodLimit {
			t.Errorf("dropped as %v", d)
		}
	}
	if copies != 8 || floods != 1 {
		t.Errorf("%d copies and %d floods, want 8 and 1", copies, floods)
	}
	for range 3 {
		b.local(0, answer)
		if _, f := b.outer(); f != nil || b.consumed() != 1 {
			t.Errorf("beyond the limit: %x (%v)", f, b.dropped())
		}
	}
}
