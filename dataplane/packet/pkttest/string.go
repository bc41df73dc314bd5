package pkttest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// String describes an IP packet in one line, as tcpdump would: addresses, protocol, ports, flags, TTL, length. It takes any bytes.
func String(ip []byte) string {
	v, err := look(ip)
	if err != nil {
		return fmt.Sprintf("%d bytes that are no IP packet: %v", len(ip), err)
	}
	var s strings.Builder
	if b := v.body; v.ports() {
		fmt.Fprintf(&s, "%v > %v %s", netip.AddrPortFrom(v.src, binary.BigEndian.Uint16(b)),
			netip.AddrPortFrom(v.dst, binary.BigEndian.Uint16(b[2:])), protocols[v.proto])
		if v.proto == 6 && len(b) >= 20 {
			fmt.Fprintf(&s, " %s seq %d ack %d win %d data %d", flagNames(b[13]), binary.BigEndian.Uint32(b[4:]),
				binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint16(b[14:]), len(b)-int(b[12]>>4)*4)
		}
		if v.proto == 132 && len(b) >= 12 {
			s.WriteString(chunkNames(b[12:]))
		}
	} else {
		name := protocols[v.proto]
		if name == "" {
			name = fmt.Sprintf("protocol %d", v.proto)
		}
		fmt.Fprintf(&s, "%v > %v %s", v.src, v.dst, name)
		if (v.proto == 1 || v.proto == 58) && v.offset == 0 && len(b) >= 8 {
			fmt.Fprintf(&s, " type %d code %d rest %#x", b[0], b[1], binary.BigEndian.Uint32(b[4:]))
			if v.proto == 1 && (b[0] == 3 || b[0] == 4 || b[0] == 5 || b[0] == 11 || b[0] == 12) || v.proto == 58 && b[0] < 128 {
				fmt.Fprintf(&s, " quoting %s", quote(b[8:]))
			}
		}
		if v.proto == 4 || v.proto == 41 {
			fmt.Fprintf(&s, " (%s)", String(b))
		}
	}
	fmt.Fprintf(&s, " ttl %d len %d", v.ttl, len(ip))
	if v.tos != 0 {
		fmt.Fprintf(&s, " tos %#02x", v.tos)
	}
	if v.df {
		s.WriteString(" DF")
	}
	if v.fragment {
		fmt.Fprintf(&s, " fragment %#x at %d", v.id, v.offset)
		if v.more {
			s.WriteByte('+')
		}
	}
	return s.String()
}

// String describes the packet in one line.
func (p Packet) String() string { return String(p.Bytes()) }

var protocols = map[uint8]string{1: "ICMP", 4: "IPIP", 6: "TCP", 17: "UDP", 41: "IPv6", 47: "GRE", 58: "ICMPv6", 132: "SCTP"}

func (v view) ports() bool {
	return (v.proto == 6 || v.proto == 17 || v.proto == 132) && v.offset == 0 && len(v.body) >= 4
}

// quote describes a packet that may be cut off: its length field is made to agree with what is there.
func quote(b []byte) string {
	b = append([]byte{}, b...)
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	case len(b) >= 40 && b[0]>>4 == 6:
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	}
	return "(" + String(b) + ")"
}

// chunkNames lists SCTP chunks, each with a space in front.
func chunkNames(b []byte) string {
	var s strings.Builder
	for len(b) >= 4 {
		if name := chunks[b[0]]; name != "" {
			s.WriteString(" " + name)
		} else {
			fmt.Fprintf(&s, " chunk %d", b[0])
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n = (n + 3) &^ 3; n < 4 || n > len(b) {
			break
		}
		b = b[n:]
	}
	return s.String()
}

// chunks are the types of RFC 9260 section 3.2.
var chunks = map[uint8]string{0: "DATA", 1: "INIT", 2: "INIT-ACK", 3: "SACK", 4: "HEARTBEAT", 5: "HEARTBEAT-ACK", 6: "ABORT", 7: "SHUTDOWN",
	8: "SHUTDOWN-ACK", 9: "ERROR", 10: "COOKIE-ECHO", 11: "COOKIE-ACK", 12: "ECNE", 13: "CWR", 14: "SHUTDOWN-COMPLETE"}

func flagNames(f uint8) string {
	var names []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"} {
		if f>>i&1 != 0 {
			names = append(names, name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, "+")
}
