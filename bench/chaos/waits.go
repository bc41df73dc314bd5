package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// waits is how long each of weir's workers has been ready to run without a CPU, in ns by thread. Workers are the threads that may run on one CPU alone.
type waits map[int]uint64

// waitedLong is the wait within a tenth of a second in which a ring of 2048 frames may overflow, and not by weir's doing: a server that goes on after it stood
// still answers a million frames a second. A process that has the CPU before a worker keeps it for some 3 ms.
const waitedLong = 2 * time.Millisecond

// look is the longest that a worker of the process has waited since the look before. A thread that was not there then has not.
func (w waits) look(pid int) (longest time.Duration) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid)) // the pattern is well-formed
	now := waits{}
	for _, file := range files {
		thread, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			continue
		}
		var cpus unix.CPUSet
		if unix.SchedGetaffinity(thread, &cpus) != nil || cpus.Count() != 1 {
			continue
		}
		text, err := os.ReadFile(file) // time on a CPU, time waited, times run
		if f := strings.Fields(string(text)); err == nil && len(f) == 3 {
			if now[thread], err = strconv.ParseUint(f[1], 10, 64); err != nil {
				delete(now, thread)
			}
		}
	}
	for thread, ns := range now {
		if was, ok := w[thread]; ok && ns > was {
			longest = max(longest, time.Duration(ns-was))
		}
	}
	clear(w)
	for thread, ns := range now {
		w[thread] = ns
	}
	return longest
}
