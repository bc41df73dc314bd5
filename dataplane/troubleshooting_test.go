package dataplane_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/steer"
)

// TestEveryReasonHasItsCure holds docs/troubleshooting.md to the names of drops and of steering rules: each has one row with no cell empty, and there
// is none for what there is not.
func TestEveryReasonHasItsCure(t *testing.T) {
	page, err := os.ReadFile("../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, tables, _ := strings.Cut(string(page), "## By drop reason")
	drops, rules, ok := strings.Cut(tables, "## By steering rule")
	if !ok {
		t.Fatal("the page has no such sections")
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|(.*)\\|$")
	for _, x := range []struct {
		part  string
		cells int
		names func() []string
	}{
		{drops, 3, func() (names []string) {
			for d := DropNone + 1; d < NumDrops; d++ {
				names = append(names, d.String())
			}
			return names
		}},
		{rules, 2, func() (names []string) {
			for r := steer.Reason(0); r < steer.NumReasons; r++ {
				names = append(names, r.String())
			}
			return names
		}},
	} {
		rows := map[string]int{}
		for _, m := range row.FindAllStringSubmatch(x.part, -1) {
			rows[m[1]]++
			cells := strings.Split(m[2], "|")
			if len(cells) != x.cells {
				t.Errorf("%s has %d cells, want %d", m[1], len(cells), x.cells)
			}
			for _, c := range cells {
				if strings.TrimSpace(c) == "" {
					t.Errorf("%s has an empty cell", m[1])
				}
			}
		}
		for _, name := range x.names() {
			if rows[name] != 1 {
				t.Errorf("%s has %d rows in docs/troubleshooting.md, want 1", name, rows[name])
			}
			delete(rows, name)
		}
		for name := range rows {
			t.Errorf("docs/troubleshooting.md has a row for %s, which there is not", name)
		}
	}
}
