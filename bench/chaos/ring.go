package chaos

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"weir/control"
	"weir/control/host/testnet"
	"weir/dataplane"
)

// ring is what was counted of packets that went astray, by weir, by the steering program, and by the kernels of all namespaces, ten times a second for as
// long as a violation may be about. It is part of what a violation is told with.
type ring struct {
	mu      sync.Mutex
	moments [600]moment
	n       int // of all that there ever were
}

// ringPeriod is the time between two looks.
const ringPeriod = 100 * time.Millisecond

func (r *ring) add(m moment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moments[r.n%len(r.moments)] = m
	r.n++
}

// between is what was noted between two moments.
func (r *ring) between(from, to time.Time) (all []moment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := max(0, r.n-len(r.moments)); i < r.n; i++ {
		if m := r.moments[i%len(r.moments)]; !m.at.Before(from) && !m.at.After(to) {
			all = append(all, m)
		}
	}
	return all
}

// tally notes in the ring what has been counted since the look before, until ctx ends. A number that is smaller than before is of another process or device.
func (s *suite) tally(ctx context.Context) {
	tables := s.bed.counters()
	defer func() {
		for _, t := range tables {
			t.file.Close()
		}
	}()
	last := map[string]uint64{}
	waits := waits{}
	tick := time.NewTicker(ringPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := map[string]uint64{}
		waited := time.Duration(0)
		if s.weir.running.Load() {
			var x control.Stats
			if s.weir.client.Get("/stats", &x) == nil {
				astray(&x, now)
			}
			waited = waits.look(s.weir.pid())
		}
		at := time.Now()
		for _, t := range tables {
			t.read(now)
		}
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(now)) {
			if was, ok := last[name]; ok && now[name] > was {
				parts = append(parts, fmt.Sprintf("%s %d", name, now[name]-was))
			}
		}
		if overflown(last, now) && waited >= waitedLong {
			parts = append(parts, fmt.Sprintf("and a worker waited %v for a CPU", waited))
			s.journal.stall(at.Add(-3*ringPeriod), at) // weir reads a device's counters ten times a second, too
		}
		maps.Copy(last, now)
		if len(parts) > 0 {
			s.checker.ring.add(moment{at, "  counted: " + strings.Join(parts, ", ")})
		}
	}
}

// overflown reports whether frames found no room in a ring of weir's between two looks.
func overflown(last, now map[string]uint64) bool {
	for _, name := range []string{"dropped " + dataplane.DropFillRingEmpty.String(), "dropped " + dataplane.DropRxRingFull.String()} {
		if was, ok := last[name]; ok && now[name] > was {
			return true
		}
	}
	return false
}

// astray are weir's counters of packets that did not go from a client to a server or back.
func astray(x *control.Stats, to map[string]uint64) {
	for reason, n := range x.Drops {
		to["dropped "+reason] = n
	}
	for rule, n := range x.Steering {
		if !strings.HasPrefix(rule, "take") {
			to["steered "+rule] = n
		}
	}
	to["punted"], to["answered"] = x.Verdicts.Punted, x.Verdicts.Answered
}

// kernelTable is one of a namespace's files of counters, which stays open: who reads it need not be in the namespace.
type kernelTable struct {
	space, name string
	file        *os.File
}

// counters opens those of all namespaces. What cannot be opened is left out.
func (b *bed) counters() (all []kernelTable) {
	for _, s := range append([]*testnet.Space{b.client, b.lb, b.street, b.floor}, b.servers[:]...) {
		for _, name := range []string{"snmp", "snmp6", "dev"} {
			_ = s.Exec(func() error {
				f, err := os.Open("/proc/thread-self/net/" + name)
				if err == nil {
					all = append(all, kernelTable{s.Name, name, f})
				}
				return err
			})
		}
	}
	return all
}

// read adds the counters of losses to to.
func (t *kernelTable) read(to map[string]uint64) {
	if _, err := t.file.Seek(0, io.SeekStart); err != nil {
		return
	}
	b, err := io.ReadAll(t.file)
	if err != nil {
		return
	}
	t.parse(string(b), to)
}

// lossNames are parts of the names of what the kernel calls losses.
var lossNames = []string{"Errors", "NoRoutes", "Discards", "NoPorts", "Fails", "DestUnreachs", "Timeout", "Resets", "Truncated"}

func isLoss(name string) bool {
	return slices.ContainsFunc(lossNames, func(part string) bool { return strings.Contains(name, part) })
}

func (t *kernelTable) parse(text string, to map[string]uint64) {
	note := func(name, value string) {
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			to[t.space+" "+name] = n
		}
	}
	var header []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case t.name == "snmp6" && len(f) == 2: // a counter a line
			if isLoss(f[0]) {
				note(f[0], f[1])
			}
		case t.name == "snmp" && len(f) > 1: // a line of names, then one of numbers, with the same first word
			if header == nil || header[0] != f[0] {
				header = f
				continue
			}
			for i := 1; i < min(len(f), len(header)); i++ {
				if isLoss(header[i]) {
					note(strings.TrimSuffix(f[0], ":")+header[i], f[i])
				}
			}
			header = nil
		case t.name == "dev" && len(f) == 17: // device, then eight numbers for each direction
			for name, i := range map[string]int{"rx errors": 3, "rx dropped": 4, "tx errors": 11, "tx dropped": 12} {
				note(f[0]+" "+name, f[i])
			}
		}
	}
}
