package dataplane_test

import (
	"net/netip"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// sticky is a persistent service of two servers on ports 1000 to 1010.
func sticky(a ends, p Persistence, servers ...Backend) serving {
	if servers == nil {
		servers = []Backend{server(netip.AddrPortFrom(a.web.Addr(), 0), ForwardNAT), server(netip.AddrPortFrom(a.second, 0), ForwardNAT)}
	}
	return serving{vip: netip.AddrPortFrom(a.vip.Addr(), 1000), portTo: 1010, servers: servers, edit: func(s *Service) { s.Persistence = &p }}
}

// whole is the mask of one client, half one of a network: a /24 and a /48.
var (
	whole = Persistence{Mask4: 0xffffffff, Mask6: conntrack.Addr{Hi: ^uint64(0), Lo: ^uint64(0)}}
	half  = Persistence{Mask4: 0xffffff00, Mask6: conntrack.Addr{Hi: 0xffffffffffff0000}}
)

// connecting opens connections and says which server each gets.
type connecting struct {
	*bed
	a    ends
	port uint16 // of the next client
}

// get opens a connection from an address to a port of the VIP, and returns the number of its server, -1 if it gets none.
func (c *connecting) get(from netip.Addr, port uint16) int {
	c.t.Helper()
	c.port++
	return c.again(netip.AddrPortFrom(from, c.port), port)
}

func (c *connecting) again(from netip.AddrPort, port uint16) int {
	c.t.Helper()
	to := netip.AddrPortFrom(c.a.vip.Addr(), port)
	x := c.engine.Explain(Question{Protocol: packet.ProtoTCP, Client: from, Virtual: to}, c.now)
	out, _ := c.through(false, pkttest.TCP(from, to).SYN().Bytes())
	got := serverOf(out, c.a.web.Addr(), c.a.second, c.a.remote)
	if told := told(x, c.a.web.Addr(), c.a.second, c.a.remote); told != got {
		c.t.Errorf("Explain says %d (%s), but it went to %d", told, x.Fate, got)
	}
	return got
}

func (c *connecting) want(what string, from netip.Addr, port uint16, want int) {
	c.t.Helper()
	if got := c.get(from, port); got != want {
		c.t.Errorf("%s: server %d, want %d (dropped: %v)", what, got, want, c.dropped())
	}
}

// neighbor is the address n after a.
func neighbor(a netip.Addr, n int) netip.Addr {
	for range n {
		a = a.Next()
	}
	return a
}

func TestPersistence(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			c := connecting{bed: newBed(t, sticky(a, whole).option(t)), a: a, port: 2000}
			one, other := a.client.Addr(), neighbor(a.client.Addr(), 1)
			c.want("a client's first", one, 1000, 0)
			c.want("another's", other, 1000, 1)
			for port := uint16(1000); port <= 1010; port++ {
				c.want("the same client, whatever the port", one, port, 0)
			}
			c.want("and the other", other, 1010, 1)
			c.wantCounts("SYN_RECV is active; one template each", [3]int{12, 0, 1}, [3]int{2, 0, 1})
			c.after(61e9) // SYN_RECV's time is up, the template's is not
			c.wantCounts("only templates are left", [3]int{0, 0, 1}, [3]int{0, 0, 1})
			c.want("the template remembers", other, 1000, 1)
			c.after(61e9)
			c.after(240e9)
			c.wantCounts("all are forgotten", [3]int{}, [3]int{})
			if n := c.engine.Table.Len(); n != 0 {
				t.Errorf("%d are left in the table", n)
			}
			if n := c.sum(0); n.Conns != 12 {
				t.Errorf("%d connections counted, want 12: a template is none", n.Conns)
			}
		})
	}
}

func TestPersistenceOfNetworks(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			c := connecting{bed: newBed(t, sticky(a, half).option(t)), a: a, port: 2000}
			far, last := netip.MustParseAddr("198.18.129.7"), netip.MustParseAddr("198.18.128.255")
			if a.client.Addr().Is6() {
				last = netip.MustParseAddr("2001:db8:c:ffff:ffff:ffff:ffff:ffff")
				far = netip.MustParseAddr("2001:db8:d::7")
			}
			c.want("a client", a.client.Addr(), 1000, 0)
			c.want("one of another network", far, 1000, 1)
			for n := range 8 {
				c.want("a neighbour of the first", neighbor(a.client.Addr(), n), 1000, 0)
			}
			c.want("the network's last", last, 1000, 0)
			c.wantCounts("one template a network", [3]int{10, 0, 1}, [3]int{1, 0, 1})
		})
	}
}

// TestPersistenceOfEveryPort is port 0: a service of all ports, whose servers get the client's.
func TestPersistenceOfEveryPort(t *testing.T) {
	a := families["v4"]
	x := sticky(a, whole)
	x.vip, x.portTo = netip.AddrPortFrom(a.vip.Addr(), 0), 65535
	b := newBed(t, x.option(t))
	for _, port := range []uint16{1, 80, 443, 65535} {
		in := pkttest.TCP(a.client, netip.AddrPortFrom(a.vip.Addr(), port)).SYN()
		want := pkttest.TCP(a.client, netip.AddrPortFrom(a.web.Addr(), port)).SYN().TTL(63)
		run(t, b, []step{{name: "to the server's own port", in: in.Bytes(), verdict: Forwarded, port: lan, want: one(want)}})
	}
	b.wantCounts("then", [3]int{4, 0, 1}, [3]int{})
}

// TestTemplateOutlivesItsTime: as long as connections live that were opened under it, a minute at a time.
func TestTemplateOutlivesItsTime(t *testing.T) {
	a := families["v4"]
	c := connecting{bed: newBed(t, sticky(a, whole).option(t)), a: a, port: 2000}
	vip := netip.AddrPortFrom(a.vip.Addr(), 1000)
	from := netip.AddrPortFrom(a.client.Addr(), 3000)
	c.again(from, 1000)
	if out, _ := c.through(false, pkttest.TCP(from, vip).Ack(1).Bytes()); out == nil {
		t.Fatal("not established")
	}
	c.after(301e9)
	c.wantCounts("its own time is up, its child's is not", [3]int{1, 0, 1}, [3]int{})
	c.after(30e9)
	c.want("it still leads", a.client.Addr(), 1000, 0)
	c.after(290e9)
	c.through(false, pkttest.TCP(from, vip).Ack(1).Bytes())
	c.after(890e9)
	c.wantCounts("a child alone keeps it", [3]int{1, 0, 1}, [3]int{})
	c.after(11e9)
	c.wantCounts("until that ends", [3]int{0, 0, 1}, [3]int{})
	c.after(61e9)
	c.wantCounts("and a minute", [3]int{}, [3]int{})
}

func TestTemplateOfAServerThatIsNoMore(t *testing.T) {
	a := families["v4"]
	one := a.client.Addr()
	for _, c := range []struct {
		name       string
		quiescent  bool
		edit       func(*Backend)
		want, back int // server of the next connection, and of the one after the edit is undone
	}{
		{"removed", false, func(s *Backend) { s.Live = false }, 1, 1},
		{"weight 0", false, func(s *Backend) { s.Weight = 0 }, 0, 0},
		{"weight 0 with expire_quiescent_template", true, func(s *Backend) { s.Weight = 0 }, 1, 1},
		{"another weight", true, func(s *Backend) { s.Weight = 7 }, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := whole
			p.Quiescent = c.quiescent
			x := sticky(a, p)
			b := connecting{bed: newBed(t, x.option(t)), a: a, port: 2000}
			b.want("before", one, 1000, 0)
			was := b.snap.Backends[ownServers]
			x.change(b.bed, 0, c.edit)
			b.want("then", one, 1000, c.want)
			b.want("once more", one, 1001, c.want)
			templates := [][3]int{{3, 0, 1}, {0, 0, 0}}
			if c.want == 1 {
				templates = [][3]int{{1, 0, 0}, {2, 0, 1}}
			}
			b.wantCounts("then", templates...)
			b.snap.Backends[ownServers] = was
			b.publish()
			b.want("and when all is as before", one, 1000, c.back)
			b.drain()
			b.wantCounts("in the end", [3]int{}, [3]int{})
		})
	}
}

// TestOverloadedServerKeepsItsClients: a template leads to a server that takes nobody new.
func TestOverloadedServerKeepsItsClients(t *testing.T) {
	a := families["v4"]
	x := sticky(a, whole)
	x.servers[0].Upper = 1
	c := connecting{bed: newBed(t, x.option(t)), a: a, port: 2000}
	one, other := a.client.Addr(), neighbor(a.client.Addr(), 1)
	c.want("one is all it takes", one, 1000, 0)
	c.want("another client", other, 1000, 1)
	c.want("and another", neighbor(one, 2), 1000, 1)
	c.want("but the first is its own", one, 1000, 0)
	c.wantCounts("over its limit", [3]int{2, 0, 1}, [3]int{2, 0, 2})
	c.drain()
	c.wantCounts("in the end", [3]int{}, [3]int{})
	if c.snap.Backends[ownServers].Load.Overloaded() {
		t.Error("overloaded without a connection")
	}
}

// TestPersistenceWithoutAnyServer: nothing is scheduled, and nothing remembered.
func TestPersistenceWithoutAnyServer(t *testing.T) {
	a := families["v4"]
	x := sticky(a, whole)
	x.servers = nil
	syn := pkttest.TCP(a.client, x.vip).SYN()
	refused := step{name: "port unreachable", in: syn.Bytes(), verdict: Answered, port: wan, loose: true,
		want: one(icmpFrom(pkttest.ICMPPortUnreachable(a.vip.Addr(), a.client.Addr(), syn.Bytes())))}
	run(t, newBed(t, x.option(t)), []step{refused})
	none := func(s *Snapshot, _ *Engine) {
		last := s.Services.All[len(s.Services.All)-1]
		s.Backends, s.Services = nil, NewServices([]Service{last})
	}
	run(t, newBed(t, x.option(t), none), []step{refused})
}

func TestTableFullOfTemplates(t *testing.T) {
	a := families["v4"]
	c := connecting{bed: newBed(t, sticky(a, whole).option(t)), a: a, port: 2000}
	n := c.engine.Table.Cap()
	for i := range n / 2 { // a template and a connection each
		c.get(neighbor(a.client.Addr(), i), 1000)
	}
	c.want("no room for a template", neighbor(a.client.Addr(), n), 1000, -1)
	if d := c.dropped(); d != DropTableFull {
		t.Errorf("dropped as %v", d)
	}
	c.want("nor for a connection under one that is there", a.client.Addr(), 1000, -1)
	if d := c.dropped(); d != DropTableFull {
		t.Errorf("dropped as %v", d)
	}
	half := n / 4
	c.wantCounts("full", [3]int{half, 0, half}, [3]int{half, 0, half})
	c.after(61e9)
	c.want("the connections are gone, so there is room", neighbor(a.client.Addr(), n), 1000, 1)
	c.drain()
	c.wantCounts("in the end", [3]int{}, [3]int{})
}

// TestDrainedServerUnderTemplate: expire_nodest_conn ends a drained server's connection for a SYN also where a template led to it; what a
// template leads to is else not opened anew (ip_vs_in, is_new_conn_expected).
func TestDrainedServerUnderTemplate(t *testing.T) {
	a := families["v4"]
	p := whole
	p.Quiescent = true
	x := sticky(a, p)
	x.servers[0].ExpireNow = true
	c := connecting{bed: newBed(t, x.option(t)), a: a, port: 2000}
	from := netip.AddrPortFrom(a.client.Addr(), 3000)
	if got := c.again(from, 1000); got != 0 {
		t.Fatalf("server %d", got)
	}
	for _, p := range []pkttest.Packet{pkttest.TCP(from, x.vip).Ack(1), pkttest.TCP(from, x.vip).RST()} {
		c.through(false, p.Bytes())
	}
	if c.state() != conntrack.Close {
		t.Errorf("state %v, want CLOSE", c.state())
	}
	if got := c.again(from, 1000); got != 0 || c.sum(0).Conns != 1 {
		t.Errorf("closed, under a template: server %d, %d connections", got, c.sum(0).Conns)
	}
	x.change(c.bed, 0, func(s *Backend) { s.Weight = 0 })
	if got := c.again(from, 1000); got != 1 {
		t.Errorf("drained: server %d, want the other", got)
	}
	c.wantCounts("then", [3]int{0, 0, 0}, [3]int{1, 0, 1})
}

// TestPersistenceOfUDP is the same without a state machine.
func TestPersistenceOfUDP(t *testing.T) {
	a := families["v6"]
	x := sticky(a, whole)
	x.protocol = packet.ProtoUDP
	b := newBed(t, x.option(t))
	for i := range uint16(6) {
		out, _ := b.through(false, pkttest.UDP(netip.AddrPortFrom(neighbor(a.client.Addr(), int(i%2)), 100+i), netip.AddrPortFrom(a.vip.Addr(), 1000+i)).Bytes())
		if got := serverOf(out, a.web.Addr(), a.second); got != int(i%2) {
			t.Errorf("datagram %d went to server %d", i, got)
		}
	}
	b.wantCounts("then", [3]int{0, 3, 1}, [3]int{0, 3, 1})
	b.drain()
	b.wantCounts("in the end", [3]int{}, [3]int{})
}
