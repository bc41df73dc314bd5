package config

import (
	"bytes"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// bom may stand at the beginning of a file. The parser skips it.
const bom = '\ufeff'

// notText finds what YAML 1.2 (section 5.1) does not let stand in a text, and tells the place and what it is. The parser would say as
// much without the column.
func notText(b []byte) (pos Pos, what string) {
	pos = Pos{1, 1}
	for i := 0; i < len(b); {
		if c := b[i]; c >= ' ' && c < 0x7f { // nearly all
			pos.Col++
			i++
			continue
		}
		r, n := utf8.DecodeRune(b[i:])
		switch {
		case r == '\n':
			pos.Line, pos.Col = pos.Line+1, 0
		case r == 0:
			return pos, "NUL byte"
		case r == utf8.RuneError && n == 1:
			return pos, fmt.Sprintf("byte 0x%02x", b[i])
		case r == bom && i == 0:
			pos.Col--
		case r < ' ' && r != '\t' && r != '\r', r == 0x7f, r > 0x7f && r < 0xa0 && r != 0x85, r == bom, r == 0xfffe, r == 0xffff:
			return pos, fmt.Sprintf("control character U+%04X", r)
		}
		pos.Col++
		i += n
	}
	return pos, ""
}

// locatable is the size in bytes of the largest file in which the column of a syntax error is searched for.
const locatable = 128 << 10

// locate finds the place of the parser's error. The parser tells a line only, and often that where the construct began. But it reads from
// left to right, so what is wrong ends at the last byte it read, and begins where the text, were it to end there, would not draw the
// same complaint yet. For something left open that is where it was opened.
func locate(b []byte, err error) (Pos, string) {
	line, what := complaint(err)
	if len(b) > locatable {
		return Pos{max(line, 1), 1}, what
	}
	in := &byteReader{b: b}
	firstError(in)
	complains := func(n int) bool {
		_, w := complaint(firstError(bytes.NewReader(b[:n])))
		return w == what
	}
	// Shorter texts may complain for another reason, so the nearest one that does not is looked for: in growing steps backwards, then
	// by halving the last step.
	bad, good := in.n, 0
	for step := 1; step < bad; step *= 2 {
		if n := bad - step; !complains(n) {
			good = n
			break
		}
		bad -= step
	}
	n := good + 1 + sort.Search(bad-good-1, func(i int) bool { return complains(good + 1 + i) })
	at := max(n-1, 0)
	if name, ok := strings.CutPrefix(what, "unknown anchor '"); ok { // back to its asterisk, which may be some lines up: comments are read on
		if i := bytes.LastIndex(b[:in.n], []byte("*"+strings.TrimSuffix(name, "' referenced"))); i >= 0 {
			at = i
		}
	}
	return placeOf(b, at), what
}

// placeOf is the place of the byte at an offset. A byte order mark takes no column.
func placeOf(b []byte, at int) Pos {
	line := bytes.LastIndexByte(b[:at], '\n') + 1
	pos := Pos{bytes.Count(b[:at], []byte("\n")) + 1, utf8.RuneCount(b[line:at]) + 1}
	if line == 0 && bytes.HasPrefix(b[:at], []byte(string(bom))) {
		pos.Col--
	}
	return pos
}

// byteReader gives one byte at a time, so that its count is what a reader needed.
type byteReader struct {
	b []byte
	n int
}

func (r *byteReader) Read(p []byte) (int, error) {
	if r.n == len(r.b) || len(p) == 0 {
		return 0, io.EOF
	}
	p[0] = r.b[r.n]
	r.n++
	return 1, nil
}

// firstError is the first error of any of the documents in r, or nil.
func firstError(r io.Reader) (err error) {
	dec := yaml.NewDecoder(r)
	for range 2 {
		var n yaml.Node
		if err = decodeYAML(dec, &n); err != nil {
			return err
		}
	}
	return nil
}

// cure says in a user's words what the parser's complaint mostly comes from, or nothing.
func cure(what string) string {
	switch what {
	case "did not find expected key", "did not find expected '-' indicator", "found a tab character that violates indentation":
		return ": is the indentation right?"
	case "found unexpected end of stream":
		return ": a quote is not closed"
	case "mapping values are not allowed in this context":
		return ": a value with a colon needs quotes"
	case "did not find expected ',' or ']'", "did not find expected ',' or '}'":
		return ": a bracket is not closed, or a value with a colon, comma or bracket needs quotes"
	}
	return ""
}

// complaint takes the parser's error apart. line is 0 if it tells none.
func complaint(err error) (line int, what string) {
	if err == nil {
		return 0, ""
	}
	what = strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(what, "line "); ok {
		if number, text, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				return n, text
			}
		}
	}
	return 0, what
}
