package dataplane_test

import (
	"bytes"
	"net/netip"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

var (
	tenantVIP = netip.MustParseAddrPort("198.19.1.100:80")
	inside    = netip.MustParseAddrPort("198.19.1.7:8080") // the server, or a client, of each tenant
	insider   = netip.MustParseAddrPort("198.19.1.9:5000")
)

// within puts the service into a segment.
func (x serving) within(vni uint32) serving {
	edit := x.edit
	x.edit = func(s *Service) {
		s.VNI = vni
		if edit != nil {
			edit(s)
		}
	}
	return x
}

// inSegment is a server in a segment; from is the address it is reached from, if not the client's.
func inSegment(addr netip.AddrPort, vni uint32, from string) Backend {
	b := server(addr, ForwardNAT)
	b.VNI = vni
	if from != "" {
		a, _ := AddrOf(netip.MustParseAddr(from))
		b.Sources = &Sources{Addrs: []conntrack.Addr{a}, From: 1024, To: 1024, Cursor: new(Cursor)}
	}
	return b
}

// Two tenants have the same network, the same hosts and the same VIP, and neither sees anything of the other. The server is on its client's link, so
// it is reached from the gateway's address.
func TestOneVIPInTwoSegments(t *testing.T) {
	list := []tenantOf{{vni: 5001, networks: []string{"198.19.1.1/24"}}, {vni: 5002, networks: []string{"198.19.1.1/24"}}}
	var options []bedOption
	for _, x := range list {
		options = append(options, serving{vip: tenantVIP, servers: []Backend{inSegment(inside, x.vni, "198.19.1.1")}}.within(x.vni).option(t))
	}
	b := newTenants(t, list, options...)
	gate := netip.MustParseAddrPort("198.19.1.1:1024")
	const clientMAC = vxlan.MAC(0x020000000d01)
	for i, x := range list {
		// The gateway answers for the VIP, in its segment.
		b.behind(i, inFrame(vxlan.Broadcast, clientMAC, 0x0806, arp(1, clientMAC, insider.Addr(), 0, tenantVIP.Addr())))
		if vni, out := b.outer(); vni != x.vni || out == nil || !bytes.Equal(out[14:], arp(2, gateOf(i), tenantVIP.Addr(), clientMAC, insider.Addr())) {
			t.Fatalf("%d: ARP for the VIP was answered with %x", x.vni, out)
		}
		b.known(i, inside.Addr().String(), hostMAC, false)
		b.known(i, insider.Addr().String(), clientMAC, false)
	}
	for round, flags := range []func(pkttest.Packet) pkttest.Packet{func(p pkttest.Packet) pkttest.Packet { return p.SYN() }, func(p pkttest.Packet) pkttest.Packet { return p.Seq(1).Ack(1) }} {
		for i, x := range list {
			b.behind(i, inFrame(gateOf(i), clientMAC, 0x0800, flags(pkttest.TCP(insider, tenantVIP)).Bytes()))
			vni, out := b.outer()
			if want := flags(pkttest.TCP(gate, inside)).TTL(63).Bytes(); vni != x.vni || out == nil || vxlan.MACOf(out) != hostMAC || !bytes.Equal(out[14:], want) {
				t.Fatalf("%d, round %d: into %d went %x (%v)", x.vni, round, vni, out, b.dropped())
			}
			b.behind(i, inFrame(gateOf(i), hostMAC, 0x0800, pkttest.TCP(inside, gate).SYN().Ack(1).Bytes()))
			vni, out = b.outer()
			if want := pkttest.TCP(tenantVIP, insider).SYN().Ack(1).TTL(63).Bytes(); vni != x.vni || out == nil || vxlan.MACOf(out) != clientMAC || !bytes.Equal(out[14:], want) {
				t.Fatalf("%d, round %d: back into %d went %x (%v)", x.vni, round, vni, out, b.dropped())
			}
		}
	}
	for i := range list {
		if s := b.sum(i); s.Conns != 1 || s.InPackets != 2 || s.OutPackets != 2 {
			t.Errorf("server %d: %+v", i, s)
		}
	}
	// Outside nobody has the VIP, nor does a third tenant.
	if out, _ := b.through(false, pkttest.TCP(client, tenantVIP).SYN().Bytes()); out != nil {
		t.Errorf("from outside: %s", pkttest.String(out))
	}
	// What the VIP does not have it says, in the client's segment; ICMP and ping as any host.
	for name, x := range map[string]struct{ in, want []byte }{
		"TCP":  {pkttest.TCP(insider, netip.AddrPortFrom(tenantVIP.Addr(), 81)).SYN().Seq(7).Bytes(), pkttest.TCP(netip.AddrPortFrom(tenantVIP.Addr(), 81), insider).RST().Ack(8).Bytes()},
		"ping": {pkttest.Echo(insider.Addr(), tenantVIP.Addr(), 1, 2).Bytes(), pkttest.EchoReply(tenantVIP.Addr(), insider.Addr(), 1, 2).Bytes()},
	} {
		b.behind(1, inFrame(gateOf(1), clientMAC, 0x0800, x.in))
		vni, out := b.outer()
		if vni != 5002 || out == nil || vxlan.MACOf(out) != clientMAC || pkttest.Verify(out[14:]) != nil || pkttest.String(out[14:]) == "" {
			t.Errorf("%s: answered with %x (%v)", name, out, b.dropped())
			continue
		}
		if out[14+9] != x.want[9] || !bytes.Equal(out[14+12:14+20], x.want[12:20]) || name == "TCP" && out[14+33]&0x04 == 0 || name == "ping" && out[14+20] != 0 {
			t.Errorf("%s: answered with %s, want %s", name, pkttest.String(out[14:]), pkttest.String(x.want))
		}
	}
	b.behind(1, inFrame(gateOf(1), clientMAC, 0x0800, pkttest.UDP(insider, netip.AddrPortFrom(tenantVIP.Addr(), 53)).Bytes()))
	if vni, out := b.outer(); vni != 5002 || out == nil || out[34] != 3 || out[35] != 3 || netip.AddrFrom4([4]byte(out[26:])) != tenantVIP.Addr() {
		t.Errorf("UDP: answered with %x (%v)", out, b.dropped())
	}
}

// A VIP in a segment has servers outside it: in another segment and on the host's own links. The answers go to the client's segment.
func TestServersOutsideTheVIPsSegment(t *testing.T) {
	list := []tenantOf{{vni: 5001, networks: []string{"198.19.1.1/24"}}, {vni: 5002, networks: []string{"198.19.2.1/24"}}}
	far := netip.MustParseAddrPort("198.19.2.7:8080")
	outside := server(web, ForwardNAT)
	from, _ := AddrOf(lanIP)
	outside.Sources = &Sources{Addrs: []conntrack.Addr{from}, From: 61000, To: 61000, Cursor: new(Cursor)}
	svc := serving{vip: tenantVIP, servers: []Backend{inSegment(far, 5002, ""), outside}}.within(5001)
	b := newTenants(t, list, svc.option(t))
	b.known(0, insider.Addr().String(), localMAC, true) // on our port
	b.known(1, far.Addr().String(), hostMAC, false)

	b.local(0, inFrame(gateOf(0), localMAC, 0x0800, pkttest.TCP(insider, tenantVIP).SYN().Bytes()))
	vni, out := b.outer()
	if want := pkttest.TCP(insider, far).SYN().TTL(63).Bytes(); vni != 5002 || out == nil || vxlan.MACOf(out[6:]) != gateOf(1) || !bytes.Equal(out[14:], want) {
		t.Fatalf("into %d went %x (%v)", vni, out, b.dropped())
	}
	b.behind(1, inFrame(gateOf(1), hostMAC, 0x0800, pkttest.TCP(far, insider).SYN().Ack(1).Bytes()))
	back := pkttest.TCP(tenantVIP, insider).SYN().Ack(1).TTL(63).Bytes()
	if i, out := b.access(); i != 0 || out == nil || vxlan.MACOf(out) != localMAC || vxlan.MACOf(out[6:]) != gateOf(0) || !bytes.Equal(out[14:], back) {
		t.Fatalf("from another segment to port %d went %x (%v)", i, out, b.dropped())
	}

	second := netip.AddrPortFrom(insider.Addr(), 5001)
	b.local(0, inFrame(gateOf(0), localMAC, 0x0800, pkttest.TCP(second, tenantVIP).SYN().Bytes()))
	want := pkttest.TCP(netip.AddrPortFrom(lanIP, 61000), web).SYN().TTL(63).Bytes()
	if out := b.take(lan); out == nil || !bytes.Equal(out[14:], want) {
		t.Fatalf("to the server outside went %x (%v)", out, b.dropped())
	}
	b.fromServer(pkttest.TCP(web, netip.AddrPortFrom(lanIP, 61000)).SYN().Ack(1).Bytes())
	b.round()
	back = pkttest.TCP(tenantVIP, second).SYN().Ack(1).TTL(63).Bytes()
	if i, out := b.access(); i != 0 || out == nil || vxlan.MACOf(out) != localMAC || !bytes.Equal(out[14:], back) {
		t.Fatalf("from outside to port %d went %x (%v)", i, out, b.dropped())
	}
}

// With hairpin only a client in the server's own segment is masqueraded.
func TestHairpinInASegment(t *testing.T) {
	list := []tenantOf{{vni: 5001, networks: []string{"198.19.1.1/24"}}, {vni: 5002, networks: []string{"198.19.2.1/24"}}}
	far := netip.MustParseAddrPort("198.19.2.7:8080")
	var servers []Backend
	for i, at := range []netip.AddrPort{inside, far} {
		s := inSegment(at, list[i].vni, []string{"198.19.1.1", "198.19.2.1"}[i])
		s.Sources.When = MasqueradeHairpin
		servers = append(servers, s)
	}
	b := newTenants(t, list, serving{vip: tenantVIP, servers: servers}.within(5001).option(t))
	b.known(0, inside.Addr().String(), hostMAC, false)
	b.known(1, far.Addr().String(), hostMAC, false)
	for i, want := range []pkttest.Packet{pkttest.TCP(netip.MustParseAddrPort("198.19.1.1:1024"), inside), pkttest.TCP(netip.AddrPortFrom(insider.Addr(), 5001), far)} {
		b.behind(0, inFrame(gateOf(0), localMAC, 0x0800, pkttest.TCP(netip.AddrPortFrom(insider.Addr(), uint16(5000+i)), tenantVIP).SYN().Bytes()))
		if vni, out := b.outer(); vni != list[i].vni || out == nil || !bytes.Equal(out[14:], want.SYN().TTL(63).Bytes()) {
			t.Errorf("server %d: into %d went %x (%v)", i, vni, out, b.dropped())
		}
	}
}

// A client sticks to its server in each segment by itself, and so beside a VIP that is a prefix and begins with the same address.
func TestPersistenceOfTenants(t *testing.T) {
	list := []tenantOf{{vni: 8, networks: []string{"198.19.1.1/24"}}, {vni: 5002, networks: []string{"198.19.1.1/24"}}}
	at := netip.MustParseAddrPort("198.19.9.0:80")
	stuck := func(s *Service) { s.Persistence = &Persistence{Mask4: ^uint32(0)} }
	options := []bedOption{serving{vip: at, net: "198.19.9.0/24", servers: []Backend{server(web, ForwardNAT)}, edit: stuck}.option(t)}
	for _, x := range list {
		options = append(options, serving{vip: at, servers: []Backend{inSegment(inside, x.vni, "198.19.1.1")}, edit: stuck}.within(x.vni).option(t))
	}
	b := newTenants(t, list, options...)
	for i := range list {
		b.known(i, inside.Addr().String(), hostMAC, false)
	}
	b.fromClient(pkttest.TCP(insider, at).SYN().Bytes())
	b.round()
	if out := b.take(lan); out == nil {
		t.Fatalf("the VIP outside: %v", b.dropped())
	}
	for i, x := range list {
		b.behind(i, inFrame(gateOf(i), localMAC, 0x0800, pkttest.TCP(insider, at).SYN().Bytes()))
		if vni, out := b.outer(); vni != x.vni || out == nil {
			t.Errorf("segment %d: into %d went %x (%v)", x.vni, vni, out, b.dropped())
		}
	}
	b.wantCounts("one client each", [3]int{1, 0, 1}, [3]int{1, 0, 1}, [3]int{1, 0, 1})
}

// A VIP that is in no segment serves tenants, too, unless the segment has the same VIP itself.
func TestVIPOutsideServesTenants(t *testing.T) {
	list := []tenantOf{{vni: 5001, networks: []string{"198.19.1.1/24"}}, {vni: 5002, networks: []string{"198.19.1.1/24"}}}
	both := netip.MustParseAddrPort("198.18.9.20:80")
	here := netip.MustParseAddrPort("198.19.1.7:8080")
	b := newTenants(t, list, serving{vip: both, servers: []Backend{server(web, ForwardNAT)}}.option(t),
		serving{vip: both, servers: []Backend{inSegment(here, 5002, "198.19.1.1")}}.within(5002).option(t))
	b.known(1, here.Addr().String(), hostMAC, false)
	b.behind(0, inFrame(gateOf(0), localMAC, 0x0800, pkttest.TCP(insider, both).SYN().Bytes()))
	if out := b.take(lan); out == nil || !bytes.Equal(out[14:], pkttest.TCP(insider, web).SYN().TTL(63).Bytes()) {
		t.Errorf("the VIP outside: %x (%v)", out, b.dropped())
	}
	b.behind(1, inFrame(gateOf(1), localMAC, 0x0800, pkttest.TCP(insider, both).SYN().Bytes()))
	if vni, out := b.outer(); vni != 5002 || out == nil || vxlan.MACOf(out) != hostMAC {
		t.Errorf("the segment's own: into %d went %x (%v)", vni, out, b.dropped())
	}
	// Where a tenant's VIP has no such port, the tenant's VIP says so: it is not asked for outside.
	b.behind(1, inFrame(gateOf(1), localMAC, 0x0800, pkttest.TCP(insider, netip.AddrPortFrom(both.Addr(), 443)).SYN().Bytes()))
	if b.answered() != 1 {
		t.Errorf("another port of the segment's own: %v", b.dropped())
	}
}

// TestSourcesOfTenants: what one tenant's host has had of answers, or shown of itself, another tenant's with the same address has not.
func TestSourcesOfTenants(t *testing.T) {
	list := []tenantOf{{vni: 5001, networks: []string{"198.19.1.1/24"}}, {vni: 5002, networks: []string{"198.19.1.1/24"}}}
	var options []bedOption
	for _, x := range list {
		s := serving{vip: tenantVIP, servers: []Backend{inSegment(inside, x.vni, "198.19.1.1")}, edit: func(s *Service) { s.Cookies, s.Challenge = CookiesAlways, true }}
		options = append(options, s.within(x.vni).option(t))
	}
	b := newTenants(t, list, append(options, func(s *Snapshot, _ *Engine) { s.Answers.PerSecond = 100 })...)
	const clientMAC = vxlan.MAC(0x020000000d01)
	for i := range list {
		b.known(i, inside.Addr().String(), hostMAC, false)
		b.known(i, insider.Addr().String(), clientMAC, false)
	}
	say := func(i int, p pkttest.Packet) []byte {
		b.behind(i, inFrame(gateOf(i), clientMAC, 0x0800, p.Bytes()))
		_, out := b.outer()
		return out
	}
	syn := pkttest.TCP(insider, tenantVIP).SYN().Seq(100)
	asked := say(0, syn)
	if asked == nil || asked[14+33] != 0x10 {
		t.Fatalf("the first SYN: %x, want an ACK", asked)
	}
	wrong := uint32(asked[14+28])<<24 | uint32(asked[14+29])<<16 | uint32(asked[14+30])<<8 | uint32(asked[14+31])
	if out := say(0, pkttest.TCP(insider, tenantVIP).RST().Seq(wrong)); out != nil {
		t.Fatalf("the RST was answered with %x", out)
	}
	if out := say(1, syn); out == nil || out[14+33] != 0x10 {
		t.Errorf("the other tenant's SYN: %x, want an ACK: nobody has answered there", out)
	}
	if out := say(0, syn); out == nil || out[14+33] != 0x02 {
		t.Errorf("the SYN of who has answered: %x, want a SYN to the server", out)
	}
	answers := [2]int{}
	for i := range list {
		for range 50 {
			if out := say(i, pkttest.TCP(insider, netip.AddrPortFrom(tenantVIP.Addr(), 81)).SYN()); out != nil {
				answers[i]++
			}
		}
	}
	if answers != [2]int{10, 10} {
		t.Errorf("%v answers to a source of each tenant, want a tenth of 100 for each", answers)
	}
}
