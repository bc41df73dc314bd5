package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	downloads    = 8
	downloadSize = 12 << 20 // bytes each: some 3 seconds
)

// reloads downloads in parallel while weights change and servers are drained, and every byte must be right. No server is taken out while
// it serves a download: its connections would fall silent, as with IPVS.
func (d *demo) reloads() error {
	original, err := os.ReadFile(d.lb.config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(d.ctx)
	var wg sync.WaitGroup
	defer func() { // none outlives this step, however it ends
		cancel()
		wg.Wait()
	}()
	results := make([]error, downloads)
	for i := range results {
		wg.Add(1)
		go func() {
			defer wg.Done()
			results[i] = guard(func() error { return d.bed.download(ctx, downloadSize) })
		}()
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	var generation uint64
	reloads := 0
	for running := true; running; {
		weights := [3]int{1, 1, 1}
		switch reloads % 3 {
		case 1:
			weights = [3]int{0, 5, 2}
		case 2:
			weights = [3]int{3, 2, 1}
		}
		if err := d.lb.write(edit(string(original), weights, "")); err != nil {
			return err
		}
		if generation, err = d.lb.hup(d.ctx); err != nil {
			return err
		}
		reloads++
		select {
		case <-done:
			running = false
		case <-time.After(150 * time.Millisecond):
		}
	}
	if err := errors.Join(results...); err != nil {
		return err
	}
	if reloads < 3 {
		return fmt.Errorf("only %d reloads fell into the downloads", reloads)
	}
	d.show("%d downloads of %d MiB, %d reloads meanwhile (generation %d): every byte right, none broken",
		downloads, downloadSize>>20, reloads, generation)
	out, err := d.weir("status")
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(strings.Split(out, "\n"), func(line string) bool {
		return strings.Contains(line, "generation") && strings.Contains(line, fmt.Sprint(generation))
	}) {
		return fmt.Errorf("the status does not show generation %d", generation)
	}

	// A server leaves and comes back: new connections follow at once.
	if err := d.lb.write(edit(string(original), [3]int{1, 1, 1}, "w3")); err != nil {
		return err
	}
	if _, err := d.lb.hup(d.ctx); err != nil {
		return err
	}
	if err := d.requests("http://198.18.9.9/", 20, map[string]int{"w1": 10, "w2": 10, "w3": 0}); err != nil {
		return fmt.Errorf("w3 taken out: %w", err)
	}
	if err := d.lb.write(string(original)); err != nil {
		return err
	}
	if _, err := d.lb.hup(d.ctx); err != nil {
		return err
	}
	return d.requests("http://198.18.9.9/", 60, map[string]int{"w1": 30, "w2": 20, "w3": 10})
}
