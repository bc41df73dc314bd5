// Package mem is a driver without a device: frames in memory, for tests and benchmarks.
//
// A [Port] is two bounded rings between a worker and whoever plays the network, which may be another goroutine:
//
//	Inject -> inbox  -> Receive      bytes are copied into chunks of the pool by the worker
//	Take   <- outbox <- Send         and out of them
//
// A full ring refuses: Inject reports false, Send takes fewer. No frame is ever lost in a Port, so it counts no losses but frames that are none.
//
// A port made by [NewRecycler] moves no bytes at all, so that a benchmark sees the pipeline alone.
package mem

import (
	"fmt"
	"os"
	"sync/atomic"

	"weir/dataplane/driver"
	"weir/dataplane/packet"
)

// DefaultRing is the number of frames that each ring holds unless Options says otherwise.
const DefaultRing = 1024

// Options of a Port.
type Options struct {
	Ring int // frames that each ring holds, a power of two from 1 to 65536; 0 means DefaultRing
}

// Port is one queue and its far end. Inject may be called by one goroutine and Take by one, each another than the worker's.
type Port struct {
	pool *packet.Pool
	in   ring
	out  ring
	bell bell

	received atomic.Uint64 // written by the worker, once a burst
	sent     atomic.Uint64
	invalid  atomic.Uint64
	closed   atomic.Bool
}

var _ driver.Queue = (*Port)(nil)

// NewPort makes a port over pool. It fails when a ring's size is none of those allowed, or when the system gives no eventfd.
func NewPort(pool *packet.Pool, o Options) (*Port, error) {
	if o.Ring == 0 {
		o.Ring = DefaultRing
	}
	if o.Ring < 1 || o.Ring > 1<<16 || o.Ring&(o.Ring-1) != 0 {
		return nil, fmt.Errorf("mem: ring of %d frames: must be a power of two from 1 to 65536", o.Ring)
	}
	p := &Port{pool: pool}
	p.in.init(o.Ring, p.MaxFrame())
	p.out.init(o.Ring, pool.ChunkSize())
	if err := p.bell.open(); err != nil {
		return nil, os.NewSyscallError("mem: eventfd", err)
	}
	return p, nil
}

// MaxFrame is the length of the longest frame that Inject takes, in bytes: what a chunk holds behind [packet.Headroom].
func (p *Port) MaxFrame() int { return p.pool.ChunkSize() - packet.Headroom }

// Inject puts a copy of b where Receive finds it, and wakes who waits on FD. It reports false when the inbox is full, when b is longer
// than MaxFrame, or after Close; the frame is then still the caller's.
func (p *Port) Inject(b []byte) bool {
	if p.closed.Load() || !p.in.push(b) {
		return false
	}
	p.bell.ring()
	return true
}

// Take copies the oldest frame that Send has put into the outbox into b and returns its length. It reports false when there is none.
// A frame longer than b is cut to len(b); n is then its whole length all the same.
func (p *Port) Take(b []byte) (n int, ok bool) {
	if p.out.ready() == 0 {
		return 0, false
	}
	frame := p.out.front(0)
	n = len(frame)
	copy(b, frame)
	p.out.advance(1)
	return n, true
}

// Receive implements [driver.Queue]. Frames for which the pool has no chunk wait in the inbox.
func (p *Port) Receive(d []packet.Desc) int {
	ready := p.in.ready()
	if ready == 0 {
		if !p.bell.arm(&p.in) {
			return 0
		}
		ready = p.in.ready() // a frame came in while we armed
	}
	n := min(len(d), int(ready))
	mem := p.pool.Memory()
	for i := range n {
		chunk, ok := p.pool.Get()
		if !ok {
			n = i
			break
		}
		at := chunk + packet.Headroom
		d[i] = packet.Desc{Addr: at, Len: uint32(copy(mem[at:], p.in.front(uint32(i))))}
	}
	p.in.advance(uint32(n))
	p.received.Store(p.received.Load() + uint64(n))
	return n
}

// Send implements [driver.Queue]. The frames are copied and their chunks free when it returns. A descriptor that names no bytes of
// one chunk is taken and counted as the kernel would: lost and invalid.
func (p *Port) Send(d []packet.Desc) int {
	n, bad := 0, 0
	for ; n < len(d); n++ {
		frame := p.pool.Bytes(d[n])
		if len(frame) == 0 {
			bad++
		} else if !p.out.push(frame) {
			break
		}
		if d[n].Addr < uint64(len(p.pool.Memory())) {
			p.pool.Put(d[n].Addr)
		}
	}
	p.sent.Store(p.sent.Load() + uint64(n-bad))
	if bad > 0 {
		p.invalid.Store(p.invalid.Load() + uint64(bad))
	}
	return n
}

// Flush implements [driver.Queue]. Nothing is ever unfinished.
func (p *Port) Flush() bool { return false }

// FD implements [driver.Queue]: an eventfd, for poll, epoll level- and edge-triggered alike; see bell.
func (p *Port) FD() int { return p.bell.fd }

// Held implements [driver.Queue]. The rings hold copies, never chunks.
func (p *Port) Held() int { return 0 }

// Stats implements [driver.Queue].
func (p *Port) Stats() driver.Stats {
	bad := p.invalid.Load()
	return driver.Stats{Received: p.received.Load(), Sent: p.sent.Load(), SendLost: bad, InvalidDescriptor: bad,
		Wakeups: p.bell.writes.Load(), Up: !p.closed.Load(), Mode: "mem"}
}

// Close implements [driver.Queue]. What was sent can still be taken; what was injected and not received is gone. The far end may be
// in Inject meanwhile.
func (p *Port) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	return p.bell.close()
}
