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
	state := p.mirror.State()
	need := map[hopKey]bool{}
	for _, r := range state.Routes {
		for _, h := range r.Hops {
			if h.Port >= 0 && h.Via.IsValid() {
				need[hopKey{state.Ports.Ifindex(h.Port), h.Via}] = true
			}
		}
	}
	for _, a := range stations(p.cfg) {
		if port := p.onLink(a); port >= 0 {
			need[hopKey{state.Ports.Ifindex(port), a}] = true
		}
	}
	for hop := range need {
		if hop.ifindex != 0 {
			if err := p.keeper.Resolve(hop.ifindex, hop.addr); err != nil {
				p.log.Debug("resolve", "address", hop.addr, "err", err)
			}
		}
	}
	for hop, at := range p.wanted {
		if time.Since(at) > wantedFor {
			delete(p.wanted, hop)
		}
	}
	if err := p.keeper.Retain(func(ifindex int, addr netip.Addr) bool {
		hop := hopKey{ifindex, addr}
		_, wanted := p.wanted[hop]
		return wanted || need[hop]
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
		all = append(all, s.Peers...)
		for _, f := range s.FDB {
			all = append(all, f.VTEP)
		}
	}
	return all
}

// wantedFor is how long a next hop that a worker asked for is kept resolved by us; after that the kernel keeps it as any other, and a worker
// may ask again.
const wantedFor = 10 * time.Minute

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
	p.wanted[hopKey{ifindex, addr}] = time.Now()
	if err := p.keeper.Resolve(ifindex, addr); err != nil {
		p.log.Debug("resolve", "address", addr, "err", err)
	}
}
