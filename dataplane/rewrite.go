package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// rewrite turns each packet into what its connection's entry says: addresses, ports, one less of TTL, and the checksums by difference
// (RFC 1624). A wrong checksum stays wrong, so the receiver still sees that the packet was damaged.
func (w *Worker) rewrite(v *vector) {
	for _, k := range v.rest.all() {
		i := int(k)
		l := &v.lanes[i]
		if l.verdict != Pending {
			continue
		}
		f := &v.frames[i]
		if l.into|l.segment != 0 {
			w.clamp(f, l)
		}
		if l.flags.forward() != ForwardNAT {
			age(f)
			continue
		}
		if l.ref == 0 {
			rewriteTail(f, &v.tails[i])
			continue
		}
		if f.Kind&packet.KindICMPError != 0 {
			w.rewriteError(f, l.ref)
			continue
		}
		if l.ref.V6() {
			rewrite6(f, w.table.Entry6(l.ref))
		} else {
			if f.Kind&packet.KindOptions != 0 {
				w.recordRoute(v, i)
			}
			rewrite4(f, w.table.Entry4(l.ref))
		}
		if l.flags&flagSpliced != 0 {
			w.resequence(f, l.ref)
		}
		if l.flags&flagTOA != 0 {
			w.addTOA(f, l)
		}
	}
}

// age takes one off the TTL or hop limit of a packet that otherwise goes on as it came.
func age(f *packet.Frame) {
	h := f.Chunk()[f.L3:]
	if f.Kind&packet.KindIPv6 != 0 {
		h[7]--
		return
	}
	h[8]--
	put16(h[10:], packet.Update16(be16(h[10:]), 0x0100, 0))
}

func rewrite4(f *packet.Frame, e *conntrack.Entry4) {
	b := f.Chunk()
	h := b[f.L3:][:20]
	put32(h[12:], e.NewSrc)
	put32(h[16:], e.NewDst)
	h[8]--
	sum := packet.ApplyDelta(be16(h[10:]), packet.Diff16(e.DeltaL3, 0x0100, 0)) // the word of TTL and protocol is 0x0100 less
	put16(h[10:], sum)
	rewritePorts(b[f.L4:f.L3End], f.Proto, e.NewPorts, e.DeltaL4)
	if f.Proto == packet.ProtoUDP && be16(b[f.L4+6:]) == 0 && f.Kind&packet.KindFirstFragment == 0 {
		udp := datagram(f)
		fillUDP(udp, packet.TransportSum4([4]byte(h[12:16]), [4]byte(h[16:20]), packet.ProtoUDP, udp))
	}
}

func rewrite6(f *packet.Frame, e *conntrack.Entry6) {
	b := f.Chunk()
	h := b[f.L3:][:40]
	put64(h[8:], e.NewSrc.Hi)
	put64(h[16:], e.NewSrc.Lo)
	put64(h[24:], e.NewDst.Hi)
	put64(h[32:], e.NewDst.Lo)
	h[7]--
	rewritePorts(b[f.L4:f.L3End], f.Proto, e.NewPorts, e.DeltaL4)
	if f.Proto == packet.ProtoUDP && be16(b[f.L4+6:]) == 0 && f.Kind&packet.KindFirstFragment == 0 {
		udp := datagram(f)
		fillUDP(udp, packet.TransportSum6([16]byte(h[8:24]), [16]byte(h[24:40]), packet.ProtoUDP, udp))
	}
}

// rewritePorts writes the ports and corrects the checksum of a TCP or UDP header for new addresses and ports.
func rewritePorts(l4 []byte, proto uint8, ports uint32, delta uint16) {
	switch proto {
	case packet.ProtoTCP:
		put32(l4, ports)
		put16(l4[16:], packet.ApplyDelta(be16(l4[16:]), delta))
		return
	case packet.ProtoUDP:
		put32(l4, ports)
	case packet.ProtoSCTP:
		packet.TranslateSCTP(l4, ports)
		return
	default:
		return // ESP and AH have neither
	}
	if sum := be16(l4[6:]); sum != 0 {
		if sum = packet.ApplyDelta(sum, delta); sum == 0 {
			sum = 0xffff // zero means "no checksum" (RFC 768)
		}
		put16(l4[6:], sum)
	}
}

// datagram is the UDP datagram in f by its own length field, which parse has found to lie within the packet.
func datagram(f *packet.Frame) []byte {
	udp := f.Chunk()[f.L4:f.L3End]
	return udp[:be16(udp[4:])]
}

// fillUDP gives a datagram that came without a checksum one, as kernel IPVS does when it translates.
func fillUDP(udp []byte, sum uint16) {
	if sum == 0 {
		sum = 0xffff
	}
	put16(udp[6:], sum)
}

// optionRecordRoute is the IPv4 option that gathers the addresses of routers (RFC 791 3.1).
const optionRecordRoute = 7

// recordRoute enters us into a packet's record route option, as RFC 1812 5.2.4 demands: with the address it was sent to on its way to a server,
// with the address of the port it leaves by on its way back, as the kernel does. Timestamps are left as they are. parse has found the
// options sound.
func (w *Worker) recordRoute(v *vector, i int) {
	f, l := &v.frames[i], &v.lanes[i]
	h := f.Chunk()[f.L3:f.L4]
	for o := h[20:]; len(o) > 2 && o[0] != 0; {
		if o[0] == 1 { // no operation
			o = o[1:]
			continue
		}
		n := int(o[1])
		if n < 2 || n > len(o) {
			return
		}
		if at := int(o[2]); o[0] == optionRecordRoute && at >= 4 && at+3 <= n {
			addr := conntrack.Addr{Lo: uint64(be32(h[16:]))}
			if l.ref.Reply() {
				var ok bool
				if addr, ok = w.speaker(int(l.out), l.hop, conntrack.Addr{}, false); !ok {
					return
				}
			}
			put32(o[at-1:], uint32(addr.Lo))
			o[2] += 4
			fillHeader4(h)
			return
		}
		o = o[n:]
	}
}
