package suite

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// hertz is the unit of CPU time in /proc, USER_HZ, the same on every architecture that Go knows.
const hertz = 100

// cpuTimes are seconds of CPU time since boot, and of one process.
type cpuTimes struct {
	user, system, softirq, steal float64 // of all CPUs
	ownUser, ownSystem           float64 // of the peer's process; what its system calls do on the way of a packet counts, softirqs too
	waited                       float64 // its threads were ready to run and had no CPU
}

func (a cpuTimes) minus(b cpuTimes) cpuTimes {
	return cpuTimes{a.user - b.user, a.system - b.system, a.softirq - b.softirq, a.steal - b.steal, a.ownUser - b.ownUser, a.ownSystem - b.ownSystem,
		max(a.waited-b.waited, 0)} // threads may end meanwhile
}

func readCPU(pid int) (cpuTimes, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTimes{}, err
	}
	t, err := parseStat(string(text))
	if err != nil || pid == 0 {
		return t, err
	}
	if text, err = os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil {
		return t, err
	}
	if t.ownUser, t.ownSystem, err = parseProcess(string(text)); err != nil {
		return t, err
	}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid)) // the pattern is well-formed
	for _, file := range threads {
		if text, err := os.ReadFile(file); err == nil { // else it has just ended
			t.waited += parseWaited(string(text))
		}
	}
	return t, nil
}

// parseWaited reads the second number of a thread's schedstat, its time in run queues in ns, as seconds. A kernel without it says 0.
func parseWaited(text string) float64 {
	f := strings.Fields(text)
	if len(f) < 2 {
		return 0
	}
	ns, _ := strconv.ParseUint(f[1], 10, 64)
	return float64(ns) / 1e9
}

// parseStat reads the first line of /proc/stat: user nice system idle iowait irq softirq steal.
func parseStat(text string) (t cpuTimes, err error) {
	line, _, _ := strings.Cut(text, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return t, fmt.Errorf("/proc/stat: %q", line)
	}
	var v [8]uint64 // in ticks
	for i := range v {
		if v[i], err = strconv.ParseUint(f[i+1], 10, 64); err != nil {
			return t, fmt.Errorf("/proc/stat: %w", err)
		}
	}
	seconds := func(ticks uint64) float64 { return float64(ticks) / hertz }
	return cpuTimes{user: seconds(v[0] + v[1]), system: seconds(v[2]), softirq: seconds(v[5] + v[6]), steal: seconds(v[7])}, nil
}

// parseProcess reads /proc/PID/stat, whose second field may hold blanks and parentheses.
func parseProcess(text string) (user, system float64, err error) {
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 13 {
		return 0, 0, fmt.Errorf("/proc/PID/stat: %q", text)
	}
	u, err := strconv.ParseUint(f[11], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("/proc/PID/stat: %w", err)
	}
	s, err := strconv.ParseUint(f[12], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("/proc/PID/stat: %w", err)
	}
	return float64(u) / hertz, float64(s) / hertz, nil
}
