package dataplane

import (
	"math/bits"

	"weir/conntrack"
	"weir/dataplane/packet"
)

// window6 is how many bytes around the beginning of a plain IPv6 packet are looked at: as window, with an IPv6 header.
const (
	windowBack6 = ipv6Len + 18
	window6     = windowFront + windowBack6
)

// glance6 looks whether frame i is a plain one of IPv6, and leaves its tuple among the questions if so: a whole TCP segment or UDP datagram right
// behind the IPv6 header, that may go on. packet.Parse would say of it that it has KindIPv6 and KindTransport, no fault, and nothing else but perhaps
// KindBroadcast.
func (w *Worker) glance6(v *vector, i int) bool {
	mem, chunk := w.pool.Memory(), uint64(w.pool.ChunkSize())
	p, addr, n := &v.plain[i], v.descs[i].Addr, uint64(v.descs[i].Len)
	end := addr + etherLen + windowBack6
	if end > uint64(len(mem)) || addr&(chunk-1) < windowFront-etherLen || addr&(chunk-1)+n > chunk || n < etherLen+ipv6Len+udpLen {
		return false
	}
	h := windowAt6(mem, addr+etherLen)[windowFront-etherLen:]
	if le16(h[12:]) != 0xdd86 || h[14]>>4 != 6 || h[21] <= 1 { // Ethernet type 0x86dd, hop limit
		return false
	}
	l4 := uint64(bits.ReverseBytes16(le16(h[18:]))) // of the segment or datagram, in bytes
	if l4 > n-etherLen-ipv6Len {
		return false
	}
	event := uint8(0)
	switch proto := h[20]; proto {
	case packet.ProtoTCP:
		event = h[67]
		if offset := uint64(h[66]>>4) * 4; l4 < tcpLen || offset < tcpLen || offset > l4 {
			return false
		}
	case packet.ProtoUDP:
		if o := w.snap.Overlay; o != nil && tunnelled(o.VTEPs, h[20:]) {
			return false
		}
		if datagram := uint64(bits.ReverseBytes16(le16(h[58:]))); h[60]|h[61] == 0 || l4 < udpLen || datagram < udpLen || datagram > l4 {
			return false
		}
	default:
		return false
	}
	*p = plain{at: addr + etherLen, size: uint16(l4 + ipv6Len), proto: h[20], event: event, kind: plainIPv6}
	v.narrow[i].Rest, v.narrow[i].Ref = 0, 0 // no question of IPv4
	v.asked[uint8(v.six.n)].Tuple = conntrack.Tuple{
		Src: conntrack.Addr{Hi: be64(h[22:]), Lo: be64(h[30:])}, Dst: conntrack.Addr{Hi: be64(h[38:]), Lo: be64(h[46:])},
		Ports: be32(h[54:]), Space: uint32(h[20]), V6: true,
	}
	v.six.add(i)
	return true
}
