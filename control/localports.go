package control

import (
	"net/netip"
	"slices"
	"time"

	"weir/control/config"
	"weir/control/host"
)

// renewEvery is how often control looks if somebody wrote the list of reserved ports without ours; no event tells of it.
const renewEvery = 5 * time.Second

// bindingsOf are the addresses that the kernel must answer for: the VIPs, and the sources of full NAT, which servers answer to.
func bindingsOf(cfg *config.Config, vips []netip.Prefix) (all []netip.Prefix) {
	all = slices.Clone(vips)
	for i := range cfg.Services {
		if f := cfg.Services[i].FullNAT; f != nil {
			for _, a := range f.Addresses {
				if p := host.HostPrefix(a.Unmap()); !slices.Contains(all, p) {
					all = append(all, p)
				}
			}
		}
	}
	return all
}

// localPortsOf are the ranges of ports that must be ours alone, each once: those of full NAT and of masquerading.
func localPortsOf(cfg *config.Config) (all []host.PortRange) {
	for i := range cfg.Services {
		s := &cfg.Services[i]
		var r host.PortRange
		switch {
		case s.FullNAT != nil:
			r = host.PortRange(s.FullNAT.Ports)
		case s.Masquerade.Mode != "never":
			r = host.PortRange{From: masqueradeFrom, To: masqueradeTo}
		default:
			continue
		}
		if !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}

// reserve takes the local ports of cfg from the host. Without them weir works; connections of the host's own may not.
func (p *ports) reserve(cfg *config.Config) {
	r, err := p.local.Reserve(localPortsOf(cfg))
	p.reserved(r, err)
	if len(r.Added) > 0 {
		p.log.Info("local ports reserved", "ports", r.Added, "host", r.Range.String(), "left", r.Left)
	}
}

// renew reserves them again if somebody has undone it, or made room for more.
func (p *ports) renew() {
	if p.local == nil || time.Since(p.renewed) < renewEvery {
		return
	}
	r, changed, err := p.local.Renew()
	p.reserved(r, err)
	if changed && err == nil {
		p.log.Info("local ports reserved again", "ports", r.Added, "host", r.Range.String(), "left", r.Left)
	}
}

// reserved logs what stands in the way of local ports when that changes.
func (p *ports) reserved(r host.Reservation, err error) {
	p.renewed = time.Now()
	what := r.Warning()
	if err != nil {
		what = "local ports are not reserved: " + err.Error()
	}
	if what != p.scarce && what != "" {
		p.log.Warn("local ports", "warning", what)
	}
	p.scarce = what
}
