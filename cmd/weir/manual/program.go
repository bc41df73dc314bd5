package manual

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit is an exit code and what it means.
type Exit struct {
	Code int
	Text string
}

// Section is one that a page has besides those that the commands make.
type Section struct {
	Title string
	Items [][2]string // what, and what of it
}

// Program writes the page about root and all commands below it that are not hidden. exits says what the exit codes of one mean.
func Program(w io.Writer, p Page, root *cobra.Command, exits func(*cobra.Command) []Exit, more ...Section) error {
	var r roff
	r.begin(p)
	r.section("SYNOPSIS")
	r.text(bold(root.Name()) + ` \fICOMMAND\fR [\fIARGUMENTS\fR]`)
	r.section("DESCRIPTION")
	r.prose(describe(root))
	if f := root.PersistentFlags(); f.HasAvailableFlags() {
		r.paragraph()
		r.text("All commands have these options:")
		r.flags(f)
	}
	for _, g := range root.Groups() {
		r.section(strings.ToUpper(strings.TrimSuffix(g.Title, ":")))
		for _, c := range root.Commands() {
			if c.GroupID == g.ID {
				r.command(c, exits)
			}
		}
	}
	var rest []*cobra.Command
	for _, c := range root.Commands() {
		if c.GroupID == "" && c.IsAvailableCommand() && c.Name() != "help" {
			rest = append(rest, c)
		}
	}
	if len(rest) > 0 {
		r.section("OTHER COMMANDS")
	}
	for _, c := range rest {
		r.command(c, exits)
	}
	r.section("EXIT STATUS")
	for _, x := range exits(root) {
		r.item(bold(fmt.Sprint(x.Code)), escape(x.Text))
	}
	for _, s := range more {
		r.section(s.Title)
		for _, i := range s.Items {
			r.item(bold(i[0]), escape(i[1]))
		}
	}
	r.section("SEE ALSO")
	r.text(bold("weir.yaml") + "(5), " + bold("ipvsadm") + "(8), " + bold("ip") + "(8), " + bold("systemd.service") + "(5)")
	return r.to(w)
}

// command writes what is to be said of c and the commands below it.
func (r *roff) command(c *cobra.Command, exits func(*cobra.Command) []Exit) {
	if !c.IsAvailableCommand() {
		return
	}
	r.subsection(strings.TrimSuffix(c.UseLine(), " [flags]"))
	r.prose(describe(c))
	r.flags(c.NonInheritedFlags())
	if c.Example != "" {
		r.example(unindent(c.Example))
	}
	var codes []string
	for _, x := range exits(c) {
		codes = append(codes, fmt.Sprint(x.Code))
	}
	if c.Runnable() {
		r.paragraph()
		r.text("Exit status: " + strings.Join(codes, ", ") + ".")
	}
	for _, below := range c.Commands() {
		r.command(below, exits)
	}
}

// describe is the long description of a command, or the short one with a full stop.
func describe(c *cobra.Command) string {
	if c.Long != "" {
		return c.Long
	}
	return strings.TrimSuffix(c.Short, ".") + "."
}

// prose writes paragraphs, which empty lines part.
func (r *roff) prose(text string) {
	for _, p := range strings.Split(text, "\n\n") {
		r.paragraph()
		for line := range strings.Lines(p) {
			r.text(escape(strings.TrimSpace(line)))
		}
	}
}

// flags writes one item for each flag.
func (r *roff) flags(f *pflag.FlagSet) {
	f.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		term := bold("--" + f.Name)
		if f.Shorthand != "" {
			term = bold("-"+f.Shorthand) + ", " + term
		}
		value, usage := pflag.UnquoteUsage(f)
		if value != "" {
			term += ` \fI` + escape(value) + `\fR`
		}
		usage = escape(usage)
		switch f.DefValue {
		case "", "0", "false", "[]", "0s":
		default:
			usage += " (default " + escape(f.DefValue) + ")"
		}
		r.item(term, usage)
	})
}

// unindent takes the two blanks away that examples begin with in help.
func unindent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString(strings.TrimPrefix(line, "  "))
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}
