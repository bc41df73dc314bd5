package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// FuzzSplice sends TCP segments of any header, options included, through a connection of two halves, and compares what becomes of each with a plain
// translation that knows offsets and nothing of checksums; pkttest judges those.
func FuzzSplice(f *testing.F) {
	f.Add([]byte{}, uint8(0x10), uint32(1), uint32(2), uint16(9), false)
	f.Add(ts(5, 6), uint8(0x18), uint32(1), uint32(2), uint16(900), false)
	f.Add(ts(5, 6), uint8(0x12), uint32(1), uint32(2), uint16(900), true)
	f.Add([]byte{1, 5, 10, 0, 0, 0, 9, 255, 255, 255, 255, 1, 5, 1}, uint8(0x10), uint32(1), uint32(1<<31), uint16(0xffff), false)
	f.Add([]byte{5, 9, 1, 2, 3, 4, 5, 6, 7, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}, uint8(0x14), uint32(0xffffffff), uint32(0), uint16(1), false)
	f.Add([]byte{8, 10, 1, 2, 3}, uint8(0x11), uint32(1), uint32(2), uint16(7), true)
	s := guarded("v4", nil)
	real := netip.AddrPortFrom(web.Addr(), 9000)
	f.Fuzz(func(t *testing.T, options []byte, flags uint8, seq, ack uint32, window uint16, server bool) {
		if len(options) > 40 || flags&0x07 != 0 { // those that end or open connections have tests of their own
			t.Skip("no room, or SYN, FIN or RST")
		}
		b := newBed(t, s.option(t))
		left := b.play(false, pkttest.TCP(client, s.vip).SYN().Seq(9).TCPOptions(linuxSYN(1460, 7, 0)...).Bytes())
		cookie, stamp := seqOf(left[wan][0]), binary.BigEndian.Uint32(optionsOf(left[wan][0])[8:])
		b.play(false, pkttest.TCP(client, s.vip).Seq(10).Ack(cookie+1).TCPOptions(ts(7, stamp)...).Bytes())
		const first, theirs = 0x12345678, 0x9abcdef0
		b.play(true, pkttest.TCP(real, client).SYN().Seq(first).Ack(10).TCPOptions(linuxSYN(1460, theirs, 7)...).Bytes())

		from, to, out, toSeq, toAck, port := client, s.vip, pkttest.TCP(client, real), seq, ack, lan
		if server {
			from, to, out, toSeq, port = real, client, pkttest.TCP(s.vip, client), seq-first+cookie, wan
		} else if flags&0x10 != 0 {
			toAck = ack - cookie + first
		}
		padded := append([]byte{}, options...)
		for len(padded)%4 != 0 {
			padded = append(padded, 0)
		}
		want := append([]byte{}, padded...)
		for at := 0; at+1 < len(want) && want[at] != 0; {
			if want[at] == 1 {
				at++
				continue
			}
			n := int(want[at+1])
			if n < 2 || at+n > len(want) {
				break
			}
			move := func(at int, by uint32) {
				binary.BigEndian.PutUint32(want[at:], binary.BigEndian.Uint32(want[at:])+by)
			}
			switch {
			case want[at] == 8 && n == 10 && server:
				move(at+2, stamp-theirs)
			case want[at] == 8 && n == 10 && flags&0x10 != 0:
				move(at+6, theirs-stamp)
			case want[at] == 5 && !server:
				for edge := at + 2; edge+4 <= at+n; edge += 4 {
					move(edge, first-cookie)
				}
			}
			at += n
		}
		in := optioned(pkttest.TCP(from, to).Seq(seq).Ack(ack).Flags(flags).Window(window), padded)
		got := b.play(server, in)[port]
		b.expect("the segment", [2][][]byte{wan: got}, [][]byte{optioned(out.Seq(toSeq).Ack(toAck).Flags(flags).Window(window).TTL(63), want)}, nil)
	})
}

// optioned is p with options that need not be sound.
func optioned(p pkttest.Packet, options []byte) []byte {
	ip := p.TCPOptions(bytes.Repeat([]byte{1}, len(options))...).Bytes()
	h := ip[20:]
	copy(h[20:], options)
	h[16], h[17] = 0, 0
	binary.BigEndian.PutUint16(h[16:], packet.TransportSum4([4]byte(ip[12:16]), [4]byte(ip[16:20]), packet.ProtoTCP, h))
	return ip
}
