package dataplane_test

import (
	"bytes"
	"slices"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
)

// TestExpressOrder gives express vectors in which frames that the stages must see to stand between others, and says what leaves in which order:
// those of express first, and of each connection all in the order in which they came.
func TestExpressOrder(t *testing.T) {
	a, b := randomClient(0), randomClient(1)
	ack := func(seq uint32) pkttest.Packet { return pkttest.TCP(a, vip).Seq(seq).Ack(1) }
	other := func(seq uint32) pkttest.Packet { return pkttest.TCP(b, vip).Seq(seq).Ack(1) }
	stray := pkttest.TCP(randomClient(5), vip).Ack(1)
	for _, c := range []struct {
		name  string
		in    []pkttest.Packet
		want  []uint32 // sequence numbers, those of b from 1000 on
		drops map[Drop]uint64
	}{
		{name: "all are for express", in: []pkttest.Packet{ack(1), other(1001), ack(2)}, want: []uint32{1, 1001, 2}},
		{name: "a stray between frames of one connection", in: []pkttest.Packet{ack(1), stray.RST(), ack(2)}, want: []uint32{1, 2},
			drops: map[Drop]uint64{DropNoConnection: 1}},
		{name: "what comes behind a FIN stays behind it", in: []pkttest.Packet{ack(1), other(1001), ack(2).FIN(), ack(3), other(1002)},
			want: []uint32{1, 1001, 1002, 2, 3}},
		{name: "what comes behind a frame with IP options stays behind it", in: []pkttest.Packet{ack(1).Options(1, 1, 1, 0), other(1001), ack(2)},
			want: []uint32{1001, 1, 2}},
		{name: "what comes behind a first fragment stays behind it",
			in: []pkttest.Packet{ack(1).Size(60).Fragment(7, 0, true), other(1001), ack(2)}, want: []uint32{1001, 1, 2}},
		{name: "nothing waits for what is malformed", in: []pkttest.Packet{ack(1).BadIPChecksum(), ack(2), other(1001)}, want: []uint32{2, 1001},
			drops: map[Drop]uint64{DropIPChecksum: 1}},
		{name: "all are for the stages", in: []pkttest.Packet{ack(1).FIN(), stray.RST(), other(1001).FIN(), ack(2)}, want: []uint32{1, 1001, 2},
			drops: map[Drop]uint64{DropNoConnection: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newBed(t)
			x.open(a, vip, web)
			x.open(b, vip, web)
			for _, p := range c.in {
				x.fromClient(p.Bytes())
			}
			before, _ := x.engine.Verdicts()
			x.round()
			var got []uint32
			for f := x.take(lan); f != nil; f = x.take(lan) {
				ip := f[14:]
				got = append(got, seqOf(ip[int(ip[0]&15)*4-20:]))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("left %d, want %d", got, c.want)
			}
			after, drops := x.engine.Verdicts()
			if n := after.Forwarded - before.Forwarded; n != uint64(len(c.want)) {
				t.Errorf("%d forwarded, want %d", n, len(c.want))
			}
			for d, n := range drops {
				if n != c.drops[Drop(d)] {
					t.Errorf("%d dropped as %s, want %d", n, Drop(d), c.drops[Drop(d)])
				}
			}
		})
	}
}

// TestExpressMany fills a vector with frames of 64 connections, the first so many of which the stages must see to: nothing is lost, and each flow
// leaves in order.
func TestExpressMany(t *testing.T) {
	for _, beside := range []int{0, 1, 127, 255} {
		x := newBed(t)
		for i := range uint16(64) {
			x.through(false, pkttest.UDP(randomClient(i), dns).Bytes())
		}
		before, _ := x.engine.Verdicts()
		next := [64]byte{}
		const vector = 250 // a bed has 256 chunks
		for i := range vector {
			flow := i % 64
			p := pkttest.UDP(randomClient(uint16(flow)), dns).Payload([]byte{next[flow]})
			if next[flow]++; i < beside {
				p = p.NoChecksum()
			}
			x.fromClient(p.Bytes())
		}
		x.round()
		after, _ := x.engine.Verdicts()
		if n := after.Forwarded - before.Forwarded; n != vector {
			t.Errorf("%d for the stages: %d of %d forwarded", beside, n, vector)
		}
		seen := map[string]byte{}
		for f := x.take(lan); f != nil; f = x.take(lan) {
			flow := string(flowOf(f))
			if n := f[14+28]; n != seen[flow] {
				t.Fatalf("%d for the stages: number %d of a flow left, want %d", beside, n, seen[flow])
			}
			seen[flow]++
		}
	}
}

// FuzzExpressVector gives both engines of TestExpress a vector of frames that a script makes, three bytes each: whose, of what kind, how long. What leaves,
// flow by flow, and all that is counted must be the same.
func FuzzExpressVector(f *testing.F) {
	f.Add([]byte{0, 0, 9, 1, 0, 9, 0, 2, 0, 0, 0, 4, 1, 0, 7})                // data, FIN, data of one connection beside another
	f.Add([]byte{0, 3, 0, 0, 0, 1, 8, 0, 1, 8, 2, 1, 0, 0, 2})                // RST, and what both sides sent behind it
	f.Add([]byte{2, 5, 9, 2, 0, 1, 3, 6, 9, 3, 0, 2, 3, 7, 0, 3, 0, 1})       // options, fragments
	f.Add([]byte{4, 1, 0, 4, 0, 0, 4, 0, 1, 5, 0, 1, 5, 1, 0, 5, 0, 1})       // new connections and what follows in the vector
	f.Add([]byte{16, 0, 1, 16, 8, 1, 16, 0, 2, 17, 9, 1, 17, 0, 1, 24, 0, 0}) // datagrams: without a checksum, with a TTL of one
	f.Add([]byte{32, 0, 9, 0, 0, 9, 32, 2, 0, 32, 0, 4, 41, 0, 7, 40, 0, 7})  // both families, FIN
	f.Add([]byte{33, 0, 9, 33, 6, 9, 33, 0, 0, 48, 0, 4, 48, 9, 7, 34, 5, 1}) // IPv6: a fragment between, a hop limit of one, an extension header
	beds := newTwins(f, withDNS6(f), func(s *Snapshot, _ *Engine) { s.Ports[lan].MTU = 1400 })
	f.Fuzz(func(t *testing.T, script []byte) {
		for _, b := range beds {
			b.t = t
			b.now += 2000e9
			b.worker.ExpireAll(b.now)
			b.round()
			for flow := range uint16(4) { // two are new to the script
				b.open(randomClient(flow), vip, web)
				b.open(randomClient6(flow), vip6, web6)
				b.through(false, pkttest.UDP(randomClient(flow), dns).Bytes())
				b.through(false, pkttest.UDP(randomClient6(flow), dns6).Bytes())
			}
		}
		for n := 0; len(script) >= 3 && n < 200; n, script = n+1, script[3:] {
			port, p := scripted(script[0], script[1], script[2])
			for _, b := range beds {
				if port == wan {
					b.fromClient(p.Bytes())
				} else {
					b.fromServer(p.Bytes())
				}
			}
		}
		for _, b := range beds {
			b.round()
		}
		for _, port := range []int{wan, lan} {
			if a, b := left(beds[0], port), left(beds[1], port); !slices.EqualFunc(a, b, bytes.Equal) {
				t.Fatalf("at port %d left %s\nthrough the stages %s", port, shown(a), shown(b))
			}
		}
		if a, b := state(beds[0]), state(beds[1]); a != b {
			t.Fatalf("counted %+v\nthrough the stages %+v", a, b)
		}
	})
}

// scripted is the frame that three bytes of FuzzExpressVector say. Bit 3 of whose is the server's side, bit 4 UDP, bit 5 IPv6.
func scripted(whose, kind, size byte) (port int, p pkttest.Packet) {
	c, web, dnsReal, vip, dns := randomClient(uint16(whose%8%6)), web, dnsReal, vip, dns
	v6 := whose&32 != 0
	if v6 {
		c, web, dnsReal, vip, dns = randomClient6(uint16(whose%8%6)), web6, dnsReal6, vip6, dns6
	}
	from, to := c, vip
	udp := whose&16 != 0
	if udp {
		to = dns
	}
	if whose&8 != 0 {
		if from, to, port = web, c, lan; udp {
			from = dnsReal
		}
	}
	if udp {
		p = pkttest.UDP(from, to)
	} else {
		p = pkttest.TCP(from, to).Seq(uint32(size)).Ack(1)
	}
	p = p.Size(len(p.Bytes()) + int(size))
	switch kind % 16 {
	case 1:
		if !udp {
			p = pkttest.TCP(from, to).SYN()
		}
	case 2:
		if !udp {
			p = p.FIN()
		}
	case 3:
		if !udp {
			p = pkttest.TCP(from, to).Seq(uint32(size)).RST()
		}
	case 4:
		p = p.Size(1450)
	case 5:
		if v6 {
			p = p.HopByHop()
		} else {
			p = p.Options(1, 1, 1, 0)
		}
	case 6:
		p = p.Fragment(uint32(size), 0, true)
	case 7:
		p = p.Fragment(uint32(size), 64, false)
	case 8:
		switch {
		case !udp:
			p = p.SYN()
		case !v6:
			p = p.NoChecksum()
		}
	case 9:
		p = p.TTL(1)
	case 10:
		p = p.BadChecksum()
	case 11:
		if !v6 {
			p = p.BadIPChecksum()
		}
	case 12:
		quoted := pkttest.TCP(to, from)
		if udp {
			quoted = pkttest.UDP(to, from)
		}
		if v6 {
			p = pkttest.ICMPError(from.Addr(), to.Addr(), 1, 4, 0, quoted.Bytes())
		} else {
			p = pkttest.ICMPPortUnreachable(from.Addr(), to.Addr(), quoted.Bytes())
		}
	}
	return port, p
}
