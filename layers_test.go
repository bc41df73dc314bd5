package weir

import (
	"os/exec"
	"strings"
	"testing"
)

// layers says who may import whom: a package may import those named for it (and what lies below them), nothing else of weir.
// docs/architecture.md draws it.
var layers = map[string][]string{
	"dataplane/packet":         {},
	"dataplane/packet/pkttest": {"dataplane/packet"},
	"conntrack":                {"dataplane/packet"},
	"vxlan":                    {"dataplane/packet"},
	"dataplane/sched":          {},
	"dataplane/route":          {},
	"dataplane/steer":          {"dataplane/packet"},
	"dataplane/driver":         {"dataplane/packet"},
	"dataplane/driver/*":       {"dataplane/driver", "dataplane/packet"},
	"dataplane":                {"conntrack", "vxlan", "dataplane/sched", "dataplane/route", "dataplane/steer", "dataplane/driver", "dataplane/driver/wait", "dataplane/packet"},
	"control/config":           {"docs"},
	"control/admin":            {},
	"control/events":           {},
	"control/dashboard":        {},
	"control/metrics":          {},
	"control/handover":         {},
	"control/health":           {"control/privilege"},
	"control/pcapng":           {},
	"control/privilege":        {},
	"control/systemd":          {},
	"control/importer":         {"control/config"},
	"control/host":             {"dataplane/route", "dataplane/packet"},
	"control/host/*":           {"control/host"},
	"control/live":             {"control/config", "control/host", "dataplane/steer"},
	"control/judge":            {"dataplane/packet", "dataplane/packet/pkttest"}, // of control's tests alone
	"control":                  {"control/config", "control/live", "control/admin", "control/events", "control/dashboard", "control/metrics", "control/handover", "control/health", "control/pcapng", "control/privilege", "control/systemd", "control/host", "dataplane", "dataplane/driver/*", "docs"},
	"bench":                    {"control", "dataplane", "dataplane/driver/*"},
	"bench/*":                  {"bench", "control", "control/host/*"},
	"configs":                  {},
	"packaging/image":          {},
	"docs":                     {},
	"cmd/weir":                 {"bench", "control", "control/importer", "docs", "cmd/weir/*"},
	"cmd/weir/*":               {"control", "control/host/*", "configs"},
	"cmd/weir-bench":           {"bench/*"},
	"cmd/weir-chaos":           {"bench/chaos"},

	"dataplane/driver/drivertest": {"dataplane/driver", "dataplane/driver/wait", "dataplane/packet"}, // of drivers' tests alone
}

// TestImportsGoDownwardsOnly walks what go list says every package depends on.
func TestImportsGoDownwardsOnly(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Deps \" \"}}", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		fields := strings.Fields(line)
		pkg, ok := strings.CutPrefix(fields[0], "weir/")
		if !ok {
			continue // the module's root has this test alone
		}
		if _, known := rule(pkg); !known {
			t.Errorf("%s: not in the table of layers", pkg)
			continue
		}
		below := closure(pkg)
		for _, dep := range fields[1:] {
			if dep, ok := strings.CutPrefix(dep, "weir/"); ok && !matches(below, dep) {
				t.Errorf("%s imports %s, which does not lie below it", pkg, dep)
			}
		}
	}
}

// rule finds the table's line for pkg: its own, or its parent's with a star.
func rule(pkg string) (allowed []string, ok bool) {
	if allowed, ok = layers[pkg]; ok {
		return allowed, true
	}
	if i := strings.LastIndexByte(pkg, '/'); i > 0 {
		allowed, ok = layers[pkg[:i]+"/*"]
	}
	return allowed, ok
}

// closure is every pattern that lies below pkg.
func closure(pkg string) map[string]bool {
	seen := map[string]bool{}
	var walk func(string)
	walk = func(p string) {
		allowed, _ := rule(p)
		if strings.HasSuffix(p, "/*") {
			allowed = layers[p]
		}
		for _, a := range allowed {
			if !seen[a] {
				seen[a] = true
				walk(a)
			}
		}
	}
	walk(pkg)
	return seen
}

func matches(patterns map[string]bool, dep string) bool {
	if patterns[dep] {
		return true
	}
	i := strings.LastIndexByte(dep, '/')
	return i > 0 && patterns[dep[:i]+"/*"]
}
