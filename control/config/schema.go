package config

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"weir/docs"
)

// The schema is made by the tables that decode: a decoder that describes has them go through their keys, and what would read a value says instead
// what it reads. So the two cannot differ. What a key means and its default are docs/config.md's, in whose tables people look, too.

// schema is a JSON Schema (2020-12) of one value.
type schema map[string]any

// Schema is the JSON Schema of a configuration file, as JSON.
func Schema() ([]byte, error) {
	c := defaults()
	d := &decoder{config: &c, items: map[string]Pos{}, schema: schema{}, told: documentedKeys(docs.Config)}
	d.decodeConfig(nowhere)
	d.schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	d.schema["title"] = "weir"
	d.schema["type"] = "object"
	b, err := json.MarshalIndent(d.schema, "", "  ")
	return append(b, '\n'), err
}

// nowhere is the value that a describing decoder walks over.
var nowhere = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}

// describe says what a value may be, if the decoder describes, and reports whether it does.
func (d *decoder) describe(s schema) bool {
	if d.schema == nil {
		return false
	}
	maps.Copy(d.schema, s)
	return true
}

// either describes a value that may be written in more than one way.
func (d *decoder) either(ways ...schema) bool {
	all := make([]any, len(ways))
	for i, w := range ways {
		all[i] = w
	}
	return d.describe(schema{"anyOf": all})
}

// described is what f says of a value.
func (d *decoder) described(f func()) schema {
	was := d.schema
	d.schema = schema{}
	f()
	s := d.schema
	d.schema = was
	return s
}

// describeMapping says which keys a mapping has. The section may be left empty.
func describeMapping[T any](d *decoder, to *T, t *table[T]) {
	properties := map[string]any{}
	for _, f := range t.fields {
		s := d.described(func() { f.set(d, value{node: nowhere}, to) })
		if doc, ok := d.told[join(t.path, f.key)]; ok {
			s["description"] = doc.meaning
			if doc.preset != nil {
				s["default"] = doc.preset
			}
		}
		properties[f.key] = s
	}
	d.describe(schema{"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false})
}

// What values look like, where a type alone does not say.
const (
	durationPattern = `^\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`
	addressPattern  = `^([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+)$`
	prefixPattern   = `^([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+)/[0-9]+$`
	macPattern      = `^[0-9A-Fa-f]{1,4}([:.-][0-9A-Fa-f]{1,4})+$`
	numbersPattern  = `^\s*[0-9]+(-[0-9]+)?(,\s*[0-9]+(-[0-9]+)?)*\s*$`
	printablePat    = `^[^\x00-\x1f\x7f]*$`
	namePattern     = "^[^= \\t\"'\\\\`{}\\x00-\\x1f\\x7f]+$"
)

func textLike(pattern string) schema { return schema{"type": "string", "pattern": pattern} }

func whole(low, high int64) schema {
	if low == high {
		return schema{"const": low}
	}
	return schema{"type": "integer", "minimum": low, "maximum": high}
}

// oneOf describes words. true and false are no words for YAML.
func oneOf(words []string) schema {
	var all []any
	for _, w := range words {
		all = append(all, w)
		if w == "true" || w == "false" {
			all = append(all, w == "true")
		}
	}
	return schema{"enum": all}
}

// keyDoc is what docs/config.md says of a key.
type keyDoc struct {
	meaning string
	preset  any // nil: none, or one that depends on others
}

// documentedKeys reads the document's tables. Each stands under a heading that names its mapping; its columns are key, type, default, range,
// change, meaning.
func documentedKeys(text string) map[string]keyDoc {
	keys := map[string]keyDoc{}
	path := ""
	for line := range strings.Lines(text) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			path = ""
			if _, rest, ok := strings.Cut(heading, "`"); ok {
				path, _, _ = strings.Cut(rest, "`")
			}
		}
		cells := strings.Split(strings.TrimSpace(line), "|")
		if !strings.HasPrefix(line, "| `") || len(cells) != 8 { // with what stands before the first and behind the last bar
			continue
		}
		cells = cells[1:7]
		key := strings.Trim(cells[0], " `")
		meaning := strings.TrimSpace(cells[5])
		if where := strings.TrimSpace(cells[3]); where != "" {
			meaning = strings.TrimPrefix(meaning+" ("+where+")", " ")
		}
		keys[join(path, key)] = keyDoc{plainText(meaning), preset(cells[2])}
	}
	return keys
}

// plainText is Markdown without its marks: backquotes and links.
func plainText(s string) string {
	s = strings.ReplaceAll(s, "`", "")
	for {
		open := strings.IndexByte(s, '[')
		mid := strings.Index(s, "](")
		end := -1
		if mid >= 0 {
			end = strings.IndexByte(s[mid:], ')')
		}
		if open < 0 || mid < open || end < 0 {
			return s
		}
		s = s[:open] + s[open+1:mid] + s[mid+end+1:]
	}
}

// preset is a default that is a value by itself.
func preset(cell string) any {
	cell = strings.TrimSpace(cell)
	word := strings.Trim(cell, "`")
	if n, err := strconv.Atoi(word); err == nil {
		return n
	}
	if len(cell) != len(word)+2 || strings.ContainsAny(word, " `") || strings.Contains(word, ".") && word[0] != '/' {
		return nil // several words, or another key
	}
	if slices.Contains([]string{"true", "false"}, word) {
		return word == "true"
	}
	return word
}
