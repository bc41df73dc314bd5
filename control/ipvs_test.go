package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"weir/control/judge"
)

// TestMain lets the test binary be the first process of a user-mode-linux kernel, too.
func TestMain(m *testing.M) {
	if dir := os.Getenv(judge.AgentVariable); dir != "" {
		judge.Agent(dir)
	}
	os.Exit(m.Run())
}

// number is an environment variable's, or without it otherwise.
func number(t *testing.T, variable string, otherwise int) int {
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// TestIPVS plays random scenarios into the kernel's IPVS, then what the kernel made of them into the engine. `make test-ipvs` runs more than
// the few that every test run has. Each that differs is shrunk and printed.
func TestIPVS(t *testing.T) {
	if raceEnabled {
		t.Skip("user-mode-linux has no room for the race detector's memory; the run without it plays the scenarios")
	}
	from, n := number(t, "WEIR_FROM", 1), number(t, "WEIR_SEEDS", 24)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := judge.FindKernel(program)
	if err != nil {
		t.Skip(err)
	}
	var scripts []judge.Script
	for seed := from; seed < from+n; seed++ {
		scripts = append(scripts, judge.Generate(uint64(seed), judge.AllFeatures()))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+n/20)*time.Minute)
	defer cancel()
	began := time.Now()
	recordings, err := record(ctx, kernel, scripts, t.TempDir())
	if err != nil {
		t.Error(err)
	}
	steps := 0
	for _, r := range recordings {
		steps += len(r.Steps)
	}
	fmt.Printf("the kernel played seeds %d to %d, %d steps, in %v\n", from, from+n-1, steps, time.Since(began).Round(time.Second))
	for _, r := range recordings {
		t.Run(r.Name, func(t *testing.T) {
			if err := judge.Play(r, newGoldenBed(t)); err != nil {
				t.Error(err)
				at := slices.IndexFunc(scripts, func(s judge.Script) bool { return s.Name == r.Name })
				minimize(ctx, t, kernel, scripts[at], r)
			}
		})
	}
}

// record plays the scripts in boots of the kernel, two at a time.
func record(ctx context.Context, kernel *judge.Kernel, scripts []judge.Script, dir string) (all []*judge.Recording, err error) {
	const boot = 200 // scenarios; the machine that plays more has not much memory
	parts := max(2, (len(scripts)+boot-1)/boot)
	recordings, errs := make([][]*judge.Recording, parts), make([]error, parts)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2)
	for i := range parts {
		part := scripts[i*len(scripts)/parts : (i+1)*len(scripts)/parts]
		if len(part) == 0 {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			dir := filepath.Join(dir, strconv.Itoa(i))
			if errs[i] = os.Mkdir(dir, 0o755); errs[i] == nil {
				recordings[i], errs[i] = kernel.Record(ctx, part, dir)
			}
		})
	}
	wg.Wait()
	return slices.Concat(recordings...), errors.Join(errs...)
}

// minimize prints the shortest script that still differs, and leaves its recording where WEIR_GOLDEN can point to.
func minimize(ctx context.Context, t *testing.T, kernel *judge.Kernel, s judge.Script, r *judge.Recording) {
	if os.Getenv("WEIR_MINIMIZE") == "0" {
		t.Logf("%v\noperations of the steps: %v", &s, r.Ops)
		return
	}
	s, r, d := kernel.Minimize(ctx, s, r, func(r *judge.Recording) error { return judge.Play(r, newGoldenBed(t)) })
	b, err := r.Format()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(os.TempDir(), "weir-ipvs")
	file := filepath.Join(dir, s.Name+".json")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(file, b, 0o644)); err != nil {
		t.Fatal(err)
	}
	t.Logf("the shortest that differs:\n%v\n%v\nreplay: WEIR_GOLDEN=%s go test ./control -run 'Golden/%s'", &s, d, dir, s.Name)
}
