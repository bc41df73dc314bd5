package bench

import (
	"encoding/binary"
	"math/bits"

	"weir/dataplane/packet"
)

// shape is a frame of one size with everything in it that no flow changes.
type shape struct {
	frame []byte
	ipSum uint64 // of the IPv4 header's words, folded; addresses and checksum are zero in frame
	l4Sum uint64 // of the transport's words and the pseudo header's

	attack    []word // in which every second frame differs
	attackSum uint64 // by how much that changes ipSum
}

// crafter makes the frames of a stream one after the other. Checksums are those of the shape plus what the flow and the stamp add, so
// that a frame of 1518 bytes costs a copy, not a sum.
type crafter struct {
	t        Traffic
	v4       bool
	l4       int
	base     struct{ srcHi, src, dstHi, dst uint64 }
	shapes   []shape
	schedule []uint8
	at       int // in schedule
	stream   uint8
	number   uint64 // of the next frame

	lane, lanes uint64 // of so many crafters, each with flows of its own, this is one
}

// newCrafter makes a crafter of complete traffic.
func newCrafter(t Traffic, stream uint8) *crafter {
	c := &crafter{t: t, v4: t.Src.First.Is4(), l4: t.l4(), schedule: t.Mix.schedule(), stream: stream, lanes: 1}
	c.base.srcHi, c.base.src = split(t.Src.First)
	c.base.dstHi, c.base.dst = split(t.Dst.First)
	for _, s := range t.Mix {
		c.shapes = append(c.shapes, c.shape(s.Bytes-fcs))
	}
	return c
}

func (c *crafter) shape(size int) shape {
	t := &c.t
	b := make([]byte, size)
	copy(b, t.DstMAC[:])
	copy(b[6:], t.SrcMAC[:])
	end := size
	if t.Kind != UDP {
		end = t.headers() // what follows is padding
	}
	s := shape{frame: b}
	length := end - c.l4
	if ip := b[14:]; c.v4 {
		binary.BigEndian.PutUint16(b[12:], packet.EtherTypeIPv4)
		ip[0] = 0x45
		binary.BigEndian.PutUint16(ip[2:], uint16(end-14))
		ip[6] = 0x40 // DF
		ip[8], ip[9] = t.TTL, t.protocol()
		s.ipSum = words(ip[:20])
	} else {
		binary.BigEndian.PutUint16(b[12:], packet.EtherTypeIPv6)
		ip[0] = 0x60
		binary.BigEndian.PutUint16(ip[4:], uint16(length))
		ip[6], ip[7] = t.protocol(), t.TTL
		binary.BigEndian.PutUint64(ip[8:], c.base.srcHi)
		binary.BigEndian.PutUint64(ip[24:], c.base.dstHi)
		s.l4Sum = words(ip[8:40])
	}
	l4 := b[c.l4:end]
	if t.Kind == UDP {
		binary.BigEndian.PutUint16(l4[4:], uint16(length))
	} else {
		l4[12], l4[13] = 5<<4, flagSYN
		binary.BigEndian.PutUint16(l4[14:], window)
	}
	s.l4Sum = uint64(fold(s.l4Sum + words(l4) + uint64(length) + uint64(t.protocol())))
	s.attack, s.attackSum = t.attack(b)
	return s
}

// next writes the next frame, due at when, to the front of b and returns its length.
func (c *crafter) next(b []byte, when int64) int {
	s := &c.shapes[c.schedule[c.at]]
	if c.at++; c.at == len(c.schedule) {
		c.at = 0
	}
	n := copy(b, s.frame)
	src, dst, sport, dport := c.t.flow(c.pick())
	src += c.base.src
	dst += c.base.dst
	sport += c.t.SrcPorts.First
	dport += c.t.DstPorts.First
	addrs := uint64(fold(src)) + uint64(fold(dst))
	if c.v4 {
		binary.BigEndian.PutUint32(b[26:], uint32(src))
		binary.BigEndian.PutUint32(b[30:], uint32(dst))
		binary.BigEndian.PutUint16(b[24:], ^fold(s.ipSum+addrs))
	} else {
		binary.BigEndian.PutUint64(b[30:], src)
		binary.BigEndian.PutUint64(b[46:], dst)
	}
	l4 := b[c.l4:n]
	binary.BigEndian.PutUint16(l4, sport)
	binary.BigEndian.PutUint16(l4[2:], dport)
	sum := s.l4Sum + addrs + uint64(sport) + uint64(dport)
	if c.t.Kind == UDP {
		putStamp(b[n-stampLen:n], c.stream, c.number, when)
		sum += stampMagic<<8 + uint64(c.stream) + uint64(fold(c.number)) + uint64(fold(uint64(when)))
		check := ^fold(sum)
		if check == 0 {
			check = 0xffff // RFC 768
		}
		binary.BigEndian.PutUint16(l4[6:], check)
	} else {
		tick := ticks(when)
		binary.BigEndian.PutUint32(l4[4:], tick)
		binary.BigEndian.PutUint16(l4[16:], ^fold(sum+uint64(tick)))
	}
	if s.attack != nil && c.number&1 != 0 {
		sum := s.ipSum + addrs + s.attackSum
		for i := range s.attack {
			w := &s.attack[i]
			v := w.of(c.number >> 1)
			binary.BigEndian.PutUint16(b[w.at:], v)
			if w.part != 0 && w.summed() {
				sum += uint64(v)
			}
		}
		binary.BigEndian.PutUint16(b[24:], ^fold(sum))
		b[n-stampLen] = attackMagic
	}
	c.number++
	return n
}

// pick is the flow of the next frame. A flow is one lane's alone, if there are as many flows as lanes: its frames stay in order and in one queue.
func (c *crafter) pick() uint64 {
	n := c.number
	if c.t.Attack != NoAttack {
		n /= 2 // both of a pair, so that the good ones come from all flows
	}
	if c.t.Shuffle {
		n = mix64(n)
	}
	if c.lanes == 1 {
		return n % c.t.Flows
	}
	share := max((c.t.Flows-min(c.lane, c.t.Flows)+c.lanes-1)/c.lanes, 1)
	return (n%share*c.lanes + c.lane) % c.t.Flows
}

// words is the sum of the 16-bit words of b, of which there is an even number of bytes.
func words(b []byte) (sum uint64) {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint64(binary.BigEndian.Uint16(b))
	}
	return sum
}

// fold is the one's complement sum of the four 16-bit words of s, and so the sum modulo 65535 of whatever was added up to s.
func fold(s uint64) uint16 {
	s += bits.RotateLeft64(s, 32)
	t := uint32(s >> 32)
	t += bits.RotateLeft32(t, 16)
	return uint16(t >> 16)
}
