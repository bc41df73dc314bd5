package dataplane_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// TestPrefixVIPs: an address belongs to the longest VIP that holds it, and has that one's services and no others.
func TestPrefixVIPs(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			wide, narrow, single := "203.0.113.0/24", "203.0.113.64/26", netip.MustParseAddr("203.0.113.70")
			in, between, outside := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("203.0.113.99"), netip.MustParseAddr("203.0.112.255")
			if a.vip.Addr().Is6() {
				wide, narrow, single = "2001:db8:f::/48", "2001:db8:f:4000::/52", netip.MustParseAddr("2001:db8:f:4000::70")
				in, between, outside = netip.MustParseAddr("2001:db8:f::7"), netip.MustParseAddr("2001:db8:f:4fff::1"), netip.MustParseAddr("2001:db8:e:ffff::1")
			}
			port := func(p uint16, to netip.Addr) serving {
				return serving{vip: netip.AddrPortFrom(single, p), servers: []Backend{server(netip.AddrPortFrom(to, 0), ForwardNAT)}}
			}
			w80, w81, n80, s80 := port(80, a.web.Addr()), port(81, a.web.Addr()), port(80, a.second), port(80, a.remote)
			w80.net, w81.net, n80.net = wide, wide, narrow
			b := newBed(t, s80.option(t), w80.option(t), n80.option(t), w81.option(t))
			for _, c := range []struct {
				to   netip.AddrPort
				want int // of web, second, remote; -1: none
			}{
				{netip.AddrPortFrom(in, 80), 0}, {netip.AddrPortFrom(in, 81), 0}, {netip.AddrPortFrom(in, 82), -1},
				{netip.AddrPortFrom(between, 80), 1}, {netip.AddrPortFrom(between, 81), -1},
				{netip.AddrPortFrom(single, 80), 2}, {netip.AddrPortFrom(single, 81), -1},
				{netip.AddrPortFrom(outside, 80), -1},
			} {
				out, _ := b.through(false, pkttest.TCP(a.client, c.to).SYN().Bytes())
				if got := serverOf(out, a.web.Addr(), a.second, a.remote); got != c.want {
					t.Errorf("%v: server %d, want %d", c.to, got, c.want)
				}
				if c.want < 0 {
					continue
				}
				real := netip.AddrPortFrom([]netip.Addr{a.web.Addr(), a.second, a.remote}[c.want], c.to.Port())
				if back, _ := b.through(true, pkttest.TCP(real, a.client).SYN().Ack(1).Bytes()); back != nil && source(back) != c.to {
					t.Errorf("%v: the answer comes from %v", c.to, source(back))
				}
				b.drain() // else the server would see two connections of one client
			}
			martian := pkttest.TCP(netip.AddrPortFrom(between, 9), netip.AddrPortFrom(in, 80)).SYN()
			run(t, b, []step{{name: "no client has an address of a VIP", in: martian.Bytes(), verdict: Dropped, drop: DropMartian}})
		})
	}
}

// naive finds the service of a packet as the words have it: of the longest VIP with the address, the exact port, else the first range.
func naive(all []Service, addr netip.Addr, protocol uint8, port uint16) (svc *Service, known bool) {
	longest := -1
	for i := range all {
		if v := all[i].VIP; v.Contains(addr) {
			longest = max(longest, v.Bits())
		}
	}
	for _, exact := range []bool{true, false} {
		for i := range all {
			s := &all[i]
			if s.VIP.Contains(addr) && s.VIP.Bits() == longest && s.Protocol == protocol && (s.Port == s.PortTo) == exact && s.Port <= port && port <= s.PortTo {
				return s, true
			}
		}
	}
	return nil, longest >= 0
}

// TestServicesLikeTheirTwin compares Find and IsVIP with naive, over few bits, so that VIPs lie within each other.
func TestServicesLikeTheirTwin(t *testing.T) {
	address := func(t *rapid.T, v6 bool) netip.Addr {
		x := rapid.Uint32Range(0, 255).Draw(t, "address")
		if !v6 {
			return netip.AddrFrom4([4]byte{203, 0, 113, byte(x)})
		}
		b := netip.MustParseAddr("2001:db8::").As16()
		binary.BigEndian.PutUint16(b[6:], uint16(x)>>4<<6) // bits on both sides of the word's end
		b[8], b[15] = byte(x)<<4, byte(x)
		return netip.AddrFrom16(b)
	}
	protocols := []uint8{packet.ProtoTCP, packet.ProtoUDP}
	rapid.Check(t, func(t *rapid.T) {
		var all []Service
		taken := map[string]bool{}
		for range rapid.IntRange(0, 40).Draw(t, "services") {
			v6 := rapid.Bool().Draw(t, "v6")
			addr := address(t, v6)
			bits := addr.BitLen()
			if rapid.Bool().Draw(t, "net") {
				bits = rapid.IntRange(0, bits).Draw(t, "bits")
			}
			s := Service{VIP: netip.PrefixFrom(addr, bits).Masked(), Protocol: rapid.SampledFrom(protocols).Draw(t, "protocol"), Port: rapid.Uint16Range(1, 20).Draw(t, "port")}
			s.PortTo = s.Port
			if rapid.IntRange(0, 3).Draw(t, "range") == 0 {
				s.PortTo += rapid.Uint16Range(1, 10).Draw(t, "ports")
			}
			id := fmt.Sprint(s.VIP, s.Protocol, s.Port, s.PortTo)
			if !taken[id] {
				taken[id], all = true, append(all, s)
			}
		}
		s := NewServices(all)
		for range 30 {
			addr := address(t, rapid.Bool().Draw(t, "v6"))
			protocol, port := rapid.SampledFrom(protocols).Draw(t, "protocol"), rapid.Uint16Range(0, 31).Draw(t, "port")
			a, v6 := AddrOf(addr)
			got, known := s.Find(a, v6, protocol, port)
			want, vip := naive(all, addr, protocol, port)
			if got != want || known != vip || s.IsVIP(a, v6) != vip {
				t.Errorf("%v protocol %d port %d: %v %v, want %v %v", addr, protocol, port, got, known, want, vip)
			}
		}
	})
}

// TestAddrOf goes there and back.
func TestAddrOf(t *testing.T) {
	for _, s := range []string{"198.18.0.1", "0.0.0.0", "255.255.255.255", "::", "2001:db8::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"} {
		a := netip.MustParseAddr(s)
		if got := NetipOf(AddrOf(a)); got != a {
			t.Errorf("%v became %v", a, got)
		}
	}
	if a, v6 := AddrOf(netip.MustParseAddr("::ffff:198.18.0.1")); v6 || NetipOf(a, v6) != netip.MustParseAddr("198.18.0.1") {
		t.Errorf("an IPv4 address mapped into IPv6 became %v, IPv6 %v", a, v6)
	}
}
