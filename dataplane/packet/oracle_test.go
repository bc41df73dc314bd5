package packet_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// corpus is one frame of every shape that Parse knows.
func corpus() map[string][]byte {
	data := []byte("what weir carries")
	quoted, quoted6 := pkttest.TCP(vip, client).Ack(1).Bytes(), pkttest.UDP(vip6, client6).DestOptions().Payload(data).Bytes()
	udp, udp6 := pkttest.UDP(client, vip).Size(120), pkttest.UDP(client6, vip6).HopByHop().Size(160)
	pieces, pieces6 := udp.Cut(7, 40), udp6.Cut(7, 40)
	return map[string][]byte{
		"tcp":           frame(pkttest.TCP(client, vip).SYN().TCPOptions(2, 4, 5, 180)),
		"tcp data":      frame(pkttest.TCP(client, vip).Ack(1).PSH().Payload(data)),
		"tcp padded":    pkttest.Pad(frame(pkttest.TCP(client, vip).FIN().Ack(1)), 60),
		"tcp vlan":      frame(pkttest.TCP(client, vip).SYN().VLAN(100)),
		"tcp qinq":      frame(pkttest.TCP(client, vip).SYN().VLAN(200, 100)),
		"tcp options":   frame(pkttest.TCP(client, vip).SYN().Options(1, 131, 7, 4, 198, 18, 1, 1).Payload(data)),
		"udp":           frame(udp),
		"sctp":          frame(pkttest.SCTP(client, vip).Chunk(1, 0, data)),
		"sctp chunks":   frame(pkttest.SCTP(client, vip).Chunk(10, 0, data).Chunk(6, 0, nil)),
		"gre":           frame(pkttest.IP(client.Addr(), vip.Addr(), 47, data)),
		"fragment":      pkttest.Frame(pieces[0], macA, macB),
		"last fragment": pkttest.Frame(pieces[1], macA, macB),
		"echo":          frame(pkttest.Echo(client.Addr(), vip.Addr(), 5, 6).Payload(data)),
		"icmp error":    frame(pkttest.ICMPTooBig(routerA, vip.Addr(), 1400, quoted)),
		"tcp6":          frame(pkttest.TCP(client6, vip6).SYN().TCPOptions(2, 4, 5, 160)),
		"tcp6 vlan":     frame(pkttest.TCP(client6, vip6).Ack(1).VLAN(100).Payload(data)),
		"udp6":          frame(udp6),
		"sctp6":         frame(pkttest.SCTP(client6, vip6).Chunk(1, 0, data)),
		"chain6":        frame(pkttest.TCP(client6, vip6).SYN().HopByHop().Routing(0).Fragment(9, 0, false).DestOptions()),
		"ah6":           frame(pkttest.TCP(client6, vip6).SYN().AH()),
		"fragment6":     pkttest.Frame(pieces6[0], macA, macB),
		"last6":         pkttest.Frame(pieces6[1], macA, macB),
		"echo6":         frame(pkttest.Echo(client6.Addr(), vip6.Addr(), 5, 6).Payload(data)),
		"icmp6 error":   frame(pkttest.ICMPTimeExceeded(router6, vip6.Addr(), quoted6)),
		"arp":           pkttest.Ethernet(make([]byte, 28), macA, macB, packet.EtherTypeARP),
	}
}

// TestParseAsGopacket compares with gopacket over the corpus and over frames of it with some bytes changed at random: where both understand
// a frame, they must agree on what lies where.
func TestParseAsGopacket(t *testing.T) {
	s := newFrames(t)
	random := rand.New(rand.NewPCG(3, 5))
	compared := 0
	for name, b := range corpus() {
		s.parsed(t, b)
		for i := range 800 {
			m := append([]byte{}, b...)
			if i > 0 {
				for range 1 + random.IntN(3) {
					m[random.IntN(len(m))] = byte(random.Uint32())
				}
			}
			if i%2 == 0 {
				reseal(m) // else hardly any change of an IPv4 header would get past its checksum
			}
			f := s.open(t, m)
			if packet.Parse(f) == packet.FaultNone && agree(t, f, m) {
				compared++
			}
			if t.Failed() {
				t.Fatalf("%s, changed to\n% x", name, m)
			}
		}
	}
	if compared < 4000 {
		t.Errorf("only %d frames were understood by both", compared)
	}
}

// TestQuoteIsWhatWasSent puts every IP packet of the corpus into an ICMP error, cut to 8 bytes of its transport header: what Parse reads there
// is what it reads of the packet itself.
func TestQuoteIsWhatWasSent(t *testing.T) {
	for name, b := range corpus() {
		t.Run(name, func(t *testing.T) {
			f := newFrames(t).parsed(t, b)
			sent, ip := f.Headers, f.Chunk()[f.L3:f.L3End]
			var q *packet.Frame
			switch n := int(sent.L4-sent.L3) + 8; {
			case sent.Kind&packet.KindIPv4 != 0:
				q = newFrames(t).parsed(t, frame(pkttest.ICMPTimeExceeded(routerA, client.Addr(), ip[:n])))
			case sent.Kind&packet.KindIPv6 != 0:
				q = newFrames(t).parsed(t, frame(pkttest.ICMPTimeExceeded(router6, client6.Addr(), ip[:n])))
			default:
				t.Skip("not IP")
			}
			if later := sent.Kind&packet.KindLaterFragment != 0; (q.Kind&packet.KindQuote == 0) != later {
				t.Fatalf("kind %#x quotes kind %#x", q.Kind, sent.Kind)
			} else if later {
				return
			}
			if q.QuoteL4-q.QuoteL3 != sent.L4-sent.L3 || q.QuoteProto != sent.Proto || q.QuoteSrc != sent.SrcPort || q.QuoteDst != sent.DstPort {
				t.Errorf("sent   %+v\nquoted %+v", sent, q.Headers)
			}
		})
	}
}

// reseal makes the IPv4 header checksum of a frame right, if its Ethernet type says that there is one where it should be.
func reseal(b []byte) {
	at := 14
	for range 2 {
		if len(b) >= at && (b[at-2] == 0x81 || b[at-2] == 0x88) && b[at-1] != 0xcc {
			at += 4
		}
	}
	if len(b) >= at+20 && b[at-2] == 8 && b[at-1] == 0 && b[at]&0xf >= 5 {
		pkttest.Seal(b[at:])
	}
}

// agree compares f, which has no fault, with what gopacket makes of its bytes. It reports false if gopacket does not get to the IP header's
// end, or understands another protocol there.
func agree(t *testing.T, f *packet.Frame, b []byte) bool {
	t.Helper()
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.DecodeOptions{NoCopy: true, DecodeStreamsAsDatagrams: true})
	start := func(l gopacket.Layer) int { // offset of a layer, counted as f counts: both slices end where the array does
		return int(f.Start) + cap(b) - cap(l.LayerContents())
	}
	h := f.Headers
	var src, dst netip.Addr
	l3 := f.Chunk()[h.L3:]
	first := h.Kind&packet.KindLaterFragment == 0
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		if h.Kind&packet.KindIPv4 == 0 {
			t.Errorf("gopacket sees IPv4, Parse kind %#x", h.Kind)
			return false
		}
		src, dst = netip.AddrFrom4([4]byte(l3[12:16])), netip.AddrFrom4([4]byte(l3[16:20]))
		equal(t, "source", src.String(), ip.SrcIP.String())
		equal(t, "destination", dst.String(), ip.DstIP.String())
		equal(t, "L3", int(h.L3), start(ip))
		equal(t, "L4", int(h.L4), start(ip)+len(ip.Contents))
		equal(t, "L3End", int(h.L3End), start(ip)+int(ip.Length))
		equal(t, "TTL", h.TTL, ip.TTL)
		equal(t, "protocol", h.Proto, uint8(ip.Protocol))
		equal(t, "later fragment", !first, ip.FragOffset != 0)
		equal(t, "fragment offset", int(h.FragmentOff), int(ip.FragOffset)*8)
		equal(t, "first fragment", h.Kind&packet.KindFirstFragment != 0, ip.FragOffset == 0 && ip.Flags&layers.IPv4MoreFragments != 0)
		equal(t, "options", h.Kind&packet.KindOptions != 0, ip.IHL > 5)
	case *layers.IPv6:
		if h.Kind&packet.KindIPv6 == 0 {
			t.Errorf("gopacket sees IPv6, Parse kind %#x", h.Kind)
			return false
		}
		if ip.Length == 0 {
			return false // gopacket takes it for a jumbogram
		}
		src, dst = netip.AddrFrom16([16]byte(l3[8:24])), netip.AddrFrom16([16]byte(l3[24:40]))
		equal(t, "source", src.String(), ipString(ip.SrcIP))
		equal(t, "destination", dst.String(), ipString(ip.DstIP))
		equal(t, "L3", int(h.L3), start(ip))
		equal(t, "L3End", int(h.L3End), start(ip)+40+int(ip.Length))
		equal(t, "hop limit", h.TTL, ip.HopLimit)
	default:
		return false
	}
	if !first {
		return true
	}
	switch l := p.TransportLayer().(type) {
	case *layers.TCP:
		if h.Proto != packet.ProtoTCP || h.Kind&packet.KindTransport == 0 {
			return false // gopacket goes on through tunnels
		}
		equal(t, "L4", int(h.L4), start(l))
		equal(t, "ports", [2]uint16{h.SrcPort, h.DstPort}, [2]uint16{uint16(l.SrcPort), uint16(l.DstPort)})
		equal(t, "SYN and ACK", [2]bool{h.Flags&packet.TCPSyn != 0, h.Flags&packet.TCPAck != 0}, [2]bool{l.SYN, l.ACK})
		equal(t, "RST and FIN", [2]bool{h.Flags&packet.TCPRst != 0, h.Flags&packet.TCPFin != 0}, [2]bool{l.RST, l.FIN})
	case *layers.UDP:
		if h.Proto != packet.ProtoUDP || h.Kind&packet.KindTransport == 0 {
			return false
		}
		equal(t, "L4", int(h.L4), start(l))
		equal(t, "ports", [2]uint16{h.SrcPort, h.DstPort}, [2]uint16{uint16(l.SrcPort), uint16(l.DstPort)})
	case *layers.SCTP:
		if h.Proto != packet.ProtoSCTP || h.Kind&packet.KindTransport == 0 {
			return false
		}
		equal(t, "L4", int(h.L4), start(l))
		equal(t, "ports", [2]uint16{h.SrcPort, h.DstPort}, [2]uint16{uint16(l.SrcPort), uint16(l.DstPort)})
		equalChunks(t, h.Flags, p)
	}
	if l, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok && h.Kind&packet.KindTransport != 0 && h.Proto == packet.ProtoICMP {
		equal(t, "L4", int(h.L4), start(l))
		equal(t, "type and code", [2]uint8{h.ICMPType, h.ICMPCode}, [2]uint8{l.TypeCode.Type(), l.TypeCode.Code()})
	}
	if l, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok && h.Kind&packet.KindTransport != 0 && h.Proto == packet.ProtoICMPv6 {
		equal(t, "L4", int(h.L4), start(l))
		equal(t, "type and code", [2]uint8{h.ICMPType, h.ICMPCode}, [2]uint8{l.TypeCode.Type(), l.TypeCode.Code()})
	}
	return true
}

// equalChunks compares the Flags of an SCTP packet with the chunks that gopacket finds in p, as far as it understands them.
func equalChunks(t *testing.T, flags uint8, p gopacket.Packet) {
	t.Helper()
	var types []uint8
	for _, l := range p.Layers() {
		switch l.(type) {
		case *layers.SCTPData, *layers.SCTPInit, *layers.SCTPSack, *layers.SCTPHeartbeat, *layers.SCTPError, *layers.SCTPShutdown,
			*layers.SCTPShutdownAck, *layers.SCTPCookieEcho, *layers.SCTPEmptyLayer:
			types = append(types, l.LayerContents()[0])
		}
	}
	if len(types) == 0 {
		return
	}
	equal(t, "first chunk", flags&packet.SCTPChunk, types[0])
	if len(types) > 1 && (types[0] == packet.SCTPCookieEcho || types[0] == packet.SCTPCookieAck) {
		equal(t, "ABORT behind", flags&packet.SCTPAbortBehind != 0, types[1] == packet.SCTPAbort)
	}
}

func ipString(b []byte) string { return netip.AddrFrom16([16]byte(b)).String() }

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: Parse says %v, gopacket %v", what, got, want)
	}
}
