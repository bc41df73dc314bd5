package config

import "slices"

// Fold adds an edit to others that were made before, so that of each backend there is one, or a deletion and an addition: whoever sets a weight
// every second leaves one edit behind. file is the configuration that they are edits of; what makes of a backend what the file says of it, and
// of the others nothing else, is none.
func (c *Config) Fold(edits []Edit, e Edit) []Edit {
	edits = slices.Clone(edits)
	at := -1 // the last one of the same backend
	for i, o := range edits {
		if o.Service == e.Service && o.Backend == e.Backend {
			at = i
		}
	}
	switch {
	case at < 0:
		edits, at = append(edits, e), len(edits)
	case e.Op == EditSet && edits[at].Op != EditDelete:
		edits[at].Keys = edits[at].Keys.merged(e.Keys)
	case e.Op == EditDelete && edits[at].Op == EditAdd:
		return slices.Delete(edits, at, at+1)
	case e.Op == EditReplace && edits[at].Op == EditAdd:
		keys := Object{}
		for _, key := range identityKeys {
			if v, ok := edits[at].Keys[key]; ok {
				keys[key] = v
			}
		}
		edits[at].Keys = keys.merged(e.Keys)
	case edits[at].Op == EditSet || edits[at].Op == EditReplace:
		edits[at] = e
	default:
		edits, at = append(edits, e), len(edits)
	}
	if c.vain(edits[at]) {
		edits = slices.Delete(edits, at, at+1)
	}
	return edits
}

// vain reports whether e sets what the file says.
func (c *Config) vain(e Edit) bool {
	if e.Op != EditSet && e.Op != EditReplace {
		return false
	}
	i, err := c.serviceWith(e.Service)
	if err != nil {
		return false
	}
	s := c.Services[i]
	n, err := s.backendWith(e.Backend)
	if err != nil {
		return false
	}
	next := *c
	s.Backends = slices.Clone(s.Backends)
	d := &decoder{config: &next, items: map[string]Pos{}}
	return d.edit(&s, e) == nil && same(c.Services[i].Backends[n], s.Backends[n])
}
