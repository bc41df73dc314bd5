package steer

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
)

// ipsecCases are about protocols that are balanced as a whole.
func ipsecCases() []ruleCase {
	const esp, ah = packet.ProtoESP, packet.ProtoAH
	return []ruleCase{
		{"ESP to a VIP that has it", raw(client4, vpn4, esp, 40), TakeService},
		{"AH to a VIP that has it", raw(client4, vpn4, ah, 40), TakeService},
		{"ESP, IPv6", raw(client6, vpn6, esp, 40), TakeService},
		{"ESP behind extension headers", ipPacket(client6, vpn6, 60, join(extension(esp, 2), make([]byte, 40))), TakeService},
		{"ESP of no bytes", raw(client4, vpn4, esp, 0), TakeService},
		{"IKE beside them", udp(client4, 500, vpn4, 500), TakeService},
		{"ESP to a VIP that has it not", raw(client4, vip4, esp, 40), PassVIP},
		{"AH, IPv6, is no protocol of its own", ipPacket(client6, vpn6, ah, join(authHeader(protoTCP, 12), tcpHeader(9, 80))), PassVIP},
		{"a fragment of ESP", raw(client4, vpn4, esp, 64, lastFragment), TakeFragment},
		{"a first fragment of AH", raw(client4, vpn4, ah, 64, moreFragments), TakeFragment},
		{"a fragment of ESP, IPv6", ipPacket(client6, vpn6, 44, join(fragment6(esp, 1280, false), make([]byte, 40))), TakeFragment},
		{"an error about ESP from the VIP", icmp(router4, vpn4, 3, raw(vpn4, client4, esp, 8)), TakeICMP},
		{"an error about AH from the VIP", icmp(router4, vpn4, 3, raw(vpn4, client4, ah, 40)), TakeICMP},
		{"an error about ESP, IPv6", icmp(router6, vpn6, 2, raw(vpn6, client6, esp, 40)), TakeICMP},
		{"an error that quotes 7 bytes of ESP only", icmp(router4, vpn4, 3, raw(vpn4, client4, esp, 7)), PassVIP},
		{"an error about ESP from a VIP that has it not", icmp(router4, vip4, 3, raw(vip4, client4, esp, 40)), PassVIP},
		{"ESP from a server", raw(any4, client4, esp, 40), TakeServer},
		{"AH from a server", raw(any4, client4, ah, 40), TakeServer},
		{"ESP from a server, IPv6", raw(web6, client6, esp, 40), TakeServer},
		{"ESP from a server that has it not", raw(web4, client4, esp, 40), PassOther},
		{"a first fragment of ESP from a server", raw(any4, client4, esp, 64, moreFragments), TakeServer},
		{"a later fragment of ESP from a server", raw(any4, client4, esp, 64, lastFragment), TakeServerFragment},
		{"a later fragment of ESP from a server that has it not", raw(web4, client4, esp, 64, lastFragment), PassOther},
		{"a later fragment of ESP from a server, IPv6", ipPacket(web6, client6, 44, join(fragment6(esp, 1280, true), make([]byte, 40))), TakeServerFragment},
		{"an error about ESP to a server", icmp(router4, client4, 3, raw(client4, any4, esp, 8)), TakeServerICMP},
		{"an error about ESP to a server that has it not", icmp(router4, client4, 3, raw(client4, web4, esp, 8)), PassOther},
		{"an error about ESP from a NAT address, though port 0 is in its range", icmp(router4, low4, 3, raw(low4, any4, esp, 8)), PassHost},
		{"an error about UDP from port 0 there", icmp(router4, low4, 3, udp(low4, 0, far4, 9)), TakeNAT},
	}
}

// netCases are about VIPs that are prefixes.
func netCases() []ruleCase {
	first, last := ip("198.19.0.0"), ip("198.19.255.255")
	narrow := ip("198.19.7.130")
	in6, deep6 := ip("2001:db8:19:ffff:ffff::1"), ip("2001:db8:19:7:7fff::1")
	return []ruleCase{
		{"prefix: its first address", tcp(client4, 4000, first, 80), TakeService},
		{"prefix: its last address", tcp(client4, 4000, last, 80), TakeService},
		{"prefix: the address before", tcp(client4, 4000, ip("198.18.255.255"), 80), PassOther},
		{"prefix: the address behind", tcp(client4, 4000, ip("198.20.0.0"), 80), PassOther},
		{"prefix: a range of ports", tcp(client4, 4000, last, 8010), TakeService},
		{"prefix: beside the range", tcp(client4, 4000, last, 8011), PassVIP},
		{"prefix: another protocol", udp(client4, 4000, last, 80), PassVIP},
		{"prefix: ESP", raw(client4, last, packet.ProtoESP, 40), TakeService},
		{"prefix: echo", icmp(client4, last, 8, nil), PassVIP},
		{"prefix: a fragment", raw(client4, last, protoUDP, 64, lastFragment), TakeFragment},
		{"prefix: malformed", ipPacket(client4, last, protoTCP, []byte{1, 2}), TakeMalformed},
		{"prefix: an error about an answer", icmp(router4, last, 3, tcp(last, 80, client4, 4000)), TakeICMP},
		{"prefix: of a port in the range", icmp(router4, last, 3, tcp(last, 8005, client4, 4000)), TakeICMP},
		{"prefix: of another port", icmp(router4, last, 3, tcp(last, 81, client4, 4000)), PassVIP},
		{"prefix: about another address's answer", icmp(router4, last, 3, tcp(first, 80, client4, 4000)), PassVIP},
		{"prefix within: its own service", tcp(client4, 4000, narrow, 443), TakeService},
		{"prefix within: not those of the wider", tcp(client4, 4000, narrow, 80), PassVIP},
		{"prefix within: the address before", tcp(client4, 4000, ip("198.19.7.127"), 80), TakeService},
		{"an address within that is a VIP: its own service", tcp(client4, 4000, inner4, 22), TakeService},
		{"an address within that is a VIP: not the prefix's", tcp(client4, 4000, inner4, 443), PassVIP},
		{"an address within that is the host's", tcp(client4, 4000, own4, 443), PassHost},
		{"an address within that is a server's", tcp(client4, 4000, stray4, 80), PassOther},
		{"that server's answer", tcp(stray4, 80, client4, 4000), TakeServer},
		{"from an address within, to nobody", tcp(last, 80, client4, 4000), PassOther},
		{"prefix, IPv6: every port", udp(client6, 4000, in6, 65535), TakeService},
		{"prefix, IPv6: another protocol", tcp(client6, 4000, in6, 80), PassVIP},
		{"prefix, IPv6: too big", icmp(router6, in6, 2, udp(in6, 1, client6, 4000)), TakeICMP},
		{"prefix within, IPv6: cut within the second half", tcp(client6, 4000, deep6, 80), TakeService},
		{"prefix within, IPv6: the next bit", udp(client6, 4000, ip("2001:db8:19:7:8000::1"), 80), TakeService},
		{"prefix, IPv6: outside", udp(client6, 4000, ip("2001:db8:1a::1"), 80), PassOther},
		{"an IPv4 prefix written into IPv6 is another", tcp(client6, 4000, ip("::198.19.0.1"), 80), PassOther},
	}
}

// tunnelCases are ICMP errors about what we put into tunnels, and what looks like them.
func tunnelCases() []ruleCase {
	to := func(src, dst netip.Addr, proto layers.IPProtocol) []byte { return raw(src, dst, proto, 8) }
	in := ip("198.19.0.1")
	return []ruleCase{
		{"tunnel: IPIP, too big", icmp(router4, local4, 3, to(local4, web4, packet.ProtoIPIP)), TakeTunnelICMP},
		{"tunnel: IPIP, time exceeded", icmp(router4, local4, 11, to(local4, web4, packet.ProtoIPIP)), TakeTunnelICMP},
		{"tunnel: IPIP, the whole packet quoted", icmp(web4, local4, 3, ipPacket(local4, web4, packet.ProtoIPIP, tcp(client4, 4000, vip4, 80))), TakeTunnelICMP},
		{"tunnel: IPv6 in IPv4", icmp(router4, local4, 3, to(local4, web4, packet.ProtoIPv6)), TakeTunnelICMP},
		{"tunnel: GRE", icmp(router4, local4, 3, to(local4, web4, packet.ProtoGRE)), TakeTunnelICMP},
		{"tunnel: GUE", icmp(router4, local4, 3, udp(local4, 50000, web4, 6080)), TakeTunnelICMP},
		{"tunnel: UDP to another port", icmp(router4, local4, 3, udp(local4, 6080, web4, 6081)), PassHost},
		{"tunnel: TCP to the port", icmp(router4, local4, 3, tcp(local4, 50000, web4, 6080)), PassHost},
		{"tunnel: 6in6", icmp(router6, local6, 2, to(local6, web6, packet.ProtoIPv6)), TakeTunnelICMP},
		{"tunnel: a protocol that this server does not get", icmp(router6, local6, 2, to(local6, web6, packet.ProtoIPIP)), PassHost},
		{"tunnel: GUE over IPv6", icmp(router6, local6, 1, udp(local6, 50000, far6, 6080)), TakeTunnelICMP},
		{"tunnel: behind options", icmp(router4, local4, 3, raw(local4, web4, packet.ProtoIPIP, 8, ipOptions)), TakeTunnelICMP},
		{"tunnel: from a NAT address", icmp(router4, nat4, 3, to(nat4, web4, packet.ProtoIPIP)), TakeTunnelICMP},
		{"tunnel: GUE from a NAT address's port outside its range", icmp(router4, nat4, 3, udp(nat4, 1, web4, 6080)), TakeTunnelICMP},
		{"tunnel: from a VTEP", icmp(router4, vtep4, 3, to(vtep4, web4, packet.ProtoGRE)), TakeTunnelICMP},
		{"tunnel: from a VIP", icmp(router4, vip4, 3, to(vip4, web4, packet.ProtoIPIP)), TakeTunnelICMP},
		{"tunnel: from an address of a VIP's prefix", icmp(router4, in, 3, to(in, web4, packet.ProtoIPIP)), TakeTunnelICMP},
		{"tunnel: from an address that the host does not have", icmp(router4, client4, 3, to(client4, web4, packet.ProtoIPIP)), PassOther},
		{"tunnel: another server", icmp(router4, local4, 3, to(local4, far4, packet.ProtoIPIP)), PassHost},
		{"tunnel: the server's packet, not ours", icmp(router4, local4, 3, to(web4, local4, packet.ProtoIPIP)), PassHost},
		{"tunnel: another source of ours", icmp(router4, local4, 3, to(vip4, web4, packet.ProtoIPIP)), PassHost},
		{"tunnel: quoting 7 bytes only", icmp(router4, local4, 3, raw(local4, web4, packet.ProtoIPIP, 7)), PassHost},
		{"tunnel: a later fragment", icmp(router4, local4, 3, raw(local4, web4, packet.ProtoIPIP, 64, lastFragment)), PassHost},
		{"tunnel: a redirect", icmp(router4, local4, 5, to(local4, web4, packet.ProtoIPIP)), PassHost},
		{"tunnel: a parameter problem", icmp(router4, local4, 12, to(local4, web4, packet.ProtoIPIP)), PassHost},
		{"tunnel: a packet of it, not an error", to(web4, local4, packet.ProtoIPIP), PassHost},
	}
}

// TestMappedPrefix writes an IPv4 prefix in IPv6's words: it is IPv4's, unless it is wider than all of IPv4.
func TestMappedPrefix(t *testing.T) {
	for _, tt := range []struct {
		prefix string
		want   network
	}{
		{"::ffff:198.19.7.9/112", netOf(wide4)},
		{"::ffff:198.18.9.9/128", netOf(One(vip4))},
		{"198.19.255.255/16", netOf(wide4)},
		{"::ffff:198.19.7.9/80", network{family: 6, bits: 80}},
		{"::ffff:198.19.7.9/95", network{addr{lo: 0xfffe << 32}, 6, 95}},
		{"0.0.0.0/0", network{family: 4}},
	} {
		if got := netOf(netip.MustParsePrefix(tt.prefix)); got != tt.want {
			t.Errorf("%s is %+v, want %+v", tt.prefix, got, tt.want)
		}
	}
	if got := One(netip.AddrFrom16(vip4.As16())); got != One(vip4) || !netOf(got).single() {
		t.Errorf("a mapped address alone is %v", got)
	}
}

// TestManyServicesOfPrefix is a prefix of 1024 services, single ports and ranges, replaced by one in another place.
func TestManyServicesOfPrefix(t *testing.T) {
	many := func(from uint16) *Rules {
		r := testRules()
		r.Services = nil
		for i := range uint16(1024) {
			r.Services = append(r.Services, Service{wide4, packet.ProtoTCP, from + 4*i, from + 4*i + i%2})
		}
		return r
	}
	r := many(1000)
	p := loaded(t, r, Options{})
	for round, from := range []uint16{1000, 1002} {
		r = many(from)
		if err := p.Add(r); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Remove(); err != nil {
			t.Fatal(err)
		}
		c := compiled(r)
		for i := range uint16(1024) {
			for k := range uint16(4) {
				want := PassVIP
				if k <= i%2 {
					want = TakeService
				}
				if got := agree(t, p, c, frame(tcp(client4, 4000, ip("198.19.200.7"), from+4*i+k))); got != want {
					t.Fatalf("round %d: port %d: %s, want %s", round, from+4*i+k, got, want)
				}
				if i > 16 && i < 1000 { // the rest is like it
					break
				}
			}
		}
	}
	if len(p.held[tableNets]) != 1 {
		t.Errorf("%d prefixes, want 1", len(p.held[tableNets]))
	}
}
