package judge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// departures are the steps of recordings, counted from 0, in which weir does something else on purpose; docs/ipvs.md argues each. A later
// step that only follows from one is named, too. The string is what must be counted instead.
var departures = map[string]map[int]string{
	// A TCP data offset below 5 is malformed; the kernel forwards it.
	"malformed-ip": {5: "tcp_offset"},
	// SYN+ACK, SYN+FIN and SYN+RST from a client open no connection; segments after them find none either.
	"tcp-not-syn-without-connection-v4": {5: "answered", 6: "tcp_flags", 7: "no_connection", 8: "answered"},
	"tcp-not-syn-without-connection-v6": {5: "answered", 6: "tcp_flags", 7: "no_connection", 8: "answered"},
	// An ICMPv6 unreachable from a server is translated as its IPv4 twin is; this kernel swallows it.
	"icmp6-unreachable-from-server-side": {3: "forwarded"},
}

// departs reports whether a step is one of the departures that any scenario may come upon (docs/ipvs.md has their reasons).
func departs(in []byte, side int, out []Output, expect []Packet, verdict string) bool {
	h, err := headersOf(in)
	if err != nil || len(h.payload) == 0 {
		return false
	}
	if len(out) == 0 && len(expect) == 1 && (verdict == "punted" || verdict == "protocol") {
		// What no service has a part in is the host's: a server's own packet whose TTL runs out, a protocol that no one listens for.
		return hostComplains(sides[side], &expect[0])
	}
	if h.proto != packet.ProtoICMPv6 {
		return false
	}
	switch {
	case verdict == "icmp_checksum":
		return len(out) == 0 // an ICMPv6 error with a wrong checksum: the kernel gives it a right one
	case h.payload[0] < 128 && side == Server && len(expect) == 0:
		return len(out) == 1 && out[0].Side == Client // a server's ICMPv6 error is translated; the kernel swallows it
	}
	return false
}

// blessed is a pair of outputs without SCTP's checksum if that of the packet before was wrong: the kernel computes it anew when it changes a port, so
// that what was damaged becomes right; weir changes it by difference, and it stays wrong.
func blessed(in, got, want []byte) ([]byte, []byte) {
	if h, err := headersOf(in); err != nil || h.proto != protoSCTP || pkttest.Verify(in) == nil {
		return got, want
	}
	return withoutCRC(got), withoutCRC(want)
}

func withoutCRC(ip []byte) []byte {
	ip = bytes.Clone(ip)
	if h, err := headersOf(ip); err == nil && h.proto == protoSCTP && len(h.payload) >= 12 {
		clear(h.payload[8:12])
	}
	return ip
}

// overhead corrects the MTU of an answer to a router's complaint that a tunnel's packet was too big: it is what the router says less all that the
// tunnel needs. The kernel takes off the outer IP header alone, not those of UDP and GUE, or GRE, and if this is the first complaint it takes it off the
// link's MTU, for its cached route does not know better yet.
func overhead(in, want []byte) []byte {
	h, err := headersOf(in)
	if err != nil || !fragNeeded(h) {
		return want
	}
	if _, _, ok := decapsulate(h.payload[8:]); !ok {
		return want
	}
	want = bytes.Clone(want)
	if w, err := headersOf(want); err == nil && fragNeeded(w) {
		less := 20 + map[uint8]uint16{packet.ProtoUDP: 12, protoGRE: 4}[h.payload[8+9]]
		binary.BigEndian.PutUint16(w.payload[6:], binary.BigEndian.Uint16(h.payload[6:])-less)
	}
	return want
}

// fragNeeded reports whether a packet is ICMP's "fragmentation needed" with a quoted header.
func fragNeeded(h ipHeaders) bool {
	return h.proto == packet.ProtoICMP && len(h.payload) >= 8+20 && h.payload[0] == 3 && h.payload[1] == 4
}

// hostComplains reports whether a packet is an ICMP error that goes back to where the packet before came from.
func hostComplains(side string, p *Packet) bool {
	ip, err := unhex(p.Packet)
	if err != nil || p.Side != side {
		return false
	}
	h, err := headersOf(ip)
	return err == nil && (h.proto == packet.ProtoICMP || h.proto == packet.ProtoICMPv6 && len(h.payload) > 0 && h.payload[0] < 128)
}

// sound checks lengths and checksums of what came out. A packet that came in with a wrong checksum must leave with a wrong one, or not at all.
func sound(out, in []byte) error {
	err := pkttest.Verify(out)
	if pkttest.Verify(in) == nil {
		return err
	}
	return nil
}

// same compares as the README of the recordings says.
func same(got, want []byte, exact bool) error {
	if exact {
		if !bytes.Equal(got, want) {
			return errors.New("bytes differ")
		}
		return nil
	}
	g, err := headersOf(got)
	if err != nil {
		return err
	}
	w, err := headersOf(want)
	if err != nil {
		return err
	}
	if g.src != w.src || g.dst != w.dst || g.proto != w.proto {
		return errors.New("addresses or protocol differ")
	}
	switch g.proto {
	case packet.ProtoTCP:
		if len(g.payload) < 20 || len(w.payload) < 20 || !bytes.Equal(g.payload[:14], w.payload[:14]) { // ports, seq, ack, offset and flags
			return errors.New("TCP headers differ")
		}
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return sameICMP(g, w, len(got), len(want))
	case protoIPIP, protoIPv6:
		return sameInner(got, want, g.payload, w.payload)
	case protoGRE:
		return sameGRE(got, want, g.payload, w.payload)
	case packet.ProtoUDP:
		return sameGUE(got, want, g.payload, w.payload)
	}
	return nil
}

const (
	protoIPIP = 4
	protoIPv6 = 41
	protoGRE  = 47
)

func sameICMP(g, w ipHeaders, size, sizeWanted int) error {
	if len(g.payload) < 8 || len(w.payload) < 8 {
		return errors.New("an ICMP message is cut off")
	}
	if g.payload[0] != w.payload[0] || g.payload[1] != w.payload[1] || !bytes.Equal(g.payload[4:8], w.payload[4:8]) {
		return errors.New("ICMP type, code or rest differ")
	}
	isError := g.proto == packet.ProtoICMP && g.payload[0] != 0 && g.payload[0] != 8 || g.proto == packet.ProtoICMPv6 && g.payload[0] < 128
	if !isError {
		if !bytes.Equal(g.payload[8:], w.payload[8:]) {
			return errors.New("echo data differ")
		}
		return nil
	}
	limit := 576
	if g.proto == packet.ProtoICMPv6 {
		limit = 1280
	}
	if limit = max(limit, sizeWanted); size > limit { // one that is translated is as long as it came
		return fmt.Errorf("%d bytes, more than %d", size, limit)
	}
	return sameQuote(g.payload[8:], w.payload[8:])
}

// sameQuote compares quoted headers and 8 bytes behind them, TTL and checksum aside.
func sameQuote(got, want []byte) error {
	n := 48
	if len(want) > 0 && want[0]>>4 == 4 {
		n = int(want[0]&15)*4 + 8
	}
	n = min(n, len(want)) // the recorder may have quoted less in an error of its own making
	if len(got) < n {
		return fmt.Errorf("only %d bytes are quoted", len(got))
	}
	g, w := bytes.Clone(got[:n]), bytes.Clone(want[:n])
	for _, b := range [][]byte{g, w} {
		if len(b) >= 12 && b[0]>>4 == 4 {
			b[8], b[10], b[11] = 0, 0, 0
		} else if len(b) >= 8 {
			b[7] = 0
		}
	}
	if !bytes.Equal(g, w) {
		return fmt.Errorf("quotes differ:\n %x\n %x", g, w)
	}
	return nil
}

// sameInner compares a tunnel's packets: of the outer header what a receiver acts on (DF, TTL, TOS; the IP ID is the sender's own), and
// all of the inner packet.
func sameInner(got, want, inner, wantInner []byte) error {
	if got[0]>>4 == 4 {
		if got[1] != want[1] || got[6] != want[6] || got[7] != want[7] || got[8] != want[8] {
			return fmt.Errorf("outer TOS, DF or TTL differ: %x, want %x", got[:20], want[:20])
		}
	} else if !bytes.Equal(got[:2], want[:2]) || got[7] != want[7] { // the flow label may differ
		return fmt.Errorf("outer traffic class or hop limit differ: %x, want %x", got[:40], want[:40])
	}
	if !bytes.Equal(inner, wantInner) {
		return fmt.Errorf("inner packets differ:\n %x\n %x", inner, wantInner)
	}
	return nil
}

func sameGRE(got, want, g, w []byte) error {
	if len(g) < 4 || len(w) < 4 || !bytes.Equal(g[:4], w[:4]) {
		return errors.New("GRE headers differ")
	}
	return sameInner(got, want, g[4:], w[4:])
}

// sameGUE compares datagrams to a tunnel's port; the source port and the checksum may differ.
func sameGUE(got, want, g, w []byte) error {
	if len(g) < 12 || len(w) < 12 || !bytes.Equal(g[2:6], w[2:6]) || !bytes.Equal(g[8:12], w[8:12]) {
		return errors.New("UDP destination port or length, or GUE headers differ")
	}
	return sameInner(got, want, g[12:], w[12:])
}

type ipHeaders struct {
	src, dst netip.Addr
	proto    uint8
	payload  []byte // of IPv6 from its first extension header on
}

func headersOf(ip []byte) (h ipHeaders, err error) {
	switch {
	case len(ip) >= 20 && ip[0]>>4 == 4 && int(ip[0]&15)*4 <= len(ip):
		h.src, _ = netip.AddrFromSlice(ip[12:16])
		h.dst, _ = netip.AddrFromSlice(ip[16:20])
		h.proto, h.payload = ip[9], ip[int(ip[0]&15)*4:]
	case len(ip) >= 40 && ip[0]>>4 == 6:
		h.src, _ = netip.AddrFromSlice(ip[8:24])
		h.dst, _ = netip.AddrFromSlice(ip[24:40])
		h.proto, h.payload = ip[6], ip[40:]
	default:
		err = fmt.Errorf("%x is no IP packet", ip)
	}
	return h, err
}

// routedOn reports whether out is in after one hop of plain routing, which leaves behind what lay behind the packet.
func routedOn(in, out []byte) bool {
	if len(in) < len(out) || len(out) < 20 {
		return false
	}
	in = bytes.Clone(in[:len(out)])
	if in[0]>>4 == 6 {
		in[7]--
		return bytes.Equal(in, out)
	}
	in[8]--
	binary.BigEndian.PutUint16(in[10:], packet.Update16(binary.BigEndian.Uint16(in[10:]), 0x0100, 0))
	return bytes.Equal(in, out)
}

// datagram names the datagram that a fragment belongs to, "" for a packet that is whole or not to be read.
func datagram(ip []byte) string {
	switch {
	case len(ip) >= 20 && ip[0]>>4 == 4:
		if binary.BigEndian.Uint16(ip[6:])&0x3fff == 0 {
			return ""
		}
		return string(ip[12:20]) + string(ip[4:6]) + string(ip[9:10])
	case len(ip) >= 48 && ip[0]>>4 == 6 && ip[6] == 44:
		if binary.BigEndian.Uint16(ip[42:])&0xfff9 == 0 {
			return "" // an atomic fragment (RFC 6946)
		}
		return string(ip[8:40]) + string(ip[44:48])
	}
	return ""
}
