package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

// routedTenants are A and B, which reach each other, C, which reaches the underlay, D, which reaches nobody and has A's addresses, and E, whose
// stations reach each other by the gateway.
func routedTenants() []tenantOf {
	return []tenantOf{
		{vni: 5001, networks: []string{"198.19.1.1/24", "2001:db8:5001::1/64"}, reaches: []int{1}},
		{vni: 5002, networks: []string{"198.19.2.1/24", "2001:db8:5002::1/64"}, reaches: []int{0}},
		{vni: 5003, networks: []string{"198.19.3.1/24", "2001:db8:5003::1/64"}, underlay: true},
		{vni: 5004, networks: []string{"198.19.1.1/24", "2001:db8:5001::1/64"}},
		{vni: 5005, networks: []string{"198.19.5.1/24"}, reaches: []int{4}},
	}
}

func port(addr string, n uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), n)
}

// what is sent to a gateway, and where it comes out.
func TestRouting(t *testing.T) {
	type way struct {
		vni   uint32 // into the tunnel of this segment
		port  int    // of the host, with vni 0
		local int    // or to the access port of this tenant, from 1
	}
	b := newTenants(t, routedTenants())
	const other = vxlan.MAC(0x020000000e07)
	for i, a := range []string{"198.19.1.7", "198.19.2.7", "198.19.3.7", "198.19.1.7", "198.19.5.7"} {
		b.known(i, a, hostMAC, false)
	}
	for i := range 3 {
		b.known(i, fmt.Sprintf("2001:db8:500%d::7", i+1), hostMAC, false)
	}
	b.known(1, "198.19.2.8", localMAC, true)
	b.known(4, "198.19.5.8", other, false)
	for _, x := range []struct {
		name string
		from int // tenant, -1: outside
		in   pkttest.Packet
		to   way
	}{
		{"A to B", 0, pkttest.UDP(port("198.19.1.7", 9), port("198.19.2.7", 9)), way{vni: 5002}},
		{"B to A", 1, pkttest.TCP(port("198.19.2.7", 9), port("198.19.1.7", 9)).SYN().Ack(1), way{vni: 5001}},
		{"A to a port of B", 0, pkttest.UDP(port("198.19.1.7", 9), port("198.19.2.8", 9)), way{local: 2}},
		{"A to B, IPv6", 0, pkttest.UDP(port("2001:db8:5001::7", 9), port("2001:db8:5002::7", 9)), way{vni: 5002}},
		{"A to B, ping", 0, pkttest.Echo(netip.MustParseAddr("198.19.1.7"), netip.MustParseAddr("198.19.2.7"), 1, 1), way{vni: 5002}},
		{"A to B, of any protocol", 0, pkttest.IP(netip.MustParseAddr("198.19.1.7"), netip.MustParseAddr("198.19.2.7"), 47, make([]byte, 20)), way{vni: 5002}},
		{"C outwards, by a router", 2, pkttest.UDP(port("198.19.3.7", 9), client), way{port: wan}},
		{"C outwards, to a server's link", 2, pkttest.UDP(port("198.19.3.7", 9), port(second.String(), 9)), way{port: lan}},
		{"C outwards, IPv6", 2, pkttest.UDP(port("2001:db8:5003::7", 9), client6), way{port: wan}},
		{"outside to C", -1, pkttest.UDP(client, port("198.19.3.7", 9)), way{vni: 5003}},
		{"outside to C, IPv6", -1, pkttest.TCP(client6, port("2001:db8:5003::7", 9)).SYN(), way{vni: 5003}},
		{"E to itself", 4, pkttest.UDP(port("198.19.5.7", 9), port("198.19.5.8", 9)), way{vni: 5005}},
	} {
		in := x.in.Bytes()
		if x.from >= 0 {
			b.behind(x.from, inFrame(gateOf(x.from), hostMAC, etherTypeOf(in), in))
		} else {
			b.fromClient(in)
			b.round()
		}
		want := x.in.TTL(63).Bytes()
		var out []byte
		switch {
		case x.to.vni != 0:
			vni, f := b.outer()
			for f != nil && vxlan.MACOf(f) == vxlan.Broadcast {
				vni, f = b.outer() // the gateway asks for stations beside
			}
			if out = f; vni != x.to.vni {
				t.Errorf("%s: into segment %d, want %d (%v)", x.name, vni, x.to.vni, b.dropped())
			}
			if i := x.to.vni - 5001; f != nil && vxlan.MACOf(f[6:]) != gateOf(int(i)) {
				t.Errorf("%s: from %s", x.name, vxlan.MACOf(f[6:]))
			}
		case x.to.local > 0:
			i, f := b.access()
			if out = f; i != x.to.local-1 {
				t.Errorf("%s: to port %d (%v)", x.name, i, b.dropped())
			}
		default:
			out = b.take(x.to.port)
		}
		if out == nil || !bytes.Equal(out[14:], want) {
			t.Errorf("%s: became %x (%v), want %s", x.name, out, b.dropped(), pkttest.String(want))
		}
		b.empty()
	}
	if n := b.engine.Table.Len(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// What is not routed, why, and what its sender is told: an ICMP type and code from an address.
func TestNotRouted(t *testing.T) {
	b := newTenants(t, routedTenants())
	for i, a := range []string{"198.19.1.7", "198.19.2.7", "198.19.3.7", "198.19.1.7", "198.19.5.7"} {
		b.known(i, a, hostMAC, false)
	}
	for i, a := range []string{"2001:db8:5001::7", "2001:db8:5002::7"} {
		b.known(i, a, hostMAC, false)
	}
	a4, a6, b4, b6 := port("198.19.1.7", 9), port("2001:db8:5001::7", 9), port("198.19.2.7", 9), port("2001:db8:5002::7", 9)
	for _, x := range []struct {
		name string
		from int
		in   pkttest.Packet
		drop Drop
		told [2]byte // type and code
		by   string
	}{
		{"to nobody's network", 0, pkttest.UDP(a4, client), DropNone, [2]byte{3, 0}, "198.19.1.1"},
		{"to nobody's network, IPv6", 0, pkttest.UDP(a6, client6), DropNone, [2]byte{1, 0}, "2001:db8:5001::1"},
		{"C's network, which A does not reach", 0, pkttest.UDP(a4, port("198.19.3.7", 9)), DropNone, [2]byte{3, 0}, "198.19.1.1"},
		{"A's own network: A does not say so", 0, pkttest.UDP(a4, port("198.19.1.9", 9)), DropNone, [2]byte{3, 0}, "198.19.1.1"},
		{"who reaches nobody", 3, pkttest.UDP(a4, b4), DropNoRoute, [2]byte{}, ""},
		{"who reaches nobody, outwards", 3, pkttest.UDP(a4, client), DropNoRoute, [2]byte{}, ""},
		{"a source of another's network", 0, pkttest.UDP(port("198.19.3.7", 9), b4), DropMartian, [2]byte{}, ""},
		{"a source of B's own", 0, pkttest.UDP(port("198.19.2.9", 9), b4), DropMartian, [2]byte{}, ""},
		{"a source of C's, out of C, that is not C's", 2, pkttest.UDP(a4, client), DropMartian, [2]byte{}, ""},
		{"link-local", 0, pkttest.UDP(port("fe80::7", 9), b6), DropNoRoute, [2]byte{}, ""},
		{"to a group", 0, pkttest.UDP(a4, port("224.0.1.1", 9)), DropNoRoute, [2]byte{}, ""},
		{"TTL of one", 0, pkttest.UDP(a4, b4).TTL(1), DropNone, [2]byte{11, 0}, "198.19.1.1"},
		{"hop limit of one", 0, pkttest.UDP(a6, b6).TTL(1), DropNone, [2]byte{3, 0}, "2001:db8:5001::1"},
		{"too large for the tunnel", 0, pkttest.UDP(a4, b4).Size(1451).DF(), DropNone, [2]byte{3, 4}, "198.19.1.1"},
		{"too large for the tunnel, IPv6", 0, pkttest.UDP(a6, b6).Size(1451), DropNone, [2]byte{2, 0}, "2001:db8:5001::1"},
		{"the host itself", 2, pkttest.UDP(port("198.19.3.7", 9), port("198.18.0.1", 9)), DropNone, [2]byte{3, 0}, "198.19.3.1"},
		{"a source route", 0, pkttest.UDP(a4, b4).Options(131, 7, 4, 198, 18, 9, 9, 0), DropSourceRoute, [2]byte{}, ""},
		{"UDP to the gateway", 0, pkttest.UDP(a4, port("198.19.1.1", 9)), DropNone, [2]byte{3, 3}, "198.19.1.1"},
		{"outside, with a source that is C's", -1, pkttest.UDP(port("198.19.3.9", 9), port("198.19.3.7", 9)), DropMartian, [2]byte{}, ""},
		{"outside, TTL of one", -1, pkttest.UDP(client, port("198.19.3.7", 9)).TTL(1), DropNone, [2]byte{11, 0}, "198.18.0.1"},
		{"outside, UDP to the gateway", -1, pkttest.UDP(client, port("198.19.3.1", 9)), DropNone, [2]byte{3, 3}, "198.19.3.1"},
	} {
		in := x.in.Bytes()
		if x.from >= 0 {
			b.behind(x.from, inFrame(gateOf(x.from), hostMAC, etherTypeOf(in), in))
		} else {
			b.fromClient(in)
			b.round()
		}
		if d := b.dropped(); d != x.drop {
			t.Errorf("%s: dropped as %v, want %v", x.name, d, x.drop)
		}
		var ip []byte
		if x.from >= 0 {
			vni, f := b.outer()
			for f != nil && (f[12] != in[0]>>4<<4|8&f[12]) && f[12] == 8 && f[13] == 6 {
				vni, f = b.outer()
			}
			if f != nil && vni != b.overlay.ByIndex[x.from].VNI {
				t.Errorf("%s: an answer into segment %d", x.name, vni)
			}
			if f != nil {
				ip = f[14:]
			}
		} else if f := b.take(wan); f != nil {
			ip = f[14:]
		}
		b.empty()
		if x.by == "" {
			if ip != nil {
				t.Errorf("%s: %s left", x.name, pkttest.String(ip))
			}
			continue
		}
		if ip == nil {
			t.Errorf("%s: nobody was told (%v)", x.name, b.dropped())
			continue
		}
		by, at := netip.AddrFrom4([4]byte(ip[12:])), 20
		if ip[0]>>4 == 6 {
			by, at = netip.AddrFrom16([16]byte(ip[8:])), 40
		}
		if err := pkttest.Verify(ip); err != nil || by.String() != x.by || [2]byte(ip[at:]) != x.told {
			t.Errorf("%s: told %v by %s, %v", x.name, ip[at:at+2], by, err)
		}
	}
}

// A host that nobody is: the packet waits, then its sender is told that the host cannot be reached (RFC 1812 5.3.1, RFC 4443 3.1).
func TestRoutedHostThatDoesNotAnswer(t *testing.T) {
	b := newTenants(t, routedTenants())
	for i, six := range []bool{false, true} {
		src, dst, told, by := port("198.19.1.7", 9), port("198.19.2.99", 9), [2]byte{3, 1}, "198.19.1.1"
		if six {
			src, dst, told, by = port("2001:db8:5001::7", 9), port("2001:db8:5002::99", 9), [2]byte{1, 3}, "2001:db8:5001::1"
		}
		b.known(0, src.Addr().String(), hostMAC, false)
		in := pkttest.UDP(src, dst).Bytes()
		for range 2 {
			b.behind(0, inFrame(gateOf(0), hostMAC, etherTypeOf(in), in))
		}
		if b.worker.Holding() != 2 {
			t.Fatalf("%d packets wait (%v)", b.worker.Holding(), b.dropped())
		}
		b.empty()
		b.known(0, src.Addr().String(), hostMAC, false) // or the gateway would ask beside
		b.now += 1_000_000_001
		b.round()
		if b.worker.Holding() != 0 || b.answered() != 2 {
			t.Fatalf("%d packets wait, %d are answered (%v)", b.worker.Holding(), b.answered(), b.dropped())
		}
		for range 2 {
			vni, f := b.outer()
			for vni == 5002 { // the gateway there asks to the end
				vni, f = b.outer()
			}
			if f == nil || vni != 5001 || vxlan.MACOf(f) != hostMAC {
				t.Fatalf("%d: into %d went %x", i, vni, f)
			}
			ip, at := f[14:], 20
			from := netip.AddrFrom4([4]byte(ip[12:]))
			if six {
				from, at = netip.AddrFrom16([16]byte(ip[8:])), 40
			}
			if err := pkttest.Verify(ip); err != nil || [2]byte(ip[at:]) != told || from.String() != by || !bytes.Contains(ip, in[len(in)-8:]) {
				t.Errorf("told %s by %s, %v", pkttest.String(ip), from, err)
			}
		}
		b.empty()
	}
}

// Fragments are routed one by one; a later one that comes first waits a moment for its first, which may be a service's.
func TestRoutedFragments(t *testing.T) {
	b := newTenants(t, routedTenants())
	b.known(0, "198.19.1.7", hostMAC, false)
	b.known(1, "198.19.2.7", hostMAC, false)
	whole := pkttest.UDP(port("198.19.1.7", 9), port("198.19.2.7", 9)).Payload(bytes.Repeat([]byte("abcdefgh"), 200))
	for name, order := range map[string][]int{"in order": {0, 1, 2}, "the last one first": {2, 0, 1}, "without the first": {1, 2}} {
		pieces := whole.Cut(uint32(1000+len(order)+order[0]), 512, 1024)
		for _, i := range order {
			b.behind(0, inFrame(gateOf(0), hostMAC, 0x0800, pieces[i]))
		}
		b.now += 6e6
		b.round()
		b.round()
		n := 0
		for vni, f := b.outer(); f != nil; vni, f = b.outer() {
			if f[12] == 8 && f[13] == 0 {
				if vni != 5002 || f[22] != 63 || pkttest.Verify(f[14:]) != nil {
					t.Errorf("%s: into %d went %s", name, vni, pkttest.String(f[14:]))
				}
				n++
			}
		}
		if n != len(order) || b.worker.Holding() != 0 {
			t.Errorf("%s: %d of %d fragments left, %d wait (%v)", name, n, len(order), b.worker.Holding(), b.dropped())
		}
	}
	// Who reaches nobody has them dropped, also those that came before their first.
	b.behind(3, inFrame(gateOf(3), hostMAC, 0x0800, whole.Cut(77, 512)[1]))
	b.now += 6e6
	b.round()
	if d := b.dropped(); d != DropNoRoute || b.worker.Holding() != 0 {
		t.Errorf("of a tenant that reaches nobody: %v", d)
	}
	b.silent("nothing of it")
}

// ICMP errors are routed as all else: they come back to the tenant that they concern, and never go to the host.
func TestRoutedErrors(t *testing.T) {
	b := newTenants(t, routedTenants())
	b.known(0, "198.19.1.7", hostMAC, false)
	b.known(2, "198.19.3.7", hostMAC, false)
	quoted := pkttest.UDP(port("198.19.1.7", 9), port("198.19.2.7", 9))
	b.behind(1, inFrame(gateOf(1), hostMAC, 0x0800, pkttest.ICMPError(netip.MustParseAddr("198.19.2.7"), netip.MustParseAddr("198.19.1.7"), 3, 3, 0, quoted.Bytes()).Bytes()))
	if vni, f := b.outer(); vni != 5001 || f == nil || f[34] != 3 {
		t.Errorf("from B to A: into %d went %x (%v)", vni, f, b.dropped())
	}
	quoted = pkttest.UDP(port("198.19.3.7", 9), client)
	b.fromClient(pkttest.ICMPError(router, netip.MustParseAddr("198.19.3.7"), 3, 1, 0, quoted.Bytes()).Bytes())
	b.round()
	if vni, f := b.outer(); vni != 5003 || f == nil || f[34] != 3 {
		t.Errorf("from outside to C: into %d went %x (%v)", vni, f, b.dropped())
	}
	b.behind(3, inFrame(gateOf(3), hostMAC, 0x0800, pkttest.ICMPError(netip.MustParseAddr("198.19.1.7"), netip.MustParseAddr("198.18.1.1"), 3, 3, 0, quoted.Bytes()).Bytes()))
	if v, _ := b.engine.Verdicts(); b.dropped() != DropNoRoute || v.Punted != 0 {
		t.Errorf("from D to the host: %v, %d punted", b.dropped(), v.Punted)
	}
}

// TestReachLikeItsTwin compares where packets of random tenants go with what net/netip says of their networks.
func TestReachLikeItsTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for round := range 40 {
		n := 2 + r.IntN(4)
		list := make([]tenantOf, n)
		for i := range list {
			list[i] = tenantOf{vni: uint32(100 + i), networks: []string{fmt.Sprintf("198.19.%d.1/24", i)}, underlay: r.IntN(3) == 0}
			if r.IntN(2) == 0 {
				list[i].networks = append(list[i].networks, fmt.Sprintf("198.19.%d.1/%d", 64+16*i, 20+r.IntN(8)))
			}
			for j := range n {
				if r.IntN(2) == 0 {
					list[i].reaches = append(list[i].reaches, j)
				}
			}
		}
		holds := func(i int, a netip.Addr) bool {
			for _, n := range list[i].networks {
				if netip.MustParsePrefix(n).Contains(a) {
					return true
				}
			}
			return false
		}
		some := func() netip.Addr {
			switch r.IntN(8) {
			case 0:
				return client.Addr()
			case 1:
				return netip.AddrFrom4([4]byte{203, 0, 113, byte(r.IntN(256))}) // nowhere
			}
			return netip.AddrFrom4([4]byte{198, 19, byte(r.IntN(2)*64 + r.IntN(6)*map[bool]int{true: 16, false: 1}[r.IntN(2) == 0]), byte(2 + r.IntN(250))})
		}
		b := newTenants(t, list)
		for range 30 {
			from, src, dst := r.IntN(n+1)-1, some(), some()
			inward := func(a netip.Addr) int {
				for i := range list {
					if list[i].underlay && holds(i, a) {
						return i
					}
				}
				return -1
			}
			// the twin: into which tenant, -1 outwards, -2 nowhere
			want := -2
			switch {
			case from < 0:
				if inward(src) < 0 {
					if to := inward(dst); to >= 0 {
						want = to
					}
				}
			case holds(from, src):
				for _, j := range list[from].reaches {
					if holds(j, dst) {
						want = j
					}
				}
				if want == -2 && list[from].underlay && dst == client.Addr() {
					want = -1
				}
			}
			in := pkttest.UDP(netip.AddrPortFrom(src, 9), netip.AddrPortFrom(dst, 9)).Bytes()
			if from >= 0 {
				b.behind(from, inFrame(gateOf(from), hostMAC, 0x0800, in))
			} else {
				b.fromClient(in)
				b.round()
			}
			got := -2
			if b.worker.Holding() > 0 { // the gateway of where it goes asks for the host
				for p := range b.ports {
					for f := b.take(p); f != nil; f = b.take(p) {
						if p != wan || len(f) < 50+42 || binary.BigEndian.Uint16(f[50+12:]) != 0x0806 {
							continue
						}
						if who := netip.AddrFrom4([4]byte(f[50+38:])); who == dst {
							got = int(binary.BigEndian.Uint32(f[46:])>>8) - 100
						}
					}
				}
			} else if f := b.take(wan); f != nil && len(f) == 14+len(in) && bytes.Equal(f[14+12:14+20], in[12:20]) {
				got = -1
			}
			if got != want {
				t.Fatalf("round %d: from %d, %s to %s: went to %d, want %d (%v)\n%+v", round, from, src, dst, got, want, b.dropped(), list)
			}
			b.empty()
			for range 3 {
				b.now += 1_100_000_000
				b.round()
				b.empty()
			}
			if b.worker.Holding() != 0 {
				t.Fatalf("round %d: %d wait still", round, b.worker.Holding())
			}
		}
	}
}
