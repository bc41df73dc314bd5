package mem

import (
	"encoding/binary"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// States of a bell. Who may leave a state is in brackets.
const (
	bellRung   uint32 = iota // the eventfd is readable, or the producer is about to make it so [the worker, to armed]
	bellArmed                // the worker saw the inbox empty after it armed [either side, to rung]
	bellClosed               // there is no eventfd any more [nobody]
)

// bell makes an eventfd readable when frames are in the inbox, at one system call for each time that the worker ran dry, not for
// each frame.
//
//	rung  -- the worker: drain, store armed, look at the inbox again; if it is not empty any more, rung and write --> armed
//	armed -- the producer, behind a frame: compare and swap, then write ------------------------------------------> rung
//
// The producer publishes its frame before it looks at the state, and the worker stores armed before it looks at the inbox again. As
// Go's atomics are sequentially consistent, at least one of them sees the other: a frame that lies in the inbox when Receive has
// returned 0 is followed by a write. That is right for waiting on edges. For waiting on levels the write must also still be there, so
// the worker drains only before it stores armed, or when the state is still armed after it drained: nobody had left armed, so what it
// took away was an older write.
//
// There are older writes because the worker may see rung, drain and arm before the producer has got to its write. That one then makes the
// eventfd readable over an empty inbox. It is taken away by the next Receive that gives nothing, which knows it by the count of
// writes; without that, the worker would be woken again and again until the next frame.
type bell struct {
	fd      int
	state   atomic.Uint32
	writing atomic.Bool   // the producer may be about to write
	writes  atomic.Uint64 // counted behind each write
	drained uint64        // the worker's: writes when it drained last
	one     [8]byte       // what both sides write; never changed
	drain   [8]byte       // the worker's
}

func (b *bell) open() (err error) {
	b.fd, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	binary.NativeEndian.PutUint64(b.one[:], 1)
	b.state.Store(bellArmed)
	return err
}

// ring is called by the producer after each frame.
func (b *bell) ring() {
	if b.state.Load() != bellArmed {
		return
	}
	b.writing.Store(true) // before the state, so that close, which goes the other way round, sees it
	if b.state.CompareAndSwap(bellArmed, bellRung) {
		b.write()
	}
	b.writing.Store(false)
}

// arm is called by the worker when it saw the inbox empty. It reports true when a frame came in meanwhile.
func (b *bell) arm(inbox *ring) bool {
	if b.state.Load() == bellArmed {
		if b.writes.Load() == b.drained {
			return false
		}
		b.empty()
		if b.state.Load() == bellArmed {
			return false
		} // else a frame came in, and we may have drained its write
	}
	b.empty()
	b.state.Store(bellArmed)
	if inbox.ready() == 0 {
		return false
	}
	if b.state.CompareAndSwap(bellArmed, bellRung) { // else the producer writes, or has
		b.write() // the caller may not have room for all frames that are there
	}
	return true
}

// empty makes the eventfd unreadable. The count is taken first: a write in between is drained once more, rather than never.
func (b *bell) empty() {
	b.drained = b.writes.Load()
	unix.Read(b.fd, b.drain[:])
}

func (b *bell) write() {
	unix.Write(b.fd, b.one[:]) // cannot block: there are two writes at most between two drains
	b.writes.Add(1)
}

// close waits for a producer in the middle of a write, so that it cannot hit a descriptor that means something else by then. Only the
// worker, which calls it, could have armed again.
func (b *bell) close() error {
	b.state.Store(bellClosed)
	for b.writing.Load() {
		runtime.Gosched()
	}
	fd := b.fd
	b.fd = -1
	return os.NewSyscallError("mem: close eventfd", unix.Close(fd))
}
