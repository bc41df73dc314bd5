package judge

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"weir/dataplane/packet/pkttest"
)

var (
	from4, to4 = netip.MustParseAddrPort("198.18.128.1:1234"), netip.MustParseAddrPort("198.18.9.9:80")
	from6, to6 = netip.MustParseAddrPort("[2001:db8:c::1]:1234"), netip.MustParseAddrPort("[2001:db8:9::9]:80")
)

// TestJoin puts together what pkttest cuts, in any order, and leaves what is not whole.
func TestJoin(t *testing.T) {
	for _, p := range []pkttest.Packet{pkttest.UDP(from4, to4).Payload(pattern(300)), pkttest.TCP(from6, to6).Payload(pattern(300))} {
		pieces := p.ID(9).Cut(9, 24, 80, 200)
		for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}} {
			var out []Output
			for _, i := range order {
				out = append(out, Output{Side: Server, IP: pieces[i]})
			}
			whole := join(out)
			if len(whole) != 1 || !bytes.Equal(whole[0].IP, p.ID(9).Bytes()) || whole[0].Side != Server {
				t.Errorf("%v in the order %v: %s", p, order, list(whole, nil))
			}
			if rest := join(slices.Delete(out, 1, 2)); len(rest) != 3 {
				t.Errorf("%v without a piece: %s", p, list(rest, nil))
			}
		}
	}
}

// TestUnpack takes packets out of every tunnel.
func TestUnpack(t *testing.T) {
	inner4, inner6 := pkttest.UDP(from4, to4).Payload(pattern(9)).Bytes(), pkttest.TCP(from6, to6).SYN().Bytes()
	gue := func(proto byte) []byte { return []byte{0, proto, 0, 0} }
	for _, c := range []struct {
		name  string
		outer pkttest.Packet
		inner []byte
	}{
		{"ipip", pkttest.IP(from4.Addr(), to4.Addr(), 4, inner4), inner4},
		{"6in4", pkttest.IP(from4.Addr(), to4.Addr(), 41, inner6), inner6},
		{"gre", pkttest.IP(from6.Addr(), to6.Addr(), 47, append([]byte{0, 0, 8, 0}, inner4...)), inner4},
		{"gue", pkttest.UDP(from4, netip.AddrPortFrom(to4.Addr(), 6080)).Payload(append(gue(4), inner4...)), inner4},
		{"gue in an atomic fragment", pkttest.UDP(from6, netip.AddrPortFrom(to6.Addr(), 6081)).Fragment(7, 0, false).Payload(append(gue(41), inner6...)), inner6},
		{"no tunnel", pkttest.UDP(from4, to4).Payload(append(gue(4), inner4...)), nil},
		{"not to its end", pkttest.IP(from4.Addr(), to4.Addr(), 4, inner4[:12]), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			ip := c.outer.Bytes()
			want := c.inner
			if want == nil {
				want = ip
			}
			if got := unpack([]Output{{IP: ip}}); len(got) != 1 || !bytes.Equal(got[0].IP, want) || (got[0].MAC == "") != (c.inner == nil) {
				t.Errorf("got %s", list(got, nil))
			}
		})
	}
}

// FuzzGather reads whatever comes out of a balancer.
func FuzzGather(f *testing.F) {
	pieces := pkttest.UDP(from6, to6).Payload(pattern(300)).Cut(9, 24)
	f.Add(pieces[0], pieces[1])
	f.Add(pkttest.IP(from4.Addr(), to4.Addr(), 4, pieces[0]).Bytes(), pkttest.UDP(from4, netip.AddrPortFrom(to4.Addr(), 6080)).Payload([]byte{0, 4, 0, 0, 0x45}).Bytes())
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if _, err := headersOf(a); err != nil {
			t.Skip("the kernel and the engine send IP packets")
		}
		if _, err := headersOf(b); err != nil {
			t.Skip("the kernel and the engine send IP packets")
		}
		out := unpack(join([]Output{{IP: bytes.Clone(a)}, {IP: bytes.Clone(b)}}))
		if len(out) == 0 || len(out) > 2 {
			t.Errorf("%d packets of two", len(out))
		}
		_ = same(a, b, false)
		_ = departs(a, Client, nil, nil, "icmp_checksum")
	})
}
