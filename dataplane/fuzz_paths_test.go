package dataplane_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// tunnelled are services through every kind of tunnel, of either family into either.
func tunnelled(t testing.TB) (options []bedOption) {
	port := uint16(2000)
	for _, way := range []Forward{ForwardIPIP, ForwardGUE, ForwardGRE, ForwardDR} {
		for _, v := range []netip.AddrPort{vip, vip6} {
			for _, s := range []netip.Addr{web.Addr(), web6.Addr()} {
				if way == ForwardDR && s.Is6() != v.Addr().Is6() {
					continue
				}
				port++
				x := serving{vip: netip.AddrPortFrom(v.Addr(), port), servers: []Backend{server(netip.AddrPortFrom(s, port), way)}}
				options = append(options, x.option(t))
			}
		}
	}
	return options
}

// fuzzBed has a connection of each service of tunnelled, and two by NAT; sent are packets that left, which errors can quote.
func fuzzBed(t testing.TB) (b *bed, sent [][]byte) {
	b = newBed(t, append(tunnelled(t), func(s *Snapshot, _ *Engine) { s.Ports[lan].MTU = 1400 })...)
	b.open(client, vip, web)
	b.open(client6, vip6, web6)
	sent = append(sent, pkttest.TCP(vip, client).Ack(1).Bytes(), pkttest.TCP(vip6, client6).Ack(1).Bytes(),
		pkttest.TCP(client, web).Seq(1).Bytes(), pkttest.TCP(client6, web6).Seq(1).Bytes())
	for port := uint16(2001); ; port++ {
		left := 0
		for _, c := range []struct{ client, vip netip.AddrPort }{{client, vip}, {client6, vip6}} {
			if out, _ := b.through(false, pkttest.TCP(c.client, netip.AddrPortFrom(c.vip.Addr(), port)).SYN().DF().Bytes()); out != nil && out[len(out)-7]&2 != 0 {
				sent = append(sent, out)
				left++
			}
		}
		if port > 2014 {
			return b, sent
		}
	}
}

// FuzzICMPError sends errors with right checksums that quote, whole, cut or changed in a few bytes, what the engine sent or translated: none
// panics, each gets one verdict, and what leaves has sound lengths and checksums.
func FuzzICMPError(f *testing.F) {
	for which := range uint8(18) {
		f.Add(which, uint8(3), uint8(4), uint32(1300), uint16(0xffff), uint16(0), uint16(0), false)
		f.Add(which, uint8(1), uint8(0), uint32(0), uint16(60), uint16(9), uint16(0x1100), true)
		f.Add(which, uint8(2), uint8(0), uint32(1280), uint16(48), uint16(0), uint16(0), true)
	}
	b, sent := fuzzBed(f)
	ours := map[bool]netip.Addr{false: lanIP, true: netip.MustParseAddr("2001:db8:1::1")}
	f.Fuzz(func(t *testing.T, which, typ, code uint8, rest uint32, cut, at, change uint16, fromServer bool) {
		b.t = t
		b.now += 1e9 // for the limit of answers
		quote := append([]byte(nil), sent[int(which)%len(sent)]...)
		quote = quote[:min(int(cut), len(quote))]
		if int(at)+2 <= len(quote) {
			binary.BigEndian.PutUint16(quote[at:], binary.BigEndian.Uint16(quote[at:])^change)
		}
		if len(quote) < 20 {
			t.Skip("no header is quoted")
		}
		v6 := quote[0]>>4 == 6
		if v6 && len(quote) < 40 {
			t.Skip("no header is quoted")
		}
		to, _ := netip.AddrFromSlice(quote[12:16])
		if v6 {
			to, _ = netip.AddrFromSlice(quote[8:24])
		}
		if fromServer && int(which)%len(sent) > 3 {
			to = ours[v6]
		}
		message := append([]byte{typ, code, 0, 0, 0, 0, 0, 0}, quote...)
		binary.BigEndian.PutUint32(message[4:], rest)
		from := router
		if v6 {
			from = netip.MustParseAddr("2001:db8::2")
		}
		var in []byte
		if v6 {
			binary.BigEndian.PutUint16(message[2:], packet.TransportSum6(from.As16(), to.As16(), packet.ProtoICMPv6, message))
			in = pkttest.IP(from, to, packet.ProtoICMPv6, message).Bytes()
		} else {
			binary.BigEndian.PutUint16(message[2:], packet.Sum(message))
			in = pkttest.IP(from, to, packet.ProtoICMP, message).Bytes()
		}
		if out, _ := b.through(fromServer, in); out != nil {
			if err := pkttest.Verify(out); err != nil {
				t.Fatalf("%s became %s: %v", pkttest.String(in), pkttest.String(out), err)
			}
		}
	})
}

// FuzzFragments sends pieces of datagrams as a script says, five bytes each: which datagram, where, how long, whether more follow, and from
// which side. Nothing panics, verdicts add up, no chunk is lost, and however the pieces come, the bytes of one datagram go one way.
func FuzzFragments(f *testing.F) {
	piece := func(datagram, at, size, more, side byte) []byte { return []byte{datagram, at, size, more, side} }
	script := func(p ...[]byte) (all []byte) {
		for _, x := range p {
			all = append(all, x...)
		}
		return all
	}
	f.Add(script(piece(0, 0, 4, 1, 0), piece(0, 4, 4, 1, 0), piece(0, 8, 2, 0, 0)))                                                 // in order
	f.Add(script(piece(1, 4, 4, 0, 0), piece(1, 0, 4, 1, 0)))                                                                       // the last first
	f.Add(script(piece(2, 0, 4, 1, 0), piece(2, 2, 4, 0, 0), piece(2, 4, 1, 0, 0)))                                                 // overlapping
	f.Add(script(piece(3, 0, 4, 1, 1), piece(3, 4, 4, 0, 1), piece(4, 9, 1, 1, 1)))                                                 // from a server; alone
	f.Add(script(piece(5, 0, 180, 1, 0), piece(5, 180, 4, 0, 0), piece(6, 0, 4, 1, 0), piece(6, 4, 4, 1, 0), piece(6, 8, 1, 0, 0))) // through tunnels
	b, _ := fuzzBed(f)
	id := uint32(0)
	f.Fuzz(func(t *testing.T, script []byte) {
		b.t = t
		id += 256
		way := map[byte]int{}
		for ; len(script) >= 5; script = script[5:] {
			which, at, size, more, side := script[0]%16, int(script[1])*8, int(script[2])*8, script[3]&1 != 0, script[4]&1 != 0
			if size == 0 || size > 1400 || at+size > 60000 {
				continue
			}
			src, dst := client, netip.AddrPortFrom(vip.Addr(), 1999+uint16(which/2))
			if which&1 != 0 {
				src, dst = client6, netip.AddrPortFrom(vip6.Addr(), 1999+uint16(which/2))
			}
			if which < 2 {
				dst = netip.AddrPortFrom(dst.Addr(), 80)
			}
			if side {
				src, dst = map[bool]netip.AddrPort{false: web, true: web6}[which&1 != 0], src
			}
			payload := make([]byte, size)
			if at == 0 {
				head := 20
				if which&1 != 0 {
					head = 40
				}
				copy(payload, pkttest.TCP(src, dst).Seq(1).Ack(1).Bytes()[head:])
			}
			b.now += 1e6
			in := pkttest.IP(src.Addr(), dst.Addr(), packet.ProtoTCP, payload).Fragment(id+uint32(which), at, more).Bytes()
			if side {
				b.fromServer(in)
			} else {
				b.fromClient(in)
			}
			b.round()
			for p := range b.ports {
				for out := b.take(p); out != nil; out = b.take(p) {
					key := which
					if side {
						key |= 0x80
					}
					if was, ok := way[key]; ok && was != p {
						t.Fatalf("pieces of datagram %d leave by both ports", which)
					}
					way[key] = p
				}
			}
		}
		b.now += 40e9 // forget them all
		b.round()
		for p := range b.ports {
			for b.take(p) != nil {
			}
		}
	})
}
