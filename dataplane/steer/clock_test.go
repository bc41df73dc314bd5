package steer

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestOffsetIn(t *testing.T) {
	for table, want := range map[string]int64{
		"monotonic           0         0\nboottime            0         0\n": 0,
		"monotonic       86400 500000000\nboottime           -7         0\n": 86400_500_000_000,
		"monotonic         -10 900000000\nboottime            1         0\n": -9_100_000_000,
		"boottime           -7         0\nmonotonic           3         4\n": 3_000_000_004,
		"":                                0,
		"monotonic":                       0,
		"monotonic many few\n":            0,
		"monotonic 1 2 3\nboottime 1 2\n": 0,
	} {
		if got := offsetIn(table); got != want {
			t.Errorf("%q: %d, want %d", table, got, want)
		}
	}
}

// TestNowIsTheKernels asks the clock from within a time namespace that is an hour ahead, and one that is a minute behind: it is the same as outside.
func TestNowIsTheKernels(t *testing.T) {
	const key = "WEIR_TEST_NOW"
	if os.Getenv(key) != "" {
		os.Stdout.WriteString(strconv.FormatInt(Now(), 10) + " " + strconv.FormatInt(ahead(), 10) + "\n")
		os.Exit(0)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, offset := range []int64{3600, -60} {
		s := strconv.FormatInt(offset, 10)
		before := Now()
		c := exec.Command("unshare", "--time", "--monotonic", s, "--boottime", s, self, "-test.run=^TestNowIsTheKernels$")
		c.Env = append(os.Environ(), key+"=1")
		out, err := c.Output()
		after := Now()
		if err != nil {
			t.Skipf("no time namespaces (root, CONFIG_TIME_NS, unshare of util-linux 2.36): %v", err)
		}
		f := strings.Fields(string(out))
		now, _ := strconv.ParseInt(f[0], 10, 64)
		if f[1] != strconv.FormatInt(offset*int64(time.Second), 10) {
			t.Skipf("the program is not in its time namespace: exec does that from Linux 6.1 on (offset %s)", f[1])
		}
		if now < before || now > after {
			t.Errorf("%d s ahead: it is %d there, here it was %d before and %d after", offset, now, before, after)
		}
	}
}
