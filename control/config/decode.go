package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// decoder fills a Config from nodes and collects what is wrong.
type decoder struct {
	config  *Config
	replay  bool
	diags   []Diagnostic
	errors  int             // so far, told or not
	omitted int             // errors beyond maxDiagnostics
	items   map[string]Pos  // of the first elements of lists of scalars, by path
	used    map[string]bool // keys met, as in Keys; nil unless a test wants to know
	schema  schema          // of the value at hand; nil unless the decoder describes what it would read
	told    map[string]keyDoc
	reads   bool    // files that the configuration names: included ones, secrets
	values  int     // of all files, about
	given   []value // scratch of decodeMapping, a stack
	settled []bool  // by service; nil: none is. See isSettled
	base    int     // the line before the first of the file at hand, while it is parsed
}

func (d *decoder) errorf(pos Pos, path, format string, args ...any) {
	d.suggestf(pos, path, "", format, args...)
}

func (d *decoder) warnf(pos Pos, path, format string, args ...any) {
	if len(d.diags) < maxDiagnostics {
		d.diags = append(d.diags, d.config.Warnf(pos, path, format, args...))
	}
}

// suggestf is errorf with what may have been meant instead, unless that is empty.
func (d *decoder) suggestf(pos Pos, path, suggestion, format string, args ...any) {
	d.errors++
	if d.full() {
		d.omitted++
		return
	}
	diag := d.config.Errorf(pos, path, format, args...)
	diag.Suggestion = suggestion
	d.diags = append(d.diags, diag)
}

// full reports whether further errors are only counted, so that nothing need be thought up for their messages.
func (d *decoder) full() bool { return len(d.diags) >= maxDiagnostics }

// value is a node with aliases followed, and the path that led to it.
type value struct {
	node *yaml.Node
	path string
}

func (v value) pos() Pos { return posOf(v.node) }

func posOf(n *yaml.Node) Pos { return Pos{n.Line, n.Column} }

// follow is what an alias stands for. The measurer has made sure that there is an end.
func follow(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// table is what a mapping may hold: the keys and what each does. All tables together are the configuration's grammar.
type table[T any] struct {
	path   string // of the mapping, as in Keys
	fields []field[T]
}

// field is one key. The fields of a mapping are set in the order of its table, whatever the order in the file.
type field[T any] struct {
	key string
	set func(*decoder, value, *T)
}

func (t *table[T]) keys() []string {
	keys := make([]string, len(t.fields))
	for i, f := range t.fields {
		keys[i] = f.key
	}
	return keys
}

// decodeMapping fills to from a mapping by t and notes in place, if not nil, where everything was. A mapping that is empty or null is
// one without keys. It reports false if v is no mapping.
func decodeMapping[T any](d *decoder, v value, to *T, place *Place, t *table[T]) bool {
	if place != nil {
		*place = Place{Pos: v.pos(), Path: v.path}
	}
	if d.schema != nil {
		describeMapping(d, to, t)
		return true
	}
	if isNull(v.node) {
		return true
	}
	if v.node.Kind != yaml.MappingNode || v.node.ShortTag() != "!!map" {
		d.errorf(v.pos(), v.path, "must be a mapping of keys (%s), not %s", abridged(t.keys()), kindOf(v.node))
		return false
	}
	at := len(d.given)
	d.given = append(d.given, make([]value, len(t.fields))...)
	defer func() { d.given = d.given[:at] }()
	given, known := d.given[at:], 0 // by field; what is decoded below may give d.given more room elsewhere
	var others map[string]bool      // unknown keys, to tell what they are once
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key, val := follow(v.node.Content[i]), v.node.Content[i+1]
		pos := posOf(v.node.Content[i])
		if key.Kind != yaml.ScalarNode {
			d.errorf(pos, v.path, "a key must be a word, not %s", kindOf(key))
			continue
		}
		path := join(v.path, key.Value)
		if n := slices.IndexFunc(t.fields, func(f field[T]) bool { return f.key == key.Value }); n >= 0 {
			if first := given[n].node; first != nil {
				d.errorf(pos, path, "duplicate key, first given in %s", d.line(first.Line))
				continue
			}
			given[n] = value{val, path}
			known++
			continue
		}
		switch {
		case key.Value == "<<" && key.Tag == "!!merge":
			d.errorf(pos, path, "merge keys are not supported: an alias (*name) can stand for a whole value only")
		case d.full():
			d.errorf(pos, path, "unknown key")
		case others[key.Value]:
			d.errorf(pos, path, "duplicate key")
		default:
			if others == nil {
				others = map[string]bool{}
			}
			others[key.Value] = true
			suggestion := nearest(key.Value, t.keys())
			more := ""
			if suggestion == "" {
				more = "; there are " + abridged(t.keys())
			}
			d.suggestf(pos, path, suggestion, "unknown key%s", more)
		}
	}
	if place != nil && known > 0 {
		place.keys = make([]keyPos, 0, known)
	}
	for i, f := range t.fields {
		if given[i].node == nil {
			continue
		}
		if d.used != nil {
			d.used[join(t.path, f.key)] = true
		}
		before := d.errors
		v := value{follow(given[i].node), given[i].path}
		f.set(d, v, to)
		if place != nil {
			place.note(f.key, v.pos(), d.errors > before)
		}
	}
	return true
}

// decodeList appends to to what each makes of the elements of a list. A list that is empty or null has none.
func decodeList[T any](d *decoder, v value, to *[]T, each func(*decoder, value, *T) bool) {
	if d.schema != nil {
		var x T
		items := d.described(func() { each(d, value{node: nowhere}, &x) })
		d.describe(schema{"type": []string{"array", "null"}, "items": items})
		return
	}
	if isNull(v.node) {
		return
	}
	if v.node.Kind != yaml.SequenceNode || v.node.ShortTag() != "!!seq" {
		suggestion := ""
		if v.node.Kind == yaml.ScalarNode && len(v.node.Value) <= longestTypo {
			suggestion = "[" + v.node.Value + "]"
		}
		d.suggestf(v.pos(), v.path, suggestion, "must be a list, not %s", kindOf(v.node))
		return
	}
	*to = slices.Grow(*to, len(v.node.Content))
	for i, n := range v.node.Content {
		item := value{follow(n), v.path + "[" + strconv.Itoa(i) + "]"}
		if isNull(item.node) {
			d.errorf(item.pos(), item.path, "is empty")
			continue
		}
		if item.node.Kind == yaml.ScalarNode && len(d.items) < maxItems {
			d.items[item.path] = item.pos()
		}
		var x T
		if each(d, item, &x) {
			*to = append(*to, x)
		}
	}
}

// maxItems is how many elements of lists have their place remembered; errors about later ones are told where the list begins.
const maxItems = 1 << 14

// item is the place and path of place's list element i. While an element is bad the others cannot be told apart by number.
func (d *decoder) item(place *Place, key string, i int) (Pos, string) {
	path := join(place.Path, key)
	if !place.bad(key) {
		path = path + "[" + strconv.Itoa(i) + "]"
		if pos, ok := d.items[path]; ok {
			return pos, path
		}
	}
	return place.Field(key), path
}

// require tells of keys that place must give and does not.
func (d *decoder) require(place *Place, keys ...string) {
	if d.describe(schema{"required": keys}) {
		return
	}
	for _, key := range keys {
		if !place.Given(key) {
			d.errorf(place.Pos, place.Path, "%s is missing", key)
		}
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// kindOf says what a node is, for messages.
func kindOf(n *yaml.Node) string {
	if n.Style&yaml.TaggedStyle != 0 && !strings.HasPrefix(n.ShortTag(), "!!") {
		return "a value with the tag " + printable(n.Tag)
	}
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return n.Value
	}
	return quoted(n.Value)
}

// join is the path of a key.
func join(path, key string) string {
	if path == "" {
		return printable(key)
	}
	return path + "." + printable(key)
}

// printable is s if it is a plain short word, and quoted if not: what a file holds must not reach a terminal raw.
func printable(s string) string {
	for _, r := range s {
		if r != '_' && r != '-' && r != '.' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return quoted(s)
		}
	}
	if s == "" || len(s) > longestTypo {
		return quoted(s)
	}
	return s
}

// quoted is s in quotes, shortened if it is long.
func quoted(s string) string {
	if len(s) <= longestTypo {
		return strconv.Quote(s)
	}
	cut := longestTypo
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%q...", s[:cut])
}

// abridged lists words, the first ten of them.
func abridged(words []string) string {
	if len(words) > 10 {
		return strings.Join(words[:10], ", ") + ", ..."
	}
	return strings.Join(words, ", ")
}
