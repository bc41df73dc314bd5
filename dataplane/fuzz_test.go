package dataplane_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// FuzzRound puts any bytes on either wire of an engine with connections: it never panics, every frame gets one verdict, no chunk is lost
// (bed.round checks both), and whatever IP packet leaves has sound lengths and header checksums.
func FuzzRound(f *testing.F) {
	toServer := pkttest.TCP(client, web).Seq(1).TTL(63).Bytes()
	toServer6 := pkttest.TCP(client6, web6).Seq(1).TTL(63).Bytes()
	for _, p := range []pkttest.Packet{
		pkttest.TCP(client, vip).SYN(), pkttest.TCP(client, vip).Ack(1).Size(1400), pkttest.TCP(client6, vip6).SYN().HopByHop(),
		pkttest.UDP(client, dns).Payload(payload), pkttest.UDP(client, dns).NoChecksum().Payload(payload),
		pkttest.TCP(client, vip).SYN().Options(7, 7, 4, 0, 0, 0, 0, 0), pkttest.TCP(client, vip).Ack(1).TTL(1),
		pkttest.UDP(client, dns).Payload(make([]byte, 64)).Fragment(9, 0, true), pkttest.Echo(client.Addr(), vip.Addr(), 7, 1),
		pkttest.ICMPTooBig(router, vip.Addr(), 1300, pkttest.TCP(vip, client).Bytes()[:28]),
	} {
		f.Add(p.Frame(routerMAC, wanMAC), false, true)
		f.Add(p.Frame(routerMAC, wanMAC), false, false)
	}
	for _, p := range []pkttest.Packet{
		pkttest.TCP(web, client).SYN().Ack(1), pkttest.TCP(web6, client6).Ack(1), pkttest.UDP(dnsReal, client).Payload(payload),
		pkttest.ICMPPortUnreachable(web.Addr(), client.Addr(), toServer), pkttest.ICMPTimeExceeded(web6.Addr(), client6.Addr(), toServer6),
		pkttest.TCP(web, client).Ack(1).VLAN(3),
	} {
		f.Add(p.Frame(webMAC, lanMAC), true, true)
	}
	modes := everyMode()
	for i := range modes {
		m := &modes[i]
		out := m.begin(everyBed(f, modes[i:i+1]))
		for _, in := range m.open {
			f.Add(pkttest.Frame(in, routerMAC, wanMAC), false, i%2 == 0)
		}
		fuzzReplies(f, m, out)
	}
	for _, a := range families {
		for _, vip := range []netip.AddrPort{modes[0].service.vip, modes[1].service.vip} {
			if vip.Addr().Is4() == a.client.Addr().Is4() {
				f.Add(pkttest.TCP(a.client, vip).Ack(1).Size(1400).Frame(routerMAC, wanMAC), false, true)
				f.Add(pkttest.ICMPTooBig(a.router, vip.Addr(), 1300, pkttest.TCP(vip, a.client).Size(200).Bytes()).Frame(routerMAC, wanMAC), false, true)
				f.Add(pkttest.Frame(pkttest.UDP(a.client, vip).Size(900).Cut(9, 400)[1], routerMAC, wanMAC), false, true)
			}
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte, server, hosted bool) {
		if len(frame) > 1600 {
			t.Skip("longer than a frame")
		}
		var options []bedOption
		if hosted {
			options = append(options, alone)
		}
		options = append(options, func(s *Snapshot, _ *Engine) { s.Ports[lan].MTU = 1300 })
		b := everyBed(t, modes, options...)
		b.open(client, vip, web)
		b.open(client6, vip6, web6)
		for i := range modes {
			modes[i].begin(b)
		}
		port := wan
		if server {
			port = lan
		}
		b.inject(port, frame)
		b.round()
		for p := range b.ports {
			for out := b.take(p); out != nil; out = b.take(p) {
				checkSound(t, out)
			}
		}
	})
}

// fuzzReplies adds what a server may send of a mode's connection, the latest packet of which left as out, and what routers may say of it.
func fuzzReplies(f *testing.F, m *mode, out []byte) {
	if m.reply != nil {
		f.Add(pkttest.Frame(m.reply(source(out)), webMAC, lanMAC), true, true)
	}
	src, router, typ := lanIP, netip.MustParseAddr("198.18.1.254"), uint8(3)
	if out[0]>>4 == 6 {
		src, router, typ = lanIP6, netip.MustParseAddr("2001:db8:1::fe"), 1
	}
	for _, quoted := range [][]byte{out, out[:len(out)-8], out[:48]} {
		f.Add(pkttest.ICMPError(router, src, typ, 0, 0, quoted).Frame(webMAC, lanMAC), true, true)
		f.Add(pkttest.ICMPTooBig(router, src, 1290, quoted).Frame(webMAC, lanMAC), true, true)
	}
}

// checkSound fails if a frame that left is no Ethernet frame with an IP packet of the length that it says, with a right header checksum. What it
// carries is as wrong as it came.
func checkSound(t *testing.T, frame []byte) {
	t.Helper()
	if len(frame) < 14+20 {
		t.Fatalf("a frame of %d bytes left", len(frame))
	}
	ip := frame[14:]
	switch {
	case ip[0]>>4 == 4:
		n := int(ip[0]&15) * 4
		if n < 20 || n > len(ip) || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) || packet.Sum(ip[:n]) != 0 {
			t.Errorf("an IPv4 header that is wrong left: % x", ip[:min(60, len(ip))])
		}
	case ip[0]>>4 == 6:
		if len(ip) < 40 || int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-40 {
			t.Errorf("an IPv6 header that is wrong left: % x", ip[:min(40, len(ip))])
		}
	default:
		t.Errorf("no IP packet left: % x", frame)
	}
}
