// Package pkttest writes packets in tests the way one says them, and judges packets that came out.
//
//	pkttest.TCP(client, vip).SYN().Seq(1).TTL(63).Payload(data).Bytes()
//
// is an IP packet with every length and checksum right; the addresses decide the family. [Packet.Frame] puts it into an Ethernet frame.
// A Packet is a value: each method returns a changed copy, so that a table can share a beginning. What a test cannot have meant (an address
// of either family, an option list that does not parse) panics, with a message that says so.
//
// [Check] and [Verify] look at every length and checksum of a packet, [String] describes it in one line. Nothing here uses package packet,
// so it can judge that one: the bytes are made by gopacket, and checked with plain sums.
package pkttest

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/gopacket/layers"
)

// Packet is a packet to be: see the package comment.
type Packet struct {
	src, dst     netip.Addr
	sport, dport uint16
	proto        uint8 // layers.IPProtocol of the transport header, or of the raw payload
	raw          bool  // no transport header, the payload follows the IP header
	payload      []byte

	ttl, tos      uint8
	id            uint16
	df, mf        bool
	offset        int // of an IPv4 fragment, in bytes
	options       []byte
	extensions    []extension
	badIPChecksum bool

	seq, ack    uint32
	flags       uint8
	window      uint16
	tcpOptions  []byte
	vtag        uint32
	icmpType    uint8
	icmpCode    uint8
	icmpRest    uint32 // the four bytes behind the checksum
	noChecksum  bool
	badChecksum bool

	vlans []uint16
}

// extension is an IPv6 extension header; its first byte, the next header, is filled in when the packet is made.
type extension struct {
	proto uint8
	bytes []byte
}

// TCP is a TCP segment without flags, of sequence number 0 and window 65535.
func TCP(src, dst netip.AddrPort) Packet {
	p := between(src, dst, layers.IPProtocolTCP)
	p.window = 65535
	return p
}

// UDP is an empty UDP datagram.
func UDP(src, dst netip.AddrPort) Packet { return between(src, dst, layers.IPProtocolUDP) }

// SCTP is an SCTP packet without chunks, of verification tag 0.
func SCTP(src, dst netip.AddrPort) Packet { return between(src, dst, layers.IPProtocolSCTP) }

// IP is a packet of any protocol whose payload follows the IP header.
func IP(src, dst netip.Addr, proto uint8, payload []byte) Packet {
	p := between(netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0), layers.IPProtocol(proto))
	p.raw, p.payload = true, payload
	return p
}

func between(src, dst netip.AddrPort, proto layers.IPProtocol) Packet {
	if !src.Addr().IsValid() || src.Addr().Is4() != dst.Addr().Is4() {
		panic(fmt.Sprintf("pkttest: %v and %v are not of one family", src, dst))
	}
	return Packet{src: src.Addr(), dst: dst.Addr(), sport: src.Port(), dport: dst.Port(), proto: uint8(proto), ttl: 64}
}

// Payload puts b behind the transport header.
func (p Packet) Payload(b []byte) Packet { p.payload = b; return p }

// Size makes the IP packet n bytes long with a payload that counts 0, 1, 2, ... in its low byte.
func (p Packet) Size(n int) Packet {
	p.payload = nil
	if n -= len(p.Bytes()); n < 0 {
		panic(fmt.Sprintf("pkttest: the headers alone are %d bytes longer", -n))
	}
	for i := range n {
		p.payload = append(p.payload, byte(i))
	}
	return p
}

// TTL sets TTL or hop limit, which is 64 otherwise.
func (p Packet) TTL(n uint8) Packet { p.ttl = n; return p }

// TOS sets TOS or traffic class.
func (p Packet) TOS(n uint8) Packet { p.tos = n; return p }

// ID sets the IPv4 identification.
func (p Packet) ID(n uint16) Packet { p.id = n; return p }

// DF sets the IPv4 bit "don't fragment".
func (p Packet) DF() Packet { p.df = true; return p }

// Options sets the IPv4 options, filled up to a multiple of four with end-of-list.
func (p Packet) Options(b ...byte) Packet { p.options = b; return p }

// Fragment makes the packet look like a fragment that begins at offset bytes; more says if it is not the last. With IPv6 a fragment header
// stands where the calls have it among the extension headers. See [Packet.Cut] for all fragments of a packet.
func (p Packet) Fragment(id uint32, offset int, more bool) Packet {
	if offset%8 != 0 {
		panic(fmt.Sprintf("pkttest: fragment offset %d is not a multiple of 8", offset))
	}
	if p.src.Is4() {
		p.id, p.offset, p.mf = uint16(id), offset, more
		return p
	}
	m := byte(0)
	if more {
		m = 1
	}
	return p.extend(layers.IPProtocolIPv6Fragment, 0, 0, byte(offset>>8), byte(offset)|m, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

// HopByHop adds an IPv6 hop-by-hop header with padding in it.
func (p Packet) HopByHop() Packet {
	return p.extend(layers.IPProtocolIPv6HopByHop, 0, 0, 1, 4, 0, 0, 0, 0)
}

// DestOptions adds an IPv6 destination options header with padding in it, 16 bytes.
func (p Packet) DestOptions() Packet {
	return p.extend(layers.IPProtocolIPv6Destination, 0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}

// Routing adds an IPv6 routing header of type 0 with room for one address and this many segments left.
func (p Packet) Routing(segmentsLeft uint8) Packet {
	return p.extend(layers.IPProtocolIPv6Routing, append([]byte{0, 2, 0, segmentsLeft}, make([]byte, 20)...)...)
}

// AH adds an authentication header with an integrity check value of 12 bytes, which nobody verifies.
func (p Packet) AH() Packet {
	return p.extend(layers.IPProtocolAH, append([]byte{0, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, make([]byte, 12)...)...)
}

func (p Packet) extend(proto layers.IPProtocol, b ...byte) Packet {
	if p.src.Is4() {
		panic("pkttest: IPv4 has no extension headers")
	}
	p.extensions = append(slices.Clip(p.extensions), extension{uint8(proto), b})
	return p
}

// BadIPChecksum makes the IPv4 header checksum wrong.
func (p Packet) BadIPChecksum() Packet { p.badIPChecksum = true; return p }

// BadChecksum makes the transport checksum wrong.
func (p Packet) BadChecksum() Packet { p.badChecksum = true; return p }

// NoChecksum sends UDP with a checksum of zero, that is none.
func (p Packet) NoChecksum() Packet { p.noChecksum = true; return p }
