package control

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"weir/control/metrics"
)

// promtool is Prometheus's own checker.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not there (Debian: apt-get install prometheus)")
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %q: %v\n%s", args, err, out)
	}
}

// known wants every metric of ours that an expression names to be one that there is.
func known(t *testing.T, where, expression string) {
	t.Helper()
	for _, name := range regexp.MustCompile(`\bweir_[a-z_]+`).FindAllString(expression, -1) {
		if !slices.ContainsFunc(slices.Concat(small, wide), func(f *metrics.Family) bool { return f.Name == name }) {
			t.Errorf("%s: there is no metric %s", where, name)
		}
	}
}

// TestAlertRules: the rules load, name metrics that there are, and raise what they should.
func TestAlertRules(t *testing.T) {
	const file = "../docs/alerts.yml"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	known(t, file, string(b))
	promtool(t, "check", "rules", file)
	promtool(t, "test", "rules", "testdata/alerts.yml")
}

// TestDashboard: every expression of the Grafana dashboard is one that Prometheus takes, over metrics that there are. No panel lies on another.
func TestDashboard(t *testing.T) {
	b, err := os.ReadFile("../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	type source struct{ Type, UID string }
	var board struct {
		UID    string
		Panels []struct {
			ID         int
			Type       string
			Title      string
			GridPos    struct{ H, W, X, Y int }
			Datasource source
			Targets    []struct {
				Expr, RefID string
				Datasource  source
			}
			Options struct {
				Legend *struct {
					ShowLegend *bool
					Calcs      []string
				}
			}
		}
		Annotations struct {
			List []struct{ Expr, IconColor string }
		}
		Templating struct{ List []struct{ Name string } }
	}
	if err := json.Unmarshal(b, &board); err != nil {
		t.Fatal(err)
	}
	var expressions []string
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range board.Panels {
		if ids[p.ID] {
			t.Errorf("%s: its id is another's, too", p.Title)
		}
		ids[p.ID] = true
		if g := p.GridPos; g.X+g.W > 24 || g.W < 1 || g.H < 1 {
			t.Errorf("%s: %+v", p.Title, g)
		}
		for y := range p.GridPos.H {
			for x := range p.GridPos.W {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := cells[at]; other != "" {
					t.Fatalf("%s lies on %s", p.Title, other)
				}
				cells[at] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		// What Grafana's own schema requires (its foundation SDK, v0.0.22, strict), and a source that whoever loads the board chooses.
		if l := p.Options.Legend; l != nil && (l.ShowLegend == nil || l.Calcs == nil) {
			t.Errorf("%s: its legend lacks showLegend or calcs", p.Title)
		}
		refs := map[string]bool{}
		for _, x := range p.Targets {
			expressions = append(expressions, x.Expr)
			if x.RefID == "" || refs[x.RefID] {
				t.Errorf("%s: refId %q", p.Title, x.RefID)
			}
			refs[x.RefID] = true
			if want := (source{"prometheus", "${datasource}"}); x.Datasource != want || p.Datasource != want {
				t.Errorf("%s: its data comes from %v, %v", p.Title, p.Datasource, x.Datasource)
			}
		}
	}
	variables := []string{"__rate_interval"}
	for _, v := range board.Templating.List {
		variables = append(variables, v.Name)
	}
	for _, m := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(string(b), -1) {
		if !slices.Contains(variables, m[1]) && m[1] != "__all" {
			t.Errorf("the board has no variable %s", m[1])
		}
	}
	for _, a := range board.Annotations.List {
		if a.IconColor == "" {
			t.Error("an annotation lacks iconColor")
		}
		expressions = append(expressions, a.Expr)
	}
	if board.UID != "weir" || len(expressions) < 20 {
		t.Fatalf("%d expressions of %q", len(expressions), board.UID)
	}
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	for i, x := range expressions {
		known(t, "docs/grafana.json", x)
		fmt.Fprintf(&rules, "      - {record: \"dashboard:%d\", expr: %q}\n", i, strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*", "$service", ".*").Replace(x))
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}
