package config

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const readerHead = `version: 1
ports:
  - {name: wan, driver: mem, mac: "02:00:00:00:01:01", addresses: [198.18.0.1/24]}
conntrack: {max_connections: 4096}
`

// twin compares what a Reader says with what Parse says.
func twin(t *testing.T, r *Reader, text string) *Config {
	t.Helper()
	got, gotDiags := r.Parse("f", []byte(text))
	want, wantDiags := Parse("f", []byte(text))
	got = unmarked(got)
	if !reflect.DeepEqual(gotDiags, wantDiags) {
		t.Fatalf("diagnostics %v, want %v, of\n%s", gotDiags, wantDiags, text)
	}
	if !reflect.DeepEqual(got, want) {
		for i := range want.Services {
			if i < len(got.Services) && !reflect.DeepEqual(got.Services[i], want.Services[i]) {
				t.Fatalf("services[%d]\n%+v, want\n%+v, of\n%s", i, got.Services[i], want.Services[i], text)
			}
		}
		t.Fatalf("configuration\n%+v, want\n%+v, of\n%s", got, want, text)
	}
	return got
}

// unmarked is c without what a Reader marks its services by.
func unmarked(c *Config) *Config {
	if c == nil {
		return nil
	}
	x := *c
	x.Services = slices.Clone(c.Services)
	for i := range x.Services {
		x.Services[i].once = nil
	}
	return &x
}

// randomService is a service with this or that key, in this or that style.
func randomService(r *rand.Rand, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  - name: s%d\n    vip: 198.19.%d.%d\n    port: 80\n", n, n>>8, n&255)
	for _, key := range []string{
		"    persistence:\n      timeout: 60s\n", "    conntrack: {sloppy_tcp: true}\n", "    masquerade: always\n    fullnat: {addresses: [198.18.0.77]}\n",
		"    scheduler: sh\n    flags: [sh-port]\n", "    # a comment\n\n", "    check: {type: http, path: /up}\n", "    passive:\n      syns: 3\n", "    deny:\n      - 203.0.113.0/24\n", "    timeouts: {udp: 10s}\n",
	} {
		if r.IntN(3) == 0 {
			b.WriteString(key)
		}
	}
	b.WriteString("    backends:\n")
	for i := range r.IntN(4) {
		fmt.Fprintf(&b, "      - {address: 198.18.7.%d, weight: %d}\n", i+1, 1+r.IntN(9))
	}
	if r.IntN(4) == 0 {
		fmt.Fprintf(&b, "      - address: 198.18.8.1\n        port: 8080\n")
	}
	return b.String()
}

// Random edits of a file: services come, go, change and move, and what stands before and after them does.
func TestReaderIsLoad(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 9))
		var r Reader
		var all []string
		next := 0
		for range 12 {
			for range 1 + random.IntN(3) {
				switch at := random.IntN(len(all) + 1); {
				case at == len(all) || random.IntN(3) == 0:
					all = append(all[:at:at], append([]string{randomService(random, next)}, all[at:]...)...)
					next++
				case random.IntN(2) == 0:
					all = append(all[:at:at], all[at+1:]...)
				default:
					all[at] = strings.Replace(all[at], "port: 80\n", fmt.Sprintf("port: %d\n", 80+random.IntN(50)), 1)
				}
			}
			text := readerHead
			if random.IntN(4) == 0 {
				text += "# one line more\n"
			}
			if random.IntN(5) == 0 {
				text = strings.Replace(text, "4096", "8192", 1)
			}
			text += "services:\n" + strings.Join(all, "")
			if random.IntN(2) == 0 {
				text += "grace: 5s\nlimits:\n  answers: 10/s\n"
			}
			twin(t, &r, text)
		}
	}
}

// What is not plain is read the other way, and comes to the same.
func TestReaderFallsBack(t *testing.T) {
	service := "  - vip: 198.19.0.1\n    port: 80\n    backends: [{address: 198.18.7.1}]\n"
	second := strings.Replace(service, "19.0.1", "19.0.2", 1)
	for name, text := range map[string]string{
		"an unknown key":              readerHead + "services:\n" + service + "    prot: 1\n",
		"a warning":                   readerHead + "services:\n" + strings.Replace(service, "7.1}", "7.1, weight: 0}", 1),
		"an anchor":                   readerHead + "services:\n  - &a\n    vip: 198.19.0.3\n    port: 80\n" + service + "  - *a\n",
		"an anchor used elsewhere":    readerHead + "services:\n" + strings.Replace(service, "port: 80", "port: &p 80", 1) + strings.Replace(second, "port: 80", "port: *p", 1),
		"a list in brackets":          readerHead + "services: [{vip: 198.19.0.1, port: 80}]\n",
		"an empty list":               readerHead + "services:\n",
		"only comments":               readerHead + "services:\n  # none\n",
		"a null item":                 readerHead + "services:\n" + service + "  -\n",
		"a quote over two lines":      readerHead + "services:\n" + service + "  - name: \"a\n  - b\"\n    vip: 198.19.0.4\n    port: 80\n",
		"a bracket over two lines":    readerHead + "services:\n" + service + "  - {vip: 198.19.0.4,\n  - port: 80}\n",
		"a block text":                readerHead + "services:\n" + service + "  - name: |\n      x\n\n    vip: 198.19.0.4\n    port: 80\n",
		"another key twice":           readerHead + "services:\n" + service + "services:\n" + second,
		"a second document":           readerHead + "services:\n" + service + "---\n" + second,
		"the end of a document":       readerHead + "services:\n" + service + "...\n" + second,
		"items without indentation":   readerHead + "services:\n- vip: 198.19.0.1\n  port: 80\n- vip: 198.19.0.2\n  port: 80\ngrace: 1s\n",
		"an item further in":          readerHead + "services:\n" + service + "   - vip: 198.19.0.2\n     port: 80\n",
		"an item further out":         readerHead + "services:\n" + service + " - vip: 198.19.0.2\n   port: 80\n",
		"no line end at the end":      readerHead + "services:\n" + service + "  - {vip: 198.19.0.2, port: 80}",
		"carriage returns":            strings.ReplaceAll(readerHead+"services:\n"+service, "\n", "\r\n"),
		"a tab":                       readerHead + "services:\n" + service + "\t- vip: 198.19.0.2\n",
		"the same service twice":      readerHead + "services:\n" + service + service,
		"a comment in column one":     readerHead + "services:\n" + service + "# second\n" + second + "  # third\n" + "grace: 1s\n",
		"services in another section": "version: 1\nlimits:\n  services:\n  - x\nports: [{name: a, driver: mem, mac: \"02:00:00:00:01:01\", addresses: [198.18.0.1/24]}]\n",
		"services in a text":          "version: 1\nadmin:\n  token_file: \"\nservices:\n  - a\n  \"\nports: [{name: a, driver: mem, mac: \"02:00:00:00:01:01\", addresses: [198.18.0.1/24]}]\n",
		"not UTF-8":                   readerHead + "services:\n" + service + "    name: \xff\n",
		"nothing":                     "",
	} {
		t.Run(name, func(t *testing.T) {
			var r Reader
			twin(t, &r, readerHead+"services:\n"+service)
			twin(t, &r, text)
			twin(t, &r, text)
		})
	}
}

// The examples are read piece by piece where they have services as a block.
func TestReaderReadsTheExamples(t *testing.T) {
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var r Reader
		twin(t, &r, string(b))
		twin(t, &r, string(b))
	}
}

func FuzzReader(f *testing.F) {
	f.Add(readerHead+"services:\n  - vip: 198.19.0.1\n    port: 80\n", readerHead+"services:\n  - vip: 198.19.0.1\n    port: 80\n  - vip: 198.19.0.2\n    port: 80\ngrace: 1s\n")
	f.Add(readerHead+"services:\n- vip: 198.19.0.1\n  port: 80\n", "services:\n- {a: \"\n- b\"}\n- |\n x\n-\n")
	f.Fuzz(func(t *testing.T, first, second string) {
		var r Reader
		for _, text := range []string{first, second, first} {
			got, gotDiags := r.Parse("f", []byte(text))
			want, wantDiags := Parse("f", []byte(text))
			if !reflect.DeepEqual(gotDiags, wantDiags) && len(gotDiags)+len(wantDiags) > 0 {
				t.Fatalf("diagnostics %v, want %v", gotDiags, wantDiags)
			}
			if got = unmarked(got); !reflect.DeepEqual(got, want) {
				t.Fatalf("configuration %+v, want %+v", got, want)
			}
		}
	})
}
