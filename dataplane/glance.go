package dataplane

import (
	"math/bits"

	"weir/conntrack"
	"weir/dataplane/packet"
)

// plain is all that lookup and express need to know of a frame that is nothing out of the ordinary: a whole TCP segment or UDP datagram in
// an IPv4 packet without options, or in an IPv6 packet without extension headers, that may go on.
type plain struct {
	at    uint64 // of its IP header in the pool
	size  uint16 // of its IP packet, in bytes; 0: the frame is not plain
	proto uint8
	event uint8 // byte 13 of the TCP header; of UDP zero
	known bool  // packet.Parse has seen the frame
	kind  plainKind
	home  segmentRef // whose gateway it came to, out of a tunnel
}

// plainKind is what a frame is that is not plain IPv4.
type plainKind uint8

const (
	plainIPv6  plainKind = 1 + iota // plain, of IPv6: its tuple is in asked
	plainOuter                      // a tunnel's, and size is 0: the IP header is the outer one
	plainGone                       // dropped before anybody has looked, and size is 0

	plainNotRest = 1 // the bit that those which are never for the stages at once have
)

// window is how many bytes around the beginning of a plain frame's IP packet are looked at: room for an Ethernet header with a tag, an IPv4
// header, and a TCP header up to its checksum.
const (
	windowFront = etherLen + 4
	windowBack  = ipv4Len + 18
	window      = windowFront + windowBack
)

// glance looks for plain frames, of which it leaves their tuples in the queries, by a few loads and compares; packet.Parse would say of each of
// them that it has KindIPv4 and KindTransport, no fault, and nothing else but perhaps KindBroadcast, which matters to answers only. It returns how
// many there are.
func (w *Worker) glance(records []plain, queries []conntrack.Query4, d []packet.Desc) (found int) {
	mem, chunk := w.pool.Memory(), uint64(w.pool.ChunkSize())
	var vteps []VTEP
	if w.snap.Overlay != nil {
		vteps = w.snap.Overlay.VTEPs
	}
	records = records[:len(d)]
	queries = queries[:len(records)]
	for i := range records {
		p, addr, n := &records[i], d[i].Addr, uint64(d[i].Len)
		*p = plain{}
		end := addr + etherLen + windowBack
		if end > uint64(len(mem)) || addr&(chunk-1) < windowFront-etherLen || addr&(chunk-1)+n > chunk || n < etherLen+ipv4Len+udpLen {
			continue
		}
		h := windowAt(mem, addr+etherLen)[windowFront-etherLen:]
		if le32(h[12:])&0xffffff != 0x45<<16|0x0008 { // Ethernet type 0x0800, header of 20 bytes
			continue
		}
		a, b, c := le64(h[14:]), le64(h[22:]), le32(h[30:])
		sum, carry := bits.Add64(a, b, 0)
		sum, carry = bits.Add64(sum, uint64(c), carry)
		sum += carry
		sum += bits.RotateLeft64(sum, 32)
		half := uint32(sum >> 32)
		half += bits.RotateLeft32(half, 16) // the sum of the header's words is above (see packet.Sum), 0xffff if the checksum is right
		size := uint64(bits.ReverseBytes16(uint16(a >> 16)))
		if half>>16 != 0xffff || a>>48&^0x40 != 0 || size > n-etherLen || uint8(b) <= 1 { // a fragment; cut off; TTL
			continue
		}
		proto := uint8(b >> 8)
		switch proto {
		case packet.ProtoTCP:
			p.event = h[47]
			if offset := uint64(h[46]>>4) * 4; size < ipv4Len+tcpLen || offset < tcpLen || offset > size-ipv4Len {
				continue
			}
		case packet.ProtoUDP:
			if tunnelled(vteps, h) {
				p.at, p.kind = addr+etherLen, plainOuter
				continue
			}
			if datagram := uint64(bits.ReverseBytes16(le16(h[38:]))); h[40]|h[41] == 0 || size < ipv4Len+udpLen || datagram < udpLen || datagram > size-ipv4Len {
				continue
			}
		default:
			continue
		}
		p.at, p.size, p.proto = addr+etherLen, uint16(size), proto
		q := &queries[i]
		q.Pair, q.Rest = be64(h[26:]), uint64(be32(h[34:]))<<32|uint64(proto)
		found++
	}
	return found
}

// tunnelled reports whether a frame goes to a UDP port of a VTEP of ours, so that decap must look at it.
func tunnelled(vteps []VTEP, frame []byte) bool {
	for i := range vteps {
		if vteps[i].Port == be16(frame[36:]) {
			return true
		}
	}
	return false
}

// note makes the record of a frame that packet.Parse has seen, after steering and decap, if it is plain.
func (w *Worker) note(p *plain, f *packet.Frame) {
	if f.Kind != packet.KindIPv4|packet.KindTransport || f.Proto != packet.ProtoTCP && f.Proto != packet.ProtoUDP || f.TTL <= 1 ||
		f.L3 < windowFront || int(f.L3)+windowBack > len(f.Chunk()) || f.Proto == packet.ProtoUDP && be16(f.Chunk()[f.L4+6:]) == 0 {
		return
	}
	*p = plain{at: f.Desc().Addr - uint64(f.Start) + uint64(f.L3), size: f.L3End - f.L3, proto: f.Proto, event: f.Flags, known: true}
}
