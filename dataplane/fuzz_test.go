package dataplane_test

import (
	"testing"

	. "weir/dataplane"
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
	f.Fuzz(func(t *testing.T, frame []byte, server, hosted bool) {
		if len(frame) > 1600 {
			t.Skip("longer than a frame")
		}
		var options []bedOption
		if hosted {
			options = append(options, alone)
		}
		options = append(options, func(s *Snapshot, _ *Engine) { s.Ports[lan].MTU = 1300 })
		b := newBed(t, options...)
		b.open(client, vip, web)
		b.open(client6, vip6, web6)
		port := wan
		if server {
			port = lan
		}
		b.inject(port, frame)
		b.round()
		for p := range b.ports {
			for out := b.take(p); out != nil; out = b.take(p) {
				if len(out) < 14+20 {
					t.Fatalf("a frame of %d bytes left", len(out))
				}
			}
		}
	})
}
