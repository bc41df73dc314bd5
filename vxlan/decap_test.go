package vxlan

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// set writes a byte of the UDP payload, VXLAN header first.
func set(at int, v byte) func([]byte) []byte {
	return func(b []byte) []byte { b[at] = v; return b }
}

// testSegment is the one that received's packets are for.
func testSegment(t testing.TB, edit func(o *SegmentOptions)) *Segment {
	t.Helper()
	o := SegmentOptions{TunnelOptions: options4(), Peers: []PeerOptions{{Addr: peer}}}
	if edit != nil {
		edit(&o)
	}
	s, err := NewSegment(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func segmentsOf(t testing.TB, list ...*Segment) *Segments {
	t.Helper()
	s, err := NewSegments(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func over6(o *SegmentOptions) {
	o.Local, o.Peers = ours6, []PeerOptions{{Addr: peer6}}
}

func TestDecap(t *testing.T) {
	frame := inner()
	tagged := pkttest.TCP(client, server).SYN().VLAN(7).Frame(hostA, hostB)
	priority := pkttest.TCP(client, server).SYN().VLAN(0).Frame(hostA, hostB)
	double := pkttest.TCP(client, server).SYN().VLAN(0, 7).Frame(hostA, hostB)
	keep := func(o *SegmentOptions) { o.Policy.KeepTags = true }
	for _, c := range []struct {
		name    string
		in      received
		inner   []byte // nil: frame
		segment func(o *SegmentOptions)
		want    Fault
		out     []byte // nil: as inner
	}{
		{name: "line 22: I flag clear", in: received{edit: set(0, 0)}, want: FaultFlags},
		{name: "line 22: all flags but I", in: received{edit: set(0, 0xf7)}, want: FaultFlags},
		{name: "line 25: no checksum"},
		{name: "line 25: no checksum, IPv6", in: received{v6: true}},
		{name: "line 26: right checksum", in: received{checksum: true}},
		{name: "line 26: right checksum, IPv6", in: received{checksum: true, v6: true}},
		{name: "line 27: wrong checksum", in: received{badChecksum: true}, want: FaultChecksum},
		{name: "line 27: wrong checksum, IPv6", in: received{badChecksum: true, v6: true}, want: FaultChecksum},
		{name: "line 27: wrong checksum, not verified", in: received{badChecksum: true},
			segment: func(o *SegmentOptions) { o.Policy.NoChecksum = true }},
		{name: "line 28: first fragment", in: received{shape: func(p pkttest.Packet) pkttest.Packet { return p.Fragment(1, 0, true).Size(124) }}, want: FaultFragment},
		{name: "line 28: later fragment", in: received{shape: func(p pkttest.Packet) pkttest.Packet { return p.Fragment(1, 1480, false) }}, want: FaultFragment},
		{name: "line 28: first fragment, IPv6", in: received{v6: true, shape: func(p pkttest.Packet) pkttest.Packet { return p.Fragment(1, 0, true).Size(160) }}, want: FaultFragment},
		{name: "line 28: atomic fragment is none", in: received{v6: true, checksum: true, shape: func(p pkttest.Packet) pkttest.Packet { return p.Fragment(1, 0, false) }}},
		{name: "line 29: unknown VNI", in: received{vni: testVNI + 1}, want: FaultVNI},
		{name: "line 29: the VNI of another port", in: received{port: 8472}, want: FaultVNI},
		{name: "line 6: the segment's own port", in: received{port: 8472}, segment: func(o *SegmentOptions) { o.Port = 8472 }},
		{name: "line 31: tagged", inner: tagged, want: FaultTagged},
		{name: "line 31: tagged, kept", inner: tagged, segment: keep},
		{name: "line 31: priority tag", inner: priority, out: frame},
		{name: "line 31: priority tag, kept", inner: priority, segment: keep},
		{name: "line 31: tag behind a priority tag", inner: double, want: FaultTagged},
		{name: "line 31: a tag cut off", inner: priority[:15], want: FaultTagged},
		{name: "line 33: source is a group", inner: pkttest.TCP(client, server).Frame(pkttest.MAC("03:00:00:00:00:01"), hostB), want: FaultSourceMAC},
		{name: "line 33: source is zero", inner: pkttest.TCP(client, server).Frame(pkttest.MAC("00:00:00:00:00:00"), hostB), want: FaultSourceMAC},
		{name: "line 34: to another address", in: received{dst: address("192.0.2.77")}, want: FaultDestination},
		{name: "line 34: over the other family", in: received{v6: true, checksum: true}, segment: func(o *SegmentOptions) {}, want: FaultDestination},
		{name: "line 34: to a group not ours", in: received{dst: address("239.1.1.1")}, want: FaultDestination},
		{name: "line 34: to our group", in: received{dst: address("239.1.1.1")}, segment: func(o *SegmentOptions) { o.Group = address("239.1.1.1") }},
		{name: "line 35: from ourselves", in: received{src: ours}, want: FaultLoop},
		{name: "line 35: from ourselves, by a group", in: received{src: ours, dst: address("239.1.1.1")},
			segment: func(o *SegmentOptions) { o.Group = address("239.1.1.1") }, want: FaultLoop},
		{name: "line 36: no VXLAN header", in: received{edit: func(b []byte) []byte { return b[:7] }}, want: FaultShort},
		{name: "line 36: nothing inside", in: received{edit: func(b []byte) []byte { return b[:8] }}, want: FaultShort},
		{name: "line 36: 13 bytes inside", in: received{edit: func(b []byte) []byte { return b[:21] }}, want: FaultShort},
		{name: "line 36: 14 bytes inside", in: received{checksum: true}, inner: frame[:14]},
		{name: "line 38: IPv4 options", in: received{shape: func(p pkttest.Packet) pkttest.Packet { return p.Options(1, 1, 1, 0) }}},
		{name: "line 38: IPv6 extension headers", in: received{v6: true, checksum: true, shape: func(p pkttest.Packet) pkttest.Packet { return p.HopByHop().DestOptions() }}},
		{name: "line 38: source route", in: received{shape: func(p pkttest.Packet) pkttest.Packet {
			return p.Options(131, 7, 4, 192, 0, 2, 1, 0)
		}}, want: FaultSourceRoute},
		{name: "line 38: routing header", in: received{v6: true, shape: func(p pkttest.Packet) pkttest.Packet { return p.Routing(1) }}, want: FaultSourceRoute},
		{name: "line 39: source port 1", in: received{sport: 1}},
		{name: "line 39: source port 4789", in: received{sport: 4789, checksum: true}},
		{name: "line 46: not a peer", in: received{src: address("192.0.2.66")}, want: FaultPeer},
		{name: "line 46: not a peer, of an open segment", in: received{src: address("192.0.2.66")}, segment: func(o *SegmentOptions) { o.Open = true }},
		{name: "line 46: from a group, to an open segment", in: received{src: address("239.1.1.1")}, segment: func(o *SegmentOptions) { o.Open = true }, want: FaultPeer},
		{name: "UDP is not all", inner: pkttest.Ethernet(nil, hostA, hostB, 0x88b5)},
	} {
		t.Run(c.name, func(t *testing.T) {
			edit := c.segment
			if edit == nil && c.in.v6 {
				edit = over6
			}
			segments := segmentsOf(t, testSegment(t, edit))
			in := c.inner
			if in == nil {
				in = frame
			}
			f := newChunk(t).parsed(t, c.in.frame(in))
			before := slices.Clone(f.Bytes())
			a, fault := segments.Decap(f)
			if fault != c.want {
				t.Fatalf("%v, want %v", fault, c.want)
			}
			if fault != FaultNone {
				if a.Segment != nil && a.VNI != a.Segment.VNI {
					t.Error("a segment of another VNI")
				}
				return
			}
			want := c.out
			if want == nil {
				want = in
			}
			if !bytes.Equal(f.Bytes(), want) {
				t.Errorf("inner frame\n% x, want\n% x", f.Bytes(), want)
			}
			if !bytes.Equal(f.Chunk()[f.Start:f.End], f.Bytes()) || len(before) < f.Len() {
				t.Error("the frame grew")
			}
			if i, ok := a.At.Peer(); ok && a.Segment.Peers[i].Addr != a.Src || !ok && a.At != 0 {
				t.Errorf("from %v: at %#x", a.Src, a.At)
			}
		})
	}
}

// Lines 23 and 24: each reserved bit alone is ignored, and refused by a strict segment.
func TestDecapReservedBits(t *testing.T) {
	bits := 0
	for bit := range 64 {
		at, mask := bit/8, byte(0x80>>(bit%8))
		if at == 0 && mask == 8 || at >= 4 && at < 7 {
			continue // I, and the VNI
		}
		bits++
		for _, strict := range []bool{false, true} {
			s := segmentsOf(t, testSegment(t, func(o *SegmentOptions) { o.Policy.Strict = strict }))
			r := received{edit: func(b []byte) []byte { b[at] |= mask; return b }}
			_, fault := s.Decap(newChunk(t).parsed(t, r.frame(inner())))
			if want := map[bool]Fault{true: FaultReserved}[strict]; fault != want {
				t.Errorf("byte %d, bit %#x, strict %v: %v, want %v", at, mask, strict, fault, want)
			}
		}
	}
	if bits != 39 {
		t.Errorf("tried %d bits, 39 are reserved", bits)
	}
}

// Line 37: what lies behind the UDP datagram is not part of the frame.
func TestDecapTrailer(t *testing.T) {
	s := segmentsOf(t, testSegment(t, nil))
	p := received{checksum: true}.packet(inner()).Bytes()
	p = append(p, 1, 2, 3, 4, 5) // in the IP packet, behind the datagram
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	binary.BigEndian.PutUint16(p[10:], 0)
	binary.BigEndian.PutUint16(p[10:], packet.Sum(p[:20]))
	f := newChunk(t).parsed(t, pkttest.Pad(pkttest.Frame(p, nextHop, vtepMAC), 200))
	if _, fault := s.Decap(f); fault != FaultNone || !bytes.Equal(f.Bytes(), inner()) {
		t.Errorf("%v, %d bytes, want %d", fault, f.Len(), len(inner()))
	}
	binary.BigEndian.PutUint16(p[24:], uint16(len(p)-19)) // the datagram says to be longer than the packet
	f, parse := newChunk(t).frame(t, pkttest.Frame(p, nextHop, vtepMAC))
	if parse == packet.FaultNone {
		t.Error("Parse takes a UDP length beyond the packet")
	}
	if _, fault := ReadOuter(f); fault != FaultShort {
		t.Errorf("%v of a UDP length beyond the packet, want %v", fault, FaultShort)
	}
}

// Lines 47 and 49: RFC 6040 figure 4, cell by cell, over both families and in both.
func TestDecapECN(t *testing.T) {
	const drop = 255
	table := map[uint8][4]uint8{ // outer: Not-ECT, ECT(1), ECT(0), CE
		0b00: {0b00, 0b00, 0b00, drop},
		0b10: {0b10, 0b01, 0b10, 0b11},
		0b01: {0b01, 0b01, 0b01, 0b11},
		0b11: {0b11, 0b11, 0b11, 0b11},
	}
	for in, row := range table {
		for out, want := range row {
			for _, v6 := range []bool{false, true} {
				for name, p := range map[string]pkttest.Packet{"IPv4": pkttest.TCP(client, server), "IPv6": pkttest.TCP(client6, server6), "options": pkttest.TCP(client, server).Options(1, 1, 1, 0)} {
					for _, vlan := range [][]uint16{nil, {7}, {7, 8}} {
						t.Run(fmt.Sprintf("inner %02b outer %02b of %s v6=%v tags=%v", in, out, name, v6, vlan), func(t *testing.T) {
							s := testSegment(t, func(o *SegmentOptions) {
								o.Policy.KeepTags = true
								if v6 {
									over6(o)
								}
							})
							r := received{v6: v6, checksum: true, tos: 0xa4 | uint8(out)}
							f := newChunk(t).parsed(t, r.frame(p.TOS(0x58|in).VLAN(vlan...).Frame(hostA, hostB)))
							_, fault := segmentsOf(t, s).Decap(f)
							if want == drop {
								if fault != FaultECN {
									t.Errorf("%v, want %v", fault, FaultECN)
								}
								return
							}
							if got := p.TOS(0x58|want).VLAN(vlan...).Frame(hostA, hostB); fault != FaultNone || !bytes.Equal(f.Bytes(), got) {
								t.Errorf("%v\n% x, want\n% x", fault, f.Bytes(), got)
							}
						})
					}
				}
			}
		}
	}
}

// ECN of a frame whose IP header is none is nobody's business.
func TestDecapECNOfNoIP(t *testing.T) {
	for name, frame := range map[string][]byte{
		"ARP":       pkttest.Ethernet(make([]byte, 28), hostA, hostB, packet.EtherTypeARP),
		"cut off":   pkttest.Ethernet([]byte{0x45, 0}, hostA, hostB, packet.EtherTypeIPv4),
		"version":   pkttest.Ethernet(make([]byte, 60), hostA, hostB, packet.EtherTypeIPv4),
		"cut off 6": pkttest.Ethernet([]byte{0x60, 0}, hostA, hostB, packet.EtherTypeIPv6),
		"version 6": pkttest.Ethernet(make([]byte, 60), hostA, hostB, packet.EtherTypeIPv6),
	} {
		f := newChunk(t).parsed(t, received{tos: 3}.frame(frame))
		if _, fault := segmentsOf(t, testSegment(t, nil)).Decap(f); fault != FaultNone || !bytes.Equal(f.Bytes(), frame) {
			t.Errorf("%s: %v, % x", name, fault, f.Bytes())
		}
	}
}

func TestFaultNames(t *testing.T) {
	seen := map[string]bool{}
	for f := FaultNone; f < FaultCount; f++ {
		if s := f.String(); s == "" || s == "unknown" || seen[s] {
			t.Errorf("fault %d is named %q", f, s)
		}
		seen[f.String()] = true
	}
	if FaultCount.String() != "unknown" {
		t.Error("a fault that is none has a name")
	}
}
