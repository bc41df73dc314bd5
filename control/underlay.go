package control

import (
	"fmt"
	"slices"

	"weir/control/config"
	"weir/control/host"
	"weir/control/live"
)

// hostLinks are the addresses that the host has on its ports' devices. Without access ports they are not read: there may be ten thousand VIPs among
// them.
func (p *ports) hostLinks() []config.Link {
	links := make([]config.Link, len(p.cfg.Ports))
	if !slices.ContainsFunc(p.cfg.VXLAN.Segments, func(s config.Segment) bool { return len(s.Access) > 0 }) {
		return links
	}
	all, err := p.host.Links()
	if err != nil {
		return links // it is looked at again soon
	}
	for i := range p.cfg.Ports {
		for j := range all {
			if all[j].Name == p.cfg.Ports[i].Interface {
				links[i].Addresses = all[j].Addresses
			}
		}
	}
	return links
}

// tendUnderlay looks after what the segments need of the host: that it has joined their groups, has our VTEPs' addresses, and none on access ports, whose devices
// take every frame: what stations say to others behind a tunnel, or to the gateway, is for MAC addresses that these devices do not have. What is wrong is
// logged when it changes; it is nothing to refuse, as addresses may come later, and move.
func (p *ports) tendUnderlay() {
	if p.groups == nil {
		return
	}
	state := p.mirror.State()
	trouble := map[string]string{}
	var want []host.Membership
	for i := range p.cfg.VXLAN.Segments {
		c := &p.cfg.VXLAN.Segments[i]
		name := fmt.Sprintf("segment %d", c.VNI)
		if !slices.Contains(state.Locals, host.HostPrefix(c.VTEP)) {
			trouble[name] = live.NoVTEP(c.VTEP)
		}
		if !c.Group.IsValid() {
			continue
		}
		m := host.Membership{Ifindex: state.Ports.Ifindex(portNamed(p.cfg, c.GroupInterface)), Group: c.Group}
		switch {
		case m.Ifindex == 0:
			trouble[name] = fmt.Sprintf("group %s: the host has no device for port %s", c.Group, c.GroupInterface)
		case !slices.Contains(want, m):
			want = append(want, m)
		}
	}
	for _, d := range p.cfg.AccessWarnings(p.hostLinks()) {
		trouble[d.Path] = d.Message
	}
	if err := p.groups.Set(want); err != nil {
		trouble["groups"] = err.Error()
	}
	if err := p.promisc.Set(p.accessDevices()); err != nil {
		trouble["access ports"] = err.Error()
	}
	for what, why := range trouble {
		if p.under[what] != why {
			p.log.Warn("underlay", "kind", "vxlan", "what", what, "err", why)
		}
	}
	for what := range p.under {
		if trouble[what] == "" {
			p.log.Info("underlay is as it should be", "kind", "vxlan", "what", what)
		}
	}
	p.under = trouble
}

// accessDevices are the devices of access ports that are there, by index, each once.
func (p *ports) accessDevices() (all []int) {
	links := p.mirror.State().Links
	for i := range p.cfg.VXLAN.Segments {
		for _, a := range p.cfg.VXLAN.Segments[i].Access {
			if port := portNamed(p.cfg, a.Port); port >= 0 && links[port].Index != 0 && !slices.Contains(all, links[port].Index) {
				all = append(all, links[port].Index)
			}
		}
	}
	return all
}
