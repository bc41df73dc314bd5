package dataplane_test

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/route"
)

// localIPs are addresses for full NAT, by family.
var localIPs = map[string][]netip.Addr{
	"v4": {netip.MustParseAddr("198.18.1.2"), netip.MustParseAddr("198.18.1.3")},
	"v6": {netip.MustParseAddr("2001:db8:1::2"), netip.MustParseAddr("2001:db8:1::3")},
}

// fullnat is a NAT service of the servers whose source is rewritten to ports from to to of the addresses.
func fullnat(a ends, from, to uint16, addrs []netip.Addr, servers ...netip.AddrPort) serving {
	x := serving{vip: a.vip}
	if servers == nil {
		servers = []netip.AddrPort{a.web}
	}
	for _, s := range servers {
		b := server(s, ForwardNAT)
		b.Sources = &Sources{From: from, To: to, Cursor: new(Cursor)}
		for _, l := range addrs {
			addr, _ := AddrOf(l)
			b.Sources.Addrs = append(b.Sources.Addrs, addr)
		}
		x.servers = append(x.servers, b)
	}
	return x
}

// source and destination are those of a packet with ports.
func source(ip []byte) netip.AddrPort      { return endpoint(ip, 12, 8, 0) }
func destination(ip []byte) netip.AddrPort { return endpoint(ip, 16, 24, 2) }

func endpoint(ip []byte, at4, at6, port int) netip.AddrPort {
	if len(ip) < 44 && (len(ip) < 24 || ip[0]>>4 == 6) {
		return netip.AddrPort{}
	}
	if ip[0]>>4 == 4 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[at4:])), binary.BigEndian.Uint16(ip[20+port:]))
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(ip[at6:])), binary.BigEndian.Uint16(ip[40+port:]))
}

func TestFullNAT(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, fullnat(a, 40000, 40009, localIPs[name][:1]).option(t))
			syn := pkttest.TCP(a.client, a.vip).SYN()
			out, port := b.through(false, syn.Bytes())
			from := source(out)
			if port != lan || from.Addr() != localIPs[name][0] || from.Port() < 40000 || from.Port() > 40009 {
				t.Fatalf("left by port %d: %s", port, pkttest.String(out))
			}
			toServer := pkttest.TCP(from, a.web).Seq(1).Ack(1).TTL(63)
			toClient := pkttest.TCP(a.vip, a.client).Seq(1).Ack(1).Size(200)
			run(t, b, []step{
				{name: "a SYN once more comes from the same", in: syn.Bytes(), verdict: Forwarded, port: lan, want: one(pkttest.TCP(from, a.web).SYN().TTL(63))},
				{name: "the answer is to us, and from the VIP", in: pkttest.TCP(a.web, from).SYN().Ack(1).Bytes(), server: true, verdict: Forwarded, port: wan,
					want: one(pkttest.TCP(a.vip, a.client).SYN().Ack(1).TTL(63))},
				{name: "data", in: pkttest.TCP(a.client, a.vip).Seq(1).Ack(1).Payload(payload).Bytes(), verdict: Forwarded, port: lan,
					want: one(toServer.Payload(payload))},
				{name: "what the server sends to the client itself is its own", in: pkttest.TCP(a.web, a.client).Ack(1).Bytes(), server: true, verdict: Punted},
				{name: "what it sends to another local port, too", in: pkttest.TCP(a.web, netip.AddrPortFrom(from.Addr(), 40010)).Ack(1).Bytes(), server: true, verdict: Punted},
				{name: "an ICMP error of the server's side", server: true, in: pkttest.ICMPTimeExceeded(a.web.Addr(), from.Addr(), toServer.Bytes()).Bytes(),
					verdict: Forwarded, port: wan, want: one(pkttest.ICMPTimeExceeded(a.vip.Addr(), a.client.Addr(), quoteAs(toServer.Bytes(), a.client, a.vip)).TTL(63))},
				{name: "and of the client's", in: pkttest.ICMPTooBig(a.router, a.vip.Addr(), 1300, toClient.Bytes()).Bytes(),
					verdict: Forwarded, port: lan, want: one(pkttest.ICMPTooBig(a.router, a.web.Addr(), 1300, quoteAs(toClient.Bytes(), a.web, from)).TTL(63))},
				{name: "TTL of one on the way back", in: pkttest.TCP(a.web, from).Ack(1).TTL(1).Bytes(), server: true, verdict: Answered, port: lan, loose: true,
					want: one(icmpFrom(pkttest.ICMPTimeExceeded(portAddr(a.web), a.web.Addr(), pkttest.TCP(a.web, from).Ack(1).TTL(1).Bytes())))},
			})
			if n := b.sum(0); n.Conns != 1 || n.InPackets != 4 || n.OutPackets != 2 {
				t.Errorf("counted %+v", n)
			}
		})
	}
}

// TestNoLocalPort: of four ports a fifth connection gets none, until one of them has ended.
func TestNoLocalPort(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, fullnat(a, 40000, 40003, localIPs[name][:1]).option(t))
			syn := func(port uint16) pkttest.Packet {
				return pkttest.TCP(netip.AddrPortFrom(a.client.Addr(), port), a.vip).SYN()
			}
			from := map[netip.AddrPort]uint16{}
			for port := uint16(1); port <= 4; port++ {
				out, _ := b.through(false, syn(port).Bytes())
				from[source(out)] = port
			}
			if len(from) != 4 {
				t.Fatalf("4 connections came from %v", from)
			}
			refused := func(what string) {
				t.Helper()
				run(t, b, []step{{name: what, in: syn(5).Bytes(), verdict: Dropped, drop: DropNoLocalPort}})
			}
			refused("all are taken")
			b.wantCounts("a refused one does not count", [3]int{4, 0, 0})
			refused("at once they are not looked for again")
			b.now += 11e6
			refused("nor found")
			b.now += 12e9
			for local, port := range from { // one ends
				for _, p := range []pkttest.Packet{pkttest.TCP(a.web, local).SYN().Ack(1), pkttest.TCP(a.web, local).RST().Ack(1)} {
					b.through(true, p.Bytes())
				}
				for _, ns := range []int64{5e9, 4.9e9} {
					b.now += ns
					refused("it is in CLOSE, for ten seconds")
				}
				b.after(200e6) // and none has been looked for in vain for so long that it would not be looked for now
				out, _ := b.through(false, syn(5).Bytes())
				if source(out) != local {
					t.Errorf("the one that ended, %d, had %v; the new one got %v (dropped: %v)", port, local, source(out), b.dropped())
				}
				break
			}
			b.now += 11e6
			run(t, b, []step{{name: "all are taken again", in: syn(6).Bytes(), verdict: Dropped, drop: DropNoLocalPort}})
			b.after(61e9)
			if out, _ := b.through(false, syn(6).Bytes()); out == nil {
				t.Errorf("all have expired, and none is free: %v", b.dropped())
			}
			b.drain()
			b.wantCounts("in the end", [3]int{})
		})
	}
}

// TestLocalPortsAreOfOneServer: a pair of address and port serves once for each server's address, port and protocol.
func TestLocalPortsAreOfOneServer(t *testing.T) {
	a := families["v4"]
	servers := []netip.AddrPort{a.web, netip.AddrPortFrom(a.second, 8000), netip.AddrPortFrom(a.web.Addr(), 8001)}
	udp := fullnat(a, 40000, 40001, localIPs["v4"], a.web)
	udp.protocol = packet.ProtoUDP
	b := newBed(t, udp.option(t), fullnat(a, 40000, 40001, localIPs["v4"], servers...).option(t))
	used := map[[2]netip.AddrPort]bool{}
	for port := uint16(1); port <= 12; port++ { // two addresses with two ports each, for three servers
		out, _ := b.through(false, pkttest.TCP(netip.AddrPortFrom(a.client.Addr(), port), a.vip).SYN().Bytes())
		used[[2]netip.AddrPort{source(out), destination(out)}] = true
	}
	if len(used) != 12 {
		t.Errorf("12 connections are %d to the servers: %v", len(used), used)
	}
	for port := uint16(1); port <= 4; port++ {
		if out, _ := b.through(false, pkttest.UDP(netip.AddrPortFrom(a.client.Addr(), port), a.vip).Bytes()); out == nil {
			t.Errorf("UDP connection %d found no port that TCP has not: %v", port, b.dropped())
		}
	}
}

// TestEveryLocalPortIsGivenOnce: whatever addresses and range, each pair is given to one connection, and only then is there none.
func TestEveryLocalPortIsGivenOnce(t *testing.T) {
	a := families["v4"]
	rapid.Check(t, func(r *rapid.T) {
		from := uint16(rapid.IntRange(1, 65000).Draw(r, "from"))
		span := rapid.IntRange(1, 40).Draw(r, "span")
		addrs := localIPs["v4"][:rapid.IntRange(1, 2).Draw(r, "addresses")]
		x := fullnat(a, from, from+uint16(span-1), addrs)
		x.servers[0].Sources.Cursor.Seed(rapid.Uint64().Draw(r, "seed"))
		b := newBed(t, x.option(t))
		used := map[netip.AddrPort]bool{}
		n := span * len(addrs)
		for i := range n + 1 {
			out, _ := b.through(false, pkttest.TCP(netip.AddrPortFrom(a.client.Addr(), uint16(1000+i)), a.vip).SYN().Bytes())
			if (out == nil) != (i == n) || out == nil && b.dropped() != DropNoLocalPort {
				r.Fatalf("connection %d of %d: %s, dropped: %v", i, n, pkttest.String(out), b.dropped())
			}
			if s := source(out); out != nil && (used[s] || s.Port() < from || int(s.Port()) >= int(from)+span) {
				r.Fatalf("connection %d comes from %v", i, s)
			}
			used[source(out)] = true
		}
		// Wherever the one is that ends, it is found.
		end := netip.AddrPortFrom(a.client.Addr(), uint16(1000+rapid.IntRange(0, n-1).Draw(r, "end")))
		out, _ := b.through(false, pkttest.TCP(end, a.vip).SYN().Bytes())
		local := source(out)
		b.through(true, pkttest.TCP(a.web, local).SYN().Ack(1).Bytes())
		b.through(true, pkttest.TCP(a.web, local).RST().Ack(1).Bytes())
		b.after(11e9)
		if out, _ = b.through(false, pkttest.TCP(netip.AddrPortFrom(a.client.Addr(), 999), a.vip).SYN().Bytes()); source(out) != local {
			r.Errorf("%v is free, but a new connection got %v of %d (dropped: %v)", local, source(out), n, b.dropped())
		}
	})
}

// TestMasquerade: which connections have their source rewritten, and to what.
func TestMasquerade(t *testing.T) {
	inside := map[string]netip.AddrPort{"v4": netip.MustParseAddrPort("198.18.1.50:4000"), "v6": netip.MustParseAddrPort("[2001:db8:1::50]:4000")}
	for name, a := range families {
		for _, c := range []struct {
			name       string
			sources    *Sources
			in, out    bool // is a client inside, or outside, masqueraded?
			hasAddress bool
		}{
			{"never", nil, false, false, false},
			{"always", &Sources{When: MasqueradeAlways}, true, true, false},
			{"hairpin", &Sources{When: MasqueradeHairpin}, true, false, false},
			{"except those outside", &Sources{When: MasqueradeExcept, Except: nets("198.18.128.0/17", "2001:db8:c::/48")}, true, false, false},
			{"except those inside", &Sources{When: MasqueradeExcept, Except: nets("198.18.1.0/24", "2001:db8:1::/64")}, false, true, false},
			{"always, by addresses of its own", &Sources{When: MasqueradeAlways}, true, true, true},
		} {
			t.Run(name+" "+c.name, func(t *testing.T) {
				x := serving{vip: a.vip, servers: []Backend{server(a.web, ForwardNAT)}}
				own := portAddr(a.web)
				if c.sources != nil {
					s := *c.sources
					s.From, s.To, s.Cursor = 61000, 61009, new(Cursor)
					if c.hasAddress {
						own = localIPs[name][1]
						addr, _ := AddrOf(own)
						s.Addrs = []conntrack.Addr{addr}
					}
					x.servers[0].Sources = &s
				}
				b := newBed(t, x.option(t))
				for _, client := range []struct {
					from   netip.AddrPort
					inside bool
					want   bool
				}{{inside[name], true, c.in}, {a.client, false, c.out}} {
					out, port := b.through(client.inside, pkttest.TCP(client.from, a.vip).SYN().Bytes())
					s := source(out)
					if masked := s.Addr() == own && s.Port() >= 61000 && s.Port() <= 61009; masked != client.want || !masked && s != client.from || port != lan {
						t.Errorf("%v came to the server as %s", client.from, pkttest.String(out))
					}
					if client.inside {
						continue // it has no neighbour entry here
					}
					back, port := b.through(true, pkttest.TCP(a.web, s).SYN().Ack(1).Bytes())
					if port != wan || source(back) != a.vip || destination(back) != client.from {
						t.Errorf("the answer left as %s", pkttest.String(back))
					}
				}
			})
		}
	}
}

// nets is a set of networks.
func nets(prefixes ...string) *route.Table {
	var all []route.Route
	for _, p := range prefixes {
		all = append(all, route.Route{To: netip.MustParsePrefix(p), Kind: route.Blackhole})
	}
	return route.NewTable(all)
}

// TestLocalPortsOfTwoWorkers: two workers open connections to one server at once. No pair of address and port is given twice, and all are given.
func TestLocalPortsOfTwoWorkers(t *testing.T) {
	const flows, workers = 512, 2
	a := families["v4"]
	snap := newBed(t, fullnat(a, 40000, 40000+flows/2-1, localIPs["v4"]).option(t)).snap
	table, err := conntrack.New(conntrack.Options{Capacity: 4096, Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	e := NewEngine(Options{Table: table, MaxBackends: 16, MaxWorkers: workers})
	if err := e.Publish(&snap); err != nil {
		t.Fatal(err)
	}
	var sources [workers][]netip.AddrPort
	var ports [workers][2]*mem.Port
	for w := range ports {
		pool, err := packet.NewPool(make([]byte, 256*2048), 2048)
		if err != nil {
			t.Fatal(err)
		}
		for p := range ports[w] {
			if ports[w][p], err = mem.NewPort(pool, mem.Options{}); err != nil {
				t.Fatal(err)
			}
			defer ports[w][p].Close()
		}
		e.AddWorker(pool, []driver.Queue{ports[w][wan], ports[w][lan]})
	}
	var all sync.WaitGroup
	for w, worker := range e.Workers() {
		all.Add(1)
		go func() {
			defer all.Done()
			buf := make([]byte, 2048)
			now := int64(1e12)
			for i := range flows { // one half is for nobody
				c := netip.AddrPortFrom(a.client.Addr(), uint16(1000+i*workers+w))
				ports[w][wan].Inject(pkttest.TCP(c, a.vip).SYN().Frame(routerMAC, wanMAC))
				now += 20e6 // so that it looks again
				worker.Round(now)
				for n, ok := ports[w][lan].Take(buf); ok; n, ok = ports[w][lan].Take(buf) {
					sources[w] = append(sources[w], source(buf[14:n]))
				}
			}
		}()
	}
	all.Wait()
	given := map[netip.AddrPort]bool{}
	for w := range sources {
		for _, s := range sources[w] {
			if given[s] {
				t.Errorf("%v was given twice", s)
			}
			given[s] = true
		}
	}
	_, drops := e.Verdicts()
	if len(given) != flows || drops[DropNoLocalPort] != flows {
		t.Errorf("%d given and %d refused, want %d of each", len(given), drops[DropNoLocalPort], flows)
	}
}
