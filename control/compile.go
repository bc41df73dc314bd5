package control

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"weir/conntrack"
	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/route"
	"weir/dataplane/sched"
	"weir/dataplane/steer"
)

// ErrInvalid says that a configuration is invalid or was refused; the diagnostics have been given.
var ErrInvalid = errors.New("configuration refused")

// compiled is a configuration turned into what the data path and the steering program take.
type compiled struct {
	snapshot *dataplane.Snapshot
	rules    *steer.Rules
	vips     []netip.Addr
}

// surroundings is what a snapshot needs to know besides the configuration: the ports as they are, and the kernel's routes and neighbours.
type surroundings struct {
	ports     []dataplane.Port
	devices   []steer.Port
	local     []netip.Addr // the host's own addresses, VIPs aside
	routes    []route.Route
	neighbors []route.Neighbor
	counts    func(id uint32) dataplane.Traffic
}

// compile makes the next generation of cfg. It fails before it has changed anything in the registry.
func (r *registry) compile(cfg *config.Config, generation uint64, s *surroundings) (x *compiled, err error) {
	fresh := 0
	for i := range cfg.Services {
		for _, key := range keysOf(&cfg.Services[i]) {
			for _, b := range backendsOf(&cfg.Services[i], key) {
				if r.backends[b.key] == nil {
					fresh++
				}
			}
		}
	}
	if room := r.limit - len(r.ids) + len(r.free); fresh > room {
		return nil, fmt.Errorf("%d new backends, but there is room for %d more; the limit of %d counts removed ones that still have connections", fresh, room, r.limit)
	}

	was := make([]bool, len(r.ids))
	for id, b := range r.ids {
		if b != nil {
			was[id], b.live = b.live, false
		}
	}
	known := map[serviceKey]*config.Conntrack{}
	rules := &steer.Rules{Ports: s.devices, Local: s.local, Grace: cfg.Grace}
	var services []dataplane.Service
	var vips []netip.Addr
	seen := map[netip.Addr]bool{}
	servers := map[steer.Server]bool{}
	for i := range cfg.Services {
		c := &cfg.Services[i]
		timeouts := timeoutsOf(&c.Conntrack)
		for _, key := range keysOf(c) {
			known[key] = &c.Conntrack
			svc, err := r.compileService(c, key, timeouts, s.counts)
			if err != nil {
				return nil, err
			}
			services = append(services, svc)
			rules.Services = append(rules.Services, steer.Service{VIP: steer.One(key.vip), Protocol: key.protocol, From: key.port, To: key.portTo})
			if !seen[key.vip] {
				seen[key.vip] = true
				vips = append(vips, key.vip)
			}
		}
	}
	for key := range r.services {
		if known[key] == nil {
			delete(r.services, key)
		}
	}

	for id := range was {
		b := r.ids[id]
		if b == nil || b.live {
			continue
		}
		if was[id] {
			b.removed = time.Now()
			b.lastWeight = 0 // a server that comes back is a new one in this
		}
		// What is left of its connections goes by what its service says now, or the global settings if that is gone, too.
		how := known[b.key.service]
		if how == nil {
			how = &cfg.Conntrack
		}
		b.snapshot.ExpireNow, b.snapshot.ReuseMode, b.snapshot.Timeouts = how.ExpireNodestConn, uint32(how.ConnReuseMode), timeoutsOf(how)
	}

	snap := &dataplane.Snapshot{
		Generation: generation,
		Ports:      s.ports,
		Backends:   make([]dataplane.Backend, len(r.ids)),
		Services:   dataplane.NewServices(services),
		Routes:     route.NewTable(append(routesOf(cfg, s.ports), s.routes...)),
		Neighbors:  route.NewNeighbors(append(neighborsOf(cfg), s.neighbors...)),
		Local:      map[netip.Addr]struct{}{},
		Answers:    dataplane.Rate{PerSecond: cfg.Limits.Answers.PerSecond},
	}
	for _, a := range s.local {
		snap.Local[a] = struct{}{}
	}
	for id, b := range r.ids {
		if b == nil {
			continue
		}
		snap.Backends[id] = b.snapshot
		snap.Backends[id].Live = b.live
		// A removed server's answers are still ours to translate, until its last connection is gone.
		servers[steer.Server{Addr: b.key.address, Protocol: b.key.service.protocol, Port: b.key.port}] = true
	}
	for x := range servers {
		rules.Servers = append(rules.Servers, x)
	}
	if snap.Steer, err = steer.Compile(rules); err != nil {
		return nil, err
	}
	return &compiled{snapshot: snap, rules: rules, vips: vips}, nil
}

// compileService brings the registry's service and its backends in line with the configuration.
func (r *registry) compileService(c *config.Service, key serviceKey, timeouts *conntrack.Timeouts, counts func(uint32) dataplane.Traffic) (dataplane.Service, error) {
	svc := r.service(key)
	svc.members = svc.members[:0]
	flags := flagsOf(c.Flags)
	var dests []sched.Dest
	var ids []uint32
	var printed strings.Builder
	for _, x := range backendsOf(c, key) {
		b, err := r.backend(x.key, counts)
		if err != nil {
			return dataplane.Service{}, err
		}
		w := int32(x.config.Weight)
		b.live, b.name, b.weight = true, x.config.Name, w
		if w != 0 {
			b.lastWeight = w
		}
		upper, lower := x.config.UpperThreshold, x.config.LowerThreshold
		b.load.Rethreshold(b.snapshot.Upper, upper)
		addr, v6 := dataplane.AddrOf(x.key.address)
		b.snapshot = dataplane.Backend{
			Timeouts: timeouts, Load: b.load, Live: true, V6: v6, Port: x.key.port, Addr: addr,
			Upper: upper, Lower: lower, Weight: w,
			ExpireNow: c.Conntrack.ExpireNodestConn, ReuseMode: uint32(c.Conntrack.ConnReuseMode),
		}
		svc.members = append(svc.members, b)
		dests = append(dests, sched.Dest{Load: b.load, ID: b.id, Weight: w, LastWeight: b.lastWeight, Upper: upper, Lower: lower,
			Addr: x.key.address, Port: x.key.port})
		ids = append(ids, b.id)
		fmt.Fprintln(&printed, b.id, w, b.lastWeight, upper, lower)
	}
	// An unchanged service keeps its plan and with it the scheduler's position; a changed one gets a plan of a newer generation, which
	// adjusts the position as the kernel does on an edit.
	inputs := planInputs{scheduler: c.Scheduler, flags: flags, dests: printed.String()}
	if svc.plan == nil || svc.inputs != inputs {
		if svc.inputs.scheduler != inputs.scheduler || svc.inputs.flags != inputs.flags {
			svc.state = r.state()
		}
		r.plans++
		plan, err := svc.plan.Next(c.Scheduler, flags, r.plans, dests)
		if err != nil {
			return dataplane.Service{}, fmt.Errorf("services: %s: scheduler %q: %w", c.Name, c.Scheduler, err)
		}
		svc.plan, svc.inputs = plan, inputs
	}
	svc.name = c.Name
	return dataplane.Service{
		Name: c.Name, Protocol: key.protocol, VIP: key.vip, Port: key.port, PortTo: key.portTo,
		Plan: svc.plan, State: svc.state, Dests: ids, SloppyTCP: c.Conntrack.SloppyTCP,
	}, nil
}

// configured is one backend of the configuration with its identity.
type configured struct {
	key    backendKey
	config *config.Backend
}

// keysOf are the identities of a service: one for each VIP.
func keysOf(c *config.Service) (keys []serviceKey) {
	for _, vip := range c.VIPs {
		keys = append(keys, serviceKey{protocolNumber(c.Protocol), vip.Unmap(), c.Port.From, c.Port.To})
	}
	return keys
}

// backendsOf are the backends of the service key that can be reached from its VIP: those of its family.
func backendsOf(c *config.Service, key serviceKey) (all []configured) {
	for i := range c.Backends {
		b := &c.Backends[i]
		if b.Serves(key.vip) {
			all = append(all, configured{backendKey{service: key, address: b.Address.Unmap(), port: b.Port, vni: b.VNI}, b})
		}
	}
	return all
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

// flagsOf are a scheduler's flags by the names that ipvsadm gives them.
func flagsOf(names []string) (f sched.Flags) {
	for _, name := range names {
		switch name {
		case "sh-port":
			f |= sched.ShPort
		case "sh-fallback":
			f |= sched.ShFallback
		case "mh-port":
			f |= sched.MhPort
		case "mh-fallback":
			f |= sched.MhFallback
		}
	}
	return f
}
