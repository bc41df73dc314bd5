package importer

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// scanner turns keepalived.conf and the files it includes into lines of words: comments and lines for others are gone, definitions are
// put in, sequences are written out.
type scanner struct {
	*reader
	id      string // this host's, what @ lines are compared with
	defined map[string]string
	lines   []wordLine
	depth   int  // of includes
	nested  int  // of lines within definitions and sequences
	size    int  // bytes, of all files
	scanned int  // lines, also those that came to nothing
	written int  // bytes of lines with their definitions put in
	full    bool // there is too much, which has been said
}

// wordLine is the words of a line. Braces outside quotes are words of their own, of which brace says so.
type wordLine struct {
	pos   Pos
	words []string
	brace []bool
}

const (
	maxIncludes = 16      // files that include each other
	maxLines    = 1 << 17 // lines, with all that is included and repeated
	maxWritten  = 1 << 24 // bytes, with all definitions put in
)

// file scans text. The lines of files that it includes come where the include stands.
func (s *scanner) file(name, text string) {
	if s.size += len(text); s.size > MaxBytes {
		s.errorf(Pos{File: name}, "all files together are larger than %d MiB", MaxBytes>>20)
		return
	}
	if !checkText(s.reader, name, text) {
		return
	}
	n, joined, joining := 0, "", false
	var start Pos
	for l := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		n++
		at := s.at(name, n)
		l = uncommented(strings.TrimRight(l, "\r\n"))
		if !joining {
			start = at
		}
		if whole, more := strings.CutSuffix(l, `\`); more && (joining || isDefinition(l)) {
			joined, joining = joined+whole+"\n", true // a definition of several lines
			continue
		}
		s.line(start, joined+l)
		joined, joining = "", false
	}
	if joining {
		s.line(start, joined)
	}
}

// line scans one line, which is several where a definition has several.
func (s *scanner) line(at Pos, text string) {
	if s.full {
		return
	}
	if s.scanned++; s.scanned > maxLines || s.nested > maxNesting {
		s.tooMuch(at)
		return
	}
	s.nested++
	defer func() { s.nested-- }()
	text = strings.TrimSpace(text)
	if conditional, ok := strings.CutPrefix(text, "@"); ok {
		id, rest := cutWord(conditional)
		id, other := strings.CutPrefix(id, "^")
		if (id == s.id) == other {
			return
		}
		text = rest
	}
	if isDefinition(text) {
		name, value, _ := strings.Cut(text[1:], "=")
		s.defined[name] = value
		return
	}
	if strings.HasPrefix(text, "~") && s.repeat(at, text) {
		return
	}
	text, again := s.substituted(at, text)
	if s.full {
		return
	}
	if again {
		for l := range strings.SplitSeq(text, "\n") {
			s.line(at, l) // which may define what those after it mean
		}
		return
	}
	words, brace, err := cutWords(text)
	switch {
	case err != nil:
		s.errorf(at, "%v", err)
	case len(words) == 0:
	case strings.HasPrefix(words[0], "include") && len(words[0]) <= len("includex"):
		s.include(at, words)
	default:
		s.lines = append(s.lines, wordLine{at, words, brace})
	}
}

// tooMuch ends the scan: definitions that stand for each other would go on for ever.
func (s *scanner) tooMuch(at Pos) {
	s.full = true
	s.errorf(at, "definitions, sequences or includes go on without end: more than %d lines or %d MiB", maxLines, maxWritten>>20)
}

// include scans the files that a pattern matches, relative to the file in which it stands.
func (s *scanner) include(at Pos, words []string) {
	if len(words) < 2 {
		s.errorf(at, "%s: the file's name is missing", words[0])
		return
	}
	what := words[0] + " " + quoted(words[1])
	pattern := words[1]
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(at.File), pattern)
	}
	if s.depth >= maxIncludes {
		s.errorf(at, "%s: files include each other more than %d deep", what, maxIncludes)
		return
	}
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		s.notef(at, nil, "%s: no such file; what is in it is left out", what)
		return
	}
	slices.Sort(files)
	for _, f := range files {
		text, err := ReadFile(f)
		if err != nil {
			var p *fs.PathError
			if errors.As(err, &p) {
				err = p.Err
			}
			s.notef(at, nil, "%s: %s: %v; what is in it is left out", what, f, err)
			continue
		}
		s.depth++
		s.file(f, string(text))
		s.depth--
	}
}

// uncommented is text without what follows # or ! outside quotes, but for a backslash at the end, which goes on with the next line. A
// backslash before one of them lets it stand.
func uncommented(text string) string {
	text = strings.TrimRight(text, " \t")
	quote := false
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			if next := text[i+1]; quote || next != '#' && next != '!' {
				b.WriteByte(c)
			}
			i++
		case c == '"':
			quote = !quote
		case !quote && (c == '#' || c == '!'):
			if strings.HasSuffix(text, `\`) {
				b.WriteByte('\\')
			}
			return b.String()
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// cutWords cuts text into words. Double quotes hold a word together; braces are words of their own, but not those of ${NAME}.
func cutWords(text string) (words []string, brace []bool, err error) {
	var word strings.Builder
	begun := false
	end := func() {
		if begun {
			words, brace = append(words, word.String()), append(brace, false)
			word.Reset()
			begun = false
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			n := strings.IndexByte(text[i+1:], '"')
			if n < 0 {
				return nil, nil, errors.New("a quote is not closed")
			}
			word.WriteString(text[i+1 : i+1+n])
			begun = true
			i += n + 1
		case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v':
			end()
		case c == '$' && strings.HasPrefix(text[i:], "${") && strings.IndexByte(text[i:], '}') > 0:
			n := strings.IndexByte(text[i:], '}')
			word.WriteString(text[i : i+n+1])
			begun = true
			i += n
		case c == '{' || c == '}':
			end()
			words, brace = append(words, string(c)), append(brace, true)
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	end()
	return words, brace, nil
}

// cutWord is the first word of text, and the rest.
func cutWord(text string) (word, rest string) {
	if i := strings.IndexAny(text, " \t"); i >= 0 {
		return text[:i], strings.TrimSpace(text[i:])
	}
	return text, ""
}
