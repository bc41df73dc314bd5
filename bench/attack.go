package bench

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"weir/dataplane/packet"
)

// Attack is what every second frame is instead, if anything: one that a balancer has more work with than with others, or none at all, among those that it should go
// on with. It bears no stamp that counts, so that nobody takes it for received or lost.
type Attack string

const (
	NoAttack  Attack = ""
	Fragments Attack = "fragment" // the first of a datagram, whose rest never comes
	Errors    Attack = "icmp"     // that the port is unreachable, about an answer of the destination to somebody whom it has not answered
	TTL       Attack = "ttl"      // it ends at the balancer
	Port      Attack = "port"     // to the port behind the last one
	Station   Attack = "station"  // each from a MAC address of its own, which nobody has
	Neighbor  Attack = "neighbor" // to one after the other of the addresses that have the destination's first 16 bits
)

// word is two bytes of a frame that differ from those of others.
type word struct {
	at    int
	value uint16
	part  int // 1, 2: the value is the lowest, the next 16 bits of how many of the attack's frames there were before
}

// of is the word's value in the n-th frame of the attack.
func (w *word) of(n uint64) uint16 {
	if w.part == 0 {
		return w.value
	}
	return uint16(n >> (16 * (w.part - 1)))
}

// summed reports whether the word is one of the IPv4 header.
func (w *word) summed() bool { return w.at >= 14 && w.at < 34 }

// checkAttack refuses what cannot be made of the datagrams of t.
func (t *Traffic) checkAttack() error {
	switch t.Attack {
	case NoAttack:
		return nil
	case Fragments, Errors, TTL, Port, Station, Neighbor:
	default:
		return fmt.Errorf("attack %q: must be fragment, icmp, ttl, port, station or neighbor", t.Attack)
	}
	if t.Kind != UDP || !t.Src.First.Is4() {
		return fmt.Errorf("attack %s: stands among udp over IPv4 alone", t.Attack)
	}
	if t.Attack == Port && t.DstPorts.Last == 65535 {
		return fmt.Errorf("attack port: none is left behind %s", t.DstPorts)
	}
	if t.Attack == Neighbor && t.Dst.Count() != 1 {
		return fmt.Errorf("attack neighbor: needs one destination, not %s", t.Dst)
	}
	if least := 14 + errorLen + stampLen + fcs; t.Attack == Errors && (len(t.Mix) > 1 || t.Mix.largest()+fcs < least) {
		return fmt.Errorf("attack icmp: needs frames of one size, %d bytes at least", least)
	}
	return nil
}

// errorLen is an ICMP error that quotes no more than it must (RFC 792): headers of IP and ICMP, the quoted packet's IP header and eight bytes.
const errorLen = 20 + 8 + 20 + 8

// madeUp begins the MAC addresses of stations that are not there: locally administered ones (IEEE 802).
const madeUp = 0x02ff

// attack is how the attack's frames differ from one of t that looks like frame, and by how much the sum of their IP header does,
// words that change from frame to frame aside.
func (t *Traffic) attack(frame []byte) (words []word, sum uint64) {
	const ip, l4 = 14, 34
	switch t.Attack {
	case NoAttack:
		return nil, 0
	case Fragments:
		words = []word{{at: ip + 6, value: 0x2000}, {at: l4 + 6}} // more fragments; no checksum (RFC 768)
	case TTL:
		words = []word{{at: ip + 8, value: 1<<8 | packet.ProtoUDP}, {at: l4 + 6}}
	case Port:
		words = []word{{at: l4 + 2, value: t.DstPorts.Last + 1}, {at: l4 + 6}}
	case Errors:
		words = []word{{at: ip + 2, value: errorLen}, {at: ip + 8, value: uint16(t.TTL)<<8 | packet.ProtoICMP}}
		for i, v := range t.unreachable() {
			words = append(words, word{at: l4 + 2*i, value: v})
		}
	case Station:
		words = []word{{at: 6, value: madeUp}, {at: 8, part: 2}, {at: 10, part: 1}, {at: l4 + 6}}
	case Neighbor:
		dst := t.Dst.First.As4()
		sum = uint64(^binary.BigEndian.Uint16(dst[2:])) // it is not in frame
		words = []word{{at: ip + 18, part: 1}, {at: l4 + 6}}
	}
	for _, w := range words {
		if w.summed() {
			sum += uint64(w.value) + uint64(^binary.BigEndian.Uint16(frame[w.at:]))
		}
	}
	return words, sum
}

// stranger is a client that no flow has: an error about an answer to it is about no connection.
var stranger = netip.MustParseAddr("192.0.2.1")

// unreachable is an ICMP error, in words: the stranger has no use for an answer of the first flow's service.
func (t *Traffic) unreachable() []uint16 {
	b := make([]byte, 0, errorLen-20)
	b = append(b, 3, 3, 0, 0, 0, 0, 0, 0) // destination unreachable: port
	b = append(b, 0x45, 0, 0, 20+8, 0, 0, 0x40, 0, 63, packet.ProtoUDP, 0, 0)
	for _, a := range []netip.Addr{t.Dst.First, stranger} {
		b = append(b, a.AsSlice()...)
	}
	binary.BigEndian.PutUint16(b[8+10:], ^fold(words(b[8:28])))
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, t.DstPorts.First), t.SrcPorts.First)
	b = append(b, 0, 8, 0, 0)
	binary.BigEndian.PutUint16(b[2:], ^fold(words(b)))
	out := make([]uint16, len(b)/2)
	for i := range out {
		out[i] = binary.BigEndian.Uint16(b[2*i:])
	}
	return out
}

// attackers is how many of n frames are the attack's.
func (t *Traffic) attackers(n uint64) uint64 {
	if t.Attack == NoAttack {
		return 0
	}
	return n / 2
}
