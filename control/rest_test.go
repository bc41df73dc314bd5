package control

import (
	"runtime"
	"testing"
	"time"
)

var garbage []byte

// TestRest: the collector works after a change that has left much, and not after one that has left little.
func TestRest(t *testing.T) {
	var r rest
	garbage = make([]byte, 2*leastGarbage)
	if !r.due() {
		t.Error("not due for all that there is")
	}
	garbage = make([]byte, leastGarbage/4)
	if r.due() {
		t.Error("due for a quarter of the least")
	}
	cycles := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumForcedGC
	}
	was := cycles()
	for range 256 {
		garbage = make([]byte, 1<<20)
	}
	r.take()
	for end := time.Now().Add(10 * time.Second); cycles() == was; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no cycle for 256 MiB")
		}
	}
	if r.due() {
		t.Error("due twice for the same")
	}
}
