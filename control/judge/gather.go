package judge

import (
	"encoding/binary"
	"fmt"
	"slices"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// The kernel gathers a datagram's fragments, balances the whole, and cuts it anew (IPv6: under an ID of its own); weir forwards each fragment
// as it comes. So what came out is compared as datagrams.

// gathered compares what came of all fragments of a datagram when its last step, the one before i, is done.
func (p *player) gathered(i int) error {
	if p.of == "" {
		return nil
	}
	in, came, due := p.in, p.came, p.due
	p.of, p.in, p.came, p.due = "", nil, nil, nil
	var want []Output
	exact := map[string]bool{}
	for _, d := range due {
		ip, err := unhex(d.Packet)
		if err != nil {
			return err
		}
		want = append(want, Output{Side: sideOf(d.Side), MAC: d.MAC, IP: ip})
		exact[string(ip)] = d.Exact
	}
	if equal(came, want) {
		return nil
	}
	whole, got, wanted := join([]Output{{IP: in[0]}}, in[1:]...), join(unpack(join(came))), join(unpack(join(want)))
	if len(whole) == 1 && len(got) == 0 && len(wanted) == 1 && routedOn(whole[0].IP, wanted[0].IP) {
		return nil // no service's: the kernel's business, which gets it back
	}
	if answeredTo(p.side, wanted) {
		// An answer to a datagram in pieces: the kernel's quotes the whole, weir's the first piece; and no host resets a connection for a piece.
		if len(got) == 0 || len(got) == len(wanted) && sameAnswer(got[0].IP, wanted[0].IP) {
			return nil
		}
	}
	if len(got) != len(wanted) {
		return &Difference{i - 1, "number of datagrams", fmt.Sprintf("%d datagrams came out of fragments, want %d:%s", len(got), len(wanted), list(got, wanted))}
	}
	for j := range got {
		if got[j].Side != wanted[j].Side || string(got[j].IP) != string(wanted[j].IP) || wanted[j].MAC != "" && got[j].MAC != wanted[j].MAC {
			return &Difference{i - 1, "datagram", fmt.Sprintf("a datagram that came in fragments differs:%s", list(got, wanted))}
		}
	}
	return nil
}

func equal(came, due []Output) bool {
	return slices.EqualFunc(came, due, func(a, b Output) bool {
		return a.Side == b.Side && string(a.IP) == string(b.IP) && (b.MAC == "" || a.MAC == b.MAC)
	})
}

// answeredTo reports whether all that came out went back to who sent.
func answeredTo(side int, out []Output) bool {
	return len(out) > 0 && !slices.ContainsFunc(out, func(o Output) bool { return o.Side != side })
}

// sameAnswer compares two ICMP errors but for what they quote.
func sameAnswer(got, want []byte) bool {
	g, err := headersOf(got)
	if err != nil {
		return false
	}
	w, err := headersOf(want)
	if err != nil {
		return false
	}
	return g.src == w.src && g.dst == w.dst && g.proto == w.proto && (g.proto == packet.ProtoICMP || g.proto == packet.ProtoICMPv6) &&
		string(g.payload[:2]) == string(w.payload[:2])
}

// unpack takes packets out of their tunnels: the kernel puts the whole datagram into one, weir each fragment. What led to the tunnel's end goes
// into the MAC address's place.
func unpack(out []Output) (all []Output) {
	for _, o := range out {
		o.IP = withoutAtomic(o.IP)
		if inner, outer, ok := decapsulate(o.IP); ok {
			o.IP, o.MAC = inner, o.MAC+" "+outer
		}
		all = append(all, o)
	}
	return all
}

// withoutAtomic is an IPv6 packet without the header of a fragment that is the whole datagram (RFC 6946), which the kernel puts around what it
// has gathered.
func withoutAtomic(ip []byte) []byte {
	if len(ip) < 48 || ip[0]>>4 != 6 || ip[6] != 44 || datagram(ip) != "" {
		return ip
	}
	plain := append(slices.Clone(ip[:40]), ip[48:]...)
	plain[6] = ip[40]
	binary.BigEndian.PutUint16(plain[4:], uint16(len(plain)-40))
	return plain
}

// decapsulate is the packet in a tunnel's, and a description of the tunnel.
func decapsulate(ip []byte) (inner []byte, outer string, ok bool) {
	h, err := headersOf(ip)
	if err != nil {
		return nil, "", false
	}
	outer = fmt.Sprintf("%v > %v %d", h.src, h.dst, h.proto)
	switch b := h.payload; {
	case h.proto == protoIPIP || h.proto == protoIPv6:
		inner = b
	case h.proto == protoGRE && len(b) > 4:
		inner, outer = b[4:], fmt.Sprintf("%s %x", outer, b[:4])
	case h.proto == packet.ProtoUDP && len(b) > 12 && b[8] == 0 && (b[9] == protoIPIP || b[9] == protoIPv6) && tunnelPort(binary.BigEndian.Uint16(b[2:])):
		inner, outer = b[12:], fmt.Sprintf("%s %x %x", outer, b[2:4], b[8:12])
	default:
		return nil, "", false
	}
	if _, err := headersOf(inner); err != nil {
		return nil, "", false
	}
	return inner, outer, true
}

// tunnelPort reports whether a datagram's port is one that GUE is sent to in recordings.
func tunnelPort(port uint16) bool { return port >= 6080 && port < 6090 }

// join puts fragments together. What is not whole at the end stays in pieces, behind the rest.
func join(out []Output, more ...[]byte) (whole []Output) {
	for _, ip := range more {
		out = append(out, Output{Side: out[0].Side, IP: ip})
	}
	var open [][]Output
	for _, o := range out {
		id := datagram(o.IP)
		if id == "" {
			whole = append(whole, o)
			continue
		}
		at := slices.IndexFunc(open, func(list []Output) bool { return datagram(list[0].IP) == id && list[0].Side == o.Side })
		if at < 0 {
			at, open = len(open), append(open, nil)
		}
		open[at] = append(open[at], o)
		if ip := assemble(open[at]); ip != nil {
			whole = append(whole, Output{Side: o.Side, MAC: o.MAC, IP: ip})
			open = slices.Delete(open, at, at+1)
		}
	}
	return append(whole, slices.Concat(open...)...)
}

// assemble is the datagram that these are all pieces of, nil if some are missing.
func assemble(pieces []Output) []byte {
	slices.SortFunc(pieces, func(a, b Output) int { return datagramOffset(a.IP) - datagramOffset(b.IP) })
	var payload []byte
	last := false
	for _, p := range pieces {
		body, more := fragmentBody(p.IP)
		if datagramOffset(p.IP) != len(payload) || last {
			return nil
		}
		payload, last = append(payload, body...), !more
	}
	if !last {
		return nil
	}
	first := pieces[0].IP
	if first[0]>>4 == 4 {
		n := int(first[0]&15) * 4
		ip := append(slices.Clone(first[:n]), payload...)
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[6:], binary.BigEndian.Uint16(ip[6:])&0xc000)
		return pkttest.Seal(ip)
	}
	ip := append(slices.Clone(first[:40]), payload...)
	ip[6] = first[40]
	binary.BigEndian.PutUint16(ip[4:], uint16(len(payload)))
	return ip
}

// fragmentBody is a fragment's piece of its datagram.
func fragmentBody(ip []byte) (body []byte, more bool) {
	if ip[0]>>4 == 4 {
		return ip[int(ip[0]&15)*4:], ip[6]&0x20 != 0
	}
	return ip[48:], ip[43]&1 != 0
}
