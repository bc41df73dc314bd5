package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// unusual is why weir must look at a packet more closely than at others, at several times the cost. Anybody can send such packets at any rate, so
// a worker looks at so many of each kind in a second, limits.unusual, and drops all others by a few of their bytes.
type unusual uint8

const (
	usual           unusual = iota
	unusualFragment         // of a datagram, or with extension headers of IPv6 (AH aside)
	unusualICMP             // ICMP or ICMPv6, errors above all
	unusualTTL              // the TTL or hop limit is used up
	numUnusual
)

// IPv6 extension headers (RFC 8200 section 4).
const (
	hopByHop           = 0
	routing            = 43
	fragmentHeader     = 44
	destinationOptions = 60
)

// unusualBurst is how many nanoseconds' worth of them may come at once.
const unusualBurst = 100_000_000

// unusualOf tells of what kind a frame is, by its first headers alone. What is cut off is usual: parse will say what is wrong. So is what ends at a
// tunnel end of ours, whatever its TTL: it goes no further, and Linux sends what is for a group with a TTL of 1.
func unusualOf(b []byte, o *Overlay) unusual {
	if len(b) < etherLen+ipv4Len {
		return usual
	}
	etherType, h := be16(b[12:]), b[etherLen:]
	if etherType == packet.EtherTypeVLAN {
		etherType, h = be16(b[16:]), b[etherLen+4:]
	}
	switch {
	case etherType == packet.EtherTypeIPv4 && len(h) >= ipv4Len:
		switch {
		case be16(h[6:])&(moreFragments|0x1fff) != 0:
			return unusualFragment
		case h[9] == packet.ProtoICMP:
			return unusualICMP
		case h[8] <= 1 && !(o != nil && h[9] == packet.ProtoUDP && o.endsAt(conntrack.Addr{Lo: uint64(be32(h[16:]))}, false, h, int(h[0]&15)*4)):
			return unusualTTL
		}
	case etherType == packet.EtherTypeIPv6 && len(h) >= ipv6Len:
		switch next := h[6]; {
		case next == hopByHop || next == routing || next == fragmentHeader || next == destinationOptions:
			return unusualFragment // behind any of them may be a fragment header, and to go and look is what costs
		case next == packet.ProtoICMPv6:
			return unusualICMP
		case h[7] <= 1 && !(o != nil && next == packet.ProtoUDP && o.endsAt(conntrack.Addr{Hi: be64(h[24:]), Lo: be64(h[32:])}, true, h, ipv6Len)):
			return unusualTTL
		}
	}
	return usual
}

// endsAt reports whether tunnels of ours end at an address and the port that the UDP header at h[l4:] is for.
func (o *Overlay) endsAt(dst conntrack.Addr, v6 bool, h []byte, l4 int) bool {
	return len(h) >= l4+udpLen && o.ends(dst, v6, be16(h[l4+2:]))
}

// exceeds reports whether frame i is one too many of its kind, and drops it if so.
func (w *Worker) exceeds(v *vector, i int) bool {
	every := w.snap.unusualEvery
	if every == 0 {
		return false
	}
	kind := unusualOf(w.pool.Bytes(v.descs[i]), w.snap.Overlay)
	if kind == usual {
		return false
	}
	at := &w.unusual[kind]
	next := max(*at, w.now) + every
	if next-w.now <= max(unusualBurst, every) {
		*at = next
		return false
	}
	w.Counters.Drops[DropUnusualLimit].add(1)
	w.pool.Put(v.descs[i].Addr)
	v.plain[i] = plain{kind: plainGone}
	v.narrow[i].Rest, v.narrow[i].Ref = 0, 0
	v.gone++
	return true
}
