package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/bench/chaos"
)

var seed = flag.Uint64("seed", 7, "seed of the schedule")

func TestMain(m *testing.M) {
	chaos.ServeIfAsked()
	chaos.Isolate()
	os.Exit(m.Run())
}

// build makes a weir with these tags.
func build(t *testing.T, tags string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weir")
	if out, err := exec.Command("go", "build", "-tags", tags, "-o", path, "weir/cmd/weir").CombinedOutput(); err != nil {
		t.Fatalf("go build -tags %q: %v\n%s", tags, err, out)
	}
	return path
}

// run lets things go wrong for a while. It skips where that cannot be done.
func run(t *testing.T, o chaos.Options) *chaos.Report {
	t.Helper()
	for _, p := range []string{"ip", "bridge"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	o.Self, o.Seed, o.Log = self, *seed, &log
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	r, err := chaos.Run(ctx, o)
	switch {
	case errors.Is(err, unix.EPERM):
		t.Skip(err)
	case err != nil:
		t.Fatalf("%v\n%s", err, log.Bytes())
	}
	return r
}

// The short form of `make chaos`: every kind of event, once or twice.
func TestClientsSeeOnlyWhatIsAllowed(t *testing.T) {
	length := 40 * time.Second
	if testing.Short() {
		length = 10 * time.Second
	}
	r := run(t, chaos.Options{Weir: build(t, ""), Duration: length, Streams: 2, Flows: 3})
	if !r.OK() {
		t.Error(r.Markdown())
	}
	for _, what := range []string{"records", "requests", "datagrams", "audits"} {
		if r.Counts[what] == 0 {
			t.Errorf("no %s: nothing was tried", what)
		}
	}
	t.Log(r.Markdown())
}

// A weir with a bug must be found guilty, and of that bug.
func TestPlantedFaultsAreFound(t *testing.T) {
	weir := build(t, "chaosfaults")
	for _, tc := range []struct{ fault, want string }{
		{"leak", "chunks are nowhere"},
		{"count", "verdicts are not the frames received"},
		{"switch", "moved, which no event allows"},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			// Nothing else goes wrong, so that nothing else can be blamed.
			r := run(t, chaos.Options{Weir: weir, Duration: 6 * time.Second, Streams: 2, Flows: 3, Env: []string{"WEIR_FAULT=" + tc.fault},
				Only: []chaos.Kind{chaos.Reload, chaos.Quiet}})
			found := 0
			for _, v := range r.Violations {
				if strings.Contains(v.What, tc.want) {
					found++
				} else {
					t.Errorf("not the fault that was planted: %s\n%s", v.What, strings.Join(v.Timeline, "\n"))
				}
			}
			if found == 0 {
				t.Errorf("the fault was not found:\n%s", r.Markdown())
			}
		})
	}
}
