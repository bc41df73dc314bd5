package vxlan

import (
	"bytes"
	"net"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

var (
	gatewayMAC  = MACOf(pkttest.MAC("02:00:00:00:50:01"))
	gateway, _  = AddrOf(address("172.16.1.1"))
	gateway6, _ = AddrOf(address("2001:db8:1::1"))
	macA        = MACOf(hostA)
)

func serialize(t *testing.T, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// arpFrame is a request of host A's for the gateway, as gopacket writes it.
func arpFrame(t *testing.T, edit func(e *layers.Ethernet, a *layers.ARP)) []byte {
	e := &layers.Ethernet{SrcMAC: hostA, DstMAC: net.HardwareAddr{255, 255, 255, 255, 255, 255}, EthernetType: layers.EthernetTypeARP}
	a := &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: 1,
		SourceHwAddress: hostA, SourceProtAddress: []byte{172, 16, 1, 7}, DstHwAddress: make([]byte, 6), DstProtAddress: []byte{172, 16, 1, 1},
	}
	if edit != nil {
		edit(e, a)
	}
	return serialize(t, e, a)
}

func TestReadARP(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		want ARP
		ok   bool
	}{
		{"request", arpFrame(t, nil), ARP{false, macA, 0, ip1, gateway}, true},
		{"request, padded", pkttest.Pad(arpFrame(t, nil), 60), ARP{false, macA, 0, ip1, gateway}, true},
		{"reply", arpFrame(t, func(_ *layers.Ethernet, a *layers.ARP) { a.Operation, a.DstHwAddress = 2, hostB }), ARP{true, macA, MACOf(hostB), ip1, gateway}, true},
		{"probe", arpFrame(t, func(_ *layers.Ethernet, a *layers.ARP) { a.SourceProtAddress = make([]byte, 4) }), ARP{false, macA, 0, Addr{}, gateway}, true},
		{"reply from no address", arpFrame(t, func(_ *layers.Ethernet, a *layers.ARP) { a.Operation, a.SourceProtAddress = 2, make([]byte, 4) }), ARP{}, false},
		{"sender is not the frame's", arpFrame(t, func(_ *layers.Ethernet, a *layers.ARP) { a.SourceHwAddress = hostB }), ARP{}, false},
		{"sender is a group", arpFrame(t, func(e *layers.Ethernet, a *layers.ARP) {
			e.SrcMAC = net.HardwareAddr{1, 0, 0, 0, 0, 1}
			a.SourceHwAddress = e.SrcMAC
		}), ARP{}, false},
		{"sender's address is a group's", arpFrame(t, func(_ *layers.Ethernet, a *layers.ARP) { a.SourceProtAddress = []byte{224, 0, 0, 1} }), ARP{}, false},
		{"target is everybody", arpFrame(t, func(_ *layers.Ethernet, a *layers.ARP) { a.DstProtAddress = []byte{255, 255, 255, 255} }), ARP{}, false},
		{"reverse ARP", arpFrame(t, func(_ *layers.Ethernet, a *layers.ARP) { a.Operation = 3 }), ARP{}, false},
		{"not IPv4", arpFrame(t, func(_ *layers.Ethernet, a *layers.ARP) { a.Protocol = layers.EthernetTypeIPv6 }), ARP{}, false},
		{"cut off", arpFrame(t, nil)[:41], ARP{}, false},
		{"no ARP", inner(), ARP{}, false},
	} {
		f := newChunk(t).parsed(t, c.in)
		got, ok := ReadARP(f)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %+v, %v", c.name, got, ok)
		}
	}
	a := ARP{Sender: ip1, Target: ip1}
	if !a.Gratuitous() || (&ARP{Sender: ip1, Target: gateway}).Gratuitous() {
		t.Error("Gratuitous")
	}
}

// What we write is what gopacket writes.
func TestPutARP(t *testing.T) {
	ours := net.HardwareAddr{2, 0, 0, 0, 0x50, 1}
	from := func(e *layers.Ethernet, a *layers.ARP) {
		e.SrcMAC, a.SourceHwAddress, a.SourceProtAddress = ours, ours, []byte{172, 16, 1, 1}
	}
	asked, _ := ReadARP(newChunk(t).parsed(t, arpFrame(t, nil)))
	for _, c := range []struct {
		name string
		put  func(b []byte) int
		want []byte
	}{
		{"reply (line 42: to whoever asked)", func(b []byte) int { return PutARPReply(b, &asked, gatewayMAC) }, arpFrame(t, func(e *layers.Ethernet, a *layers.ARP) {
			from(e, a)
			e.DstMAC, a.Operation, a.DstHwAddress, a.DstProtAddress = hostA, 2, hostA, []byte{172, 16, 1, 7}
		})},
		{"request", func(b []byte) int { return PutARPRequest(b, Broadcast, gatewayMAC, gateway, ip1) }, arpFrame(t, func(e *layers.Ethernet, a *layers.ARP) {
			from(e, a)
			a.DstProtAddress = []byte{172, 16, 1, 7}
		})},
		{"request to a station", func(b []byte) int { return PutARPRequest(b, macA, gatewayMAC, gateway, ip1) }, arpFrame(t, func(e *layers.Ethernet, a *layers.ARP) {
			from(e, a)
			e.DstMAC, a.DstProtAddress = hostA, []byte{172, 16, 1, 7}
		})},
		{"announcement", func(b []byte) int { return PutARPAnnouncement(b, gatewayMAC, gateway) }, arpFrame(t, from)},
	} {
		b := bytes.Repeat([]byte{0x5a}, 100)
		n := c.put(b)
		// gopacket pads to 60 bytes
		if n != ARPLen || !bytes.Equal(b[:n], c.want[:ARPLen]) || !bytes.Equal(b[n:], bytes.Repeat([]byte{0x5a}, 100-n)) {
			t.Errorf("%s:\n% x, want\n% x", c.name, b[:n], c.want)
		}
		if c.put(b[:ARPLen-1]) != 0 {
			t.Errorf("%s: no room, but written", c.name)
		}
	}
}

// ndFrame is a solicitation of host A's for the gateway, as gopacket writes it.
func ndFrame(t *testing.T, edit func(e *layers.Ethernet, i *layers.IPv6, s *layers.ICMPv6NeighborSolicitation)) []byte {
	e := &layers.Ethernet{SrcMAC: hostA, DstMAC: net.HardwareAddr{0x33, 0x33, 0xff, 0, 0, 1}, EthernetType: layers.EthernetTypeIPv6}
	i := &layers.IPv6{Version: 6, NextHeader: layers.IPProtocolICMPv6, HopLimit: 255, SrcIP: ip6.Netip(true).AsSlice(), DstIP: address("ff02::1:ff00:1").AsSlice()}
	s := &layers.ICMPv6NeighborSolicitation{
		TargetAddress: gateway6.Netip(true).AsSlice(), Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: hostA}},
	}
	if edit != nil {
		edit(e, i, s)
	}
	m := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(135, 0)}
	m.SetNetworkLayerForChecksum(i)
	return serialize(t, e, i, m, s)
}

// naFrame is an advertisement, as gopacket writes it.
func naFrame(t *testing.T, from, to net.HardwareAddr, src, dst string, flags uint8, target string, mac net.HardwareAddr) []byte {
	e := &layers.Ethernet{SrcMAC: from, DstMAC: to, EthernetType: layers.EthernetTypeIPv6}
	i := &layers.IPv6{Version: 6, NextHeader: layers.IPProtocolICMPv6, HopLimit: 255, SrcIP: address(src).AsSlice(), DstIP: address(dst).AsSlice()}
	a := &layers.ICMPv6NeighborAdvertisement{Flags: flags, TargetAddress: address(target).AsSlice()}
	if mac != nil {
		a.Options = layers.ICMPv6Options{{Type: layers.ICMPv6OptTargetAddress, Data: mac}}
	}
	m := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(136, 0)}
	m.SetNetworkLayerForChecksum(i)
	return serialize(t, e, i, m, a)
}

func TestReadND(t *testing.T) {
	type (
		e = layers.Ethernet
		i = layers.IPv6
		s = layers.ICMPv6NeighborSolicitation
	)
	none := make([]byte, 16)
	ns := func(edit func(*e, *i, *s)) []byte { return ndFrame(t, edit) }
	damaged := ns(nil)
	damaged[len(damaged)-1] ^= 1
	code := ns(nil)
	code[14+40+1] = 1 // with a checksum that is right for it
	code[14+40+2], code[14+40+3] = 0, 0
	sum := packet.TransportSum6([16]byte(code[22:]), [16]byte(code[38:]), 58, code[54:])
	code[14+40+2], code[14+40+3] = byte(sum>>8), byte(sum)
	want := ND{MAC: macA, Src: ip6, SrcMAC: macA, Target: gateway6}
	with := func(edit func(n *ND)) ND { n := want; edit(&n); return n }
	for _, c := range []struct {
		name string
		in   []byte
		want ND
		ok   bool
	}{
		{"solicitation", ns(nil), want, true},
		{"without an option", ns(func(_ *e, _ *i, s *s) { s.Options = nil }), with(func(n *ND) { n.MAC = 0 }), true},
		{"an unknown option", ns(func(_ *e, _ *i, s *s) {
			s.Options = slices.Insert(s.Options, 0, layers.ICMPv6Option{Type: 14, Data: []byte{1, 2, 3, 4, 5, 6}})
		}), want, true},
		{"to the station", ns(func(_ *e, i *i, _ *s) { i.DstIP = gateway6.Netip(true).AsSlice() }), want, true},
		{"duplicate address detection", ns(func(_ *e, i *i, s *s) { i.SrcIP, s.Options = none, nil }), with(func(n *ND) { n.Src, n.MAC = Addr{}, 0 }), true},
		{"the same with a source MAC", ns(func(_ *e, i *i, _ *s) { i.SrcIP = none }), ND{}, false},
		{"the same to the station", ns(func(_ *e, i *i, s *s) { i.SrcIP, s.Options, i.DstIP = none, nil, gateway6.Netip(true).AsSlice() }), ND{}, false},
		{"hop limit 254: it came through a router", ns(func(_ *e, i *i, _ *s) { i.HopLimit = 254 }), ND{}, false},
		{"code 1", code, ND{}, false},
		{"wrong checksum", damaged, ND{}, false},
		{"target is a group", ns(func(_ *e, _ *i, s *s) { s.TargetAddress = address("ff02::1").AsSlice() }), ND{}, false},
		{"source is a group", ns(func(_ *e, i *i, _ *s) { i.SrcIP = address("ff02::1").AsSlice() }), ND{}, false},
		{"MAC is a group's", ns(func(_ *e, _ *i, s *s) { s.Options[0].Data = []byte{1, 0, 0, 0, 0, 0} }), ND{}, false},
		{"advertisement", naFrame(t, hostA, vtepMAC, "2001:db8:1::7", "2001:db8:1::1", 0x60, "2001:db8:1::7", hostA),
			ND{true, true, true, false, macA, ip6, macA, ip6}, true},
		{"unsolicited", naFrame(t, hostA, vtepMAC, "2001:db8:1::7", "ff02::1", 0x20, "2001:db8:1::7", hostA),
			ND{true, false, true, false, macA, ip6, macA, ip6}, true},
		{"a router's", naFrame(t, hostA, vtepMAC, "2001:db8:1::7", "2001:db8:1::1", 0xe0, "2001:db8:1::7", hostA),
			ND{true, true, true, true, macA, ip6, macA, ip6}, true},
		{"without an option, not to override", naFrame(t, hostA, vtepMAC, "2001:db8:1::7", "2001:db8:1::1", 0x40, "2001:db8:1::7", nil),
			ND{true, true, false, false, 0, ip6, macA, ip6}, true},
		{"solicited by a group", naFrame(t, hostA, vtepMAC, "2001:db8:1::7", "ff02::1", 0x60, "2001:db8:1::7", hostA), ND{}, false},
		{"advertisement from nowhere", naFrame(t, hostA, vtepMAC, "::", "2001:db8:1::1", 0x60, "2001:db8:1::7", hostA), ND{}, false},
		{"no ND", pkttest.Echo(client6.Addr(), server6.Addr(), 1, 1).Frame(hostA, hostB), ND{}, false},
		{"not IPv6", inner(), ND{}, false},
	} {
		f := newChunk(t).parsed(t, c.in)
		if got, ok := ReadND(f); ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %+v, %v; want %+v, %v", c.name, got, ok, c.want, c.ok)
		}
	}
	for cut := 1; cut < 40; cut++ { // options and header cut off, the checksum right for what is left
		b := ns(nil)
		b = b[:len(b)-cut]
		size := len(b) - 54
		if size < 8 {
			break
		}
		b[18], b[19] = 0, byte(size)
		b[56], b[57] = 0, 0
		sum := packet.TransportSum6([16]byte(b[22:]), [16]byte(b[38:]), 58, b[54:])
		b[56], b[57] = byte(sum>>8), byte(sum)
		f := newChunk(t).parsed(t, b)
		if n, ok := ReadND(f); ok != (cut == 8) {
			t.Errorf("%d bytes cut off: %+v, %v", cut, n, ok)
		}
	}
}

// What we write is what gopacket writes, and what ReadND reads.
func TestPutND(t *testing.T) {
	ours := net.HardwareAddr{2, 0, 0, 0, 0x50, 1}
	all := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	asked, _ := ReadND(newChunk(t).parsed(t, ndFrame(t, nil)))
	bare := asked
	bare.MAC = 0
	probe := bare
	probe.Src = Addr{}
	ns := func(to net.HardwareAddr, dst string) []byte {
		return ndFrame(t, func(e *layers.Ethernet, i *layers.IPv6, s *layers.ICMPv6NeighborSolicitation) {
			e.SrcMAC, e.DstMAC = ours, to
			i.SrcIP, i.DstIP = address("2001:db8:1::1").AsSlice(), address(dst).AsSlice()
			s.TargetAddress, s.Options[0].Data = ip6.Netip(true).AsSlice(), ours
		})
	}
	answer := naFrame(t, ours, hostA, "2001:db8:1::1", "2001:db8:1::7", 0xe0, "2001:db8:1::1", ours)
	for _, c := range []struct {
		name string
		put  func(b []byte) int
		want []byte
	}{
		{"reply", func(b []byte) int { return PutNDReply(b, &asked, gatewayMAC, true) }, answer},
		{"reply to one without an option", func(b []byte) int { return PutNDReply(b, &bare, gatewayMAC, true) }, answer},
		{"reply of no router", func(b []byte) int { return PutNDReply(b, &asked, gatewayMAC, false) },
			naFrame(t, ours, hostA, "2001:db8:1::1", "2001:db8:1::7", 0x60, "2001:db8:1::1", ours)},
		{"reply to duplicate detection", func(b []byte) int { return PutNDReply(b, &probe, gatewayMAC, true) },
			naFrame(t, ours, all, "2001:db8:1::1", "ff02::1", 0xa0, "2001:db8:1::1", ours)},
		{"request", func(b []byte) int { return PutNDRequest(b, 0, gatewayMAC, gateway6, ip6) },
			ns(net.HardwareAddr{0x33, 0x33, 0xff, 0, 0, 7}, "ff02::1:ff00:7")},
		{"request to a station", func(b []byte) int { return PutNDRequest(b, macA, gatewayMAC, gateway6, ip6) }, ns(hostA, "2001:db8:1::7")},
		{"announcement", func(b []byte) int { return PutNDAnnouncement(b, gatewayMAC, gateway6, true) },
			naFrame(t, ours, all, "2001:db8:1::1", "ff02::1", 0xa0, "2001:db8:1::1", ours)},
	} {
		b := bytes.Repeat([]byte{0x5a}, 100)
		n := c.put(b)
		if n != NDLen || !bytes.Equal(b[:n], c.want) || !bytes.Equal(b[n:], bytes.Repeat([]byte{0x5a}, 100-n)) {
			t.Errorf("%s:\n% x, want\n% x", c.name, b[:n], c.want)
			continue
		}
		if _, ok := ReadND(newChunk(t).parsed(t, b[:n])); !ok {
			t.Errorf("%s: ReadND refuses it", c.name)
		}
		if c.put(b[:NDLen-1]) != 0 {
			t.Errorf("%s: no room, but written", c.name)
		}
	}
}
