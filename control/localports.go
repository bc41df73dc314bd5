package control

import (
	"net/netip"
	"slices"
	"time"

	"weir/control/host"
)

// renewEvery is how often control looks if somebody wrote the list of reserved ports without ours; no event tells of it.
const renewEvery = 5 * time.Second

// bindings are the addresses that the kernel must answer for: the VIPs, and the sources of full NAT, which servers answer to. What
// masquerading takes is the ports' own address: the operator's, who may take it away.
func (x *compiled) bindings() []netip.Prefix {
	all := slices.Clone(x.vips)
	for _, a := range x.sources {
		if p := host.HostPrefix(a); !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// localPorts are the ranges of ports that must be ours alone, each once, in ascending order.
func (x *compiled) localPorts() (all []host.PortRange) {
	for _, n := range x.rules.NAT {
		if r := (host.PortRange{From: n.From, To: n.To}); !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b host.PortRange) int { return int(a.From) - int(b.From) })
	return all
}

// reserve takes the local ports of x from the host. Without them weir works; connections of the host's own may not.
func (p *ports) reserve(x *compiled) {
	r, err := p.local.Reserve(x.localPorts())
	p.reserved(r, err)
	if len(r.Added) > 0 {
		p.log.Info("local ports reserved", "kind", "host", "ports", r.Added, "host", r.Range.String(), "left", r.Left)
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
		p.log.Info("local ports reserved again", "kind", "host", "ports", r.Added, "host", r.Range.String(), "left", r.Left)
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
		p.log.Warn("local ports", "kind", "limit", "warning", what)
	}
	p.scarce = what
}
