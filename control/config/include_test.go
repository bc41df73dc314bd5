package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// files writes files into a directory and returns the main one, weir.yaml.
func files(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "weir.yaml")
}

func service(n int) string {
	return fmt.Sprintf("{name: s%d, vip: 198.18.9.%d, port: 80, backends: [{address: 198.18.1.%[1]d}]}", n, n)
}

// TestInclude: lists are added to in order, of files that include others, and a Reader reads the same.
func TestInclude(t *testing.T) {
	main := files(t, map[string]string{
		"weir.yaml":          changesHead + "include: [more/*.yaml, vxlan.yaml, none/*.yaml]\nservices:\n  - " + service(1) + "\n",
		"more/b.yaml":        "services: [" + service(4) + "]\nneighbors: [{address: 198.18.0.2, mac: \"02:00:00:00:00:0c\", port: wan}]\n",
		"more/a.yaml":        "version: 1\ninclude: [deeper/x.yaml]\nservices:\n  - &s " + service(2) + "\nroutes:\n  - {to: 203.0.113.0/24, via: 198.18.0.2}\n",
		"more/deeper/x.yaml": "services:\n\n  - " + service(3) + "\n",
		"vxlan.yaml":         "vxlan: {segments: [{vni: 5001, vtep: 192.0.2.1}]}\n",
	})
	var r Reader
	for name, load := range map[string]func(string) (*Config, []Diagnostic){"Load": Load, "Reader": r.Load} {
		c, diags := load(main)
		if len(diags) > 0 {
			t.Fatal(name, Errors(diags))
		}
		var names []string
		for _, s := range c.Services {
			names = append(names, s.Name)
		}
		if !slices.Equal(names, []string{"s1", "s2", "s3", "s4"}) || len(c.Neighbors) != 1 || len(c.Routes) != 1 || len(c.VXLAN.Segments) != 1 {
			t.Errorf("%s: %v, %d neighbors, %d routes, %d segments", name, names, len(c.Neighbors), len(c.Routes), len(c.VXLAN.Segments))
		}
		// Whoever finds something later tells the file, too.
		s := &c.Services[2]
		if got := c.Errorf(s.Field("vip"), s.Path+".vip", "x").String(); got != filepath.Join(filepath.Dir(main), "more/deeper/x.yaml")+":3:21: error: services[2].vip: x" {
			t.Error(got)
		}
		if got := c.Errorf(c.Services[0].Pos, "", "x").String(); got != main+":5:5: error: x" {
			t.Error(got)
		}
	}
}

// TestIncludeRefused compares every line that is told.
func TestIncludeRefused(t *testing.T) {
	for _, x := range []struct {
		name string
		main string
		more map[string]string
		want []string
	}{
		{"not there", "include: [x.yaml]\n", nil, []string{"weir.yaml:3:11: error: include[0]: DIR/x.yaml: no such file or directory"}},
		{"no list", "include: x.yaml\n", nil, []string{`weir.yaml:3:10: error: include: must be a list, not "x.yaml" (did you mean "[x.yaml]"?)`}},
		{"a device", "include: [/dev/zero]\n", nil, []string{"weir.yaml:3:11: error: include[0]: /dev/zero: is no regular file"}},
		{"a directory", "include: [.]\n", nil, []string{"weir.yaml:3:11: error: include[0]: DIR: is no regular file"}},
		{"a bad pattern", "include: [\"[\"]\n", nil, []string{`weir.yaml:3:11: error: include[0]: "[": syntax error in pattern`}},
		{"itself", "include: [weir.yaml]\n", nil, []string{"weir.yaml:3:11: error: include[0]: DIR/weir.yaml is read already (as DIR/weir.yaml): each file once, and none by itself"}},
		{"in a circle", "include: [a.yaml]\n", map[string]string{"a.yaml": "include: [b.yaml]\n", "b.yaml": "include: [a.yaml]\n"},
			[]string{"b.yaml:1:11: error: include[0]: DIR/a.yaml is read already (as DIR/a.yaml): each file once, and none by itself"}},
		{"too deep", "include: [1.yaml]\n", map[string]string{"1.yaml": "include: [2.yaml]", "2.yaml": "include: [3.yaml]", "3.yaml": "include: [4.yaml]", "4.yaml": "include: [5.yaml]",
			"5.yaml": "include: [6.yaml]", "6.yaml": "include: [7.yaml]", "7.yaml": "include: [8.yaml]", "8.yaml": "include: [9.yaml]", "9.yaml": ""},
			[]string{"8.yaml:1:11: error: include[0]: files include each other more than 8 deep"}},
		{"what is the main file's", "include: [a.yaml]\n", map[string]string{"a.yaml": "limits: {answers: 5/s}\nvxlan:\n  port: 8472\nservcies: []\n"}, []string{
			"a.yaml:1:1: error: limits: may not stand in an included file, which has services, neighbors, routes, vxlan.segments, include, version (did you mean \"limits\"?)",
			"a.yaml:3:3: error: vxlan.port: may stand in the main file only: an included one has vxlan.segments",
			"a.yaml:4:1: error: servcies: may not stand in an included file, which has services, neighbors, routes, vxlan.segments, include, version (did you mean \"services\"?)"}},
		{"no mapping, no list", "include: [a.yaml, b.yaml]\n", map[string]string{"a.yaml": "[1]\n", "b.yaml": "services: 7\nroutes: []\nroutes: []\n"}, []string{
			"a.yaml:1:1: error: must be a mapping of keys (services, neighbors, routes, vxlan.segments, include, version), not a list",
			`b.yaml:1:11: error: services: must be a list, not "7"`, "b.yaml:3:1: error: routes: duplicate key"}},
		{"no YAML", "include: [a.yaml]\n", map[string]string{"a.yaml": "services:\n  - {a: b\n"}, []string{
			"a.yaml:2:9: error: YAML: did not find expected ',' or '}': a bracket is not closed, or a value with a colon, comma or bracket needs quotes"}},
		{"no text", "include: [a.yaml]\n", map[string]string{"a.yaml": "\n\x00"}, []string{"a.yaml:2:1: error: NUL byte: this is not a text file in UTF-8"}},
		{"values, and what is there already", "include: [a.yaml]\nservices:\n  - " + service(1) + "\n", map[string]string{"a.yaml": "services:\n  - " + strings.Replace(service(1), "port: 80", "port: 80, scheduler: wcl", 1) + "\n"}, []string{
			`a.yaml:2:12: error: services[1].name: duplicate service name "s1", first in DIR/weir.yaml:5`,
			"a.yaml:2:21: error: services[1].vip: tcp 198.18.9.1 port 80 is services[0] already (s1, DIR/weir.yaml:5)",
			`a.yaml:2:54: error: services[1].scheduler: unknown scheduler "wcl" (did you mean "wlc"?)`}},
		{"an alias", "include: [a.yaml]\nservices: &all\n  - " + service(1) + "\n", map[string]string{"a.yaml": "services: [" + service(2) + "]\n"}, []string{
			"weir.yaml:4:11: error: services: is to be added to by an included file: it must be a list of its own, without anchor or alias"}},
		{"a bomb", "include: [a.yaml]\n", map[string]string{"a.yaml": "services: " + strings.Repeat("[", 70) + strings.Repeat("]", 70) + "\n"}, []string{
			"a.yaml:1:74: error: nested more than 64 levels deep"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			all := map[string]string{"weir.yaml": changesHead + x.main}
			for name, text := range x.more {
				all[name] = text
			}
			main := files(t, all)
			dir := filepath.Dir(main)
			_, diags := Load(main)
			var got []string
			for _, d := range diags {
				got = append(got, strings.ReplaceAll(strings.TrimPrefix(d.String(), dir+"/"), dir, "DIR"))
			}
			if !slices.Equal(got, x.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(x.want, "\n"))
			}
		})
	}
	if _, diags := Parse("f", []byte(changesHead+"include: [x.yaml]\n")); len(diags) != 1 || diags[0].String() != "f:3:10: error: include: can be followed from a file only" {
		t.Errorf("Parse: %v", diags)
	}
}

// TestSecrets: what stands in a file is what is used, a reload finds what changed in it, and what is wrong is told where it is named.
func TestSecrets(t *testing.T) {
	text := string(contents(t, "testdata/reads/weir.yaml"))
	main := files(t, map[string]string{"weir.yaml": text, "more.yaml": "", "secret": "Bearer one\n"})
	var r Reader
	for _, secret := range []string{"Bearer one", "Bearer two"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(main), "secret"), []byte(secret+"\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c, diags := r.Load(main)
		if len(diags) > 0 {
			t.Fatal(Errors(diags))
		}
		s := c.Services[0]
		if s.HashSeed != xxhash.Sum64String(secret)|1 || s.Check.Authorization != "Basic d2VpcjpzZWNyZXQ=" || s.Backends[0].Check.Authorization != secret || s.Backends[1].Check.Send != secret {
			t.Errorf("%s: %+v", secret, s)
		}
	}
	for _, x := range []struct {
		name, text, want string
		mode             os.FileMode
	}{
		{"everybody's", "Bearer one", "weir.yaml:9:21: warning: services[0].hash_seed_file: everybody on this host can read DIR/secret: `chmod o-r DIR/secret`", 0o644},
		{"empty", "\n", "weir.yaml:9:21: error: services[0].hash_seed_file: DIR/secret: a secret is 1 to 4096 bytes long", 0o600},
		{"too long", strings.Repeat("x", 4097), "weir.yaml:9:21: error: services[0].hash_seed_file: DIR/secret: a secret is 1 to 4096 bytes long", 0o600},
		{"not there", "", "weir.yaml:9:21: error: services[0].hash_seed_file: DIR/secret: no such file or directory", 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			main := files(t, map[string]string{"weir.yaml": text, "more.yaml": ""})
			dir := filepath.Dir(main)
			if x.mode != 0 {
				path := filepath.Join(dir, "secret")
				if err := os.WriteFile(path, []byte(x.text), x.mode); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(path, x.mode); err != nil { // whatever the umask
					t.Fatal(err)
				}
			}
			_, diags := Load(main)
			if len(diags) == 0 {
				t.Fatal("nothing is told")
			}
			if got := strings.ReplaceAll(strings.TrimPrefix(diags[0].String(), dir+"/"), dir, "DIR"); got != x.want {
				t.Errorf("got\n%s\nwant\n%s", got, x.want)
			}
		})
	}
	both := strings.Replace(text, "hash_seed_file: secret", "hash_seed_file: secret\n    hash_seed: x", 1)
	if _, diags := Parse("f", []byte(strings.Replace(both, "include: [more.yaml]\n", "", 1))); len(diags) != 1 || !strings.Contains(diags[0].String(), "hash_seed is given, too: write one of them") {
		t.Errorf("%v", Errors(diags))
	}
}
