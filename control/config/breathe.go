package config

import "runtime"

// Breathe lets other goroutines run at every n-th i of a long loop, which should be half a millisecond. The runtime takes each goroutine off its
// thread that has run for 10 ms, workers too. A worker is bound to its thread, so it waits for another to pick it up, and where control
// has one CPU that is the caller's, which would not let go of it for a time slice: 4 ms.
func Breathe(i, n int) {
	if i%n == 0 {
		runtime.Gosched()
	}
}
