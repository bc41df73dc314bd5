package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// scalar is the text of a value that is neither list nor mapping nor empty. what names what it should be, for the message.
func (d *decoder) scalar(v value, what string) (text string, ok bool) {
	if v.node.Kind != yaml.ScalarNode || v.node.Style&yaml.TaggedStyle != 0 && !strings.HasPrefix(v.node.ShortTag(), "!!") {
		d.errorf(v.pos(), v.path, "must be %s, not %s", what, kindOf(v.node))
		return "", false
	}
	if isNull(v.node) {
		d.errorf(v.pos(), v.path, "has no value: must be %s", what)
		return "", false
	}
	return v.node.Value, true
}

// text sets to to a text of 1 to limit bytes without control characters. What YAML takes for a number must be quoted, since YAML
// might write it another way than the user did.
func (d *decoder) text(v value, to *string, limit int) {
	if d.describe(schema{"type": "string", "minLength": 1, "maxLength": limit, "pattern": printablePat}) {
		return
	}
	s, ok := d.scalar(v, "text")
	if !ok {
		return
	}
	switch {
	case v.node.ShortTag() != "!!str":
		d.errorf(v.pos(), v.path, "must be text: write it in quotes, %s", quoted(s))
	case s == "" || len(s) > limit:
		d.errorf(v.pos(), v.path, "must be 1 to %d bytes long, not %d", limit, len(s))
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		d.errorf(v.pos(), v.path, "must not contain control characters: %s", quoted(s))
	default:
		*to = s
	}
}

// name sets to to the name of a thing: it must survive in a table, in a metric's label and as NAME=FILE on a command line.
func (d *decoder) name(v value, to *string) {
	var s string
	before := d.errors
	if d.text(v, &s, 64); d.errors > before || d.describe(schema{"pattern": namePattern}) {
		return
	}
	if strings.ContainsAny(s, "= \t\"'\\`{}") || strings.ContainsFunc(s, func(r rune) bool { return r == '\u2028' || r == '\u2029' || r == 0x85 }) {
		d.errorf(v.pos(), v.path, "must not contain spaces, quotes, braces, backslashes or =: %s", quoted(s))
		return
	}
	*to = s
}

// enum sets to to one of choices, or to nothing after an error so that no default stands in for what was meant.
func (d *decoder) enum(v value, to *string, what string, choices []string) {
	*to = ""
	if d.describe(oneOf(choices)) {
		return
	}
	s, ok := d.scalar(v, "one of "+strings.Join(choices, ", "))
	if !ok {
		return
	}
	if slices.Contains(choices, s) {
		*to = s
		return
	}
	if d.full() {
		d.errorf(v.pos(), v.path, "unknown %s", what)
		return
	}
	if near := nearest(s, choices); near != "" {
		d.suggestf(v.pos(), v.path, near, "unknown %s %s", what, quoted(s))
		return
	}
	d.errorf(v.pos(), v.path, "unknown %s %s: must be one of %s", what, quoted(s), strings.Join(choices, ", "))
}

// integer sets to to a decimal number in a range.
func integer[T ~int | ~uint16 | ~uint32](d *decoder, v value, to *T, low, high int64) {
	if d.describe(whole(low, high)) {
		return
	}
	s, ok := d.scalar(v, "a whole number")
	if !ok {
		return
	}
	if v.node.ShortTag() == "!!str" {
		if _, ok := number(s); ok {
			d.errorf(v.pos(), v.path, "must be a whole number, not text: write it without quotes, %s", abbreviated(s))
			return
		}
	}
	n, ok := number(s)
	if !ok {
		d.errorf(v.pos(), v.path, "must be a whole number in decimal, not %s", quoted(s))
		return
	}
	if low == high && n != low {
		d.errorf(v.pos(), v.path, "must be %d, not %s", low, abbreviated(s))
		return
	}
	if n < low || n > high {
		d.errorf(v.pos(), v.path, "must be %d to %d, not %s", low, high, abbreviated(s))
		return
	}
	*to = T(n)
}

// number reads a decimal number without leading zeros, which YAML 1.1 takes for octal. Its magnitude is held at 1<<62.
func number(s string) (n int64, ok bool) {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || len(digits) > 1 && digits[0] == '0' {
		return 0, false
	}
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = min(n*10+int64(c-'0'), 1<<59)
	}
	if digits != s {
		n = -n
	}
	return n, true
}

// abbreviated is a number that may be absurdly long.
func abbreviated(s string) string {
	if len(s) > 24 {
		return s[:24] + "..."
	}
	return s
}

// boolean sets to to true or false. The other words of YAML 1.1 are named as what they probably mean.
func (d *decoder) boolean(v value, to *bool) {
	if d.describe(schema{"type": "boolean"}) {
		return
	}
	s, ok := d.scalar(v, "true or false")
	if !ok {
		return
	}
	if v.node.ShortTag() == "!!bool" {
		*to = strings.EqualFold(s, "true")
		return
	}
	suggestion := ""
	switch strings.ToLower(s) {
	case "yes", "y", "on", "1", "true":
		suggestion = "true"
	case "no", "n", "off", "0", "false":
		suggestion = "false"
	}
	if suggestion != "" {
		d.errorf(v.pos(), v.path, "must be true or false, not %s: write %s", quoted(s), suggestion)
		return
	}
	d.errorf(v.pos(), v.path, "must be true or false, not %s", quoted(s))
}

// longest is the longest of all durations, as in IPVS.
const longest = 31 * 24 * time.Hour

// duration sets to to a time with a unit, in a range.
func (d *decoder) duration(v value, to *time.Duration, low, high time.Duration) {
	if d.describe(schema{"type": "string", "pattern": durationPattern, "$comment": short(low) + " to " + short(high)}) {
		return
	}
	s, ok := d.scalar(v, "a duration such as 300s or 5m")
	if !ok {
		return
	}
	if _, plain := number(s); plain {
		suggestion := ""
		if len(s) <= 10 {
			suggestion = s + "s"
		}
		d.suggestf(v.pos(), v.path, suggestion, "must be a duration with its unit, not %s", abbreviated(s))
		return
	}
	t, err := time.ParseDuration(s)
	if err != nil {
		d.errorf(v.pos(), v.path, "must be a duration such as 300s or 5m, not %s", quoted(s))
		return
	}
	if t < low || t > high {
		d.errorf(v.pos(), v.path, "must be %s to %s, not %s", short(low), short(high), quoted(s))
		return
	}
	*to = t
}

// short is a duration as one writes it: 10m rather than 10m0s.
func short(t time.Duration) string {
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// rate sets to to a number of events a second, written 1000/s.
func (d *decoder) rate(v value, to *Rate, high int64) {
	if d.describe(schema{"type": "string", "pattern": "^[0-9]+/s$", "$comment": fmt.Sprintf("0/s to %d/s", high)}) {
		return
	}
	s, ok := d.scalar(v, "a rate such as 1000/s")
	if !ok {
		return
	}
	if n, plain := number(s); plain {
		suggestion := ""
		if n >= 0 && n <= high {
			suggestion = s + "/s"
		}
		d.suggestf(v.pos(), v.path, suggestion, "must be a rate with its unit, not %s", abbreviated(s))
		return
	}
	digits, isRate := strings.CutSuffix(s, "/s")
	n, isNumber := number(digits)
	switch {
	case !isRate || !isNumber:
		d.errorf(v.pos(), v.path, "must be a rate such as 1000/s, not %s", quoted(s))
	case n < 0 || n > high:
		d.errorf(v.pos(), v.path, "must be 0/s to %d/s, not %s", high, quoted(s))
	default:
		to.PerSecond = int(n)
	}
}

// ports sets to to a port or a range of ports, 80 or 8000-8010. Port 0, where zero says that there is one, is all of them.
func (d *decoder) ports(v value, to *PortRange, zero bool) {
	least := int64(1)
	if zero {
		least = 0
	}
	if d.either(whole(least, 65535), textLike("^[0-9]+(-[0-9]+)?$")) {
		return
	}
	what := "a port such as 80 or a range such as 8000-8010"
	s, ok := d.scalar(v, what)
	if !ok {
		return
	}
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	from, ok1 := number(first)
	upto, ok2 := number(last)
	switch {
	case !ok1 || !ok2:
		d.errorf(v.pos(), v.path, "must be %s, not %s", what, quoted(s))
	case from == 0 && upto == 0 && zero && !isRange:
		*to = PortRange{0, 65535}
	case from < 1 || upto < 1 || from > 65535 || upto > 65535:
		d.errorf(v.pos(), v.path, "ports are 1 to 65535, not %s", quoted(s))
	case from > upto:
		d.suggestf(v.pos(), v.path, last+"-"+first, "the range %s ends before it begins", quoted(s))
	default:
		*to = PortRange{uint16(from), uint16(upto)}
	}
}
