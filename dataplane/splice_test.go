package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
)

// guarded is a service with cookies for every connection, of one NAT server.
func guarded(name string, edit func(*Service)) serving {
	a := families[name]
	return serving{vip: netip.AddrPortFrom(a.vip.Addr(), 8080), servers: []Backend{server(netip.AddrPortFrom(a.web.Addr(), 9000), ForwardNAT)},
		edit: func(s *Service) {
			s.Cookies = CookiesAlways
			if edit != nil {
				edit(s)
			}
		}}
}

// play puts an IP packet on a side's wire, turns a round, and returns what leaves by each port.
func (b *bed) play(server bool, in []byte) (left [2][][]byte) {
	b.t.Helper()
	switch {
	case in == nil:
	case server:
		b.fromServer(in)
	default:
		b.fromClient(in)
	}
	b.round()
	for p := range b.ports {
		for f := b.take(p); f != nil; f = b.take(p) {
			pkttest.Check(b.t, f[14:])
			left[p] = append(left[p], f[14:])
		}
	}
	return left
}

// takes is what a client that says nothing takes (RFC 9293 section 3.7.1, RFC 8200 section 5).
var takes = map[string]uint16{"v4": 536, "v6": 1220}

// expect compares what left by both ports with what was to.
func (b *bed) expect(what string, left [2][][]byte, toClient, toServer [][]byte) {
	b.t.Helper()
	for port, want := range [2][][]byte{toClient, toServer} {
		if !slices.EqualFunc(left[port], want, bytes.Equal) {
			b.t.Errorf("%s: by port %d left", what, port)
			for _, p := range left[port] {
				b.t.Errorf("\t%s\n\t%x", pkttest.String(p), p)
			}
			for _, p := range want {
				b.t.Errorf("want\t%s\n\t%x", pkttest.String(p), p)
			}
		}
	}
}

// tcpOf is the TCP header of an IP packet without options or extension headers.
func tcpOf(ip []byte) []byte {
	if ip[0]>>4 == 6 {
		return ip[40:]
	}
	return ip[20:]
}

func seqOf(ip []byte) uint32     { return binary.BigEndian.Uint32(tcpOf(ip)[4:]) }
func ackOf(ip []byte) uint32     { return binary.BigEndian.Uint32(tcpOf(ip)[8:]) }
func u32(n uint32) []byte        { return binary.BigEndian.AppendUint32(nil, n) }
func optionsOf(ip []byte) []byte { h := tcpOf(ip); return h[20 : h[12]>>4*4] }

// ts is the timestamp option as Linux writes it outside of a SYN.
func ts(stamp, echo uint32) []byte { return slices.Concat([]byte{1, 1, 8, 10}, u32(stamp), u32(echo)) }

// linuxSYN and linuxAnswer are the options of a SYN and a SYN+ACK of Linux, which scales by 7.
func linuxSYN(mss uint16, stamp, echo uint32) []byte {
	return slices.Concat([]byte{2, 4, byte(mss >> 8), byte(mss), 4, 2, 8, 10}, u32(stamp), u32(echo), []byte{1, 3, 3, 7})
}

// TestCookieHandshake plays a whole connection of a Linux client, whose server scales its windows by another number than we said, packet by packet.
func TestCookieHandshake(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			s := guarded(name, nil)
			b := newBed(t, s.option(t))
			real, base := netip.AddrPortFrom(a.web.Addr(), 9000), b.engine.Table.Len()
			mss := uint16(1460)
			if name == "v6" {
				mss = 1440
			}
			const isn, theirs = 1000, 77

			left := b.play(false, pkttest.TCP(a.client, s.vip).SYN().Seq(isn).TCPOptions(linuxSYN(mss, theirs, 0)...).Bytes())
			if len(left[wan]) != 1 || b.engine.Table.Len() != base {
				t.Fatalf("the SYN was answered by %d packets, and %d connections are there", len(left[wan]), b.engine.Table.Len())
			}
			cookie, stamp := seqOf(left[wan][0]), binary.BigEndian.Uint32(optionsOf(left[wan][0])[8:])
			b.expect("SYN", left, one(pkttest.TCP(s.vip, a.client).SYN().Seq(cookie).Ack(isn+1).Window(0).DF().TCPOptions(linuxSYN(mss, stamp, theirs)...)), nil)

			syn := pkttest.TCP(a.client, real).SYN().Seq(isn).Window(500 << 7).TTL(63).DF().TCPOptions(linuxSYN(mss, theirs+5, 0)...)
			ack := pkttest.TCP(a.client, s.vip).Seq(isn + 1).Ack(cookie + 1).Window(500).TCPOptions(ts(theirs+5, stamp)...)
			b.expect("ACK", b.play(false, ack.Bytes()), nil, one(syn))
			if b.engine.Table.Len() != base+1 || b.engine.Table.HalfOpen() != 1 {
				t.Errorf("after the ACK %d connections, %d half-open", b.engine.Table.Len()-base, b.engine.Table.HalfOpen())
			}
			b.expect("a probe of the closed window asks the server again",
				b.play(false, pkttest.TCP(a.client, s.vip).Seq(isn).Ack(cookie+1).Window(500).TCPOptions(ts(theirs+200, stamp)...).Bytes()), nil, one(syn))

			const server, other = 0xfffffff0, 5000
			synAck := pkttest.TCP(real, a.client).SYN().Seq(server).Ack(isn + 1).Window(65000).
				TCPOptions(slices.Concat([]byte{2, 4, 5, 180, 4, 2, 8, 10}, u32(other), u32(theirs+5), []byte{1, 3, 3, 9})...)
			for _, what := range []string{"SYN+ACK", "the same once more"} {
				b.expect(what, b.play(true, synAck.Bytes()),
					one(pkttest.TCP(s.vip, a.client).Seq(cookie+1).Ack(isn+1).Window(65000>>9<<2).TTL(63).DF().TCPOptions(ts(stamp, theirs+5)...)),
					one(pkttest.TCP(a.client, real).Seq(isn+1).Ack(server+1).Window(500).DF().TCPOptions(ts(theirs+5, other)...)))
			}
			if b.engine.Table.HalfOpen() != 0 {
				t.Error("the connection is still half-open")
			}

			b.expect("a request", b.play(false, pkttest.TCP(a.client, s.vip).PSH().Seq(isn+1).Ack(cookie+1).Window(501).TCPOptions(ts(theirs+9, stamp)...).Payload(payload).Bytes()),
				nil, one(pkttest.TCP(a.client, real).PSH().Seq(isn+1).Ack(0xfffffff1).Window(501).TTL(63).TCPOptions(ts(theirs+9, other)...).Payload(payload)))
			b.expect("an answer", b.play(true, pkttest.TCP(real, a.client).PSH().Seq(0xfffffff1).Ack(isn+19).Window(10).TCPOptions(ts(other+4, theirs+9)...).Payload(payload).Bytes()),
				one(pkttest.TCP(s.vip, a.client).PSH().Seq(cookie+1).Ack(isn+19).Window(40).TTL(63).TCPOptions(ts(stamp+4, theirs+9)...).Payload(payload)), nil)

			// Two SACK blocks, at an even and at an odd offset: numbers that wrap around between them.
			blocks := func(d uint32) []byte { return slices.Concat(u32(101+d), u32(201+d), u32(301+d), u32(401+d)) }
			for _, front := range [][]byte{{1, 1}, {1, 1, 1}, {}} {
				x := append(slices.Clone(front), 5, 18)
				b.expect("SACK", b.play(false, pkttest.TCP(a.client, s.vip).Seq(isn+19).Ack(cookie+1).TCPOptions(append(slices.Clone(x), blocks(cookie)...)...).Bytes()), nil,
					one(pkttest.TCP(a.client, real).Seq(isn+19).Ack(0xfffffff1).TTL(63).TCPOptions(append(slices.Clone(x), blocks(server)...)...)))
			}
			b.expect("the server's SACK is about the client's numbers",
				b.play(true, pkttest.TCP(real, a.client).Seq(3).Ack(isn+19).TCPOptions(append([]byte{1, 1, 5, 10}, append(u32(isn+30), u32(isn+40)...)...)...).Bytes()),
				one(pkttest.TCP(s.vip, a.client).Seq(cookie+19).Ack(isn+19).Window(0xffff).TTL(63).TCPOptions(append([]byte{1, 1, 5, 10}, append(u32(isn+30), u32(isn+40)...)...)...)), nil)

			quoted := pkttest.TCP(s.vip, a.client).Seq(cookie + 19).TTL(63)
			left = b.play(false, pkttest.ICMPTooBig(neighbor(a.client.Addr(), 1), s.vip.Addr(), 1400, quoted.Bytes()).Bytes())
			if len(left[lan]) != 1 || len(left[wan]) != 0 {
				t.Fatalf("an ICMP error made %d packets to the server, %d to the client", len(left[lan]), len(left[wan]))
			}
			if got := seqOf(tcpOf(left[lan][0])[8:]); got != 3 {
				t.Errorf("an ICMP error quotes the server as having sent number %d, want 3", got)
			}

			b.expect("RST", b.play(false, pkttest.TCP(a.client, s.vip).RST().Seq(isn+19).Bytes()), nil, one(pkttest.TCP(a.client, real).RST().Seq(isn+19).TTL(63)))
			sum := b.worker.Counters.Sum()
			if sum.CookiesSent != 1 || sum.CookiesGood != 1 || sum.CookiesBad != 0 || b.engine.Table.Len() != base+1 {
				t.Errorf("counted %+v, %d connections", sum, b.engine.Table.Len())
			}
		})
	}
}

// TestCookieRefused: what is no sign of life opens nothing.
func TestCookieRefused(t *testing.T) {
	const isn = 9
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			s := guarded(name, nil)
			b := newBed(t, s.option(t))
			cookie := seqOf(b.play(false, pkttest.TCP(a.client, s.vip).SYN().Seq(isn).Bytes())[wan][0])
			ack := pkttest.TCP(a.client, s.vip).Seq(isn + 1).Ack(cookie + 1)
			reset := func(n uint32) [][]byte { return one(pkttest.TCP(s.vip, a.client).RST().Seq(n).DF().Window(0)) }
			run(t, b, []step{
				{name: "a wrong number", in: pkttest.TCP(a.client, s.vip).Seq(isn + 1).Ack(cookie + 2).Bytes(), verdict: Answered, port: wan, want: reset(cookie + 2)},
				{name: "another bit of it", in: pkttest.TCP(a.client, s.vip).Seq(isn + 1).Ack((cookie ^ 1<<30) + 1).Bytes(), verdict: Answered, port: wan, want: reset((cookie ^ 1<<30) + 1)},
				{name: "a window scale that was not offered", in: pkttest.TCP(a.client, s.vip).Seq(isn + 1).Ack((cookie ^ 1<<5) + 1).Bytes(), verdict: Answered, port: wan, want: reset((cookie ^ 1<<5) + 1)},
				{name: "another client's", in: pkttest.TCP(netip.AddrPortFrom(neighbor(a.client.Addr(), 1), a.client.Port()), s.vip).Seq(isn + 1).Ack(cookie + 1).Bytes(), verdict: Answered, port: wan,
					want: one(pkttest.TCP(s.vip, netip.AddrPortFrom(neighbor(a.client.Addr(), 1), a.client.Port())).RST().Seq(cookie + 1).DF().Window(0))},
				{name: "of another SYN", in: pkttest.TCP(a.client, s.vip).Seq(isn + 7).Ack(cookie + 1).Payload(payload).Bytes(), verdict: Answered, port: wan, want: reset(cookie + 1)},
				{name: "SYN+ACK", in: ack.SYN().Bytes(), verdict: Answered, port: wan, want: reset(cookie + 1)},
				{name: "RST", in: ack.RST().Bytes(), verdict: Dropped, drop: DropNoConnection},
				{name: "a wrong checksum", in: ack.BadChecksum().Bytes(), verdict: Dropped, drop: DropChecksum},
				{name: "an old one", wait: 138e9, in: ack.Bytes(), verdict: Answered, port: wan, want: reset(cookie + 1)},
			})
			if sum := b.worker.Counters.Sum(); sum.CookiesBad != 6 || sum.CookiesGood != 0 || b.engine.Table.Len() != 0 {
				t.Errorf("counted %+v, %d connections", sum, b.engine.Table.Len())
			}
		})
	}
}

// TestCookieAges: a cookie is good for 69 s at least, whenever it was given out, and for 138 s at most.
func TestCookieAges(t *testing.T) {
	s := guarded("v4", nil)
	b := newBed(t, s.option(t))
	for i := range 40 {
		c := netip.AddrPortFrom(client.Addr(), uint16(5000+i))
		b.now += 3e9
		cookie := seqOf(b.play(false, pkttest.TCP(c, s.vip).SYN().Seq(9).Bytes())[wan][0])
		good := i%2 == 0
		was := b.now
		if b.now += 68e9; !good {
			b.now += 70e9
		}
		before := b.worker.Counters.Sum()
		b.play(false, pkttest.TCP(c, s.vip).Seq(10).Ack(cookie+1).Bytes())
		if after := b.worker.Counters.Sum(); (after.CookiesGood == before.CookiesGood+1) != good || (after.CookiesBad == before.CookiesBad+1) == good {
			t.Errorf("after %d s: from %+v to %+v", (b.now-was)/1e9, before, after)
		}
	}
}

// TestCookieServerSide: what may happen to a server that is asked.
func TestCookieServerSide(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			s := guarded(name, nil)
			b := newBed(t, s.option(t))
			real := netip.AddrPortFrom(a.web.Addr(), 9000)
			begin := func(port uint16) (netip.AddrPort, uint32) {
				c := netip.AddrPortFrom(a.client.Addr(), port)
				cookie := seqOf(b.play(false, pkttest.TCP(c, s.vip).SYN().Seq(9).Bytes())[wan][0])
				if left := b.play(false, pkttest.TCP(c, s.vip).Seq(10).Ack(cookie+1).Bytes()); len(left[lan]) != 1 || len(left[wan]) != 0 {
					t.Fatalf("the ACK made %d packets to the server, %d to the client", len(left[lan]), len(left[wan]))
				}
				return c, cookie
			}
			c, cookie := begin(6001)
			b.expect("the server refuses", b.play(true, pkttest.TCP(real, c).RST().Seq(0).Ack(10).Bytes()),
				one(pkttest.TCP(s.vip, c).RST().Seq(cookie+1).Ack(10).TTL(63)), nil)
			c, cookie = begin(6002)
			b.expect("it has an older connection of the same ports", b.play(true, pkttest.TCP(real, c).Seq(55).Ack(4444).Bytes()), nil,
				one(pkttest.TCP(c, real).RST().Seq(4444).DF().Window(0)))
			b.expect("and answers to another SYN", b.play(true, pkttest.TCP(real, c).SYN().Seq(55).Ack(4444).Bytes()), nil,
				one(pkttest.TCP(c, real).RST().Seq(4444).DF().Window(0)))
			b.expect("without window scale, stamps and SACK", b.play(true, pkttest.TCP(real, c).SYN().Seq(55).Ack(10).Window(3000).Bytes()),
				one(pkttest.TCP(s.vip, c).Seq(cookie+1).Ack(10).Window(3000).TTL(63).DF()), one(pkttest.TCP(c, real).Seq(10).Ack(56).DF()))
			b.expect("the client gives up", b.play(false, pkttest.TCP(c, s.vip).FIN().Seq(10).Ack(cookie+1).Bytes()), nil,
				one(pkttest.TCP(c, real).FIN().Seq(10).Ack(56).TTL(63)))

			c, _ = begin(6003)
			b.expect("the client is gone before", b.play(false, pkttest.TCP(c, s.vip).RST().Seq(10).Bytes()), nil, one(pkttest.TCP(c, real).RST().Seq(10).TTL(63)))

			// A server that says nothing is asked again, and in the end the client is told.
			c, cookie = begin(6004)
			again := pkttest.TCP(c, real).SYN().Seq(9).Window(65535).DF().TCPOptions(2, 4, byte(takes[name]>>8), byte(takes[name])).Bytes()
			for i, pause := range []int64{1, 2, 4} {
				b.now += pause*1e9 - 1e6
				b.expect("before the time is up", b.play(false, nil), nil, nil)
				b.now += 1e6
				b.expect("when it is", b.play(false, nil), nil, [][]byte{again})
				if sum := b.engine.Table.HalfOpen(); sum == 0 {
					t.Errorf("after %d times the connection is gone", i+1)
				}
			}
			b.now += 8e9
			b.expect("the last time", b.play(false, nil), one(pkttest.TCP(s.vip, c).RST().Seq(cookie+1).DF().Window(0)), nil)
			c, _ = begin(6005)
			b.play(true, pkttest.TCP(real, c).SYN().Seq(55).Ack(10).Bytes())
			for range 20 {
				b.now += 1e9
				b.expect("one that has answered is left alone", b.play(false, nil), nil, nil)
			}

			none := guarded(name, func(s *Service) { s.Plan = noServers(t) })
			b = newBed(t, none.option(t))
			cookie = seqOf(b.play(false, pkttest.TCP(c, s.vip).SYN().Seq(9).Bytes())[wan][0])
			b.expect("there is no server", b.play(false, pkttest.TCP(c, s.vip).Seq(10).Ack(cookie+1).Bytes()),
				one(pkttest.TCP(s.vip, c).RST().Seq(cookie+1).DF().Window(0)), nil)
		})
	}
}

// TestCookieServerIsAskedAgainAfterARestart: weir ends while a server has not answered. The next one asks it at once, and then as ever; who is whole is
// left alone.
func TestCookieServerIsAskedAgainAfterARestart(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			s := guarded(name, nil)
			real := netip.AddrPortFrom(a.web.Addr(), 9000)
			file, err := os.Create(filepath.Join(t.TempDir(), "table"))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			keep := func(from *os.File, now int64) bedOption {
				return func(_ *Snapshot, e *Engine) {
					table, err := conntrack.New(conntrack.Options{Capacity: 1024, Workers: 1, File: file, Old: from,
						Keep: func(*conntrack.Ended) bool { return true }, Now: conntrack.TickOf(now)})
					if err != nil {
						t.Fatal(err)
					}
					e.Table = table
				}
			}
			old := newBed(t, s.option(t), keep(nil, 0))
			for port := uint16(6001); port <= 6002; port++ {
				c := netip.AddrPortFrom(a.client.Addr(), port)
				cookie := seqOf(old.play(false, pkttest.TCP(c, s.vip).SYN().Seq(9).Bytes())[wan][0])
				old.play(false, pkttest.TCP(c, s.vip).Seq(10).Ack(cookie+1).Bytes())
			}
			old.play(true, pkttest.TCP(real, netip.AddrPortFrom(a.client.Addr(), 6002)).SYN().Seq(55).Ack(10).Bytes())
			if err := old.engine.Table.Close(); err != nil {
				t.Fatal(err)
			}
			b := newBed(t, s.option(t), keep(file, old.now))
			defer b.engine.Table.Close()
			b.now = old.now + 5e9
			again := pkttest.TCP(netip.AddrPortFrom(a.client.Addr(), 6001), real).SYN().Seq(9).Window(65535).DF().
				TCPOptions(2, 4, byte(takes[name]>>8), byte(takes[name])).Bytes()
			b.expect("in the first round", b.play(false, nil), nil, [][]byte{again})
			b.now += 2e9 - 1e6
			b.expect("before the time is up", b.play(false, nil), nil, nil)
			b.now += 1e6
			b.expect("when it is", b.play(false, nil), nil, [][]byte{again})
		})
	}
}

// TestCookieWindows: a server that does not scale, and a client that does.
func TestCookieWindows(t *testing.T) {
	s := guarded("v4", nil)
	b := newBed(t, s.option(t))
	real := netip.AddrPortFrom(web.Addr(), 9000)
	cookie := seqOf(b.play(false, pkttest.TCP(client, s.vip).SYN().Seq(9).TCPOptions(3, 3, 4).Bytes())[wan][0])
	b.play(false, pkttest.TCP(client, s.vip).Seq(10).Ack(cookie+1).Window(100).Bytes())
	b.expect("SYN+ACK", b.play(true, pkttest.TCP(real, client).SYN().Seq(55).Ack(10).Window(5000).Bytes()),
		one(pkttest.TCP(s.vip, client).Seq(cookie+1).Ack(10).Window(5000>>7).TTL(63).DF()), one(pkttest.TCP(client, real).Seq(10).Ack(56).Window(1600).DF()))
	b.expect("the client's window", b.play(false, pkttest.TCP(client, s.vip).Seq(10).Ack(cookie+1).Window(101).Bytes()), nil,
		one(pkttest.TCP(client, real).Seq(10).Ack(56).Window(1616).TTL(63)))
	b.expect("one that is too large", b.play(false, pkttest.TCP(client, s.vip).Seq(10).Ack(cookie+1).Window(9000).Bytes()), nil,
		one(pkttest.TCP(client, real).Seq(10).Ack(56).Window(65535).TTL(63)))
	b.expect("the server's", b.play(true, pkttest.TCP(real, client).Seq(56).Ack(10).Window(1280).Bytes()),
		one(pkttest.TCP(s.vip, client).Seq(cookie+1).Ack(10).Window(10).TTL(63)), nil)
}

// TestCookiesUnderPressure: with CookiesAuto clients are asked while half-open connections are more than half of what there may be. Who has a
// connection keeps it, and nobody gives way.
func TestCookiesUnderPressure(t *testing.T) {
	s := guarded("v4", func(s *Service) { s.Cookies = CookiesAuto })
	b := newBed(t, limited(t, 1024, 256), s.option(t))
	real := netip.AddrPortFrom(web.Addr(), 9000)
	b.open(client, s.vip, real)
	flood := netip.MustParseAddr("198.18.200.1")
	asked := 0
	for i := range 5000 {
		left := b.play(false, pkttest.TCP(netip.AddrPortFrom(flood, uint16(1024+i)), s.vip).SYN().Seq(uint32(i)).Bytes())
		if asked += len(left[wan]); len(left[wan])+len(left[lan]) != 1 {
			t.Fatalf("SYN %d: %d packets to the client, %d to the server", i, len(left[wan]), len(left[lan]))
		}
	}
	table := b.engine.Table
	if asked != 5000-129 || table.HalfOpen() != 129 || table.Evicted() != 0 {
		t.Errorf("%d were asked, %d are half-open, %d gave way", asked, table.HalfOpen(), table.Evicted())
	}
	for i := range 100 { // those who give a sign of life get their connections
		c := netip.AddrPortFrom(client.Addr(), uint16(7000+i))
		cookie := seqOf(b.play(false, pkttest.TCP(c, s.vip).SYN().Seq(9).Bytes())[wan][0])
		b.play(false, pkttest.TCP(c, s.vip).Seq(10).Ack(cookie+1).Bytes())
		b.play(true, pkttest.TCP(real, c).SYN().Seq(55).Ack(10).Bytes())
		if left := b.play(false, pkttest.TCP(c, s.vip).Seq(10).Ack(cookie+1).Payload(payload).Bytes()); len(left[lan]) != 1 || ackOf(left[lan][0]) != 56 {
			t.Fatalf("client %d has no connection", i)
		}
	}
	if left := b.play(false, pkttest.TCP(client, s.vip).Seq(1).Ack(1).Bytes()); len(left[lan]) != 1 {
		t.Error("the connection that was there before is gone")
	}
	b.now += 61e9
	b.worker.ExpireAll(b.now)
	left := b.play(false, pkttest.TCP(netip.AddrPortFrom(flood, 1), s.vip).SYN().Bytes())
	if len(left[lan]) != 1 {
		t.Error("the flood is over, and SYNs still are not passed")
	}
}

// TestChallenge: where the server's answers pass us by the client is asked by an ACK that is wrong.
func TestChallenge(t *testing.T) {
	for name, a := range families {
		for _, way := range []Forward{ForwardDR, ForwardIPIP} {
			t.Run(name+" "+way.String(), func(t *testing.T) {
				s := guarded(name, func(s *Service) { s.Challenge = true })
				s.servers[0].Forward = way
				s.servers[0].Port = 8080
				b := newBed(t, s.option(t))
				syn := pkttest.TCP(a.client, s.vip).SYN().Seq(9)
				left := b.play(false, syn.Bytes())
				if len(left[wan]) != 1 {
					t.Fatalf("the SYN was answered by %d packets", len(left[wan]))
				}
				n := ackOf(left[wan][0])
				b.expect("SYN", left, one(pkttest.TCP(s.vip, a.client).Seq(9).Ack(n).Window(0).DF()), nil)
				if n == 9 || n == 10 {
					t.Error("the number is one that the client believes")
				}
				for what, x := range map[string]step{
					"a RST with another number": {in: pkttest.TCP(a.client, s.vip).RST().Seq(n + 1).Bytes(), verdict: Dropped, drop: DropNoConnection},
					"a wrong checksum":          {in: pkttest.TCP(a.client, s.vip).RST().Seq(n).BadChecksum().Bytes(), verdict: Dropped, drop: DropNoConnection},
				} {
					x.name = what
					run(t, b, []step{x})
				}
				b.expect("nobody is believed yet", b.play(false, syn.Bytes()), one(pkttest.TCP(s.vip, a.client).Seq(9).Ack(n).Window(0).DF()), nil)
				run(t, b, []step{{name: "the right RST", in: pkttest.TCP(a.client, s.vip).RST().Seq(n).Bytes(), verdict: Consumed}})
				if left := b.play(false, syn.Bytes()); len(left[lan]) != 1 {
					t.Errorf("the SYN that is sent again made %d packets to the server, %d to the client", len(left[lan]), len(left[wan]))
				}
				if left := b.play(false, pkttest.TCP(a.client, s.vip).Seq(10).Ack(7).Bytes()); len(left[lan]) != 1 {
					t.Error("the connection is not there")
				}
				b.now += 121e9
				other := netip.AddrPortFrom(a.client.Addr(), 4001)
				if left := b.play(false, pkttest.TCP(other, s.vip).SYN().Bytes()); len(left[wan]) != 1 {
					t.Error("after two minutes the client is still believed")
				}
				if sum := b.worker.Counters.Sum(); sum.Challenges != 3 || sum.Vouched != 1 || sum.CookiesSent != 0 {
					t.Errorf("counted %+v", sum)
				}
			})
		}
	}
}

// TestCookieWithTOA: the ACK that we send in the client's name bears its address, as what the server makes a socket of.
func TestCookieWithTOA(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			s := toa(name)
			s.edit = func(s *Service) { s.Cookies = CookiesAlways }
			b := newBed(t, s.option(t))
			cookie := seqOf(b.play(false, pkttest.TCP(a.client, s.vip).SYN().Seq(9).Bytes())[wan][0])
			from := source(b.play(false, pkttest.TCP(a.client, s.vip).Seq(10).Ack(cookie+1).Bytes())[lan][0])
			left := b.play(true, pkttest.TCP(a.web, from).SYN().Seq(99).Ack(10).Bytes())
			b.expect("SYN+ACK", left, one(pkttest.TCP(s.vip, a.client).Seq(cookie+1).Ack(10).TTL(63).DF()),
				one(pkttest.TCP(from, a.web).Seq(10).Ack(100).DF().TCPOptions(option(a.client)...)))
			b.expect("data", b.play(false, pkttest.TCP(a.client, s.vip).Seq(10).Ack(cookie+1).Payload(payload).Bytes()), nil,
				one(pkttest.TCP(from, a.web).Seq(10).Ack(100).TTL(63).TCPOptions(option(a.client)...).Payload(payload)))
		})
	}
}

// TestCookiesDoNotAllocate: nothing of what a flood makes weir do takes memory.
func TestCookiesDoNotAllocate(t *testing.T) {
	s := guarded("v4", nil)
	b := newBed(t, s.option(t), func(s *Snapshot, _ *Engine) { s.HalfOpenPerSource, s.NewPerSource = 1000, Rate{PerSecond: 100000} })
	real := netip.AddrPortFrom(web.Addr(), 9000)
	cookie := seqOf(b.play(false, pkttest.TCP(client, s.vip).SYN().Seq(9).Bytes())[wan][0])
	b.play(false, pkttest.TCP(client, s.vip).Seq(10).Ack(cookie+1).Bytes())
	b.play(true, pkttest.TCP(real, client).SYN().Seq(55).Ack(10).Bytes())
	other, third := netip.AddrPortFrom(neighbor(client.Addr(), 1), 4000), netip.AddrPortFrom(neighbor(client.Addr(), 2), 4000)
	second := seqOf(b.play(false, pkttest.TCP(other, s.vip).SYN().Seq(9).Bytes())[wan][0])
	var in [][]byte
	for _, p := range []pkttest.Packet{
		pkttest.TCP(client, s.vip).Seq(10).Ack(cookie + 1).TCPOptions(ts(1, 2)...), pkttest.TCP(third, s.vip).SYN().Seq(1),
		pkttest.TCP(other, s.vip).Seq(10).Ack(second + 1), pkttest.TCP(third, s.vip).Seq(10).Ack(second),
	} {
		in = append(in, p.Frame(routerMAC, wanMAC))
	}
	answer := pkttest.TCP(real, other).SYN().Seq(55).Ack(10).Frame(webMAC, lanMAC)
	out := make([]byte, 2048)
	if n := testing.AllocsPerRun(200, func() {
		for _, f := range in {
			b.ports[wan].Inject(f)
		}
		b.ports[lan].Inject(answer)
		b.now += 1e6
		b.worker.Round(b.now)
		for _, p := range b.ports {
			for {
				if _, ok := p.Take(out); !ok {
					break
				}
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations a round, want none", n)
	}
	if sum := b.worker.Counters.Sum(); sum.CookiesSent < 200 || sum.CookiesBad < 200 || sum.CookiesGood != 2 {
		t.Errorf("counted %+v: the test does not measure what it says", sum)
	}
}
