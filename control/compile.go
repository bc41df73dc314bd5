package control

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"weir/conntrack"
	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/route"
	"weir/dataplane/steer"
	"weir/vxlan"
)

// ErrInvalid says that a configuration is invalid or was refused; the diagnostics have been given.
var ErrInvalid = errors.New("configuration refused")

// compiled is a configuration turned into what the data path and the steering program take.
type compiled struct {
	snapshot *dataplane.Snapshot
	rules    *steer.Rules
	vips     []netip.Prefix
	sources  []netip.Addr    // local addresses of full NAT
	gone     map[uint32]bool // backends that were removed, or went down, just now and whose connections end with them
}

// steering are rules and what they came to.
type steering struct {
	rules *steer.Rules
	made  *steer.Compiled
}

// surroundings is what a snapshot needs to know besides the configuration: the ports as they are, and the kernel's routes and neighbours.
type surroundings struct {
	ports     []dataplane.Port
	devices   []steer.Port
	local     []netip.Addr // the host's own addresses, VIPs aside
	routes    []route.Route
	neighbors []route.Neighbor
	counts    func(id uint32) dataplane.Traffic
	gateways  map[uint32]*vxlan.Gateway // by VNI; compile makes them
}

// compile makes the next generation of cfg. It changes the registry, also where it fails then: see checkpoint.
func (r *registry) compile(cfg *config.Config, generation uint64, s *surroundings) (x *compiled, err error) {
	s.gateways = gatewaysOf(cfg)
	// What backends are compiled from besides their service.
	sameAround := slices.EqualFunc(r.ports, s.ports, func(a, b dataplane.Port) bool { return slices.Equal(a.Addresses, b.Addresses) }) &&
		reflect.DeepEqual(r.gateways, s.gateways)
	r.ports, r.gateways = s.ports, s.gateways
	fresh := 0
	for i := range cfg.Services {
		config.Breathe(i, 16)
		c := &cfg.Services[i]
		for _, key := range keysOf(c) {
			svc := r.services[key]
			if svc != nil && !(sameAround && r.stands(svc, c)) {
				r.touchService(svc)
				svc.from = nil
			}
			if svc != nil && svc.from != nil {
				continue
			}
			for b := range backendsOf(c, key) {
				if r.backends[b.key] == nil {
					fresh++
				}
			}
		}
	}
	if room := r.limit - len(r.ids) + len(r.free); fresh > room {
		return nil, fmt.Errorf("%d new backends, but there is room for %d more; the limit of %d counts removed ones that still have connections", fresh, room, r.limit)
	}

	known := make(map[serviceKey]*config.Service, len(cfg.Services))
	before := len(r.ids) // IDs from here on are new
	r.ended = map[uint32]bool{}
	r.live = make([]bool, len(r.ids), len(r.ids)+fresh)
	unusual := dataplane.Rate{PerSecond: cfg.Limits.Unusual.PerSecond}
	rules := &steer.Rules{Ports: slices.Clone(s.devices), Local: s.local, Grace: cfg.Grace, Unusual: time.Duration(unusual.Every())}
	var services []dataplane.Service
	var vips []netip.Prefix
	seen := make(map[netip.Prefix]bool, len(cfg.Services))
	rules.Services = make([]steer.Service, 0, len(cfg.Services))
	services = make([]dataplane.Service, 0, len(cfg.Services))
	for i := range cfg.Services {
		config.Breathe(i, 16)
		c := &cfg.Services[i]
		var timeouts *conntrack.Timeouts // of all its VIPs
		for _, key := range keysOf(c) {
			known[key] = c
			if x := r.services[key]; timeouts == nil && (x == nil || x.from == nil) {
				timeouts = timeoutsOf(&c.Conntrack, c.Persistence)
			}
			svc, err := r.compileService(c, key, timeouts, s)
			if err != nil {
				return nil, err
			}
			services = append(services, svc)
			if key.vni != 0 {
				continue // its packets come out of tunnels, and the segment's gateway answers for the VIP
			}
			rules.Services = append(rules.Services, steer.Service{VIP: key.vip, Protocol: key.protocol, From: key.port, To: key.portTo})
			for _, proto := range followersOf(key) {
				rules.Services = append(rules.Services, steer.Service{VIP: key.vip, Protocol: proto})
			}
			if !seen[key.vip] {
				seen[key.vip] = true
				vips = append(vips, key.vip)
			}
		}
	}
	for key := range r.services {
		if known[key] == nil {
			r.drop(key)
		}
	}

	gone := r.ended
	for id := range before {
		config.Breathe(id, 256)
		b := r.ids[id]
		if b == nil || r.live[id] {
			continue
		}
		was := b.live
		r.touch(b)
		b.live = false
		if was {
			b.removed, r.renamed = time.Now(), true
			b.lastWeight, b.fit = 0, fitness{} // a server that comes back is a new one in this
		}
		// What is left of its connections goes by what its service says now, or the global settings if that is gone, too.
		how := known[b.key.service]
		if how == nil {
			how = &config.Service{Conntrack: cfg.Conntrack}
		}
		b.snapshot.ExpireNow, b.snapshot.ReuseMode = how.Conntrack.ExpireNodestConn, uint32(how.Conntrack.ConnReuseMode)
		b.snapshot.Timeouts = timeoutsOf(&how.Conntrack, how.Persistence)
		if was && b.snapshot.ExpireNow {
			gone[uint32(id)] = true
		}
	}

	over, err := r.compileOverlay(cfg, rules)
	if err != nil {
		return nil, err
	}
	snap := &dataplane.Snapshot{
		Overlay:    over,
		Generation: generation,
		Ports:      s.ports,
		Backends:   make([]dataplane.Backend, len(r.ids)),
		Services:   dataplane.NewServices(services),
		Routes:     route.NewTable(append(routesOf(cfg, s.ports), s.routes...)),
		Neighbors:  route.NewNeighbors(append(neighborsOf(cfg), s.neighbors...)),
		Local:      map[netip.Addr]struct{}{},
		Paths:      map[netip.Addr]*dataplane.Path{},
		Answers:    dataplane.Rate{PerSecond: cfg.Limits.Answers.PerSecond},

		HalfOpenPerSource: cfg.Limits.HalfOpenPerSource,
		NewPerSource:      dataplane.Rate{PerSecond: cfg.Limits.NewPerSource.PerSecond},
		Unusual:           unusual,
	}
	for _, a := range s.local {
		snap.Local[a] = struct{}{}
	}
	nats, tunnels := map[steer.NAT]bool{}, map[steer.Tunnel]bool{}
	rules.Servers = make([]steer.Server, 0, len(r.ids))
	r.leaving = nil
	for id, b := range r.ids {
		config.Breathe(id, 256)
		if b == nil {
			continue
		}
		if !b.live || b.ways.former {
			r.leaving = append(r.leaving, uint32(id))
		}
		snap.Backends[id] = b.snapshot
		snap.Backends[id].Live = b.live && b.snapshot.Live
		// What a removed server answers, or one that was reached in another way, is still ours until its last connection is gone.
		rules.Servers = append(rules.Servers, b.ways.servers...)
		for _, x := range b.ways.nats {
			nats[x.NAT] = nats[x.NAT] || x.configured
		}
		for _, x := range b.ways.tunnels {
			tunnels[x] = true
			snap.Paths[x.Server] = r.path(x.Server)
			snap.Backends[id].Path = snap.Paths[x.Server] // also if no new connection goes through a tunnel
		}
	}
	for to := range r.paths {
		if snap.Paths[to] == nil {
			delete(r.paths, to)
		}
	}
	var sources []netip.Addr
	for x, configured := range nats {
		rules.NAT = append(rules.NAT, x)
		if configured && !slices.Contains(sources, x.Addr) {
			sources = append(sources, x.Addr)
		}
	}
	slices.SortFunc(sources, netip.Addr.Compare) // for whoever compares
	for x := range tunnels {
		rules.Tunnels = append(rules.Tunnels, x)
	}
	// In one order, so that they are the same as before wherever they say the same. Servers are nearly in it: IDs are given in the file's.
	slices.SortFunc(rules.Servers, func(a, b steer.Server) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	rules.Servers = slices.Compact(rules.Servers)
	slices.SortFunc(rules.NAT, func(a, b steer.NAT) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	slices.SortFunc(rules.Tunnels, func(a, b steer.Tunnel) int {
		return cmp.Or(a.Server.Compare(b.Server), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	if was := &r.steering; was.rules == nil || !rules.Equal(was.rules) {
		made, err := steer.Compile(rules)
		if err != nil {
			return nil, err
		}
		*was = steering{rules, made}
	}
	rules, snap.Steer = r.steering.rules, r.steering.made
	return &compiled{snapshot: snap, rules: rules, vips: vips, sources: sources, gone: gone}, nil
}

// routesOf are the routes of the configuration. Of a route that names no port, the hop leaves by the port whose link it is on.
func routesOf(cfg *config.Config, ports []dataplane.Port) (routes []route.Route) {
	for _, r := range cfg.Routes {
		hop := route.Hop{Via: r.Via, Port: portNamed(cfg, r.Port), Weight: 1}
		for i := range ports {
			for _, p := range ports[i].Addresses {
				if hop.Port < 0 && r.Port == "" && p.Contains(r.Via) {
					hop.Port = i
				}
			}
		}
		routes = append(routes, route.Route{To: r.To, Kind: route.Unicast, Hops: []route.Hop{hop}})
	}
	return routes
}

// neighborsOf are the neighbours of the configuration.
func neighborsOf(cfg *config.Config) (all []route.Neighbor) {
	for _, n := range cfg.Neighbors {
		all = append(all, route.Neighbor{Port: portNamed(cfg, n.Port), Addr: n.Address, MAC: n.MAC, Valid: true})
	}
	return all
}

// portNamed is the index of the port of that name, -1 if there is none.
func portNamed(cfg *config.Config, name string) int {
	for i := range cfg.Ports {
		if cfg.Ports[i].Name == name {
			return i
		}
	}
	return -1
}
