package live

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"

	"weir/control/host"
)

// advice passes on what package host has to say of the kernel's settings.
func (x *examination) advice() {
	ports := make([]host.Port, len(x.Config.Ports))
	for i := range x.Config.Ports {
		ports[i] = host.Port{Interface: x.Config.Ports[i].Interface, VLAN: x.Config.Ports[i].VLAN}
	}
	for _, a := range x.Host.Advise(ports) {
		level := Warning
		if a.Hint {
			level = Hint
		}
		x.host(level, lastOf(a.Key), a.Key+" is "+a.Value+": "+a.Why, a.Cure())
	}
	on := func(key string) bool { v, err := x.Host.Sysctl(key); return err == nil && v != "0" }
	forwards := on("net/ipv4/ip_forward")
	var cure []string
	for i := range x.links {
		name := x.links[i].Name
		if name == "" || x.owner(i) != i {
			continue
		}
		all, own := "net/ipv4/conf/all/accept_redirects", "net/ipv4/conf/"+name+"/accept_redirects"
		// A host takes them if either says so, a router if both do (IN_DEV_RX_REDIRECTS).
		if forwards && on(all) && on(own) || !forwards && (on(all) || on(own)) {
			for _, key := range []string{all, own} {
				if c := "sysctl -w " + key + "=0"; on(key) && !slices.Contains(cure, c) {
					cure = append(cure, c)
				}
			}
		}
	}
	if len(cure) > 0 {
		x.host(Hint, "accept_redirects", "ICMP redirects are accepted: the kernel's own traffic, health checks too, may then go another way than balanced packets, which heed routes alone", cure...)
	}
}

// lastOf is the name of a setting without its path.
func lastOf(key string) string {
	return strings.ReplaceAll(key[strings.LastIndexByte(key, '/')+1:], " ", "_")
}

// localPorts asks whether the ports of full NAT can be kept from the host's own connections.
func (x *examination) localPorts() {
	var want []host.PortRange
	for i := range x.Config.Services {
		if f := x.Config.Services[i].FullNAT; f != nil {
			if r := (host.PortRange{From: f.Ports.From, To: f.Ports.To}); !slices.Contains(want, r) {
				want = append(want, r)
			}
		}
	}
	r, err := x.Host.Reservable(want)
	if err != nil {
		x.unseen("local_ports", err)
		return
	}
	if w := r.Warning(); w != "" {
		x.host(Warning, "local_ports", w, r.Cure())
	}
}

// listeners looks for sockets of the host's own at what weir takes off the wire: they would never hear of it.
func (x *examination) listeners() {
	sockets, err := x.Host.Sockets()
	if err != nil {
		x.unseen("listeners", err)
		return
	}
	covers := func(s host.Socket, vip netip.Prefix) bool { return vip.Contains(s.Local.Addr()) }
	for i := range x.Config.Services {
		c := &x.Config.Services[i]
		for _, s := range sockets {
			if s.Waits && c.VNI == 0 && s.Protocol == c.Protocol && s.Local.Port() >= c.Port.From && s.Local.Port() <= c.Port.To &&
				slices.ContainsFunc(c.VIPs, func(p netip.Prefix) bool { return covers(s, p) }) {
				x.at(Warning, "listeners", &c.Place, "port", fmt.Sprintf("a program of this host waits at %s %v, but what comes for it is the service's (ss -Hlnp%s sport = :%d says whose it is: have it wait at another address)",
					s.Protocol, s.Local, s.Protocol[:1], s.Local.Port()))
				break
			}
		}
		f := c.FullNAT
		if f == nil {
			continue
		}
		for _, s := range sockets {
			a := s.Local.Addr()
			if s.Local.Port() < f.Ports.From || s.Local.Port() > f.Ports.To || !(s.Waits && a.IsUnspecified()) && !slices.Contains(f.Addresses, a) {
				continue
			}
			x.at(Warning, "local_ports", &f.Place, "ports", fmt.Sprintf("a %s socket of this host has %v, which is within the ports that are weir's alone: it gets no packets (ss -Hanp%s sport = :%d says whose it is; or give a range without it)",
				s.Protocol, s.Local, s.Protocol[:1], s.Local.Port()))
			break
		}
	}
}

// nftables is as much of `nft -j -a list ruleset` as is read.
type nftables struct {
	Nftables []struct {
		Rule *struct {
			Family, Table, Chain string
			Handle               int
			Expr                 []map[string]json.RawMessage
		}
	}
}

// filters looks for who else would translate what comes for a service. Balanced packets pass no netfilter hook, so such rules never see one.
func (x *examination) filters() {
	text, err := x.Host.Output("nft", "-j", "-a", "list", "ruleset")
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return // no rules without it, or others that we cannot read
	case err != nil:
		x.unseen("nftables", err)
		return
	}
	var rules nftables
	if err := json.Unmarshal(text, &rules); err != nil {
		x.unseen("nftables", fmt.Errorf("nft -j list ruleset: %w", err))
		return
	}
	var cure []string
	for _, r := range rules.Nftables {
		if r.Rule == nil || !translates(r.Rule.Expr) {
			continue
		}
		cure = append(cure, fmt.Sprintf("nft delete rule %s %s %s handle %d", r.Rule.Family, r.Rule.Table, r.Rule.Chain, r.Rule.Handle))
	}
	if len(cure) > 0 {
		x.host(Hint, "nftables", fmt.Sprintf("%d rules of nftables translate destinations: packets for a service never reach them, those that weir leaves to the kernel do", len(cure)), cure...)
	}
}

// translates reports whether a rule changes where packets go, by nftables' own statements or by those of iptables.
func translates(expr []map[string]json.RawMessage) bool {
	for _, e := range expr {
		for name, v := range e {
			if name == "dnat" || name == "redirect" {
				return true
			}
			var xt struct{ Name string }
			if name == "xt" && json.Unmarshal(v, &xt) == nil && (xt.Name == "DNAT" || xt.Name == "REDIRECT") {
				return true
			}
		}
	}
	return false
}
