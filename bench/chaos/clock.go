package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// A time namespace has CLOCK_MONOTONIC and CLOCK_BOOTTIME by so many seconds ahead. There is none for the wall clock, and the machine's own is everybody's:
// that nothing of weir times by it is what a test of the source says (TestNothingTimesByTheWallClock).

// otherClock is what executes a program, which follows, in such a namespace.
func otherClock(ahead time.Duration) []string {
	s := fmt.Sprint(int64(ahead / time.Second))
	return []string{"unshare", "--time", "--monotonic", s, "--boottime", s}
}

// otherClocks says why no program can be executed with another clock, nil if it can.
func otherClocks() error {
	line := append(otherClock(time.Hour), "readlink", "/proc/self/ns/time")
	out, err := exec.Command(line[0], line[1:]...).Output()
	if err != nil {
		return fmt.Errorf("no time namespace can be made: %w", err)
	}
	if own, err := os.Readlink("/proc/self/ns/time"); err != nil || own == strings.TrimSpace(string(out)) {
		return fmt.Errorf("a program is not in its time namespace before Linux 6.1 (%v)", err)
	}
	return nil
}
