package dataplane_test

import (
	"net/netip"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/sched"
	"weir/dataplane/steer"
)

// serving is a service beside the bed's own. Its servers' IDs follow those, from ownServers on.
type serving struct {
	vip       netip.AddrPort
	net       string // a prefix in place of the VIP's address
	portTo    uint16 // 0: one port
	protocol  uint8  // 0: TCP
	scheduler string // "": rr
	servers   []Backend
	edit      func(*Service)
}

// ownServers are the servers of the bed's own services: web, dns, and web's IPv6 twin.
const ownServers = 3

// server is one that is reached at addr in a way; what else a Backend needs, option fills in.
func server(addr netip.AddrPort, way Forward) Backend {
	a, v6 := AddrOf(addr.Addr())
	return Backend{Addr: a, V6: v6, Port: addr.Port(), Forward: way, Weight: 1, ReuseMode: 1, Live: true}
}

// option puts the service into a bed's snapshot.
func (x serving) option(t testing.TB) bedOption {
	t.Helper()
	return func(s *Snapshot, _ *Engine) {
		svc := Service{Protocol: x.protocol, VIP: steer.One(x.vip.Addr()), Port: x.vip.Port(), PortTo: max(x.portTo, x.vip.Port()),
			State: new(sched.State), BackupState: new(sched.State)}
		if x.protocol == 0 {
			svc.Protocol = packet.ProtoTCP
		}
		if x.net != "" {
			svc.VIP = netip.MustParsePrefix(x.net)
		}
		timeouts := conntrack.DefaultTimeouts()
		for _, b := range x.servers {
			b.Timeouts, b.Load = &timeouts, new(sched.Load)
			if b.Forward >= ForwardIPIP {
				b.Path = pathTo(s, b)
			}
			if b.Forward == ForwardGUE && b.TunnelPort == 0 {
				b.TunnelPort = 6080
			}
			id := uint32(len(s.Backends))
			s.Backends = append(s.Backends, b)
			if b.Backup {
				svc.BackupDests = append(svc.BackupDests, id)
			} else {
				svc.Dests = append(svc.Dests, id)
			}
		}
		x.plan(t, s, &svc, 1)
		if x.edit != nil {
			x.edit(&svc)
		}
		s.Services = NewServices(append(s.Services.All[:len(s.Services.All):len(s.Services.All)], svc))
	}
}

// pathTo is that to a server, which all services share.
func pathTo(s *Snapshot, b Backend) *Path {
	to := NetipOf(b.Addr, b.V6)
	if s.Paths == nil {
		s.Paths = map[netip.Addr]*Path{}
	}
	if s.Paths[to] == nil {
		s.Paths[to] = new(Path)
	}
	return s.Paths[to]
}

// plan makes the service's plans, of a generation, from what the snapshot says of its servers.
func (x serving) plan(t testing.TB, s *Snapshot, svc *Service, generation uint64) {
	t.Helper()
	make := func(ids []uint32) *sched.Plan {
		var dests []sched.Dest
		for _, id := range ids {
			b := &s.Backends[id]
			if b.Live {
				dests = append(dests, sched.Dest{Load: b.Load, ID: id, Weight: b.Weight, LastWeight: max(b.Weight, 1), Upper: b.Upper, Lower: b.Lower,
					Addr: NetipOf(b.Addr, b.V6), Port: b.Port})
			}
		}
		name := x.scheduler
		if name == "" {
			name = "rr"
		}
		p, err := sched.New(name, sched.Options{}, generation, dests)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	svc.Plan = make(svc.Dests)
	if svc.BackupDests != nil {
		svc.Backup = make(svc.BackupDests)
	}
}

// change edits server i of the service, which must be the bed's last, and publishes that.
func (x serving) change(b *bed, i int, edit func(*Backend)) {
	b.t.Helper()
	b.snap.Backends = append([]Backend(nil), b.snap.Backends...)
	edit(&b.snap.Backends[ownServers+i])
	b.snap.Generation++
	all := append([]Service(nil), b.snap.Services.All...)
	svc := &all[len(all)-1]
	var real []uint32
	for _, id := range svc.Dests {
		if b.snap.Backends[id].Live {
			real = append(real, id)
		}
	}
	svc.Dests = real
	x.plan(b.t, &b.snap, svc, b.snap.Generation)
	b.snap.Services = NewServices(all)
	b.publish()
}

// through puts an IP packet on a side's wire, turns a round, and returns the IP packet that leaves and its port; nil if none does. More than one
// must not leave.
func (b *bed) through(server bool, in []byte) (out []byte, port int) {
	b.t.Helper()
	if server {
		b.fromServer(in)
	} else {
		b.fromClient(in)
	}
	b.round()
	for p := range b.ports {
		for f := b.take(p); f != nil; f = b.take(p) {
			if out != nil {
				b.t.Fatalf("two packets left for one: %s", pkttest.String(f[14:]))
			}
			out, port = f[14:], p
		}
	}
	return out, port
}

// dropped is for what the latest round dropped its packet, DropNone if it did not.
func (b *bed) dropped() Drop {
	_, drops := b.engine.Verdicts()
	for _, d := range dropsOf(b.drops, drops) {
		return d
	}
	return DropNone
}

// counts are the active, inactive and persistent connections of server i of the services beside the bed's own.
func (b *bed) counts(i int) [3]int {
	l := b.snap.Backends[ownServers+i].Load
	return [3]int{l.Active(), l.Inactive(), l.Persistent()}
}

// sum is what was counted for server i.
func (b *bed) sum(i int) Traffic { return b.worker.Backends[ownServers+i].Sum() }

// wantCounts compares counts with those of each server.
func (b *bed) wantCounts(what string, want ...[3]int) {
	b.t.Helper()
	for i, w := range want {
		if got := b.counts(i); got != w {
			b.t.Errorf("%s: server %d has %v active, inactive and persistent, want %v", what, i, got, w)
		}
	}
}

// state is that of the bed's only connection, templates aside.
func (b *bed) state() (s conntrack.State) {
	b.t.Helper()
	n := 0
	b.engine.Table.Range(conntrack.TickOf(b.now), func(c *conntrack.Info) bool {
		if c.State != conntrack.Template {
			s = c.State
			n++
		}
		return true
	})
	if n != 1 {
		b.t.Errorf("%d connections, want one", n)
	}
	return s
}

// after lets time pass and looks at every connection.
func (b *bed) after(nanoseconds int64) {
	b.now += nanoseconds
	b.worker.ExpireAll(b.now)
	b.round()
}

// drain lets the time pass that every connection needs to end, in steps: a template looks at its own time only when its last connection is gone.
func (b *bed) drain() {
	for range 20 {
		b.after(61e9)
	}
}

// serverOf says which of the servers the packet is for, by its destination.
func serverOf(ip []byte, servers ...netip.Addr) int {
	for i, a := range servers {
		if ip == nil {
			break
		}
		at := 16
		if ip[0]>>4 == 6 {
			at = 24
		}
		if string(ip[at:at+len(a.AsSlice())]) == string(a.AsSlice()) {
			return i
		}
	}
	return -1
}
