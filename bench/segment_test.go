package bench

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"weir/dataplane/packet/pkttest"
)

var macA, macB = pkttest.MAC("02:00:00:00:00:01"), pkttest.MAC("02:00:00:00:00:02")

// An opener and an acceptor without state hold a whole connection, and every segment is one that a judge accepts.
func TestAConnectionWithoutState(t *testing.T) {
	for _, ends := range [][2]string{{"198.18.0.2:1024", "198.18.9.9:80"}, {"[2001:db8::2]:1024", "[2001:db8:9::9]:80"}} {
		client, server := netip.MustParseAddrPort(ends[0]), netip.MustParseAddrPort(ends[1])
		now := int64(300e9) // ticks have come round once
		wire := make([]byte, 128)
		n := copy(wire, pkttest.Pad(pkttest.TCP(client, server).SYN().Seq(ticks(now)).TCPOptions(2, 4, 5, 180).Frame(macA, macB), 60))
		var opener, acceptor tcpCounters
		var log []uint8
		toServer := [][]byte{wire[:n]}
		var took int64
		for len(toServer) > 0 {
			var toClient [][]byte
			for _, b := range toServer {
				if err := pkttest.Verify(unpadded(b)); err != nil {
					t.Fatalf("to the server: %v", err)
				}
				seg, ok := parseSegment(b)
				if !ok {
					t.Fatalf("% x is no segment", b)
				}
				log = append(log, seg.flags)
				if flags, seq, ack := acceptor.accept(seg); flags != 0 {
					toClient = append(toClient, b[:seg.answer(b, flags, seq, ack)])
				}
			}
			toServer = nil
			now += 1e6
			for _, b := range toClient {
				if err := pkttest.Verify(unpadded(b)); err != nil {
					t.Fatalf("to the client: %v", err)
				}
				seg, _ := parseSegment(b)
				log = append(log, seg.flags)
				first, second, ack, ns := opener.open(seg, now)
				if ns >= 0 {
					took = ns
				}
				for _, flags := range []uint8{first, second} {
					if flags != 0 {
						c := append([]byte(nil), b...)
						toServer = append(toServer, c[:seg.answer(c, flags, seg.ack, ack)])
					}
				}
			}
			if len(log) > 10 {
				t.Fatal("they go on for ever")
			}
		}
		want := []uint8{flagSYN, flagSYN | flagACK, flagACK, flagFIN | flagACK, flagFIN | flagACK, flagACK}
		if string(log) != string(want) {
			t.Errorf("flags %v, want %v", log, want)
		}
		if (opener != tcpCounters{established: 1, closed: 1}) || (acceptor != tcpCounters{accepted: 1}) {
			t.Errorf("opener %+v, acceptor %+v", opener, acceptor)
		}
		if took < 1e6-64 || took > 1e6+64 {
			t.Errorf("the handshake took %d ns, want 1 ms", took)
		}
	}
}

func TestResets(t *testing.T) {
	var opener, acceptor tcpCounters
	rst := segment{flags: flagRST | flagACK}
	if first, second, _, took := opener.open(rst, 0); first != 0 || second != 0 || took >= 0 {
		t.Error("an opener answers a RST")
	}
	if flags, _, _ := acceptor.accept(rst); flags != 0 {
		t.Error("an acceptor answers a RST")
	}
	if opener.resets != 1 || acceptor.resets != 1 {
		t.Errorf("resets %d and %d", opener.resets, acceptor.resets)
	}
}

func TestSegmentsThatAreNone(t *testing.T) {
	a, b := netip.MustParseAddrPort("198.18.0.2:1"), netip.MustParseAddrPort("198.18.9.9:2")
	good := pkttest.TCP(a, b).Ack(1).Frame(macA, macB)
	for name, f := range map[string]func([]byte) []byte{
		"UDP":            func([]byte) []byte { return pkttest.UDP(a, b).Size(80).Frame(macA, macB) },
		"options":        func([]byte) []byte { return pkttest.TCP(a, b).Options(1, 1, 1, 1).Frame(macA, macB) },
		"later fragment": func(x []byte) []byte { x[21] = 1; return x },
		"first fragment": func(x []byte) []byte { x[20] = 0x20; return x },
		"cut short":      func(x []byte) []byte { return x[:53] },
		"length":         func(x []byte) []byte { binary.BigEndian.PutUint16(x[16:], 41); return x },
		"no header":      func(x []byte) []byte { binary.BigEndian.PutUint16(x[16:], 39); return x },
		"offset small":   func(x []byte) []byte { x[46] = 4 << 4; return x },
		"offset large":   func(x []byte) []byte { x[46] = 6 << 4; return x },
		"other":          func(x []byte) []byte { x[12] = 0x88; return x },
	} {
		if _, ok := parseSegment(f(append([]byte(nil), good...))); ok {
			t.Errorf("%s: is taken for a segment", name)
		}
	}
	if s, ok := parseSegment(good); !ok || s.ack != 1 || s.payload != 0 {
		t.Errorf("a good one: %+v %v", s, ok)
	}
}

func TestAnswersToNeighbors(t *testing.T) {
	own := []Range{{netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.0.9")}, {netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8::9")}}
	mac := [6]byte{2, 0, 0, 0, 0, 2}
	arp := func(target byte) []byte {
		b := []byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 198, 18, 0, 1, 0, 0, 0, 0, 0, 0, 198, 18, 0, target}
		return pkttest.Pad(pkttest.Ethernet(b, macA, pkttest.MAC("ff:ff:ff:ff:ff:ff"), 0x0806), 60)
	}
	b := arp(5)
	want := pkttest.Pad(pkttest.Ethernet([]byte{0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 2, 198, 18, 0, 5, 2, 0, 0, 0, 0, 1, 198, 18, 0, 1}, macB, macA, 0x0806), 60)
	if n := answerNeighbor(b, mac, own); string(b[:n]) != string(want) {
		t.Errorf("ARP:\n% x\nwant\n% x", b[:n], want)
	}
	if n := answerNeighbor(arp(10), mac, own); n != 0 {
		t.Error("ARP for another's address is answered")
	}
	if n := answerNeighbor(want, mac, own); n != 0 {
		t.Error("an ARP answer is answered")
	}
	solicit := func(from, target string) []byte {
		a := netip.MustParseAddr(target).As16()
		rest := append(a[:], 1, 1, 2, 0, 0, 0, 0, 1)
		return pkttest.ICMP(netip.MustParseAddr(from), netip.MustParseAddr("ff02::1:ff00:5"), 135, 0, 0).Payload(rest).TTL(255).Frame(macA, pkttest.MAC("33:33:ff:00:00:05"))
	}
	b = solicit("2001:db8::1", "2001:db8::5")
	a := netip.MustParseAddr("2001:db8::5").As16()
	want = pkttest.ICMP(netip.MustParseAddr("2001:db8::5"), netip.MustParseAddr("2001:db8::1"), 136, 0, 0x60000000).
		Payload(append(a[:], 2, 1, 2, 0, 0, 0, 0, 2)).TTL(255).Frame(macB, macA)
	if n := answerNeighbor(b, mac, own); string(b[:n]) != string(want) {
		t.Errorf("ND:\n% x\nwant\n% x", b[:n], want)
	}
	if answerNeighbor(solicit("2001:db8::1", "2001:db8::a"), mac, own) != 0 || answerNeighbor(solicit("::", "2001:db8::5"), mac, own) != 0 {
		t.Error("ND for another's address, or of an asker without one, is answered")
	}
}

// FuzzTake gives a port any bytes: it must neither panic nor lose the chunk, whatever its role.
func FuzzTake(f *testing.F) {
	a, b := netip.MustParseAddrPort("198.18.0.2:1"), netip.MustParseAddrPort("198.18.9.9:2")
	f.Add(pkttest.TCP(a, b).SYN().Frame(macA, macB), uint8(1))
	f.Add(pkttest.TCP(a, b).SYN().Ack(7).Frame(macA, macB), uint8(2))
	f.Add(pkttest.UDP(a, b).Size(80).Frame(macA, macB), uint8(4))
	f.Add(pkttest.Ethernet(make([]byte, 28), macA, macB, 0x0806), uint8(0))
	x := make([]byte, 18)
	putStamp(x, 3, 9, 1)
	f.Add(pkttest.UDP(a, b).Payload(x).Frame(macA, macB), uint8(4))
	six := pkttest.UDP(netip.MustParseAddrPort("[2001:db8::1]:1"), netip.MustParseAddrPort("[2001:db8::2]:2"))
	f.Add(six.Payload(x).Frame(macA, macB), uint8(4))
	f.Add(append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd}, x...), uint8(4)) // a stamp where addresses would be
	s, far, cable, err := openMem(8)
	if err != nil {
		f.Fatal(err)
	}
	clock := newClock()
	f.Cleanup(func() { s.close(); far.close() })
	s.role.own = []Range{{netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255")}, {netip.MustParseAddr("::"), netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")}}
	f.Fuzz(func(t *testing.T, frame []byte, as uint8) {
		if len(frame) > 1800 {
			t.Skip("no port receives this")
		}
		s.role.opener, s.role.respond, s.role.echo = as&1 != 0, as&2 != 0, as&4 != 0
		if !cable.ends[0].Inject(frame) {
			t.Fatal("the port is full")
		}
		s.round(clock.now(), clock)
		var sink [chunkSize]byte
		for {
			if _, ok := cable.ends[0].Take(sink[:]); !ok {
				break
			}
		}
		if s.pool.Free() != s.pool.Chunks() {
			t.Fatalf("%d of %d chunks are free", s.pool.Free(), s.pool.Chunks())
		}
	})
}
