package config

import (
	"net/netip"
	"slices"
	"strings"
)

// check finds what two places together make wrong. It runs after errors of single values, too: those are zero or unset then,
// and every check lets them pass.
func (d *decoder) check() {
	c := d.config
	names := d.checkPorts()
	d.checkRoutes(names)
	d.checkNeighbors(names)
	segments := d.checkVXLAN(names)
	d.checkServices(segments)
	d.warnServices()
	for _, w := range c.MTUWarnings(c.WrittenLinks()) {
		if len(d.diags) < maxDiagnostics {
			d.diags = append(d.diags, w)
		}
	}
	for _, key := range []string{"token_file", "pprof", "hosts"} {
		if c.Admin.Given(key) && !c.Admin.Given("http") {
			d.warnf(c.Admin.Field(key), "admin."+key, "has no effect without admin.http")
		}
	}
}

// portNames are the names of all ports, with those of each.
type portNames struct {
	list []string
	port map[string]*Port
	gaps bool // a port's name could not be read
}

// known tells of a name that no port has.
func (d *decoder) known(names portNames, place *Place, name string) *Port {
	return d.knownAs(names, place, "port", name)
}

// knownAs is known for a name that stands under another key than port.
func (d *decoder) knownAs(names portNames, place *Place, key, name string) *Port {
	if name == "" {
		return nil
	}
	p := names.port[name]
	if p == nil && !names.gaps {
		near := nearest(name, names.list)
		others := ""
		if near == "" && len(names.list) > 0 {
			others = ": there are " + abridged(names.list)
		}
		d.suggestf(place.Field(key), join(place.Path, key), near, "unknown port %s%s", quoted(name), others)
	}
	return p
}

func (d *decoder) checkPorts() (names portNames) {
	c := d.config
	names.port = map[string]*Port{}
	if c.Given("ports") && len(c.Ports) == 0 && !c.bad("ports") {
		d.errorf(c.Field("ports"), "ports", "is empty: at least one port is needed")
	}
	names.gaps = len(c.Ports) == 0
	type link struct {
		device string
		vlan   uint16
	}
	links := map[link]*Port{}
	devices := map[string]*Port{}
	for i := range c.Ports {
		p := &c.Ports[i]
		names.gaps = names.gaps || p.Name == ""
		if p.Name != "" {
			if first := names.port[p.Name]; first != nil {
				d.errorf(p.Field("name"), p.Path+".name", "duplicate port name %s, first in %s", quoted(p.Name), d.line(first.Field("name").Line))
			} else {
				names.port[p.Name] = p
				names.list = append(names.list, p.Name)
			}
		}
		d.checkPort(p)
		if d.replay || p.Interface == "" || !kernelDevice(p.Driver) {
			continue
		}
		l := link{p.Interface, p.VLAN}
		if first := links[l]; first != nil && !p.bad("vlan") && !first.bad("vlan") {
			d.errorf(p.Field("interface"), p.Path+".interface", "%s with VLAN %d is %s already: ports that share an interface need different VLANs",
				printable(p.Interface), p.VLAN, first.Path)
		} else if first := devices[p.Interface]; first != nil {
			d.checkShared(p, first)
		}
		links[l] = p
		if devices[p.Interface] == nil {
			devices[p.Interface] = p
		}
	}
	return names
}

func (d *decoder) checkPort(p *Port) {
	if p.Pos == (Pos{}) || p.keys == nil {
		return // no mapping: said already
	}
	kernel := kernelDevice(p.Driver)
	if !d.replay && kernel {
		if !p.Given("interface") {
			d.errorf(p.Pos, p.Path, "interface is missing: driver %s needs it", p.Driver)
		}
		if p.Given("xdp_mode") && p.XDPMode != "auto" && p.XDPMode != "" && p.Driver != "af_xdp" {
			d.warnf(p.Field("xdp_mode"), p.Path+".xdp_mode", "has no effect with driver %s", p.Driver)
		}
		switch {
		case p.XDPSend != "live":
		case p.Driver == "af_packet":
			d.errorf(p.Field("xdp_send"), p.Path+".xdp_send", "live frames are sent by driver af_xdp, not by %s (cure: leave the key out)", p.Driver)
		case p.XDPMode == "zerocopy":
			d.errorf(p.Field("xdp_send"), p.Path+".xdp_send", "live frames are for copy mode, not for xdp_mode zerocopy (cure: leave the key out)")
		}
		if !p.Queues.All && p.Driver != "af_xdp" && p.Driver != "" {
			d.errorf(p.Field("queues"), p.Path+".queues", "is for driver af_xdp: a packet socket takes what every queue receives")
		}
		if workers := d.config.Engine.Workers.Count; !p.Queues.All && workers > 0 && len(p.Queues.List) > 0 && len(p.Queues.List) != workers && !p.bad("queues") {
			d.errorf(p.Field("queues"), p.Path+".queues", "must be as many as engine.workers, %d: each worker has one of them, not %d", workers, len(p.Queues.List))
		}
	}
	if d.replay || !kernel && p.Driver != "" {
		who := "driver " + p.Driver
		if d.replay {
			who = "a replay"
		}
		for _, key := range []string{"mac", "addresses"} {
			if !p.Given(key) || key == "addresses" && len(p.Addresses) == 0 && !p.bad(key) {
				d.errorf(p.Pos, p.Path, "%s is missing: %s needs it", key, who)
			}
		}
	}
	seen := map[netip.Addr]bool{}
	v6 := false
	for i, a := range p.Addresses {
		if seen[a.Addr()] {
			pos, path := d.item(&p.Place, "addresses", i)
			d.errorf(pos, path, "duplicate address %s", a.Addr())
		}
		seen[a.Addr()] = true
		v6 = v6 || a.Addr().Is6()
	}
	if v6 && p.MTU != 0 && p.MTU < 1280 {
		d.errorf(p.Field("mtu"), p.Path+".mtu", "must be at least 1280 on a port with an IPv6 address (RFC 8200 section 5), not %d", p.MTU)
	}
}

// checkShared demands that ports of one device agree on what the device has once.
func (d *decoder) checkShared(p, first *Port) {
	for _, x := range []struct {
		key    string
		differ bool
	}{
		{"driver", p.Driver != first.Driver && first.Driver != ""},
		{"xdp_mode", p.XDPMode != first.XDPMode && p.XDPMode != "" && first.XDPMode != ""},
		{"xdp_send", p.XDPSend != first.XDPSend && p.XDPSend != "" && first.XDPSend != ""},
		{"queues", !equalQueues(p.Queues, first.Queues) && !p.bad("queues") && !first.bad("queues")},
	} {
		if x.differ {
			d.errorf(p.Field(x.key), join(p.Path, x.key), "must be as in %s, which shares interface %s", first.Path, printable(p.Interface))
		}
	}
}

func (d *decoder) checkRoutes(names portNames) {
	c := d.config
	own := map[netip.Addr]*Port{}
	for i := range c.Ports {
		for _, a := range c.Ports[i].Addresses {
			own[a.Addr()] = &c.Ports[i]
		}
	}
	seen := map[netip.Prefix]*Route{}
	for i := range c.Routes {
		r := &c.Routes[i]
		d.known(names, &r.Place, r.Port)
		if r.To.IsValid() {
			if first := seen[r.To]; first != nil {
				d.errorf(r.Field("to"), r.Path+".to", "duplicate route to %s, first in %s", r.To, d.line(first.Pos.Line))
			} else {
				seen[r.To] = r
			}
		}
		if !r.Via.IsValid() {
			continue
		}
		via, path := r.Field("via"), r.Path+".via"
		if r.To.IsValid() && r.To.Addr().Is4() != r.Via.Is4() {
			d.errorf(via, path, "%s next hop %s for %s route %s", family(r.Via), r.Via, family(r.To.Addr()), r.To)
		}
		if r.Via.IsLinkLocalUnicast() && !r.Given("port") {
			d.errorf(via, path, "a link-local next hop needs port, too: %s", r.Via)
		}
		if p := own[r.Via]; p != nil {
			d.errorf(via, path, "the next hop %s is %s itself", r.Via, p.Path)
		}
	}
}

func (d *decoder) checkNeighbors(names portNames) {
	type key struct {
		address netip.Addr
		port    string
	}
	seen := map[key]*Neighbor{}
	for i := range d.config.Neighbors {
		n := &d.config.Neighbors[i]
		d.known(names, &n.Place, n.Port)
		if !n.Address.IsValid() || n.Port == "" {
			continue
		}
		k := key{n.Address, n.Port}
		if first := seen[k]; first != nil {
			d.errorf(n.Field("address"), n.Path+".address", "duplicate neighbor %s on port %s, first in %s", n.Address, n.Port, d.line(first.Pos.Line))
			continue
		}
		seen[k] = n
	}
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// familiesOf names the families of a list of VIPs.
func familiesOf(list []netip.Prefix) string {
	var names []string
	v4, v6 := false, false
	for _, a := range list {
		v4, v6 = v4 || a.Addr().Is4(), v6 || a.Addr().Is6()
	}
	if v4 {
		names = append(names, "IPv4")
	}
	if v6 {
		names = append(names, "IPv6")
	}
	return strings.Join(names, " and ")
}

func equalQueues(a, b Queues) bool {
	return a.All == b.All && slices.Equal(a.List, b.List)
}
