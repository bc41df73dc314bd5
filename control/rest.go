package control

import (
	"runtime"
	"runtime/metrics"
)

// rest has Go's collector work while control has nothing else to do, so that it need not in the middle of a change. Each of its cycles
// takes every worker off its thread half a dozen times: to stop the world twice, to look at the worker's stack, to flush what each
// processor keeps. A worker goes on when a thread of control's has picked it up again, and where control has one CPU, that thread waits
// for one that compiles, or marks: a time slice, 3 to 4 ms. Besides, a change finds memory then that it need not get from the kernel.
type rest struct {
	heap      [2]metrics.Sample
	allocated uint64 // bytes since the process began, at the latest cycle
}

// leastGarbage is for how many bytes a rest is not worth while: the runtime leaves as many alone, too.
const leastGarbage = 4 << 20

// take begins a cycle, beside the caller, if it is worth while.
func (r *rest) take() {
	if r.due() {
		go runtime.GC()
	}
}

// due reports whether what was allocated since it last said so counts beside what lives.
func (r *rest) due() bool {
	r.heap[0].Name, r.heap[1].Name = "/gc/heap/allocs:bytes", "/gc/heap/live:bytes"
	metrics.Read(r.heap[:])
	allocated, live := r.heap[0].Value.Uint64(), r.heap[1].Value.Uint64()
	if allocated-r.allocated <= max(live/8, leastGarbage) {
		return false
	}
	r.allocated = allocated
	return true
}
