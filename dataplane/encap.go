package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// encap puts an outer header in front of what goes through a tunnel, as kernel IPVS does (ip_vs_tunnel_xmit): TTL or hop limit, DSCP and
// DF are the inner packet's, ECN is carried over as RFC 3168 9.1.1 has it, and the source is our address on the way to the server.
//
//	Ethernet | IP | TCP            Ethernet | IP | (UDP GUE, or GRE) | IP | TCP
//
// From here on the frame is the outer packet: its family is the server's.
func (w *Worker) encap(v *vector) {
	if !v.tunnels {
		return
	}
	for _, k := range v.rest.all() {
		i := int(k)
		l := &v.lanes[i]
		if l.verdict != Pending || !l.flags.forward().tunnels() {
			continue
		}
		f := &v.frames[i]
		b := w.backend(l.backend)
		src, ok := w.speaker(int(l.out), b.Addr, conntrack.Addr{}, b.V6)
		if !ok {
			l.discard(DropNoRoute)
			continue
		}
		w.prepend(f, l.flags, src, b.Addr, b.V6)
	}
}

// inner is what an outer header takes over from the packet that it carries.
type inner struct {
	tos, ttl uint8
	df       bool
	v6       bool
}

func innerOf(f *packet.Frame) (x inner) {
	h := f.Chunk()[f.L3:]
	if f.Kind&packet.KindIPv6 != 0 {
		return inner{tos: h[0]<<4 | h[1]>>4, ttl: h[7], v6: true}
	}
	return inner{tos: h[1], ttl: h[8], df: be16(h[6:])&dontFragment != 0}
}

const (
	ecnMask = 3
	ecnECT0 = 2
	ecnCE   = 3
)

// outerTOS is the inner TOS or traffic class with congestion experienced turned into ECT(0): the mark stays on the inner header, and the
// tunnel's own congestion gets a clean slate.
func outerTOS(tos uint8) uint8 {
	if tos&ecnMask == ecnCE {
		return tos&^ecnMask | ecnECT0
	}
	return tos
}

// prepend writes the outer header of a packet to dst in front of f. The headroom always has room: it is 256 bytes (packet.Headroom).
func (w *Worker) prepend(f *packet.Frame, flags connFlags, src, dst conntrack.Addr, v6 bool) {
	x := innerOf(f)
	from, to := addresses(f, f.L3)
	entropy := mix(from.Hi^to.Lo, from.Lo^to.Hi, uint64(f.SrcPort)<<16|uint64(f.DstPort))
	at := f.L3 - uint16(flags.overhead(v6))
	p := f.Chunk()[at:f.L3End]
	if v6 {
		put32(p, 6<<28|uint32(outerTOS(x.tos))<<20)
		put16(p[4:], uint16(len(p)-ipv6Len))
		p[6], p[7] = flags.protocol(x.v6), x.ttl
		put64(p[8:], src.Hi)
		put64(p[16:], src.Lo)
		put64(p[24:], dst.Hi)
		put64(p[32:], dst.Lo)
	} else {
		p[0], p[1] = 4<<4|ipv4Len/4, outerTOS(x.tos)
		put16(p[2:], uint16(len(p)))
		put32(p[4:], dontFragment) // atomic datagrams need no identification (RFC 6864 4.1)
		if !x.df {
			put32(p[4:], uint32(w.identification())<<16)
		}
		p[8], p[9] = x.ttl, flags.protocol(x.v6)
		put32(p[12:], uint32(src.Lo))
		put32(p[16:], uint32(dst.Lo))
		fillHeader4(p)
	}
	switch flags.forward() {
	case ForwardGUE:
		fillGUE(p, flags, v6, x.v6, entropy)
	case ForwardGRE:
		fillGRE(p, flags, v6, x.v6)
	}
	f.Kind = packet.KindIPv4 | packet.KindOuter
	if v6 {
		f.Kind = packet.KindIPv6 | packet.KindOuter
	}
	f.L3 = at
}

// fillGUE writes the UDP and GUE headers of the outer packet p: variant 0, no options (draft-ietf-intarea-gue 3.1). The source port is
// of the flow, so that one connection keeps one path; the checksum is zero unless asked for, as the kernel's.
//
//	0       2      3         8              16                31
//	|variant|C|hlen| protocol |            flags               |
func fillGUE(p []byte, flags connFlags, v6, innerV6 bool, entropy uint64) {
	udp := p[ipv4Len:]
	if v6 {
		udp = p[ipv6Len:]
	}
	put16(udp, 0xc000|uint16(entropy)&0x3fff) // 49152 to 65535 (RFC 6335)
	put16(udp[2:], flags.tunnelPort())
	put16(udp[4:], uint16(len(udp)))
	put16(udp[6:], 0)
	put32(udp[8:], packet.ProtoIPIP<<16)
	if innerV6 {
		put32(udp[8:], packet.ProtoIPv6<<16)
	}
	switch {
	case flags&flagTunnelSum == 0:
	case v6:
		fillUDP(udp, packet.TransportSum6([16]byte(p[8:24]), [16]byte(p[24:40]), packet.ProtoUDP, udp))
	default:
		fillUDP(udp, packet.TransportSum4([4]byte(p[12:16]), [4]byte(p[16:20]), packet.ProtoUDP, udp))
	}
}

const greChecksum = 0x8000 // the C bit of a GRE header (RFC 2784 2.1)

// fillGRE writes the GRE header of the outer packet p.
func fillGRE(p []byte, flags connFlags, v6, innerV6 bool) {
	gre := p[ipv4Len:]
	if v6 {
		gre = p[ipv6Len:]
	}
	put32(gre, packet.EtherTypeIPv4)
	if innerV6 {
		put32(gre, packet.EtherTypeIPv6)
	}
	if flags&flagTunnelSum != 0 {
		put16(gre, greChecksum)
		put32(gre[4:], 0)
		put16(gre[4:], packet.Sum(gre))
	}
}
