package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/route"
)

// low gives out frames that begin with their chunks. Express leaves them to the stages, as they have no room for a tag more; nothing else
// depends on it while no port has a tag.
type low struct {
	driver.Queue
	pool *packet.Pool
}

func (q low) Receive(d []packet.Desc) int {
	n := q.Queue.Receive(d)
	for i := range d[:n] {
		base := d[i].Addr &^ uint64(q.pool.ChunkSize()-1)
		copy(q.pool.Memory()[base:], q.pool.Bytes(d[i]))
		d[i].Addr = base
	}
	return n
}

// newTwins are two beds that differ in that express takes nothing from the second.
func newTwins(t testing.TB, options ...bedOption) [2]*bed {
	return [2]*bed{newBed(t, options...), newBedOver(t, func(q driver.Queue, p *packet.Pool) driver.Queue { return low{q, p} }, options...)}
}

// TestExpress plays the same random traffic into two engines. In one express takes what it can, in the other all goes through the stages. What
// leaves, in which order within each flow, and all that is counted must be the same.
func TestExpress(t *testing.T) {
	seeds := uint64(16)
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 1))
		options := []bedOption{func(s *Snapshot, _ *Engine) {
			s.Ports[lan].MTU = 1400
			if seed%2 == 1 { // two routers: the hop differs from flow to flow
				s.Routes = route.NewTable([]route.Route{
					{To: netip.MustParsePrefix("198.18.128.0/17"), Hops: []route.Hop{{Via: router, Port: wan, Weight: 1}, {Via: second, Port: lan, Weight: 1}}},
					{To: netip.MustParsePrefix("198.18.1.0/24"), Hops: []route.Hop{{Port: lan, Weight: 1}}},
				})
			}
			if seed%4 >= 2 {
				all := slices.Clone(s.Services.All)
				all[0].Cookies = CookiesAlways
				s.Services = NewServices(all)
			}
		}}
		beds := newTwins(t, options...)
		quick, slow := beds[0], beds[1]
		if seed%4 >= 2 { // connections of two halves
			for _, b := range beds {
				for flow := range uint16(6) {
					c := randomClient(flow)
					b.fromClient(pkttest.TCP(c, vip).SYN().Bytes())
					b.round()
					cookie := b.take(wan)
					if cookie == nil {
						cookie = b.take(lan) // by the other router
					}
					b.fromClient(pkttest.TCP(c, vip).Seq(1).Ack(seqOf(cookie[14:]) + 1).Bytes())
					b.round()
					b.fromServer(pkttest.TCP(web, c).SYN().Seq(uint32(flow) << 29).Ack(1).Bytes())
					b.round()
					left(b, lan)
					left(b, wan)
				}
			}
		}
		express := 0
		for step := range 400 {
			for range 1 + r.IntN(40) {
				port, p := randomPacket(r)
				f := p.Frame(routerMAC, wanMAC)
				if port == lan {
					f = p.Frame(webMAC, lanMAC)
				}
				if r.IntN(4) == 0 {
					f = pkttest.Pad(f, 64) // Ethernet padding, which must not leave again
				}
				quick.inject(port, f)
				slow.inject(port, f)
			}
			now := quick.now + int64(r.IntN(4))*int64(r.IntN(20e9))
			change := r.IntN(20)
			for _, b := range beds {
				b.now = now
				switch {
				case change == 0:
					b.snap.Neighbors = neighbors(router)
				case change == 1:
					b.snap.Neighbors = neighbors()
				case change == 2:
					b.snap.Backends = slices.Clone(b.snap.Backends)
					b.snap.Backends[0].Live = !b.snap.Backends[0].Live
				case change == 3: // a drained server: a SYN to it is scheduled anew
					b.snap.Backends = slices.Clone(b.snap.Backends)
					b.snap.Backends[0].ExpireNow = !b.snap.Backends[0].ExpireNow
					b.snap.Backends[0].Weight ^= 1
				}
				if change <= 3 {
					b.publish()
				}
				b.round()
			}
			for _, port := range []int{wan, lan} {
				a, b := left(quick, port), left(slow, port)
				if !slices.EqualFunc(a, b, bytes.Equal) {
					t.Fatalf("seed %d, step %d: at port %d left %s\nthrough the stages %s", seed, step, port, shown(a), shown(b))
				}
				express += len(a)
			}
			if a, b := state(quick), state(slow); a != b {
				t.Fatalf("seed %d, step %d: counted %+v\nthrough the stages %+v", seed, step, a, b)
			}
		}
		if express < 500 {
			t.Errorf("seed %d: only %d frames left", seed, express)
		}
	}
}

// left are the frames that left by a port, flow by flow, those of a flow in their order, and behind them, sorted, what may be an answer of ours: a stage
// answers what it drops of all frames that it takes together, before the next stage does.
func left(b *bed, port int) [][]byte {
	var frames, answers [][]byte
	for f := b.take(port); f != nil; f = b.take(port) {
		ip := f[14:]
		if ip[0]>>4 == 6 {
			if ip[6] == packet.ProtoICMPv6 || ip[6] == packet.ProtoTCP && ip[53]&packet.TCPRst != 0 {
				answers = append(answers, f)
			} else {
				frames = append(frames, f)
			}
		} else if ip[9] == packet.ProtoICMP || ip[9] == packet.ProtoTCP && (ip[33]&packet.TCPRst != 0 || ip[6]&0x40 != 0 && len(ip) <= 60) {
			clear(ip[4:6]) // identifications are given out in the order in which packets are made
			clear(ip[10:12])
			answers = append(answers, f)
		} else {
			frames = append(frames, f)
		}
	}
	slices.SortStableFunc(frames, func(a, b []byte) int { return bytes.Compare(flowOf(a), flowOf(b)) })
	slices.SortFunc(answers, bytes.Compare)
	return append(frames, answers...)
}

// flowOf is what the packets of a flow have in common: protocol, addresses and ports. Later fragments have no ports, so there it is the datagram.
func flowOf(frame []byte) []byte {
	ip := frame[14:]
	if ip[0]>>4 == 6 { // behind an extension header it is that in place of the ports
		return slices.Concat(ip[6:7], ip[8:44])
	}
	if ip[0] == 0x45 && binary.BigEndian.Uint16(ip[6:])&0x1fff == 0 {
		return slices.Concat(ip[9:10], ip[12:24])
	}
	return slices.Concat(ip[9:10], ip[12:20], ip[4:6])
}

func shown(frames [][]byte) (s string) {
	for _, f := range frames {
		s += "\n\t" + pkttest.String(f[14:])
	}
	return s
}

// randomPacket is one between the few addresses and ports that the bed's services, their clients and servers have.
func randomPacket(r *rand.Rand) (port int, p pkttest.Packet) {
	flow := uint16(r.IntN(6))
	c := randomClient(flow)
	if r.IntN(3) == 0 {
		c = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 1, 77}), 4000+flow) // on the servers' link, and unknown there
	}
	udp := r.IntN(3) == 0
	from, to := c, vip
	if udp {
		to = dns
	}
	if r.IntN(2) == 0 {
		from, to, port = web, c, lan
		if udp {
			from = dnsReal
		}
	}
	if udp {
		p = pkttest.UDP(from, to)
		if r.IntN(8) == 0 {
			p = p.NoChecksum()
		}
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
		p = p.BadIPChecksum()
	case 4:
		p = p.Size(1450)
	case 5:
		p = p.Size(1450).DF()
	case 6:
		p = p.Options(1, 1, 1, 0)
	case 7:
		p = p.Fragment(uint32(r.IntN(3)), r.IntN(2)*64, r.IntN(2) == 0)
	}
	return port, p
}

func randomClient(flow uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 128, byte(7 + flow)}), 4000+flow)
}

// counted is all that express counts beside the stages.
type counted struct {
	verdicts Verdicts
	drops    [NumDrops]uint64
	traffic  [4]Traffic
	conns    int
	packets  uint64 // of all connections
	states   [conntrack.NumStates]int
	held     int
}

func state(b *bed) (c counted) {
	c.verdicts, c.drops = b.engine.Verdicts()
	for id := range c.traffic {
		c.traffic[id] = b.engine.Backend(uint32(id))
	}
	b.engine.Table.Range(conntrack.TickOf(b.now), func(i *conntrack.Info) bool {
		c.conns++
		c.packets = c.packets*31 + i.InPackets<<32 + i.OutPackets + uint64(i.Expires)<<16
		c.states[i.State]++
		return true
	})
	c.held = b.worker.Holding()
	return c
}

// TestExpressSumOfZero sends a datagram whose checksum becomes zero when it is translated: it must go as 0xffff.
func TestExpressSumOfZero(t *testing.T) {
	b := newBed(t)
	b.through(false, pkttest.UDP(client, dns).Bytes())
	send := func(word uint16) (frame []byte, sum uint16) {
		b.fromClient(pkttest.UDP(client, dns).Payload(binary.BigEndian.AppendUint16(nil, word)).Bytes())
		b.round()
		frame = b.take(lan)
		return frame, binary.BigEndian.Uint16(frame[40:])
	}
	_, without := send(0)
	frame, sum := send(without) // takes the checksum from itself
	if sum != 0xffff {
		t.Errorf("checksum %#04x, want 0xffff", sum)
	}
	pkttest.Check(t, frame[14:])
}

// TestExpressTag translates between a tagged and an untagged port.
func TestExpressTag(t *testing.T) {
	b := newBed(t, func(s *Snapshot, _ *Engine) { s.Ports[wan].VLAN = 7 })
	in := func(p pkttest.Packet) { b.inject(wan, pkttest.Frame(p.Bytes(), routerMAC, wanMAC, 7)); b.round() }
	in(pkttest.TCP(client, vip).SYN())
	b.fromServer(pkttest.TCP(web, client).SYN().Ack(1).Bytes())
	b.round()
	for range 2 {
		in(pkttest.TCP(client, vip).Seq(1).Ack(1))
		b.fromServer(pkttest.TCP(web, client).Seq(1).Ack(1).Bytes())
		b.round()
	}
	plain, tagged := left(b, lan), left(b, wan)
	for i := range 2 {
		if want := pkttest.TCP(client, web).Seq(1).Ack(1).TTL(63).Frame(lanMAC, webMAC); !bytes.Equal(plain[i+1], want) {
			t.Errorf("to the server left % x, want % x", plain[i+1], want)
		}
		if want := pkttest.TCP(vip, client).Seq(1).Ack(1).TTL(63).VLAN(7).Frame(wanMAC, routerMAC); !bytes.Equal(tagged[i+1], want) {
			t.Errorf("to the client left % x, want % x", tagged[i+1], want)
		}
	}
}

// FuzzExpress gives both engines of TestExpress one frame of any bytes, of an established connection to begin with: glance must not take for plain
// what packet.Parse does not.
func FuzzExpress(f *testing.F) {
	for _, p := range []pkttest.Packet{
		pkttest.TCP(client, vip).Ack(1), pkttest.TCP(client, vip).Ack(1).Size(90).TTL(2), pkttest.TCP(client, vip).FIN(),
		pkttest.UDP(client, dns), pkttest.UDP(client, dns).NoChecksum(), pkttest.UDP(client, dns).Payload(make([]byte, 30)).BadChecksum(),
	} {
		f.Add(p.Frame(routerMAC, wanMAC), false)
	}
	for _, p := range []pkttest.Packet{pkttest.TCP(web, client).Ack(1), pkttest.UDP(dnsReal, client).Size(200), pkttest.TCP(web, client).SYN().Ack(1)} {
		f.Add(p.Frame(webMAC, lanMAC), true)
	}
	for _, p := range []pkttest.Packet{
		pkttest.TCP(client6, vip6).Ack(1), pkttest.TCP(client6, vip6).Ack(1).Size(90).TTL(2), pkttest.TCP(client6, vip6).FIN(),
		pkttest.UDP(client6, dns6), pkttest.TCP(client6, vip6).Ack(1).HopByHop(), pkttest.UDP(client6, dns6).Payload(make([]byte, 30)).BadChecksum(),
	} {
		f.Add(p.Frame(routerMAC, wanMAC), false)
	}
	f.Add(pkttest.TCP(web6, client6).Ack(1).Frame(webMAC, lanMAC), true)
	beds := newTwins(f, withDNS6(f))
	for _, b := range beds {
		b.open(client, vip, web)
		b.open(client6, vip6, web6)
		b.through(false, pkttest.UDP(client, dns).Bytes())
		b.through(false, pkttest.UDP(client6, dns6).Bytes())
	}
	f.Fuzz(func(t *testing.T, frame []byte, fromServer bool) {
		if len(frame) > 1500 {
			t.Skip("longer than the link takes")
		}
		port := wan
		if fromServer {
			port = lan
		}
		for _, b := range beds {
			b.t = t
			b.now += 1e9 // for the limit of answers
			b.inject(port, frame)
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

// BenchmarkUseless is what a frame costs that glance looks at and express has no use for: it pays for both parsers.
func BenchmarkUseless(b *testing.B) {
	table, err := conntrack.New(conntrack.Options{Capacity: 1024, Workers: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer table.Close()
	one := newBed(b)
	e := NewEngine(Options{Table: table, MaxBackends: 64})
	snap := one.snap
	if err := e.Publish(&snap); err != nil {
		b.Fatal(err)
	}
	pool, err := packet.NewPool(make([]byte, 1024*2048), 2048)
	if err != nil {
		b.Fatal(err)
	}
	r := mem.NewRecycler(pool)
	w := e.AddWorker(pool, []driver.Queue{r, mem.NewRecycler(pool)})
	ack := pkttest.TCP(client, vip).Ack(1).Frame(routerMAC, wanMAC) // of no connection: answered with RST, or dropped for the limit
	b.ReportAllocs()
	now := int64(1e12)
	for n := 0; n < b.N; n += 64 {
		r.Fill(ack, 64)
		now += 1000
		w.Round(now)
	}
}
