package importer

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// isDefinition reports whether text is $NAME=VALUE.
func isDefinition(text string) bool {
	name, _, ok := strings.Cut(strings.TrimSpace(text), "=")
	return ok && strings.HasPrefix(name, "$") && isName(name[1:])
}

func isName(s string) bool {
	for i, c := range []byte(s) {
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// substituted puts in what ${NAME} and $NAME, the latter before a space or the end, stand for at this moment, and again in what was put
// in, within bounds. Names that nobody defined stay as they are. lines says that what was put in has several lines, which come first.
func (s *scanner) substituted(at Pos, text string) (result string, lines bool) {
	for !s.full {
		replaced := false
		for i := strings.IndexByte(text, '$'); i >= 0; {
			name, end := reference(text, i)
			if value, ok := s.value(at, name); ok && end > 0 {
				text = text[:i] + value + text[end:]
				if strings.Contains(value, "\n") {
					return text, true
				}
				replaced = true
				break
			}
			next := strings.IndexByte(text[i+1:], '$')
			if next < 0 {
				break
			}
			i += 1 + next
		}
		if !replaced {
			return text, false
		}
		if s.written += len(text); s.written > maxWritten {
			s.tooMuch(at)
		}
	}
	return "", false
}

// reference is the name that the $ at i refers to and where it ends; end is 0 if it refers to none.
func reference(text string, i int) (name string, end int) {
	rest := text[i+1:]
	if inner, ok := strings.CutPrefix(rest, "{"); ok {
		if name, _, ok := strings.Cut(inner, "}"); ok {
			return name, i + len("${}") + len(name)
		}
		return "", 0
	}
	n := 0
	for n < len(rest) && isName(rest[:n+1]) {
		n++
	}
	if n == 0 || n < len(rest) && !strings.ContainsRune(" \t\n", rune(rest[n])) {
		return "", 0
	}
	return rest[:n], i + 1 + n
}

// value is what a name stands for. Some stand for something that keepalived defines; # and ! come too late to begin a comment.
func (s *scanner) value(at Pos, name string) (string, bool) {
	if v, ok := s.defined[name]; ok {
		return v, true
	}
	switch name {
	case "_PWD":
		return filepath.Dir(at.File), true
	case "_INSTANCE":
		return s.id, true
	case "_HASH":
		return "#", true
	case "_BANG":
		return "!", true
	}
	return "", false
}

// repeat scans the rest of a line once for each value of ~SEQ(NAME, first, step, last), ~SEQx or ~LST(NAME, value, ...). It reports
// false if the line is none of them.
func (s *scanner) repeat(at Pos, text string) bool {
	kind, rest, ok := strings.Cut(text, "(")
	if !ok || kind != "~SEQ" && kind != "~SEQx" && kind != "~LST" {
		return false
	}
	inner, rest, ok := strings.Cut(rest, ")")
	if !ok {
		s.errorf(at, "%s: its closing parenthesis is missing", kind)
		return true
	}
	var names []string
	var values [][]string
	var err error
	if kind == "~LST" {
		names, values, err = listOf(inner)
	} else {
		names, values, err = sequenceOf(inner, kind == "~SEQx")
	}
	if err != nil {
		s.errorf(at, "%s: %v", kind, err)
		return true
	}
	for _, v := range values {
		for i, name := range names {
			s.defined[name] = v[i]
		}
		s.line(at, rest)
	}
	return true
}

// sequenceOf is the numbers of NAME, first, step, last; step and then first may be missing.
func sequenceOf(text string, hex bool) (names []string, values [][]string, err error) {
	parts := strings.Split(text, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	if len(parts) < 2 || len(parts) > 4 || !isName(parts[0]) {
		return nil, nil, fmt.Errorf("must be (NAME, first, step, last), not (%s)", text)
	}
	var numbers []int64
	for _, p := range parts[1:] {
		n, err := strconv.ParseInt(p, 0, 32)
		if err != nil {
			return nil, nil, fmt.Errorf("%s is no number", quoted(p))
		}
		numbers = append(numbers, n)
	}
	last := numbers[len(numbers)-1]
	first, step := int64(1), int64(1)
	if last < 0 {
		first = -1
	}
	if len(numbers) > 1 {
		first = numbers[0]
	}
	if last < first {
		step = -1
	}
	if len(numbers) > 2 {
		step = numbers[1]
	}
	if step == 0 || (last-first)/step > maxLines {
		return nil, nil, fmt.Errorf("the sequence has no end, or more than %d values", maxLines)
	}
	format := "%d"
	if hex {
		format = "%x"
	}
	for n := first; step > 0 && n <= last || step < 0 && n >= last; n += step {
		values = append(values, []string{fmt.Sprintf(format, n)})
	}
	return parts[:1], values, nil
}

// listOf is the values of NAME, value, ... or of {NAME, NAME}, {value, value}, ...
func listOf(text string) (names []string, values [][]string, err error) {
	for text = strings.TrimSpace(text); text != ""; {
		var item string
		if inner, ok := strings.CutPrefix(text, "{"); ok {
			if item, text, ok = strings.Cut(inner, "}"); !ok {
				return nil, nil, fmt.Errorf("a brace is not closed")
			}
			_, text, _ = strings.Cut(text, ",")
		} else {
			item, text, _ = strings.Cut(text, ",")
		}
		text = strings.TrimSpace(text)
		parts := []string{strings.TrimSpace(item)}
		if len(names) != 1 {
			parts = strings.Split(item, ",")
			for i := range parts {
				parts[i] = strings.TrimSpace(parts[i])
			}
		}
		if names == nil {
			names = parts
			continue
		}
		if len(parts) != len(names) {
			return nil, nil, fmt.Errorf("%d values for %d names", len(parts), len(names))
		}
		values = append(values, parts)
	}
	for _, n := range names {
		if !isName(n) {
			return nil, nil, fmt.Errorf("%s is no name", quoted(n))
		}
	}
	if len(values) == 0 {
		return nil, nil, fmt.Errorf("has no values")
	}
	return names, values, nil
}
