package dataplane

import (
	"errors"
	"fmt"
	"sync/atomic"

	"weir/conntrack"
	"weir/dataplane/packet"
)

// Tap shows one observer what becomes of the frames that its filter names: `weir capture`, `weir trace`. Each worker has a ring of its own in
// it, preallocated, into which it copies; the observer empties them by Read. What does not fit, and what comes faster than the observer's limit,
// is counted and not shown. No frame waits for an observer.
//
// While nobody observes, a worker loads one nil pointer for each vector. A frame that an observer wants is a vector of its own, so all that
// happens meanwhile is because of it, and the stages know nothing of taps.
type Tap struct {
	engine  *Engine
	filter  TapFilter
	snaplen int
	until   int64 // nanoseconds of the workers' clock
	rate    gate
	rings   []tapRing // by worker
}

// TapOptions say what an observer wants, and what it may cost.
type TapOptions struct {
	Filter    TapFilter
	Snaplen   int   // bytes that are kept of a frame, 0: all
	PerSecond int   // events a second of all workers, 1 at least
	Slots     int   // of each worker's ring, a power of two
	Until     int64 // nanoseconds of the workers' clock: from then on nothing is shown, whether or not Close is called
}

// MaxTaps is how many observers there may be at once.
const MaxTaps = 4

// ErrTaps says that there are MaxTaps already.
var ErrTaps = fmt.Errorf("%d captures and traces run already: end one of them", MaxTaps)

// watch is all that is observed now. It never changes; workers load it once a vector.
type watch struct {
	taps    []*Tap
	glasses []*glass // by worker
}

// tapRing is a ring with one writer, its worker, and one reader.
type tapRing struct {
	head  atomic.Uint64 // written by the worker
	_     [7]uint64
	tail  atomic.Uint64 // written by the observer
	_     [7]uint64
	full  atomic.Uint64 // events that found no slot; written by the worker
	over  atomic.Uint64 // events beyond the rate; written by the worker
	slots []Event
}

// Tap begins to observe. The frames of vectors that a worker begins from now on are seen.
func (e *Engine) Tap(o TapOptions) (*Tap, error) {
	if o.Slots <= 0 || o.Slots&(o.Slots-1) != 0 || o.PerSecond <= 0 || o.Snaplen < 0 {
		return nil, errors.New("dataplane: tap: slots must be a power of two, and the rate positive")
	}
	e.tapping.Lock()
	defer e.tapping.Unlock()
	x := e.watch.Load()
	if x != nil && len(x.taps) == MaxTaps {
		return nil, ErrTaps
	}
	t := &Tap{engine: e, filter: o.Filter, snaplen: o.Snaplen, until: o.Until, rings: make([]tapRing, len(e.workers))}
	t.rate.interval = max(limiterBurst/int64(o.PerSecond), 1)
	next := &watch{}
	if x != nil {
		next.taps, next.glasses = append(next.taps, x.taps...), x.glasses
	}
	for i, w := range e.workers {
		chunk := w.pool.ChunkSize()
		if x == nil {
			next.glasses = append(next.glasses, newGlass(chunk))
		}
		size := chunk
		if o.Snaplen > 0 {
			size = min(size, o.Snaplen)
		}
		slots, data := make([]Event, o.Slots), make([]byte, 2*size*o.Slots)
		for j := range slots {
			slots[j].Frame.Data, data = data[:0:size], data[size:]
			slots[j].Sent.Data, data = data[:0:size], data[size:]
		}
		t.rings[i].slots = slots
	}
	next.taps = append(next.taps, t)
	e.watch.Store(next)
	return t, nil
}

// Close ends observing. A worker may finish the vector that it is at.
func (t *Tap) Close() {
	e := t.engine
	e.tapping.Lock()
	defer e.tapping.Unlock()
	x := e.watch.Load()
	if x == nil {
		return
	}
	next := &watch{glasses: x.glasses}
	for _, other := range x.taps {
		if other != t {
			next.taps = append(next.taps, other)
		}
	}
	if len(next.taps) == 0 {
		next = nil
	}
	e.watch.Store(next)
}

// Taps is how many observers there are now.
func (e *Engine) Taps() int {
	if x := e.watch.Load(); x != nil {
		return len(x.taps)
	}
	return 0
}

// Read shows what has happened since the last call, worker by worker, until f returns false. What f gets is valid until it returns. One goroutine calls it.
//
// What happens meanwhile waits for the next call: an f that is slower than a worker would otherwise never be done with that one, and see nothing of
// the others.
func (t *Tap) Read(f func(*Event) bool) {
	for i := range t.rings {
		r := &t.rings[i]
		for tail, head := r.tail.Load(), r.head.Load(); tail != head; tail++ {
			more := f(&r.slots[tail&uint64(len(r.slots)-1)])
			r.tail.Store(tail + 1)
			if !more {
				return
			}
		}
	}
}

// Missed is how many events are not shown: those that found the ring full, and those beyond the rate.
func (t *Tap) Missed() (full, over uint64) {
	for i := range t.rings {
		full += t.rings[i].full.Load()
		over += t.rings[i].over.Load()
	}
	return full, over
}

// show copies an event into the worker's ring.
func (t *Tap) show(worker int, e *Event) {
	r := &t.rings[worker]
	head := r.head.Load()
	if head-r.tail.Load() == uint64(len(r.slots)) {
		r.full.Add(1)
		return
	}
	s := &r.slots[head&uint64(len(r.slots)-1)]
	frame, sent := s.Frame.Data, s.Sent.Data
	*s = *e
	s.Frame.Data, s.Sent.Data = append(frame[:0], cut(e.Frame.Data, cap(frame))...), append(sent[:0], cut(e.Sent.Data, cap(sent))...)
	r.head.Store(head + 1)
}

func cut(b []byte, n int) []byte { return b[:min(len(b), n)] }

// glass is what one worker needs to observe, and nobody else touches.
type glass struct {
	number   uint64 // of the latest event
	subjects [packet.VectorSize]subject
	queries  [packet.VectorSize]conntrack.Query
	frame    packet.Frame
	event    Event
	more     [moreSent]Image // frames that one event sent besides the first
	extra    int             // of more
	before   tally
}

// moreSent is how many frames are shown of those that one frame sends: a flood's copies, fragments.
const moreSent = 7

func newGlass(chunk int) *glass {
	s := &glass{}
	s.event.Frame.Data, s.event.Sent.Data = make([]byte, 0, chunk), make([]byte, 0, chunk)
	for i := range s.more {
		s.more[i].Data = make([]byte, 0, chunk)
	}
	return s
}
