package bench

import (
	"encoding/binary"

	"weir/dataplane/packet"
)

// TCP flags.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)

const window = 65535

// segment is a TCP segment in a frame: where its headers are, and what a peer without state needs to know.
type segment struct {
	l4       int
	v4       bool
	flags    uint8
	seq, ack uint32
	payload  uint32 // bytes
}

// parseSegment finds a TCP segment in an untagged frame without fragments, IPv4 options and IPv6 extension headers.
func parseSegment(b []byte) (s segment, ok bool) {
	if len(b) < 14+20+20 {
		return s, false
	}
	end := 0
	switch binary.BigEndian.Uint16(b[12:]) {
	case packet.EtherTypeIPv4:
		if b[14] != 0x45 || b[23] != packet.ProtoTCP || binary.BigEndian.Uint16(b[20:])&0x3fff != 0 {
			return s, false
		}
		s.v4, s.l4, end = true, 34, 14+int(binary.BigEndian.Uint16(b[16:]))
	case packet.EtherTypeIPv6:
		if b[20] != packet.ProtoTCP {
			return s, false
		}
		s.l4, end = 54, 54+int(binary.BigEndian.Uint16(b[18:]))
	default:
		return s, false
	}
	if end > len(b) || s.l4+20 > end {
		return s, false
	}
	tcp := b[s.l4:end]
	offset := int(tcp[12]>>4) * 4
	if offset < 20 || offset > len(tcp) {
		return s, false
	}
	s.seq, s.ack, s.flags = binary.BigEndian.Uint32(tcp[4:]), binary.BigEndian.Uint32(tcp[8:]), tcp[13]
	s.payload = uint32(len(tcp) - offset)
	return s, true
}

// answer turns the frame b around: it becomes a segment without options or payload from its receiver to its sender. It returns the
// frame's new length, which is not more than it was.
func (s segment) answer(b []byte, flags uint8, seq, ack uint32) int {
	swap(b[0:6], b[6:12])
	tcp := b[s.l4 : s.l4+20]
	swap(tcp[0:2], tcp[2:4])
	binary.BigEndian.PutUint32(tcp[4:], seq)
	binary.BigEndian.PutUint32(tcp[8:], ack)
	tcp[12], tcp[13] = 5<<4, flags
	binary.BigEndian.PutUint16(tcp[14:], window)
	binary.BigEndian.PutUint32(tcp[16:], 0)
	if s.v4 {
		swap(b[26:30], b[30:34])
		binary.BigEndian.PutUint16(b[16:], 40)
		b[22] = 64
		binary.BigEndian.PutUint16(b[24:], 0)
		binary.BigEndian.PutUint16(b[24:], packet.Sum(b[14:34]))
		binary.BigEndian.PutUint16(tcp[16:], packet.TransportSum4([4]byte(b[26:30]), [4]byte(b[30:34]), packet.ProtoTCP, tcp))
	} else {
		swap(b[22:38], b[38:54])
		binary.BigEndian.PutUint16(b[18:], 20)
		b[21] = 64
		binary.BigEndian.PutUint16(tcp[16:], packet.TransportSum6([16]byte(b[22:38]), [16]byte(b[38:54]), packet.ProtoTCP, tcp))
	}
	n := s.l4 + 20
	for ; n < min(60, len(b)); n++ {
		b[n] = 0 // padding
	}
	return n
}

func swap(a, b []byte) {
	for i := range a {
		a[i], b[i] = b[i], a[i]
	}
}

// An opener and an acceptor go on with a connection by what a segment says alone. The opener's sequence number is the time of its SYN, so
// that the answer to it tells how long it took:
//
//	opener    SYN seq=t          ACK seq=ack  FIN|ACK seq=ack              ACK seq=ack
//	            \                /  /                       \              /
//	acceptor     SYN|ACK ack=t+1                             FIN|ACK ack=seq+1

// tcpCounters of one port.
type tcpCounters struct {
	accepted    uint64 // SYNs answered or, by a port that answers none, seen
	established uint64 // answers to our SYNs
	closed      uint64 // by both sides
	resets      uint64
}

// open goes on with a connection of ours. It says what to send: up to two segments, by their flags; all have the sequence
// number seg.ack and acknowledge ack. took is how long the handshake took, or negative.
func (c *tcpCounters) open(s segment, now int64) (first, second uint8, ack uint32, took int64) {
	switch {
	case s.flags&flagRST != 0:
		c.resets++
	case s.flags&(flagSYN|flagACK) == flagSYN|flagACK:
		c.established++
		return flagACK, flagFIN | flagACK, s.seq + 1, since(now, s.ack-1)
	case s.flags&flagFIN != 0:
		c.closed++
		return flagACK, 0, s.seq + s.payload + 1, -1
	case s.payload > 0:
		return flagACK, 0, s.seq + s.payload, -1
	}
	return 0, 0, 0, -1
}

// accept goes on with a connection to us, likewise.
func (c *tcpCounters) accept(s segment) (flags uint8, seq, ack uint32) {
	switch {
	case s.flags&flagRST != 0:
		c.resets++
	case s.flags&(flagSYN|flagACK) == flagSYN:
		c.accepted++
		return flagSYN | flagACK, uint32(mix64(uint64(s.seq))), s.seq + 1
	case s.flags&flagFIN != 0:
		return flagFIN | flagACK, s.ack, s.seq + s.payload + 1
	case s.payload > 0:
		return flagACK, s.ack, s.seq + s.payload
	}
	return 0, 0, 0
}
