package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"
)

const (
	// MaxBytes is the size of the largest file that is read.
	MaxBytes = 16 << 20
	// maxDepth is how deep mappings and lists may nest. The configuration itself needs six.
	maxDepth = 64
	// maxAliased is how many values aliases may add to those that are written down.
	maxAliased = 1 << 20
	// maxDiagnostics is how many errors are told; whoever has more than these has the wrong file.
	maxDiagnostics = 1000
)

// Load reads and parses the file at path. What cannot be read gives one Diagnostic, for which [Unreadable] returns the cause.
//
// The Config is nil if the file could not be read or is not YAML. It must not be used if [HasErrors] says so of the diagnostics, which
// come in the order of the file.
func Load(path string) (*Config, []Diagnostic) { return load(path, parseFile) }

// LoadReplay is Load for a replay, which has no devices: driver and interface of ports do not count, mac and addresses must be there,
// and mtu is 1500 unless given.
func LoadReplay(path string) (*Config, []Diagnostic) {
	return load(path, func(file string, b []byte) (*Config, []Diagnostic) { return parse(file, b, true, true) })
}

// Parse parses b; file is its name in diagnostics. It reads no files: secrets in files of their own stay empty, and include is refused.
func Parse(file string, b []byte) (*Config, []Diagnostic) { return parse(file, b, false, false) }

func parseFile(file string, b []byte) (*Config, []Diagnostic) { return parse(file, b, false, true) }

// ParseReplay is Parse as [LoadReplay] does it.
func ParseReplay(file string, b []byte) (*Config, []Diagnostic) { return parse(file, b, true, false) }

func load(path string, parse func(string, []byte) (*Config, []Diagnostic)) (*Config, []Diagnostic) {
	b, err := read(path)
	if err != nil {
		return nil, []Diagnostic{{File: path, Message: err.Error(), Err: &ReadError{Path: path, Err: err}}}
	}
	return parse(path, b)
}

// read reads at most one byte more than is allowed, so that Parse refuses the file and an endless one (a device, a pipe) ends.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, cause(err)
	}
	if info.IsDir() {
		return nil, errors.New("is a directory")
	}
	var b bytes.Buffer
	b.Grow(int(min(max(info.Size(), 0), MaxBytes) + bytes.MinRead))
	if _, err := b.ReadFrom(io.LimitReader(f, MaxBytes+1)); err != nil {
		return nil, cause(err)
	}
	return b.Bytes(), nil
}

// cause drops call and path, which the diagnostic says already.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func parse(file string, b []byte, replay, reads bool) (*Config, []Diagnostic) {
	c := defaults()
	c.File = file
	d := &decoder{config: &c, replay: replay, reads: reads, items: map[string]Pos{}}
	root := d.document(b)
	if root == nil {
		return nil, sorted(d.diags)
	}
	d.includes(root, file, b)
	if m := (measurer{}); !m.ok(d, root) {
		return nil, sorted(d.diags)
	}
	d.decodeConfig(root)
	d.check()
	if d.omitted > 0 {
		last := sorted(d.diags)[len(d.diags)-1]
		d.diags = append(d.diags, c.Errorf(Pos{last.line, last.Col}, "", "and %d more", d.omitted))
	}
	return &c, sorted(d.diags)
}

// document is the value of the only document in b, or nil after an error.
func (d *decoder) document(b []byte) *yaml.Node {
	if len(b) > MaxBytes {
		d.errorf(d.within(Pos{}), "", "is larger than %d MiB", MaxBytes>>20)
		return nil
	}
	if pos, what := notText(b); what != "" {
		d.errorf(d.within(pos), "", "%s: this is not a text file in UTF-8", what)
		return nil
	}
	if d.values += countValues(b, maxValues); d.values > maxValues {
		d.errorf(d.within(Pos{1, 1}), "", "has more than %d values", maxValues)
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc, next yaml.Node
	err := decodeYAML(dec, &doc)
	if err == nil {
		switch err = decodeYAML(dec, &next); {
		case err == nil:
			d.errorf(d.within(Pos{next.Line, next.Column}), "", "a second document begins here: a configuration is one document")
			return nil
		case err == io.EOF:
			err = nil
		}
	} else if err == io.EOF {
		doc.Content = nil
		err = nil
	}
	if err != nil {
		pos, what := locate(b, err)
		d.errorf(d.within(pos), "", "YAML: %s%s", what, cure(what))
		return nil
	}
	if len(doc.Content) == 0 || isNull(doc.Content[0]) {
		if d.base > 0 {
			return nil // all of it may be commented out
		}
		d.errorf(Pos{1, 1}, "", "is empty: a configuration begins with version: 1")
		return nil
	}
	return doc.Content[0]
}

// within is a place in the file at hand as a place in all files.
func (d *decoder) within(pos Pos) Pos {
	if d.base > 0 {
		pos.Line, pos.Col = max(pos.Line, 1)+d.base, max(pos.Col, 1)
	}
	return pos
}

// decodeYAML reads the next document. The parser is not ours: should it panic, that is an error of the file's like any other.
func decodeYAML(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: cannot be parsed: %v", r)
		}
	}()
	return dec.Decode(n)
}
