package manual

import (
	"fmt"
	"io"
	"regexp"
	"strings"
)

// File writes the page about a file that a document in Markdown explains. Of Markdown it knows what the project's documents use:
// headings, paragraphs, lists with hyphens, indented examples, tables of keys, and in a line code, bold, emphasis and links. The text before the first
// heading of the second level is DESCRIPTION.
func File(w io.Writer, p Page, markdown string) error {
	var r roff
	r.begin(p)
	r.section("DESCRIPTION")
	d := document{roff: &r}
	for line := range strings.Lines(markdown) {
		d.line(strings.TrimRight(line, "\n"))
	}
	d.flush()
	r.section("SEE ALSO")
	r.text(bold("weir") + "(8)")
	return r.to(w)
}

// document is how far the reading of a document has come.
type document struct {
	*roff
	text    []string // lines of the paragraph, list item or example at hand
	kind    block
	columns []string // heads of the table at hand
}

type block int

const (
	prose block = iota
	bullet
	sample
)

func (d *document) line(line string) {
	switch {
	case strings.HasPrefix(line, "|"):
		d.flush()
		d.row(line)
		return
	case strings.TrimSpace(line) == "":
		if d.kind == sample && len(d.text) > 0 {
			d.text = append(d.text, "")
			return
		}
		d.flush()
	case strings.HasPrefix(line, "# "):
		d.flush()
	case strings.HasPrefix(line, "## "):
		d.flush()
		d.section(strings.ToUpper(plain(line[3:])))
	case strings.HasPrefix(line, "### "):
		d.flush()
		d.subsection(plain(line[4:]))
	case strings.HasPrefix(line, "    ") && (len(d.text) == 0 || d.kind == sample):
		d.kind = sample
		d.text = append(d.text, line[4:])
	case strings.HasPrefix(line, "- "):
		d.flush()
		d.kind = bullet
		d.text = append(d.text, line[2:])
	default:
		if d.kind == sample {
			d.flush()
		}
		d.text = append(d.text, strings.TrimSpace(line))
	}
	d.columns = nil
}

// flush writes what has been collected.
func (d *document) flush() {
	text, kind := d.text, d.kind
	d.text, d.kind = nil, prose
	if len(text) == 0 {
		return
	}
	switch kind {
	case sample:
		d.example(strings.TrimRight(strings.Join(text, "\n"), "\n") + "\n")
		return
	case bullet:
		d.WriteString(".IP \\(bu 2\n")
	default:
		d.paragraph()
	}
	d.roff.text(inline(strings.Join(text, " "))) // marks may begin in one line and end in another
}

// row writes a row of a table: its first cell as a term, then what the others say, the last one at the end. Heads come first.
func (d *document) row(line string) {
	cells := strings.Split(strings.Trim(line, "|"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	switch {
	case d.columns == nil:
		d.columns = cells
		return
	case strings.Trim(cells[0], "-:") == "":
		return // the line below the heads
	}
	var says []string
	for i, c := range cells[1:] {
		i++
		switch {
		case c == "" || c == "-" || i >= len(d.columns) || i == len(cells)-1:
		case d.columns[i] == "Default" && c == "required":
			says = append(says, "required")
		case d.columns[i] == "Default" || d.columns[i] == "Range":
			says = append(says, strings.ToLower(d.columns[i])+" "+inline(c))
		case d.columns[i] == "Change":
			says = append(says, "changed by a "+inline(c))
		default:
			says = append(says, inline(c))
		}
	}
	meaning := strings.Join(says, "; ") + "."
	if last := cells[len(cells)-1]; len(cells) > 1 && last != "" {
		meaning += "\n.br\n" + inline(strings.ToUpper(last[:1])+last[1:]) + "."
	}
	d.item(inline(cells[0]), meaning)
}

// marks are what may stand in a line, the first that fits counts: code, bold, emphasis, a link.
var marks = regexp.MustCompile("`([^`]+)`|\\*\\*([^*]+)\\*\\*|\\*([^*]+)\\*|\\[([^\\]]+)\\]\\(([^)]+)\\)")

// inline turns the marks in a text into roff.
func inline(s string) string {
	var b strings.Builder
	at := 0
	for _, m := range marks.FindAllStringSubmatchIndex(s, -1) {
		b.WriteString(escape(s[at:m[0]]))
		part := func(i int) string {
			if m[2*i] < 0 {
				return ""
			}
			return s[m[2*i]:m[2*i+1]]
		}
		switch {
		case part(1) != "":
			b.WriteString(bold(part(1)))
		case part(2) != "":
			b.WriteString(bold(part(2)))
		case part(3) != "":
			fmt.Fprintf(&b, `\fI%s\fR`, escape(part(3)))
		default:
			b.WriteString(escape(part(4)))
		}
		at = m[1]
	}
	b.WriteString(escape(s[at:]))
	return b.String()
}

// plain is a text without its marks.
func plain(s string) string { return marks.ReplaceAllString(s, "$1$2$3$4") }
