package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Included files add to the lists of the file that names them. All files are one text as far as places go: the lines of each are numbered on from
// those of the one before, and a diagnostic finds the file again by its line. So one decoder reads and checks the whole, and whoever has a Pos
// need not know that there are several files.

const (
	maxIncludes     = 1000 // files in all
	maxIncludeDepth = 8
)

// span is the lines of one file.
type span struct {
	file string
	base int // the line before its first
}

// fileOf finds the file that a line is in, and the line there.
func (c *Config) fileOf(line int) (string, int) {
	for _, s := range slices.Backward(c.spans) {
		if line > s.base {
			return s.file, line - s.base
		}
	}
	return c.File, line
}

// line names a line in a message about another place.
func (d *decoder) line(line int) string {
	if len(d.config.spans) == 0 {
		return fmt.Sprintf("line %d", line)
	}
	file, line := d.config.fileOf(line)
	return fmt.Sprintf("%s:%d", file, line)
}

// includer merges included files into the root of the main one.
type includer struct {
	*decoder
	root  *yaml.Node
	next  int // the line before the next file's first
	bytes int // of all files so far
	seen  []os.FileInfo
	names []string
}

// includes follows root's include. The file is the one that root was read from, and holds text.
func (d *decoder) includes(root *yaml.Node, file string, text []byte) {
	if root.Kind != yaml.MappingNode || valueOf(root, "include") == nil {
		return
	}
	if !d.reads {
		d.errorf(posOf(valueOf(root, "include")), "include", "can be followed from a file only")
		return
	}
	i := &includer{decoder: d, root: root, next: bytes.Count(text, []byte("\n")) + 2, bytes: len(text)}
	if info, err := os.Stat(file); err == nil {
		i.seen, i.names = append(i.seen, info), append(i.names, file)
	}
	i.follow(root, file, 1)
}

// valueOf is the value of a mapping's key, aliases followed, or nil.
func valueOf(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return follow(mapping.Content[i+1])
		}
	}
	return nil
}

// follow reads the files that from names, which was read from file.
func (i *includer) follow(from *yaml.Node, file string, depth int) {
	list := valueOf(from, "include")
	if list == nil || list.Kind != yaml.SequenceNode {
		return // the table tells what it should be
	}
	for n, item := range list.Content {
		item = follow(item)
		path := fmt.Sprintf("include[%d]", n)
		if item.Kind != yaml.ScalarNode || item.Value == "" {
			continue
		}
		if depth > maxIncludeDepth {
			i.errorf(posOf(item), path, "files include each other more than %d deep", maxIncludeDepth)
			return
		}
		pattern := item.Value
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(file), pattern)
		}
		files := []string{pattern}
		if strings.ContainsAny(pattern, "*?[") {
			var err error
			if files, err = filepath.Glob(pattern); err != nil {
				i.errorf(posOf(item), path, "%s: %v", quoted(item.Value), err)
				continue
			}
		}
		for _, name := range files {
			i.include(item, path, name, depth)
		}
	}
}

// include reads one file, for the item that names it, and merges it.
func (i *includer) include(item *yaml.Node, path, name string, depth int) {
	at := posOf(item)
	info, err := os.Stat(name)
	switch {
	case err != nil:
		i.errorf(at, path, "%s: %v", printableText(name), cause(err))
		return
	case !info.Mode().IsRegular():
		i.errorf(at, path, "%s: is no regular file", printableText(name))
		return
	}
	if n := slices.IndexFunc(i.seen, func(o os.FileInfo) bool { return os.SameFile(o, info) }); n >= 0 {
		i.errorf(at, path, "%s is read already (as %s): each file once, and none by itself", printableText(name), printableText(i.names[n]))
		return
	}
	i.seen, i.names = append(i.seen, info), append(i.names, name)
	if len(i.seen) > maxIncludes {
		i.errorf(at, path, "more than %d files", maxIncludes)
		return
	}
	text, err := read(name)
	if err != nil {
		i.errorf(at, path, "%s: %v", printableText(name), err)
		return
	}
	if i.bytes += len(text); i.bytes > MaxBytes {
		i.errorf(at, path, "with %s all files are larger than %d MiB", printableText(name), MaxBytes>>20)
		return
	}
	base := i.next
	i.next += bytes.Count(text, []byte("\n")) + 2
	if i.config.spans == nil {
		i.config.spans = []span{{i.config.File, 0}}
	}
	i.config.spans = append(i.config.spans, span{name, base})
	i.base = base
	root := i.document(text)
	i.base = 0
	if root == nil {
		return
	}
	shift(root, base)
	i.merge(root)
	if root.Kind == yaml.MappingNode {
		i.follow(root, name, depth+1)
	}
}

// merge takes over what an included file may have.
func (i *includer) merge(from *yaml.Node) {
	if from.Kind != yaml.MappingNode {
		i.errorf(posOf(from), "", "must be a mapping of keys (%s), not %s", includable, kindOf(from))
		return
	}
	given := map[string]bool{}
	for n := 0; n+1 < len(from.Content); n += 2 {
		key, v := from.Content[n], follow(from.Content[n+1])
		if given[key.Value] {
			i.errorf(posOf(key), printable(key.Value), "duplicate key")
			continue
		}
		given[key.Value] = true
		switch key.Value {
		case "include":
			if v.Kind != yaml.SequenceNode && !isNull(v) {
				i.errorf(posOf(v), "include", "must be a list, not %s", kindOf(v))
			}
		case "version":
			if v.Value != "1" || v.Kind != yaml.ScalarNode {
				i.errorf(posOf(v), "version", "must be 1, not %s", kindOf(v))
			}
		case "services", "neighbors", "routes":
			i.extend(i.root, key, v, key.Value)
		case "vxlan":
			if isNull(v) {
				continue
			}
			for m := 0; m+1 < len(v.Content) && v.Kind == yaml.MappingNode; m += 2 {
				if at := v.Content[m]; at.Value != "segments" {
					i.errorf(posOf(at), join("vxlan", at.Value), "may stand in the main file only: an included one has vxlan.segments")
				}
			}
			segments := valueOf(v, "segments")
			if v.Kind != yaml.MappingNode {
				i.errorf(posOf(v), "vxlan", "must be a mapping of keys (segments), not %s", kindOf(v))
			} else if segments != nil {
				i.extend(i.section("vxlan", v), &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "segments", Line: v.Line, Column: v.Column}, segments, "vxlan.segments")
			}
		default:
			suggestion := nearest(key.Value, rootTable.keys())
			i.suggestf(posOf(key), printable(key.Value), suggestion, "may not stand in an included file, which has %s", includable)
		}
	}
}

const includable = "services, neighbors, routes, vxlan.segments, include, version"

// section is the mapping that the main file has under a key, made if it has none.
func (i *includer) section(key string, like *yaml.Node) *yaml.Node {
	at := yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: like.Line, Column: like.Column}
	for n := 0; n+1 < len(i.root.Content); n += 2 {
		if i.root.Content[n].Value == key {
			if v := i.root.Content[n+1]; v.Kind == yaml.MappingNode {
				return v
			}
			if !isNull(i.root.Content[n+1]) {
				return &at // the table tells of it
			}
			i.root.Content[n+1] = &at
			return &at
		}
	}
	i.root.Content = append(i.root.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key, Line: like.Line, Column: like.Column}, &at)
	return &at
}

// extend appends the elements of list to those that the mapping has under key.
func (i *includer) extend(mapping, key, list *yaml.Node, path string) {
	if isNull(list) {
		return
	}
	if list.Kind != yaml.SequenceNode {
		i.errorf(posOf(list), path, "must be a list, not %s", kindOf(list))
		return
	}
	for n := 0; n+1 < len(mapping.Content); n += 2 {
		if mapping.Content[n].Value != key.Value {
			continue
		}
		was := mapping.Content[n+1]
		switch {
		case isNull(was):
			mapping.Content[n+1] = list
		case was.Kind != yaml.SequenceNode || was.Anchor != "":
			i.errorf(posOf(was), path, "is to be added to by an included file: it must be a list of its own, without anchor or alias")
		default:
			both := *was // what an included file brought may bear an anchor there
			both.Content = append(slices.Clone(was.Content), list.Content...)
			mapping.Content[n+1] = &both
		}
		return
	}
	mapping.Content = append(mapping.Content, key, list)
}
