package packet

import "encoding/binary"

// MaxTCPOptions is the most bytes of options that a TCP header has room for (RFC 9293 section 3.1).
const MaxTCPOptions = 40

// Segment is a TCP segment without payload that is to be written: a SYN, a SYN+ACK, an ACK or a RST of our own.
type Segment struct {
	Src, Dst         [16]byte // of IPv4 the first four bytes
	V6               bool
	TOS              uint8 // or traffic class
	Flags            uint8
	SrcPort, DstPort uint16
	Seq, Ack         uint32
	Window           uint16
	OptionBytes      uint8 // of Options, 0 to MaxTCPOptions, a multiple of four
	Options          [MaxTCPOptions]byte
}

// Write writes the IP packet of s to b and returns its length, at most 100 bytes; 0 if b is too short. TTL or hop limit is 64, DF is set and the IP
// ID 0, as in a RST of the kernel's. b may be what s was read from.
func (s *Segment) Write(b []byte) int {
	front := ipv4Len
	if s.V6 {
		front = ipv6Len
	}
	n := front + tcpLen + int(s.OptionBytes)
	if len(b) < n || int(s.OptionBytes) > MaxTCPOptions {
		return 0
	}
	b = b[:n]
	t := b[front:]
	binary.BigEndian.PutUint16(t, s.SrcPort)
	binary.BigEndian.PutUint16(t[2:], s.DstPort)
	binary.BigEndian.PutUint32(t[4:], s.Seq)
	binary.BigEndian.PutUint32(t[8:], s.Ack)
	t[12], t[13] = (tcpLen+s.OptionBytes)/4<<4, s.Flags
	binary.BigEndian.PutUint16(t[14:], s.Window)
	binary.BigEndian.PutUint32(t[16:], 0) // checksum, urgent pointer
	copy(t[tcpLen:], s.Options[:s.OptionBytes])
	if s.V6 {
		header6(b, s.TOS, ProtoTCP, s.Src, s.Dst)
		binary.BigEndian.PutUint16(t[16:], TransportSum6(s.Src, s.Dst, ProtoTCP, t))
		return n
	}
	src, dst := [4]byte(s.Src[:4]), [4]byte(s.Dst[:4])
	header4(b, s.TOS, 0, flagDF, ProtoTCP, src, dst)
	binary.BigEndian.PutUint16(t[16:], TransportSum4(src, dst, ProtoTCP, t))
	return n
}
