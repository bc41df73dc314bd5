package steer

import (
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Now is CLOCK_MONOTONIC in nanoseconds as the kernel itself counts it, which bpf_ktime_get_ns reads, too. A process in a time namespace (time_namespaces(7))
// sees that clock ahead or behind; with Now heartbeats, and whatever outlives a process, mean the same in all of them.
func Now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
	return ts.Nano() - ahead()
}

// ahead is by how many nanoseconds the clock of our time namespace is. It is set before the first process is in the namespace, and stays.
var ahead = sync.OnceValue(func() int64 {
	b, err := os.ReadFile("/proc/self/timens_offsets") // Linux 5.6 with CONFIG_TIME_NS
	if err != nil {
		return 0 // there is one clock for all
	}
	return offsetIn(string(b))
})

// offsetIn finds the offset of CLOCK_MONOTONIC in a table of lines like "monotonic  86400  500000000": seconds, which may be negative, and nanoseconds,
// which are not.
func offsetIn(table string) int64 {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "monotonic" {
			continue
		}
		s, err := strconv.ParseInt(f[1], 10, 64)
		ns, err2 := strconv.ParseInt(f[2], 10, 64)
		if err == nil && err2 == nil {
			return s*1e9 + ns
		}
	}
	return 0
}
