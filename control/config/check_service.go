package config

import (
	"net/netip"
	"slices"
	"strings"
)

func (d *decoder) checkServices(segments map[uint32]*Segment) {
	c := d.config
	names := make(map[string]*Service, len(c.Services))
	vips := make(map[place]*Service, len(c.Services))
	full := false
	for i := range c.Services {
		s := &c.Services[i]
		for _, a := range s.VIPs {
			if a.IsSingleIP() {
				vips[place{a.Addr(), s.VNI}] = s
			}
		}
		full = full || s.FullNAT != nil
	}
	servers := map[netip.Addr]*Service{}
	for i := range c.Services {
		s := &c.Services[i]
		for n := range s.Backends {
			if full && s.Backends[n].VNI == 0 { // they are held against the addresses of full NAT alone
				servers[s.Backends[n].Address] = s
			}
		}
	}
	for i := range c.Services {
		Breathe(i, 16)
		s := &c.Services[i]
		if s.Name != "" && s.Given("name") {
			if first := names[s.Name]; first != nil {
				d.errorf(s.Field("name"), s.Path+".name", "duplicate service name %s, first in %s", quoted(s.Name), d.line(first.Field("name").Line))
			} else {
				names[s.Name] = s
			}
		}
		if s.keys == nil {
			continue // no mapping: said already
		}
		if d.isSettled(i) { // what is left is to be asked of it beside all others
			d.checkFullNAT(s, vips, servers)
			d.checkServers(s, vips)
			continue
		}
		d.checkVIPs(s)
		d.checkTenancy(s, segments)
		d.checkScheduling(s)
		d.checkFullNAT(s, vips, servers)
		d.checkMasquerade(s)
		for _, f := range connFields {
			if s.Given(f.key) && s.Conntrack.Given(f.key) {
				d.errorf(s.Field(f.key), join(s.Path, f.key), "is given in %s.conntrack, too: write one of them", s.Path)
			}
		}
		d.checkBackends(s, segments)
		d.checkServers(s, vips)
		d.checkHealth(s)
	}
	d.checkIdentities()
}

// isSettled reports whether service number i, and all that it is checked against but other services, is as it was when nothing was wrong with it.
func (d *decoder) isSettled(i int) bool { return d.settled != nil && d.settled[i] }

func (d *decoder) checkVIPs(s *Service) {
	one, many := s.Given("vip"), s.Given("vips")
	switch {
	case one && many:
		d.errorf(s.Field("vips"), s.Path+".vips", "vip is given, too: write one of them")
	case !one && !many:
		d.errorf(s.Pos, s.Path, "vip is missing")
	case many && len(s.VIPs) == 0 && !s.bad("vips"):
		d.errorf(s.Field("vips"), s.Path+".vips", "is empty: at least one VIP is needed")
	}
	if one {
		return
	}
	seen := map[netip.Prefix]bool{}
	for i, a := range s.VIPs {
		if seen[a] {
			pos, path := d.item(&s.Place, "vips", i)
			d.errorf(pos, path, "duplicate VIP %s", VIPText(a))
		}
		seen[a] = true
	}
}

func (d *decoder) checkScheduling(s *Service) {
	seen := map[string]bool{}
	for i, flag := range s.Flags {
		owner, _, _ := strings.Cut(flag, "-")
		pos, path := d.item(&s.Place, "flags", i)
		switch {
		case s.Scheduler != "" && owner != s.Scheduler:
			d.errorf(pos, path, "%s is a flag of scheduler %s, not of %s", flag, owner, s.Scheduler)
		case seen[flag]:
			d.errorf(pos, path, "duplicate flag %s", flag)
		}
		seen[flag] = true
	}
	for _, x := range []struct {
		key string
		on  bool
	}{{"one_packet", s.OnePacket}, {"udp_active", s.UDPActive}} {
		if x.on && s.Protocol != "" && s.Protocol != "udp" {
			d.errorf(s.Field(x.key), join(s.Path, x.key), "is for udp only, not for %s", s.Protocol)
		}
	}
	if s.Given("mh_table") && s.Scheduler != "" && s.Scheduler != "mh" {
		d.errorf(s.Field("mh_table"), s.Path+".mh_table", "is for scheduler mh only, not for %s", s.Scheduler)
	}
	if s.Given("hash_seed") && s.Given("hash_seed_file") {
		d.errorf(s.Field("hash_seed_file"), s.Path+".hash_seed_file", "hash_seed is given, too: write one of them")
	}
	for _, key := range []string{"hash_seed", "hash_seed_file"} {
		if !s.Given(key) || s.Scheduler == "" || s.Scheduler == "mh" || s.Scheduler == "sh" {
			continue
		}
		d.errorf(s.Field(key), join(s.Path, key), "is for schedulers sh and mh only, not for %s", s.Scheduler)
	}
	if s.Port.Any() && s.Persistence == nil && !s.bad("persistence") {
		d.errorf(s.Field("port"), s.Path+".port", "port 0 (every port) needs persistence, which keeps a client's connections together")
	}
}

// place is an address with the segment that it is in, 0 for none.
type place struct {
	addr netip.Addr
	vni  uint32
}

func (d *decoder) checkFullNAT(s *Service, vips map[place]*Service, backends map[netip.Addr]*Service) {
	any := s.Forward == "fullnat"
	masquerades := s.Masquerade.Mode != "never"
	var servers, all []netip.Addr // reached by fullnat; all whose connections have a source of ours
	for i := range s.Backends {
		b := &s.Backends[i]
		any = any || b.Forward == "fullnat"
		if b.Forward == "fullnat" && b.Address.IsValid() {
			servers = append(servers, b.Address)
		}
		if b.Forward == "fullnat" || b.Forward == "nat" && masquerades {
			all = append(all, b.Address)
		}
	}
	f := s.FullNAT
	switch {
	case f == nil && !s.bad("fullnat") && (len(servers) > 0 || len(s.Backends) == 0) && any:
		d.errorf(s.Field("forward"), s.Path, "fullnat is missing: forward: fullnat needs the addresses to send from")
	case f != nil && !any && !masquerades && !s.bad("masquerade") && !s.bad("forward") && !anyBad(s.Backends, "forward"):
		d.errorf(s.Field("fullnat"), s.Path+".fullnat", "is for forward: fullnat, or masquerade, only")
	}
	if f == nil {
		return
	}
	seen := map[netip.Addr]bool{}
	for i, a := range f.Addresses {
		pos, path := d.item(&f.Place, "addresses", i)
		switch other := vips[place{a, 0}]; {
		case other != nil:
			d.errorf(pos, path, "%s is the VIP of %s: a fullnat address is used for nothing else", a, other.Path)
		case slices.Contains(all, a):
			d.errorf(pos, path, "%s is a backend of this service", a)
		case backends[a] != nil && backends[a] != s:
			d.errorf(pos, path, "%s is a backend of %s: a fullnat address is this host's", a, backends[a].Path)
		case seen[a]:
			d.errorf(pos, path, "duplicate address %s", a)
		}
		seen[a] = true
	}
	if f.ClientAddress == "toa" && s.Protocol != "" && s.Protocol != "tcp" {
		d.errorf(f.Field("client_address"), f.Path+".client_address", "toa is a TCP option: not for %s", s.Protocol)
	}
	if len(f.Addresses) == 0 || f.bad("addresses") {
		return
	}
	for _, a := range servers {
		if !slices.ContainsFunc(f.Addresses, func(x netip.Addr) bool { return x.Is4() == a.Is4() }) {
			d.errorf(f.Field("addresses"), f.Path+".addresses", "no %s address, but backend %s needs one", family(a), a)
			return
		}
	}
}

func (d *decoder) checkMasquerade(s *Service) {
	if s.Masquerade.Mode == "never" || s.Masquerade.Mode == "" || s.bad("forward") || anyBad(s.Backends, "forward") {
		return
	}
	nat := len(s.Backends) == 0 && masquerades(s.Forward)
	for i := range s.Backends {
		nat = nat || masquerades(s.Backends[i].Forward)
	}
	if !nat {
		d.errorf(s.Field("masquerade"), s.Path+".masquerade", "is for forward: nat and vxlan only")
	}
}

func anyBad(all []Backend, key string) bool {
	return anyOf(all, func(b *Backend) bool { return b.bad(key) })
}

// anyOf is slices.ContainsFunc without a copy of each: there may be a hundred thousand.
func anyOf(all []Backend, is func(*Backend) bool) bool {
	for i := range all {
		if is(&all[i]) {
			return true
		}
	}
	return false
}

// claim is a service's hold on ports of a VIP.
type claim struct {
	service *Service
	vip     netip.Prefix
	index   int // of the VIP
}

// checkIdentities finds services that claim the same port of a VIP. Every port (port 0) stands aside for the others, as in IPVS, so it
// collides only with another such.
func (d *decoder) checkIdentities() {
	type key struct {
		protocol string
		vip      netip.Prefix
		vni      uint32
		any      bool
	}
	granted := map[key][]claim{} // in the order of ports; none overlaps with another
	for i := range d.config.Services {
		Breathe(i, 16)
		s := &d.config.Services[i]
		if s.Protocol == "" || s.Port == (PortRange{}) {
			continue
		}
		for n, vip := range s.VIPs {
			if slices.Contains(s.VIPs[:n], vip) {
				continue // stands twice in the service: said already
			}
			k, x := key{s.Protocol, vip, s.VNI, s.Port.Any()}, claim{s, vip, n}
			all := granted[k]
			// The first of those that end at our beginning or later is the only one that may overlap and begin before us.
			at, _ := slices.BinarySearchFunc(all, s.Port.From, func(c claim, from uint16) int { return int(c.service.Port.To) - int(from) })
			if at < len(all) && all[at].service.Port.overlaps(s.Port) {
				d.collide(all[at], x)
				continue
			}
			granted[k] = slices.Insert(all, at, x)
		}
	}
}

// collide tells of b, which claims what a has.
func (d *decoder) collide(a, b claim) {
	pos, path := d.item(&b.service.Place, "vips", b.index)
	if b.service.Given("vip") {
		pos, path = b.service.Field("vip"), b.service.Path+".vip"
	}
	what := "is"
	if a.service.Port != b.service.Port {
		what = "overlaps with port " + a.service.Port.String() + " of"
	}
	d.errorf(pos, path, "%s %s port %s %s %s already (%s, %s)", b.service.Protocol, VIPText(b.vip), b.service.Port, what, a.service.Path,
		printable(a.service.Name), d.line(a.service.Pos.Line))
}
