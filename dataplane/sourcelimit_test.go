package dataplane_test

import (
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
)

// TestHalfOpenPerSource: a source has as many half-open connections as it may, counts go down when a handshake is done, when it is given up and when it
// times out, and others are not concerned. The addresses of an IPv6 /64 are one source.
func TestHalfOpenPerSource(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			s := serving{vip: a.vip, servers: []Backend{server(netip.AddrPortFrom(a.web.Addr(), 8000), ForwardNAT)}}
			b := newBed(t, s.option(t), func(s *Snapshot, _ *Engine) { s.HalfOpenPerSource = 3 })
			real := netip.AddrPortFrom(a.web.Addr(), 8000)
			from := func(port uint16) netip.AddrPort {
				addr := a.client.Addr()
				if name == "v6" {
					addr = neighbor(addr, int(port%200)) // another address of the network each time
				}
				return netip.AddrPortFrom(addr, port)
			}
			syn := func(port uint16) step {
				return step{name: "a SYN that is too much", in: pkttest.TCP(from(port), a.vip).SYN().Bytes(), verdict: Dropped, drop: DropSourceHalfOpen}
			}
			good := func(port uint16) step {
				return step{name: "a SYN", in: pkttest.TCP(from(port), a.vip).SYN().Bytes(), verdict: Forwarded, port: lan,
					want: one(pkttest.TCP(from(port), real).SYN().TTL(63))}
			}
			run(t, b, []step{good(5001), good(5002), good(5003), syn(5004), good(5001), syn(5004)})
			b.play(true, pkttest.TCP(real, from(5002)).SYN().Ack(1).Bytes())
			run(t, b, []step{syn(5004)})
			b.play(false, pkttest.TCP(from(5002), a.vip).Seq(1).Ack(1).Bytes())
			run(t, b, []step{good(5004), syn(5005)})
			b.play(true, pkttest.TCP(real, from(5001)).RST().Ack(1).Bytes()) // the server refuses
			run(t, b, []step{good(5005), syn(5006)})
			b.now += 61e9
			b.worker.ExpireAll(b.now)
			run(t, b, []step{good(5006), good(5007), good(5008), syn(5009)})
			if n := b.engine.Table.HalfOpen(); n != 3 {
				t.Errorf("%d are half-open, want 3", n)
			}
			other := netip.AddrPortFrom(netip.MustParseAddr(map[string]string{"v4": "198.18.129.7", "v6": "2001:db8:c:1::7"}[name]), 4000)
			if left := b.play(false, pkttest.TCP(other, a.vip).SYN().Bytes()); len(left[lan]) != 1 {
				t.Error("another source is refused")
			}
		})
	}
}

// TestNewPerSource: a source opens a second's worth at once, then as many a second, UDP's included. Packets of connections that are there are not
// counted, nor is a SYN that a cookie is asked of: its source may be made up.
func TestNewPerSource(t *testing.T) {
	rate := func(s *Snapshot, _ *Engine) { s.NewPerSource = Rate{PerSecond: 10} }
	b := newBed(t, rate)
	opened := func(n int, what func(port uint16) []byte, step int64) (count int) {
		for i := range n {
			b.now += step
			count += len(b.play(false, what(uint16(10000+i)))[lan])
		}
		return count
	}
	udp := func(port uint16) []byte { return pkttest.UDP(netip.AddrPortFrom(client.Addr(), port), dns).Bytes() }
	if n := opened(100, udp, 0); n != 10 {
		t.Errorf("%d of 100 datagrams at once opened a connection, want 10", n)
	}
	_, drops := b.engine.Verdicts()
	if drops[DropSourceRate] != 90 {
		t.Errorf("%d dropped as %v, want 90", drops[DropSourceRate], DropSourceRate)
	}
	if n := opened(10, udp, 0); n != 10 {
		t.Errorf("%d of 10 datagrams of connections that are there went through", n)
	}
	b.now += 1e9
	if n := opened(100, func(port uint16) []byte { return udp(port + 1000) }, 50e6); n < 58 || n > 62 {
		t.Errorf("%d of 100 datagrams, 20 a second, opened a connection, want a second's worth and 10 a second", n)
	}
	if left := b.play(false, pkttest.UDP(netip.AddrPortFrom(neighbor(client.Addr(), 9), 4000), dns).Bytes()); len(left[lan]) != 1 {
		t.Error("another source is refused")
	}

	s := guarded("v4", nil)
	b = newBed(t, s.option(t), rate)
	var cookies [40]uint32
	for i := range cookies {
		cookies[i] = seqOf(b.play(false, pkttest.TCP(netip.AddrPortFrom(client.Addr(), uint16(6000+i)), s.vip).SYN().Seq(9).Bytes())[wan][0])
	}
	n := 0
	for i := range cookies {
		n += len(b.play(false, pkttest.TCP(netip.AddrPortFrom(client.Addr(), uint16(6000+i)), s.vip).Seq(10).Ack(cookies[i]+1).Bytes())[lan])
	}
	if n != 10 {
		t.Errorf("%d cookies that came back opened a connection, want 10", n)
	}
}

// TestSourcesInSegments: the same address in two segments, and outside, is three sources. What one tenant's host has opened and half-opened is not
// charged to another's.
func TestSourcesInSegments(t *testing.T) {
	list := []tenantOf{{vni: 5001, networks: []string{"198.19.1.1/24"}}, {vni: 5002, networks: []string{"198.19.1.1/24"}}}
	host := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("198.19.1.7"), port) }
	for name, c := range map[string]struct {
		limit bedOption
		drop  Drop
	}{
		"new":       {func(s *Snapshot, _ *Engine) { s.NewPerSource = Rate{PerSecond: 3} }, DropSourceRate},
		"half-open": {func(s *Snapshot, _ *Engine) { s.HalfOpenPerSource = 3 }, DropSourceHalfOpen},
	} {
		b := newTenants(t, list, c.limit)
		opened := func(from uint16, send func(ip []byte)) (n int) {
			for i := range uint16(5) {
				send(pkttest.TCP(host(from+i), vip).SYN().Bytes())
				if b.take(lan) != nil {
					n++
				}
			}
			return n
		}
		for i := range list {
			in := func(ip []byte) { b.behind(i, inFrame(gateOf(i), hostMAC, 0x0800, ip)) }
			if n := opened(uint16(1000+100*i), in); n != 3 {
				t.Errorf("%s: tenant %d's host opened %d connections, want 3", name, i, n)
			}
		}
		if n := opened(1200, func(ip []byte) { b.fromClient(ip); b.round() }); n != 3 {
			t.Errorf("%s: the host outside opened %d connections, want 3", name, n)
		}
		if _, drops := b.engine.Verdicts(); drops[c.drop] != 6 {
			t.Errorf("%s: %d are dropped as %v, want 6", name, drops[c.drop], c.drop)
		}
	}
}
