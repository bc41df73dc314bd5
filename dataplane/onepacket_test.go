package dataplane_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// single is a UDP service each packet of which is scheduled anew.
func single(a ends, way Forward) serving {
	return serving{vip: a.vip, protocol: packet.ProtoUDP, edit: func(s *Service) { s.OnePacket = true },
		servers: []Backend{server(a.web, way), server(netip.AddrPortFrom(a.second, 8000), way)}}
}

func TestOnePacket(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, single(a, ForwardNAT).option(t))
			for i := range 6 {
				in := pkttest.UDP(a.client, a.vip).Payload(payload)
				want := pkttest.UDP(a.client, a.web).Payload(payload).TTL(63)
				if i%2 == 1 {
					want = pkttest.UDP(a.client, netip.AddrPortFrom(a.second, 8000)).Payload(payload).TTL(63)
				}
				if out, _ := b.through(false, in.Bytes()); !bytes.Equal(out, want.Bytes()) {
					t.Errorf("packet %d left as %s, want %s", i, pkttest.String(out), want)
				}
			}
			last := pkttest.UDP(a.client, a.vip).TTL(1)
			run(t, b, []step{
				{name: "the answer is of no connection", in: pkttest.UDP(a.web, a.client).Bytes(), server: true, verdict: Punted},
				{name: "TTL of one is answered", in: last.Bytes(), verdict: Answered, port: wan, loose: true,
					want: one(icmpFrom(pkttest.ICMPTimeExceeded(a.vip.Addr(), a.client.Addr(), last.Bytes())))},
			})
			for i, want := range []uint64{4, 3} {
				if n := b.sum(i); n.Conns != want || n.InPackets != want || n.OutPackets != 0 {
					t.Errorf("server %d: counted %+v, want %d connections of a packet each", i, n, want)
				}
			}
			b.wantCounts("none is left", [3]int{}, [3]int{})
			if n := b.engine.Table.Len(); n != 0 {
				t.Errorf("%d in the table", n)
			}
		})
	}
}

// TestOnePacketEveryWay: the entry of a packet alone serves every way of forwarding, and any number of packets one entry's memory.
func TestOnePacketEveryWay(t *testing.T) {
	for name, a := range families {
		for _, way := range []Forward{ForwardNAT, ForwardDR, ForwardIPIP, ForwardGUE, ForwardGRE} {
			t.Run(fmt.Sprintf("%v %s", way, name), func(t *testing.T) {
				b := newBed(t, single(a, way).option(t))
				n := 3 * b.engine.Table.Cap()
				for range n {
					out, _ := b.through(false, pkttest.UDP(a.client, a.vip).Payload(payload).Bytes())
					if out == nil {
						t.Fatalf("dropped as %v", b.dropped())
					}
				}
				if got := b.sum(0).Conns + b.sum(1).Conns; got != uint64(n) || b.sum(0).Conns != b.sum(1).Conns {
					t.Errorf("%d connections counted, want %d", got, n)
				}
			})
		}
	}
}

// TestOnePacketPieces: a datagram in pieces is one packet.
func TestOnePacketPieces(t *testing.T) {
	a := families["v4"]
	b := newBed(t, single(a, ForwardNAT).option(t))
	for id := range uint32(4) {
		pieces := pkttest.UDP(a.client, a.vip).Size(3000).ID(uint16(id)).Cut(id, 1000, 2000)
		for i, in := range pieces {
			out, _ := b.through(false, in)
			if got := serverOf(out, a.web.Addr(), a.second); got != int(id%2) {
				t.Errorf("datagram %d, piece %d: server %d", id, i, got)
			}
		}
	}
}

// TestOnePacketOfATableThatIsFull needs an entry, if only for a moment.
func TestOnePacketOfATableThatIsFull(t *testing.T) {
	a := families["v4"]
	b := newBed(t, single(a, ForwardNAT).option(t))
	used := 0
	for ; used < 4*b.engine.Table.Cap(); used++ {
		if out, _ := b.through(false, pkttest.TCP(netip.AddrPortFrom(client.Addr(), uint16(1000+used)), vip).SYN().Bytes()); out == nil {
			break
		}
	}
	// Memory is a little more than capacity. What is over goes to packets of this kind, until somebody who holds entries keeps what was used
	// from being used again.
	b.engine.Table.Wake(1)
	defer b.engine.Table.Sleep(1)
	forwarded, dropped := uint64(0), uint64(0)
	for range 20 {
		for range 200 {
			b.fromClient(pkttest.UDP(a.client, a.vip).Bytes())
		}
		b.round()
		for b.take(lan) != nil {
		}
		v, drops := b.engine.Verdicts()
		forwarded += v.Forwarded - b.before.Forwarded
		dropped += drops[DropTableFull] - b.drops[DropTableFull]
	}
	if forwarded+dropped != 20*200 || forwarded == 0 || dropped == 0 {
		t.Errorf("%d dropped for a full table, %d forwarded, of %d", dropped, forwarded, 20*200)
	}
	b.wantCounts("none is left", [3]int{}, [3]int{})
}

// TestOnePacketWithSources: each packet has a local port of its own, in turn; none is held.
func TestOnePacketWithSources(t *testing.T) {
	a := families["v6"]
	x := fullnat(a, 40000, 40003, localIPs["v6"][:1])
	x.protocol, x.edit = packet.ProtoUDP, func(s *Service) { s.OnePacket = true }
	b := newBed(t, x.option(t))
	ports := map[uint16]int{}
	for range 12 {
		out, _ := b.through(false, pkttest.UDP(a.client, a.vip).Bytes())
		ports[source(out).Port()]++
	}
	for port := uint16(40000); port <= 40003; port++ {
		if ports[port] != 3 {
			t.Errorf("ports %v, want four of three packets each", ports)
			break
		}
	}
}
