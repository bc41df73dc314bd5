package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/route"
)

var (
	dns6     = netip.MustParseAddrPort("[2001:db8:9::9]:53")
	dnsReal6 = netip.MustParseAddrPort("[2001:db8:1::10]:5353")
	router6  = netip.MustParseAddr("2001:db8::2")
)

// withDNS6 adds dns6, whose server has the ID that follows those of the bed.
func withDNS6(t testing.TB) bedOption {
	return serving{vip: dns6, protocol: packet.ProtoUDP, servers: []Backend{server(dnsReal6, ForwardNAT)}}.option(t)
}

// TestExpress6 is TestExpress for IPv6, with some IPv4 in the same vectors.
func TestExpress6(t *testing.T) {
	seeds := uint64(8)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 6))
		beds := newTwins(t, withDNS6(t), func(s *Snapshot, _ *Engine) {
			s.Ports[lan].MTU = 1400
			if seed%2 == 1 { // two routers: the hop differs from flow to flow
				s.Routes = route.NewTable([]route.Route{
					{To: netip.MustParsePrefix("198.18.128.0/17"), Hops: []route.Hop{{Via: router, Port: wan, Weight: 1}}},
					{To: netip.MustParsePrefix("198.18.1.0/24"), Hops: []route.Hop{{Port: lan, Weight: 1}}},
					{To: netip.MustParsePrefix("2001:db8:c::/48"), Hops: []route.Hop{{Via: router6, Port: wan, Weight: 1}, {Via: second6, Port: lan, Weight: 1}}},
					{To: netip.MustParsePrefix("2001:db8:1::/64"), Hops: []route.Hop{{Port: lan, Weight: 1}}},
				})
			}
		})
		sent, unparsed := 0, 0
		for step := range 400 {
			for range 1 + r.IntN(40) {
				port, p := randomPacket6(r)
				if r.IntN(4) == 0 {
					port, p = randomPacket(r)
				}
				f := p.Frame(routerMAC, wanMAC)
				if port == lan {
					f = p.Frame(webMAC, lanMAC)
				}
				if r.IntN(4) == 0 {
					f = append(f, make([]byte, r.IntN(20))...) // padding, which must not leave again
				}
				beds[0].inject(port, f)
				beds[1].inject(port, f)
			}
			now := beds[0].now + int64(r.IntN(4))*int64(r.IntN(20e9))
			change := r.IntN(20)
			for _, b := range beds {
				b.now = now
				switch {
				case change == 0:
					b.snap.Neighbors = neighbors(router6)
				case change == 1:
					b.snap.Neighbors = neighbors()
				case change == 2:
					b.snap.Backends = slices.Clone(b.snap.Backends)
					b.snap.Backends[2].Live = !b.snap.Backends[2].Live
				}
				if change <= 2 {
					b.publish()
				}
				b.round()
			}
			unparsed += beds[0].worker.Unparsed()
			for _, port := range []int{wan, lan} {
				a, b := left(beds[0], port), left(beds[1], port)
				if !slices.EqualFunc(a, b, bytes.Equal) {
					t.Fatalf("seed %d, step %d: at port %d left %s\nthrough the stages %s", seed, step, port, shown(a), shown(b))
				}
				sent += len(a)
			}
			if a, b := state(beds[0]), state(beds[1]); a != b {
				t.Fatalf("seed %d, step %d: counted %+v\nthrough the stages %+v", seed, step, a, b)
			}
		}
		if sent < 500 || unparsed < 50 {
			t.Errorf("seed %d: only %d frames left, and for %d a glance was enough", seed, sent, unparsed)
		}
	}
}

// randomPacket6 is randomPacket for IPv6.
func randomPacket6(r *rand.Rand) (port int, p pkttest.Packet) {
	flow := uint16(r.IntN(6))
	c := randomClient6(flow)
	if r.IntN(3) == 0 {
		c = netip.AddrPortFrom(netip.MustParseAddr("2001:db8:1::77"), 4000+flow) // on the servers' link, and unknown there
	}
	udp := r.IntN(3) == 0
	from, to := c, vip6
	if udp {
		to = dns6
	}
	if r.IntN(2) == 0 {
		from, to, port = web6, c, lan
		if udp {
			from = dnsReal6
		}
	}
	if udp {
		p = pkttest.UDP(from, to)
	} else {
		p = pkttest.TCP(from, to).Seq(uint32(r.IntN(1000)))
		switch r.IntN(14) {
		case 0:
			p = p.SYN()
		case 1:
			p = p.SYN().Ack(1)
		case 2:
			p = p.FIN().Ack(1)
		case 3:
			p = p.RST()
		default:
			p = p.Ack(1)
		}
	}
	p = p.Size(len(p.Bytes()) + r.IntN(60))
	switch r.IntN(24) {
	case 0:
		p = p.TTL(1)
	case 1:
		p = p.TTL(2)
	case 2:
		p = p.BadChecksum()
	case 3:
		p = p.Size(1450)
	case 4:
		p = p.HopByHop()
	case 5:
		p = p.Fragment(uint32(r.IntN(3)), r.IntN(2)*64, r.IntN(2) == 0)
	}
	return port, p
}

func randomClient6(flow uint16) netip.AddrPort {
	a := client6.Addr().As16()
	a[15] += byte(flow)
	return netip.AddrPortFrom(netip.AddrFrom16(a), 4000+flow)
}

// TestExpress6Way sends to clients of two networks behind two routers, whose addresses agree in the bits that pick a way, and to a tagged port.
func TestExpress6Way(t *testing.T) {
	far := netip.MustParseAddrPort("[2001:db8:d::7]:4000")
	b := newBed(t, func(s *Snapshot, _ *Engine) {
		s.Ports[wan].VLAN = 7
		s.Routes = route.NewTable([]route.Route{
			{To: netip.MustParsePrefix("2001:db8:c::/48"), Hops: []route.Hop{{Via: router6, Port: wan, Weight: 1}}},
			{To: netip.MustParsePrefix("2001:db8:d::/48"), Hops: []route.Hop{{Via: second6, Port: lan, Weight: 1}}},
			{To: netip.MustParsePrefix("2001:db8:1::/64"), Hops: []route.Hop{{Port: lan, Weight: 1}}},
		})
	})
	in := func(p pkttest.Packet) { b.inject(wan, pkttest.Frame(p.Bytes(), routerMAC, wanMAC, 7)) }
	for _, c := range []netip.AddrPort{client6, far} {
		in(pkttest.TCP(c, vip6).SYN())
		b.round()
		b.fromServer(pkttest.TCP(web6, c).SYN().Ack(1).Bytes())
		b.round()
		in(pkttest.TCP(c, vip6).Seq(1).Ack(1))
		b.round()
	}
	left(b, wan)
	left(b, lan)
	for range 2 { // the first settles the way
		for _, c := range []netip.AddrPort{client6, far} {
			b.fromServer(pkttest.TCP(web6, c).Seq(1).Ack(1).Bytes())
		}
		b.round()
		if n := b.worker.Unparsed(); n != 2 {
			t.Errorf("%d of 2 frames went by express", n)
		}
	}
	near, away := left(b, wan), left(b, lan)
	if len(near) != 2 || len(away) != 2 {
		t.Fatalf("%d left by the first router and %d by the second, want 2 and 2", len(near), len(away))
	}
	for i := range 2 {
		if want := pkttest.TCP(vip6, client6).Seq(1).Ack(1).TTL(63).VLAN(7).Frame(wanMAC, routerMAC); !bytes.Equal(near[i], want) {
			t.Errorf("by the first router left % x, want % x", near[i], want)
		}
		if want := pkttest.TCP(vip6, far).Seq(1).Ack(1).TTL(63).Frame(lanMAC, secondMAC); !bytes.Equal(away[i], want) {
			t.Errorf("by the second left % x, want % x", away[i], want)
		}
	}
}

// TestExpress6SumOfZero sends a datagram whose checksum becomes zero when it is translated: it must go as 0xffff.
func TestExpress6SumOfZero(t *testing.T) {
	b := newBed(t, withDNS6(t))
	b.through(false, pkttest.UDP(client6, dns6).Bytes())
	send := func(word uint16) (frame []byte, sum uint16) {
		b.fromClient(pkttest.UDP(client6, dns6).Payload(binary.BigEndian.AppendUint16(nil, word)).Bytes())
		b.round()
		frame = b.take(lan)
		return frame, binary.BigEndian.Uint16(frame[60:])
	}
	_, without := send(0)
	frame, sum := send(without) // takes the checksum from itself
	if sum != 0xffff || b.worker.Unparsed() != 1 {
		t.Errorf("checksum %#04x, want 0xffff, and by express", sum)
	}
	pkttest.Check(t, frame[14:])
}
