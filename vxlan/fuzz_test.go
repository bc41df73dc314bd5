package vxlan

import (
	"bytes"
	"encoding/binary"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// seeds are packets to a VTEP of every shape, inner frames included.
func seeds() map[string][]byte {
	p := pkttest.TCP(client, server)
	fragments := func(p pkttest.Packet) pkttest.Packet { return p.Fragment(1, 0, true).Size(124) }
	return map[string][]byte{
		"plain":        received{}.frame(inner()),
		"checksum":     received{checksum: true, tos: 3}.frame(p.TOS(2).Frame(hostA, hostB)),
		"ipv6":         received{v6: true, checksum: true, tos: 1}.frame(pkttest.TCP(client6, server6).TOS(2).Frame(hostA, hostB)),
		"tagged":       received{}.frame(p.VLAN(7).Frame(hostA, hostB)),
		"two tags":     received{tos: 3}.frame(p.VLAN(0, 7).TOS(1).Frame(hostA, hostB)),
		"priority tag": received{}.frame(p.VLAN(0).Frame(hostA, hostB)),
		"reserved":     received{edit: set(7, 1)}.frame(inner()),
		"no I":         received{edit: set(0, 0)}.frame(inner()),
		"short":        received{edit: func(b []byte) []byte { return b[:12] }}.frame(inner()),
		"runt":         received{}.frame(inner()[:14]),
		"fragment":     received{shape: fragments}.frame(inner()),
		"options":      received{shape: func(p pkttest.Packet) pkttest.Packet { return p.Options(1, 1, 1, 0) }}.frame(inner()),
		"extensions":   received{v6: true, shape: func(p pkttest.Packet) pkttest.Packet { return p.HopByHop().DestOptions() }}.frame(inner()),
		"padded":       pkttest.Pad(received{}.frame(inner()), 200),
		"arp":          received{}.frame(pkttest.Ethernet(make([]byte, 28), hostA, hostB, packet.EtherTypeARP)),
	}
}

// segment is where the fuzzed packets belong, if at all: it takes every VNI and every address there is.
func fuzzed(o *Outer, p Policy) *Segments {
	s := &Segment{VNI: o.VNI, Port: o.Port, V6: o.V6, VTEP: o.Dst, Policy: p, Open: true, peers: make([]uint16, 2)}
	t, err := NewSegments([]*Segment{s})
	if err != nil {
		panic(err)
	}
	return t
}

// plainDecap is Decap without a thought for speed: what a packet that Parse took carries, nil if it must be dropped.
func plainDecap(f *packet.Frame, p Policy) []byte {
	ip := bytes.Clone(f.Chunk()[f.L3:f.L3End])
	udp := ip[f.L4-f.L3:]
	udp = udp[:binary.BigEndian.Uint16(udp[4:])]
	if udp[8]&8 == 0 || p.Strict && (udp[8] != 8 || udp[9]|udp[10]|udp[11]|udp[15] != 0) {
		return nil
	}
	if !p.NoChecksum && udp[6]|udp[7] != 0 {
		sum := uint32(17) + uint32(len(udp))
		addresses, data := ip[12:20], append(bytes.Clone(udp), 0)
		if f.Kind&packet.KindIPv6 != 0 {
			addresses = ip[8:40]
		}
		for _, b := range [][]byte{addresses, data[:len(data)&^1]} {
			for i := 0; i < len(b); i += 2 {
				sum += uint32(b[i])<<8 | uint32(b[i+1])
			}
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		if sum != 0xffff {
			return nil
		}
	}
	in := udp[16:]
	if in[6]&1 != 0 || bytes.Equal(in[6:12], make([]byte, 6)) {
		return nil
	}
	tag := func(b []byte) bool { return b[0] == 0x81 && b[1] == 0 || b[0] == 0x88 && b[1] == 0xa8 }
	if tag(in[12:]) && !p.KeepTags {
		if len(in) < 18 || in[14]&15|in[15] != 0 || tag(in[16:]) {
			return nil
		}
		in = append(bytes.Clone(in[:12]), in[16:]...)
	}
	at := 12
	for n := 0; n < 2 && tag(in[at:]) && len(in) >= at+6; n++ {
		at += 4
	}
	h := in[at+2:]
	switch {
	case in[at] == 8 && in[at+1] == 0 && len(h) >= 20 && h[0]>>4 == 4:
	case in[at] == 0x86 && in[at+1] == 0xdd && len(h) >= 40 && h[0]>>4 == 6:
	default:
		return in
	}
	out, shift := ip[1]&3, 0
	if f.Kind&packet.KindIPv6 != 0 {
		out = ip[1] >> 4 & 3
	}
	if h[0]>>4 == 6 {
		shift = 4
	}
	before := binary.BigEndian.Uint16(h)
	switch was := h[1] >> shift & 3; {
	case was == 0 && out == 3:
		return nil
	case was != 0 && (out == 3 || was == 2 && out == 1):
		h[1] = h[1]&^(3<<shift) | out<<shift
	}
	if now := binary.BigEndian.Uint16(h); shift == 0 && now != before {
		binary.BigEndian.PutUint16(h[10:], packet.Update16(binary.BigEndian.Uint16(h[10:]), before, now))
	}
	return in
}

func FuzzDecap(f *testing.F) {
	for _, b := range seeds() {
		for policy := range uint8(8) {
			f.Add(b, policy)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, policy uint8) {
		c := newChunk(t)
		frame, parse := c.frame(t, b)
		p := Policy{Strict: policy&1 != 0, KeepTags: policy&2 != 0, NoChecksum: policy&4 != 0}
		o, fault := ReadOuter(frame) // also of what Parse refused: it must not fall
		if parse != packet.FaultNone || fault != FaultNone {
			return
		}
		want := plainDecap(frame, p)
		start, end := frame.Start, frame.End
		a, fault := fuzzed(&o, p).Decap(frame)
		if fault >= FaultCount || (fault == FaultNone) != (want != nil) && fault != FaultPeer && fault != FaultLoop {
			t.Fatalf("%v, the plain twin has %d bytes\n% x", fault, len(want), b)
		}
		if fault != FaultNone {
			return
		}
		if frame.Start <= start || frame.End > end || a.Outer != o || !bytes.Equal(frame.Bytes(), want) {
			t.Fatalf("from %d to %d of %d to %d\n% x, want\n% x", frame.Start, frame.End, start, end, frame.Bytes(), want)
		}
		if packet.Parse(frame) != packet.FaultNone {
			return
		}
		(&Entropy{}).Of(frame)
		ReadARP(frame)
		ReadND(frame)
		// and back into a tunnel: the inner frame stays as it is
		inner := bytes.Clone(frame.Bytes())
		tunnel, err := NewTunnel(TunnelOptions{VNI: o.VNI, Local: ours6, Peer: peer6, InheritTTL: true, InheritDSCP: true})
		if err != nil || !tunnel.Encap(frame, 7) || !bytes.HasSuffix(frame.Bytes(), inner) {
			t.Fatalf("%v, or the inner frame changed", err)
		}
		if err := pkttest.Verify(frame.Bytes()); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzEnter(f *testing.F) {
	for _, vlan := range [][]uint16{nil, {0}, {7}, {7, 9}, {0, 9}} {
		f.Add(pkttest.TCP(client, server).VLAN(vlan...).Frame(hostA, hostB), true)
		f.Add(pkttest.TCP(client6, server6).VLAN(vlan...).Frame(hostA, hostB), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, keep bool) {
		s := &Segment{Access: []Access{{Used: true}, {VLAN: 7, Used: true}}, Policy: Policy{KeepTags: keep}}
		segments, err := NewSegments([]*Segment{s})
		if err != nil {
			t.Fatal(err)
		}
		frame, parse := newChunk(t).frame(t, b)
		_, fault := segments.Enter(frame)
		if fault != FaultNone || parse != packet.FaultNone {
			return
		}
		if tags := len(b) - frame.Len(); tags != 0 && tags != 4 || !keep && frame.VLANs != 0 {
			t.Fatalf("%d bytes are gone, %d tags left", tags, frame.VLANs)
		}
		kept := frame.Headers
		third := kept.EtherType == packet.EtherTypeVLAN || kept.EtherType == packet.EtherTypeQinQ // a tag that Parse took for the payload
		if packet.Parse(frame); frame.Headers != kept && !third {
			t.Fatalf("headers %+v, parsed anew %+v", kept, frame.Headers)
		}
	})
}

// FuzzMessages: whatever ReadARP and ReadND take can be answered, and the answer is one that they take.
func FuzzMessages(f *testing.F) {
	b := make([]byte, NDLen)
	f.Add(b[:PutARPRequest(b, Broadcast, 1, Addr{Lo: 1 << 24}, Addr{Lo: 2 << 24})])
	f.Add(bytes.Clone(b[:PutNDRequest(b, 0, 1, Addr{1 << 61, 1}, Addr{1 << 61, 2})]))
	f.Add(bytes.Clone(b[:PutNDAnnouncement(b, 1, Addr{1 << 61, 1}, true)]))
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, parse := newChunk(t).frame(t, b)
		a, isARP := ReadARP(frame)
		n, isND := ReadND(frame)
		if parse != packet.FaultNone || !isARP && !isND {
			return
		}
		answer := make([]byte, NDLen)
		if isARP {
			answer = answer[:PutARPReply(answer, &a, 2)]
		} else {
			answer = answer[:PutNDReply(answer, &n, 2, true)]
		}
		frame = newChunk(t).parsed(t, answer)
		got, okARP := ReadARP(frame)
		gotND, okND := ReadND(frame)
		if isARP && (!okARP || got.Sender != a.Target || got.Target != a.Sender) && a.Sender != (Addr{}) {
			t.Errorf("the answer to %+v is %+v", a, got)
		}
		if isND && (!okND || gotND.Target != n.Target || gotND.MAC != 2) {
			t.Errorf("the answer to %+v is %+v", n, gotND)
		}
	})
}
