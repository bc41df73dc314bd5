package bench

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cpu measures what the benchmark's own thread costs, so that a machine that others use too shows in ns/op but not here.
type cpu struct{ from time.Duration }

// startCPU keeps b's goroutine on its thread, which stop gives free.
func startCPU() cpu {
	runtime.LockOSThread()
	return cpu{threadCPU()}
}

// stop reports the thread's time for each of n packets.
func (c cpu) stop(b *testing.B, n uint64) {
	b.ReportMetric(float64(threadCPU()-c.from)/float64(n), "cpu-ns/packet")
	runtime.UnlockOSThread()
}

func threadCPU() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err) // it has been there since Linux 2.6.12
	}
	return time.Duration(ts.Nano())
}

func TestConfine(t *testing.T) {
	before := affinity(t)
	if before.Count() < 2 {
		t.Skip("there is one CPU, or the process may use one only")
	}
	last := 0
	for c := range 8 * len(before) * 8 {
		if before.IsSet(c) {
			last = c
		}
	}
	t.Cleanup(func() {
		var all []int
		for c := range last + 1 {
			if before.IsSet(c) {
				all = append(all, c)
			}
		}
		if err := Confine(all); err != nil {
			t.Error(err)
		}
	})
	if err := Confine([]int{last}); err != nil {
		t.Fatal(err)
	}
	var want unix.CPUSet
	want.Set(last)
	// More threads than there were: those that begin later are where those that began them are.
	results := make(chan unix.CPUSet)
	for range 16 {
		go func() {
			runtime.LockOSThread()
			results <- affinity(t)
			runtime.UnlockOSThread()
		}()
	}
	for range 16 {
		if got := <-results; got != want {
			t.Fatalf("a thread may run on %v, want %v", got, want)
		}
	}
	if err := Confine([]int{1023}); err == nil {
		t.Error("a CPU that is not there is not refused")
	}
}

func affinity(t *testing.T) (set unix.CPUSet) {
	t.Helper()
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Error(err)
	}
	return set
}
