package importer

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weir/control/config"
)

var update = flag.Bool("update", false, "write what is printed to testdata/import as what is wanted")

// names is a resolver that knows the names of the test data.
type names struct{}

func (names) Port(protocol, name string) (uint16, error) {
	if n, ok := map[string]uint16{"http": 80, "http-alt": 8080, "domain": 53, "https": 443}[name]; ok {
		return n, nil
	}
	return 0, errors.New("unknown " + protocol + " port " + name)
}

func (names) Host(name string) (netip.Addr, error) {
	if a, ok := map[string]string{"www.example.net": "198.18.9.9", "web1.example.net": "198.18.1.10", "web6.example.net": "2001:db8:1::9"}[name]; ok {
		return netip.MustParseAddr(a), nil
	}
	return netip.Addr{}, errors.New("unknown host " + name)
}

// TestGoldenIPVSAdm imports testdata/import/ipvsadm/*/rules: want.yaml is what is printed, said is what is listed beside it. Nothing is
// printed if the rules are wrong.
func TestGoldenIPVSAdm(t *testing.T) {
	each(t, "ipvsadm/*/rules", func(file string, text []byte) Result { return IPVSAdm(file, text, Options{Resolver: names{}}) })
}

func each(t *testing.T, pattern string, importing func(file string, text []byte) Result) {
	files, err := filepath.Glob(filepath.Join("../../testdata/import", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data at %s: %v", pattern, err)
	}
	for _, f := range files {
		dir := filepath.Dir(f)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Chdir(dir)
			text, err := os.ReadFile(filepath.Base(f))
			if err != nil {
				t.Fatal(err)
			}
			r := importing(filepath.Base(f), text)
			var said strings.Builder
			for _, n := range r.Notes {
				said.WriteString(n.String() + "\n")
			}
			for _, e := range r.Errors {
				said.WriteString(e.Error() + "\n")
			}
			same(t, "said", said.String())
			same(t, "want.yaml", string(r.Config))
			if (len(r.Config) == 0) != (len(r.Errors) > 0) {
				t.Errorf("%d errors, and %d bytes of a configuration", len(r.Errors), len(r.Config))
			}
			valid(t, r)
		})
	}
}

// same compares got with the file of the case; an empty one need not exist.
func same(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if got == "" {
			_ = os.Remove(name)
		} else if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
	}
}

// valid asserts that what was printed passes weir check, with nothing but warnings.
func valid(t *testing.T, r Result) *config.Config {
	t.Helper()
	if len(r.Errors) > 0 {
		return nil
	}
	c, diags := config.Parse("printed", r.Config)
	if config.HasErrors(diags) {
		t.Fatalf("%v\n%s", config.Errors(diags), r.Config)
	}
	return c
}

// TestGoldenKeepalived imports testdata/import/keepalived/*/keepalived.conf on a host that is called edge1.
func TestGoldenKeepalived(t *testing.T) {
	each(t, "keepalived/*/keepalived.conf", func(file string, text []byte) Result {
		return Keepalived(file, text, "edge1", Options{Resolver: names{}})
	})
}
