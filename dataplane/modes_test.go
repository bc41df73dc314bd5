package dataplane_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// mode is a way that a service can be set up in, of one family, with packets for it.
type mode struct {
	name    string
	service serving
	open    [][]byte                       // packets of a client's, an established connection after them
	fresh   pkttest.Packet                 // opens one
	reply   func(to netip.AddrPort) []byte // of the server, to whoever the first packet came from; nil: none through us
}

// everyMode is one service of each, all of which fit into one bed.
func everyMode() (all []mode) {
	for _, name := range []string{"v4", "v6"} {
		a, other := families[name], families[map[string]string{"v4": "v6", "v6": "v4"}[name]]
		port := uint16(1000)
		tcp := func(what string, reply bool, s serving) {
			port++
			s.vip = netip.AddrPortFrom(a.vip.Addr(), port)
			m := mode{name: what + " " + name, service: s, fresh: pkttest.TCP(a.client, s.vip).SYN(),
				open: [][]byte{pkttest.TCP(a.client, s.vip).SYN().Bytes(), pkttest.TCP(a.client, s.vip).Seq(1).Ack(1).Payload(payload).Bytes()}}
			if real := &s.servers[0]; real.Forward == ForwardNAT && real.Port != 0 {
				real.Port = 7000 + port // its own, or a server would see one client's connections to two services as one
			}
			if reply {
				real := netip.AddrPortFrom(a.web.Addr(), s.servers[0].Port)
				m.reply = func(to netip.AddrPort) []byte { return pkttest.TCP(real, to).SYN().Ack(1).Bytes() }
			}
			all = append(all, m)
		}
		udp := func(what string, s serving) {
			port++
			s.vip, s.protocol = netip.AddrPortFrom(a.vip.Addr(), port), packet.ProtoUDP
			p := pkttest.UDP(a.client, s.vip).Payload(payload)
			all = append(all, mode{name: what + " " + name, service: s, fresh: p, open: [][]byte{p.Bytes()}})
		}
		way := func(w Forward, to netip.AddrPort, sum bool) serving {
			b := server(to, w)
			b.TunnelSum = sum
			return serving{servers: []Backend{b}}
		}
		masked := func(m Masquerade) serving {
			b := server(a.web, ForwardNAT)
			b.Sources = &Sources{From: 50000, To: 60000, Cursor: new(Cursor), When: m, Except: nets("203.0.113.0/24")}
			return serving{servers: []Backend{b}}
		}
		withTOA := toa(name)
		persistent := sticky(a, whole)
		persistent.portTo = 0
		tcp("dr", false, way(ForwardDR, a.web, false))
		for _, to := range []ends{a, other} {
			tcp("ipip", false, way(ForwardIPIP, to.web, false))
			for _, sum := range []bool{false, true} {
				tcp("gue", false, way(ForwardGUE, to.web, sum))
				tcp("gre", false, way(ForwardGRE, to.web, sum))
			}
		}
		tcp("fullnat", true, withTOA)
		tcp("masquerade always", true, masked(MasqueradeAlways))
		tcp("masquerade hairpin", false, masked(MasqueradeHairpin))
		tcp("masquerade except", true, masked(MasqueradeExcept))
		tcp("persistent", false, persistent)
		tcp("allowed", false, serving{servers: []Backend{server(netip.AddrPortFrom(a.second, 1), ForwardNAT)},
			edit: func(s *Service) { s.Allow, s.Deny = nets("198.18.0.0/15", "2001:db8::/32"), nets("203.0.113.0/24") }})
		backup := serving{servers: []Backend{server(netip.AddrPortFrom(a.second, 2), ForwardNAT)}}
		backup.servers[0].Backup = true
		tcp("backup", false, backup)
		udp("dr of UDP", way(ForwardDR, a.web, false))
		udp("gue of UDP", way(ForwardGUE, a.web, false))
		udp("one-packet", single(a, ForwardNAT))
		udp("one-packet through a tunnel", single(a, ForwardIPIP))
		udp("sources of UDP", masked(MasqueradeAlways))
		x := sctp(a, ForwardNAT, 9000)
		all = append(all, mode{name: "sctp " + name, service: x, fresh: chunk(a.client, a.vip, chunkInit, 16), open: [][]byte{
			chunk(a.client, a.vip, chunkInit, 16).Bytes(), chunk(a.client, a.vip, chunkData, 50).Bytes()}})
		x = ike(a, ForwardNAT)
		from := netip.AddrPortFrom(a.client.Addr(), 500)
		all = append(all, mode{name: "ipsec " + name, service: x, fresh: pkttest.UDP(from, x.vip), open: [][]byte{
			pkttest.UDP(from, x.vip).Bytes(), pkttest.IP(a.client.Addr(), a.vip.Addr(), packet.ProtoESP, payload).Bytes()}})
	}
	return all
}

// everyBed is a bed with all of them.
func everyBed(t testing.TB, modes []mode, options ...bedOption) *bed {
	t.Helper()
	var all []bedOption
	for i := range modes {
		all = append(all, modes[i].service.option(t))
	}
	return newBed(t, append(all, options...)...)
}

// begin opens a connection of the mode in the bed, and returns its latest packet to the server.
func (m *mode) begin(b *bed) (last []byte) {
	b.t.Helper()
	for i, in := range m.open {
		out, _ := b.through(false, in)
		if out == nil {
			b.t.Fatalf("%s: packet %d was dropped as %v", m.name, i, b.dropped())
		}
		last = out
		if i == 0 && m.reply != nil {
			if back, port := b.through(true, m.reply(source(out))); back == nil || port != wan {
				b.t.Fatalf("%s: the server's packet was dropped as %v", m.name, b.dropped())
			}
		}
	}
	return last
}

// TestNoAllocationsInAnyMode: neither for a packet of a connection nor for one that opens another, and not for an error about one.
func TestNoAllocationsInAnyMode(t *testing.T) {
	for _, m := range everyMode() {
		t.Run(m.name, func(t *testing.T) {
			b := everyBed(t, []mode{m})
			last := m.begin(b)
			frames := map[int][][]byte{wan: {m.fresh.Frame(routerMAC, wanMAC)}}
			for _, in := range m.open {
				frames[wan] = append(frames[wan], pkttest.Frame(in, routerMAC, wanMAC))
			}
			fresh, at := frames[wan][0], 14+20
			if fresh[14]>>4 == 6 {
				at = 14 + 40
			}
			for _, server := range b.snap.Backends[ownServers:] {
				if server.Forward >= ForwardIPIP && b.engine.Table.Len() > 0 { // errors about a packet that is a connection alone are about none
					src, router := portAddr(netip.AddrPortFrom(NetipOf(server.Addr, server.V6), 1)), netip.MustParseAddr("198.18.1.254")
					typ := uint8(11)
					if server.V6 {
						typ, router = 3, netip.MustParseAddr("2001:db8:1::fe")
					}
					frames[lan] = append(frames[lan], pkttest.ICMPError(router, src, typ, 0, 0, last).Frame(webMAC, lanMAC))
				}
			}
			if m.reply != nil {
				frames[lan] = append(frames[lan], pkttest.Frame(m.reply(source(last)), webMAC, lanMAC))
			}
			port, out := uint16(20000), make([]byte, 2048)
			conns := func() uint64 { return b.sum(0).Conns + b.sum(1).Conns } // of two servers at most
			before := conns()
			n := testing.AllocsPerRun(100, func() {
				port++
				binary.BigEndian.PutUint16(fresh[at:], port) // its checksum becomes wrong, and stays wrong
				for p, all := range frames {
					for _, f := range all {
						b.ports[p].Inject(f)
					}
				}
				b.now += 1e6
				b.worker.Round(b.now)
				for _, p := range b.ports {
					for _, ok := p.Take(out); ok; _, ok = p.Take(out) {
					}
				}
			})
			if n != 0 {
				t.Errorf("%v allocations a round, want none", n)
			}
			v, drops := b.engine.Verdicts()
			if conns := conns() - before; conns < 101 || v.Dropped > 0 {
				t.Errorf("%d connections in 101 rounds, drops %v: the test does not measure what it says", conns, dropsOf([NumDrops]uint64{}, drops))
			}
		})
	}
}

// TestEveryModeAtOnce: services of all modes side by side do not disturb each other, and nothing is left of them in the end.
func TestEveryModeAtOnce(t *testing.T) {
	modes := everyMode()
	b := everyBed(t, modes)
	for range 2 {
		for i := range modes {
			modes[i].begin(b)
		}
		b.drain()
	}
	if n := b.engine.Table.Len(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	for i := range b.snap.Backends[ownServers:] {
		if n := b.counts(i); n != [3]int{} {
			t.Errorf("server %d still has %v active, inactive and persistent", i, n)
		}
	}
}
