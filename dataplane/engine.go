// Package dataplane takes packets through weir: parse, look up the connection, schedule new ones, find the next hop, rewrite, send.
//
// An [Engine] is what all workers share: the connection table, the snapshot of the configuration, the limits. A [Worker] is a loop over
// its queues that owns its memory and takes a vector of frames at a time through the stages, each a plain loop in the file of its
// name. Control publishes a [Snapshot] by one pointer swap. Every frame received gets one [Verdict]; a discarded one has a [Drop] with
// a counter. Time is handed in, so the same engine runs over capture files (`weir replay`).
package dataplane

import (
	"fmt"
	"sync"
	"sync/atomic"

	"weir/conntrack"
	"weir/dataplane/driver"
	"weir/dataplane/packet"
)

// Engine is what the workers share. Make it with NewEngine, publish a snapshot, then add workers.
type Engine struct {
	Table *conntrack.Table

	// HostAnswers says that there is no kernel behind us (replay): weir answers what the host would for its own addresses.
	HostAnswers bool
	// Punt hands an IP packet back to the kernel and reports whether it took it; several workers call it at once. Nil: what would be
	// punted is only counted.
	Punt func(ip []byte) bool
	// Wake is called by a worker, at most once a round, when Wants has something new.
	Wake func()

	snapshot  atomic.Pointer[Snapshot]
	watch     atomic.Pointer[watch] // nil: nobody observes
	tapping   sync.Mutex            // of those who change watch
	cookies   cookieKey
	shielded  atomic.Int64 // nanoseconds, when a client was asked for a sign of life last, to a second
	vouched   vouched
	opens     newLimit
	answers   limiter
	punts     limiter
	fragments fragmentMap
	workers   []*Worker
	wants     []wants
	backends  int
}

// Options of an engine.
type Options struct {
	Table       *conntrack.Table
	MaxBackends int // backend IDs are below it; 0: 262144
	MaxWorkers  int
	Secret      uint64 // of the fragment map's hash and of cookies; a random one where somebody may attack
}

// DefaultMaxBackends is how many IDs there are for backends unless Options say another number.
const DefaultMaxBackends = 1 << 18

// puntsPerSecond bounds what goes back to the kernel through the TUN device: a system call each.
const puntsPerSecond = 20_000

// cookieDomain tells what is derived from the secret for cookies from all else.
const cookieDomain = 0x636f6f6b6965 // "cookie"

// NewEngine makes an engine around an empty snapshot.
func NewEngine(o Options) *Engine {
	if o.MaxBackends == 0 {
		o.MaxBackends = DefaultMaxBackends
	}
	e := &Engine{Table: o.Table, backends: o.MaxBackends, wants: make([]wants, max(o.MaxWorkers, 1))}
	e.answers.part, e.punts.part = answersPart, puntsPart
	e.punts.set(puntsPerSecond)
	e.fragments.secret = o.Secret
	h := newSip(o.Secret, cookieDomain)
	e.cookies = cookieKey{h.sum(0), h.sum(1)}
	e.vouched.secret, e.opens.secret, e.answers.secret, e.punts.secret = h.sum(2), h.sum(3), h.sum(4), h.sum(5)
	e.shielded.Store(-cookieLife - 2*shieldedEvery) // never
	return e
}

// MaxBackends is the limit of backend IDs.
func (e *Engine) MaxBackends() int { return e.backends }

// Publish makes s what every worker's next vector sees.
func (e *Engine) Publish(s *Snapshot) error {
	if len(s.Backends) > e.backends {
		return fmt.Errorf("dataplane: %d backends: the limit is %d", len(s.Backends), e.backends)
	}
	e.answers.set(s.Answers.PerSecond)
	s.leastMTU = s.least()
	s.unusualEvery = s.Unusual.Every()
	e.opens.set(s.NewPerSource.PerSecond)
	if s.HalfOpenPerSource > 0 {
		e.Table.CountSources()
	}
	e.snapshot.Store(s)
	return nil
}

// Purge ends all connections of the backends that gone names, as the kernel does when a server is removed and expire_nodest_conn is set
// (ip_vs_expire_nodest_conn_flush). One goroutine of control calls it.
func (e *Engine) Purge(gone func(backend uint32) bool) {
	snap := e.snapshot.Load()
	e.Table.Purge(gone, func(x conntrack.Ended) { snap.Backends[x.Backend].account(&x) })
}

// Delete ends the connections that wanted names, at most most of them unless that is 0, as [conntrack.Table.Delete] does, and returns how many those
// were. Nobody is told: what comes of them later is of no connection. Any goroutine of control may call it.
func (e *Engine) Delete(now int64, most int, wanted func(*conntrack.Info) bool) int {
	return e.Table.Delete(conntrack.TickOf(now), most, wanted, func(x conntrack.Ended) {
		e.snapshot.Load().Backends[x.Backend].account(&x) // the newest knows every backend that a connection can have
	})
}

// Snapshot is what was published last, or nil.
func (e *Engine) Snapshot() *Snapshot { return e.snapshot.Load() }

// Workers are those made so far, in the order of their numbers.
func (e *Engine) Workers() []*Worker { return e.workers }

// AddWorker makes the worker that drives queues, one for each port of the snapshot (nil where it has none), with frames in pool. Call it
// after the first Publish and before any worker runs.
func (e *Engine) AddWorker(pool *packet.Pool, queues []driver.Queue) *Worker {
	w := &Worker{
		id: len(e.workers), engine: e, table: e.Table, pool: pool, queues: queues,
		snap: e.snapshot.Load(), epoch: 1, ways: byID[way](clientWays + e.backends), out: make([]outbox, len(queues)), Backends: byID[BackendCounters](e.backends),
	}
	for _, t := range e.Table.Waiting(askedMax) {
		w.await(&t, 0) // which is at once: the clock has been running while nobody was there
	}
	e.workers = append(e.workers, w)
	return w
}

// Verdicts are the sums over all workers, losses in the rings included, so that received equals the rest whenever the workers are idle.
func (e *Engine) Verdicts() (v Verdicts, drops [NumDrops]uint64) {
	for _, w := range e.workers {
		w.Counters.Add(&v, &drops)
		for _, q := range w.queues {
			if q == nil {
				continue
			}
			s := q.Stats()
			drops[DropRxRingFull] += s.RxRingFull
			drops[DropFillRingEmpty] += s.FillRingEmpty
			drops[DropRxDropped] += s.RxDropped
			lost := s.RxRingFull + s.FillRingEmpty + s.RxDropped
			v.Received += lost
			v.Dropped += lost
		}
	}
	return v, drops
}

// wantSlots is how many next hops a worker may want before control has looked.
const wantSlots = 256

// wants is a ring of one worker's wishes: the worker writes, control reads.
type wants struct {
	head atomic.Uint32 // written by the worker
	tail atomic.Uint32 // written by control
	ring [wantSlots]Want
}

// want asks control for a next hop. A full ring forgets the wish; the packet's retransmission wishes again.
func (e *Engine) want(worker int, x Want) {
	r := &e.wants[worker]
	head := r.head.Load()
	if head-r.tail.Load() == wantSlots {
		return
	}
	r.ring[head%wantSlots] = x
	r.head.Store(head + 1)
	if e.Wake != nil {
		e.Wake()
	}
}

// Wants takes the next hops that workers want since the last call and gives each to f. One goroutine of control calls it.
func (e *Engine) Wants(f func(Want)) {
	for i := range e.wants {
		r := &e.wants[i]
		for tail := r.tail.Load(); tail != r.head.Load(); tail++ {
			x := r.ring[tail%wantSlots]
			r.tail.Store(tail + 1)
			f(x)
		}
	}
}
