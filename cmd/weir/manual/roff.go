// Package manual makes manual pages: weir(8) of the tree of commands that --help shows, and weir.yaml(5) of docs/config.md.
//
// The pages are man(7), which groff and mandoc both read. Nothing is in them that their source does not say, so there is nothing to keep
// up to date; a test has both readers find no fault in them.
package manual

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// Page says what stands around a page: in its header, its footer and its NAME.
type Page struct {
	Name    string // weir, weir.yaml
	Section int
	Date    string // 2026-11-29; empty: not said
	Version string
	About   string // one line
}

// roff is a page that is being written. Its methods know what a line may begin with.
type roff struct {
	bytes.Buffer
	headed bool // nothing stands below the last heading yet, so there is no paragraph to end
}

// begin writes the header and NAME.
func (r *roff) begin(p Page) {
	fmt.Fprintf(r, ".TH %s %d %s %s\n", quote(strings.ToUpper(p.Name)), p.Section, quote(p.Date), quote("weir "+p.Version))
	r.WriteString(".nr HY 0\n.ad l\n") // keys and commands are searched for, so they are not to be broken
	r.section("NAME")
	r.text(p.Name + " \\- " + escape(p.About))
}

func (r *roff) section(title string) {
	fmt.Fprintf(r, ".SH %s\n", quote(title))
	r.headed = true
}

func (r *roff) subsection(title string) {
	fmt.Fprintf(r, ".SS %s\n", quote(title))
	r.headed = true
}

// text writes a line that is roff already.
func (r *roff) text(line string) {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		line = `\&` + line
	}
	r.WriteString(line + "\n")
	r.headed = false
}

// paragraph begins a new one.
func (r *roff) paragraph() {
	if !r.headed {
		r.WriteString(".PP\n")
	}
}

// item is a term, roff already, and what it means below it, indented.
func (r *roff) item(term, meaning string) {
	r.WriteString(".TP\n")
	r.text(term)
	r.text(meaning)
}

// example writes lines as they are.
func (r *roff) example(text string) {
	r.paragraph()
	r.WriteString(".RS 4\n.EX\n")
	for line := range strings.Lines(text) {
		r.text(escape(strings.TrimRight(line, "\n")))
	}
	r.WriteString(".EE\n.RE\n")
}

func (r *roff) to(w io.Writer) error {
	_, err := w.Write(r.Bytes())
	return err
}

// escape keeps what roff would take for its own, or turn into a typographer's sign: a hyphen, an accent, a quotation mark.
func escape(s string) string { return escaper.Replace(s) }

var escaper = strings.NewReplacer(`\`, `\e`, "-", `\-`, "~", `\(ti`, "^", `\(ha`, "`", `\(ga`, "'", `\(aq`)

// quote makes s one argument of a request.
func quote(s string) string { return `"` + strings.ReplaceAll(escape(s), `"`, `\(dq`) + `"` }

func bold(s string) string { return `\fB` + escape(s) + `\fR` }
