package bench

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"weir/dataplane/packet"
)

// Attack is what every second frame is instead, if anything: one that a balancer has more work with than with others, or none at all, among those that it should go
// on with. It bears no stamp, so that nobody counts it as received or lost.
type Attack string

const (
	NoAttack  Attack = ""
	Fragments Attack = "fragment" // the first of a datagram, whose rest never comes
	Errors    Attack = "icmp"     // that the port is unreachable, about an answer of the destination to somebody whom it has not answered
	TTL       Attack = "ttl"      // it ends at the balancer
	Port      Attack = "port"     // to the port behind the last one
)

// word is two bytes of a frame that differ from those of others.
type word struct {
	at    int
	value uint16
}

// checkAttack refuses what cannot be made of the datagrams of t.
func (t *Traffic) checkAttack() error {
	switch t.Attack {
	case NoAttack:
		return nil
	case Fragments, Errors, TTL, Port:
	default:
		return fmt.Errorf("attack %q: must be fragment, icmp, ttl or port", t.Attack)
	}
	if t.Kind != UDP || !t.Src.First.Is4() {
		return fmt.Errorf("attack %s: stands among udp over IPv4 alone", t.Attack)
	}
	if t.Attack == Port && t.DstPorts.Last == 65535 {
		return fmt.Errorf("attack port: none is left behind %s", t.DstPorts)
	}
	if least := 14 + errorLen + stampLen + fcs; t.Attack == Errors && (len(t.Mix) > 1 || t.Mix.largest()+fcs < least) {
		return fmt.Errorf("attack icmp: needs frames of one size, %d bytes at least", least)
	}
	return nil
}

// errorLen is an ICMP error that quotes no more than it must (RFC 792): headers of IP and ICMP, the quoted packet's IP header and eight bytes.
const errorLen = 20 + 8 + 20 + 8

// attack is how the attack's frames differ from one of t that looks like frame, and by how much the sum of their IP header does.
func (t *Traffic) attack(frame []byte) (words []word, sum uint64) {
	const ip, l4 = 14, 34
	switch t.Attack {
	case NoAttack:
		return nil, 0
	case Fragments:
		words = []word{{ip + 6, 0x2000}, {l4 + 6, 0}} // more fragments; no checksum (RFC 768)
	case TTL:
		words = []word{{ip + 8, 1<<8 | packet.ProtoUDP}, {l4 + 6, 0}}
	case Port:
		words = []word{{l4 + 2, t.DstPorts.Last + 1}, {l4 + 6, 0}}
	case Errors:
		words = []word{{ip + 2, errorLen}, {ip + 8, uint16(t.TTL)<<8 | packet.ProtoICMP}}
		for i, v := range t.unreachable() {
			words = append(words, word{l4 + 2*i, v})
		}
	}
	for _, w := range words {
		if w.at < l4 {
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
