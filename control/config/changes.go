package config

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Change is one difference between two configurations, in the file's words.
type Change struct {
	Kind    string `json:"kind"`              // added, removed or changed
	Service string `json:"service,omitempty"` // identity, for each VIP: tcp 198.18.9.9:80
	Backend string `json:"backend,omitempty"` // identity within the service: 198.18.1.10:8000
	Key     string `json:"key,omitempty"`     // of the service or backend, such as check.interval; without a service of the whole: limits.answers, vxlan.segments[5001]
	Old     string `json:"old,omitempty"`     // secrets are not shown
	New     string `json:"new,omitempty"`
}

const (
	added   = "added"
	removed = "removed"
	changed = "changed"
)

// String is the change in a line: ~ tcp 198.18.9.9:80 198.18.1.10:8000 weight: 3 -> 5.
func (c Change) String() string {
	words := []string{map[string]string{added: "+", removed: "-", changed: "~"}[c.Kind]}
	for _, w := range []string{c.Service, c.Backend, c.Key} {
		if w != "" {
			words = append(words, w)
		}
	}
	s := strings.Join(words, " ")
	switch {
	case c.Kind == changed:
		s += fmt.Sprintf(": %s -> %s", orNone(c.Old), orNone(c.New))
	case c.Old+c.New != "":
		s += ": " + c.Old + c.New
	}
	return s
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// Changes are all differences from one valid configuration to another: services and backends by identity, and then key by key; all else by key, the
// elements of lists by what tells them apart.
func Changes(old, next *Config) []Change {
	d := differ{all: []Change{}}
	was, is := *old, *next
	was.Services, is.Services = nil, nil
	d.compare("", reflect.ValueOf(was), reflect.ValueOf(is))
	before, after := identities(old), identities(next)
	eachIdentity(old, func(id serviceID, _ *Service) {
		if after[id] == nil {
			d.tell(Change{Kind: removed, Service: id.String()})
		}
	})
	eachIdentity(next, func(id serviceID, s *Service) {
		switch o := before[id]; {
		case o == nil:
			now := s.at(id.vip)
			d.tell(Change{Kind: added, Service: id.String(), New: counted(len(now.Backends))})
		case !o.sameAt(s, id.vip):
			was, is := o.at(id.vip), s.at(id.vip)
			d.service(id.String(), &was, &is, old, next)
		}
	})
	return d.all
}

func counted(backends int) string {
	if backends == 1 {
		return "1 backend"
	}
	return fmt.Sprintf("%d backends", backends)
}

// differ collects changes of one service or backend, or of neither.
type differ struct {
	id, backend string
	all         []Change
}

func (d *differ) tell(c Change) {
	if c.Service == "" {
		c.Service, c.Backend = d.id, d.backend
	}
	d.all = append(d.all, c)
}

func (d *differ) service(id string, old, next *Service, from, to *Config) {
	was, is := *old, *next
	was.Backends, is.Backends = nil, nil
	if same(inherited(was.Conntrack, from), Conntrack{}) && same(inherited(is.Conntrack, to), Conntrack{}) {
		was.Conntrack, is.Conntrack = Conntrack{}, Conntrack{} // told of once, where it stands
	}
	d.id = id
	d.compare("", reflect.ValueOf(was), reflect.ValueOf(is))
	var both [2][]string // backends that stay, in their order then and now
	for i := range old.Backends {
		if b := &old.Backends[i]; slices.ContainsFunc(next.Backends, b.isSame) {
			both[0] = append(both[0], b.identity())
		} else {
			d.backend = b.identity()
			d.tell(Change{Kind: removed})
		}
	}
	for i := range next.Backends {
		b := &next.Backends[i]
		d.backend = b.identity()
		n := slices.IndexFunc(old.Backends, b.isSame)
		if n < 0 {
			d.tell(Change{Kind: added, New: fmt.Sprintf("weight %d", b.Weight)})
			continue
		}
		both[1] = append(both[1], b.identity())
		d.compare("", reflect.ValueOf(old.Backends[n]), reflect.ValueOf(*b))
	}
	d.backend = ""
	if !slices.Equal(both[0], both[1]) {
		d.tell(Change{Kind: changed, Key: "backends", Old: strings.Join(both[0], ", "), New: strings.Join(both[1], ", ")})
	}
	d.id = ""
}

func (b *Backend) isSame(o Backend) bool { return b.identity() == o.identity() }

// inherited is nothing if c is the global one.
func inherited(c Conntrack, of *Config) Conntrack {
	global := of.Conntrack
	global.MaxConnections = c.MaxConnections
	if same(c, global) {
		return Conntrack{}
	}
	return c
}

// secretKeys are not shown.
var secretKeys = []string{"hash_seed", "send", "authorization"}

// compare tells what differs between a and b, which are of one type, at path.
func (d *differ) compare(path string, a, b reflect.Value) {
	if equal(a, b) {
		return
	}
	t := a.Type()
	switch {
	case texts[t] != nil || t.PkgPath() == "net/netip":
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if key, ok := keyOf(f); ok {
				d.compare(join(path, key), a.Field(i), b.Field(i))
			}
		}
		return
	case t.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil():
		d.compare(path, a.Elem(), b.Elem())
		return
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && identity(reflect.Zero(t.Elem())) != "":
		d.elements(path, a, b)
		return
	}
	c := Change{Kind: changed, Key: path, Old: textOf(a), New: textOf(b)}
	if _, last, ok := cutLast(path); ok && slices.Contains(secretKeys, last) {
		c.Old, c.New = hidden(a), hidden(b)
	}
	d.tell(c)
}

func cutLast(path string) (before, last string, ok bool) {
	i := strings.LastIndexByte(path, '.')
	return path[:max(i, 0)], path[i+1:], path != ""
}

// hidden stands for a secret's value.
func hidden(v reflect.Value) string {
	if v.IsZero() {
		return ""
	}
	return "(not shown)"
}

// elements compares lists whose elements go by an identity.
func (d *differ) elements(path string, a, b reflect.Value) {
	index := func(v reflect.Value) map[string]reflect.Value {
		m := map[string]reflect.Value{}
		for i := range v.Len() {
			m[identity(v.Index(i))] = v.Index(i)
		}
		return m
	}
	before, after := index(a), index(b)
	for i := range a.Len() {
		if id := identity(a.Index(i)); !after[id].IsValid() {
			d.tell(Change{Kind: removed, Key: path + "[" + id + "]"})
		}
	}
	told := len(d.all)
	for i := range b.Len() {
		id := identity(b.Index(i))
		if was := before[id]; was.IsValid() {
			d.compare(path+"["+id+"]", was, b.Index(i))
		} else {
			d.tell(Change{Kind: added, Key: path + "[" + id + "]"})
		}
	}
	if told == len(d.all) && a.Len() == b.Len() {
		d.tell(Change{Kind: changed, Key: path, Old: "another order", New: "this order"})
	}
}

// identity is what tells an element of a list from the others, or nothing.
func identity(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case Port:
		return orNone(x.Name)
	case Route:
		return x.To.String()
	case Neighbor:
		return x.Address.String() + " " + orNone(x.Port)
	case Segment:
		return fmt.Sprint(x.VNI)
	case Peer:
		return x.Address.String()
	case Access:
		return fmt.Sprintf("%s vlan %d", x.Port, x.VLAN)
	case FDB:
		return macText(x.MAC)
	}
	return ""
}

func macText(m [6]byte) string {
	s := hex.EncodeToString(m[:])
	return strings.Join([]string{s[:2], s[2:4], s[4:6], s[6:8], s[8:10], s[10:]}, ":")
}

// otherKeys are fields whose key is not their name in lower case; those without one are no keys.
var otherKeys = map[string]string{
	"VIPs": "vips", "BindVIPs": "bind_vips", "SYNs": "syns", "FullNAT": "fullnat", "Inhibit": "inhibit_on_failure", "URI": "path", "Conntrack": "conntrack",
	"File": "", "HasMAC": "", "Place": "",
}

// keyOf is the key that a field came from.
func keyOf(f reflect.StructField) (string, bool) {
	if key, ok := otherKeys[f.Name]; ok || !f.IsExported() {
		return key, key != ""
	}
	var b strings.Builder
	for i, r := range f.Name {
		if upper := unicode.IsUpper(r); upper && i > 0 {
			if next := i + 1; !unicode.IsUpper(rune(f.Name[i-1])) || next < len(f.Name) && unicode.IsLower(rune(f.Name[next])) {
				b.WriteByte('_')
			}
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String(), true
}

// texts are types that are one value, and how it is written.
var texts = map[reflect.Type]func(reflect.Value) string{
	reflect.TypeFor[time.Duration](): func(v reflect.Value) string { return short(time.Duration(v.Int())) },
	reflect.TypeFor[[6]byte]():       func(v reflect.Value) string { return macText(v.Interface().([6]byte)) },
	reflect.TypeFor[Workers]():       func(v reflect.Value) string { return v.Interface().(Workers).String() },
	reflect.TypeFor[Queues]():        func(v reflect.Value) string { return v.Interface().(Queues).String() },
	reflect.TypeFor[PortRange]():     func(v reflect.Value) string { return v.Interface().(PortRange).String() },
	reflect.TypeFor[Rate]():          func(v reflect.Value) string { return fmt.Sprintf("%d/s", v.Field(0).Int()) },
	reflect.TypeFor[Checksum]():      func(v reflect.Value) string { return [...]string{"over IPv6", "true", "false"}[v.Uint()] },
	reflect.TypeFor[Inheritable](): func(v reflect.Value) string {
		if v.Field(1).Bool() {
			return "inherit"
		}
		return fmt.Sprint(v.Field(0).Uint())
	},
	reflect.TypeFor[Masquerade](): func(v reflect.Value) string {
		m := v.Interface().(Masquerade)
		if m.Mode != "except" {
			return m.Mode
		}
		var all []string
		for _, p := range m.Except {
			all = append(all, p.String())
		}
		return "except " + strings.Join(all, ", ")
	},
	reflect.TypeFor[netip.Prefix](): func(v reflect.Value) string { return VIPText(v.Interface().(netip.Prefix)) },
	reflect.TypeFor[Reach](): func(v reflect.Value) string {
		if v.Field(0).IsZero() {
			return "underlay"
		}
		return fmt.Sprint(v.Field(0).Uint())
	},
}

// textOf is a value as it is written in a file, or nothing if there is none.
func textOf(v reflect.Value) string {
	if f := texts[v.Type()]; f != nil {
		if v.Kind() == reflect.Struct && v.IsZero() && v.Type().PkgPath() == "net/netip" {
			return ""
		}
		return f(v)
	}
	switch v.Kind() {
	case reflect.Pointer:
		switch {
		case v.IsNil():
			return ""
		case v.Type() == reflect.TypeFor[*Check]():
			return v.Interface().(*Check).Type
		}
		return "given"
	case reflect.Slice:
		if n, ok := v.Interface().([]int); ok {
			return listing(n)
		}
		var all []string
		for i := range v.Len() {
			all = append(all, textOf(v.Index(i)))
		}
		return strings.Join(all, ", ")
	case reflect.String:
		return printableText(v.String())
	}
	if v.Type().PkgPath() == "net/netip" && v.IsZero() {
		return ""
	}
	return fmt.Sprint(v.Interface())
}
