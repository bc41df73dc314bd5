package dataplane_test

import (
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

func TestAllowAndDeny(t *testing.T) {
	for name, a := range families {
		near, far := nets("198.18.128.0/24", "2001:db8:c::/64"), netip.MustParseAddr("198.18.129.7")
		all, some := nets("0.0.0.0/0", "::/0"), nets("198.18.128.7/32", "2001:db8:c::7/128")
		if a.client.Addr().Is6() {
			far = netip.MustParseAddr("2001:db8:c:1::7")
		}
		for _, c := range []struct {
			name      string
			edit      func(*Service)
			near, far bool // does it serve them?
		}{
			{"nothing said", func(*Service) {}, true, true},
			{"allow", func(s *Service) { s.Allow = near }, true, false},
			{"deny", func(s *Service) { s.Deny = near }, false, true},
			{"deny wins", func(s *Service) { s.Allow, s.Deny = all, near }, false, true},
			{"also over what is narrower", func(s *Service) { s.Allow, s.Deny = some, near }, false, false},
			{"allow nobody", func(s *Service) { s.Allow = nets() }, false, false},
		} {
			t.Run(name+" "+c.name, func(t *testing.T) {
				b := newBed(t, serving{vip: a.vip, servers: []Backend{server(a.web, ForwardNAT)}, edit: c.edit}.option(t))
				for _, x := range []struct {
					from   netip.Addr
					served bool
				}{{a.client.Addr(), c.near}, {far, c.far}} {
					from := netip.AddrPortFrom(x.from, 4000)
					s := step{name: x.from.String(), in: pkttest.TCP(from, a.vip).SYN().Bytes(), verdict: Dropped, drop: DropDenied}
					if x.served {
						s.verdict, s.port, s.want = Forwarded, lan, one(pkttest.TCP(from, a.web).SYN().TTL(63))
					}
					run(t, b, []step{s})
				}
			})
		}
	}
}

// TestDenyHoldsForNewConnections: those that are there go on.
func TestDenyHoldsForNewConnections(t *testing.T) {
	a := families["v4"]
	x := serving{vip: a.vip, servers: []Backend{server(a.web, ForwardNAT)}}
	b := newBed(t, x.option(t))
	b.open(a.client, a.vip, a.web)
	x.change(b, 0, func(*Backend) {})
	all := b.snap.Services.All
	all[len(all)-1].Deny = nets("0.0.0.0/0")
	b.snap.Services = NewServices(all)
	b.publish()
	run(t, b, []step{
		{name: "old", in: pkttest.TCP(a.client, a.vip).Ack(1).Bytes(), verdict: Forwarded, port: lan, want: one(pkttest.TCP(a.client, a.web).Ack(1).TTL(63))},
		{name: "new", in: pkttest.TCP(netip.AddrPortFrom(a.client.Addr(), 1), a.vip).SYN().Bytes(), verdict: Dropped, drop: DropDenied},
	})
	b.wantCounts("then", [3]int{1, 0, 0})
}

// TestBackupServers serve while no other does, and no longer.
func TestBackupServers(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			x := sticky(a, whole)
			for _, persistent := range []bool{false, true} {
				if !persistent {
					x.edit = nil
				} else {
					x.edit = sticky(a, whole).edit
				}
				x.servers[1].Backup = true
				c := connecting{bed: newBed(t, x.option(t)), a: a, port: 2000}
				one := a.client.Addr()
				for range 4 {
					c.want("as long as the real one is there", one, 1000, 0)
				}
				if persistent {
					c.wantCounts("then", [3]int{4, 0, 1}, [3]int{})
				}
				x.change(c.bed, 0, func(s *Backend) { s.Live = false })
				for range 3 {
					c.want("when it is gone", one, 1000, 1)
				}
				c.wantCounts("a backup is not remembered", [3]int{4, 0, 0}, [3]int{3, 0, 0})
				x.change(c.bed, 0, func(s *Backend) { s.Live = true })
				all := append([]Service(nil), c.snap.Services.All...)
				all[len(all)-1].Dests = []uint32{ownServers}
				x.plan(t, &c.snap, &all[len(all)-1], 9)
				c.snap.Services = NewServices(all)
				c.publish()
				c.want("when it is back", one, 1000, 0)
				c.drain()
				c.wantCounts("in the end", [3]int{}, [3]int{})
			}
		})
	}
}

// TestBackupOfOverloadedServers: to be full is to be out, too.
func TestBackupOfOverloadedServers(t *testing.T) {
	a := families["v4"]
	x := serving{vip: netip.AddrPortFrom(a.vip.Addr(), 1000), servers: []Backend{server(a.web, ForwardNAT), server(netip.AddrPortFrom(a.second, 80), ForwardDR)}}
	x.servers[0].Upper, x.servers[1].Backup = 2, true
	b := newBed(t, x.option(t))
	for i, way := range []Forward{ForwardNAT, ForwardNAT, ForwardDR, ForwardDR} {
		from := netip.AddrPortFrom(a.client.Addr(), uint16(1+i))
		s := step{name: way.String(), in: pkttest.TCP(from, x.vip).SYN().Bytes(), verdict: Forwarded, port: lan, want: one(pkttest.TCP(from, a.web).SYN().TTL(63))}
		if way == ForwardDR {
			s.to, s.want = secondMAC, one(pkttest.TCP(from, x.vip).SYN().TTL(63))
		}
		run(t, b, []step{s})
	}
}

// TestUDPActive: sed and nq look at active connections alone, which UDP has none of, unless asked.
func TestUDPActive(t *testing.T) {
	a := families["v4"]
	for _, c := range []struct {
		scheduler string
		active    bool
		want      [2]int
	}{
		{"sed", false, [2]int{0, 9}}, {"sed", true, [2]int{3, 6}},
		{"nq", false, [2]int{9, 0}}, {"nq", true, [2]int{3, 6}},
	} {
		x := serving{vip: a.vip, protocol: packet.ProtoUDP, scheduler: c.scheduler, servers: []Backend{server(a.web, ForwardNAT), server(netip.AddrPortFrom(a.second, 80), ForwardDR)}}
		x.servers[1].Weight = 2
		for i := range x.servers {
			x.servers[i].UDPActive = c.active
		}
		b := newBed(t, x.option(t))
		for i := range 9 {
			b.through(false, pkttest.UDP(netip.AddrPortFrom(a.client.Addr(), uint16(1+i)), a.vip).Bytes())
		}
		for i, n := range c.want {
			want := [3]int{0, n, 0}
			if c.active {
				want = [3]int{n, 0, 0}
			}
			if got := b.counts(i); got != want {
				t.Errorf("%s, active %v: server %d has %v active, inactive and persistent, want %v", c.scheduler, c.active, i, got, want)
			}
		}
		b.drain()
		b.wantCounts("in the end", [3]int{}, [3]int{})
	}
}
