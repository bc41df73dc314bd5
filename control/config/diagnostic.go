package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Pos is a place in the file. Both count from 1, Col in characters; the zero Pos is the file as a whole.
type Pos struct{ Line, Col int }

// Place is where an element stands.
type Place struct {
	Pos  Pos
	Path string // such as services[0].backends[2]; empty for the whole
	keys []keyPos
	once *byte // of a service that a Reader decoded: two with the same one were decoded once, so they say the same
}

type keyPos struct {
	key string
	at  Pos  // with the line counted from the element's, so that it moves with that
	bad bool // an error was told of its value, which therefore says nothing
}

// Field is where the element's value of key stands, or the element itself if the key was not given.
func (p *Place) Field(key string) Pos {
	if pos, ok := p.given(key); ok {
		return pos
	}
	return p.Pos
}

// Given reports whether the file gives the element's key.
func (p *Place) Given(key string) bool {
	_, ok := p.given(key)
	return ok
}

// bad reports whether the file gives the key a value that is wrong in itself. Whatever else follows from it has been said.
func (p *Place) bad(key string) bool {
	for _, k := range p.keys {
		if k.key == key {
			return k.bad
		}
	}
	return false
}

// note says where the value of key stands, which the file gives.
func (p *Place) note(key string, pos Pos, bad bool) {
	p.keys = append(p.keys, keyPos{key, Pos{pos.Line - p.Pos.Line, pos.Col}, bad})
}

func (p *Place) given(key string) (Pos, bool) {
	for _, k := range p.keys {
		if k.key == key {
			return Pos{p.Pos.Line + k.at.Line, k.at.Col}, true
		}
	}
	return Pos{}, false
}

// Severity is how bad a Diagnostic is.
type Severity uint8

const (
	Error   Severity = iota // the configuration cannot be used
	Warning                 // it can, but is probably not what was meant
)

// String is the word that stands in a diagnostic.
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// Diagnostic is one thing that is wrong with a configuration.
type Diagnostic struct {
	File       string
	Line, Col  int // from 1; 0: the file as a whole
	Severity   Severity
	Path       string // of the key, such as services[0].scheduler; empty if the file could not be parsed that far
	Message    string
	Suggestion string // what may have been meant, as it would be written; often empty
	Cure       string // a command that sets the host right, where that is what is wrong; often empty
	Err        error  // a *ReadError if the file could not be read, else nil
	line       int    // over all files
}

// String is the diagnostic as compilers write it: FILE:LINE:COL: error: PATH: MESSAGE (did you mean "SUGGESTION"?).
func (d Diagnostic) String() string {
	var b strings.Builder
	b.WriteString(d.File)
	if d.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", d.Line, d.Col)
	}
	fmt.Fprintf(&b, ": %s: ", d.Severity)
	if d.Path != "" {
		b.WriteString(d.Path + ": ")
	}
	b.WriteString(d.Message)
	if d.Suggestion != "" {
		fmt.Fprintf(&b, " (did you mean %q?)", d.Suggestion)
	}
	return b.String()
}

// Errors is what is wrong with a configuration, in the order of the file.
type Errors []Diagnostic

// Error is all diagnostics, one a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, d := range e {
		lines[i] = d.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the causes, so that errors.As finds a ReadError.
func (e Errors) Unwrap() (causes []error) {
	for _, d := range e {
		if d.Err != nil {
			causes = append(causes, d.Err)
		}
	}
	return causes
}

// ReadError says that a file could not be read at all, which is no error of the configuration but of whoever named it.
type ReadError struct {
	Path string
	Err  error
}

func (e *ReadError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }

// Unwrap is the cause.
func (e *ReadError) Unwrap() error { return e.Err }

// HasErrors reports whether one of diags is more than a warning.
func HasErrors(diags []Diagnostic) bool {
	return slices.ContainsFunc(diags, func(d Diagnostic) bool { return d.Severity == Error })
}

// Unreadable returns the *ReadError among diags, or nil.
func Unreadable(diags []Diagnostic) error {
	var r *ReadError
	if errors.As(Errors(diags), &r) {
		return r
	}
	return nil
}

// Errorf makes an error at pos about the key with the given path. Later stages use it for what they find wrong:
//
//	c.Errorf(p.Field("interface"), p.Path+".interface", "no such device")
func (c *Config) Errorf(pos Pos, path, format string, args ...any) Diagnostic {
	return c.diagnostic(Error, pos, path, format, args)
}

// Warnf is Errorf for a warning.
func (c *Config) Warnf(pos Pos, path, format string, args ...any) Diagnostic {
	return c.diagnostic(Warning, pos, path, format, args)
}

func (c *Config) diagnostic(s Severity, pos Pos, path, format string, args []any) Diagnostic {
	file, line := c.fileOf(pos.Line)
	return Diagnostic{line: pos.Line, File: file, Line: line, Col: pos.Col, Severity: s, Path: path, Message: fmt.Sprintf(format, args...)}
}

// sorted brings diags into the order of the files and drops what an alias made say the same thing twice.
func sorted(diags []Diagnostic) []Diagnostic {
	slices.SortStableFunc(diags, func(a, b Diagnostic) int {
		return cmp.Or(a.line-b.line, a.Col-b.Col, cmp.Compare(a.Severity, b.Severity))
	})
	return slices.CompactFunc(diags, func(a, b Diagnostic) bool { return a == b })
}
