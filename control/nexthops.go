package control

import (
	"net/netip"
	"time"

	"weir/control/config"
	"weir/dataplane"
)

// keep has the kernel keep the next hops of routes, the servers and the VTEPs on our links resolved, and lets go of what is needed no more.
func (p *ports) keep() {
	if p.keeper == nil {
		return
	}
	need := p.needed()
	for hop := range need {
		if hop.ifindex != 0 {
			if err := p.keeper.Resolve(hop.ifindex, hop.addr); err != nil {
				p.log.Debug("resolve", "address", hop.addr, "err", err)
			}
		}
	}
	p.wanted.expire(time.Now(), p.answered())
	p.retain(need)
}

// letGo lets go of next hops that workers wanted and that are wanted no more.
func (p *ports) letGo() {
	if p.keeper != nil && len(p.wanted) > 0 && p.wanted.expire(time.Now(), p.answered()) {
		p.retain(p.needed())
	}
}

// needed are the next hops that the configuration and the routes name, and those of connections to servers that it names no more.
func (p *ports) needed() map[hopKey]bool {
	state := p.mirror.State()
	need := map[hopKey]bool{}
	for _, r := range state.Routes {
		for _, h := range r.Hops {
			if h.Port >= 0 && h.Via.IsValid() {
				need[hopKey{state.Ports.Ifindex(h.Port), h.Via}] = true
			}
		}
	}
	for _, a := range append(stations(p.cfg), p.leaving()...) {
		if port := p.onLink(a); port >= 0 {
			need[hopKey{state.Ports.Ifindex(port), a}] = true
		}
	}
	return need
}

// leaving are servers that were removed while connections bear them. They may come back, and all of these go on in the same instant then: more packets
// than wait for a neighbour.
func (p *ports) leaving() (all []netip.Addr) {
	if p.engine == nil { // nothing is balanced yet
		return nil
	}
	snap := p.engine.Snapshot()
	for i := range snap.Backends {
		if b := &snap.Backends[i]; b.Timeouts != nil && !b.Live && b.VNI == 0 {
			all = append(all, dataplane.NetipOf(b.Addr, b.V6))
		}
	}
	return all
}

// inheritHops has a new keeper go on with what workers of the weir before wanted, clients above all. Else their entries would be deleted this moment, while
// their packets arrive: more of them than wait for a neighbour.
func (p *ports) inheritHops() {
	need, now := p.needed(), time.Now()
	p.keeper.Each(func(ifindex int, addr netip.Addr) {
		if hop := (hopKey{ifindex, addr}); !need[hop] {
			p.wanted.note(hop, now)
		}
	})
}

// answered reports whether the kernel knows the MAC address of a next hop.
func (p *ports) answered() func(hopKey) bool {
	state := p.mirror.State()
	known := map[hopKey]bool{}
	for _, n := range state.Neighbors {
		if n.Valid {
			known[hopKey{state.Ports.Ifindex(n.Port), n.Addr}] = true
		}
	}
	return func(hop hopKey) bool { return known[hop] }
}

// left lets go of the servers that the last connection has left.
func (p *ports) left() {
	if p.keeper != nil {
		p.retain(p.needed())
	}
}

func (p *ports) retain(need map[hopKey]bool) {
	if err := p.keeper.Retain(func(ifindex int, addr netip.Addr) bool {
		hop := hopKey{ifindex, addr}
		return p.wanted.has(hop) || need[hop]
	}); err != nil {
		p.log.Debug("neighbours", "err", err)
	}
}

// stations are the servers and VTEPs that packets are sent to. Servers in a segment are their gateway's to resolve.
func stations(cfg *config.Config) (all []netip.Addr) {
	for i := range cfg.Services {
		for j := range cfg.Services[i].Backends {
			if b := &cfg.Services[i].Backends[j]; b.Address.IsValid() && b.VNI == 0 {
				all = append(all, b.Address)
			}
		}
	}
	for i := range cfg.VXLAN.Segments {
		s := &cfg.VXLAN.Segments[i]
		for j := range s.Peers {
			all = append(all, s.Peers[j].Address)
		}
		for _, f := range s.FDB {
			all = append(all, f.VTEP)
		}
	}
	return all
}

// wanted are next hops that workers asked for, by when they did last. Whoever may send packets through us, or has us answer some, decides which these
// are, and the kernel asks for each of them every few seconds for as long as we keep it: so those that do not answer are soon let go, and there are
// never more than the kernel's own table has without being swept (net.ipv4.neigh.default.gc_thresh2 is 512).
type wanted map[hopKey]time.Time

const (
	// wantedFor is how long a next hop that answers is kept resolved by us; after that the kernel keeps it as any other, and a worker may ask again.
	wantedFor = 10 * time.Minute
	// silentFor is how long one may not answer: longer than a frame waits for it, and than the kernel asks (3 times, once a second).
	silentFor = 5 * time.Second
	maxWanted = 256
)

// note enters a hop that a worker asks for now. It reports false where there is no room.
func (w wanted) note(hop hopKey, now time.Time) bool {
	if _, known := w[hop]; !known && len(w) >= maxWanted {
		return false
	}
	w[hop] = now
	return true
}

// expire forgets what has been wanted for long enough, and reports whether that was any.
func (w wanted) expire(now time.Time, answered func(hopKey) bool) (any bool) {
	for hop, at := range w {
		if idle := now.Sub(at); idle > wantedFor || idle > silentFor && !answered(hop) {
			delete(w, hop)
			any = true
		}
	}
	return any
}

func (w wanted) has(hop hopKey) bool {
	_, is := w[hop]
	return is
}

// onLink is the port whose link has the address, -1 if none has.
func (p *ports) onLink(a netip.Addr) int {
	for i, l := range p.mirror.State().Links {
		for _, prefix := range l.Addresses {
			if prefix.Contains(a) && !prefix.IsSingleIP() {
				return i
			}
		}
	}
	return -1
}

// resolve makes the kernel resolve a next hop that a worker wants.
func (p *ports) resolve(w dataplane.Want) {
	ifindex := p.mirror.State().Ports.Ifindex(w.Port)
	if ifindex == 0 || p.keeper == nil {
		return
	}
	addr := dataplane.NetipOf(w.Addr, w.V6)
	if !p.wanted.note(hopKey{ifindex, addr}, time.Now()) {
		return
	}
	if err := p.keeper.Resolve(ifindex, addr); err != nil {
		p.log.Debug("resolve", "address", addr, "err", err)
	}
}
