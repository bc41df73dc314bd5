package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"weir/control"
	"weir/control/config"
	"weir/control/importer"
)

const imports = "../../testdata/import"

// listed is what weir list -o ipvsadm shows of an import.
func listed(t *testing.T, r importer.Result, sorted bool) string {
	t.Helper()
	if len(r.Errors) > 0 {
		t.Fatal(r.Errors)
	}
	cfg, diags := config.Parse("imported", r.Config)
	if config.HasErrors(diags) {
		t.Fatalf("%v\n%s", config.Errors(diags), r.Config)
	}
	services := control.List(cfg)
	if sorted {
		sortIPVSAdm(services)
	}
	var b strings.Builder
	printIPVSAdm(&b, services, 4096)
	return b.String()
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// kernelTables are the directories of testdata/import/kernel, or of WEIR_IMPORT.
func kernelTables(t *testing.T) []string {
	dir := os.Getenv("WEIR_IMPORT")
	if dir == "" {
		dir = imports + "/kernel"
	}
	tables, _ := filepath.Glob(dir + "/*")
	if len(tables) == 0 {
		t.Fatal("no tables in ", dir)
	}
	return tables
}

// TestImportedRulesAreListedAsByIPVSAdm goes the whole way with tables of a real kernel, which had them from random commands (added):
// what ipvsadm-save printed of them, by number and by name, is imported, and listed as ipvsadm -Ln listed it. The commands themselves,
// imported, give the order in which the kernel has the servers.
func TestImportedRulesAreListedAsByIPVSAdm(t *testing.T) {
	for _, dir := range kernelTables(t) {
		want := read(t, dir, "listed")
		for _, file := range []string{"saved", "saved-names", "added"} {
			t.Run(filepath.Base(dir)+" "+file, func(t *testing.T) {
				if _, err := net.LookupPort("tcp", "http-alt"); err != nil && file == "saved-names" {
					t.Skip("no /etc/services: ", err)
				}
				r := importer.IPVSAdm(file, []byte(read(t, dir, file)), importer.Options{})
				if len(r.Notes) > 0 {
					t.Errorf("%s: %v", file, r.Notes)
				}
				if got := listed(t, r, true); got != want {
					t.Errorf("%s, imported and listed:\n%s\nipvsadm -Ln:\n%s", file, got, want)
				}
				if file == "added" {
					sameServices(t, listed(t, r, false), read(t, dir, "nosort"))
				}
			})
		}
	}
}

// TestImportedKeepalivedIsListedAsByIPVSAdm compares with the tables that keepalived made of the same files in a real kernel.
func TestImportedKeepalivedIsListedAsByIPVSAdm(t *testing.T) {
	for _, name := range []string{"live", "language"} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(filepath.Join(imports, "keepalived", name))
			r := importer.Keepalived("keepalived.conf", []byte(read(t, "keepalived.conf")), "edge1", importer.Options{})
			sameServices(t, withoutSorry(listed(t, r, false)), clientsPort(read(t, "nosort")))
		})
	}
}

// sameServices compares listings of the same servers in the same order. The order of the services, which in the kernel is that of a hash
// table, does not count.
func sameServices(t *testing.T, got, want string) {
	t.Helper()
	g, w := blocks(got), blocks(want)
	slices.Sort(g)
	slices.Sort(w)
	if !slices.Equal(g, w) {
		t.Errorf("imported and listed:\n%s\nthe kernel's:\n%s", strings.Join(g, ""), strings.Join(w, ""))
	}
}

// blocks are the services of a listing with their servers, without those of firewall marks.
func blocks(listing string) (all []string) {
	for l := range strings.Lines(listing) {
		switch {
		case strings.HasPrefix(l, "  -> "):
			if len(all) > 0 {
				all[len(all)-1] += l
			}
		case strings.HasPrefix(l, "IP Virtual"), strings.HasPrefix(l, "Prot "):
		default:
			all = append(all, l)
		}
	}
	return slices.DeleteFunc(all, func(s string) bool { return strings.HasPrefix(s, "FWM") })
}

// withoutSorry takes the sorry servers of the test data out: keepalived puts them into the table only when they are needed.
func withoutSorry(listing string) string {
	return regexp.MustCompile(`(?m)^  -> 198\.18\.1\.99:444 .*\n`).ReplaceAllString(listing, "")
}

var (
	serviceLine = regexp.MustCompile(`^\w+ +\S+:(\d+) `)
	anyPort     = regexp.MustCompile(`^  -> (\S+):0 +(.*\n)`)
)

// clientsPort puts the service's port where the kernel has 0, the client's: weir shows it, since it is the same.
func clientsPort(listing string) string {
	var b strings.Builder
	port := "0"
	for l := range strings.Lines(listing) {
		if m := serviceLine.FindStringSubmatch(l); m != nil {
			port = m[1]
		} else if m := anyPort.FindStringSubmatch(l); m != nil {
			l = fmt.Sprintf("  -> %-28s %s", m[1]+":"+port, m[2])
		}
		b.WriteString(l)
	}
	return b.String()
}
