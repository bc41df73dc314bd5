package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUnreadable tells a file that cannot be read from one that is wrong.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	for _, x := range []struct {
		name, path, want string
		cause            error
	}{
		{"missing", filepath.Join(dir, "none.yaml"), ": error: no such file or directory", fs.ErrNotExist},
		{"a directory", dir, ": error: is a directory", nil},
		{"below a file", "load_test.go/x.yaml", ": error: not a directory", nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			c, diags := Load(x.path)
			err := Unreadable(diags)
			var read *ReadError
			if c != nil || !HasErrors(diags) || !errors.As(err, &read) || read.Path != x.path {
				t.Fatalf("%v, %v", c, diags)
			}
			if x.cause != nil && !errors.Is(err, x.cause) {
				t.Errorf("%v is not %v", err, x.cause)
			}
			if got := diags[0].String(); got != x.path+x.want {
				t.Errorf("got %s", got)
			}
			if _, diags := LoadReplay(x.path); Unreadable(diags) == nil {
				t.Errorf("a replay reads it: %v", diags)
			}
		})
	}
	empty := filepath.Join(dir, "empty.yaml")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, diags := Load(empty); Unreadable(diags) != nil || !HasErrors(diags) {
		t.Errorf("an empty file is readable and wrong: %v", diags)
	}
}

// TestEndlessFile ends although the file does not.
func TestEndlessFile(t *testing.T) {
	if _, err := os.Stat("/dev/zero"); err != nil {
		t.Skip(err)
	}
	if _, diags := Load("/dev/zero"); len(diags) != 1 || diags[0].String() != "/dev/zero: error: is larger than 16 MiB" {
		t.Errorf("%v", diags)
	}
}

// TestSyntax compares the place of what YAML itself forbids. The line and column are where a person would point.
func TestSyntax(t *testing.T) {
	for _, x := range []struct{ name, text, want string }{
		{"empty", "", "1:1: error: is empty: a configuration begins with version: 1"},
		{"white", " \n\n", "1:1: error: is empty: a configuration begins with version: 1"},
		{"null", "null\n", "1:1: error: is empty: a configuration begins with version: 1"},
		{"NUL byte", "version: 1\n\x00\n", "2:1: error: NUL byte: this is not a text file in UTF-8"},
		{"not UTF-8", "version: 1 # é\n#é \xff\n", "2:4: error: byte 0xff: this is not a text file in UTF-8"},
		{"UTF-16", "\xfe\xff\x00v\x00e", "1:1: error: byte 0xfe: this is not a text file in UTF-8"},
		{"escape sequence", "version: 1\nports: \x1b[2J\n", "2:8: error: control character U+001B: this is not a text file in UTF-8"},
		{"second BOM", "\ufeffa\ufeff: 1", "1:2: error: control character U+FEFF: this is not a text file in UTF-8"},
		{"tab", "version: 1\nports:\n\t- {name: wan}\n", "3:1: error: YAML: found character that cannot start any token"},
		{"unclosed bracket", "version: 1\nports: [1,\n  2\n", "3:3: error: YAML: did not find expected ',' or ']': a bracket is not closed, or a value with a colon, comma or bracket needs quotes"},
		{"unclosed quote", "version: 1\nports: 'a\n# one\n# two\n", "2:8: error: YAML: found unexpected end of stream: a quote is not closed"},
		{"two colons", "version: 1\nports: a: b\n", "2:9: error: YAML: mapping values are not allowed in this context: a value with a colon needs quotes"},
		{"after a BOM", "\ufeffa: b: c\n", "1:5: error: YAML: mapping values are not allowed in this context: a value with a colon needs quotes"},
		{"less indented", "a:\n    b: 1\n  c: 2\n", "3:3: error: YAML: did not find expected key: is the indentation right?"},
		{"unknown anchor", "version: 1\nports: *here\n", "2:8: error: YAML: unknown anchor 'here' referenced"},
		{"anchor in itself", "ports: &p [1, *p]\n", "1:15: error: anchor p contains itself"},
		{"anchor in itself, deeper", "ports: &p {a: [{b: *p}]}\n", "1:20: error: anchor p contains itself"},
		{"second document", "version: 1\n--- \nversion: 1\n", "2:1: error: a second document begins here: a configuration is one document"},
		{"broken second document", "version: 1\n---\n]\n", "3:1: error: YAML: did not find expected node content"},
		{"tag", "version: !one 1\nports: [{name: wan, interface: eth1}]", "1:10: error: version: must be a whole number, not a value with the tag \"!one\""},
		{"list", "- 1\n", "1:1: error: must be a mapping of keys (version, engine, ports, routes, neighbors, conntrack, services, limits, vxlan, admin, ...), not a list"},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, diags := Parse("f", []byte(x.text))
			if got := Errors(diags).Error(); got != "f:"+x.want {
				t.Errorf("got  %s\nwant f:%s", got, x.want)
			}
		})
	}
	for _, text := range []string{"\ufeffversion: 1\nports: [{name: wan, interface: eth1}]\n", "---\nversion: 1\nports: [{name: wan, interface: eth1}]\n...\n",
		"version: 1\r\nports:\r\n  - {name: wan, interface: eth1}\r\n"} {
		if _, diags := Parse("f", []byte(text)); len(diags) > 0 {
			t.Errorf("%q: %v", text, Errors(diags))
		}
	}
}

// TestHostile gives files that are made to cost much. None may: a reload happens while packets flow.
func TestHostile(t *testing.T) {
	bomb := "version: 1\na0: &a0 [x]\n"
	for i := 1; i < 2000; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [*a%d, *a%d]\n", i, i, i-1, i-1)
	}
	// As deep as services and backends go, and wide instead: 20000 services of 20000 backends each.
	wide := "version: 1\nports: [{name: wan, interface: eth1}]\nx: &b [" + strings.Repeat("{address: 198.18.1.1},", 20000) + "]\n" +
		"services: [&s {vip: 198.18.9.9, port: 80, backends: *b}" + strings.Repeat(",*s", 20000) + "]\n"
	for _, x := range []struct{ name, text, want string }{
		{"doubling aliases", bomb, "nested more than 64 levels deep"},
		{"wide aliases", wide, "aliases stand for more than 1048576 values"},
		{"aliases of aliases", "version: 1\na: &a [" + strings.Repeat("x,", 2000) + "]\nb: &b [" + strings.Repeat("*a,", 2000) + "]\nc: [" + strings.Repeat("*b,", 2000) + "]\n",
			"aliases stand for more than 1048576 values"},
		{"deep lists", "version: 1\nports: " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000), "nested more than 64 levels deep"},
		{"deep mappings", "version: 1\nports: " + strings.Repeat("{a: ", 9000) + strings.Repeat("}", 9000), "nested more than 64 levels deep"},
		{"deep dashes", "version: 1\nports:\n" + strings.Repeat("- ", 9000) + "x", "nested more than 64 levels deep"},
		{"unclosed lists", strings.Repeat("[", 1<<20), "YAML: exceeded max depth of 10000"},
		{"too large", strings.Repeat(" ", MaxBytes+1), "is larger than 16 MiB"},
		{"blanks", strings.Repeat(" ", MaxBytes), "is empty: a configuration begins with version: 1"},
		{"a long word", "version: 1\nports: " + strings.Repeat("x", 4<<20), "must be a list"},
		{"unknown keys", "version: 1\nports: [{name: wan, interface: eth1}]\n" + manyKeys(20000), "unknown key"},
		{"an absurd number", "version: " + strings.Repeat("9", 1<<20), "write it without quotes, 999999999999999999999999..."},
		{"a huge range of CPUs", "version: 1\nengine: {workers: {cpus: \"0-999999999999\"}}\nports: [{name: wan, interface: eth1}]", "numbers are 0 to 4095"},
	} {
		t.Run(x.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := cpuTime()
			_, diags := Parse("f", []byte(x.text))
			took := cpuTime() - start
			runtime.ReadMemStats(&after)
			if got := Errors(diags).Error(); !strings.Contains(got, x.want) {
				t.Errorf("got %.300s", got)
			}
			if took > time.Second*slower {
				t.Errorf("took %v", took)
			}
			if len(Errors(diags).Error()) > 256<<10 {
				t.Errorf("%d diagnostics of %d bytes", len(diags), len(Errors(diags).Error()))
			}
			// A file that passes through the parser costs it some hundred bytes for each value; expansion must not add to that.
			if used := after.TotalAlloc - before.TotalAlloc; used > 128<<20 {
				t.Errorf("took %d MiB", used>>20)
			}
			t.Logf("%v, %d KiB", took, (after.TotalAlloc-before.TotalAlloc)>>10)
		})
	}
}

func manyKeys(n int) string {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "servces%d: 1\n", i)
	}
	return b.String()
}

// TestManyErrors tells of the first thousand and the number of the others.
func TestManyErrors(t *testing.T) {
	_, diags := Parse("f", []byte("version: 1\nports: [{name: wan, interface: eth1}]\n"+manyKeys(1500)))
	if n := len(diags); n != maxDiagnostics+1 {
		t.Fatalf("%d diagnostics", n)
	}
	if got, want := diags[maxDiagnostics].String(), "f:1002:1: error: and 500 more"; got != want {
		t.Errorf("got %s", got)
	}
}

// cpuTime is what this process has computed so far: unlike the clock it stands still while others have the processor.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // cannot fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
