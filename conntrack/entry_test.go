package conntrack

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// apply is what a rewrite does with a delta (RFC 1624 equation 3).
func apply(sum, delta uint16) uint16 {
	s := uint32(^sum) + uint32(delta)
	return ^uint16(s + s>>16)
}

// sums makes a TCP segment of k with gopacket and returns the IPv4 header checksum, zero for IPv6, and that of TCP.
func sums(t *testing.T, k *Tuple) (l3, l4 uint16) {
	t.Helper()
	var ip gopacket.SerializableLayer
	seg := &layers.TCP{SrcPort: layers.TCPPort(k.Ports >> 16), DstPort: layers.TCPPort(k.Ports), Seq: 1, ACK: true, Window: 512}
	var at int
	if k.V6 {
		h := &layers.IPv6{Version: 6, NextHeader: layers.IPProtocolTCP, HopLimit: 64, SrcIP: bytesOf(k.Src), DstIP: bytesOf(k.Dst)}
		seg.SetNetworkLayerForChecksum(h)
		ip, at = h, 40
	} else {
		h := &layers.IPv4{Version: 4, IHL: 5, Protocol: layers.IPProtocolTCP, TTL: 64, SrcIP: bytesOf(k.Src)[12:], DstIP: bytesOf(k.Dst)[12:]}
		seg.SetNetworkLayerForChecksum(h)
		ip, at = h, 20
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, seg, gopacket.Payload("weir"))
	if err != nil {
		t.Fatal(err)
	}
	b := buf.Bytes()
	if !k.V6 {
		l3 = binary.BigEndian.Uint16(b[10:])
	}
	return l3, binary.BigEndian.Uint16(b[at+16:])
}

func bytesOf(a Addr) net.IP {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, a.Hi), a.Lo)
}

// The deltas of every connection lead from gopacket's checksums of one packet to those of the other.
func FuzzDeltas(f *testing.F) {
	f.Add(uint64(0), uint64(vip4), uint64(0), uint64(client4), uint32(0x00501234), uint64(0), uint64(server4), uint32(0x1f401234), false)
	f.Add(vip6.Hi, vip6.Lo, uint64(1), uint64(2), uint32(80), server6.Hi, server6.Lo, uint32(8000), true)
	f.Add(uint64(0), uint64(0), uint64(0), uint64(0xffff), uint32(0xffffffff), uint64(0), uint64(0xffff0000), uint32(0), false)
	f.Add(^uint64(0), ^uint64(0), uint64(0), uint64(0), uint32(0), uint64(0), uint64(0), ^uint32(0), true)
	f.Fuzz(func(t *testing.T, srcHi, src, dstHi, dst uint64, ports uint32, newHi, newDst uint64, newPorts uint32, v6 bool) {
		if !v6 {
			srcHi, dstHi, newHi, src, dst, newDst = 0, 0, 0, src&0xffffffff, dst&0xffffffff, newDst&0xffffffff
		}
		in := Tuple{Addr{srcHi, src}, Addr{dstHi, dst}, ports, tcp, v6}
		out := Tuple{Addr{dstHi, dst}, Addr{newHi, newDst}, newPorts, tcp, v6}
		tab := newTable(t, 1, 1)
		r := mustInsert(t, tab, Conn{Forward: in, ForwardTo: out, OneWay: true}, syn, 0)
		e := tab.common(r)
		before3, before4 := sums(t, &in)
		after3, after4 := sums(t, &out)
		if got := apply(before3, e.DeltaL3); !v6 && got != after3 {
			t.Errorf("header checksum %#04x + %#04x = %#04x, gopacket says %#04x", before3, e.DeltaL3, got, after3)
		}
		if got := apply(before4, e.DeltaL4); got != after4 {
			t.Errorf("TCP checksum %#04x + %#04x = %#04x, gopacket says %#04x", before4, e.DeltaL4, got, after4)
		}
		if back, to := tab.tuples(r); back != in || to != out {
			t.Errorf("%+v to %+v was kept as %+v to %+v", in, out, back, to)
		}
	})
}
