package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Object is keys of the configuration with their values, as JSON has them.
type Object map[string]any

// ParseObject reads a JSON object. Numbers stay as they are written, so that they are judged as those of a file.
func ParseObject(b []byte) (o Object, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&o); err != nil {
		return nil, fmt.Errorf("must be a JSON object of keys: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("must be one JSON object")
	}
	if o == nil {
		return nil, errors.New("must be a JSON object of keys, not null")
	}
	return o, nil
}

// UnmarshalJSON keeps numbers as they are written wherever an object stands: an edit that comes with a takeover is made again, and of a float nobody
// could tell any more that it was written as a whole number.
func (o *Object) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var keys map[string]any
	if err := d.Decode(&keys); err != nil {
		return err
	}
	*o = keys
	return nil
}

// Shown is o without its secrets.
func (o Object) Shown() Object {
	shown := maps.Clone(o)
	for key, v := range shown {
		if m, ok := v.(map[string]any); ok {
			shown[key] = map[string]any(Object(m).Shown())
		} else if slices.Contains(secretKeys, key) || key == "send_hex" {
			shown[key] = "(not shown)"
		}
	}
	return shown
}

// String is o as JSON, without its secrets.
func (o Object) String() string {
	b, err := json.Marshal(map[string]any(o.Shown()))
	if err != nil {
		return "{}" // cannot be: it came from JSON
	}
	return string(b)
}

// merged is o with the keys of later over it, mappings key by key (RFC 7396). A check that is a word is a mapping of its type.
func (o Object) merged(later Object) Object {
	m := maps.Clone(o)
	if m == nil {
		m = Object{}
	}
	for key, v := range later {
		was, fits := mapping(key, m[key])
		now, isMapping := v.(map[string]any)
		if fits && isMapping {
			v = map[string]any(Object(was).merged(now))
		}
		m[key] = v
	}
	return m
}

func mapping(key string, v any) (map[string]any, bool) {
	if word, ok := v.(string); ok && key == "check" {
		return map[string]any{"type": word}, true
	}
	m, ok := v.(map[string]any)
	return m, ok
}

// node is o as the tables read it.
func (o Object) node() (*yaml.Node, error) {
	n, err := nodeOf(map[string]any(o), 0)
	if err == nil && n.Kind != yaml.MappingNode {
		n = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	}
	return n, err
}

func nodeOf(v any, depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, errors.New(tooDeep)
	}
	scalar := func(tag, text string, style yaml.Style) (*yaml.Node, error) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text, Style: style}, nil
	}
	switch v := v.(type) {
	case nil:
		return scalar("!!null", "null", 0)
	case bool:
		return scalar("!!bool", fmt.Sprint(v), 0)
	case json.Number:
		return numberNode(string(v)), nil
	case string:
		return scalar("!!str", v, yaml.DoubleQuotedStyle)
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for _, x := range v {
			c, err := nodeOf(x, depth+1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, c)
		}
		return n, nil
	case map[string]any:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			c, err := nodeOf(v[key], depth+1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, c)
		}
		return n, nil
	}
	return nil, fmt.Errorf("%T is nothing that JSON has", v)
}

func numberNode(text string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: text}
	if _, whole := number(text); whole {
		n.Tag = "!!int"
	}
	return n
}
