package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
)

// Diff is what a reload changes.
type Diff struct {
	Added, Removed, Changed []string     // services, by identity: "tcp 198.18.9.9:80"
	Segments                [3]int       // added, removed and changed, by VNI
	Sections                []string     // other parts that changed and can be reloaded: routes, limits, ...
	Restart                 []string     // keys that changed and need a restart: the reload must be refused
	Refusals                []Diagnostic // the same at their place in the new configuration
}

// String is what the log tells of a reload: "services +1 -0 ~2", and of segments if there is anything to tell.
func (d Diff) String() string {
	s := fmt.Sprintf("services +%d -%d ~%d", len(d.Added), len(d.Removed), len(d.Changed))
	if x := d.Segments; x != [3]int{} {
		s += fmt.Sprintf(", segments +%d -%d ~%d", x[0], x[1], x[2])
	}
	return s
}

// Empty reports whether nothing changed.
func (d Diff) Empty() bool {
	return len(d.Added)+len(d.Removed)+len(d.Changed)+len(d.Sections)+len(d.Restart) == 0
}

// Compare tells what changes from one valid configuration to the next. Services go by their identity, one for each VIP: a service that
// gets a second VIP is one added. A name is a label, so a new name is a change.
func Compare(old, next *Config) (d Diff) {
	before, after := identities(old), identities(next)
	eachIdentity(next, func(id serviceID, is *Service) {
		if was := before[id]; was == nil {
			d.Added = append(d.Added, id.String())
		} else if !was.sameAt(is, id.vip) {
			d.Changed = append(d.Changed, id.String())
		}
	})
	eachIdentity(old, func(id serviceID, _ *Service) {
		if after[id] == nil {
			d.Removed = append(d.Removed, id.String())
		}
	})
	d.Segments = compareSegments(old.VXLAN.Segments, next.VXLAN.Segments)
	for _, x := range []struct {
		name      string
		old, next any
	}{
		{"ports", reloadable(old.Ports), reloadable(next.Ports)},
		{"routes", old.Routes, next.Routes},
		{"neighbors", old.Neighbors, next.Neighbors},
		{"limits", old.Limits, next.Limits},
		{"vxlan", old.VXLAN, next.VXLAN},
		{"admin", reloadableAdmin(old.Admin), reloadableAdmin(next.Admin)},
		{"bind_vips", old.BindVIPs, next.BindVIPs},
		{"grace", old.Grace, next.Grace},
	} {
		if !same(x.old, x.next) {
			d.Sections = append(d.Sections, x.name)
		}
	}
	d.Refusals = restarts(old, next)
	for _, r := range d.Refusals {
		d.Restart = append(d.Restart, r.Path)
	}
	return d
}

// compareSegments counts what changes. What segments take from the section itself they have as their own.
func compareSegments(old, next []Segment) (n [3]int) {
	before := make(map[uint32]*Segment, len(old))
	for i := range old {
		before[old[i].VNI] = &old[i]
	}
	for i := range next {
		switch was := before[next[i].VNI]; {
		case was == nil:
			n[0]++
		case !same(*was, next[i]):
			n[2]++
		}
		delete(before, next[i].VNI)
	}
	n[1] = len(before)
	return n
}

// reloadableAdmin is a without what needs a restart.
func reloadableAdmin(a Admin) Admin {
	a.Socket = ""
	return a
}

// RestartFields are the keys that differ between old and next and need a restart, such as ports[0].queues.
func RestartFields(old, next *Config) []string { return Compare(old, next).Restart }

// restarts finds what cannot be changed while workers run: how many there are and how they wait, their queues, the table's size, the
// socket. Ports go by their number, which is what the data path knows them by.
func restarts(old, next *Config) (diags []Diagnostic) {
	tell := func(place *Place, path, key string, was, is any) {
		if !same(was, is) {
			diags = append(diags, next.Errorf(place.Field(key), join(path, key), "a change needs a restart: it is %v in the running configuration, %v here",
				was, is))
		}
	}
	tell(&next.Engine.Place, "engine", "workers", old.Engine.Workers, next.Engine.Workers)
	tell(&next.Engine.Place, "engine", "wait", old.Engine.Wait, next.Engine.Wait)
	tell(&next.Engine.Place, "engine", "state_dir", old.Engine.StateDir, next.Engine.StateDir)
	if was, is := len(old.Ports), len(next.Ports); was != is {
		diags = append(diags, next.Errorf(next.Field("ports"), "ports", "a change of their number needs a restart: %d in the running configuration, %d here", was, is))
	}
	for i := range min(len(old.Ports), len(next.Ports)) {
		was, is := &old.Ports[i], &next.Ports[i]
		tell(&is.Place, is.Path, "name", was.Name, is.Name)
		tell(&is.Place, is.Path, "driver", was.Driver, is.Driver)
		tell(&is.Place, is.Path, "interface", was.Interface, is.Interface)
		tell(&is.Place, is.Path, "xdp_mode", was.XDPMode, is.XDPMode)
		tell(&is.Place, is.Path, "xdp_send", was.XDPSend, is.XDPSend)
		tell(&is.Place, is.Path, "queues", was.Queues, is.Queues)
	}
	tell(&next.Conntrack.Place, "conntrack", "max_connections", old.Conntrack.MaxConnections, next.Conntrack.MaxConnections)
	tell(&next.Admin.Place, "admin", "socket", old.Admin.Socket, next.Admin.Socket)
	return diags
}

// String is workers as they are written.
func (w Workers) String() string {
	switch {
	case len(w.CPUs) > 0:
		return fmt.Sprintf("{cpus: %q}", listing(w.CPUs))
	case w.Count > 0:
		return fmt.Sprint(w.Count)
	}
	return "auto"
}

// String is queues as they are written.
func (q Queues) String() string {
	if q.All {
		return "all"
	}
	return fmt.Sprintf("%q", listing(q.List))
}

// reloadable are ports less what needs a restart.
func reloadable(ports []Port) []Port {
	ports = slices.Clone(ports)
	for i := range ports {
		p := &ports[i]
		p.Name, p.Driver, p.Interface, p.XDPMode, p.XDPSend, p.Queues = "", "", "", "", "", Queues{}
	}
	return ports
}

// serviceID is what a service goes by, one for each VIP.
type serviceID struct {
	protocol string
	vip      netip.Prefix
	port     PortRange
	vni      uint32
}

// String is the identity as the log tells it: tcp 198.18.9.9:80.
func (id serviceID) String() string {
	s := Service{VNI: id.vni, Port: id.port}
	return id.protocol + " " + s.endpoint(id.vip)
}

// eachIdentity gives f those of a configuration with their services, in the order of the file.
func eachIdentity(c *Config, f func(serviceID, *Service)) {
	for i := range c.Services {
		Breathe(i, 16)
		s := &c.Services[i]
		for _, vip := range s.VIPs {
			f(serviceID{s.Protocol, vip, s.Port, s.VNI}, s)
		}
	}
}

func identities(c *Config) map[serviceID]*Service {
	all := make(map[serviceID]*Service, len(c.Services))
	eachIdentity(c, func(id serviceID, s *Service) { all[id] = s })
	return all
}

// sameAt is Same of two services as they are for a VIP that both have: the others, and backends of another family, do not count.
func (s *Service) sameAt(o *Service, vip netip.Prefix) bool {
	if s.once != nil && s.once == o.once {
		return true
	}
	a, b := s.at(vip), o.at(vip)
	return same(a, b)
}

// at is s with one VIP.
func (s *Service) at(vip netip.Prefix) Service {
	x := *s
	x.VIPs = []netip.Prefix{vip}
	if anyOf(x.Backends, func(b *Backend) bool { return !b.Serves(vip) }) {
		x.Backends = slices.DeleteFunc(slices.Clone(x.Backends), func(b Backend) bool { return !b.Serves(vip) })
	}
	x.Conntrack.MaxConnections = 0 // no service's own
	return x
}

// Same reports whether both say the same, wherever they stand in the file.
func (s *Service) Same(o *Service) bool {
	return s.once != nil && s.once == o.once || same(*s, *o)
}

// same compares configuration by value, wherever it stands in the file. An empty list is the same as none.
func same(a, b any) bool { return equal(reflect.ValueOf(a), reflect.ValueOf(b)) }

func equal(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Struct:
		if a.Type() == reflect.TypeFor[Place]() {
			return true
		}
		if a.Type().PkgPath() == "net/netip" {
			return a.Equal(b)
		}
		for i := range a.NumField() {
			if !equal(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		if a.Pointer() == b.Pointer() {
			return true // what a Reader took over
		}
		for i := range a.Len() {
			if !equal(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		if a.Pointer() == b.Pointer() {
			return true
		}
		return equal(a.Elem(), b.Elem())
	}
	return a.Equal(b)
}
