package dataplane_test

import (
	"os"
	"strings"
	"testing"

	. "weir/dataplane"
)

// TestEveryDropHasItsLine holds the names of drops to docs/packet-walk.md, where an operator looks them up.
func TestEveryDropHasItsLine(t *testing.T) {
	page, err := os.ReadFile("../docs/packet-walk.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for d := DropNone + 1; d < NumDrops; d++ {
		name := d.String()
		if name == "" || seen[name] {
			t.Errorf("drop %d has no name of its own: %q", d, name)
		}
		seen[name] = true
		if !strings.Contains(string(page), "\n| `"+name+"` | ") {
			t.Errorf("docs/packet-walk.md has no line for %s", name)
		}
	}
	_, table, _ := strings.Cut(string(page), "## Drops")
	for _, line := range strings.Split(table, "\n") {
		if name, _, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` | "); ok && strings.HasPrefix(line, "| `") && !seen[name] {
			t.Errorf("docs/packet-walk.md has a line for %s, which there is not", name)
		}
	}
}
