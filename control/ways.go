package control

import (
	"maps"
	"time"

	"weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/steer"
)

// ways is how a backend's connections have been reached since there were none: what steering must still take for them.
type ways struct {
	servers map[steer.Server]bool // answers that come from the server's own address
	nats    map[steer.NAT]bool    // answers to local addresses and ports; true: the address is configured, not a port's own
	tunnels map[steer.Tunnel]bool // errors about outer packets
	former  bool                  // some are not of the way that the backend is reached by now
	since   time.Time             // when these were last changed
}

func noWays() ways {
	return ways{servers: map[steer.Server]bool{}, nats: map[steer.NAT]bool{}, tunnels: map[steer.Tunnel]bool{}}
}

func (x *ways) clone() ways {
	c := *x
	c.servers, c.nats, c.tunnels = maps.Clone(x.servers), maps.Clone(x.nats), maps.Clone(x.tunnels)
	return c
}

func (x *ways) len() int { return len(x.servers) + len(x.nats) + len(x.tunnels) }

// change takes b from the way that it is reached by to that of next, and forgets those before if no connection goes by them any more. The one
// that it has until now stays for once: until next is published, workers open connections that go by it.
func (x *ways) change(b *backend, next dataplane.Backend, ports []dataplane.Port) {
	if x.servers == nil || b.idle() {
		*x = noWays()
		if b.snapshot.Live {
			x.add(b, ports)
		}
	}
	b.snapshot = next
	x.add(b, ports)
	now := noWays()
	now.add(b, ports)
	x.former, x.since = x.len() > now.len(), time.Now()
}

// add notes the way that b is reached now.
func (x *ways) add(b *backend, ports []dataplane.Port) {
	s := &b.snapshot
	switch s.Forward {
	case dataplane.ForwardDR, dataplane.ForwardVXLANDR: // nothing of it comes back
	case dataplane.ForwardIPIP:
		x.tunnels[steer.Tunnel{Server: b.key.address, Protocol: packet.ProtoIPIP}] = true
		x.tunnels[steer.Tunnel{Server: b.key.address, Protocol: packet.ProtoIPv6}] = true
	case dataplane.ForwardGUE:
		x.tunnels[steer.Tunnel{Server: b.key.address, Protocol: packet.ProtoUDP, Port: s.TunnelPort}] = true
	case dataplane.ForwardGRE:
		x.tunnels[steer.Tunnel{Server: b.key.address, Protocol: packet.ProtoGRE}] = true
	default:
		x.addNAT(b, ports)
	}
}

func (x *ways) addNAT(b *backend, ports []dataplane.Port) {
	if b.snapshot.VNI != 0 {
		return // its answers come out of a tunnel
	}
	sources := b.snapshot.Sources
	if sources == nil || sources.When != dataplane.MasqueradeAlways {
		x.servers[steer.Server{Addr: b.key.address, Protocol: b.key.service.protocol, Port: b.key.port}] = true
		for _, proto := range followersOf(b.key.service) {
			x.servers[steer.Server{Addr: b.key.address, Protocol: proto}] = true
		}
	}
	if sources == nil {
		return
	}
	for _, a := range sources.Addrs {
		x.nats[steer.NAT{Addr: dataplane.NetipOf(a, b.snapshot.V6), From: sources.From, To: sources.To}] = true
	}
	if len(sources.Addrs) > 0 {
		return
	}
	for i := range ports {
		for _, p := range ports[i].Addresses {
			if a := p.Addr(); a.Is6() == b.snapshot.V6 && !a.IsLinkLocalUnicast() {
				n := steer.NAT{Addr: a, From: sources.From, To: sources.To}
				if _, known := x.nats[n]; !known {
					x.nats[n] = false
				}
			}
		}
	}
}
