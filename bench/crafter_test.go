package bench

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"weir/dataplane/packet/pkttest"
)

// twin makes by gopacket, from scratch, what crafter.next makes of a shape.
func twin(t *Traffic, flow uint64, size int, stream uint8, number uint64, when int64) []byte {
	src, dst, sport, dport := t.flow(flow)
	plus := func(a netip.Addr, n uint64) netip.Addr {
		for range n {
			a = a.Next()
		}
		return a
	}
	from := netip.AddrPortFrom(plus(t.Src.First, src), t.SrcPorts.First+sport)
	to := netip.AddrPortFrom(plus(t.Dst.First, dst), t.DstPorts.First+dport)
	var p pkttest.Packet
	if t.Kind == UDP {
		payload := make([]byte, size-t.headers())
		putStamp(payload[len(payload)-stampLen:], stream, number, when)
		p = pkttest.UDP(from, to).Payload(payload)
	} else {
		p = pkttest.TCP(from, to).SYN().Seq(ticks(when)).Window(window)
	}
	if from.Addr().Is4() {
		p = p.DF()
	}
	b := p.TTL(t.TTL).Frame(net.HardwareAddr(t.SrcMAC[:]), net.HardwareAddr(t.DstMAC[:]))
	return append(b, make([]byte, size-len(b))...)
}

// unpadded is the packet in a frame.
func unpadded(frame []byte) []byte {
	n := 14 + int(binary.BigEndian.Uint16(frame[16:]))
	if frame[12] == 0x86 {
		n = 54 + int(binary.BigEndian.Uint16(frame[18:]))
	}
	return frame[14:n]
}

func drawTraffic(r *rapid.T, kinds ...Kind) Traffic {
	t := Traffic{SrcMAC: [6]byte{2, 0, 0, 0, 0, 1}, DstMAC: [6]byte{2, 0, 0, 0, 0, 2}, Kind: rapid.SampledFrom(kinds).Draw(r, "kind"), TTL: uint8(rapid.IntRange(1, 255).Draw(r, "ttl"))}
	ranges := [][2]string{{"198.18.0.2-198.18.0.9", "198.18.9.9"}, {"198.18.0.255-198.18.1.4", "198.19.255.254-198.19.255.255"},
		{"2001:db8::fffe-2001:db8::1:3", "2001:db8:9::9"}, {"2001:db8::ffff:ffff-2001:db8::1:0:3", "2001:db8::ffff:ffff:ffff:fffe-2001:db8::ffff:ffff:ffff:ffff"}}
	pair := rapid.SampledFrom(ranges).Draw(r, "addresses")
	t.Src, _ = ParseRange(pair[0])
	t.Dst, _ = ParseRange(pair[1])
	first := uint16(rapid.IntRange(1, 65000).Draw(r, "sport"))
	t.SrcPorts = Ports{first, first + uint16(rapid.IntRange(0, 535).Draw(r, "sports"))}
	first = uint16(rapid.IntRange(1, 65000).Draw(r, "dport"))
	t.DstPorts = Ports{first, first + uint16(rapid.IntRange(0, 3).Draw(r, "dports"))}
	t.Shuffle = rapid.Bool().Draw(r, "shuffle")
	t.Mix = rapid.SampledFrom([]Mix{{{96, 1}}, {{1518, 1}}, {{128, 3}, {594, 2}, {1518, 1}}}).Draw(r, "mix")
	if t.Kind == UDP && t.Src.First.Is4() {
		attacks := []Attack{NoAttack, Fragments, TTL, Port}
		if len(t.Mix) == 1 {
			attacks = append(attacks, Errors)
		}
		attacks = append(attacks, Station)
		if t.Dst.Count() == 1 {
			attacks = append(attacks, Neighbor)
		}
		t.Attack = rapid.SampledFrom(attacks).Draw(r, "attack")
	}
	if err := t.complete(); err != nil {
		r.Fatal(err)
	}
	t.Flows = rapid.Uint64Range(1, t.Flows).Draw(r, "flows")
	return t
}

// TestCrafter compares frames, byte for byte, with those that gopacket makes from scratch: the sums that are put together are right.
func TestCrafter(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		x := drawTraffic(r, UDP, SYN)
		stream := uint8(rapid.IntRange(0, 255).Draw(r, "stream"))
		c := newCrafter(x, stream)
		c.number = rapid.Uint64Range(0, maxNumber-10).Draw(r, "number")
		order := x.Mix.schedule()
		for i := range 8 {
			when := rapid.Int64Range(0, 1<<62).Draw(r, "when")
			number, flow := c.number, c.pick()
			b := bytes.Repeat([]byte{0xff}, 2048) // what an earlier frame left
			n := c.next(b, when)
			want := twin(&x, flow, x.Mix[order[i%len(order)]].Bytes-fcs, stream, number, when)
			if x.Attack != NoAttack && number&1 != 0 {
				isAttack(r, &x, number/2, b[:n], want)
				continue
			}
			if !bytes.Equal(b[:n], want) {
				r.Fatalf("frame %d:\n% x\nwant\n% x", i, b[:n], want)
			}
			if err := pkttest.Verify(unpadded(b[:n])); err != nil {
				r.Fatal(err)
			}
			if s, m, w, ok := readStamp(b[:n]); x.Kind == UDP && (!ok || s != stream || m != number || w != when) {
				r.Fatalf("stamp: %d %d %d %v", s, m, w, ok)
			}
		}
	})
}

// isAttack holds the nth frame of the attack against the good one that it stands for.
func isAttack(r *rapid.T, x *Traffic, nth uint64, got, good []byte) {
	want := bytes.Clone(good)
	want[len(want)-stampLen] = attackMagic
	ip, l4 := want[14:], want[34:]
	switch x.Attack {
	case Fragments:
		ip[6] = 0x20
		l4[6], l4[7] = 0, 0
	case TTL:
		ip[8] = 1
		l4[6], l4[7] = 0, 0
	case Port:
		binary.BigEndian.PutUint16(l4[2:], x.DstPorts.Last+1)
		l4[6], l4[7] = 0, 0
	case Station:
		binary.BigEndian.PutUint16(want[6:], madeUp)
		binary.BigEndian.PutUint32(want[8:], uint32(nth))
		l4[6], l4[7] = 0, 0
	case Neighbor:
		binary.BigEndian.PutUint16(ip[18:], uint16(nth))
		l4[6], l4[7] = 0, 0
	case Errors:
		binary.BigEndian.PutUint16(ip[2:], errorLen)
		ip[9] = 1
		vip, client := netip.AddrPortFrom(x.Dst.First, x.DstPorts.First), netip.AddrPortFrom(stranger, x.SrcPorts.First)
		about := pkttest.UDP(vip, client).TTL(63).DF().Bytes()
		copy(l4, pkttest.ICMPPortUnreachable(x.Src.First, x.Dst.First, about[:28]).Bytes()[20:])
		l4[errorLen-20-2], l4[errorLen-20-1] = 0, 0 // who quotes eight bytes quotes a checksum; ours is of no packet
		l4[2], l4[3] = 0, 0
		binary.BigEndian.PutUint16(l4[2:], ^fold(words(l4[:errorLen-20])))
	}
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^fold(words(ip[:20])))
	if !bytes.Equal(got, want) {
		r.Fatalf("%s:\n% x\nwant\n% x", x.Attack, got, want)
	}
	if err := pkttest.Verify(unpadded(got)); err != nil && x.Attack != Fragments {
		r.Fatalf("%s: %v", x.Attack, err)
	}
	if _, _, _, stamped := readStamp(got); stamped {
		r.Fatalf("%s: has a stamp", x.Attack)
	}
}

func TestCraftingAllocatesNothing(t *testing.T) {
	c := newCrafter(traffic(t, func(x *Traffic) { x.Mix = IMIX }), 0)
	b := make([]byte, 2048)
	if n := testing.AllocsPerRun(100, func() { c.next(b, 1) }); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

func BenchmarkCrafter(b *testing.B) {
	for _, mix := range []Mix{{{64, 1}}, {{1518, 1}}, IMIX} {
		b.Run("size="+mix.String(), func(b *testing.B) {
			c := newCrafter(traffic(b, func(x *Traffic) { x.Mix = mix }), 0)
			frame := make([]byte, 2048)
			b.ReportAllocs()
			for b.Loop() {
				c.next(frame, 1)
			}
		})
	}
}
