package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

// FuzzTenants has a tenant that reaches nobody send whatever frame, out of the tunnel or on its port, among tenants that are routed, with the same
// addresses and VIPs. Nothing panics, verdicts add up, no chunk is lost, and whatever leaves goes into its own segment: to nobody else, to no host
// outside, and never to the kernel.
func FuzzTenants(f *testing.F) {
	list := routedTenants()
	list[3].suppress = true
	var options []bedOption
	for _, vni := range []uint32{5001, 5004} {
		options = append(options, serving{vip: tenantVIP, servers: []Backend{inSegment(inside, vni, "198.19.1.1")}}.within(vni).option(f))
	}
	b := newTenants(f, list, options...)
	const apart = 3
	g := gateOf(apart)
	var frames [][]byte
	for _, ip := range [][]byte{
		pkttest.TCP(insider, tenantVIP).SYN().Bytes(), pkttest.TCP(inside, netip.MustParseAddrPort("198.19.1.1:1024")).SYN().Ack(1).Bytes(),
		pkttest.UDP(insider, port("198.19.2.7", 9)).Bytes(), pkttest.UDP(insider, client).Size(1500).DF().Bytes(), pkttest.UDP(insider, port("198.19.1.1", 9)).TTL(1).Bytes(),
		pkttest.UDP(port("2001:db8:5001::7", 9), port("2001:db8:5002::7", 9)).Bytes(), pkttest.Echo(netip.MustParseAddr("2001:db8:5001::7"), netip.MustParseAddr("2001:db8:5001::1"), 1, 1).Bytes(),
		pkttest.ICMPError(insider.Addr(), client.Addr(), 3, 3, 0, pkttest.UDP(client, insider).Bytes()).Bytes(),
		pkttest.UDP(insider, port("198.19.2.7", 9)).Payload(make([]byte, 64)).Fragment(9, 64, true).Bytes(), pkttest.TCP(insider, vip).SYN().Bytes(),
	} {
		frames = append(frames, inFrame(g, hostMAC, etherTypeOf(ip), ip), inFrame(localMAC, hostMAC, etherTypeOf(ip), ip))
	}
	six, other := vxlan.Addr{Hi: 0x20010db850010000, Lo: 7}, vxlan.Addr{Hi: 0x20010db850010000, Lo: 1}
	ns := make([]byte, 128)
	frames = append(frames, inFrame(vxlan.Broadcast, hostMAC, 0x0806, arp(1, hostMAC, insider.Addr(), 0, gateIP)), inFrame(g, hostMAC, 0x0806, arp(2, hostMAC, insider.Addr(), g, gateIP)),
		inFrame(vxlan.Broadcast, g, 0x0806, arp(1, g, gateIP, 0, insider.Addr())), ns[:vxlan.PutNDRequest(ns, 0, hostMAC, six, other)])
	for _, frame := range frames {
		f.Add(false, frame)
		f.Add(true, frame)
	}
	f.Fuzz(func(t *testing.T, access bool, frame []byte) {
		if len(frame) > 1600 {
			t.Skip("longer than a chunk")
		}
		b.t = t
		b.now += 2e9 // what waited is given up
		b.round()
		b.empty()
		if access {
			if len(frame) < 14 {
				t.Skip("no room for a tag")
			}
			b.inject(lan, tagged(31+apart, frame))
		} else {
			b.fromClient(tunneled(peerVTEP, list[apart].vni, frame))
		}
		b.round()
		for range 2 { // also what a wait makes of it
			for out := b.take(wan); out != nil; out = b.take(wan) {
				ip := out[14:]
				if err := pkttest.Verify(ip); err != nil {
					t.Fatalf("%x became %s: %v", frame, pkttest.String(ip), err)
				}
				// The tenant may use the host's own VIPs: such a packet leaves as a connection's.
				if len(ip) < 50 || ip[9] != 17 || binary.BigEndian.Uint16(ip[22:]) != vxlan.Port || binary.BigEndian.Uint32(ip[32:])>>8 != list[apart].vni {
					t.Fatalf("%x became %s", frame, pkttest.String(ip))
				}
			}
			for out := b.take(lan); out != nil; out = b.take(lan) {
				toServer := len(out) > 34 && (bytes.Equal(out[:6], webMAC) || bytes.Equal(out[:6], secondMAC))
				if !toServer && (binary.BigEndian.Uint16(out[12:]) != 0x8100 || binary.BigEndian.Uint16(out[14:]) != 31+apart) {
					t.Fatalf("%x became %x", frame, out)
				}
			}
			b.now += 1_100_000_000
			b.round()
		}
		if v, _ := b.engine.Verdicts(); v.Punted != 0 {
			t.Fatalf("%x went to the host", frame)
		}
		b.empty()
	})
}
