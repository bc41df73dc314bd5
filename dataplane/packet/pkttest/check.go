package pkttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"testing"
)

// Check fails the test, and describes the packet, if a length or a checksum of the IP packet is wrong: see [Verify].
func Check(t testing.TB, ip []byte) {
	t.Helper()
	if err := Verify(ip); err != nil {
		t.Errorf("%v\nin %s\n   % x", err, String(ip), ip)
	}
}

// Verify looks at all lengths and checksums of an IP packet that is as long as ip: those of IPv4, of TCP, UDP, SCTP, ICMP and ICMPv6, and of a packet
// inside of it (IPIP). The transport of fragments and of packets that an ICMP error quotes is not looked at. A UDP checksum of
// zero is right with IPv4, and with IPv6 to the ports of VXLAN (4789) and GUE (6080) (RFC 6935).
func Verify(ip []byte) error {
	v, err := look(ip)
	if err != nil {
		return err
	}
	if !v.v6 && plainSum(0, v.header) != 0xffff {
		return fmt.Errorf("IPv4 header checksum %#04x is wrong", binary.BigEndian.Uint16(v.header[10:]))
	}
	if v.fragment {
		return nil
	}
	b := v.body
	switch v.proto {
	case 6:
		if len(b) < 20 || b[12]>>4 < 5 || int(b[12]>>4)*4 > len(b) {
			return errors.New("TCP header is cut off or its data offset wrong")
		}
		return v.sum("TCP", 16)
	case 17:
		if len(b) < 8 || int(binary.BigEndian.Uint16(b[4:])) != len(b) {
			return errors.New("UDP length is not the IP payload's")
		}
		if binary.BigEndian.Uint16(b[6:]) == 0 {
			if port := binary.BigEndian.Uint16(b[2:]); v.v6 && port != 4789 && port != 6080 {
				return errors.New("UDP over IPv6 has no checksum")
			}
			return nil
		}
		return v.sum("UDP", 6)
	case 132:
		if len(b) < 12 {
			return errors.New("SCTP header is cut off")
		}
		zeroed := append([]byte{}, b...)
		clear(zeroed[8:12])
		got, want := binary.LittleEndian.Uint32(b[8:]), crc32.Checksum(zeroed, crc32.MakeTable(crc32.Castagnoli))
		if got != want {
			return fmt.Errorf("SCTP checksum %#08x is wrong, must be %#08x", got, want)
		}
	case 1, 58:
		if len(b) < 8 {
			return errors.New("ICMP header is cut off")
		}
		if v.proto == 58 {
			return v.sum("ICMPv6", 2)
		}
		if plainSum(0, b) != 0xffff {
			return fmt.Errorf("ICMP checksum %#04x is wrong", binary.BigEndian.Uint16(b[2:]))
		}
	case 4, 41:
		if err := Verify(b); err != nil {
			return fmt.Errorf("inner packet: %w", err)
		}
	}
	return nil
}

// Seal writes the header checksum of an IPv4 packet whose header a test has changed, and returns the packet.
func Seal(ip []byte) []byte {
	h := ip[:min(int(ip[0]&0xf)*4, len(ip))]
	clear(h[10:12])
	binary.BigEndian.PutUint16(h[10:], ^plainSum(0, h))
	return ip
}

// sum verifies the transport checksum, which lies at offset at.
func (v view) sum(name string, at int) error {
	pseudo := append(v.src.AsSlice(), v.dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(v.body)))
	pseudo = append(pseudo, 0, 0, 0, v.proto)
	if plainSum(plainSum(0, pseudo), v.body) != 0xffff {
		return fmt.Errorf("%s checksum %#04x is wrong", name, binary.BigEndian.Uint16(v.body[at:]))
	}
	return nil
}

// plainSum is the one's complement sum of s and the 16-bit words of b, as plainly as RFC 1071 section 1 has it.
func plainSum(s uint16, b []byte) uint16 {
	sum := uint32(s)
	for i, c := range b {
		if i%2 == 0 {
			sum += uint32(c) << 8
		} else {
			sum += uint32(c)
		}
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// view is an IP packet taken apart.
type view struct {
	v6       bool
	src, dst netip.Addr
	ttl, tos uint8
	proto    uint8
	header   []byte // of IPv4 with its options, of IPv6 with its extension headers
	body     []byte // what follows: the transport header, or the payload of a later fragment
	fragment bool
	more     bool
	df       bool
	offset   int
	id       uint32
}

// look takes ip apart; the lengths in it must agree with its own.
func look(ip []byte) (v view, err error) {
	if len(ip) == 0 {
		return v, errors.New("empty packet")
	}
	switch ip[0] >> 4 {
	case 4:
		return look4(ip)
	case 6:
		return look6(ip)
	}
	return v, fmt.Errorf("IP version %d", ip[0]>>4)
}

func look4(ip []byte) (v view, err error) {
	if len(ip) < 20 {
		return v, fmt.Errorf("IPv4 packet of %d bytes", len(ip))
	}
	n := int(ip[0]&0xf) * 4
	if n < 20 || n > len(ip) {
		return v, fmt.Errorf("IPv4 header length %d of %d bytes", n, len(ip))
	}
	if total := int(binary.BigEndian.Uint16(ip[2:])); total != len(ip) {
		return v, fmt.Errorf("IPv4 total length %d, the packet has %d bytes", total, len(ip))
	}
	word := int(binary.BigEndian.Uint16(ip[6:]))
	v = view{src: netip.AddrFrom4([4]byte(ip[12:16])), dst: netip.AddrFrom4([4]byte(ip[16:20])), ttl: ip[8], tos: ip[1], proto: ip[9],
		header: ip[:n], body: ip[n:], df: word&0x4000 != 0, more: word&0x2000 != 0, offset: word & 0x1fff * 8,
		id: uint32(binary.BigEndian.Uint16(ip[4:]))}
	v.fragment = v.more || v.offset != 0
	return v, nil
}

func look6(ip []byte) (v view, err error) {
	if len(ip) < 40 {
		return v, fmt.Errorf("IPv6 packet of %d bytes", len(ip))
	}
	if n := int(binary.BigEndian.Uint16(ip[4:])); n != len(ip)-40 {
		return v, fmt.Errorf("IPv6 payload length %d, the payload has %d bytes", n, len(ip)-40)
	}
	v = view{v6: true, src: netip.AddrFrom16([16]byte(ip[8:24])), dst: netip.AddrFrom16([16]byte(ip[24:40])), ttl: ip[7],
		tos: ip[0]<<4 | ip[1]>>4, proto: ip[6], header: ip[:40], body: ip[40:]}
	for {
		size := 0
		switch v.proto {
		case 0, 43, 60:
			if len(v.body) > 1 {
				size = 8 + 8*int(v.body[1])
			}
		case 51:
			if len(v.body) > 1 {
				size = 8 + 4*int(v.body[1])
			}
		case 44:
			if size = 8; len(v.body) >= size {
				word := int(binary.BigEndian.Uint16(v.body[2:]))
				v.more, v.offset, v.id = word&1 != 0, word&^7, binary.BigEndian.Uint32(v.body[4:])
				v.fragment = v.more || v.offset != 0
			}
		default:
			return v, nil
		}
		if size == 0 || size > len(v.body) {
			return v, fmt.Errorf("IPv6 extension header %d is cut off", v.proto)
		}
		v.proto, v.header, v.body = v.body[0], ip[:len(v.header)+size], v.body[size:]
		if v.offset != 0 {
			return v, nil
		}
	}
}
