package mem

import "sync/atomic"

// cacheLine keeps what one side writes off the lines that the other side reads; 128 because amd64 fetches lines in pairs.
const cacheLine = 128

// ring carries frames by copy from one goroutine, the producer, to one other, the consumer. Indices run on and wrap at 2^32; the
// slot of index i is i & mask. Each side keeps the other's index as it last saw it and looks again only when that one runs out, so
// the lines with the indices move between cores once a burst, not once a frame.
type ring struct {
	slots []byte   // mask+1 slots of room bytes; a slot is the producer's until tail has passed it, then the consumer's until head has
	lens  []uint32 // of the frames in the slots
	mask  uint32
	room  int

	_        [cacheLine]byte
	tail     atomic.Uint32 // written by the producer: slots before it are filled
	seenHead uint32        // the producer's copy of head

	_        [cacheLine]byte
	head     atomic.Uint32 // written by the consumer: slots before it are free again
	seenTail uint32        // the consumer's copy of tail
	_        [cacheLine]byte
}

// init takes the ring's memory; frames is a power of two.
func (r *ring) init(frames, room int) {
	r.slots, r.lens = make([]byte, frames*room), make([]uint32, frames)
	r.mask, r.room = uint32(frames-1), room
}

// push copies b into the ring. The producer calls it. It reports false when the ring is full or b longer than a slot.
func (r *ring) push(b []byte) bool {
	if len(b) > r.room {
		return false
	}
	tail := r.tail.Load()
	if tail-r.seenHead > r.mask {
		if r.seenHead = r.head.Load(); tail-r.seenHead > r.mask {
			return false
		}
	}
	i := tail & r.mask
	r.lens[i] = uint32(copy(r.slots[int(i)*r.room:], b))
	r.tail.Store(tail + 1) // publishes the slot: whoever sees the index sees the bytes
	return true
}

// ready is the number of frames that the consumer can take.
func (r *ring) ready() uint32 {
	head := r.head.Load()
	if r.seenTail == head {
		r.seenTail = r.tail.Load()
	}
	return r.seenTail - head
}

// front is the i-th frame that is ready; it lies in the ring until advance passes it.
func (r *ring) front(i uint32) []byte {
	at := (r.head.Load() + i) & r.mask
	return r.slots[int(at)*r.room:][:r.lens[at]]
}

// advance gives n slots back to the producer.
func (r *ring) advance(n uint32) { r.head.Store(r.head.Load() + n) }
