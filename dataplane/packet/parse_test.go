package packet_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

const whole = packet.KindIPv4 | packet.KindTransport

// headers is what Parse should find, with the offsets counted from the frame's first byte.
func headers(f *packet.Frame) packet.Headers {
	h := f.Headers
	for _, off := range []*uint16{&h.L3, &h.L4, &h.L3End, &h.QuoteL3, &h.QuoteL4} {
		if *off != 0 {
			*off -= f.Start
		}
	}
	return h
}

func TestParse(t *testing.T) {
	syn := pkttest.TCP(client, vip).SYN()
	syn6 := pkttest.TCP(client6, vip6).SYN()
	quoted := pkttest.TCP(vip, client).Ack(1).Bytes()
	quoted6 := pkttest.TCP(vip6, client6).Ack(1).Bytes()
	const whole6 = packet.KindIPv6 | packet.KindTransport

	// Of every case the fields are given that differ from: untagged, L3 at 14, ports of client and vip, TTL 64.
	for _, c := range []struct {
		name string
		in   []byte
		want packet.Headers
	}{
		{"TCP", frame(syn), packet.Headers{Kind: whole, L4: 34, L3End: 54, Proto: 6, Flags: packet.TCPSyn}},
		{"TCP with options and data", frame(syn.TCPOptions(2, 4, 5, 180).Payload(make([]byte, 9)).TTL(3)),
			packet.Headers{Kind: whole, L4: 34, L3End: 67, Proto: 6, Flags: packet.TCPSyn, TTL: 3}},
		{"UDP", frame(pkttest.UDP(client, vip)), packet.Headers{Kind: whole, L4: 34, L3End: 42, Proto: 17}},
		{"UDP without a checksum", frame(pkttest.UDP(client, vip).NoChecksum()), packet.Headers{Kind: whole, L4: 34, L3End: 42, Proto: 17}},
		{"SCTP", frame(pkttest.SCTP(client, vip).Chunk(1, 0, make([]byte, 16))),
			packet.Headers{Kind: whole, L4: 34, L3End: 66, Proto: 132, Flags: packet.SCTPInit}},
		{"SCTP without a chunk", frame(pkttest.SCTP(client, vip)),
			packet.Headers{Kind: whole, L4: 34, L3End: 46, Proto: 132, Flags: packet.SCTPNoChunk}},
		{"SCTP, padding is no chunk", pkttest.Pad(frame(pkttest.SCTP(client, vip)), 60),
			packet.Headers{Kind: whole, L4: 34, L3End: 46, Proto: 132, Flags: packet.SCTPNoChunk}},
		{"SCTP, a COOKIE ECHO and an ABORT", frame(pkttest.SCTP(client, vip).Chunk(10, 0, make([]byte, 5)).Chunk(6, 0, nil)),
			packet.Headers{Kind: whole, L4: 34, L3End: 62, Proto: 132, Flags: packet.SCTPCookieEcho | packet.SCTPAbortBehind}},
		{"SCTP, a first fragment", frame(pkttest.SCTP(client, vip).Chunk(0, 3, make([]byte, 16)).Fragment(7, 0, true)),
			packet.Headers{Kind: whole | packet.KindFirstFragment, L4: 34, L3End: 66, Proto: 132, Flags: packet.SCTPData, FragmentID: 7}},
		{"a protocol of which nothing is known", frame(pkttest.IP(client.Addr(), vip.Addr(), 47, []byte{1})),
			packet.Headers{Kind: packet.KindIPv4, L4: 34, L3End: 35, Proto: 47}},
		{"ICMPv6 in IPv4 is such a protocol too", frame(pkttest.IP(client.Addr(), vip.Addr(), 58, make([]byte, 8))),
			packet.Headers{Kind: packet.KindIPv4, L4: 34, L3End: 42, Proto: 58}},
		{"an IP header and nothing else", frame(pkttest.IP(client.Addr(), vip.Addr(), 47, nil)),
			packet.Headers{Kind: packet.KindIPv4, L4: 34, L3End: 34, Proto: 47}},
		{"padding is not the packet's", pkttest.Pad(frame(pkttest.UDP(client, vip)), 60),
			packet.Headers{Kind: whole, L4: 34, L3End: 42, Proto: 17}},
		{"one tag", frame(syn.VLAN(100)),
			packet.Headers{Kind: whole, L3: 18, L4: 38, L3End: 58, Proto: 6, Flags: packet.TCPSyn, VLANs: 1, VLAN: 100}},
		{"a priority tag", frame(syn.VLAN(5 << 13)),
			packet.Headers{Kind: whole, L3: 18, L4: 38, L3End: 58, Proto: 6, Flags: packet.TCPSyn, VLANs: 1}},
		{"two tags: the outer one counts", frame(syn.VLAN(200, 300)),
			packet.Headers{Kind: whole, L3: 22, L4: 42, L3End: 62, Proto: 6, Flags: packet.TCPSyn, VLANs: 2, VLAN: 200}},
		{"three tags are beyond us", frame(syn.VLAN(1, 2, 3)),
			packet.Headers{L3: 22, L4: 22, L3End: 66, VLANs: 2, VLAN: 1, EtherType: packet.EtherTypeVLAN}},
		{"ARP", pkttest.Ethernet(make([]byte, 28), macA, macB, packet.EtherTypeARP),
			packet.Headers{L4: 14, L3End: 42, EtherType: packet.EtherTypeARP}},
		{"LLDP to a group", pkttest.Ethernet(make([]byte, 4), macA, pkttest.MAC("01:80:c2:00:00:0e"), 0x88cc),
			packet.Headers{Kind: packet.KindBroadcast, L4: 14, L3End: 18, EtherType: 0x88cc}},
		{"broadcast", syn.Frame(macA, pkttest.MAC("ff:ff:ff:ff:ff:ff")),
			packet.Headers{Kind: whole | packet.KindBroadcast, L4: 34, L3End: 54, Proto: 6, Flags: packet.TCPSyn}},

		{"options: router alert", frame(syn.Options(148, 4, 0, 0)),
			packet.Headers{Kind: whole | packet.KindOptions, L4: 38, L3End: 58, Proto: 6, Flags: packet.TCPSyn}},
		{"options: loose source route behind a NOP", frame(syn.Options(1, 131, 7, 4, 198, 18, 1, 1)),
			packet.Headers{Kind: whole | packet.KindOptions | packet.KindSourceRoute, L4: 42, L3End: 62, Proto: 6, Flags: packet.TCPSyn}},
		{"options: strict source route", frame(syn.Options(137, 7, 4, 198, 18, 1, 1)),
			packet.Headers{Kind: whole | packet.KindOptions | packet.KindSourceRoute, L4: 42, L3End: 62, Proto: 6, Flags: packet.TCPSyn}},
		{"options: what stands behind the end of the list is no option", frame(syn.Options(0, 131, 7, 4, 198, 18, 1, 1)),
			packet.Headers{Kind: whole | packet.KindOptions, L4: 42, L3End: 62, Proto: 6, Flags: packet.TCPSyn}},

		{"first fragment", frame(pkttest.IP(client.Addr(), vip.Addr(), 17, append(ports(1400), make([]byte, 8)...)).Fragment(7, 0, true)),
			packet.Headers{Kind: whole | packet.KindFirstFragment, L4: 34, L3End: 50, Proto: 17, FragmentID: 7}},
		{"later fragment", frame(pkttest.IP(client.Addr(), vip.Addr(), 17, make([]byte, 8)).Fragment(7, 1480, true)),
			packet.Headers{Kind: packet.KindIPv4 | packet.KindLaterFragment, L4: 34, L3End: 42, Proto: 17, FragmentID: 7, FragmentOff: 1480}},
		{"last fragment, of any length", frame(pkttest.IP(client.Addr(), vip.Addr(), 6, make([]byte, 3)).Fragment(7, 1480, false)),
			packet.Headers{Kind: packet.KindIPv4 | packet.KindLaterFragment, L4: 34, L3End: 37, Proto: 6, FragmentID: 7, FragmentOff: 1480}},
		{"UDP at offset 8 overwrites no flags", frame(pkttest.IP(client.Addr(), vip.Addr(), 17, make([]byte, 3)).Fragment(7, 8, false)),
			packet.Headers{Kind: packet.KindIPv4 | packet.KindLaterFragment, L4: 34, L3End: 37, Proto: 17, FragmentID: 7, FragmentOff: 8}},
		{"the last byte that fits, at 65535", frame(pkttest.IP(client.Addr(), vip.Addr(), 6, make([]byte, 3)).Fragment(7, 65512, false)),
			packet.Headers{Kind: packet.KindIPv4 | packet.KindLaterFragment, L4: 34, L3End: 37, Proto: 6, FragmentID: 7, FragmentOff: 65512}},

		{"echo request", frame(pkttest.Echo(client.Addr(), vip.Addr(), 77, 1)),
			packet.Headers{Kind: whole, L4: 34, L3End: 42, Proto: 1, ICMPType: 8, SrcPort: 77, DstPort: 77}},
		{"echo reply", frame(pkttest.EchoReply(client.Addr(), vip.Addr(), 77, 1)),
			packet.Headers{Kind: whole, L4: 34, L3End: 42, Proto: 1, SrcPort: 77, DstPort: 77}},
		{"timestamp: no error, no ports", frame(pkttest.ICMP(client.Addr(), vip.Addr(), 13, 0, 77<<16)),
			packet.Headers{Kind: whole, L4: 34, L3End: 42, Proto: 1, ICMPType: 13}},
		{"ICMP error", frame(pkttest.ICMPTooBig(routerA, vip.Addr(), 1400, quoted)),
			packet.Headers{Kind: whole | packet.KindICMPError | packet.KindQuote, L4: 34, L3End: 82, Proto: 1, ICMPType: 3, ICMPCode: 4,
				QuoteL3: 42, QuoteL4: 62, QuoteSrc: 80, QuoteDst: 4000, QuoteProto: 6}},
		{"ICMP error that quotes 8 bytes", frame(pkttest.ICMPTimeExceeded(routerA, vip.Addr(), quoted[:28])),
			packet.Headers{Kind: whole | packet.KindICMPError | packet.KindQuote, L4: 34, L3End: 70, Proto: 1, ICMPType: 11,
				QuoteL3: 42, QuoteL4: 62, QuoteSrc: 80, QuoteDst: 4000, QuoteProto: 6}},
		{"ICMP error that quotes 7 bytes", frame(pkttest.ICMPTimeExceeded(routerA, vip.Addr(), quoted[:27])),
			packet.Headers{Kind: whole | packet.KindICMPError, L4: 34, L3End: 69, Proto: 1, ICMPType: 11}},
		{"ICMP error that quotes nothing", frame(pkttest.ICMPTimeExceeded(routerA, vip.Addr(), nil)),
			packet.Headers{Kind: whole | packet.KindICMPError, L4: 34, L3End: 42, Proto: 1, ICMPType: 11}},
		{"a quote with options", frame(pkttest.ICMPTimeExceeded(routerA, vip.Addr(), pkttest.UDP(vip, client).Options(148, 4, 0, 0).Bytes())),
			packet.Headers{Kind: whole | packet.KindICMPError | packet.KindQuote, L4: 34, L3End: 74, Proto: 1, ICMPType: 11,
				QuoteL3: 42, QuoteL4: 66, QuoteSrc: 80, QuoteDst: 4000, QuoteProto: 17}},
		{"a quoted echo request", frame(pkttest.ICMPTimeExceeded(routerA, vip.Addr(), pkttest.Echo(vip.Addr(), client.Addr(), 5, 1).Bytes())),
			packet.Headers{Kind: whole | packet.KindICMPError | packet.KindQuote, L4: 34, L3End: 70, Proto: 1, ICMPType: 11,
				QuoteL3: 42, QuoteL4: 62, QuoteSrc: 5, QuoteDst: 5, QuoteProto: 1}},
		{"a quoted first fragment", frame(pkttest.ICMPTimeExceeded(routerA, vip.Addr(), pkttest.UDP(vip, client).Fragment(1, 0, true).Bytes())),
			packet.Headers{Kind: whole | packet.KindICMPError | packet.KindQuote, L4: 34, L3End: 70, Proto: 1, ICMPType: 11,
				QuoteL3: 42, QuoteL4: 62, QuoteSrc: 80, QuoteDst: 4000, QuoteProto: 17}},
		{"a quoted later fragment", frame(pkttest.ICMPTimeExceeded(routerA, vip.Addr(), pkttest.UDP(vip, client).Fragment(1, 8, true).Bytes())),
			packet.Headers{Kind: whole | packet.KindICMPError, L4: 34, L3End: 70, Proto: 1, ICMPType: 11}},
		{"a quote of the wrong version", frame(pkttest.ICMPTimeExceeded(routerA, vip.Addr(), quoted6)),
			packet.Headers{Kind: whole | packet.KindICMPError, L4: 34, L3End: 102, Proto: 1, ICMPType: 11}},
		{"a quoted header length below five words", frame(pkttest.ICMPTimeExceeded(routerA, vip.Addr(), append([]byte{0x44}, quoted[1:]...))),
			packet.Headers{Kind: whole | packet.KindICMPError, L4: 34, L3End: 82, Proto: 1, ICMPType: 11}},
		{"padding behind the packet does not make the quote longer", pkttest.Pad(frame(pkttest.ICMPTimeExceeded(routerA, vip.Addr(), quoted[:27])), 90),
			packet.Headers{Kind: whole | packet.KindICMPError, L4: 34, L3End: 69, Proto: 1, ICMPType: 11}},

		{"IPv6 TCP", frame(syn6), packet.Headers{Kind: whole6, L4: 54, L3End: 74, Proto: 6, Flags: packet.TCPSyn}},
		{"IPv6 UDP with two tags", frame(pkttest.UDP(client6, vip6).VLAN(200, 300).TTL(9)),
			packet.Headers{Kind: whole6, L3: 22, L4: 62, L3End: 70, Proto: 17, VLANs: 2, VLAN: 200, TTL: 9}},
		{"IPv6 SCTP", frame(pkttest.SCTP(client6, vip6)), packet.Headers{Kind: whole6, L4: 54, L3End: 66, Proto: 132, Flags: packet.SCTPNoChunk}},
		{"IPv6 SCTP behind an extension header", frame(pkttest.SCTP(client6, vip6).Chunk(1, 0, make([]byte, 16)).DestOptions()),
			packet.Headers{Kind: whole6 | packet.KindOptions, L4: 70, L3End: 102, Proto: 132, Flags: packet.SCTPInit}},
		{"IPv6 with padding", pkttest.Pad(frame(pkttest.UDP(client6, vip6)), 80), packet.Headers{Kind: whole6, L4: 54, L3End: 62, Proto: 17}},
		{"IPv6, no next header", frame(pkttest.IP(client6.Addr(), vip6.Addr(), 59, nil)),
			packet.Headers{Kind: packet.KindIPv6, L4: 54, L3End: 54, Proto: 59}},
		{"ICMP in IPv6 is a protocol of which nothing is known", frame(pkttest.IP(client6.Addr(), vip6.Addr(), 1, make([]byte, 8))),
			packet.Headers{Kind: packet.KindIPv6, L4: 54, L3End: 62, Proto: 1}},
		{"hop-by-hop, destination options, AH", frame(syn6.HopByHop().DestOptions().AH()),
			packet.Headers{Kind: whole6 | packet.KindOptions, L4: 102, L3End: 122, Proto: 6, Flags: packet.TCPSyn}},
		{"routing header, no segments left", frame(syn6.Routing(0)),
			packet.Headers{Kind: whole6 | packet.KindOptions, L4: 78, L3End: 98, Proto: 6, Flags: packet.TCPSyn}},
		{"routing header, a segment left", frame(syn6.Routing(1)),
			packet.Headers{Kind: whole6 | packet.KindOptions | packet.KindSourceRoute, L4: 78, L3End: 98, Proto: 6, Flags: packet.TCPSyn}},
		{"ESP hides the rest", frame(pkttest.IP(client6.Addr(), vip6.Addr(), 50, make([]byte, 8)).DestOptions()),
			packet.Headers{Kind: packet.KindIPv6 | packet.KindOptions, L4: 70, L3End: 78, Proto: 50}},
		{"as many extension headers as may be", frame(many(syn6, 8)),
			packet.Headers{Kind: whole6 | packet.KindOptions, L4: 182, L3End: 202, Proto: 6, Flags: packet.TCPSyn}},
		{"IPv6 first fragment", pkttest.Frame(pkttest.UDP(client6, vip6).Payload(make([]byte, 20)).HopByHop().Cut(9, 16)[0], macA, macB),
			packet.Headers{Kind: whole6 | packet.KindOptions | packet.KindFirstFragment, L4: 70, L3End: 86, Proto: 17, FragmentID: 9}},
		{"IPv6 first fragment with destination options in it", pkttest.Frame(pkttest.UDP(client6, vip6).Payload(make([]byte, 20)).DestOptions().Cut(9, 24)[0], macA, macB),
			packet.Headers{Kind: whole6 | packet.KindOptions | packet.KindFirstFragment, L4: 78, L3End: 86, Proto: 17, FragmentID: 9}},
		{"IPv6 later fragment", pkttest.Frame(pkttest.UDP(client6, vip6).Payload(make([]byte, 20)).Cut(1<<31, 16)[1], macA, macB),
			packet.Headers{Kind: packet.KindIPv6 | packet.KindOptions | packet.KindLaterFragment, L4: 62, L3End: 74, Proto: 17, FragmentID: 1 << 31, FragmentOff: 16}},
		{"IPv6 later fragment of an extension header", pkttest.Frame(pkttest.UDP(client6, vip6).DestOptions().Cut(9, 8)[1], macA, macB),
			packet.Headers{Kind: packet.KindIPv6 | packet.KindOptions | packet.KindLaterFragment, L4: 62, L3End: 78, Proto: 60, FragmentID: 9, FragmentOff: 8}},
		{"an atomic fragment is a whole packet", frame(syn6.Fragment(9, 0, false)),
			packet.Headers{Kind: whole6 | packet.KindOptions, L4: 62, L3End: 82, Proto: 6, Flags: packet.TCPSyn}},
		{"IPv6 echo request", frame(pkttest.Echo(client6.Addr(), vip6.Addr(), 77, 1)),
			packet.Headers{Kind: whole6, L4: 54, L3End: 62, Proto: 58, ICMPType: 128, SrcPort: 77, DstPort: 77}},
		{"IPv6 echo reply", frame(pkttest.EchoReply(client6.Addr(), vip6.Addr(), 77, 1)),
			packet.Headers{Kind: whole6, L4: 54, L3End: 62, Proto: 58, ICMPType: 129, SrcPort: 77, DstPort: 77}},
		{"neighbour solicitation", frame(pkttest.ICMP(client6.Addr(), vip6.Addr(), 135, 0, 0)),
			packet.Headers{Kind: whole6, L4: 54, L3End: 62, Proto: 58, ICMPType: 135}},
		{"ICMPv6 error", frame(pkttest.ICMPTooBig(router6, vip6.Addr(), 1280, quoted6)),
			packet.Headers{Kind: whole6 | packet.KindICMPError | packet.KindQuote, L4: 54, L3End: 122, Proto: 58, ICMPType: 2,
				QuoteL3: 62, QuoteL4: 102, QuoteSrc: 80, QuoteDst: 4000, QuoteProto: 6}},
		{"ICMPv6 error of a type to come", frame(pkttest.ICMPError(router6, vip6.Addr(), 100, 7, 0, quoted6[:48])),
			packet.Headers{Kind: whole6 | packet.KindICMPError | packet.KindQuote, L4: 54, L3End: 110, Proto: 58, ICMPType: 100, ICMPCode: 7,
				QuoteL3: 62, QuoteL4: 102, QuoteSrc: 80, QuoteDst: 4000, QuoteProto: 6}},
		{"ICMPv6 error that quotes 7 bytes", frame(pkttest.ICMPTimeExceeded(router6, vip6.Addr(), quoted6[:47])),
			packet.Headers{Kind: whole6 | packet.KindICMPError, L4: 54, L3End: 109, Proto: 58, ICMPType: 3}},
		{"an IPv6 quote with extension headers", frame(pkttest.ICMPTimeExceeded(router6, vip6.Addr(), pkttest.UDP(vip6, client6).HopByHop().DestOptions().Bytes())),
			packet.Headers{Kind: whole6 | packet.KindICMPError | packet.KindQuote, L4: 54, L3End: 134, Proto: 58, ICMPType: 3,
				QuoteL3: 62, QuoteL4: 126, QuoteSrc: 80, QuoteDst: 4000, QuoteProto: 17}},
		{"an IPv6 quote cut off in its extension headers", frame(pkttest.ICMPTimeExceeded(router6, vip6.Addr(), pkttest.UDP(vip6, client6).DestOptions().Bytes()[:48])),
			packet.Headers{Kind: whole6 | packet.KindICMPError, L4: 54, L3End: 110, Proto: 58, ICMPType: 3}},
		{"a quoted IPv6 first fragment", frame(pkttest.ICMPTimeExceeded(router6, vip6.Addr(), pkttest.UDP(vip6, client6).Fragment(1, 0, true).Bytes())),
			packet.Headers{Kind: whole6 | packet.KindICMPError | packet.KindQuote, L4: 54, L3End: 118, Proto: 58, ICMPType: 3,
				QuoteL3: 62, QuoteL4: 110, QuoteSrc: 80, QuoteDst: 4000, QuoteProto: 17}},
		{"a quoted IPv6 later fragment", frame(pkttest.ICMPTimeExceeded(router6, vip6.Addr(), pkttest.UDP(vip6, client6).Fragment(1, 8, true).Bytes())),
			packet.Headers{Kind: whole6 | packet.KindICMPError, L4: 54, L3End: 118, Proto: 58, ICMPType: 3}},
		{"a quoted IPv6 echo request", frame(pkttest.ICMPTimeExceeded(router6, vip6.Addr(), pkttest.Echo(vip6.Addr(), client6.Addr(), 5, 1).Bytes())),
			packet.Headers{Kind: whole6 | packet.KindICMPError | packet.KindQuote, L4: 54, L3End: 110, Proto: 58, ICMPType: 3,
				QuoteL3: 62, QuoteL4: 102, QuoteSrc: 5, QuoteDst: 5, QuoteProto: 58}},
		{"ICMPv6 redirect is no error", frame(pkttest.ICMP(router6, vip6.Addr(), 137, 0, 0)),
			packet.Headers{Kind: whole6, L4: 54, L3End: 62, Proto: 58, ICMPType: 137}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.want
			if want.L3 == 0 {
				want.L3 = 14
			}
			ip := want.Kind&(packet.KindIPv4|packet.KindIPv6) != 0
			if want.TTL == 0 && ip {
				want.TTL = 64
			}
			if want.EtherType == 0 {
				want.EtherType = packet.EtherTypeIPv4
				if want.Kind&packet.KindIPv6 != 0 {
					want.EtherType = packet.EtherTypeIPv6
				}
			}
			if want.Kind&packet.KindTransport != 0 && want.Proto != packet.ProtoICMP && want.Proto != packet.ProtoICMPv6 {
				want.SrcPort, want.DstPort = client.Port(), vip.Port()
			}
			f := newFrames(t).parsed(t, c.in)
			if diff := cmp.Diff(want, headers(f)); diff != "" {
				t.Errorf("-want +got\n%s% x", diff, c.in)
			}
		})
	}
}

// ports is the UDP header of a datagram of n bytes from client to vip.
func ports(n int) []byte {
	b := binary.BigEndian.AppendUint16(nil, client.Port())
	b = binary.BigEndian.AppendUint16(b, vip.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	return append(b, 0, 0)
}

// many has n destination options headers.
func many(p pkttest.Packet, n int) pkttest.Packet {
	for range n {
		p = p.DestOptions()
	}
	return p
}

func TestParseFaults(t *testing.T) {
	syn := pkttest.TCP(client, vip).SYN()
	syn6 := pkttest.TCP(client6, vip6).SYN()
	ip := func(proto uint8, n, offset int, more bool) []byte {
		return frame(pkttest.IP(client.Addr(), vip.Addr(), proto, make([]byte, n)).Fragment(7, offset, more))
	}
	ip6 := func(proto uint8, n, offset int, more bool) []byte {
		return frame(pkttest.IP(client6.Addr(), vip6.Addr(), proto, make([]byte, n)).Fragment(7, offset, more))
	}
	const steered, steered6 = packet.KindIPv4 | packet.KindTransport, packet.KindIPv6 | packet.KindTransport

	for _, c := range []struct {
		name string
		in   []byte
		want packet.Fault
		kind packet.Kind // what can still be read
	}{
		{"no bytes", nil, packet.FaultShort, 0},
		{"13 bytes", frame(syn)[:13], packet.FaultShort, 0},
		{"a tag cut off", frame(syn.VLAN(1))[:17], packet.FaultShort, 0},
		{"a second tag cut off", frame(syn.VLAN(1, 2))[:20], packet.FaultShort, 0},
		{"IPv4 header cut off", frame(syn)[:33], packet.FaultShort, 0},
		{"version 6 in IPv4", edit(frame(syn), 14, 0x65), packet.FaultVersion, 0},
		{"version 3", edit(frame(syn), 14, 0x35), packet.FaultVersion, 0},
		{"header length of four words", edit(frame(syn), 14, 0x44), packet.FaultHeaderLen, packet.KindIPv4},
		{"header length beyond the frame", edit(frame(syn), 14, 0x4f), packet.FaultHeaderLen, packet.KindIPv4},
		{"header length beyond the packet", resealed(pkttest.Pad(frame(syn), 60), 16, 0, 19), packet.FaultHeaderLen, packet.KindIPv4},
		{"total length beyond the frame", resealed(frame(syn), 16, 0, 41), packet.FaultLength, steered},
		{"header checksum", frame(syn.BadIPChecksum()), packet.FaultIPChecksum, steered},
		{"header checksum with options", frame(syn.Options(148, 4, 0, 0).BadIPChecksum()), packet.FaultIPChecksum, steered | packet.KindOptions},
		{"the checksum is judged before the total length", frame(syn.BadIPChecksum())[:53], packet.FaultIPChecksum, steered},
		{"option length of one", resealed(frame(syn.Options(148, 4, 0, 0)), 35, 1), packet.FaultLength, steered | packet.KindOptions},
		{"option length beyond the header", resealed(frame(syn.Options(148, 4, 0, 0)), 35, 5), packet.FaultLength, steered | packet.KindOptions},
		{"option without a length", resealed(frame(syn.Options(1, 1, 1, 1)), 37, 148), packet.FaultLength, steered | packet.KindOptions},

		{"TCP header cut off", frame(pkttest.IP(client.Addr(), vip.Addr(), 6, ports(1)[:4])), packet.FaultShort, steered},
		{"TCP header cut off in its ports", frame(pkttest.IP(client.Addr(), vip.Addr(), 6, make([]byte, 3))), packet.FaultShort, packet.KindIPv4},
		{"TCP header cut off, padding behind it", pkttest.Pad(frame(pkttest.IP(client.Addr(), vip.Addr(), 6, make([]byte, 19))), 80), packet.FaultShort, steered},
		{"TCP data offset of four words", edit(frame(syn), 46, 0x40), packet.FaultTCPOffset, steered},
		{"TCP data offset beyond the packet", edit(frame(syn), 46, 0x60), packet.FaultTCPOffset, steered},
		{"TCP data offset into the padding", pkttest.Pad(edit(frame(syn), 46, 0x60), 80), packet.FaultTCPOffset, steered},
		{"UDP header cut off", frame(pkttest.IP(client.Addr(), vip.Addr(), 17, make([]byte, 7))), packet.FaultShort, steered},
		{"UDP length below 8", edit(frame(pkttest.UDP(client, vip)), 39, 7), packet.FaultLength, steered},
		{"UDP length beyond the packet", pkttest.Pad(edit(frame(pkttest.UDP(client, vip)), 39, 9), 60), packet.FaultLength, steered},
		{"SCTP header cut off", frame(pkttest.IP(client.Addr(), vip.Addr(), 132, make([]byte, 11))), packet.FaultShort, steered},
		{"ICMP header cut off", frame(pkttest.IP(client.Addr(), vip.Addr(), 1, make([]byte, 7))), packet.FaultICMP, packet.KindIPv4},

		{"tiny first fragment of TCP", ip(6, 16, 0, true), packet.FaultFragment, steered | packet.KindFirstFragment},
		{"first fragment that cuts the TCP options", edit(ip(6, 24, 0, true), 46, 0x70), packet.FaultFragment, steered | packet.KindFirstFragment},
		{"first fragment with a TCP data offset of four words", edit(ip(6, 24, 0, true), 46, 0x40), packet.FaultTCPOffset, steered | packet.KindFirstFragment},
		{"tiny first fragment of SCTP", ip(132, 8, 0, true), packet.FaultFragment, steered | packet.KindFirstFragment},
		{"UDP length below 8 in a first fragment", ip(17, 8, 0, true), packet.FaultLength, steered | packet.KindFirstFragment},
		{"TCP at offset 8", ip(6, 24, 8, true), packet.FaultFragment, packet.KindIPv4 | packet.KindLaterFragment},
		{"not a multiple of 8, and more to come", ip(17, 12, 0, true), packet.FaultFragment, packet.KindIPv4 | packet.KindFirstFragment},
		{"empty first fragment", ip(17, 0, 0, true), packet.FaultFragment, packet.KindIPv4 | packet.KindFirstFragment},
		{"empty last fragment", ip(17, 0, 80, false), packet.FaultFragment, packet.KindIPv4 | packet.KindLaterFragment},
		{"a byte beyond 65535", ip(17, 4, 65512, false), packet.FaultFragment, packet.KindIPv4 | packet.KindLaterFragment},

		{"IPv6 header cut off", frame(syn6)[:53], packet.FaultShort, 0},
		{"version 4 in IPv6", edit(frame(syn6), 14, 0x45), packet.FaultVersion, 0},
		{"IPv6 payload length beyond the frame", edit(frame(syn6), 19, 21), packet.FaultLength, steered6},
		{"IPv6 payload length of zero", edit(frame(syn6), 19, 0), packet.FaultShort, packet.KindIPv6},
		{"IPv6 TCP header cut off", edit(frame(syn6), 19, 19), packet.FaultShort, steered6},
		{"IPv6 UDP length below 8", edit(frame(pkttest.UDP(client6, vip6)), 59, 0), packet.FaultLength, steered6},
		{"ICMPv6 header cut off", frame(pkttest.IP(client6.Addr(), vip6.Addr(), 58, make([]byte, 7))), packet.FaultICMP, packet.KindIPv6},
		{"too many extension headers", frame(many(syn6, 9)), packet.FaultExtension, packet.KindIPv6 | packet.KindOptions},
		{"hop-by-hop not in front", frame(syn6.DestOptions().HopByHop()), packet.FaultExtension, packet.KindIPv6 | packet.KindOptions},
		{"two fragment headers", frame(syn6.Fragment(1, 0, false).Fragment(2, 0, false)), packet.FaultExtension, packet.KindIPv6 | packet.KindOptions},
		{"extension header cut off", edit(frame(syn6.DestOptions()), 19, 7), packet.FaultShort, packet.KindIPv6 | packet.KindOptions},
		{"extension header beyond the packet", edit(frame(syn6.DestOptions()), 55, 200), packet.FaultLength, packet.KindIPv6 | packet.KindOptions},
		{"AH shorter than its fixed part", edit(frame(syn6.AH()), 55, 0), packet.FaultLength, packet.KindIPv6 | packet.KindOptions},
		{"AH beyond the packet", edit(frame(syn6.AH()), 55, 200), packet.FaultLength, packet.KindIPv6 | packet.KindOptions},
		{"IPv6 tiny first fragment of TCP", ip6(6, 16, 0, true), packet.FaultFragment, steered6 | packet.KindOptions | packet.KindFirstFragment},
		{"IPv6 first fragment without the whole chain", ip6(60, 0, 0, true), packet.FaultFragment, packet.KindIPv6 | packet.KindOptions | packet.KindFirstFragment},
		{"IPv6 first fragment that cuts an extension header", pkttest.Frame(pkttest.UDP(client6, vip6).DestOptions().Cut(9, 8)[0], macA, macB),
			packet.FaultFragment, packet.KindIPv6 | packet.KindOptions | packet.KindFirstFragment},
		{"IPv6 TCP at offset 8", ip6(6, 24, 8, true), packet.FaultFragment, packet.KindIPv6 | packet.KindOptions | packet.KindLaterFragment},
		{"IPv6 not a multiple of 8, and more to come", ip6(17, 12, 80, true), packet.FaultFragment, packet.KindIPv6 | packet.KindOptions | packet.KindLaterFragment},
		{"IPv6 empty last fragment", ip6(17, 0, 80, false), packet.FaultFragment, packet.KindIPv6 | packet.KindOptions | packet.KindLaterFragment},
		{"IPv6 a byte beyond 65535", ip6(17, 8, 65528, false), packet.FaultFragment, packet.KindIPv6 | packet.KindOptions | packet.KindLaterFragment},
		{"IPv6 beyond 65535 by what stands in front of the fragment header",
			frame(pkttest.IP(client6.Addr(), vip6.Addr(), 17, make([]byte, 4)).HopByHop().Fragment(7, 65528, false)),
			packet.FaultFragment, packet.KindIPv6 | packet.KindOptions | packet.KindLaterFragment},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFrames(t).open(t, c.in)
			if got := packet.Parse(f); got != c.want {
				t.Errorf("Parse = %v, want %v\n% x", got, c.want, c.in)
			}
			if f.Kind != c.kind {
				t.Errorf("Kind = %#x, want %#x", f.Kind, c.kind)
			}
			sane(t, f, c.want)
		})
	}
}

// TestFaultsCanBeSteered: whatever is wrong behind them, the ports are read if they are there, since the kernel's program that steers
// frames to us looks no further.
func TestFaultsCanBeSteered(t *testing.T) {
	syn, syn6 := pkttest.TCP(client, vip).SYN(), pkttest.TCP(client6, vip6).SYN()
	for _, in := range [][]byte{
		frame(syn.BadIPChecksum()),
		resealed(frame(syn), 16, 0, 200),               // total length
		resealed(frame(syn), 16, 0, 24),                // only the ports are the packet's
		edit(frame(syn), 46, 0x40),                     // data offset
		edit(frame(pkttest.UDP(client, vip)), 39, 200), // UDP length
		edit(frame(syn6), 19, 200),                     // payload length
		edit(frame(syn6), 19, 4),                       // only the ports are the packet's
	} {
		f := newFrames(t).open(t, in)
		if fault := packet.Parse(f); fault == packet.FaultNone || f.SrcPort != client.Port() || f.DstPort != vip.Port() || f.Proto == 0 {
			t.Errorf("%v: ports %d and %d\n% x", fault, f.SrcPort, f.DstPort, in)
		}
	}
}

// edit is b with these bytes at an offset.
func edit(b []byte, at int, now ...byte) []byte {
	copy(b[at:], now)
	return b
}

// resealed is edit for an untagged IPv4 frame, with the header checksum made right again.
func resealed(b []byte, at int, now ...byte) []byte {
	pkttest.Seal(edit(b, at, now...)[14:])
	return b
}

// TestParseForgets sees that nothing of the frame before is left, whatever the two are.
func TestParseForgets(t *testing.T) {
	rich := [][]byte{
		frame(pkttest.TCP(client, vip).SYN().Options(131, 7, 4, 198, 18, 1, 1).VLAN(100, 200)),
		frame(pkttest.ICMPTooBig(routerA, vip.Addr(), 1400, pkttest.TCP(vip, client).Bytes())),
		frame(pkttest.IP(client6.Addr(), vip6.Addr(), 17, make([]byte, 8)).Fragment(7, 1480, true)),
	}
	poor := [][]byte{nil, make([]byte, 14), frame(pkttest.UDP(client, vip)), frame(pkttest.UDP(client6, vip6)), frame(pkttest.UDP(client, vip))[:30]}
	for i, before := range rich {
		for j, b := range poor {
			t.Run(fmt.Sprintf("%d after %d", j, i), func(t *testing.T) {
				s, fresh := newFrames(t), newFrames(t)
				s.parsed(t, before)
				f, g := s.open(t, b), fresh.open(t, b)
				if a, b := packet.Parse(f), packet.Parse(g); a != b {
					t.Errorf("fault %v, in a fresh frame %v", a, b)
				}
				if diff := cmp.Diff(g.Headers, f.Headers); diff != "" {
					t.Errorf("-fresh +used\n%s", diff)
				}
			})
		}
	}
}

func TestFaultNames(t *testing.T) {
	seen := map[string]bool{}
	for f := range packet.FaultCount {
		if name := f.String(); name == "" || name == "unknown" || seen[name] {
			t.Errorf("fault %d is called %q", f, name)
		} else {
			seen[name] = true
		}
	}
	if got := packet.FaultCount.String(); got != "unknown" {
		t.Errorf("no fault is called %q", got)
	}
}

func TestParseDoesNotAllocate(t *testing.T) {
	s := newFrames(t)
	for _, p := range []pkttest.Packet{
		pkttest.TCP(client, vip).SYN(),
		pkttest.TCP(client6, vip6).HopByHop().DestOptions(),
		pkttest.ICMPTimeExceeded(router6, vip6.Addr(), pkttest.UDP(vip6, client6).Fragment(1, 0, true).Bytes()),
	} {
		f := s.open(t, frame(p))
		if n := testing.AllocsPerRun(100, func() { packet.Parse(f) }); n != 0 {
			t.Errorf("%v: %v allocations", p, n)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	quoted := pkttest.TCP(vip, client).Bytes()
	for _, c := range []struct {
		name string
		in   []byte
	}{
		{"tcp4", frame(pkttest.TCP(client, vip).Ack(1))},
		{"udp4", frame(pkttest.UDP(client, vip))},
		{"tcp4 vlan", frame(pkttest.TCP(client, vip).Ack(1).VLAN(100))},
		{"tcp4 options", frame(pkttest.TCP(client, vip).Ack(1).Options(148, 4, 0, 0))},
		{"tcp6", frame(pkttest.TCP(client6, vip6).Ack(1))},
		{"tcp6 extensions", frame(pkttest.TCP(client6, vip6).Ack(1).HopByHop().DestOptions())},
		{"fragment4", frame(pkttest.IP(client.Addr(), vip.Addr(), 17, make([]byte, 8)).Fragment(1, 1480, true))},
		{"icmp error4", frame(pkttest.ICMPTimeExceeded(routerA, vip.Addr(), quoted))},
	} {
		b.Run(c.name, func(b *testing.B) {
			f := newFrames(b).open(b, c.in)
			b.ReportAllocs()
			for b.Loop() {
				if packet.Parse(f) != packet.FaultNone {
					b.Fatal("fault")
				}
			}
		})
	}
}
