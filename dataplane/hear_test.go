package dataplane_test

import (
	"net/netip"
	"testing"

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
