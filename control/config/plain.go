package config

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// plain parses the commonest form of YAML by itself, a tenth of the time that the library takes: of a hundred thousand backends that is most of a load.
//
//   - name: web                     block lists and mappings, one key a line, what belongs to a key further in
//     port: 80                      words without spaces, or text in quotes without escapes
//     backends:
//   - {address: 198.18.1.10}    lists and mappings in brackets, on one line
//
// Of anything else, or any doubt, it says nothing, and the library is asked. A fuzz target holds its nodes to the library's, comments aside: those are
// skipped where they have a line of their own, and a doubt elsewhere. The nodes are valid until the next text.
type plain struct {
	lines []plainLine
	at    int          // the line at hand
	nodes []yaml.Node  // a slab, of which len are given out
	kids  []*yaml.Node // likewise, of contents
	stack []*yaml.Node // contents that are being gathered
	depth int
}

// plainLine is a line that says something.
type plainLine struct {
	text   string // without its end, and spaces there
	number int
	indent int // spaces in front
}

const (
	maxPlainDepth = 12  // how deep lists and mappings may nest here
	maxPlainKey   = 128 // bytes of a key; YAML itself allows 1024 (section 7.4.2)
)

// parse parses a text, a block list whose first line has a number, or returns nil.
func (p *plain) parse(text string, number int) *yaml.Node {
	p.lines, p.at, p.nodes, p.kids, p.stack, p.depth = p.lines[:0], 0, p.nodes[:0], p.kids[:0], p.stack[:0], 0
	for ; text != ""; number++ {
		line, rest, _ := strings.Cut(text, "\n")
		text = rest
		line = strings.TrimRight(line, " ")
		if !printableASCII(line) {
			return nil // also of a comment: there are more ends of lines in Unicode
		}
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if indent == len(line) || line[indent] == '#' {
			continue
		}
		if strings.Contains(line, " #") {
			return nil
		}
		p.lines = append(p.lines, plainLine{line, number, indent})
	}
	if len(p.lines) == 0 || !p.dashed(&p.lines[0], p.lines[0].indent) {
		return nil
	}
	n := p.list(p.lines[0].indent)
	if p.at != len(p.lines) {
		return nil
	}
	return n
}

func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// node gives out a node that begins at a column, from 0, of the line at hand.
func (p *plain) node(kind yaml.Kind, tag string, style yaml.Style, col int) *yaml.Node {
	if len(p.nodes) == cap(p.nodes) {
		p.nodes = make([]yaml.Node, 0, max(256, 2*cap(p.nodes))) // the old one lives as long as its nodes
	}
	p.nodes = append(p.nodes, yaml.Node{Kind: kind, Tag: tag, Style: style, Line: p.lines[p.at].number, Column: col + 1})
	return &p.nodes[len(p.nodes)-1]
}

// gathered are the nodes on the stack from a place on, which are taken off it.
func (p *plain) gathered(from int) []*yaml.Node {
	n := len(p.stack) - from
	if n == 0 {
		return nil
	}
	if cap(p.kids)-len(p.kids) < n {
		p.kids = make([]*yaml.Node, 0, max(256, 2*cap(p.kids), n))
	}
	begin := len(p.kids)
	p.kids = append(p.kids, p.stack[from:]...)
	p.stack = p.stack[:from]
	return p.kids[begin : begin+n : begin+n]
}

// deeper goes one level down and reports whether that may be; whoever comes back takes it off.
func (p *plain) deeper() bool {
	p.depth++
	return p.depth <= maxPlainDepth
}

// dashed reports whether an item of a list begins at a column of l.
func (p *plain) dashed(l *plainLine, col int) bool { return strings.HasPrefix(l.text[col:], "- ") }

// list is a block list whose dashes stand in a column.
func (p *plain) list(col int) *yaml.Node {
	if !p.deeper() {
		return nil
	}
	n, from := p.node(yaml.SequenceNode, "!!seq", 0, col), len(p.stack)
	for p.at < len(p.lines) {
		l := &p.lines[p.at]
		if l.indent < col {
			break
		}
		if l.indent > col || !p.dashed(l, col) {
			return nil
		}
		begin := col + 1
		for l.text[begin] == ' ' { // there is more: a line does not end in spaces
			begin++
		}
		var x *yaml.Node
		if end := word(l.text, begin); end > begin && end < len(l.text) && l.text[end] == ':' && (end+1 == len(l.text) || l.text[end+1] == ' ') {
			x = p.mapping(begin)
		} else {
			x = p.rest(begin, col)
		}
		if x == nil {
			return nil
		}
		p.stack = append(p.stack, x)
	}
	p.depth--
	n.Content = p.gathered(from)
	return n
}

// mapping is a block mapping whose keys stand in a column, the first one in the line at hand, where it may stand behind a dash.
func (p *plain) mapping(col int) *yaml.Node {
	if !p.deeper() {
		return nil
	}
	n, from := p.node(yaml.MappingNode, "!!map", 0, col), len(p.stack)
	for first := true; p.at < len(p.lines); first = false {
		l := &p.lines[p.at]
		if !first && l.indent < col {
			break
		}
		if !first && l.indent > col {
			return nil
		}
		end := word(l.text, col)
		if end == col || end == len(l.text) || l.text[end] != ':' {
			return nil
		}
		p.stack = append(p.stack, p.scalar(l.text[col:end], 0, col))
		var x *yaml.Node
		if end+1 == len(l.text) {
			if p.at++; p.at == len(p.lines) || p.lines[p.at].indent <= col {
				return nil
			}
			if below := &p.lines[p.at]; p.dashed(below, below.indent) {
				x = p.list(below.indent)
			} else {
				x = p.mapping(below.indent)
			}
		} else {
			begin := end + 1
			if l.text[begin] != ' ' {
				return nil
			}
			for l.text[begin] == ' ' {
				begin++
			}
			x = p.rest(begin, col)
		}
		if x == nil {
			return nil
		}
		p.stack = append(p.stack, x)
	}
	p.depth--
	n.Content = p.gathered(from)
	return n
}

// rest is a value that takes the rest of the line at hand, of an element that stands in a column: nothing further in may follow.
func (p *plain) rest(begin, col int) *yaml.Node {
	l := &p.lines[p.at]
	x, end := p.value(l.text, begin)
	if x == nil || end != len(l.text) {
		return nil
	}
	if p.at++; p.at < len(p.lines) && p.lines[p.at].indent > col {
		return nil
	}
	return x
}

// value is a value within a line, and where it ends.
func (p *plain) value(s string, begin int) (x *yaml.Node, end int) {
	if begin == len(s) {
		return nil, begin
	}
	switch c := s[begin]; c {
	case '{', '[':
		return p.bracket(s, begin)
	case '"', '\'':
		n := strings.IndexByte(s[begin+1:], c)
		if n < 0 {
			return nil, begin
		}
		text := s[begin+1 : begin+1+n]
		end := begin + n + 2
		style := yaml.DoubleQuotedStyle
		if c == '\'' {
			style = yaml.SingleQuotedStyle
		}
		if strings.IndexByte(text, '\\') >= 0 && c == '"' || end < len(s) && s[end] == c {
			return nil, begin
		}
		return p.scalar(text, style, begin), end
	}
	end = begin
	for end < len(s) && (isWord(s[end]) || end > begin && (s[end] == '-' || s[end] == ':' && end+1 < len(s) && (isWord(s[end+1]) || s[end+1] == ':'))) {
		end++
	}
	if end == begin {
		return nil, begin
	}
	return p.scalar(s[begin:end], 0, begin), end
}

// bracket is a list or mapping in brackets, which begins with one, and where it ends.
func (p *plain) bracket(s string, begin int) (x *yaml.Node, end int) {
	if !p.deeper() {
		return nil, begin
	}
	mapping := s[begin] == '{'
	n, from, closing := (*yaml.Node)(nil), len(p.stack), byte(']')
	if mapping {
		n, closing = p.node(yaml.MappingNode, "!!map", yaml.FlowStyle, begin), '}'
	} else {
		n = p.node(yaml.SequenceNode, "!!seq", yaml.FlowStyle, begin)
	}
	at := spaces(s, begin+1)
	for first := true; ; first = false {
		if at == len(s) {
			return nil, begin
		}
		if first && s[at] == closing {
			break
		}
		if mapping {
			end := word(s, at)
			if end == at || end+1 >= len(s) || s[end] != ':' || s[end+1] != ' ' {
				return nil, begin
			}
			p.stack = append(p.stack, p.scalar(s[at:end], 0, at))
			at = spaces(s, end+1)
		}
		x, end := p.value(s, at)
		if x == nil {
			return nil, begin
		}
		p.stack = append(p.stack, x)
		if at = spaces(s, end); at == len(s) {
			return nil, begin
		}
		if s[at] == closing {
			break
		}
		if s[at] != ',' || at+1 == len(s) || s[at+1] != ' ' {
			return nil, begin
		}
		at = spaces(s, at+1)
	}
	p.depth--
	n.Content = p.gathered(from)
	return n, at + 1
}

// spaces is where those that begin at a place of s end.
func spaces(s string, at int) int {
	for at < len(s) && s[at] == ' ' {
		at++
	}
	return at
}

// word is where the key ends that begins at a place of s, if it is no longer than it may be.
func word(s string, at int) int {
	for most := at + maxPlainKey; at < len(s) && at <= most && isWord(s[at]) && s[at] != '.' && s[at] != '/'; {
		at++
	}
	return at
}

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '.' || c == '/'
}

// scalar is a scalar of that text. Its tag is as the library resolves it, without asking it for the commonest ones.
func (p *plain) scalar(text string, style yaml.Style, col int) *yaml.Node {
	n := p.node(yaml.ScalarNode, "", style, col)
	n.Value = text
	switch digits, dots := digitsIn(text); {
	case style != 0, isLetter(text[0]) && !resolvable(text), digits+dots == len(text) && dots > 1 && text[0] != '.':
		n.Tag = "!!str"
	case digits == len(text) && len(text) < 18 && (text[0] != '0' || len(text) == 1):
		n.Tag = "!!int"
	default:
		n.Tag = n.ShortTag()
	}
	return n
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// resolvable reports whether a text that begins with a letter may be anything else than a text.
func resolvable(s string) bool {
	return strings.EqualFold(s, "true") || strings.EqualFold(s, "false") || strings.EqualFold(s, "null")
}

func digitsIn(s string) (digits, dots int) {
	for i := range len(s) {
		switch {
		case s[i] >= '0' && s[i] <= '9':
			digits++
		case s[i] == '.':
			dots++
		}
	}
	return digits, dots
}
