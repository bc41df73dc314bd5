package vxlan

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"weir/dataplane/packet"
)

// TunnelOptions say what the outer headers to one peer of one segment are.
type TunnelOptions struct {
	VNI         uint32
	Local, Peer netip.Addr // of one family; Peer may be a group
	Port        uint16     // of the peer, 0: [Port]
	SourcePorts [2]uint16  // first and last, zero: 49152 to 65535 (RFC 7348 section 5)
	TTL         uint8      // or hop limit; 0: 64
	InheritTTL  bool       // take the inner packet's; TTL holds for frames that are not IP
	DSCP        uint8      // 0 to 63
	InheritDSCP bool       // take the inner packet's; DSCP holds for frames that are not IP

	// Checksum makes the UDP checksum over IPv4, which is zero otherwise (RFC 7348 section 5). Over IPv6 it is always made, for most
	// receivers refuse a zero (RFC 8200 section 8.1), unless ZeroChecksum6 says that this one does not (RFC 6935).
	Checksum      bool
	ZeroChecksum6 bool
}

const (
	defaultTTL             = 64
	dontFragment           = 0x4000
	firstSourcePort        = 49152
	lastSourcePort         = 65535
	ecnMask                = 3
	outer4                 = Overhead4 - etherLen // bytes in front of the inner frame, the outer Ethernet header aside
	outer6                 = Overhead6 - etherLen
	flowLabel       uint32 = 1<<20 - 1
)

// Tunnel is the way from one VTEP of ours to one peer in one segment: the headers that go in front of each frame. It never changes once
// made, so all workers share it.
//
//	         v outer4                    v Start as Encap finds it
//	IPv4 20 | UDP 8 | VXLAN 8 | Ethernet 14 | ...
type Tunnel struct {
	header   [outer6]byte // the first n bytes count; lengths, checksums, source port and what is inherited are zero
	n        uint16
	v6       bool
	checksum bool
	inherit  struct{ ttl, dscp bool }
	tos, ttl uint8
	sum      uint32 // of the IPv4 header's words as they stand in header, not folded
	first    uint16 // source port
	ports    uint64 // how many there are from first on
	peer     uint16
}

// NewTunnel checks o and builds the headers. It is control's: it allocates.
func NewTunnel(o TunnelOptions) (*Tunnel, error) {
	local, v6 := AddrOf(o.Local)
	peer, peer6 := AddrOf(o.Peer)
	switch {
	case !o.Local.IsValid() || !o.Peer.IsValid() || v6 != peer6:
		return nil, fmt.Errorf("vxlan: tunnel from %s to %s: must be two addresses of one family", o.Local, o.Peer)
	case o.VNI > MaxVNI:
		return nil, fmt.Errorf("vxlan: VNI %d: must be at most %d", o.VNI, MaxVNI)
	case o.DSCP > 63:
		return nil, fmt.Errorf("vxlan: DSCP %d: must be at most 63", o.DSCP)
	case o.SourcePorts[0] > o.SourcePorts[1]:
		return nil, fmt.Errorf("vxlan: source ports %d-%d: the first is behind the last", o.SourcePorts[0], o.SourcePorts[1])
	}
	if o.SourcePorts == [2]uint16{} {
		o.SourcePorts = [2]uint16{firstSourcePort, lastSourcePort}
	}
	if o.Port == 0 {
		o.Port = Port
	}
	if o.TTL == 0 {
		o.TTL = defaultTTL
	}
	t := &Tunnel{
		v6: v6, n: outer4, peer: NoPeer, checksum: o.Checksum, tos: o.DSCP << 2, ttl: o.TTL,
		first: o.SourcePorts[0], ports: uint64(o.SourcePorts[1]-o.SourcePorts[0]) + 1,
	}
	t.inherit.ttl, t.inherit.dscp = o.InheritTTL, o.InheritDSCP
	h := t.header[:]
	if v6 {
		t.n, t.checksum = outer6, !o.ZeroChecksum6
		h[0], h[6] = 6<<4, packet.ProtoUDP
		local.put6(h[8:])
		peer.put6(h[24:])
	} else {
		h[0], h[9] = 4<<4|ipv4Len/4, packet.ProtoUDP
		binary.BigEndian.PutUint16(h[6:], dontFragment) // never fragment (section 4.3); so the ID means nothing (RFC 6864 section 4.1)
		local.put4(h[12:])
		peer.put4(h[16:])
		for i := 0; i < ipv4Len; i += 2 {
			t.sum += uint32(binary.BigEndian.Uint16(h[i:]))
		}
	}
	udp := h[t.n-headerLen-udpLen:]
	binary.BigEndian.PutUint16(udp[2:], o.Port)
	putHeader(udp[udpLen:], o.VNI)
	return t, nil
}

// Port is the UDP port that the tunnel leads to.
func (t *Tunnel) Port() uint16 { return binary.BigEndian.Uint16(t.header[t.n-headerLen-udpLen+2:]) }

// V6 reports whether the outer header is IPv6.
func (t *Tunnel) V6() bool { return t.v6 }

// Peer is the index of the peer in its segment, NoPeer of a group: whose counters a frame belongs to.
func (t *Tunnel) Peer() uint16 { return t.peer }

// Overhead is Overhead4 or Overhead6.
func (t *Tunnel) Overhead() int { return int(t.n) + etherLen }

// Encap prepends the outer IP, UDP and VXLAN headers, 36 or 56 bytes, in f's headroom. f is an Ethernet frame without FCS from Start to
// End; if its Kind says that it is IP, L3 is where that begins. Afterwards L3 is the outer header, and f waits for its outer Ethernet
// header. entropy ([Entropy.Of]) picks the UDP source port, and the flow label of IPv6 (RFC 6438), so that one inner flow keeps one path
// through the underlay. ECN is copied, congestion experienced as well (RFC 6040 section 4.1, normal mode).
//
// It reports false and leaves f untouched when the headroom is too short, also for the outer Ethernet header.
func (t *Tunnel) Encap(f *packet.Frame, entropy uint32) bool {
	if int(f.Start) < int(t.n)+etherLen {
		return false
	}
	tos, ttl := t.inner(f)
	at := f.Start - t.n
	p := f.Chunk()[at:f.End]
	port := t.SourcePort(entropy)
	if t.v6 {
		t.put6(p, tos, ttl, port, entropy)
		f.Kind = packet.KindIPv6 | packet.KindOuter
		f.L4 = at + ipv6Len
	} else {
		t.put4(p, tos, ttl, port)
		f.Kind = packet.KindIPv4 | packet.KindOuter
		f.L4 = at + ipv4Len
	}
	f.Start, f.L3, f.L3End = at, at, f.End
	return true
}

// SourcePort is the UDP source port of a flow.
func (t *Tunnel) SourcePort(entropy uint32) uint16 {
	return t.first + uint16(uint64(entropy)*t.ports>>32)
}

// Prefix is what Encap prepends to a frame, for a caller who does that by himself: all but the lengths, the source port, the inner packet's ECN and
// the header's checksum. sum is that of the IPv4 header's words, not folded. It reports false of tunnels over IPv6, that make UDP checksums, or
// that inherit more than ECN.
func (t *Tunnel) Prefix() (h [Overhead4 - etherLen]byte, sum uint32, ok bool) {
	if t.v6 || t.checksum || t.inherit.dscp || t.inherit.ttl {
		return h, 0, false
	}
	copy(h[:], t.header[:])
	h[1], h[8] = t.tos, t.ttl
	return h, t.sum + uint32(t.tos) + uint32(t.ttl)<<8, true
}

// inner is what the outer header takes over of the inner packet, or the tunnel's own.
func (t *Tunnel) inner(f *packet.Frame) (tos, ttl uint8) {
	tos, ttl = t.tos, t.ttl
	var x, y uint8
	h := f.Chunk()[f.L3:]
	switch {
	case f.Kind&packet.KindIPv4 != 0:
		x, y = h[1], h[8]
	case f.Kind&packet.KindIPv6 != 0:
		x, y = h[0]<<4|h[1]>>4, h[7]
	default:
		return tos, ttl
	}
	if t.inherit.dscp {
		tos = x
	}
	if t.inherit.ttl {
		ttl = max(y, 1)
	}
	return tos&^ecnMask | x&ecnMask, ttl
}

func (t *Tunnel) put4(p []byte, tos, ttl uint8, port uint16) {
	h := p[:outer4]
	copy(h, t.header[:outer4])
	h[1], h[8] = tos, ttl
	binary.BigEndian.PutUint16(h[2:], uint16(len(p)))
	s := t.sum + uint32(tos) + uint32(ttl)<<8 + uint32(len(p))
	s = s>>16 + s&0xffff
	binary.BigEndian.PutUint16(h[10:], ^uint16(s>>16+s))
	binary.BigEndian.PutUint16(h[ipv4Len:], port)
	binary.BigEndian.PutUint16(h[ipv4Len+4:], uint16(len(p)-ipv4Len))
	if t.checksum {
		putChecksum(h[ipv4Len:], packet.TransportSum4([4]byte(h[12:]), [4]byte(h[16:]), packet.ProtoUDP, p[ipv4Len:]))
	}
}

func (t *Tunnel) put6(p []byte, tos, ttl uint8, port uint16, entropy uint32) {
	h := p[:outer6]
	copy(h, t.header[:])
	binary.BigEndian.PutUint32(h, 6<<28|uint32(tos)<<20|entropy&flowLabel)
	h[7] = ttl
	binary.BigEndian.PutUint16(h[4:], uint16(len(p)-ipv6Len))
	binary.BigEndian.PutUint16(h[ipv6Len:], port)
	binary.BigEndian.PutUint16(h[ipv6Len+4:], uint16(len(p)-ipv6Len))
	if t.checksum {
		putChecksum(h[ipv6Len:], packet.TransportSum6([16]byte(h[8:]), [16]byte(h[24:]), packet.ProtoUDP, p[ipv6Len:]))
	}
}

// putChecksum writes a UDP checksum. Zero would mean that there is none, so its other form is sent (RFC 768).
func putChecksum(udp []byte, sum uint16) {
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
}
