package vxlan

import (
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

func TestEntropy(t *testing.T) { // lines 7, 9 and 10
	e := NewEntropy([2]uint64{3, 4})
	of := func(frame []byte) uint32 { return e.Of(newChunk(t).parsed(t, frame)) }
	type pair struct {
		name string
		a, b []byte
		same bool
	}
	tcp, tcp6, udp, udp6 := pkttest.TCP(client, server), pkttest.TCP(client6, server6), pkttest.UDP(client, server), pkttest.UDP(client6, server6)
	other, other6 := netip.AddrPortFrom(client.Addr(), 40001), netip.AddrPortFrom(client6.Addr(), 40001)
	in := func(p pkttest.Packet) []byte { return p.Frame(hostA, hostB) }
	arp := pkttest.Ethernet(make([]byte, 28), hostA, hostB, packet.EtherTypeARP)
	pairs := []pair{
		{"one flow", in(tcp.SYN()), in(tcp.Ack(7).Payload([]byte("data")).TTL(3)), true},
		{"one flow, IPv6", in(tcp6.SYN()), in(tcp6.Ack(7).Payload([]byte("data"))), true},
		{"one flow, IPv6, with extension headers", in(tcp6.SYN()), in(tcp6.SYN().HopByHop()), true},
		{"one flow, tagged", in(tcp.SYN()), in(tcp.SYN().VLAN(7)), true},
		{"another port", in(tcp.SYN()), in(pkttest.TCP(other, server).SYN()), false},
		{"another port, IPv6", in(tcp6.SYN()), in(pkttest.TCP(other6, server6).SYN()), false},
		{"another protocol", in(tcp), in(udp), false},
		{"another SCTP port", in(pkttest.SCTP(client, server).Chunk(1, 0, nil)), in(pkttest.SCTP(other, server).Chunk(1, 0, nil)), false},
		{"ICMP of two hosts", in(pkttest.Echo(client.Addr(), server.Addr(), 1, 1)), in(pkttest.Echo(server.Addr(), client.Addr(), 1, 1)), false},
		{"an unknown protocol", in(pkttest.IP(client.Addr(), server.Addr(), 89, []byte{1})), in(pkttest.IP(client.Addr(), server.Addr(), 89, []byte{2, 3})), true},
		{"not IP, one pair", arp, pkttest.Ethernet(make([]byte, 50), hostA, hostB, packet.EtherTypeARP), true},
		{"not IP, another pair", arp, pkttest.Ethernet(make([]byte, 28), hostB, hostA, packet.EtherTypeARP), false},
	}
	// Of the third, the first piece names the options as what follows the fragment header, but Parse the UDP header behind these.
	for name, pieces := range map[string][][]byte{
		"fragments":       udp.Size(120).Cut(7, 40),
		"fragments, IPv6": udp6.Size(160).Cut(7, 40),
		"fragments, IPv6, destination options": {
			udp6.Fragment(7, 0, true).DestOptions().Payload(make([]byte, 32)).Bytes(),
			pkttest.IP(client6.Addr(), server6.Addr(), 60, make([]byte, 32)).Fragment(7, 48, false).Bytes(),
		},
	} {
		for _, piece := range pieces[1:] {
			pairs = append(pairs, pair{name, pkttest.Frame(pieces[0], hostA, hostB), pkttest.Frame(piece, hostA, hostB), true})
		}
	}
	for _, p := range pairs {
		if a, b := of(p.a), of(p.b); (a == b) != p.same {
			t.Errorf("%s: %#x and %#x", p.name, a, b)
		}
	}
	f := newChunk(t).parsed(t, in(tcp))
	again := NewEntropy([2]uint64{3, 5})
	if e.Of(f) == again.Of(f) {
		t.Error("the hash does not depend on the secret")
	}
}

// Each bit of the hash is as often set as not, over flows that differ as little as flows do.
func TestEntropyIsEven(t *testing.T) {
	e := NewEntropy([2]uint64{})
	const flows = 4096
	var set [32]int
	c := newChunk(t)
	for i := range flows {
		h := e.Of(c.parsed(t, pkttest.TCP(netip.AddrPortFrom(client.Addr(), uint16(i)), server).Frame(hostA, hostB)))
		for b := range set {
			set[b] += int(h >> b & 1)
		}
	}
	for b, n := range set {
		if n < flows/2-200 || n > flows/2+200 { // six standard deviations
			t.Errorf("bit %d is set in %d of %d hashes", b, n, flows)
		}
	}
}
