package config

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// measurer refuses what would take long or never end: deep nesting, anchors that contain themselves, aliases of aliases whose
// expansion is far larger than the file. It looks at every node once: what an alias expands to is remembered.
type measurer struct {
	seen map[*yaml.Node]extent // of anchored nodes
}

// extent is how large a value is with its aliases expanded.
type extent struct {
	open   bool // still being measured
	size   int  // values, held at maxExtent
	height int  // levels of mappings and lists
}

// maxExtent is more than any file has, and small enough to be added up.
const maxExtent = 1 << 40

// ok reports whether root may be decoded, and says why if not.
func (m measurer) ok(d *decoder, root *yaml.Node) bool {
	m.seen = map[*yaml.Node]extent{}
	written := 0
	e, at, what := m.measure(root, 1, &written)
	if what == "" && e.size-written > maxAliased {
		at, what = root, fmt.Sprintf("aliases stand for more than %d values", maxAliased)
	}
	if what != "" {
		d.errorf(posOf(at), "", "%s", what)
		return false
	}
	return true
}

// measure measures n, which stands at the given depth, and adds what is written down to written. If it may not be decoded,
// it tells where and why.
func (m measurer) measure(n *yaml.Node, depth int, written *int) (e extent, at *yaml.Node, what string) {
	if n.Kind == yaml.AliasNode {
		*written++
		e, known := m.seen[n.Alias]
		switch {
		case !known || e.open:
			return e, n, fmt.Sprintf("anchor %s contains itself", printable(n.Value))
		case depth+e.height > maxDepth+1:
			return e, n, tooDeep
		}
		return e, nil, ""
	}
	if len(n.Content) > 0 && depth > maxDepth {
		return e, n, tooDeep
	}
	if n.Anchor != "" {
		m.seen[n] = extent{open: true}
	}
	*written++
	e.size = 1
	for _, child := range n.Content {
		c, at, what := m.measure(child, depth+1, written)
		if what != "" {
			return e, at, what
		}
		e.size = min(e.size+c.size, maxExtent)
		e.height = max(e.height, c.height+1)
	}
	if n.Anchor != "" {
		m.seen[n] = e
	}
	return e, nil, ""
}

var tooDeep = fmt.Sprintf("nested more than %d levels deep", maxDepth)
