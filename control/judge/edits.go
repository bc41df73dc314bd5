package judge

import "slices"

// edit changes the configuration, as an operator might.
func (g *generator) edit() {
	if len(g.services) == 0 {
		g.addNamed()
		return
	}
	i := g.IntN(len(g.services))
	s := &g.services[i]
	name := &Service{VIP: s.VIP, Port: s.Port, Protocol: s.Protocol}
	switch x := g.IntN(100); {
	case x < 45 && len(s.Backends) > 0:
		b := &s.Backends[g.IntN(len(s.Backends))]
		if b.Weight = g.weight(); g.chance(25) {
			g.thresholds(b)
		}
		edited := *b
		g.change(&Edit{Service: name, EditBackend: &edited})
	case x < 65 && len(s.Backends) > 0:
		at := g.IntN(len(s.Backends))
		b := s.Backends[at]
		s.Backends = append(append([]Backend{}, s.Backends[:at]...), s.Backends[at+1:]...)
		g.gone = append(g.gone, gone{name, b})
		g.change(&Edit{Service: name, RemoveBackend: &b})
	case x < 85:
		g.addBackend(s, name)
	case x < 94:
		edited := *s
		edited.Backends = nil
		g.shape(&edited)
		edited.OnePacket = s.OnePacket
		if edited.Scheduler == "mh" && s.mixed() {
			edited.Scheduler, edited.Flags = "wrr", nil // see docs/ipvs.md
		}
		backends := s.Backends
		*s = edited
		s.Backends = backends
		g.change(&Edit{EditService: &edited})
	case x < 97 && g.shares(i):
		g.services = append(append([]Service{}, g.services[:i]...), g.services[i+1:]...)
		g.change(&Edit{RemoveService: name})
	default:
		g.addNamed()
	}
}

// mixed reports whether a service has servers of another family than its own.
func (s *Service) mixed() bool {
	return slices.ContainsFunc(s.Backends, func(b Backend) bool { return isV6(b.Address) != isV6(s.VIP) })
}

func (g *generator) change(e *Edit) { g.add(Op{Do: DoEdit, Edit: e}) }

// addNamed adds a service to a VIP that there is: what the host answers elsewhere is not the question.
func (g *generator) addNamed() {
	if len(g.services) > 3 {
		return
	}
	s := *g.addService()
	for i := range g.s.Services {
		if g.s.Services[i].VIP == s.VIP {
			s.Backends = append([]Backend{}, s.Backends...)
			g.change(&Edit{AddService: &s})
			return
		}
	}
	g.services = g.services[:len(g.services)-1]
}

// shares reports whether another service has this one's VIP, so that it stays the balancer's own address in either bed.
func (g *generator) shares(i int) bool {
	for j := range g.services {
		if j != i && g.services[j].VIP == g.services[i].VIP {
			return true
		}
	}
	return false
}

// addBackend adds one that was removed, or a new one. With lblc and lblcr, one that comes back may have kept its clients in the kernel where
// weir forgot them (docs/ipvs.md), so there all are new.
func (g *generator) addBackend(s *Service, name *Service) {
	b := Backend{}
	back := -1
	for i := range g.gone {
		if g.gone[i].service.same(name) && g.chance(60) && s.Scheduler != "lblc" && s.Scheduler != "lblcr" {
			back = i
		}
	}
	if back >= 0 {
		b = g.gone[back].backend
		g.gone = append(append([]gone{}, g.gone[:back]...), g.gone[back+1:]...)
		b.Weight = g.weight()
	} else {
		forwards := []string{"nat"}
		if len(s.Backends) > 0 {
			forwards = []string{s.Backends[0].Forward}
		}
		b = g.backend(s, g.IntN(serverCount), forwards)
		if s.find(&b) >= 0 {
			return
		}
		for i := range g.gone {
			if g.gone[i].service.same(name) && g.gone[i].backend.Address == b.Address && g.gone[i].backend.Port == b.Port {
				return
			}
		}
	}
	s.Backends = append([]Backend{b}, s.Backends...)
	g.change(&Edit{Service: name, AddBackendFirst: &b})
}
