package packet_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

func TestMayAnswer(t *testing.T) {
	group := pkttest.MAC("01:00:5e:00:00:01")
	from := func(a string) []byte {
		return frame(pkttest.UDP(netip.AddrPortFrom(netip.MustParseAddr(a), 4000), vip))
	}
	to := func(a string) []byte {
		return frame(pkttest.UDP(client, netip.AddrPortFrom(netip.MustParseAddr(a), 80)))
	}
	from6 := func(a string) []byte {
		return frame(pkttest.UDP(netip.AddrPortFrom(netip.MustParseAddr(a), 4000), vip6))
	}
	for _, c := range []struct {
		name string
		in   []byte
		want bool
	}{
		{"TCP", frame(pkttest.TCP(client, vip).SYN()), true},
		{"UDP over IPv6", frame(pkttest.UDP(client6, vip6)), true},
		{"echo request", frame(pkttest.Echo(client.Addr(), vip.Addr(), 1, 1)), true},
		{"IPv6 echo request", frame(pkttest.Echo(client6.Addr(), vip6.Addr(), 1, 1)), true},
		{"first fragment", frame(pkttest.IP(client.Addr(), vip.Addr(), 17, ports(100)).Fragment(1, 0, true)), true},
		{"later fragment", frame(pkttest.IP(client.Addr(), vip.Addr(), 17, ports(100)).Fragment(1, 8, true)), false},
		{"ICMP error", frame(pkttest.ICMPTimeExceeded(client.Addr(), vip.Addr(), nil)), false},
		{"ICMP redirect", frame(pkttest.ICMPError(client.Addr(), vip.Addr(), 5, 0, 0, nil)), false},
		{"ICMPv6 error", frame(pkttest.ICMPTimeExceeded(client6.Addr(), vip6.Addr(), nil)), false},
		{"ICMPv6 redirect", frame(pkttest.ICMP(client6.Addr(), vip6.Addr(), 137, 0, 0)), false},
		{"group MAC", pkttest.UDP(client, vip).Frame(macA, group), false},
		{"ARP", pkttest.Ethernet(make([]byte, 28), macA, macB, packet.EtherTypeARP), false},
		{"from 0.0.0.0", from("0.0.0.0"), false},
		{"from 0.0.0.1, this network", from("0.0.0.1"), false},
		{"from loopback", from("127.0.0.1"), false},
		{"from multicast", from("224.0.0.1"), false},
		{"from class E", from("240.0.0.1"), false},
		{"from broadcast", from("255.255.255.255"), false},
		{"from 126 and from 128 and from 223", from("126.255.255.255"), true},
		{"from 128.0.0.0", from("128.0.0.0"), true},
		{"from 223.255.255.255", from("223.255.255.255"), true},
		{"to multicast", to("224.0.0.1"), false},
		{"to broadcast", to("255.255.255.255"), false},
		{"from ::", from6("::"), false},
		{"from ::1", from6("::1"), false},
		{"from ::2", from6("::2"), true},
		{"from IPv6 multicast", from6("ff02::1"), false},
		{"to IPv6 multicast", frame(pkttest.UDP(client6, netip.MustParseAddrPort("[ff02::1]:80"))), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := packet.MayAnswer(newFrames(t).parsed(t, c.in)); got != c.want {
				t.Errorf("MayAnswer = %v, want %v", got, c.want)
			}
		})
	}
}

func TestReset(t *testing.T) {
	syn, syn6 := pkttest.TCP(client, vip).Seq(1000), pkttest.TCP(client6, vip6).Seq(1000)
	rst, rst6 := pkttest.TCP(vip, client).RST().Window(0).DF(), pkttest.TCP(vip6, client6).RST().Window(0)
	for _, c := range []struct {
		name     string
		in, want pkttest.Packet
	}{
		{"SYN: acknowledged, from sequence number 0", syn.SYN(), rst.Ack(1001)},
		{"SYN with options: they are no data", syn.SYN().TCPOptions(2, 4, 5, 180), rst.Ack(1001)},
		{"SYN with data", syn.SYN().Payload(make([]byte, 5)), rst.Ack(1006)},
		{"data without ACK", syn.Payload(make([]byte, 5)), rst.Ack(1005)},
		{"FIN without ACK", syn.FIN(), rst.Ack(1001)},
		{"SYN and FIN count twice", syn.SYN().FIN(), rst.Ack(1002)},
		{"a sequence number that wraps", syn.Seq(0xffffffff).SYN(), rst.Ack(0)},
		{"ACK: reset at what it acknowledges, without ACK", syn.Ack(77).Payload(make([]byte, 5)), rst.Seq(77)},
		{"FIN and ACK", syn.FIN().Ack(77), rst.Seq(77)},
		{"DSCP is taken over, ECN is not", syn.SYN().TOS(0xbb), rst.Ack(1001).TOS(0xb8)},
		{"IPv4 options are not taken over", syn.SYN().Options(148, 4, 0, 0), rst.Ack(1001)},
		{"IPv6 SYN", syn6.SYN(), rst6.Ack(1001)},
		{"IPv6 ACK", syn6.Ack(77).TOS(0xbb), rst6.Seq(77).TOS(0xb8)},
		{"IPv6 with extension headers", syn6.SYN().HopByHop().Payload(make([]byte, 3)), rst6.Ack(1004)},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFrames(t).parsed(t, pkttest.Pad(frame(c.in), 80)) // padding does not count as data
			want := c.want.Bytes()
			b := filled(len(want))
			n := packet.Reset(b, f)
			if got := b[:n]; !bytes.Equal(got, want) {
				t.Errorf("got  %s\nwant %s\n% x\n% x", pkttest.String(got), pkttest.String(want), got, want)
			}
			pkttest.Check(t, b[:n])
			if n := packet.Reset(b[:len(want)-1], f); n != 0 {
				t.Errorf("Reset into a byte too few = %d", n)
			}
		})
	}
	for _, in := range []pkttest.Packet{
		pkttest.UDP(client, vip),
		pkttest.IP(client.Addr(), vip.Addr(), 6, append(ports(1), make([]byte, 16)...)).Fragment(1, 1480, true),
		pkttest.TCP(client6, vip6).Payload(make([]byte, 12)).Fragment(1, 0, true),
	} {
		if n := packet.Reset(filled(100), newFrames(t).parsed(t, frame(in))); n != 0 {
			t.Errorf("%v is answered by a RST of %d bytes", in, n)
		}
	}
}

// filled is n bytes of old content: builders must write every byte.
func filled(n int) []byte { return bytes.Repeat([]byte{0xa5}, n) }

func TestICMPError(t *testing.T) {
	us, us6 := netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("2001:db8::1")
	small, small6 := pkttest.TCP(client, vip).SYN().TOS(0x1f).Bytes(), pkttest.TCP(client6, vip6).SYN().TOS(0xff).Bytes()
	large, large6 := pkttest.UDP(client, vip).Size(1500).Bytes(), pkttest.UDP(client6, vip6).Size(1500).Bytes()
	for _, c := range []struct {
		name   string
		quoted []byte
		want   pkttest.Packet
	}{
		{"time exceeded, all quoted; TOS keeps all but precedence and ECN", small, pkttest.ICMPTimeExceeded(us, client.Addr(), small).TOS(0xdc)},
		{"too big, 576 bytes", large, pkttest.ICMPTooBig(us, client.Addr(), 1400, large[:548]).TOS(0xc0)},
		{"port unreachable, 576 bytes to the byte", large[:548], pkttest.ICMPPortUnreachable(us, client.Addr(), large[:548]).TOS(0xc0)},
		{"IPv6 time exceeded", small6, pkttest.ICMPTimeExceeded(us6, client6.Addr(), small6)},
		{"IPv6 too big, 1280 bytes", large6, pkttest.ICMPTooBig(us6, client6.Addr(), 1400, large6[:1232])},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.want.ID(0xbeef).Bytes()
			build := func(b []byte) int {
				if want[0]>>4 == 4 {
					return packet.ICMPError4(b, 0xbeef, us.As4(), client.Addr().As4(), want[20], want[21], binary.BigEndian.Uint32(want[24:]), c.quoted)
				}
				return packet.ICMPError6(b, us6.As16(), client6.Addr().As16(), want[40], want[41], binary.BigEndian.Uint32(want[44:]), c.quoted)
			}
			b := filled(len(want))
			if got := b[:build(b)]; !bytes.Equal(got, want) {
				t.Errorf("got  %s\nwant %s\n% x\n% x", pkttest.String(got), pkttest.String(want), got, want)
			}
			pkttest.Check(t, b)
			if n := build(b[:len(want)-1]); n != 0 {
				t.Errorf("%d bytes into a byte too few", n)
			}
			// The error must say to whoever gets it what it is about.
			f := newFrames(t).parsed(t, pkttest.Frame(b, macA, macB))
			if f.Kind&packet.KindQuote == 0 || f.QuoteSrc != client.Port() || f.QuoteDst != vip.Port() {
				t.Errorf("quote of ports %d and %d", f.QuoteSrc, f.QuoteDst)
			}
		})
	}
	if n := packet.ICMPError4(filled(2000), 1, us.As4(), us.As4(), 3, 3, 0, large[:19]); n != 0 {
		t.Errorf("%d bytes that quote no IPv4 header", n)
	}
	if n := packet.ICMPError6(filled(2000), us6.As16(), us6.As16(), 1, 4, 0, large6[:39]); n != 0 {
		t.Errorf("%d bytes that quote no IPv6 header", n)
	}
}

// TestAnswersAreTheKernels repeats what Linux 6.1 answered in the golden files no-service-v4, ttl-v4 and no-service-v6, byte for byte. Two
// fields of the recorded IPv6 RST are set right before: the flow label, which the kernel makes up, and the checksum, of which the recording has
// only the pseudo header's part, as it was before the device would have completed it.
func TestAnswersAreTheKernels(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		build          func(b []byte, f *packet.Frame, want []byte) int
	}{
		{"RST to a SYN",
			"45000028000040004006259bc6128007c612090910cc0051000003e8000000005002ffff85a80000",
			"45000028000040004006259bc6120909c6128007005110cc00000000000003e95014000085950000",
			func(b []byte, f *packet.Frame, _ []byte) int { return packet.Reset(b, f) }},
		{"IPv6 RST to a SYN",
			"600000000014064020010db8000c0000000000000000000720010db800090000000000000000000910cc0051000003e8000000005002ffff3f470000",
			"600000000014064020010db800090000000000000000000920010db8000c00000000000000000007005110cc00000000000003e9501400003f340000",
			func(b []byte, f *packet.Frame, _ []byte) int { return packet.Reset(b, f) }},
		{"port unreachable",
			"450000210000400040112597c6128007c612090910cc0036000d95ca68656c6c6f",
			"45c0003d2277000040014254c6120909c61280070303125100000000450000210000400040112597c6128007c612090910cc0036000d95ca68656c6c6f",
			answer4},
		{"time exceeded",
			"45000028000040000106649bc6128007c612090911f90050000003e8000000005002ffff847c0000",
			"45c00044ad1f00004001b7a4c6120909c61280070b000a500000000045000028000040000106649bc6128007c612090911f90050000003e8000000005002ffff847c0000",
			answer4},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, want := unhex(t, c.in), unhex(t, c.want)
			f := newFrames(t).parsed(t, pkttest.Frame(in, macA, macB))
			b := filled(600)
			if got := b[:c.build(b, f, want)]; !bytes.Equal(got, want) {
				t.Errorf("got  %s\nwant %s\n% x\n% x", pkttest.String(got), pkttest.String(want), got, want)
			}
			pkttest.Check(t, want)
		})
	}
}

// answer4 answers f with the error that want is one of, and with its IP ID.
func answer4(b []byte, f *packet.Frame, want []byte) int {
	ip := f.Chunk()[f.L3:f.L3End]
	return packet.ICMPError4(b, binary.BigEndian.Uint16(want[4:]), [4]byte(ip[16:20]), [4]byte(ip[12:16]), want[20], want[21], 0, ip)
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEchoReply(t *testing.T) {
	a, b, a6, b6 := client.Addr(), vip.Addr(), client6.Addr(), vip6.Addr()
	data := []byte("abcdefghi")
	for _, c := range []struct {
		name     string
		in, want pkttest.Packet
	}{
		{"echo", pkttest.Echo(a, b, 5, 6).Payload(data).TTL(3).ID(7).DF(), pkttest.EchoReply(b, a, 5, 6).Payload(data).ID(7).DF()},
		{"options stay", pkttest.Echo(a, b, 5, 6).Options(148, 4, 0, 0), pkttest.EchoReply(b, a, 5, 6).Options(148, 4, 0, 0)},
		{"IPv6 echo", pkttest.Echo(a6, b6, 5, 6).Payload(data).TTL(3), pkttest.EchoReply(b6, a6, 5, 6).Payload(data)},
		{"hop-by-hop stays", pkttest.Echo(a6, b6, 5, 6).HopByHop(), pkttest.EchoReply(b6, a6, 5, 6).HopByHop()},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, want := c.in.Bytes(), c.want.Bytes()
			if !packet.EchoReply(got) {
				t.Fatal("refused")
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got  %s\nwant %s\n% x\n% x", pkttest.String(got), pkttest.String(want), got, want)
			}
		})
	}
	t.Run("a damaged one stays damaged", func(t *testing.T) {
		ip := pkttest.Echo(a6, b6, 5, 6).BadChecksum().Bytes()
		if !packet.EchoReply(ip) || pkttest.Verify(ip) == nil {
			t.Error("the checksum was made right")
		}
	})
	t.Run("a reply that is all zero has a checksum that verifies", func(t *testing.T) {
		ip := pkttest.Echo(a, b, 0, 0).Bytes()
		packet.EchoReply(ip)
		pkttest.Check(t, ip)
	})
	for _, in := range []pkttest.Packet{
		pkttest.UDP(client, vip), pkttest.EchoReply(a, b, 1, 1), pkttest.ICMP(a, b, 13, 0, 0),
		pkttest.Echo(a, b, 1, 1).Fragment(1, 0, true), pkttest.Echo(a, b, 1, 1).Fragment(1, 8, false),
		pkttest.UDP(client6, vip6), pkttest.EchoReply(a6, b6, 1, 1), pkttest.Echo(a6, b6, 1, 1).Routing(0),
		pkttest.Echo(a6, b6, 1, 1).Fragment(1, 0, true), many(pkttest.Echo(a6, b6, 1, 1), 9),
	} {
		ip := in.Bytes()
		if packet.EchoReply(ip) || !bytes.Equal(ip, in.Bytes()) {
			t.Errorf("%v became %s", in, pkttest.String(ip))
		}
	}
	for _, whole := range [][]byte{pkttest.Echo(a, b, 5, 6).Bytes(), pkttest.Echo(a6, b6, 5, 6).HopByHop().Bytes()} {
		for n := range whole {
			if packet.EchoReply(append([]byte{}, whole[:n]...)) {
				t.Errorf("%d bytes of %s are answered", n, pkttest.String(whole))
			}
		}
	}
}

func TestAnswersDoNotAllocate(t *testing.T) {
	s := newFrames(t)
	f := s.parsed(t, frame(pkttest.TCP(client, vip).SYN()))
	quoted := f.Chunk()[f.L3:f.L3End]
	echo, b := pkttest.Echo(client6.Addr(), vip6.Addr(), 1, 1).HopByHop().Bytes(), make([]byte, 1500)
	large := pkttest.UDP(client, vip).Size(1400).Bytes()
	src, dst := client.Addr().As4(), vip.Addr().As4()
	src6, dst6 := client6.Addr().As16(), vip6.Addr().As16()
	allocs := testing.AllocsPerRun(100, func() {
		if !packet.MayAnswer(f) || packet.Reset(b, f) == 0 || packet.ICMPError4(b, 1, src, dst, 3, 3, 0, quoted) == 0 ||
			packet.ICMPError6(b, src6, dst6, 1, 4, 0, echo) == 0 {
			t.Error("nothing was written")
		}
		packet.EchoReply(echo)
		for at := 0; at >= 0; {
			_, at = packet.Fragment4(b, large, at, 576)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
