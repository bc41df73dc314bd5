package vxlan

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

func interfaceOf(s string) Interface {
	p := netip.MustParsePrefix(s)
	a, v6 := AddrOf(p.Addr())
	return Interface{Addr: a, V6: v6, Bits: uint8(p.Bits())}
}

func gatewayOf(mac MAC, all ...string) *Gateway {
	g := &Gateway{MAC: mac}
	for _, s := range all {
		g.Addresses = append(g.Addresses, interfaceOf(s))
	}
	return g
}

func TestGatewayLinkLocal(t *testing.T) {
	for mac, want := range map[MAC]string{
		0x34_56_78_9a_bc_de: "fe80::3656:78ff:fe9a:bcde", // RFC 4291 appendix A, and Linux
		0x02_00_00_00_50_01: "fe80::ff:fe00:5001",
		0x00_00_5e_00_01_07: "fe80::200:5eff:fe00:107",
	} {
		g := gatewayOf(mac)
		if got := g.LinkLocal().Netip(true); got != netip.MustParseAddr(want) {
			t.Errorf("%s: %s, want %s", mac, got, want)
		}
	}
}

func TestGatewaySpeaks(t *testing.T) {
	both := gatewayOf(0x020000005001, "198.18.64.1/24", "198.18.65.1/25", "2001:db8:64::1/64", "2001:db8:65::1/120")
	four, six := gatewayOf(0x020000005001, "198.18.64.1/24"), gatewayOf(0x020000005001, "2001:db8:64::1/64")
	for _, x := range []struct {
		name   string
		g      *Gateway
		to     string
		source string // of a request; empty: none
		report string // of an error
		onLink bool
	}{
		{"in the first network", both, "198.18.64.7", "198.18.64.1", "198.18.64.1", true},
		{"in the second network", both, "198.18.65.127", "198.18.65.1", "198.18.65.1", true},
		{"behind the second network", both, "198.18.65.128", "198.18.64.1", "198.18.64.1", false},
		{"IPv6, in the first network", both, "2001:db8:64::7", "2001:db8:64::1", "2001:db8:64::1", true},
		{"IPv6, in a network of 120 bits", both, "2001:db8:65::ff", "2001:db8:65::1", "2001:db8:65::1", true},
		{"IPv6, behind a network of 120 bits", both, "2001:db8:65::100", "2001:db8:64::1", "2001:db8:64::1", false},
		{"link-local", both, "fe80::1", "fe80::ff:fe00:5001", "fe80::ff:fe00:5001", false},
		{"IPv6 of an IPv4 gateway", four, "2001:db8:64::7", "", "fe80::ff:fe00:5001", false},
		{"IPv4 of an IPv6 gateway", six, "198.18.64.7", "", "192.0.0.8", false},
	} {
		to, v6 := AddrOf(netip.MustParseAddr(x.to))
		source := ""
		if a, ok := x.g.Source(to, v6); ok {
			source = a.Netip(v6).String()
		}
		if report := x.g.Reporter(to, v6).Netip(v6).String(); source != x.source || report != x.report || x.g.OnLink(to, v6) != x.onLink {
			t.Errorf("%s: asks from %q, reports from %s, on link %v", x.name, source, report, x.g.OnLink(to, v6))
		}
	}
	local := six.LinkLocal()
	if !six.Has(local, true) || four.Has(local, true) || six.Has(local, false) {
		t.Error("the link-local address is that of gateways that speak IPv6, and of these alone")
	}
}

// TestInterfaceHolds compares Holds with net/netip, for networks of every length and addresses that differ in one bit.
func TestInterfaceHolds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		var b [16]byte
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		a := netip.AddrFrom16(b)
		if r.IntN(2) == 0 {
			a = netip.AddrFrom4([4]byte(b[:4]))
		}
		bits := r.IntN(a.BitLen() + 1)
		raw := a.AsSlice()
		at := r.IntN(a.BitLen())
		raw[at/8] ^= 0x80 >> (at % 8)
		other, _ := netip.AddrFromSlice(raw)
		if a.Is4In6() || other.Is4In6() {
			continue
		}
		x := interfaceOf(netip.PrefixFrom(a, bits).String())
		for _, o := range []netip.Addr{a, other, netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("2001:db8::1")} {
			addr, v6 := AddrOf(o)
			if got, want := x.Holds(addr, v6), netip.PrefixFrom(a, bits).Contains(o); got != want {
				t.Fatalf("%s/%d holds %s: %v, want %v", a, bits, o, got, want)
			}
		}
	}
}
