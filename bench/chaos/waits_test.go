package chaos

import (
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWaits: of two threads that want the same CPU each waits for the other; one that may run anywhere is no worker.
func TestWaits(t *testing.T) {
	if _, err := os.Stat("/proc/self/schedstat"); err != nil {
		t.Skip("the kernel does not tell how long threads wait")
	}
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil || cpus.Count() < 2 {
		t.Skipf("needs two CPUs: there are %d (%v)", cpus.Count(), err)
	}
	w := waits{}
	var stop atomic.Bool
	defer stop.Store(true)
	ready := make(chan error)
	for range 2 {
		go func() {
			runtime.LockOSThread() // for good: the thread ends with the goroutine
			var one unix.CPUSet
			for cpu := 0; one.Count() == 0; cpu++ {
				if cpus.IsSet(cpu) {
					one.Set(cpu)
				}
			}
			ready <- unix.SchedSetaffinity(0, &one)
			for !stop.Load() {
			}
		}()
	}
	for range 2 {
		if err := <-ready; err != nil {
			t.Fatal(err)
		}
	}
	if d := w.look(os.Getpid()); d != 0 {
		t.Errorf("a thread that was not known has waited %v", d)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if d := w.look(os.Getpid()); d >= waitedLong {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nobody has waited")
		}
	}
	if d := w.look(1 << 30); d != 0 || len(w) != 0 {
		t.Errorf("a process that is not there: %v, %v", d, w)
	}
}

func TestOverflown(t *testing.T) {
	last := map[string]uint64{"dropped fill_ring_empty": 3, "dropped rx_ring_full": 1, "dropped ttl": 1}
	for _, x := range []struct {
		now  map[string]uint64
		want bool
	}{
		{map[string]uint64{"dropped fill_ring_empty": 3, "dropped rx_ring_full": 1, "dropped ttl": 9}, false},
		{map[string]uint64{"dropped fill_ring_empty": 4}, true},
		{map[string]uint64{"dropped rx_ring_full": 2}, true},
		{map[string]uint64{"dropped fill_ring_empty": 1}, false}, // of a new process
		{nil, false},
	} {
		if got := overflown(last, x.now); got != x.want {
			t.Errorf("%v: %t", x.now, got)
		}
	}
}
