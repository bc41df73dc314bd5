package control

import (
	"slices"
	"time"

	"weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/steer"
)

// ways is how a backend's connections have been reached since there were none: what steering must still take for them. The lists are
// never changed, only replaced.
type ways struct {
	servers []steer.Server // answers that come from the server's own address
	nats    []natWay       // answers to local addresses and ports
	tunnels []steer.Tunnel // errors about outer packets
	former  bool           // some are not of the way that the backend is reached by now
	since   time.Time      // when these were last changed
}

// natWay is a local address with its ports.
type natWay struct {
	steer.NAT
	configured bool // the address is, rather than a port's own
}

func (x *ways) len() int { return len(x.servers) + len(x.nats) + len(x.tunnels) }

// same reports whether x and o take the same packets for theirs.
func (x *ways) same(o *ways) bool {
	return slices.Equal(x.servers, o.servers) && slices.Equal(x.nats, o.nats) && slices.Equal(x.tunnels, o.tunnels)
}

// with is x and what is in o beside it.
func (x ways) with(o ways) ways {
	x.servers, x.tunnels = union(x.servers, o.servers), union(x.tunnels, o.tunnels)
	x.nats = slices.Clone(x.nats)
	for _, n := range o.nats {
		if i := slices.IndexFunc(x.nats, func(m natWay) bool { return m.NAT == n.NAT }); i < 0 {
			x.nats = append(x.nats, n)
		} else {
			x.nats[i].configured = x.nats[i].configured || n.configured
		}
	}
	return x
}

// union is a new list, unless b adds nothing to a.
func union[T comparable](a, b []T) []T {
	for _, x := range b {
		if !slices.Contains(a, x) {
			a = append(slices.Clip(a), x)
		}
	}
	return a
}

// change takes b from the way that it is reached by to that of next, and forgets those before if no connection goes by them any more. The one
// that it has until now stays for once: until next is published, workers open connections that go by it.
func (x *ways) change(b *backend, next dataplane.Backend, ports []dataplane.Port) {
	var was ways
	switch {
	case x.len() > 0 && !b.idle():
		was = *x
	case b.snapshot.Live:
		was = wayOf(b, ports)
	}
	b.snapshot = next
	now := wayOf(b, ports)
	*x = was.with(now)
	x.former, x.since = x.len() > now.len(), time.Now()
}

// wayOf is the way that b is reached now.
func wayOf(b *backend, ports []dataplane.Port) (x ways) {
	s := &b.snapshot
	switch s.Forward {
	case dataplane.ForwardDR, dataplane.ForwardVXLANDR: // nothing of it comes back
	case dataplane.ForwardIPIP:
		x.tunnels = []steer.Tunnel{{Server: b.key.address, Protocol: packet.ProtoIPIP}, {Server: b.key.address, Protocol: packet.ProtoIPv6}}
	case dataplane.ForwardGUE:
		x.tunnels = []steer.Tunnel{{Server: b.key.address, Protocol: packet.ProtoUDP, Port: s.TunnelPort}}
	case dataplane.ForwardGRE:
		x.tunnels = []steer.Tunnel{{Server: b.key.address, Protocol: packet.ProtoGRE}}
	default:
		x.addNAT(b, ports)
	}
	return x
}

// addNAT notes in x, which is nobody else's yet, what comes back to NAT.
func (x *ways) addNAT(b *backend, ports []dataplane.Port) {
	if b.snapshot.VNI != 0 {
		return // its answers come out of a tunnel
	}
	sources := b.snapshot.Sources
	if sources == nil || sources.When != dataplane.MasqueradeAlways {
		x.servers = append(x.servers, steer.Server{Addr: b.key.address, Protocol: b.key.service.protocol, Port: b.key.port})
		for _, proto := range followersOf(b.key.service) {
			x.servers = append(x.servers, steer.Server{Addr: b.key.address, Protocol: proto})
		}
	}
	if sources == nil {
		return
	}
	for _, a := range sources.Addrs {
		x.nats = append(x.nats, natWay{steer.NAT{Addr: dataplane.NetipOf(a, b.snapshot.V6), From: sources.From, To: sources.To}, true})
	}
	if len(sources.Addrs) > 0 {
		return
	}
	for i := range ports {
		for _, p := range ports[i].Addresses {
			if a := p.Addr(); a.Is6() == b.snapshot.V6 && !a.IsLinkLocalUnicast() {
				n := steer.NAT{Addr: a, From: sources.From, To: sources.To}
				if !slices.ContainsFunc(x.nats, func(w natWay) bool { return w.NAT == n }) {
					x.nats = append(x.nats, natWay{n, false})
				}
			}
		}
	}
}
