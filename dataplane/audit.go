package dataplane

import (
	"time"

	"weir/dataplane/driver"
)

// Audit is where the chunks of a worker's frame memory were between two of its rounds. None is ever made or lost:
//
//	Chunks = Free + Holding + what each queue holds
type Audit struct {
	Chunks  int
	Free    int
	Holding int // frames that wait for a neighbour, or for the first fragment of their datagram
	Queues  []QueueAudit
}

// QueueAudit is the part of one queue.
type QueueAudit struct {
	Port   int // index in the worker's queues
	Held   int
	Placed bool // Places is known
	Places driver.Places
}

// Missing is how many chunks are in no place; negative: how many are in two.
func (a *Audit) Missing() int {
	n := a.Chunks - a.Free - a.Holding
	for i := range a.Queues {
		n -= a.Queues[i].Held
	}
	return n
}

// auditing is a wish for an Audit, whose memory whoever wishes brings along.
type auditing struct {
	audit Audit
	done  chan struct{} // closed by the worker when audit is filled in
}

// Audit has the worker count its chunks at the end of a round. It reports false if the worker came to none within limit: it is stopped, or was not
// started. One goroutine at a time may call it.
func (r *Runner) Audit(limit time.Duration) (Audit, bool) {
	x := &auditing{audit: Audit{Queues: make([]QueueAudit, 0, len(r.Worker.queues))}, done: make(chan struct{})}
	r.Worker.wish.Store(x)
	r.Waiter.Notify()
	select {
	case <-x.done:
		return x.audit, true
	case <-time.After(limit):
		r.Worker.wish.CompareAndSwap(x, nil)
		return Audit{}, false
	}
}

// fulfil fills in what is wished for. Everything received has its verdict by now, and what is sent is in a queue.
func (w *Worker) fulfil(x *auditing) {
	a := &x.audit
	a.Chunks, a.Free, a.Holding = w.pool.Chunks(), w.pool.Free(), w.Holding()
	for port, q := range w.queues {
		if q == nil {
			continue
		}
		part := QueueAudit{Port: port, Held: q.Held()}
		if p, ok := q.(driver.Placer); ok {
			part.Placed, part.Places = true, p.Places()
		}
		a.Queues = append(a.Queues, part)
	}
	w.wish.CompareAndSwap(x, nil)
	close(x.done)
}
