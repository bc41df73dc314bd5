package pkttest

import (
	"encoding/binary"
	"fmt"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

var serialize = gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}

// Bytes is the IP packet.
func (p Packet) Bytes() []byte {
	body := p.payload
	if !p.raw {
		body = p.transport()
	}
	next := p.proto
	for i := len(p.extensions) - 1; i >= 0; i-- {
		x := p.extensions[i]
		body = append(append([]byte{next}, x.bytes[1:]...), body...)
		next = x.proto
	}
	var ip []byte
	if p.src.Is4() {
		ip = write(p.ipv4(), gopacket.Payload(body))
	} else {
		ip = write(p.ipv6(next), gopacket.Payload(body))
	}
	if p.badIPChecksum {
		ip[10] ^= 0x55
	}
	return ip
}

func (p Packet) ipv4() *layers.IPv4 {
	h := &layers.IPv4{Version: 4, TOS: p.tos, Id: p.id, TTL: p.ttl, Protocol: layers.IPProtocol(p.proto),
		FragOffset: uint16(p.offset / 8), SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice(), Options: ipOptions(p.options)}
	if p.df {
		h.Flags |= layers.IPv4DontFragment
	}
	if p.mf {
		h.Flags |= layers.IPv4MoreFragments
	}
	return h
}

func (p Packet) ipv6(next uint8) *layers.IPv6 {
	return &layers.IPv6{Version: 6, TrafficClass: p.tos, NextHeader: layers.IPProtocol(next), HopLimit: p.ttl,
		SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice()}
}

// transport is the transport header and the payload.
func (p Packet) transport() []byte {
	var network gopacket.NetworkLayer = p.ipv6(p.proto)
	if p.src.Is4() {
		network = p.ipv4()
	}
	payload := gopacket.Payload(p.payload)
	var b []byte
	var checksum int // its offset
	switch layers.IPProtocol(p.proto) {
	case layers.IPProtocolTCP:
		h := &layers.TCP{SrcPort: layers.TCPPort(p.sport), DstPort: layers.TCPPort(p.dport), Seq: p.seq, Ack: p.ack, Window: p.window,
			Options: tcpOptions(p.tcpOptions)}
		must(h.SetNetworkLayerForChecksum(network))
		h.FIN, h.SYN, h.RST, h.PSH = p.flags&fin != 0, p.flags&syn != 0, p.flags&rst != 0, p.flags&psh != 0
		h.ACK, h.URG, h.ECE, h.CWR = p.flags&ack != 0, p.flags&0x20 != 0, p.flags&0x40 != 0, p.flags&0x80 != 0
		b, checksum = write(h, payload), 16
	case layers.IPProtocolUDP:
		h := &layers.UDP{SrcPort: layers.UDPPort(p.sport), DstPort: layers.UDPPort(p.dport)}
		must(h.SetNetworkLayerForChecksum(network))
		b, checksum = write(h, payload), 6
		if p.noChecksum {
			clear(b[6:8])
		} else if b[6] == 0 && b[7] == 0 {
			b[6], b[7] = 0xff, 0xff // gopacket leaves zero, which means none (RFC 768)
		}
	case layers.IPProtocolSCTP:
		b = write(&layers.SCTP{SrcPort: layers.SCTPPort(p.sport), DstPort: layers.SCTPPort(p.dport), VerificationTag: p.vtag}, payload)
		checksum = 8
	case layers.IPProtocolICMPv4:
		b = write(&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(p.icmpType, p.icmpCode), Id: uint16(p.icmpRest >> 16),
			Seq: uint16(p.icmpRest)}, payload)
		checksum = 2
	case layers.IPProtocolICMPv6:
		h := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(p.icmpType, p.icmpCode)}
		must(h.SetNetworkLayerForChecksum(network))
		b, checksum = write(h, gopacket.Payload(binary.BigEndian.AppendUint32(nil, p.icmpRest)), payload), 2
	default:
		panic(fmt.Sprintf("pkttest: protocol %d has no header here; use IP", p.proto))
	}
	if p.badChecksum {
		b[checksum] ^= 0x55
	}
	return b
}

// Cut is the packet in fragments, cut before each of the byte offsets at of its payload, which must rise and be multiples of 8. With IPv6
// the payload begins behind the extension headers that a router reads: hop-by-hop and routing.
func (p Packet) Cut(id uint32, at ...int) [][]byte {
	body := p.payload
	if !p.raw {
		body = p.transport()
	}
	whole := p
	whole.raw = true
	if !p.src.Is4() {
		n := 0
		for n < len(p.extensions) && (p.extensions[n].proto == uint8(layers.IPProtocolIPv6HopByHop) ||
			p.extensions[n].proto == uint8(layers.IPProtocolIPv6Routing)) {
			n++
		}
		whole.extensions = p.extensions[:n:n]
		for i := len(p.extensions) - 1; i >= n; i-- {
			x := p.extensions[i]
			body = append(append([]byte{whole.proto}, x.bytes[1:]...), body...)
			whole.proto = x.proto
		}
	}
	var pieces [][]byte
	from := 0
	for _, to := range append(append([]int{}, at...), len(body)) {
		if to <= from || to > len(body) {
			panic(fmt.Sprintf("pkttest: cannot cut %d bytes at %v", len(body), at))
		}
		pieces = append(pieces, whole.Payload(body[from:to]).Fragment(id, from, to < len(body)).Bytes())
		from = to
	}
	return pieces
}

func write(l ...gopacket.SerializableLayer) []byte {
	buffer := gopacket.NewSerializeBuffer()
	must(gopacket.SerializeLayers(buffer, serialize, l...))
	return append([]byte{}, buffer.Bytes()...)
}

func must(err error) {
	if err != nil {
		panic("pkttest: " + err.Error())
	}
}

func ipOptions(b []byte) (list []layers.IPv4Option) {
	for _, o := range split(b) {
		x := layers.IPv4Option{OptionType: o[0], OptionLength: uint8(len(o))}
		if len(o) > 1 {
			x.OptionData = o[2:]
		}
		list = append(list, x)
	}
	return list
}

func tcpOptions(b []byte) (list []layers.TCPOption) {
	for _, o := range split(b) {
		x := layers.TCPOption{OptionType: layers.TCPOptionKind(o[0]), OptionLength: uint8(len(o))}
		if len(o) > 1 {
			x.OptionData = o[2:]
		}
		list = append(list, x)
	}
	return list
}

// split takes an option list of IPv4 or TCP apart; both have kinds 0 and 1 of one byte, and a length in all others.
func split(b []byte) (list [][]byte) {
	for len(b) > 0 {
		n := 1
		if b[0] > 1 {
			if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
				panic(fmt.Sprintf("pkttest: option list ends in % x", b))
			}
			n = int(b[1])
		}
		list = append(list, b[:n])
		b = b[n:]
	}
	return list
}
