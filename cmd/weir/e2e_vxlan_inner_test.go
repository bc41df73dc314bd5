package main_test

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet/pkttest"
)

// wrongInside is a frame in a packet that is right up to the VXLAN header, and the reason that it is dropped for.
type wrongInside struct {
	name, drop string
	frame      []byte
}

// wrongInsides are frames that a segment does not take from a VTEP: what is for the gateway, or for a service, and
// contradicts itself or belongs nowhere, and what must not be bridged. known is a station behind that VTEP.
func wrongInsides(seg *overlay, src, known string) []wrongInside {
	addr := func(v4, v6 string) netip.Addr {
		if seg.gate6 {
			v4 = v6
		}
		return netip.MustParseAddr(v4)
	}
	from, gate, vip := addr(tenant4(40), tenant6(40)), addr(tenantGate4, tenantGate6), netip.MustParseAddr(seg.vip())
	client, web := netip.AddrPortFrom(from, 40000), netip.AddrPortFrom(vip, webPort)
	frame := func(ip []byte) []byte { return pkttest.Frame(ip, pkttest.MAC(src), pkttest.MAC(gateMAC)) }
	of := func(p pkttest.Packet) []byte { return frame(p.Bytes()) }
	edited := func(p pkttest.Packet, edit func(ip []byte)) []byte {
		ip := p.Bytes()
		edit(ip)
		if !seg.gate6 {
			ip = fixSum4(ip, func() {})
		}
		return frame(ip)
	}
	header, icmp, length := 20, uint8(unix.IPPROTO_ICMP), 3
	if seg.gate6 {
		header, icmp, length = 40, unix.IPPROTO_ICMPV6, 5
	}
	syn, ask := pkttest.TCP(client, web).SYN(), pkttest.UDP(client, netip.AddrPortFrom(gate, 9)).Payload([]byte("who?"))
	all := []wrongInside{
		{"SYN and FIN", "tcp_flags", of(pkttest.TCP(client, web).SYN().FIN())},
		{"RST of no connection", "no_connection", of(pkttest.TCP(client, web).RST())},
		{"a TCP header of four words", "tcp_offset", edited(syn, func(ip []byte) { ip[header+12] = 0x40 })},
		{"a segment of no connection with a wrong checksum", "checksum", of(pkttest.TCP(client, web).Ack(1).BadChecksum())},
		{"a datagram to a port of nobody's with a wrong checksum", "checksum", of(ask.BadChecksum())},
		{"a protocol that nobody answers", "protocol", of(pkttest.IP(from, gate, 99, make([]byte, 20)))},
		{"a frame that is no packet", "protocol", pkttest.Ethernet(make([]byte, 46), pkttest.MAC(src), pkttest.MAC(gateMAC), 0x88b5)},
		{"an error about no connection", "icmp_unrelated", of(pkttest.ICMPPortUnreachable(from, vip, pkttest.UDP(web, client).Bytes()))},
		{"an echo request with a wrong checksum", "icmp_checksum", of(pkttest.Echo(from, gate, 1, 1).BadChecksum())},
		{"an ICMP message of four bytes", "icmp_short", of(pkttest.IP(from, gate, icmp, make([]byte, 4)))},
		{"a packet longer than its frame", "length", edited(ask, func(ip []byte) { ip[length] += 4 })},
		{"a packet cut off in its header", "short", frame(ask.Bytes()[:12])},
		{"a datagram longer than its packet", "length", edited(ask, func(ip []byte) { ip[header+5] += 4 })},
		{"a TCP header cut off", "short", of(pkttest.IP(from, vip, unix.IPPROTO_TCP, make([]byte, 10)))},
		{"from the VIP itself", "martian_source", of(pkttest.TCP(netip.AddrPortFrom(vip, 40000), web).SYN())},
		{"IP version 5", "ip_version", edited(ask, func(ip []byte) { ip[0] = 0x55 })},
		{"a first fragment that is too small for its header", "bad_fragment", frame(syn.Cut(7, 8)[0])},
		{"to somewhere that the gateway does not reach", "no_route", of(pkttest.UDP(client, netip.AddrPortFrom(addr("203.0.113.9", "2001:db8:dead::9"), 9)))},
		{"from a loopback address", "martian_source", of(pkttest.TCP(netip.AddrPortFrom(addr("127.0.0.1", "::1"), 40000), web).SYN())},
		{"from a station that is static elsewhere", "static_mac", probe(everyone, staticMAC, "wrong")},
		{"to a station on the same side", "same_side", probe(known, src, "wrong")},
		{"to a station behind another VTEP", "split_horizon", probe(staticMAC, src, "wrong")},
		{"from the gateway to itself", "own_mac", probe(gateMAC, gateMAC, "wrong")},
	}
	if seg.gate6 {
		return append(all,
			wrongInside{"options out of place", "extension_header", of(syn.DestOptions().HopByHop())},
			wrongInside{"a source route", "source_route", of(syn.Routing(1))})
	}
	return append(all,
		wrongInside{"a wrong header checksum", "ip_checksum", of(ask.BadIPChecksum())},
		wrongInside{"an IP header of four words", "ip_header_length", edited(ask, func(ip []byte) { ip[0] = 0x44 })},
		wrongInside{"a source route", "source_route", of(syn.Options(0x83, 7, 4, 198, 18, 1, 77, 0))})
}

// dropsWhatIsWrongInside has VTEP 0 send these frames, each in a packet of its own. Each is counted by its reason and by no other.
func dropsWhatIsWrongInside(t *testing.T, b *overlayBed, d *daemon) {
	for _, seg := range b.segments {
		if len(seg.access) == 0 {
			continue
		}
		t.Run(seg.String(), func(t *testing.T) {
			const src, known = "02:00:00:00:68:a0", "02:00:00:00:68:a1"
			d, w := d.with(t), b.watch(t, seg)
			fd := packetSocket(t, b.servers[0], "eth0", 0)
			defer unix.Close(fd)
			send := func(frame []byte) {
				_, err := unix.Write(fd, pkttest.Frame(b.forge(seg, frame).datagram().Bytes(), pkttest.MAC(serverMAC(0)), pkttest.MAC(lanMAC)))
				must(t, err)
			}
			send(probe(everyone, known, "known"))
			eventually(t, dialLimit, "a station is known", func() bool { return len(w.counts("known")) == len(seg.access) })
			for _, x := range wrongInsides(seg, src, known) {
				want := d.now().Drops
				send(x.frame)
				want[x.drop]++
				for deadline := time.Now().Add(dialLimit); d.now().Drops[x.drop] != want[x.drop] && time.Now().Before(deadline); {
					time.Sleep(time.Millisecond)
				}
				for reason, n := range d.now().Drops {
					if n != want[reason] && reason != "no_station" { // what other segments' stations broadcast
						t.Errorf("%s: %s counts %d, not %d", x.name, reason, n, want[reason])
					}
				}
				if n := d.now().Drops[x.drop]; n != want[x.drop] {
					t.Errorf("%s: %s counts %d, not %d", x.name, x.drop, n, want[x.drop])
				}
			}
			w.settle()
			w.came("wrong", "what is wrong")
		})
	}
}
