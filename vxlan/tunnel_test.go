package vxlan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// The lines are those of the conformance checklist in docs/rfc7348.md.

func TestEncapHeader(t *testing.T) { // lines 1 to 6, 14 to 16
	frames := map[string][]byte{
		"tcp":       inner(),
		"tcp6":      pkttest.TCP(client6, server6).SYN().Frame(hostA, hostB),
		"arp":       pkttest.Ethernet(make([]byte, 28), hostA, hostB, packet.EtherTypeARP),
		"empty":     pkttest.Ethernet(nil, hostA, hostB, 0x88b5),
		"odd":       pkttest.UDP(client, server).Payload([]byte{1}).Frame(hostA, hostB),
		"1450 long": pkttest.UDP(client, server).Size(1450).Frame(hostA, hostB),
	}
	for _, vni := range []uint32{0, 1, 4096, testVNI, MaxVNI} {
		for _, port := range []uint16{0, 4789, 8472} {
			for name, frame := range frames {
				for _, v6 := range []bool{false, true} {
					for _, checksum := range []bool{false, true} {
						t.Run(fmt.Sprintf("%s vni=%d port=%d v6=%v checksum=%v", name, vni, port, v6, checksum), func(t *testing.T) {
							o := options4()
							if v6 {
								o = options6()
							}
							o.VNI, o.Port, o.Checksum, o.ZeroChecksum6 = vni, port, checksum, !checksum
							checkEncap(t, o, frame)
						})
					}
				}
			}
		}
	}
}

func checkEncap(t *testing.T, o TunnelOptions, frame []byte) {
	tunnel := mustTunnel(t, o)
	ip := sent(t, tunnel, frame, 0x12345678)
	if err := pkttest.Verify(ip); err != nil && !(tunnel.V6() && o.ZeroChecksum6) { // lengths, IP and UDP checksum (lines 12, 14)
		t.Error(err)
	}
	d := decode(t, ip)
	raw := d.udp.Payload[:8]
	if [4]byte(raw[:4]) != [4]byte{8} || raw[7] != 0 {
		t.Errorf("flags and reserved bits % x (lines 1, 2, 3)", raw)
	}
	if d.vxlan.VNI != o.VNI || !d.vxlan.ValidIDFlag {
		t.Errorf("VNI %d, want %d (line 4)", d.vxlan.VNI, o.VNI)
	}
	want := o.Port
	if want == 0 {
		want = 4789
	}
	if uint16(d.udp.DstPort) != want {
		t.Errorf("destination port %d, want %d (lines 5, 6)", d.udp.DstPort, want)
	}
	if len(ip)-len(frame) != tunnel.Overhead()-14 || string(d.inner) != string(frame) {
		t.Errorf("inner frame of %d bytes, want %d without FCS (line 15)", len(d.inner), len(frame))
	}
	switch {
	case d.ip4 != nil:
		if !d.ip4.SrcIP.Equal(o.Local.AsSlice()) || !d.ip4.DstIP.Equal(o.Peer.AsSlice()) {
			t.Errorf("from %v to %v (line 16)", d.ip4.SrcIP, d.ip4.DstIP)
		}
		if d.ip4.Id != 0 || d.ip4.Flags != 2 || d.ip4.FragOffset != 0 {
			t.Errorf("ID %d, flags %v, offset %d: must be DF alone (line 18)", d.ip4.Id, d.ip4.Flags, d.ip4.FragOffset)
		}
		if (d.udp.Checksum != 0) != o.Checksum {
			t.Errorf("checksum %#x (line 11)", d.udp.Checksum)
		}
	case d.ip6 != nil:
		if !d.ip6.SrcIP.Equal(o.Local.AsSlice()) || !d.ip6.DstIP.Equal(o.Peer.AsSlice()) {
			t.Errorf("from %v to %v (line 16)", d.ip6.SrcIP, d.ip6.DstIP)
		}
		if d.ip6.FlowLabel != 0x45678 {
			t.Errorf("flow label %#x is not of the flow", d.ip6.FlowLabel)
		}
		if (d.udp.Checksum != 0) == o.ZeroChecksum6 {
			t.Errorf("checksum %#x (line 13)", d.udp.Checksum)
		}
	}
}

func TestEncapSumOfZero(t *testing.T) { // line 12: a checksum that comes out as zero is sent as 0xffff
	frame := pkttest.UDP(client, server).Payload([]byte{0, 0}).NoChecksum().Frame(hostA, hostB)
	o := options4()
	o.Checksum = true
	tunnel := mustTunnel(t, o)
	before := decode(t, sent(t, tunnel, frame, 0)).udp.Checksum
	at := len(frame) - 2
	frame[at], frame[at+1] = byte(before>>8), byte(before) // the sum of all is now zero
	if got := decode(t, sent(t, tunnel, frame, 0)).udp.Checksum; got != 0xffff {
		t.Errorf("checksum %#04x, want 0xffff", got)
	}
}

func TestEncapTTLAndDSCP(t *testing.T) {
	tcp := pkttest.TCP(client, server).TTL(17).TOS(0xb8).Frame(hostA, hostB)
	tcp6 := pkttest.TCP(client6, server6).TTL(17).TOS(0xb8).Frame(hostA, hostB)
	arp := pkttest.Ethernet(make([]byte, 28), hostA, hostB, packet.EtherTypeARP)
	for _, c := range []struct {
		name     string
		frame    []byte
		edit     func(o *TunnelOptions)
		ttl, tos uint8
	}{
		{"the defaults", tcp, func(*TunnelOptions) {}, 64, 0},
		{"fixed", tcp, func(o *TunnelOptions) { o.TTL, o.DSCP = 3, 10 }, 3, 40},
		{"inherited", tcp, func(o *TunnelOptions) { o.InheritTTL, o.InheritDSCP = true, true }, 17, 0xb8},
		{"inherited of IPv6", tcp6, func(o *TunnelOptions) { o.InheritTTL, o.InheritDSCP = true, true }, 17, 0xb8},
		{"nothing to inherit", arp, func(o *TunnelOptions) { o.InheritTTL, o.InheritDSCP, o.DSCP = true, true, 10 }, 64, 40},
	} {
		for _, o := range []TunnelOptions{options4(), options6()} {
			c.edit(&o)
			d := decode(t, sent(t, mustTunnel(t, o), c.frame, 0))
			var ttl, tos uint8
			if d.ip4 != nil {
				ttl, tos = d.ip4.TTL, d.ip4.TOS
			} else {
				ttl, tos = d.ip6.HopLimit, d.ip6.TrafficClass
			}
			if ttl != c.ttl || tos != c.tos {
				t.Errorf("%s, to %v: TTL %d and TOS %#x, want %d and %#x", c.name, o.Peer, ttl, tos, c.ttl, c.tos)
			}
		}
	}
}

func TestEncapCopiesECN(t *testing.T) { // line 48
	for ecn := range uint8(4) {
		for name, p := range map[string]pkttest.Packet{"IPv4": pkttest.TCP(client, server), "IPv6": pkttest.TCP(client6, server6)} {
			for _, o := range []TunnelOptions{options4(), options6()} {
				o.DSCP = 46
				d := decode(t, sent(t, mustTunnel(t, o), p.TOS(ecn).Frame(hostA, hostB), 0))
				tos := uint8(0)
				if d.ip4 != nil {
					tos = d.ip4.TOS
				} else {
					tos = d.ip6.TrafficClass
				}
				if tos != 46<<2|ecn {
					t.Errorf("%s with ECN %d to %v: outer TOS %#x", name, ecn, o.Peer, tos)
				}
			}
		}
	}
}

func TestSourcePorts(t *testing.T) { // lines 7 and 8
	for _, c := range []struct {
		first, last uint16
		distinct    int
	}{{0, 0, 9000}, {49152, 65535, 9000}, {50000, 50009, 10}, {4000, 4000, 1}, {1, 65535, 9000}} {
		o := options4()
		o.SourcePorts = [2]uint16{c.first, c.last}
		tunnel := mustTunnel(t, o)
		first, last := c.first, c.last
		if first == 0 {
			first, last = 49152, 65535
		}
		e := NewEntropy([2]uint64{1, 2})
		ch := newChunk(t)
		seen := map[uint16]bool{}
		for i := range 10000 {
			f := ch.parsed(t, pkttest.TCP(netip.AddrPortFrom(client.Addr(), uint16(i+1)), server).SYN().Frame(hostA, hostB))
			tunnel.Encap(f, e.Of(f))
			port := uint16(f.Chunk()[f.L4])<<8 | uint16(f.Chunk()[f.L4+1])
			if port < first || port > last {
				t.Fatalf("source port %d, range is %d-%d", port, first, last)
			}
			seen[port] = true
		}
		// 10000 balls into 16384 bins fill 7480 of them on the average
		if want := min(c.distinct, 7200); len(seen) < want {
			t.Errorf("range %d-%d: %d distinct ports of 10000 flows, want %d", first, last, len(seen), want)
		}
	}
	o := options4()
	o.SourcePorts = [2]uint16{50000, 50009}
	tunnel := mustTunnel(t, o)
	for entropy, want := range map[uint32]uint16{0: 50000, 1<<32 - 1: 50009} {
		if d := decode(t, sent(t, tunnel, inner(), entropy)); uint16(d.udp.SrcPort) != want {
			t.Errorf("entropy %#x: source port %d, want %d", entropy, d.udp.SrcPort, want)
		}
	}
}

func TestEncapWithoutHeadroom(t *testing.T) {
	for _, o := range []TunnelOptions{options4(), options6()} {
		tunnel := mustTunnel(t, o)
		pool, _ := packet.NewPool(make([]byte, 2048), 2048)
		var f packet.Frame
		frame := inner()
		for _, room := range []int{0, 14, tunnel.Overhead() - 1, tunnel.Overhead()} {
			copy(pool.Memory()[room:], frame)
			f.Open(pool, packet.Desc{Addr: uint64(room), Len: uint32(len(frame))})
			packet.Parse(&f)
			before := f
			ok := tunnel.Encap(&f, 0)
			if ok != (room == tunnel.Overhead()) {
				t.Errorf("to %v with %d bytes of headroom: %v", o.Peer, room, ok)
			}
			if !ok && (f.Start != before.Start || f.Headers != before.Headers) {
				t.Errorf("to %v with %d bytes of headroom: the frame changed", o.Peer, room)
			}
		}
	}
}

func TestNewTunnelRefuses(t *testing.T) {
	for name, edit := range map[string]func(o *TunnelOptions){
		"two families":  func(o *TunnelOptions) { o.Peer = peer6 },
		"no peer":       func(o *TunnelOptions) { o.Peer = netip.Addr{} },
		"VNI too large": func(o *TunnelOptions) { o.VNI = MaxVNI + 1 },
		"DSCP":          func(o *TunnelOptions) { o.DSCP = 64 },
		"source ports":  func(o *TunnelOptions) { o.SourcePorts = [2]uint16{2, 1} },
	} {
		o := options4()
		edit(&o)
		if _, err := NewTunnel(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// What a tunnel sends is what the other end takes out, bit by bit, whatever is inside.
func TestEncapThenDecap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	c := newChunk(t)
	for i := range 3000 {
		frame := pkttest.Ethernet(make([]byte, random.IntN(1500)), hostA, hostB, 0x88b5)
		for j := 14; j < len(frame); j++ {
			frame[j] = byte(random.Uint32())
		}
		o := options4()
		if i%2 == 0 {
			o = options6()
		}
		o.Checksum = i%4 < 2
		b := sent(t, mustTunnel(t, o), frame, random.Uint32())
		f := c.parsed(t, pkttest.Frame(b, nextHop, vtepMAC))
		got, fault := ReadOuter(f)
		if fault == FaultNone {
			fault = Decap(f, Policy{Strict: true})
		}
		local, _ := AddrOf(o.Local)
		to, v6 := AddrOf(o.Peer)
		if want := (Outer{local, to, testVNI, Port, v6}); fault != FaultNone || got != want || string(f.Bytes()) != string(frame) {
			t.Fatalf("%v: %+v, want %+v, and %d bytes of %d", fault, got, want, f.Len(), len(frame))
		}
	}
}
