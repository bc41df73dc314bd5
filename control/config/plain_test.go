package config

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// differs says where two trees of nodes differ in what the decoder looks at, or nothing.
func differs(a, b *yaml.Node) string {
	if a.Kind != b.Kind || a.Style != b.Style || a.Tag != b.Tag || a.Value != b.Value || a.Anchor != b.Anchor || a.Line != b.Line || a.Column != b.Column || len(a.Content) != len(b.Content) {
		return fmt.Sprintf("%+v\n%+v", a, b)
	}
	for i := range a.Content {
		if d := differs(a.Content[i], b.Content[i]); d != "" {
			return d
		}
	}
	return ""
}

// twinOf is what the library makes of a text whose first line has a number.
func twinOf(text string, number int) (*yaml.Node, error) {
	var doc yaml.Node
	if err := decodeYAML(yaml.NewDecoder(strings.NewReader(text)), &doc); err != nil {
		return nil, err
	}
	shift(&doc, number-1)
	if len(doc.Content) != 1 {
		return nil, fmt.Errorf("%d documents", len(doc.Content))
	}
	return doc.Content[0], nil
}

// plainTexts are what plain is for, and what it must leave alone.
var plainTexts = map[string]bool{
	"- a\n": true,
	"  - name: web\n    vip: 198.18.9.9\n    port: 80\n    backends:\n      - {address: 198.18.1.10, port: 8000, weight: 3}\n      - {address: 198.18.1.11}\n": true,
	"  - vips: [198.18.9.9, \"2001:db8::1\"]\n    port: 8000-8010\n    persistence: {timeout: 300s, prefix: 32}\n    backends: []\n":                           true,
	"  - check: {type: http, path: /up, status: \"200\", tls: {a: [b, {c: d}]}}\n    flags: [sh-port, sh-fallback]\n":                                          true,
	"  - backends:\n    - {address: 198.18.1.10}\n": false, // a list that stands no further in than its key
	"  - backends:\n      - address: 198.18.1.10\n        port: 80\n      - address: 198.18.1.11\n\n      # the last\n      - {address: 2001:db8::1}\n": true,
	"  - conntrack:\n      timeouts:\n        udp: 10s\n      sloppy_tcp: true\n    port: 80\n":                                                         true,
	"  # first\n\n  - port: 80   \n":               true,
	"  - {" + strings.Repeat("k", 1025) + ": 1}\n": false, // no key for the library, either
	"  - " + strings.Repeat("k", 1025) + ": 1\n":   false,
	"#\r0\n- 0":                false,
	"#\u20280\n- 0":            false,
	"  - port: 80 # web\n":     false,
	"  - port:\n":              false,
	"  -\n":                    false,
	"  - a: b c\n":             false,
	"  - a: &x b\n    c: *x\n": false,
	"  - a: |\n      text\n":   false,
	"  - a: b\n      c\n":      false,
	"  - {a: 1,\n     b: 2}\n": false,
	"  - {a: 1, }\n":           false,
	"  - {a: , b: 2}\n":        false,
	"  - {\"a\": 1}\n":         false,
	"  - {a: 1}b\n":            false,
	"  - a: \"x\\n\"\n":        false,
	"  - a: 'it''s'\n":         false,
	"  - a: \"x\n      y\"\n":  false,
	"  - ? a\n    : b\n":       false,
	"  - a: !!str 1\n":         false,
	"  - a: @b\n":              false,
	"  - a: -\n":               false,
	"  - a: <<\n":              false,
	"  - \xc3\xa4: 1\n":        false,
	"  - a:\t1\n":              false,
	"  - a: 1\n   - b: 2\n":    false,
	"  - a: 1\n  b: 2\n":       false,
	"  - - a\n":                false,
	"a: 1\n":                   false,
	"":                         false,
	"  - [a, b: c]\n":          false,
	"  - a: 2001-01-01\n    b: 0x10\n    c: 1e3\n    d: 010\n    e: 1.5\n    f: .inf\n    g: yes\n    h: null\n    i: 1_000\n    j: 1.2.3\n    k: 12345678901234567890\n": true,
}

func TestPlain(t *testing.T) {
	var p plain
	for text, taken := range plainTexts {
		n := p.parse(text, 7)
		if (n != nil) != taken {
			t.Errorf("%q: taken %v, want %v", text, n != nil, taken)
		}
		if n == nil {
			continue
		}
		want, err := twinOf(text, 7)
		if err != nil {
			t.Errorf("%q: the library says %v", text, err)
		} else if d := differs(n, want); d != "" {
			t.Errorf("%q:\n%s", text, d)
		}
	}
}

// TestPlainTakesServices: it is worth nothing if it leaves to the library what configurations are made of.
func TestPlainTakesServices(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var p plain
	for n := range 2000 {
		text := randomService(random, n)
		got := p.parse(text, n)
		want, err := twinOf(text, n)
		if err != nil {
			t.Fatal(err)
		}
		if got == nil {
			if !strings.HasSuffix(text, "backends:\n") {
				t.Fatalf("not taken:\n%s", text)
			}
			continue
		}
		if d := differs(got, want); d != "" {
			t.Fatalf("of\n%s\n%s", text, d)
		}
	}
}

func TestPlainDoesNotAllocate(t *testing.T) {
	text := "  - name: web\n    vip: 198.18.9.9\n    port: 80\n    backends:\n      - {address: 198.18.1.10, port: 8000, weight: 3}\n      - {address: 198.18.1.11, port: 8000, weight: 3}\n"
	var p plain
	p.parse(text, 1)
	if n := testing.AllocsPerRun(100, func() { p.parse(text, 1) }); n != 0 {
		t.Errorf("a text of a known size takes %v allocations", n)
	}
}

// FuzzPlain: what plain takes is what the library makes of it.
func FuzzPlain(f *testing.F) {
	for text := range plainTexts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var p plain
		got := p.parse(text, 3)
		if got == nil {
			t.Skip("left to the library")
		}
		want, err := twinOf(text, 3)
		if err != nil {
			t.Fatalf("taken, but the library says %v", err)
		}
		if d := differs(got, want); d != "" {
			t.Fatal(d)
		}
	})
}
