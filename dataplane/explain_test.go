package dataplane_test

import (
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/route"
)

// told is which of servers an explanation says, -1 for none.
func told(x Explanation, servers ...netip.Addr) int {
	if x.Found {
		b := &x.Snapshot.Backends[x.Backend]
		for i, a := range servers {
			if a == NetipOf(b.Addr, b.V6) {
				return i
			}
		}
	}
	return -1
}

// TestExplain asks before each packet, and then sends it. Nothing that is asked may move anything: counters, states and the order of servers
// stay as they are.
func TestExplain(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			deny := func(s *Service) {
				s.Deny = route.NewTable([]route.Route{{To: netip.PrefixFrom(neighbor(a.client.Addr(), 9), a.client.Addr().BitLen()), Hops: []route.Hop{{}}}})
			}
			b := newBed(t, serving{vip: a.vip, servers: []Backend{server(netip.AddrPortFrom(a.web.Addr(), 8000), ForwardNAT),
				server(netip.AddrPortFrom(a.second, 8000), ForwardNAT)}, edit: deny}.option(t))
			ask := func(from, to netip.AddrPort) Explanation {
				t.Helper()
				received, conns := b.worker.Counters.Sum(), b.engine.Table.Len()
				q := Question{Protocol: packet.ProtoTCP, Client: from, Virtual: to}
				x, again := b.engine.Explain(q, b.now), b.engine.Explain(q, b.now)
				if x.Fate != again.Fate || x.Backend != again.Backend || x.Found != again.Found {
					t.Errorf("one answer after the other: %+v %+v", x, again)
				}
				if b.worker.Counters.Sum() != received || b.engine.Table.Len() != conns {
					t.Error("to ask has changed something")
				}
				return x
			}
			wants := func(what string, x Explanation, fate Fate, server int) {
				t.Helper()
				if x.Fate != fate || told(x, a.web.Addr(), a.second) != server {
					t.Errorf("%s: %s, server %d; want %s, %d", what, x.Fate, told(x, a.web.Addr(), a.second), fate, server)
				}
			}
			syn := func(from netip.AddrPort) int {
				out, _ := b.through(false, pkttest.TCP(from, a.vip).SYN().Bytes())
				return serverOf(out, a.web.Addr(), a.second)
			}
			x := ask(a.client, a.vip)
			wants("the first", x, FateScheduled, 0)
			if x.Service == nil || !x.VIP || x.Conn != nil || x.Plan == nil || x.Plan.Scheduler != "rr" || len(x.Plan.Candidates) != 2 || x.Rewrites {
				t.Errorf("%+v", x)
			}
			if got := syn(a.client); got != 0 {
				t.Errorf("it went to %d", got)
			}
			x = ask(a.client, a.vip)
			wants("once more", x, FateConnection, 0)
			if x.Conn == nil || x.Conn.InPackets != 1 || x.Plan != nil || x.Reopens {
				t.Errorf("%+v", x)
			}
			next := netip.AddrPortFrom(a.client.Addr(), 4001)
			wants("the second", ask(next, a.vip), FateScheduled, 1)
			wants("as long as it does not come", ask(netip.AddrPortFrom(a.client.Addr(), 4002), a.vip), FateScheduled, 1)
			if got := syn(next); got != 1 {
				t.Errorf("it went to %d", got)
			}
			// A RST closes the first once it is established: a SYN on it opens a new one.
			b.through(false, pkttest.TCP(a.client, a.vip).Ack(1).Bytes())
			b.through(false, pkttest.TCP(a.client, a.vip).Flags(packet.TCPRst).Bytes())
			x = ask(a.client, a.vip)
			wants("a SYN on what is closed", x, FateScheduled, 0)
			if !x.Reopens || x.Conn == nil {
				t.Errorf("%+v", x)
			}
			if got := syn(a.client); got != 0 {
				t.Errorf("it went to %d", got)
			}
			wants("a client that is not admitted", ask(netip.AddrPortFrom(neighbor(a.client.Addr(), 9), 1), a.vip), FateDenied, -1)
			wants("the VIP as client", ask(netip.AddrPortFrom(a.vip.Addr(), 1), a.vip), FateMartian, -1)
			if x = ask(a.client, netip.AddrPortFrom(a.vip.Addr(), 81)); x.Fate != FateHost || !x.VIP || x.Service != nil {
				t.Errorf("an unused port: %+v", x)
			}
			if x = ask(a.client, netip.AddrPortFrom(a.remote, 80)); x.Fate != FateHost || x.VIP {
				t.Errorf("no VIP: %+v", x)
			}
			// The second server is removed: what is with it is dropped, the rest goes to the first.
			gone := b.engine.Explain(Question{Protocol: packet.ProtoTCP, Client: next, Virtual: a.vip}, b.now).Backend
			b.snap.Backends = append([]Backend(nil), b.snap.Backends...)
			b.snap.Backends[gone].Live = false
			snap := b.snap
			if err := b.engine.Publish(&snap); err != nil {
				t.Fatal(err)
			}
			wants("of a server that is gone", ask(next, a.vip), FateBackendGone, -1)
			if got := syn(next); got != -1 {
				t.Errorf("it went to %d", got)
			}
		})
	}
}

// TestExplainPersistence: the template, and one that is void.
func TestExplainPersistence(t *testing.T) {
	a := families["v4"]
	p := whole
	p.Quiescent = true
	c := connecting{bed: newBed(t, sticky(a, p).option(t)), a: a, port: 2000}
	ask := func() Explanation {
		return c.engine.Explain(Question{Protocol: packet.ProtoTCP, Client: netip.AddrPortFrom(a.client.Addr(), 999), Virtual: netip.AddrPortFrom(a.vip.Addr(), 1000)}, c.now)
	}
	if x := ask(); x.Fate != FateScheduled || x.Template != nil {
		t.Errorf("a new client: %+v", x)
	}
	c.want("a client's first", a.client.Addr(), 1000, 0)
	x := ask()
	if x.Fate != FatePersistent || x.Template == nil || x.Plan != nil || x.Void || told(x, a.web.Addr(), a.second) != 0 {
		t.Errorf("a client that is known: %+v", x)
	}
	c.snap.Backends = append([]Backend(nil), c.snap.Backends...)
	c.snap.Backends[x.Backend].Weight = 0
	snap := c.snap
	if err := c.engine.Publish(&snap); err != nil {
		t.Fatal(err)
	}
	if x = ask(); x.Fate != FateScheduled || !x.Void || x.Template == nil {
		t.Errorf("a server that is drained: %+v", x)
	}
}
