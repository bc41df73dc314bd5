package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What an edit can be refused for, besides values that no file may have either.
var (
	ErrNoService  = errors.New("no such service")
	ErrNoBackend  = errors.New("no such backend")
	ErrAmbiguous  = errors.New("several answer to that")
	ErrHasBackend = errors.New("the service has this backend already")
)

// EditOp is what an Edit does.
type EditOp string

const (
	EditSet     EditOp = "set"     // keys of a backend
	EditReplace EditOp = "replace" // all of a backend but its identity and its place among the others
	EditAdd     EditOp = "add"
	EditDelete  EditOp = "delete"
)

// Edit is a change of one backend beside the file. Service and backend go by identity, so that it can be made again on another file.
type Edit struct {
	Op      EditOp `json:"op"`
	Service string `json:"service"`        // tcp 198.18.9.9:80; of one with several VIPs the first
	Backend string `json:"backend"`        // 198.18.1.10:8000
	Keys    Object `json:"keys,omitempty"` // of services[].backends[]: all that the file could say (add), or what is different (set)
}

// String is the edit in a line: set tcp 198.18.9.9:80 198.18.1.10:8000 {"weight":3}.
func (e Edit) String() string {
	s := fmt.Sprintf("%s %s %s", e.Op, e.Service, e.Backend)
	if len(e.Keys) > 0 {
		s += " " + e.Keys.String()
	}
	return s
}

// Edited is c with the edits made one after the other, and checked as a file is. c stays as it is: what is not edited the two share. The
// diagnostics are those about services that were edited.
func (c *Config) Edited(edits []Edit) (*Config, []Diagnostic, error) {
	if len(edits) == 0 {
		return c, nil, nil
	}
	next := *c
	next.Services = slices.Clone(c.Services)
	d := &decoder{config: &next, items: map[string]Pos{}}
	touched := map[int]Edit{}
	for _, e := range edits {
		i, err := next.serviceWith(e.Service)
		if err != nil {
			return nil, nil, err
		}
		s := &next.Services[i]
		if _, ours := touched[i]; !ours {
			s.Backends = slices.Clone(s.Backends)
			s.once = nil // it does not say what its text says
		}
		touched[i] = e
		if err := d.edit(s, e); err != nil {
			return nil, nil, err
		}
	}
	// Services that nobody edits were checked with the file, but an edit may have to do with any of them: a server that is another's VIP.
	d.check()
	var told, bad []Diagnostic
	for _, x := range sorted(d.diags) {
		for i := range touched {
			if p := next.Services[i].Path; x.Path == p || strings.HasPrefix(x.Path, p+".") {
				told = append(told, x)
			}
		}
		if x.Severity == Error {
			bad = append(bad, x)
		}
	}
	if len(bad) > 0 {
		return nil, told, EditError(bad)
	}
	return &next, told, nil
}

// EditError is what is wrong with an edit itself, or with a service that is edited so.
type EditError []Diagnostic

// Error has no place: none of it stands in a file.
func (e EditError) Error() string {
	var what []string
	for _, d := range e {
		d.File, d.Line = "", 0
		what = append(what, strings.TrimPrefix(d.String(), ": error: "))
	}
	return strings.Join(what, "; ")
}

func wrong(path, what string) EditError { return EditError{{Path: path, Message: what}} }

// edit makes e in s, whose list of backends is nobody else's.
func (d *decoder) edit(s *Service, e Edit) error {
	i, err := s.backendWith(e.Backend)
	switch {
	case e.Op == EditAdd:
		return d.addBackend(s, e)
	case err != nil:
		return fmt.Errorf("%s: %w", e.Service, err)
	case e.Op == EditDelete:
		s.Backends = slices.Delete(s.Backends, i, i+1)
		return nil
	case e.Op != EditSet && e.Op != EditReplace:
		return fmt.Errorf("%q: an edit is set, replace, add or delete", e.Op)
	}
	b, was := s.Backends[i], s.Backends[i].Place
	if e.Op == EditReplace {
		id := b
		b = s.newBackend()
		b.Address, b.Port, b.VNI = id.Address, id.Port, id.VNI
		was.keys = slices.DeleteFunc(slices.Clone(was.keys), func(k keyPos) bool { return !slices.Contains(identityKeys, k.key) })
	}
	if err := d.keys(e, &b); err != nil {
		return err
	}
	for _, key := range identityKeys {
		if b.Given(key) && b.identity() != e.Backend {
			return wrong(key, "is the backend's identity: delete this one and add another")
		}
	}
	b.Place = was.with(b.keys)
	s.complete(&b)
	s.Backends[i] = b
	return nil
}

var identityKeys = []string{"address", "port", "vni"}

// addBackend puts a backend in front of the others, where ipvsadm -a puts it.
func (d *decoder) addBackend(s *Service, e Edit) error {
	b := s.newBackend()
	if err := d.keys(e, &b); err != nil {
		return err
	}
	if !b.Address.IsValid() {
		return wrong("", "address is missing")
	}
	b.Place = Place{Pos: s.Pos, Path: s.Path + ".backends", keys: b.keys}
	s.complete(&b)
	if _, err := s.backendWith(b.identity()); err == nil {
		return fmt.Errorf("%s %s: %w", e.Service, b.identity(), ErrHasBackend)
	}
	s.Backends = slices.Insert(s.Backends, 0, b)
	return nil
}

// keys has the table of backends read e's keys into b.
func (d *decoder) keys(e Edit, b *Backend) error {
	node, err := e.Keys.node()
	if err != nil {
		return wrong("", err.Error())
	}
	before := len(d.diags)
	decodeMapping(d, value{node: node}, b, &b.Place, &backendTable)
	if len(d.diags) > before {
		return EditError(d.diags[before:])
	}
	if check, ok := e.Keys["check"].(map[string]any); ok {
		for key := range check {
			if key == "command" || strings.HasSuffix(key, "_file") {
				return wrong("check."+key, "may stand in the file only: whoever may change weights shall not run programs or read files")
			}
		}
	}
	return nil
}

// with is p with keys that were given later, too. Nothing of them stands in the file: their place is the element's.
func (p Place) with(keys []keyPos) Place {
	p.keys = slices.Clone(p.keys)
	for _, k := range keys {
		k.at = Pos{0, p.Pos.Col}
		if i := slices.IndexFunc(p.keys, func(o keyPos) bool { return o.key == k.key }); i >= 0 {
			p.keys[i] = k
		} else {
			p.keys = append(p.keys, k)
		}
	}
	return p
}

// Parsed is the backend of s that keys describe, as an addition would make it.
func (s *Service) Parsed(keys Object) (Backend, error) {
	c := *s
	c.Backends = nil
	d := &decoder{config: &Config{}, items: map[string]Pos{}}
	if err := d.addBackend(&c, Edit{Keys: keys}); err != nil {
		return Backend{}, err
	}
	return c.Backends[0], nil
}
