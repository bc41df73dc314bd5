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
