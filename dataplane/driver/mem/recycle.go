package mem

import (
	"sync/atomic"

	"weir/dataplane/driver"
	"weir/dataplane/packet"
)

// Recycler is a queue that moves no bytes: Receive gives out chunks that were prepared beforehand, in order, and Send frees what it
// is given. Between them a benchmark measures the pipeline alone:
//
//	for b.Loop() {
//		if r.Prepared() == 0 {
//			b.StopTimer()
//			fill(r) // the pipeline changes frames in place, so they are made anew
//			b.StartTimer()
//		}
//		worker.Round(now)
//	}
//
// It belongs to one goroutine; only Stats may be called from others. It has no descriptor to wait on.
type Recycler struct {
	pool  *packet.Pool
	ready []packet.Desc // prepared frames; those before next are given out
	next  int

	received atomic.Uint64
	sent     atomic.Uint64
}

var _ driver.Queue = (*Recycler)(nil)

// NewRecycler makes a recycler that holds up to all chunks of the pool.
func NewRecycler(pool *packet.Pool) *Recycler {
	return &Recycler{pool: pool, ready: make([]packet.Desc, 0, pool.Chunks())}
}

// Prepare copies b into a free chunk, behind [packet.Headroom], and keeps it for Receive. It returns the frame, which may be changed until then,
// or nil when b is longer than a chunk holds or none is free.
func (r *Recycler) Prepare(b []byte) []byte {
	if first := len(r.ready) - r.next; r.Fill(b, 1) == 1 {
		return r.Frame(first)
	}
	return nil
}

// Fill prepares n copies of b, or fewer if fewer chunks are free, and returns how many. b must fit into a chunk.
func (r *Recycler) Fill(b []byte, n int) int {
	var small [smallest]byte
	copy(small[:], b)
	mem, d := r.pool.Memory(), r.Room(len(b), n)
	for i := range d {
		if room := mem[d[i].Addr:]; len(b) <= smallest && len(room) >= smallest {
			*(*[smallest]byte)(room) = small // without a call, which costs as much as a stage
		} else {
			copy(room, b)
		}
	}
	return len(d)
}

// Room prepares n frames of so many bytes, or fewer if fewer chunks are free, and none if they do not fit into a chunk. Their bytes, which lie
// behind [packet.Headroom] where the descriptors say, are the caller's to write before Receive gives them out.
func (r *Recycler) Room(bytes, n int) []packet.Desc {
	if bytes > r.pool.ChunkSize()-packet.Headroom {
		return nil
	}
	if r.next > 0 { // whatever was given out may be gone from the pool's view; the room is free again
		r.ready, r.next = r.ready[:copy(r.ready, r.ready[r.next:])], 0
	}
	first := len(r.ready)
	n = min(n, r.pool.Free())
	d := r.ready[first : first+n]
	for i := range d {
		chunk, _ := r.pool.Get()
		d[i] = packet.Desc{Addr: chunk + packet.Headroom, Len: uint32(bytes)}
	}
	r.ready = r.ready[:first+n]
	return d
}

// Frame is the i-th of those frames that are prepared.
func (r *Recycler) Frame(i int) []byte {
	d := r.ready[r.next+i]
	return r.pool.Memory()[d.Addr:][:d.Len]
}

// smallest is how long an Ethernet frame is at least, in bytes.
const smallest = 64

// Prepared is the number of frames that Receive has yet to give out.
func (r *Recycler) Prepared() int { return len(r.ready) - r.next }

// Receive implements [driver.Queue].
func (r *Recycler) Receive(d []packet.Desc) int {
	n := copy(d, r.ready[r.next:])
	r.next += n
	r.received.Store(r.received.Load() + uint64(n))
	return n
}

// Send implements [driver.Queue]. It takes all of d.
func (r *Recycler) Send(d []packet.Desc) int {
	r.pool.PutAll(d)
	r.sent.Store(r.sent.Load() + uint64(len(d)))
	return len(d)
}

// Flush implements [driver.Queue]. Nothing is ever unfinished.
func (r *Recycler) Flush() bool { return false }

// FD implements [driver.Queue]: there is nothing to wait on.
func (r *Recycler) FD() int { return -1 }

// Held implements [driver.Queue]: the frames that are prepared and not given out.
func (r *Recycler) Held() int { return r.Prepared() }

// Stats implements [driver.Queue].
func (r *Recycler) Stats() driver.Stats {
	return driver.Stats{Received: r.received.Load(), Sent: r.sent.Load(), Up: true, Mode: "mem"}
}

// Close implements [driver.Queue].
func (r *Recycler) Close() error {
	for _, d := range r.ready[r.next:] {
		r.pool.Put(d.Addr)
	}
	r.ready, r.next = r.ready[:0], 0
	return nil
}
