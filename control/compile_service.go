package control

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"weir/conntrack"
	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/route"
	"weir/dataplane/sched"
	"weir/vxlan"
)

// stands reports whether what svc came to, when it was compiled last, stands if c is what the configuration says of it now: nothing is new,
// no backend was given up meanwhile, none has a former way to forget.
func (r *registry) stands(svc *service, c *config.Service) bool {
	if svc.from == nil || !svc.from.Same(c) {
		return false
	}
	for _, id := range svc.ids {
		if b := r.ids[id]; b == nil || !b.live || b.ways.former || b.key.service != svc.key {
			return false
		}
	}
	return true
}

// compileService brings the registry's service and its backends in line with the configuration.
func (r *registry) compileService(c *config.Service, key serviceKey, timeouts *conntrack.Timeouts, s *surroundings) (dataplane.Service, error) {
	svc := r.service(key)
	if svc.from != nil {
		svc.from = c // the same, but it does not keep the former configuration
		for _, id := range svc.ids {
			r.live[id] = true
		}
		return svc.made, nil
	}
	r.touchService(svc)
	svc.name, svc.ids = c.Name, make([]uint32, 0, len(c.Backends))
	real, backup := newRoll(len(c.Backends)), roll{}
	for x := range backendsOf(c, key) {
		b, err := r.backend(x.key, s.counts)
		if err != nil {
			return dataplane.Service{}, err
		}
		for len(r.live) <= int(b.id) {
			r.live = append(r.live, false)
		}
		r.live[b.id] = true
		svc.ids = append(svc.ids, b.id)
		r.examine(b, c, x.config)
		w := int32(x.config.Weight)
		r.renamed = r.renamed || !b.live
		b.live, b.name, b.weight = true, x.config.Name, w
		if w != 0 {
			b.lastWeight = w
		}
		b.load.Rethreshold(b.snapshot.Upper, x.config.UpperThreshold)
		before := b.ways
		b.ways.change(b, r.snapshotOf(b, c, x.config, timeouts, s.gateways[x.key.vni]), s.ports)
		r.renamed = r.renamed || !b.ways.same(&before)
		switch {
		case b.fit.off() && !c.Inhibit:
		case x.config.Backup:
			backup.add(b)
		default:
			real.add(b)
		}
	}
	out := dataplane.Service{
		Name: c.Name, Protocol: key.protocol, VIP: key.vip, VNI: key.vni, Port: key.port, PortTo: key.portTo, SloppyTCP: c.Conntrack.SloppyTCP,
		OnePacket: c.OnePacket && key.protocol == packet.ProtoUDP, Allow: networks(c.Allow), Deny: networks(c.Deny),
		Persistence: persistenceOf(c), Cookies: cookiesOf(c), Challenge: challenges(c, key),
	}
	real.scale()
	backup.scale()
	if err := r.plan(&svc.real, c, &real); err != nil {
		return dataplane.Service{}, err
	}
	out.Plan, out.State, out.Dests = svc.real.plan, svc.real.state, real.ids
	if len(backup.ids) > 0 {
		if err := r.plan(&svc.backup, c, &backup); err != nil {
			return dataplane.Service{}, err
		}
		out.Backup, out.BackupState, out.BackupDests = svc.backup.plan, svc.backup.state, backup.ids
	}
	svc.from, svc.made = c, out
	return out, nil
}

// isakmp is the port whose connections ESP and AH follow (dataplane/lookup.go).
const isakmp = 500

// followersOf are the protocols that follow the connections of a service.
func followersOf(key serviceKey) []uint8 {
	switch {
	case key.protocol != packet.ProtoUDP || key.port > isakmp || key.portTo < isakmp:
		return nil
	case key.vip.Addr().Is6():
		return []uint8{packet.ProtoESP} // AH is an extension header there
	}
	return []uint8{packet.ProtoESP, packet.ProtoAH}
}

// roll is the destinations of one plan, as the registry has them.
type roll struct {
	dests []sched.Dest
	ids   []uint32
	parts []int32 // tenths of its weight that each is to have
}

func newRoll(n int) roll {
	return roll{make([]sched.Dest, 0, n), make([]uint32, 0, n), make([]int32, 0, n)}
}

func (l *roll) add(b *backend) {
	weight := b.weight
	if b.fit.off() {
		weight = 0
	}
	l.dests = append(l.dests, sched.Dest{Load: b.load, ID: b.id, Weight: weight, LastWeight: b.lastWeight, Upper: b.snapshot.Upper,
		Lower: b.snapshot.Lower, Addr: b.key.address, Port: b.key.port})
	l.ids = append(l.ids, b.id)
	l.parts = append(l.parts, b.fit.parts())
}

// scale makes all weights ten times as large while one is to have but a part of its own: a weight of 1 has no tenth.
func (l *roll) scale() {
	if !slices.ContainsFunc(l.parts, func(parts int32) bool { return parts < slowSteps }) {
		return
	}
	for i := range l.dests {
		l.dests[i].Weight *= l.parts[i]
		l.dests[i].LastWeight *= slowSteps
	}
}

// print is what decides of a plan's decisions.
func (l *roll) print() string {
	var b strings.Builder
	for _, d := range l.dests {
		fmt.Fprintln(&b, d.ID, d.Weight, d.LastWeight, d.Upper, d.Lower)
	}
	return b.String()
}

// plan makes p the plan of l. What is unchanged keeps its plan and with it the scheduler's position; what changed gets a plan of a newer
// generation, which adjusts the position as the kernel does on an edit.
func (r *registry) plan(p *planned, c *config.Service, l *roll) error {
	inputs := planInputs{scheduler: c.Scheduler, options: optionsOf(c), dests: l.print()}
	if p.plan != nil && p.inputs == inputs {
		return nil
	}
	if p.state == nil { // another scheduler has all destinations from the start, where a new service gets one after the other: it keeps the state
		p.state = r.state()
	}
	r.plans++
	plan, err := p.plan.Next(c.Scheduler, inputs.options, r.plans, l.dests)
	if err != nil {
		return fmt.Errorf("services: %s: scheduler %q: %w", c.Name, c.Scheduler, err)
	}
	p.plan, p.inputs = plan, inputs
	return nil
}

// snapshotOf is what the data path knows of b, a backend of service c that is configured by x. gate is the gateway of the segment it is in.
func (r *registry) snapshotOf(b *backend, c *config.Service, x *config.Backend, timeouts *conntrack.Timeouts, gate *vxlan.Gateway) dataplane.Backend {
	addr, v6 := dataplane.AddrOf(b.key.address)
	s := dataplane.Backend{
		Timeouts: timeouts, Load: b.load, Live: true, V6: v6, Forward: forwardOf(x.Forward), Port: b.key.port, Addr: addr,
		Upper: x.UpperThreshold, Lower: x.LowerThreshold, Weight: int32(x.Weight), Backup: x.Backup, UDPActive: c.UDPActive,
		ExpireNow: c.Conntrack.ExpireNodestConn, ReuseMode: uint32(c.Conntrack.ConnReuseMode),
		VNI: b.key.vni, TunnelPort: x.TunnelPort, TunnelSum: x.TunnelChecksum,
	}
	b.fit.apply(&s, c)
	switch s.Forward {
	case dataplane.ForwardIPIP, dataplane.ForwardGUE, dataplane.ForwardGRE:
		s.Path = r.path(b.key.address)
	case dataplane.ForwardNAT:
		s.Sources = sourcesOf(b, c, x, gate)
	}
	return s
}

// masqueradeFrom and masqueradeTo are the local ports of masquerading where no fullnat section says others: those that Linux once kept for
// it, beyond the range that it gives to its own connections.
const masqueradeFrom, masqueradeTo = 61000, 65535

// gatewayFrom is the first local port of masquerading in a segment: its gateway has no connections of its own.
const gatewayFrom = 1024

// sourcesOf is where the connections to b come from, if not from the client. In a segment that is its gateway's address.
func sourcesOf(b *backend, c *config.Service, x *config.Backend, gate *vxlan.Gateway) *dataplane.Sources {
	s := &dataplane.Sources{From: masqueradeFrom, To: masqueradeTo, Cursor: b.cursor}
	if gate != nil {
		s.From = gatewayFrom
		to, v6 := vxlan.AddrOf(b.key.address)
		if a, ok := gate.Source(to, v6); ok {
			s.Addrs = []conntrack.Addr{conntrack.Addr(a)}
		}
	}
	if f := c.FullNAT; f != nil {
		s.From, s.To, s.TOA = f.Ports.From, f.Ports.To, f.ClientAddress == "toa"
		for _, a := range f.Addresses {
			if addr, v6 := dataplane.AddrOf(a); v6 == b.key.address.Is6() && gate == nil {
				s.Addrs = append(s.Addrs, addr)
			}
		}
	}
	switch {
	case x.Forward == "fullnat":
	case c.Masquerade.Mode == "always":
	case c.Masquerade.Mode == "hairpin":
		s.When = dataplane.MasqueradeHairpin
	case c.Masquerade.Mode == "except":
		s.When, s.Except = dataplane.MasqueradeExcept, networks(c.Masquerade.Except)
	default:
		return nil
	}
	return s
}

func forwardOf(name string) dataplane.Forward {
	switch name {
	case "dr":
		return dataplane.ForwardDR
	case "ipip":
		return dataplane.ForwardIPIP
	case "gue":
		return dataplane.ForwardGUE
	case "gre":
		return dataplane.ForwardGRE
	case "vxlan-dr":
		return dataplane.ForwardVXLANDR
	}
	return dataplane.ForwardNAT // fullnat, too: that differs in its sources
}

// networks is a set of prefixes as the data path asks it, nil for none.
func networks(all []netip.Prefix) *route.Table {
	if len(all) == 0 {
		return nil
	}
	var routes []route.Route
	for _, p := range all {
		routes = append(routes, route.Route{To: p, Kind: route.Local})
	}
	return route.NewTable(routes)
}

func persistenceOf(c *config.Service) *dataplane.Persistence {
	p := c.Persistence
	if p == nil {
		return nil
	}
	mask4 := ^uint32(0) << (32 - p.Prefix)
	mask6 := conntrack.Addr{Hi: ^uint64(0) << (64 - min(p.Prefix6, 64)), Lo: ^uint64(0) << (64 - max(p.Prefix6-64, 0))}
	return &dataplane.Persistence{Mask4: mask4, Mask6: mask6, Quiescent: c.Conntrack.ExpireQuiescentTemplate}
}

// cookiesOf is when a service asks its clients for a sign of life. What is sloppy takes their answer for the opening segment.
func cookiesOf(c *config.Service) dataplane.Cookies {
	switch {
	case c.Protocol != "tcp" || c.Conntrack.SloppyTCP:
		return dataplane.CookiesOff
	case c.Conntrack.SynCookies == "always":
		return dataplane.CookiesAlways
	case c.Conntrack.SynCookies == "auto":
		return dataplane.CookiesAuto
	}
	return dataplane.CookiesOff
}

// challenges reports whether the service of key has a server whose answers pass us by.
func challenges(c *config.Service, key serviceKey) bool {
	for x := range backendsOf(c, key) {
		if forwardOf(x.config.Forward) != dataplane.ForwardNAT {
			return true
		}
	}
	return false
}

// configured is one backend of the configuration with its identity.
type configured struct {
	key    backendKey
	config *config.Backend
}

// keysOf are the identities of a service: one for each VIP.
func keysOf(c *config.Service) (keys []serviceKey) {
	for _, vip := range c.VIPs {
		keys = append(keys, serviceKey{protocolNumber(c.Protocol), vip, c.Port.From, c.Port.To, c.VNI})
	}
	return keys
}

// backendsOf are the backends of the service key that can be reached from its VIP: those of its family.
func backendsOf(c *config.Service, key serviceKey) iter.Seq[configured] {
	return func(yield func(configured) bool) {
		for i := range c.Backends {
			b := &c.Backends[i]
			if b.Serves(key.vip) && !yield(configured{backendKey{service: key, address: b.Address.Unmap(), port: b.Port, vni: b.VNI}, b}) {
				return
			}
		}
	}
}

// optionsOf is how a service's scheduler is set up.
func optionsOf(c *config.Service) sched.Options {
	o := sched.Options{Flags: flagsOf(c.Flags), Seed: c.HashSeed}
	if c.Scheduler == "mh" {
		o.Slots = c.MHTable
	}
	return o
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
