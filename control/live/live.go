// Package live looks at this host for what stands in the way of a configuration: `weir check --live`.
//
// It reads only. Each [Finding] says what goes wrong, and, wherever a command sets it right, which; that command is run as printed by the tests.
//
//	error    weir run would refuse to start, or lose packets from the first second
//	warning  it starts; something of what the configuration says will not work
//	hint     worth knowing, or a matter of speed
//
// What cannot be looked at without a right is a finding, too, so that silence means that all is well.
package live

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"weir/control/config"
	"weir/control/host"
)

// Level is how bad a finding is.
type Level string

const (
	Error   Level = "error"
	Warning Level = "warning"
	Hint    Level = "hint"
)

// Finding is one thing about the host.
type Finding struct {
	Level   Level    `json:"level"`
	Check   string   `json:"check"`          // what was looked at, such as rp_filter; stable
	File    string   `json:"file,omitempty"` // of the configuration; empty: the finding is of the host as a whole
	Line    int      `json:"line,omitempty"` // from 1; 0: the file as a whole
	Column  int      `json:"column,omitempty"`
	Path    string   `json:"path,omitempty"` // of the configuration's key
	Message string   `json:"message"`
	Cure    []string `json:"cure"` // commands, to be run one after the other; none where there is no such command
}

// Text is the finding as compilers write it, with its cure below: FILE:LINE:COL: warning: PATH: MESSAGE.
func (f Finding) Text() string {
	var b strings.Builder
	if f.File == "" {
		fmt.Fprintf(&b, "host: %s: %s: ", f.Level, f.Check)
	} else {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
		}
		fmt.Fprintf(&b, ": %s: ", f.Level)
		if f.Path != "" {
			b.WriteString(f.Path + ": ")
		}
	}
	b.WriteString(f.Message)
	for _, c := range f.Cure {
		b.WriteString("\n    " + c)
	}
	return b.String()
}

// Options are what an examination cannot see for itself.
type Options struct {
	Config  *config.Config
	Host    *host.Host
	Workers int    // that `weir run` would start; 0: unknown
	MaxMTU  int    // of a device, bytes of the IP packet
	Frames  uint64 // bytes of frame memory, taken at the start and locked
	Table   uint64 // bytes of a full connection table
	Running bool   // a daemon with this configuration runs: what it has done to the host is no finding
	Machine Machine
}

// examination is one look at a host.
type examination struct {
	Options
	links    []host.Link // by port; the zero Link for one that is not there
	findings []Finding
}

// Examine looks at everything. Findings about a place of the configuration come first, in its order, then those of the host.
func Examine(o Options) []Finding {
	x := &examination{Options: o, links: make([]host.Link, len(o.Config.Ports))}
	x.devices()
	x.mtus()
	x.segments()
	x.advice()
	x.localPorts()
	x.listeners()
	x.filters()
	x.machine()
	slices.SortStableFunc(x.findings, func(a, b Finding) int {
		if (a.File == "") != (b.File == "") {
			return cmp.Compare(b.File, a.File)
		}
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return x.findings
}

// at adds a finding about the value of a key of an element.
func (x *examination) at(level Level, check string, p *config.Place, key, message string, cure ...string) {
	pos, path := p.Field(key), p.Path+"."+key
	d := x.Config.Warnf(config.Pos{Line: max(pos.Line, 1), Col: max(pos.Col, 1)}, strings.TrimPrefix(path, "."), "%s", message) // knows which file a line is in
	x.findings = append(x.findings, Finding{level, check, d.File, d.Line, d.Col, d.Path, d.Message, none(cure)})
}

// host adds a finding about the host as a whole.
func (x *examination) host(level Level, check, message string, cure ...string) {
	x.findings = append(x.findings, Finding{Level: level, Check: check, Message: message, Cure: none(cure)})
}

// diagnostic adds what package config has found out of what it was told of the host.
func (x *examination) diagnostic(check string, d config.Diagnostic, cure ...string) {
	level := Warning
	if d.Severity == config.Error {
		level = Error
	}
	x.findings = append(x.findings, Finding{level, check, d.File, d.Line, d.Col, d.Path, d.Message, none(cure)})
}

// unseen says that something could not be looked at.
func (x *examination) unseen(check string, err error) {
	x.host(Hint, check, "not looked at: "+err.Error())
}

// none is cure without empty commands, and never nil, which JSON would write as null.
func none(cure []string) []string {
	return slices.DeleteFunc(append([]string{}, cure...), func(s string) bool { return s == "" })
}

// owner is the first port on the same device as port i.
func (x *examination) owner(i int) int {
	for j := range x.Config.Ports {
		if x.Config.Ports[j].Interface == x.Config.Ports[i].Interface {
			return j
		}
	}
	return i
}
