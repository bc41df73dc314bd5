package pkttest

import (
	"net/netip"

	"github.com/google/gopacket/layers"
)

// Bits of the TCP flags.
const (
	fin = 0x01
	syn = 0x02
	rst = 0x04
	psh = 0x08
	ack = 0x10
)

// Types and codes of ICMP and ICMPv6 that the helpers below choose by family.
const (
	icmpUnreachable   = 3
	icmpTimeExceeded  = 11
	icmp6Unreachable  = 1
	icmp6TooBig       = 2
	icmp6TimeExceeded = 3
)

// SYN sets the flag.
func (p Packet) SYN() Packet { p.flags |= syn; return p }

// FIN sets the flag.
func (p Packet) FIN() Packet { p.flags |= fin; return p }

// RST sets the flag.
func (p Packet) RST() Packet { p.flags |= rst; return p }

// PSH sets the flag.
func (p Packet) PSH() Packet { p.flags |= psh; return p }

// Ack sets the flag and the acknowledgment number.
func (p Packet) Ack(n uint32) Packet { p.flags |= ack; p.ack = n; return p }

// Flags sets all eight TCP flags at once.
func (p Packet) Flags(f uint8) Packet { p.flags = f; return p }

// Seq sets the sequence number.
func (p Packet) Seq(n uint32) Packet { p.seq = n; return p }

// Window sets the TCP window, which is 65535 otherwise.
func (p Packet) Window(n uint16) Packet { p.window = n; return p }

// TCPOptions sets the TCP options, filled up to a multiple of four with end-of-list.
func (p Packet) TCPOptions(b ...byte) Packet { p.tcpOptions = b; return p }

// VTag sets the SCTP verification tag.
func (p Packet) VTag(n uint32) Packet { p.vtag = n; return p }

// Chunk adds an SCTP chunk, filled up to a multiple of four (RFC 9260 section 3.2).
func (p Packet) Chunk(typ, flags uint8, value []byte) Packet {
	n := 4 + len(value)
	b := append([]byte{}, p.payload...)
	b = append(b, typ, flags, byte(n>>8), byte(n))
	b = append(b, value...)
	p.payload = append(b, make([]byte, -n&3)...)
	return p
}

// ICMP is an ICMP or ICMPv6 message; rest are the four bytes behind the checksum.
func ICMP(src, dst netip.Addr, typ, code uint8, rest uint32) Packet {
	proto := layers.IPProtocolICMPv4
	if src.Is6() {
		proto = layers.IPProtocolICMPv6
	}
	p := between(netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0), proto)
	p.icmpType, p.icmpCode, p.icmpRest = typ, code, rest
	return p
}

// Echo is an echo request.
func Echo(src, dst netip.Addr, id, seq uint16) Packet {
	return ICMP(src, dst, family(src, layers.ICMPv4TypeEchoRequest, layers.ICMPv6TypeEchoRequest), 0, uint32(id)<<16|uint32(seq))
}

// EchoReply is an echo reply.
func EchoReply(src, dst netip.Addr, id, seq uint16) Packet {
	return ICMP(src, dst, family(src, layers.ICMPv4TypeEchoReply, layers.ICMPv6TypeEchoReply), 0, uint32(id)<<16|uint32(seq))
}

// ICMPError is an ICMP or ICMPv6 error that quotes the IP packet quoted, all of what is given.
func ICMPError(src, dst netip.Addr, typ, code uint8, rest uint32, quoted []byte) Packet {
	return ICMP(src, dst, typ, code, rest).Payload(quoted)
}

// ICMPTimeExceeded says that the TTL or hop limit of quoted was used up on the way.
func ICMPTimeExceeded(src, dst netip.Addr, quoted []byte) Packet {
	return ICMPError(src, dst, family(src, icmpTimeExceeded, icmp6TimeExceeded), 0, 0, quoted)
}

// ICMPPortUnreachable says that nobody listens at the port that quoted was sent to.
func ICMPPortUnreachable(src, dst netip.Addr, quoted []byte) Packet {
	return ICMPError(src, dst, family(src, icmpUnreachable, icmp6Unreachable), family(src, 3, 4), 0, quoted)
}

// ICMPTooBig says that quoted did not fit a link of this MTU: "fragmentation needed", or "packet too big" with IPv6.
func ICMPTooBig(src, dst netip.Addr, mtu uint32, quoted []byte) Packet {
	return ICMPError(src, dst, family(src, icmpUnreachable, icmp6TooBig), family(src, 4, 0), mtu, quoted)
}

func family(a netip.Addr, v4, v6 uint8) uint8 {
	if a.Is4() {
		return v4
	}
	return v6
}
