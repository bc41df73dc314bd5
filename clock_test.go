package weir

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// wall is where weir reads the wall clock as such, or makes a moment of a number of its, and why a jump of that clock does no harm there.
//
// Everything else compares what time.Now gave with what time.Now gave: both bear the monotonic clock's reading, and that is what Go compares then. Sleeps,
// tickers and timeouts of system calls are the monotonic clock's, and workers know no other ([steer.Now]).
var wall = map[string]string{
	"control/config_diff.go":             "whether a file is another one: its time is the same or not",
	"control/events/handler.go":          "shown",
	"control/live.go":                    "shown",
	"control/metrics.go":                 "shown",
	"control/pcapng/pcapng.go":           "shown: the times of a capture",
	"control/replay.go":                  "the capture's time, as it was loaded",
	"control/sight.go":                   "shown: the times of a capture, from the monotonic clock and one reading of the other",
	"dataplane/driver/pcapfile/input.go": "a capture's times",
	"dataplane/driver/pcapfile/queue.go": "a capture's times",
}

// wallMethods are what takes a moment's wall clock, or loses the other clock's reading; wallFunctions, by package, what makes a moment of a number of
// the wall clock, or reads it past package time.
var (
	wallMethods   = []string{"Unix", "UnixNano", "UnixMilli", "UnixMicro", "UTC", "Local", "In", "AddDate", "ModTime"}
	wallFunctions = map[string][]string{
		"time":    {"Unix", "UnixMilli", "UnixMicro", "Date", "Parse", "ParseInLocation"},
		"unix":    {"CLOCK_REALTIME", "CLOCK_REALTIME_COARSE", "CLOCK_TAI", "Gettimeofday", "Time", "ClockSettime", "Settimeofday"},
		"syscall": {"Gettimeofday", "Time", "Settimeofday"},
	}
)

// ofWall is the name in n that is of the wall clock, or empty.
func ofWall(n ast.Node) (name string, at token.Pos) {
	if call, ok := n.(*ast.CallExpr); ok {
		if x, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains(wallMethods, x.Sel.Name) {
			return x.Sel.Name, x.Pos()
		}
	}
	if x, ok := n.(*ast.SelectorExpr); ok {
		if pkg, ok := x.X.(*ast.Ident); ok && slices.Contains(wallFunctions[pkg.Name], x.Sel.Name) {
			return pkg.Name + "." + x.Sel.Name, x.Pos()
		}
	}
	return "", 0
}

// TestNothingTimesByTheWallClock holds the programs' source to that list.
func TestNothingTimesByTheWallClock(t *testing.T) {
	found := map[string]bool{}
	for _, dir := range []string{"cmd/weir", "control", "dataplane", "conntrack", "vxlan"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && slices.Contains([]string{"cmd/weir/demo", "control/judge", "control/host/testnet", "dataplane/driver/drivertest"}, path) {
				return filepath.SkipDir // of tests, or a show
			}
			if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if name, at := ofWall(n); name != "" {
					if found[path] = true; wall[path] == "" {
						t.Errorf("%s: %s is of the wall clock, which may jump: time by what time.Now gives, or say in this test why it does no harm", set.Position(at), name)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for path := range wall {
		if !found[path] {
			t.Errorf("%s does not read the wall clock any more", path)
		}
	}
}
