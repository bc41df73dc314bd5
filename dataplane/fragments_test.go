package dataplane_test

import (
	"bytes"
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
)

// datagram is a UDP datagram of the test network in three pieces, and the same as it must arrive.
func datagram(from, to, asFrom, asTo netip.AddrPort, id uint32) (in, out [][]byte) {
	p := pkttest.UDP(from, to).Size(3000).ID(uint16(id))
	q := pkttest.UDP(asFrom, asTo).Size(3000).ID(uint16(id)).TTL(63)
	return p.Cut(id, 1000, 2000), q.Cut(id, 1000, 2000)
}

func TestFragments(t *testing.T) {
	b := newBed(t)
	in, out := datagram(client, dns, client, dnsReal, 7)
	answer, translated := datagram(dnsReal, client, dns, client, 9)
	swapped, arrives := datagram(client, dns, client, dnsReal, 8)
	run(t, b, []step{
		{name: "the first opens the connection", in: in[0], verdict: Forwarded, port: lan, want: out[:1]},
		{name: "the second follows it", in: in[1], verdict: Forwarded, port: lan, want: out[1:2]},
		{name: "twice is once", in: in[1], verdict: Dropped, drop: DropFragmentDuplicate},
		{name: "and the third", in: in[2], verdict: Forwarded, port: lan, want: out[2:]},
		{name: "the server's answer", in: answer[0], server: true, verdict: Forwarded, port: wan, want: translated[:1]},
		{name: "in pieces, too", in: answer[2], server: true, verdict: Forwarded, port: wan, want: translated[2:]},
		{name: "in any order", in: answer[1], server: true, verdict: Forwarded, port: wan, want: translated[1:2]},
		{name: "one before its first waits", in: swapped[2], verdict: Held},
		{name: "not in vain", wait: 1e6, in: swapped[0], verdict: Forwarded, port: lan, want: [][]byte{arrives[0], arrives[2]}},
		{name: "time exceeded is not for later fragments", in: expired(swapped[1]), verdict: Dropped, drop: DropTTL},
	})
	if n := b.worker.Backends[1].Sum(); n.Conns != 1 || n.InPackets != 5 || n.OutPackets != 3 {
		t.Errorf("counted %+v", n)
	}
}

func expired(ip []byte) []byte {
	ip = bytes.Clone(ip)
	ip[8] = 1
	return pkttest.Seal(ip)
}

func TestFragmentsWithoutFirst(t *testing.T) {
	b := newBed(t)
	in, _ := datagram(client, dns, client, dnsReal, 7)
	own, _ := datagram(dnsReal, netip.MustParseAddrPort("198.18.0.99:53"), dnsReal, dns, 7)
	run(t, b, []step{
		{name: "from a client it waits", in: in[1], verdict: Held},
		{name: "from a server, too", in: own[1], server: true, verdict: Held},
		{name: "less long: it is the server's own", wait: 5e6, verdict: Pending},
	})
	if v, _ := b.engine.Verdicts(); v.Punted != 1 || v.Held != 1 {
		t.Errorf("after 5 ms: %+v", v)
	}
	b.now += 245e6
	b.round()
	if v, drops := b.engine.Verdicts(); v.Held != 0 || drops[DropFragmentAlone] != 1 {
		t.Errorf("after 250 ms: %+v", v)
	}
	for i := range 200 {
		p := pkttest.UDP(client, dns).Size(3000).ID(uint16(100+i)).Cut(uint32(100+i), 1000, 2000)
		b.fromClient(p[1])
		b.round()
	}
	if v, drops := b.engine.Verdicts(); v.Held != 64 || drops[DropFragmentAlone] != 1+200-64 {
		t.Errorf("a flood: %d wait, %d dropped", v.Held, drops[DropFragmentAlone])
	}
}

func TestFragmentsThatOverlap(t *testing.T) {
	b := newBed(t)
	p := pkttest.UDP(client, dns).Size(3000).ID(7)
	good, evil := p.Cut(7, 1000, 2000), p.Cut(7, 992, 2000)
	_, out := datagram(client, dns, client, dnsReal, 7)
	run(t, b, []step{
		{name: "first", in: good[0], verdict: Forwarded, port: lan, want: out[:1]},
		{name: "one that begins within it", in: evil[1], verdict: Dropped, drop: DropFragmentOverlap},
		{name: "spoils the datagram", in: good[2], verdict: Dropped, drop: DropFragmentOverlap},
	})
	b = newBed(t)
	var at []int
	for i := 1; i <= 33; i++ {
		at = append(at, 8*i)
	}
	many := pkttest.UDP(client, dns).Size(600).ID(9).Cut(9, at...)
	for _, f := range many {
		b.fromClient(f)
		b.round()
	}
	if v, drops := b.engine.Verdicts(); v.Forwarded != 32 || drops[DropFragmentMany] != 1 || drops[DropFragmentOverlap] != 1 {
		t.Errorf("34 pieces: %d forwarded, %d too many, %d after that", v.Forwarded, drops[DropFragmentMany], drops[DropFragmentOverlap])
	}
}

// TestIdentificationComesRound: 65536 datagrams are soon sent, and then the first one's identification is used again.
func TestIdentificationComesRound(t *testing.T) {
	b := newBed(t)
	b.open(client6, vip6, web6)
	v4 := pkttest.UDP(client, dns).Size(3000).ID(7).Cut(7, 1000, 2000)
	v6 := pkttest.TCP(client6, vip6).Seq(1).Ack(1).Size(3000).Cut(7, 1200, 2400)
	for range 3 {
		for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {2, 0, 1}} {
			for _, all := range [][][]byte{v4, v6} {
				for _, i := range order {
					b.fromClient(all[i])
					b.round()
					b.take(lan)
				}
			}
		}
	}
	b.round()
	if v, drops := b.engine.Verdicts(); v.Forwarded != 3+3*3*2*3 {
		t.Errorf("%d forwarded, drops %v", v.Forwarded, dropsOf([NumDrops]uint64{}, drops))
	}
}

func TestFragments6(t *testing.T) {
	b := newBed(t)
	b.open(client6, vip6, web6)
	in := pkttest.TCP(client6, vip6).Seq(1).Ack(1).Size(3000).Cut(7, 1200, 2400)
	out := pkttest.TCP(client6, web6).Seq(1).Ack(1).TTL(63).Size(3000).Cut(7, 1200, 2400)
	run(t, b, []step{
		{name: "first", in: in[0], verdict: Forwarded, port: lan, want: out[:1]},
		{name: "last", in: in[2], verdict: Forwarded, port: lan, want: out[2:]},
		{name: "between", in: in[1], verdict: Forwarded, port: lan, want: out[1:2]},
	})
}

// TestFragments6BehindOptions: the fragments other than the first name what stands right behind the fragment header, which need not be the transport's
// header, and need not be what the first one names (RFC 8200 section 4.5).
func TestFragments6BehindOptions(t *testing.T) {
	b := newBed(t)
	b.open(client6, vip6, web6)
	in := pkttest.TCP(client6, vip6).Seq(1).Ack(1).DestOptions().Size(3000).Cut(7, 1200, 2400)
	out := pkttest.TCP(client6, web6).Seq(1).Ack(1).DestOptions().TTL(63).Size(3000).Cut(7, 1200, 2400)
	run(t, b, []step{
		{name: "first", in: in[0], verdict: Forwarded, port: lan, want: out[:1]},
		{name: "last", in: in[2], verdict: Forwarded, port: lan, want: out[2:]},
		{name: "between", in: in[1], verdict: Forwarded, port: lan, want: out[1:2]},
		{name: "twice is once", in: in[1], verdict: Dropped, drop: DropFragmentDuplicate},
	})
}
