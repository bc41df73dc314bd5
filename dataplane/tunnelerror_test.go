package dataplane_test

import (
	"fmt"
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
)

// opened is a bed with one connection through the tunnel, and the latest outer packet of it, which carries inner.
func (x tunnel) opened(t *testing.T, options ...bedOption) (b *bed, outer, inner []byte) {
	t.Helper()
	b = newBed(t, append([]bedOption{x.service(x.outer.web.Addr(), x.outer.second).option(t)}, options...)...)
	b.through(false, pkttest.TCP(x.inner.client, x.inner.vip).SYN().Bytes())
	data := pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).DF().Payload(payload)
	outer, _ = b.through(false, data.Bytes())
	if outer == nil {
		t.Fatalf("dropped as %v", b.dropped())
	}
	return b, outer, data.TTL(63).Bytes()
}

// router is one between us and the server.
func (x tunnel) router() netip.Addr {
	if x.outer.web.Addr().Is4() {
		return netip.MustParseAddr("198.18.1.254")
	}
	return netip.MustParseAddr("2001:db8:1::fe")
}

// least is what every router quotes: the outer IP header and 8 bytes, which say nothing of the client.
func (x tunnel) least(outer []byte) []byte {
	if outer[0]>>4 == 4 {
		return outer[:20+8]
	}
	return outer[:40+8]
}

// about is an ICMP error of that router.
func (x tunnel) about(typ, code uint8, rest uint32, quoted []byte) pkttest.Packet {
	return pkttest.ICMPError(x.router(), x.source(), typ, code, rest, quoted)
}

// told is what the client is told.
func (x tunnel) told(typ, code uint8, rest uint32, quoted []byte) [][]byte {
	return one(icmpFrom(pkttest.ICMPError(x.inner.vip.Addr(), x.inner.client.Addr(), typ, code, rest, quoted)))
}

type icmp struct{ typ, code uint8 }

// tellings are what becomes of each error about an outer packet, by its family and the client's: within one family the same, from
// one to the other what means the same to a host (RFC 7915 4.2, 5.2). What is not listed ends here.
var tellings = map[string]map[icmp]icmp{
	"v4 in v4": {{3, 0}: {3, 0}, {3, 1}: {3, 1}, {3, 2}: {3, 2}, {3, 3}: {3, 3}, {3, 9}: {3, 9}, {3, 10}: {3, 10}, {3, 13}: {3, 13}, {4, 0}: {4, 0}, {11, 0}: {11, 0}, {11, 1}: {11, 1}},
	"v6 in v6": {{1, 0}: {1, 0}, {1, 1}: {1, 1}, {1, 3}: {1, 3}, {1, 4}: {1, 4}, {1, 5}: {1, 5}, {3, 0}: {3, 0}, {3, 1}: {3, 1}, {4, 0}: {4, 0}},
	"v6 in v4": {{3, 0}: {1, 3}, {3, 1}: {1, 3}, {3, 2}: {1, 3}, {3, 3}: {1, 3}, {3, 9}: {1, 1}, {3, 10}: {1, 1}, {3, 13}: {1, 1}, {11, 0}: {3, 0}},
	"v4 in v6": {{1, 0}: {3, 1}, {1, 1}: {3, 13}, {1, 3}: {3, 1}, {1, 4}: {3, 1}, {3, 0}: {11, 0}},
}

func TestTunnelErrorsReachTheClient(t *testing.T) {
	for _, way := range []string{"ipip", "gue", "gre", "gre with checksum"} {
		for families, tellings := range tellings {
			var suffix string
			name := way
			if n := len(" with checksum"); len(way) > n {
				name, suffix = way[:len(way)-n], " with checksum"
			}
			x, ok := tunnels()[name+" "+families+suffix]
			if !ok {
				t.Fatalf("no tunnel %s %s", way, families)
			}
			t.Run(way+" "+families, func(t *testing.T) {
				b, outer, inner := x.opened(t)
				var steps []step
				for typ := range uint8(14) {
					for code := range uint8(14) {
						in := x.about(typ, code, 0, outer).Bytes()
						name := fmt.Sprintf("type %d code %d", typ, code)
						if to, ok := tellings[icmp{typ, code}]; ok {
							steps = append(steps, step{name: name, in: in, server: true, wait: 1e9, verdict: Answered, port: wan, loose: true, want: x.told(to.typ, to.code, 0, inner)})
						}
					}
				}
				if len(steps) != len(tellings) {
					t.Fatalf("%d steps for %d errors", len(steps), len(tellings))
				}
				run(t, b, steps)
				// As much as routers must quote will do: the headers and 8 bytes.
				n := x.overhead() + 28
				if x.inner.client.Addr().Is6() {
					n += 20
				}
				typ, code := uint8(3), uint8(1)
				if x.outer.web.Addr().Is6() {
					typ, code = 1, 3
				}
				to := tellings[icmp{typ, code}]
				run(t, b, []step{
					{name: "8 bytes of TCP", in: x.about(typ, code, 0, outer[:n]).Bytes(), server: true, wait: 1e9, verdict: Answered, port: wan, loose: true,
						want: x.told(to.typ, to.code, 0, inner[:n-x.overhead()])},
					{name: "7 bytes", in: x.about(typ, code, 0, outer[:n-1]).Bytes(), server: true, wait: 1e9, verdict: Consumed},
					{name: "8 bytes of the outer packet", in: x.about(typ, code, 0, x.least(outer)).Bytes(), server: true, wait: 1e9, verdict: Consumed},
					{name: "a wrong checksum", in: x.about(typ, code, 0, outer).BadChecksum().Bytes(), server: true, wait: 1e9, verdict: Dropped, drop: DropICMPChecksum},
				})
				if n := b.sum(0).InPackets; n != 2 {
					t.Errorf("%d packets counted for the server, want its 2: errors end here", n)
				}
			})
		}
	}
}

// TestTunnelErrorsThatEndHere are about what IPVS tells nobody.
func TestTunnelErrorsThatEndHere(t *testing.T) {
	x := tunnels()["ipip v4 in v4"]
	b, outer, _ := x.opened(t)
	other := x.wrap(x.outer.web.Addr(), pkttest.TCP(netip.MustParseAddrPort("198.18.128.9:1"), x.inner.vip).TTL(63).Bytes(), 0, 0)
	forged := x.wrap(x.outer.second, pkttest.TCP(x.inner.client, x.inner.vip).TTL(63).Bytes(), 0, 0)
	elsewhere := x.wrap(x.outer.remote, pkttest.TCP(x.inner.client, x.inner.vip).TTL(63).Bytes(), 0, 0)
	echo := x.wrap(x.outer.web.Addr(), pkttest.Echo(x.inner.client.Addr(), x.inner.vip.Addr(), 1, 1).TTL(63).Bytes(), 0, 0)
	plain := pkttest.TCP(netip.AddrPortFrom(x.source(), 9), x.outer.web).Bytes()
	reply := x.wrap(x.outer.web.Addr(), pkttest.TCP(x.inner.vip, x.inner.client).TTL(63).Bytes(), 0, 0)
	run(t, b, []step{
		{name: "redirect", in: x.about(5, 0, 0, outer).Bytes(), server: true, verdict: Punted},
		{name: "parameter problem", in: x.about(12, 0, 0, outer).Bytes(), server: true, verdict: Punted},
		{name: "of no connection", in: x.about(3, 1, 0, other).Bytes(), server: true, verdict: Dropped, drop: DropICMPUnrelated},
		{name: "of the wrong direction", in: x.about(3, 1, 0, reply).Bytes(), server: true, verdict: Dropped, drop: DropICMPUnrelated},
		{name: "that has another server", in: x.about(3, 1, 0, forged).Bytes(), server: true, verdict: Dropped, drop: DropICMPUnrelated},
		{name: "what has no ports", in: x.about(3, 1, 0, echo).Bytes(), server: true, verdict: Dropped, drop: DropICMPUnrelated},
		{name: "to where there is no server", in: x.about(3, 1, 0, elsewhere).Bytes(), server: true, verdict: Punted},
		{name: "no tunnel's packet", in: x.about(3, 1, 0, plain).Bytes(), server: true, verdict: Punted},
		{name: "to a VIP", in: pkttest.ICMPError(x.router(), x.inner.vip.Addr(), 3, 1, 0, other[20:]).Bytes(), server: true, verdict: Dropped, drop: DropICMPUnrelated},
	})
}

// TestTunnelErrorsAcrossFamiliesThatEndHere have no meaning in the client's.
func TestTunnelErrorsAcrossFamiliesThatEndHere(t *testing.T) {
	for families, errors := range map[string][]icmp{"ipip v6 in v4": {{4, 0}, {11, 1}}, "ipip v4 in v6": {{3, 1}, {4, 0}, {4, 1}, {100, 0}}} {
		x := tunnels()[families]
		b, outer, _ := x.opened(t)
		for _, e := range errors {
			run(t, b, []step{{name: fmt.Sprintf("%s: type %d code %d", families, e.typ, e.code), in: x.about(e.typ, e.code, 0, outer).Bytes(), server: true, verdict: Consumed}})
		}
	}
}

// big is the type and code that say that an outer packet was too big.
func (x tunnel) big() (typ, code uint8) {
	if x.outer.web.Addr().Is4() {
		return 3, 4
	}
	return 2, 0
}

// small is the same for the client.
func (x tunnel) small(vip netip.Addr, mtu int, quoted []byte) [][]byte {
	limit := 548
	if vip.Is6() {
		limit = 1232
	}
	return one(icmpFrom(pkttest.ICMPTooBig(vip, x.inner.client.Addr(), uint32(mtu), quoted[:min(len(quoted), limit)])))
}

// TestTunnelPathMTU: an outer packet was too big. The client is told what is left for it, at once and for ten minutes, and then no more.
func TestTunnelPathMTU(t *testing.T) {
	for name, x := range tunnels() {
		t.Run(name, func(t *testing.T) {
			b, _, _ := x.opened(t)
			vip := x.inner.vip.Addr()
			data := pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).DF()
			const mtu = 1400
			room := mtu - x.overhead()
			outer, _ := b.through(false, data.Size(room+1).Bytes())
			typ, code := x.big()
			fits, long := data.Size(room), data.Size(room+1)
			passes := func(what string, p pkttest.Packet) {
				t.Helper()
				out, _ := b.through(false, p.Bytes())
				x.check(t, what, out, x.outer.web.Addr(), p.TTL(63).Bytes())
			}
			run(t, b, []step{
				{name: "the router's word becomes ours", in: x.about(typ, code, mtu, outer).Bytes(), server: true, verdict: Answered, port: wan, loose: true,
					want: x.small(vip, room, long.TTL(63).Bytes())},
				{name: "now we know it ourselves", in: long.Bytes(), verdict: Answered, port: wan, loose: true, want: x.small(vip, room, long.Bytes())},
			})
			passes("what fits", fits)
			run(t, b, []step{{name: "a router with a larger one is not believed (RFC 8201 4)", in: x.about(typ, code, mtu+50, outer).Bytes(), server: true, verdict: Answered, port: wan,
				loose: true, want: x.small(vip, room, long.TTL(63).Bytes())}})
			passes("what fits", fits)
			b.now += 599e9
			run(t, b, []step{{name: "ten minutes, all but a second", in: long.Bytes(), verdict: Answered, port: wan, loose: true, want: x.small(vip, room, long.Bytes())}})
			b.now += 2e9
			passes("it is forgotten", long)
			run(t, b, []step{{name: "too short a quote to know whose packet it was", in: x.about(typ, code, mtu, x.least(outer)).Bytes(), server: true, verdict: Consumed}})
			passes("so it is not believed", long)
		})
	}
}

// TestTunnelPathMTUOfWhatMayBeCut: a client whose packets may be cut is told nothing, and they are cut from then on.
func TestTunnelPathMTUOfWhatMayBeCut(t *testing.T) {
	for name, x := range tunnels() {
		t.Run(name, func(t *testing.T) {
			b, _, _ := x.opened(t)
			data := pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).Size(1270)
			outer, _ := b.through(false, data.Bytes())
			typ, code := x.big()
			run(t, b, []step{{name: "nothing to tell", in: x.about(typ, code, 1280, outer).Bytes(), server: true, verdict: Consumed}})
			b.fromClient(data.Bytes())
			b.round()
			var pieces [][]byte
			for f := b.take(lan); f != nil; f = b.take(lan) {
				pieces = append(pieces, f[14:])
				if len(f)-14 > 1280 {
					t.Errorf("a piece of %d bytes", len(f)-14)
				}
			}
			if len(pieces) != 2 {
				t.Fatalf("%d pieces", len(pieces))
			}
			x.check(t, "joined", pkttest.Join(pieces...), x.outer.web.Addr(), data.TTL(63).Bytes())
		})
	}
}

// TestTunnelPathMTUHasALeast: nobody can make us cut packets into crumbs.
func TestTunnelPathMTUHasALeast(t *testing.T) {
	for family, least := range map[string]int{"v4 in v4": 552, "v4 in v6": 1280} {
		x := tunnels()["ipip "+family]
		b, outer, inner := x.opened(t)
		typ, code := x.big()
		for _, mtu := range []uint32{0, 1, 68} {
			run(t, b, []step{{name: fmt.Sprintf("%s: an MTU of %d", family, mtu), in: x.about(typ, code, mtu, outer).Bytes(), server: true, wait: 1e9, verdict: Answered, port: wan, loose: true,
				want: x.small(x.inner.vip.Addr(), least-x.overhead(), inner)}})
		}
		if out, _ := b.through(false, pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).DF().Size(least-x.overhead()).Bytes()); len(out) != least {
			t.Errorf("%s: %d bytes left, want %d", family, len(out), least)
		}
	}
}

// TestTunnelErrorsAreLimited: what we tell clients is bounded as all that we say is.
func TestTunnelErrorsAreLimited(t *testing.T) {
	x := tunnels()["gre v4 in v4"]
	b, outer, _ := x.opened(t, func(s *Snapshot, _ *Engine) { s.Answers.PerSecond = 100 })
	for range 15 {
		b.through(true, x.about(3, 1, 0, outer).Bytes())
	}
	if v, drops := b.engine.Verdicts(); v.Answered != 10 || drops[DropAnswerLimit] != 5 {
		t.Errorf("%d answered and %d over the limit, want 10 and 5", v.Answered, drops[DropAnswerLimit])
	}
}

// TestTunnelLearnsOnlyOfItsOwn: an error about a client's own packet to a server, not about the tunnel to it, is none of the tunnel's. Its quote is
// too short for a tunnel's, and of a protocol that a tunnel may have.
func TestTunnelLearnsOnlyOfItsOwn(t *testing.T) {
	for name, x := range tunnels() {
		t.Run(name, func(t *testing.T) {
			b, _, _ := x.opened(t)
			typ, code := x.big()
			server := x.outer.web.Addr()
			stranger := netip.MustParseAddrPort("198.18.128.99:5000")
			if server.Is6() {
				stranger = netip.MustParseAddrPort("[2001:db8:c::99]:5000")
			}
			quoted := pkttest.UDP(stranger, netip.AddrPortFrom(server, 6080)).Payload(make([]byte, 4)).Bytes()
			b.through(true, pkttest.ICMPError(server, stranger.Addr(), typ, code, 1280, quoted).Bytes())
			long := pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).DF().Size(1500 - x.overhead())
			out, _ := b.through(false, long.Bytes())
			x.check(t, "what fits the link", out, server, long.TTL(63).Bytes())
		})
	}
}
