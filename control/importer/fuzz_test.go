package importer

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weir/control/config"
)

// seeds adds the test data of a pattern, whole files and single lines.
func seeds(f *testing.F, pattern string) {
	files, _ := filepath.Glob(filepath.Join("../../testdata/import", pattern))
	if len(files) == 0 {
		f.Fatal("no seeds at", pattern)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		for l := range bytes.Lines(text) {
			f.Add(l)
		}
	}
}

// sane asserts what holds for every input: there is a configuration or an error, never both; what is printed passes weir check, and
// what is said is one line each.
func sane(t *testing.T, r Result) {
	t.Helper()
	if (len(r.Config) == 0) != (len(r.Errors) > 0) {
		t.Fatalf("%d errors, and %d bytes of a configuration", len(r.Errors), len(r.Config))
	}
	for _, n := range r.Notes {
		if strings.ContainsAny(n.String(), "\n\r\x00\x1b") {
			t.Fatalf("a note of more than a line: %q", n.String())
		}
	}
	for _, e := range r.Errors {
		if strings.ContainsAny(e.Error(), "\n\r\x00\x1b") {
			t.Fatalf("an error of more than a line: %q", e.Error())
		}
	}
	if len(r.Config) > config.MaxBytes {
		t.Skip("more than a configuration may be")
	}
	valid(t, r)
}

func FuzzIPVSAdm(f *testing.F) {
	seeds(f, "ipvsadm/*/rules")
	f.Fuzz(func(t *testing.T, rules []byte) { sane(t, IPVSAdm("rules", rules, Options{Resolver: names{}})) })
}

// FuzzKeepalived runs in an empty directory, so that an include finds nothing.
func FuzzKeepalived(f *testing.F) {
	seeds(f, "keepalived/*/*.conf")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.Contains(text, []byte("include")) {
			t.Skip("would read the machine's files")
		}
		sane(t, Keepalived(filepath.Join(dir, "keepalived.conf"), text, "edge1", Options{Resolver: names{}}))
	})
}

// TestPrefixOf compares with a twin that looks at the bits one by one.
func TestPrefixOf(t *testing.T) {
	twin := func(mask uint32) (int, bool) {
		for n := range 33 {
			if mask == uint32(uint64(0xffffffff)<<(32-n)) {
				return n, true
			}
		}
		return 0, false
	}
	for _, mask := range slices.Concat([]uint32{0, 1, 0x80000000, 0xff00ff00, 0xfffffffe, 0x7fffffff}, everyPrefix()) {
		n, ok := prefixOf(netip.AddrFrom4([4]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)}))
		if wantN, want := twin(mask); ok != want || ok && n != wantN {
			t.Errorf("%08x: %d, %v; want %d, %v", mask, n, ok, wantN, want)
		}
	}
}

func everyPrefix() (masks []uint32) {
	for n := range 33 {
		masks = append(masks, uint32(uint64(0xffffffff)<<(32-n)), uint32(uint64(0xffffffff)<<(32-n))^1)
	}
	return masks
}
