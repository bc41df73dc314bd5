package main_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet/pkttest"
)

// guePort is where servers expect GUE, IANA's number and weir's default.
const guePort = 6080

// tunneled is a packet in a tunnel, taken apart.
//
//	ipip  outer IP (protocol 4 or 41)                                inner IP
//	gre   outer IP (47)   flags, protocol type (RFC 2784)            inner IP
//	                      (checksum, 0)
//	gue   outer IP (17)   UDP to 6080   variant 0, header length 0,  inner IP
//	                                    protocol 4 or 41, flags 0
type tunneled struct {
	kind     string // ipip, gre, gue
	outer    ipHeader
	fragment bool // of the outer packet: there is nothing below
	port     int  // UDP source port
	summed   bool // with a checksum of GRE's or UDP's
	inner    []byte
}

// ipHeader is what a tunnel copies from one header to the other, and the addresses.
type ipHeader struct {
	v6       bool
	src, dst netip.Addr
	proto    byte
	ttl, tos byte
	df, part bool // part: a fragment
	payload  []byte
}

var errShort = errors.New("a header is cut off")

// headerOf reads an IP header without options or, but for fragments, extension headers.
func headerOf(ip []byte) (h ipHeader, err error) {
	switch {
	case len(ip) >= 20 && ip[0] == 0x45:
		word := binary.BigEndian.Uint16(ip[6:])
		return ipHeader{src: netip.AddrFrom4([4]byte(ip[12:16])), dst: netip.AddrFrom4([4]byte(ip[16:20])), proto: ip[9], ttl: ip[8],
			tos: ip[1], df: word&0x4000 != 0, part: word&0x3fff != 0, payload: ip[20:]}, nil
	case len(ip) >= 40 && ip[0]>>4 == 6:
		h = ipHeader{v6: true, src: netip.AddrFrom16([16]byte(ip[8:24])), dst: netip.AddrFrom16([16]byte(ip[24:40])), proto: ip[6],
			ttl: ip[7], tos: ip[0]<<4 | ip[1]>>4, payload: ip[40:]}
		if h.part = h.proto == unix.IPPROTO_FRAGMENT; h.part && len(h.payload) >= 8 {
			h.proto = h.payload[0]
		}
		return h, nil
	}
	return h, errShort
}

// tunneledOf takes an IP packet apart. It reports false if it is of no tunnel.
func tunneledOf(ip []byte) (x tunneled, ok bool, err error) {
	if x.outer, err = headerOf(ip); err != nil {
		return x, false, nil // with options, say: of no tunnel of ours
	}
	version := byte(0) // of the inner packet, as the outer header has it
	b := x.outer.payload
	switch x.outer.proto {
	case unix.IPPROTO_IPIP:
		x.kind, version = "ipip", 4
	case unix.IPPROTO_IPV6:
		x.kind, version = "ipip", 6
	case unix.IPPROTO_GRE:
		x.kind = "gre"
	case unix.IPPROTO_UDP:
		if !x.outer.part && (len(b) < 8 || binary.BigEndian.Uint16(b[2:]) != guePort) {
			return x, false, nil
		}
		x.kind = "gue"
	default:
		return x, false, nil
	}
	if x.outer.part {
		x.fragment = true
		return x, true, nil
	}
	switch x.kind {
	case "gre":
		x.summed = len(b) > 0 && b[0]&greSummed != 0
		if version, b, err = untypeGRE(b); err != nil {
			return x, true, err
		}
	case "gue":
		x.port = int(binary.BigEndian.Uint16(b))
		x.summed = binary.BigEndian.Uint16(b[6:]) != 0
		if version, b, err = untypeGUE(b[8:]); err != nil {
			return x, true, err
		}
	}
	if len(b) == 0 || b[0]>>4 != version {
		return x, true, fmt.Errorf("%s says that an IPv%d packet is inside, but there is % x", x.kind, version, b[:min(len(b), 4)])
	}
	x.inner = b
	return x, true, nil
}

// greSummed is the bit in a GRE header's first byte that says that there is a checksum.
const greSummed = 0x80

// untypeGRE takes off a GRE header (RFC 2784), which may have a checksum over all that follows.
func untypeGRE(b []byte) (version byte, inner []byte, err error) {
	if len(b) < 4 || b[0] == greSummed && len(b) < 8 {
		return 0, nil, errShort
	}
	inner = b[4:]
	switch flags := binary.BigEndian.Uint16(b); {
	case flags == greSummed<<8:
		inner = b[8:]
		sum := uint32(0)
		for i, c := range b {
			sum += uint32(c) << (8 * (1 - i%2))
		}
		if sum = sum>>16 + sum&0xffff; sum>>16+sum&0xffff != 0xffff {
			return 0, nil, errors.New("the GRE checksum is wrong")
		}
	case flags != 0:
		return 0, nil, fmt.Errorf("GRE flags and version %#04x", flags)
	}
	switch typ := binary.BigEndian.Uint16(b[2:]); typ {
	case unix.ETH_P_IP:
		return 4, inner, nil
	case unix.ETH_P_IPV6:
		return 6, inner, nil
	default:
		return 0, nil, fmt.Errorf("GRE protocol type %#04x", typ)
	}
}

// untypeGUE takes off a GUE header (draft-ietf-intarea-gue section 3) of variant 0, a data message without extension fields.
func untypeGUE(b []byte) (version byte, inner []byte, err error) {
	if len(b) < 4 {
		return 0, nil, errShort
	}
	if b[0] != 0 || b[2] != 0 || b[3] != 0 {
		return 0, nil, fmt.Errorf("GUE header % x: variant, control bit, length and flags must be 0", b[:4])
	}
	switch b[1] {
	case unix.IPPROTO_IPIP:
		return 4, b[4:], nil
	case unix.IPPROTO_IPV6:
		return 6, b[4:], nil
	}
	return 0, nil, fmt.Errorf("GUE carries protocol %d", b[1])
}

// judge says what is wrong with the outer header of a tunneled packet that left hops routers behind since weir: TTL, "don't fragment" and
// the traffic class are made of the inner header's as the kernel's IPVS does it (ip_vs_prepare_tunneled_skb); all checksums are right.
func (x *tunneled) judge(ip []byte, hops int) error {
	if err := pkttest.Verify(ip); err != nil {
		return err
	}
	if err := pkttest.Verify(x.inner); err != nil {
		return fmt.Errorf("inner packet: %w", err)
	}
	in, err := headerOf(x.inner)
	if err != nil {
		return fmt.Errorf("inner packet: %w", err)
	}
	if int(x.outer.ttl)+hops != int(in.ttl) {
		return fmt.Errorf("TTL %d after %d hops around one of %d", x.outer.ttl, hops, in.ttl)
	}
	if !x.outer.v6 && !in.v6 && x.outer.df != in.df {
		return fmt.Errorf("DF %v around DF %v", x.outer.df, in.df)
	}
	tos := in.tos
	if tos&3 == 3 { // congestion experienced is not carried out, so that taking the header off can tell what the tunnel added (RFC 3168 9.1.1)
		tos = tos&^3 | 2
	}
	if x.outer.tos != tos {
		return fmt.Errorf("traffic class %#02x around %#02x, want %#02x", x.outer.tos, in.tos, tos)
	}
	if x.kind == "gue" && x.port == 0 {
		return errors.New("GUE from UDP port 0")
	}
	return nil
}

// String names the tunnel as tunnels does.
func (x *tunneled) String() string {
	outer := 4
	if x.outer.v6 {
		outer = 6
	}
	name := fmt.Sprintf("%s %din%d", x.kind, x.inner[0]>>4, outer)
	if x.summed {
		name += withChecksum
	}
	return name
}

const withChecksum = " with checksum"

// tunnels are all kinds with each family in each. Those with a checksum of their own come last.
var tunnels = func() (all []string) {
	for _, summed := range []string{"", withChecksum} {
		for _, kind := range []string{"ipip", "gre", "gue"} {
			for _, in := range []string{"4in4", "6in4", "4in6", "6in6"} {
				if kind != "ipip" || summed == "" {
					all = append(all, kind+" "+in+summed)
				}
			}
		}
	}
	return all
}()

// wrap puts a packet into a tunnel, as plainly as the RFCs have it.
func wrap(tunnel string, src, dst netip.Addr, inner []byte) pkttest.Packet {
	v6, summed := inner[0]>>4 == 6, strings.HasSuffix(tunnel, withChecksum)
	proto, typ := byte(unix.IPPROTO_IPIP), uint16(unix.ETH_P_IP)
	if v6 {
		proto, typ = unix.IPPROTO_IPV6, unix.ETH_P_IPV6
	}
	switch kind, _, _ := strings.Cut(tunnel, " "); kind {
	case "gre":
		b := binary.BigEndian.AppendUint16([]byte{0, 0}, typ)
		if summed {
			b[0] = greSummed
			b = append(b, 0, 0, 0, 0)
		}
		b = append(b, inner...)
		if summed {
			sum := uint32(0)
			for i, c := range b {
				sum += uint32(c) << (8 * (1 - i%2))
			}
			sum = sum>>16 + sum&0xffff
			binary.BigEndian.PutUint16(b[4:], ^uint16(sum>>16+sum&0xffff))
		}
		return pkttest.IP(src, dst, unix.IPPROTO_GRE, b)
	case "gue":
		p := pkttest.UDP(netip.AddrPortFrom(src, 50000), netip.AddrPortFrom(dst, guePort)).Payload(append([]byte{0, proto, 0, 0}, inner...))
		if !summed {
			p = p.NoChecksum()
		}
		return p
	}
	return pkttest.IP(src, dst, proto, inner)
}
