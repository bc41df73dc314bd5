package dataplane_test

import (
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
)

// TestTemplatesOfPrefixes: a client of two services whose VIPs begin with one address has a template for each.
func TestTemplatesOfPrefixes(t *testing.T) {
	for _, c := range []struct{ name, client, wide, narrow, outside, inside, first, second string }{
		{"v4", "198.18.128.7", "198.18.64.0/20", "198.18.64.0/24", "198.18.65.1:80", "198.18.64.1:80", "198.18.1.10:80", "198.18.1.11:80"},
		{"v6", "2001:db8:c::7", "2001:db8:8::/48", "2001:db8:8::/64", "[2001:db8:8:1::1]:80", "[2001:db8:8::1]:80", "[2001:db8:1::10]:80", "[2001:db8:1::11]:80"},
	} {
		t.Run(c.name, func(t *testing.T) {
			from := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(c.client), port) }
			persistent := func(net, to string) serving {
				return serving{vip: netip.AddrPortFrom(netip.MustParsePrefix(net).Addr(), 80), net: net,
					servers: []Backend{server(netip.MustParseAddrPort(to), ForwardNAT)},
					edit: func(s *Service) {
						s.Persistence = &Persistence{Mask4: 0xffffffff}
						s.Persistence.Mask6.Hi, s.Persistence.Mask6.Lo = ^uint64(0), ^uint64(0)
					}}
			}
			b := newBed(t, persistent(c.wide, c.first).option(t), persistent(c.narrow, c.second).option(t))
			for i, to := range []string{c.outside, c.inside} {
				out, _ := b.through(false, pkttest.TCP(from(uint16(1000+i)), netip.MustParseAddrPort(to)).SYN().Bytes())
				if got := serverOf(out, netip.MustParseAddrPort(c.first).Addr(), netip.MustParseAddrPort(c.second).Addr()); got != i {
					t.Errorf("a packet to %s left as %s, want server %d", to, pkttest.String(out), i)
				}
			}
			b.wantCounts("then", [3]int{1, 0, 1}, [3]int{1, 0, 1})
		})
	}
}
