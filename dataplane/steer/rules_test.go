package steer

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
)

const (
	protoTCP  = layers.IPProtocolTCP
	protoUDP  = layers.IPProtocolUDP
	protoSCTP = layers.IPProtocolSCTP
)

// ipOptions makes an IPv4 header of 15 words.
func ipOptions(h *layers.IPv4) {
	h.Options = []layers.IPv4Option{{OptionType: 7, OptionLength: 39, OptionData: make([]byte, 37)}, {OptionType: 1}}
}

// raw is n bytes of a protocol that nobody looks into.
func raw(src, dst netip.Addr, proto layers.IPProtocol, n int, change ...func(*layers.IPv4)) []byte {
	return ipPacket(src, dst, proto, make([]byte, n), change...)
}

func dontFragment(h *layers.IPv4)  { h.Flags = layers.IPv4DontFragment }
func moreFragments(h *layers.IPv4) { h.Flags = layers.IPv4MoreFragments }
func lastFragment(h *layers.IPv4)  { h.FragOffset = 185 }
func farFragment(h *layers.IPv4)   { h.FragOffset = 4096 }

// sctpHeader is common header and nothing else.
func sctpHeader(sport, dport uint16) []byte {
	return []byte{byte(sport >> 8), byte(sport), byte(dport >> 8), byte(dport), 0, 0, 0, 0, 0, 0, 0, 0}
}

// patch returns b with one byte changed.
func patch(b []byte, at int, to byte) []byte {
	b = append([]byte(nil), b...)
	b[at] = to
	return b
}

type ruleCase struct {
	name   string
	packet []byte // put into a frame for our MAC, untagged and tagged
	want   Reason
}

// packetCases are about IP packets; every one is asked untagged, with a priority tag, with tag 7, and stacked.
func packetCases() []ruleCase {
	return slices.Concat(basicCases(), ipsecCases(), netCases(), tunnelCases())
}

func basicCases() []ruleCase {
	nd := func(kind uint8) []byte { return icmp(router6, local6, kind, make([]byte, 16)) }
	return []ruleCase{
		// 1. ND
		{"ND: router solicitation", nd(133), PassARPND},
		{"ND: neighbour advertisement", nd(136), PassARPND},
		{"ND: redirect", nd(137), PassARPND},
		{"ND to a VIP", icmp(router6, vip6, 135, make([]byte, 16)), PassARPND},
		{"ICMPv6 132 is not ND", icmp(router6, vip6, 132, nil), PassVIP},
		{"ICMPv6 138 is not ND", icmp(router6, local6, 138, nil), PassHost},

		// 2. local NAT addresses and VTEPs
		{"NAT: first port of the range", tcp(web4, 80, nat4, 32768), TakeNAT},
		{"NAT: last port of the range", udp(web4, 80, nat4, 60999), TakeNAT},
		{"NAT: SCTP", ipPacket(web4, nat4, protoSCTP, sctpHeader(80, 40000)), TakeNAT},
		{"NAT: below the range is the host's, be it from a server", tcp(web4, 8000, nat4, 32767), PassHost},
		{"NAT: above the range", tcp(web4, 8000, nat4, 61000), PassHost},
		{"NAT: a range of one port, not on the list of local addresses", tcp(web6, 80, nat6, 1024), TakeNAT},
		{"NAT: beside it", tcp(web6, 80, nat6, 1025), PassHost},
		{"NAT: echo", icmp(web4, nat4, 8, nil), PassHost},
		{"NAT: a later fragment", ipPacket(web4, nat4, protoUDP, make([]byte, 64), lastFragment), TakeNAT},
		{"NAT: a first fragment by its port", ipPacket(web4, nat4, protoUDP, udpHeader(53, 40000), moreFragments), TakeNAT},
		{"NAT: a first fragment to the host's port", ipPacket(web4, nat4, protoUDP, udpHeader(53, 20000), moreFragments), PassHost},
		{"NAT: an error about our port", icmp(router4, nat4, 3, tcp(nat4, 40000, web4, 8000)), TakeNAT},
		{"NAT: an error about the host's port", icmp(router4, nat4, 3, tcp(nat4, 22, web4, 8000)), PassHost},
		{"NAT: an error about another's address", icmp(router4, nat4, 3, tcp(client4, 40000, web4, 8000)), PassHost},
		{"VXLAN: a VNI of ours", vxlan(far4, vtep4, 4789, 5001), TakeVXLAN},
		{"VXLAN: another VNI of ours", vxlan(far4, vtep4, 4789, 5002), TakeVXLAN},
		{"VXLAN: a VNI of the kernel's", vxlan(far4, vtep4, 4789, 5003), PassHost},
		{"VXLAN: another port", vxlan(far4, vtep4, 4790, 5001), PassHost},
		{"VXLAN: another address of ours", vxlan(far4, local4, 4789, 5001), PassHost},
		{"VXLAN: over IPv6, greatest VNI", vxlan(far6, vtep6, 8472, maxVNI), TakeVXLAN},
		{"VXLAN: over IPv6, another VNI", vxlan(far6, vtep6, 8472, 5001), PassHost},
		{"VXLAN: TCP to the port", tcp(far4, 1, vtep4, 4789), PassHost},
		{"VXLAN: cut off before the VNI", udp(far4, 1, vtep4, 4789, 8, 0, 0, 0, 0, 0x13), PassHost},

		// 3. VIPs
		{"service, IPv4", tcp(client4, 4000, vip4, 80), TakeService},
		{"service, IPv6", tcp(client6, 4000, vip6, 80), TakeService},
		{"service, UDP", udp(client4, 4000, vip4, 53), TakeService},
		{"service, from port 0", udp(client4, 0, vip4, 53), TakeService},
		{"service, of another protocol only", tcp(client4, 4000, vip4, 53), PassVIP},
		{"service, port range: first", tcp(client4, 4000, vip4, 8000), TakeService},
		{"service, port range: within", tcp(client4, 4000, vip4, 8005), TakeService},
		{"service, port range: last", tcp(client4, 4000, vip4, 8010), TakeService},
		{"service, port range: before", tcp(client4, 4000, vip4, 7999), PassVIP},
		{"service, port range: behind", tcp(client4, 4000, vip4, 8011), PassVIP},
		{"service, every port: 65535", ipPacket(client4, vip4, protoSCTP, sctpHeader(9, 65535)), TakeService},
		{"service, every port: 0", ipPacket(client4, vip4, protoSCTP, sctpHeader(9, 0)), TakeService},
		{"service, DF", ipPacket(client4, vip4, protoTCP, tcpHeader(9, 80), dontFragment), TakeService},
		{"service, 40 bytes of IPv4 options", ipPacket(client4, vip4, protoTCP, tcpHeader(9, 80), ipOptions), TakeService},
		{"no service behind 40 bytes of IPv4 options", ipPacket(client4, vip4, protoTCP, tcpHeader(80, 81), ipOptions), PassVIP},
		{"service behind IPv6 extension headers", ipPacket(client6, vip6, 0, join(extension(60, 1), extension(43, 3), extension(51, 1),
			authHeader(protoTCP, 24), tcpHeader(9, 80))), TakeService},
		{"service behind 6 extension headers", ipPacket(client6, vip6, 60, join(extension(60, 1), extension(60, 1), extension(60, 2),
			extension(60, 1), extension(60, 1), extension(protoTCP, 1), tcpHeader(9, 80))), TakeService},
		{"7 extension headers are too many", ipPacket(client6, vip6, 60, join(extension(60, 1), extension(60, 1), extension(60, 2),
			extension(60, 1), extension(60, 1), extension(60, 1), extension(protoTCP, 1), tcpHeader(9, 80))), TakeMalformed},
		{"an atomic fragment is no fragment", ipPacket(client6, vip6, 44, join(fragment6(protoTCP, 0, false), tcpHeader(9, 81))), PassVIP},
		{"an unused port", tcp(client4, 4000, vip4, 22), PassVIP},
		{"an unused port, IPv6", tcp(client6, 4000, vip6, 443), PassVIP},
		{"echo", icmp(client4, vip4, 8, make([]byte, 56)), PassVIP},
		{"echo, IPv6", icmp(client6, vip6, 128, make([]byte, 56)), PassVIP},
		{"GRE", ipPacket(client4, vip4, 47, make([]byte, 40)), PassVIP},
		{"ICMPv6 in IPv4", ipPacket(client4, vip4, 58, join([]byte{1, 0, 0, 0, 0, 0, 0, 0}, tcp(vip4, 80, client4, 9))), PassVIP},
		{"a first fragment, also of no service", ipPacket(client4, vip4, protoTCP, tcpHeader(9, 22), moreFragments), TakeFragment},
		{"a later fragment", ipPacket(client4, vip4, protoUDP, make([]byte, 64), lastFragment), TakeFragment},
		{"a later fragment, one bit of the offset set", ipPacket(client4, vip4, protoUDP, make([]byte, 64), farFragment), TakeFragment},
		{"a fragment of an echo", ipPacket(client4, vip4, layers.IPProtocolICMPv4, make([]byte, 64), lastFragment), TakeFragment},
		{"a first fragment, IPv6", ipPacket(client6, vip6, 44, join(fragment6(protoTCP, 0, true), tcpHeader(9, 22))), TakeFragment},
		{"a later fragment, IPv6", ipPacket(client6, vip6, 44, join(fragment6(protoTCP, 1280, true), tcpHeader(9, 22))), TakeFragment},
		{"a later fragment, IPv6, one bit of the offset set", ipPacket(client6, vip6, 44, join(fragment6(protoTCP, 0x8000, false), tcpHeader(9, 22))), TakeFragment},
		{"an error about a service's answer: unreachable", icmp(router4, vip4, 3, tcp(vip4, 80, client4, 4000)), TakeICMP},
		{"source quench", icmp(router4, vip4, 4, tcp(vip4, 80, client4, 4000)), TakeICMP},
		{"time exceeded", icmp(router4, vip4, 11, tcp(vip4, 80, client4, 4000)), TakeICMP},
		{"of a port in a range", icmp(router4, vip4, 3, tcp(vip4, 8003, client4, 4000)), TakeICMP},
		{"of a protocol with every port", icmp(router4, vip4, 3, ipPacket(vip4, client4, protoSCTP, sctpHeader(7, 8))), TakeICMP},
		{"quoting no more than 8 bytes", icmp(router4, vip4, 3, tcp(vip4, 80, client4, 4000)[:28]), TakeICMP},
		{"quoting 7 bytes only", icmp(router4, vip4, 3, tcp(vip4, 80, client4, 4000)[:27]), PassVIP},
		{"quoting IPv4 options", icmp(router4, vip4, 3, ipPacket(vip4, client4, protoTCP, tcpHeader(80, 9), ipOptions)), TakeICMP},
		{"quoting IPv4 options, another port", icmp(router4, vip4, 3, ipPacket(vip4, client4, protoTCP, tcpHeader(22, 80), ipOptions)), PassVIP},
		{"redirects are the kernel's", icmp(router4, vip4, 5, tcp(vip4, 80, client4, 4000)), PassVIP},
		{"parameter problems of IPv4 are the kernel's", icmp(router4, vip4, 12, tcp(vip4, 80, client4, 4000)), PassVIP},
		{"an error about the host's own packet", icmp(router4, vip4, 3, tcp(vip4, 22, client4, 4000)), PassVIP},
		{"an error about a ping from the VIP", icmp(router4, vip4, 3, icmp(vip4, client4, 0, make([]byte, 8))), PassVIP},
		{"an error about a packet to the VIP", icmp(router4, vip4, 3, tcp(client4, 4000, vip4, 80)), PassVIP},
		{"an error about a later fragment", icmp(router4, vip4, 11, ipPacket(vip4, client4, protoTCP, tcpHeader(80, 9), lastFragment)), PassVIP},
		{"an error that quotes IPv6 in IPv4", icmp(router4, vip4, 3, tcp(vip6, 80, client6, 4000)), PassVIP},
		{"an error about an error", icmp(router4, vip4, 3, icmp(vip4, client4, 3, tcp(vip4, 80, client4, 9))), PassVIP},
		{"ICMPv6 too big", icmp(router6, vip6, 2, tcp(vip6, 80, client6, 4000)), TakeICMP},
		{"ICMPv6 parameter problem", icmp(router6, vip6, 4, tcp(vip6, 80, client6, 4000)), TakeICMP},
		{"ICMPv6 error behind extension headers, about a packet with some", ipPacket(router6, vip6, 0, join(extension(60, 1), extension(58, 1),
			[]byte{1, 0, 0, 0, 0, 0, 0, 0}, ipPacket(vip6, client6, 43, join(extension(60, 2), extension(protoTCP, 1), tcpHeader(80, 9))))), TakeICMP},
		{"ICMPv6 error about another port", icmp(router6, vip6, 1, tcp(vip6, 81, client6, 4000)), PassVIP},
		{"ICMPv6 informational is no error", icmp(router6, vip6, 128, tcp(vip6, 80, client6, 4000)), PassVIP},
		{"malformed: ports cut off", ipPacket(client4, vip4, protoTCP, []byte{0x0f, 0xa0, 0x00}), TakeMalformed},
		{"malformed: ICMP header cut off", ipPacket(client4, vip4, layers.IPProtocolICMPv4, make([]byte, 7)), TakeMalformed},
		{"malformed: IPv4 version", patch(tcp(client4, 4000, vip4, 80), 0, 0x55), TakeMalformed},
		{"malformed: IPv4 header of 4 words", patch(tcp(client4, 4000, vip4, 80), 0, 0x44), TakeMalformed},
		{"malformed: IPv4 header beyond the frame", patch(tcp(client4, 4000, vip4, 80), 0, 0x4f), TakeMalformed},
		{"malformed: extension header cut off", ipPacket(client6, vip6, 60, extension(protoTCP, 1)[:7]), TakeMalformed},
		{"malformed: extension header beyond the frame", ipPacket(client6, vip6, 60, patch(extension(protoTCP, 1), 1, 255)), TakeMalformed},

		// 4. other addresses of this host
		{"an answer to the host's own health check", tcp(web4, 8000, local4, 40000), PassHost},
		{"likewise, IPv6", tcp(web6, 8000, local6, 40000), PassHost},
		{"SSH", tcp(client4, 4000, local4, 22), PassHost},
		{"an error about the host's own packet to a server", icmp(router4, local4, 3, tcp(local4, 40000, web4, 8000)), PassHost},
		{"a fragment", ipPacket(web4, local4, protoUDP, make([]byte, 64), lastFragment), PassHost},
		{"malformed", ipPacket(web4, local4, protoTCP, []byte{1, 2}), PassHost},

		// 5. servers
		{"a server's answer", tcp(web4, 8000, client4, 4000), TakeServer},
		{"a server's answer, UDP", udp(web4, 5353, client4, 4000), TakeServer},
		{"a server's answer, IPv6", tcp(web6, 8000, client6, 4000), TakeServer},
		{"a server's other port", tcp(web4, 22, client4, 4000), PassOther},
		{"a server's other protocol", udp(web4, 8000, client4, 4000), PassOther},
		{"a server with every port", tcp(any4, 1, client4, 4000), TakeServer},
		{"a server with every port, other protocol", udp(any4, 1, client4, 4000), PassOther},
		{"a server's ping", icmp(web4, client4, 8, nil), PassOther},
		{"a server's answer with options", ipPacket(web4, client4, protoTCP, tcpHeader(8000, 9), ipOptions), TakeServer},
		{"a server's first fragment", ipPacket(web4, client4, protoUDP, udpHeader(5353, 9), moreFragments), TakeServer},
		{"a server's first fragment, other port", ipPacket(web4, client4, protoUDP, udpHeader(53, 9), moreFragments), PassOther},
		{"a server's later fragment", ipPacket(web4, client4, protoUDP, make([]byte, 64), lastFragment), TakeServerFragment},
		{"a later fragment of a server's ping", ipPacket(web4, client4, layers.IPProtocolICMPv4, make([]byte, 64), lastFragment), PassOther},
		{"a server's answer, ports cut off", ipPacket(web4, client4, protoTCP, []byte{0x1f, 0x40}), PassOther},
		{"an error about a packet to a server, by the server", icmp(web4, client4, 3, tcp(client4, 4000, web4, 8000)), TakeServerICMP},
		{"likewise, by a router", icmp(router4, client4, 11, tcp(client4, 4000, web4, 8000)), TakeServerICMP},
		{"likewise, quoting options", icmp(router4, client4, 11, ipPacket(client4, web4, protoTCP, tcpHeader(9, 8000), ipOptions)), TakeServerICMP},
		{"an error about a packet to another port", icmp(web4, client4, 3, tcp(client4, 4000, web4, 22)), PassOther},
		{"an error about a packet to any port of a server", icmp(router4, client4, 3, tcp(client4, 4000, any4, 22)), TakeServerICMP},
		{"an error about a packet to a server, IPv6", icmp(web6, client6, 1, tcp(client6, 4000, web6, 8000)), TakeServerICMP},
		{"an error about a packet from a server", icmp(router4, web4, 3, tcp(web4, 8000, client4, 4000)), PassOther},

		// 6. the rest
		{"routed through", tcp(client4, 4000, far4, 80), PassOther},
		{"routed through, IPv6", tcp(client6, 4000, far6, 80), PassOther},
		{"an IPv4 VIP written into IPv6 is another address", tcp(client6, 4000, ip("::198.18.9.9"), 80), PassOther},
		{"a mapped one, too", tcp(client6, 4000, ip("::ffff:198.18.9.9"), 80), PassOther},
		{"malformed, of nobody", patch(tcp(client4, 4000, far4, 80), 0, 0x41), PassOther},
		{"AH in IPv6 is an extension header: what stands behind it decides", ipPacket(web6, client6, packet.ProtoAH, join(authHeader(protoTCP, 24), tcpHeader(8000, 9))), TakeServer},
		{"cut off within the IPv4 header", tcp(client4, 4000, vip4, 80)[:19], PassShort},
		{"cut off within the IPv6 header", tcp(client6, 4000, vip6, 80)[:39], PassShort},
	}
}

// authHeader is an AH of n bytes (RFC 4302: its length counts words, less two).
func authHeader(next layers.IPProtocol, n int) []byte {
	b := make([]byte, n)
	b[0], b[1] = byte(next), byte(n/4-2)
	return b
}

func TestPackets(t *testing.T) {
	r := testRules()
	p, c := loaded(t, r, Options{}), compiled(r)
	for _, tt := range packetCases() {
		t.Run(tt.name, func(t *testing.T) {
			for _, tags := range [][]uint16{nil, {0}, {7}, {7, 99}} {
				if got := agree(t, p, c, frame(tt.packet, tags...)); got != tt.want {
					t.Errorf("tags %v: %s, want %s", tags, got, tt.want)
				}
			}
			for _, tags := range [][]uint16{{10}, {10, 7}} {
				if got := agree(t, p, c, frame(tt.packet, tags...)); got != PassNotOurPort {
					t.Errorf("tags %v: %s, want %s", tags, got, PassNotOurPort)
				}
			}
			if got := agree(t, p, c, frame(tt.packet, 9)); got != TakeAccess {
				t.Errorf("access VLAN: %s, want %s", got, TakeAccess)
			}
		})
	}
}

// TestFrames is rule 1: what is decided before the IP header.
func TestFrames(t *testing.T) {
	r := testRules()
	p, c := loaded(t, r, Options{}), compiled(r)
	v4, v6 := tcp(client4, 4000, vip4, 80), tcp(client6, 4000, vip6, 80)
	arp := make([]byte, 28)
	broadcast := [6]byte{255, 255, 255, 255, 255, 255}
	for _, tt := range []struct {
		name  string
		frame []byte
		want  Reason
	}{
		{"ARP, broadcast", eth(broadcast, layers.EthernetTypeARP, arp), PassARPND},
		{"ARP, for us", eth(ourMAC, layers.EthernetTypeARP, arp), PassARPND},
		{"ARP, on VLAN 7", eth(ourMAC, layers.EthernetTypeARP, arp, 7), PassARPND},
		{"ARP, on an access VLAN", eth(broadcast, layers.EthernetTypeARP, arp, 9), TakeAccess},
		{"ND, on an access VLAN", eth(groupMAC, layers.EthernetTypeIPv6, icmp(web6, far6, 135, make([]byte, 16)), 9), TakeAccess},
		{"any Ethernet type on an access VLAN", eth(otherMAC, layers.EthernetTypeLinkLayerDiscovery, arp, 9), TakeAccess},
		{"a stacked tag on an access VLAN, cut off", append(eth(otherMAC, layers.EthernetTypeDot1Q, nil, 9), 0, 0), TakeAccess},
		{"the VLAN beside an access VLAN", eth(ourMAC, layers.EthernetTypeIPv4, v4, 8), TakeService},
		{"for another station", eth(otherMAC, layers.EthernetTypeIPv4, v4), PassNotOurMAC},
		{"for another station, VLAN 7", eth(otherMAC, layers.EthernetTypeIPv6, v6, 7), PassNotOurMAC},
		{"broadcast to the VIP", eth(broadcast, layers.EthernetTypeIPv4, v4), PassNotOurMAC},
		{"multicast", eth(groupMAC, layers.EthernetTypeIPv6, v6), PassNotOurMAC},
		{"to a group of VTEPs", eth(vtepsMAC4, layers.EthernetTypeIPv4, vxlan(client4, vteps4, 4789, 5001)), TakeVXLAN},
		{"to a group of VTEPs, over IPv6", eth(vtepsMAC6, layers.EthernetTypeIPv6, vxlan(client6, vteps6, 8472, maxVNI)), TakeVXLAN},
		{"to a group of VTEPs, a VNI of the kernel's", eth(vtepsMAC4, layers.EthernetTypeIPv4, vxlan(client4, vteps4, 4789, 5003)), PassHost},
		{"to a group of VTEPs, a VNI that is not the group's", eth(vtepsMAC4, layers.EthernetTypeIPv4, vxlan(client4, vteps4, 4789, 5002)), PassHost},
		{"to a group with the same MAC", eth(vtepsMAC4, layers.EthernetTypeIPv4, vxlan(client4, ip("239.129.1.1"), 4789, 5001)), PassNotOurMAC},
		{"to a group of VTEPs on another VLAN", eth(vtepsMAC4, layers.EthernetTypeIPv4, vxlan(client4, vteps4, 4789, 5001), 7), PassNotOurMAC},
		{"to the VIP, but by a group's MAC", eth(vtepsMAC4, layers.EthernetTypeIPv4, v4), PassNotOurMAC},
		{"from a server, by a group's MAC", eth(vtepsMAC4, layers.EthernetTypeIPv4, udp(web4, 5353, ip("239.129.1.1"), 5353)), PassNotOurMAC},
		{"ARP by a group's MAC", eth(vtepsMAC4, layers.EthernetTypeARP, arp), PassARPND},
		{"MAC of zeros", eth([6]byte{}, layers.EthernetTypeIPv4, v4), PassNotOurMAC},
		{"unknown VLAN", eth(ourMAC, layers.EthernetTypeIPv4, v4, 10), PassNotOurPort},
		{"LLDP", eth(ourMAC, layers.EthernetTypeLinkLayerDiscovery, arp), PassNotIP},
		{"three tags", eth(ourMAC, layers.EthernetTypeIPv4, v4, 7, 8, 9), PassNotIP},
		{"cut off within the tag", eth(ourMAC, layers.EthernetTypeDot1Q, []byte{0, 7, 8}), PassShort},
		{"cut off within the inner tag", eth(ourMAC, layers.EthernetTypeDot1Q, []byte{0, 1, 8}, 7), PassShort},
		{"an Ethernet header and nothing else", eth(ourMAC, layers.EthernetTypeIPv4, nil), PassShort},
		{"padding behind a short packet is no matter", append(frame(v4), make([]byte, 18)...), TakeService},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := agree(t, p, c, tt.frame); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// TestEveryPrefix cuts every packet at every byte: programs and twin must agree. To a VIP's service a prefix is ours as soon as its
// destination address is there.
func TestEveryPrefix(t *testing.T) {
	r := testRules()
	p, c := loaded(t, r, Options{}), compiled(r)
	for _, tt := range packetCases() {
		whole := frame(tt.packet, 7)
		if len(whole) > 200 {
			whole = whole[:200]
		}
		for n := range whole {
			if n < 14 {
				if got := twin(t, c, 0, whole[:n]); got != PassShort {
					t.Errorf("%s, %d bytes: %s, want %s", tt.name, n, got, PassShort)
				}
				continue
			}
			agree(t, p, c, whole[:n])
		}
	}
	syn := frame(tcp(client4, 4000, vip4, 80))
	for n := range syn {
		want := TakeService
		switch {
		case n < 14+20:
			want = PassShort
		case n < 14+20+4:
			want = TakeMalformed
		}
		if got := twin(t, c, 0, syn[:n]); got != want {
			t.Errorf("SYN of %d bytes: %s, want %s", n, got, want)
		}
	}
}

// TestTrunk has all VLANs of a device belong to a segment but those that are somebody's.
func TestTrunk(t *testing.T) {
	r := testRules()
	r.Ports[2].Trunk = true
	p, c := loaded(t, r, Options{}), compiled(r)
	v4 := tcp(client4, 4000, vip4, 80)
	for _, tt := range []struct {
		name  string
		frame []byte
		want  Reason
	}{
		{"another VLAN", eth(otherMAC, layers.EthernetTypeIPv4, v4, 10), TakeAccess},
		{"another VLAN, stacked", eth(otherMAC, layers.EthernetTypeIPv4, v4, 10, 7), TakeAccess},
		{"the number that is nobody's", eth(otherMAC, layers.EthernetTypeIPv4, v4, 4095), TakeAccess},
		{"a VLAN that has a port", eth(ourMAC, layers.EthernetTypeIPv4, v4, 7), TakeService},
		{"a VLAN that has a port, for another", eth(otherMAC, layers.EthernetTypeIPv4, v4, 7), PassNotOurMAC},
		{"untagged, for another", eth(otherMAC, layers.EthernetTypeIPv4, v4), PassNotOurMAC},
		{"a priority tag, for another", eth(otherMAC, layers.EthernetTypeIPv4, v4, 0), PassNotOurMAC},
	} {
		if got := agree(t, p, c, tt.frame); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestDevices(t *testing.T) {
	r := testRules()
	p := loaded(t, r, Options{})
	in := frame(tcp(client4, 4000, vip4, 80))
	moved := *r // rules that were added are never changed
	r = &moved
	r.Ports = append([]Port(nil), r.Ports...)
	for i := range r.Ports {
		r.Ports[i].Ifindex = 7777 // not the device of BPF_PROG_RUN
	}
	if err := p.Add(r); err != nil {
		t.Fatal(err)
	}
	if got, _ := inKernel(t, p, hookXDP, in); got != TakeService {
		t.Errorf("before Remove: %s: the old rules still hold", got)
	}
	if _, err := p.Remove(); err != nil {
		t.Fatal(err)
	}
	if got, _ := inKernel(t, p, hookXDP, in); got != PassNotOurPort {
		t.Errorf("after Remove: %s, want %s", got, PassNotOurPort)
	}

	// In software a port without a kernel device is a device of its own.
	for i := range r.Ports {
		r.Ports[i].Ifindex = 0
	}
	c := compiled(r)
	if got := twin(t, c, 0, in); got != TakeService {
		t.Errorf("port 0: %s, want %s", got, TakeService)
	}
	if got := twin(t, c, 1, in); got != PassNotOurPort {
		t.Errorf("port 1 takes VLAN 7 only: %s, want %s", got, PassNotOurPort)
	}
	for _, port := range []int{-1, len(r.Ports)} {
		if got := twin(t, c, port, in); got != PassNotOurPort {
			t.Errorf("port %d: %s, want %s", port, got, PassNotOurPort)
		}
	}
}

func TestReasonsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range NumReasons {
		name := r.String()
		if name == "" || seen[name] {
			t.Errorf("reason %d: name %q", r, name)
		}
		seen[name] = true
		if strings.HasPrefix(name, "take_") != (r.Verdict() == Take) {
			t.Errorf("%s: verdict %d", name, r.Verdict())
		}
	}
	if got := NumReasons.String(); got != "unknown" {
		t.Errorf("beyond the last: %q", got)
	}
}

func TestClassifyAllocatesNothing(t *testing.T) {
	c := compiled(testRules())
	pool, err := packet.NewPool(make([]byte, 4096), 4096)
	if err != nil {
		t.Fatal(err)
	}
	var f packet.Frame
	var taken int
	for _, tt := range packetCases() {
		b := frame(tt.packet, 7)
		copy(pool.Memory(), b)
		f.Open(pool, packet.Desc{Len: uint32(len(b))})
		if n := testing.AllocsPerRun(10, func() {
			if Classify(c, 1, &f) == Take {
				taken++
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
	if taken == 0 {
		t.Error("nothing was taken")
	}
}
