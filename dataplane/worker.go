package dataplane

import (
	"sync/atomic"

	"weir/conntrack"
	"weir/dataplane/driver"
	"weir/dataplane/packet"
	"weir/dataplane/sched"
	"weir/vxlan"
)

// Worker takes frames from one queue of every port through the stages and sends what comes of them. One goroutine drives it; nothing
// in it is shared but what Engine says.
//
// The stages, each a loop over the vector, in the files of their names:
//
//	receive  parse  steer  decap  lookup  schedule (misses only)  resolve  rewrite  encap  transmit
//
// resolve stands before rewrite: a packet that cannot leave has not been touched yet, and the ICMP answer quotes it as it came.
type Worker struct {
	// read for every packet
	id     int
	engine *Engine
	table  *conntrack.Table
	pool   *packet.Pool
	queues []driver.Queue // by port; nil where this worker has none
	snap   *Snapshot      // of the current vector
	now    int64          // nanoseconds, of the current vector
	tick   conntrack.Tick // the same, coarse
	epoch  uint32         // counts the snapshots that this worker has seen: see way
	ways   []way          // of clients, by the last bits of the address, then by backend ID
	ways6  [clientWays]clientWay6
	inward [inwardWays]inward // to servers in segments, by the last bits of the backend's ID
	v      vector
	out    []outbox // by port

	// Counters and Backends are written by the worker alone and read by anyone.
	Counters Counters
	Backends []BackendCounters // by backend ID

	// used for few
	descs     [packet.VectorSize]packet.Desc
	conn      conntrack.Conn // scratch of schedule
	own       packet.Frame   // scratch of answers and fragments
	ended     [endedSlice + conntrack.Together]conntrack.Ended
	splice    conntrack.Splice // of the connection that is opened now, if splicing
	splicing  bool
	parted    conntrack.Ended // to make room for the connection that is scheduled now, if parting
	parting   bool
	hold      hold
	uncounted uncounted
	asked     asked
	unusual   [numUnusual]int64 // theoretical arrival time of the next of each kind, as limiter has it
	early     early             // fragments that came before their first
	ipID      uint16            // of the latest IPv4 packet of our own that may be cut
	pending   bool              // a queue has something unfinished, or debt is left
	scanned   int64             // when scan last looked
	debt      int64             // connections that are overdue to be looked at
	shares    [2]share          // of the overlay's stations and hosts, as debt
	wish      atomic.Pointer[auditing]
}

// Round takes what has arrived on all queues through the stages once. now is the time in nanoseconds of the clock that drives
// all timeouts; it never goes back. It reports how many frames were received.
func (w *Worker) Round(now int64) int {
	w.now, w.tick = now, conntrack.TickOf(now)
	w.Counters.Rounds.add(1)
	received := 0
	for port, q := range w.queues {
		if q == nil {
			continue
		}
		if n := q.Receive(w.descs[:]); n > 0 {
			received += n
			if x := w.engine.watch.Load(); x == nil {
				w.process(port, w.descs[:n])
			} else {
				w.watched(x, port, w.descs[:n])
			}
		}
	}
	w.look()
	if w.hold.used > 0 {
		w.release()
	}
	if w.early.n > 0 {
		w.review()
	}
	if w.asked.n > 0 {
		w.repeat()
	}
	w.scan()
	w.pending = w.debt > 0
	for port, q := range w.queues {
		if q == nil {
			continue
		}
		w.flush(port)
		if q.Flush() {
			w.pending = true
		}
	}
	w.table.Quiesce(w.id)
	w.spoil()
	if x := w.wish.Load(); x != nil {
		w.fulfil(x)
	}
	return received
}

// process takes one vector through the stages.
func (w *Worker) process(port int, d []packet.Desc) {
	w.look() // once per vector: no vector sees two configurations
	v := &w.v
	v.n, v.port, v.descs = len(d), port, d
	w.Counters.Vectors.add(1)
	w.parse(v)
	if !w.snap.Ports[port].Filtered {
		w.steer(v)
	}
	w.decap(v)
	w.lookup(v)
	if w.express(v); v.rest.n > 0 {
		w.dismiss(v)
		w.prepare(v)
		w.schedule(v)
		w.resolve(v)
		w.rewrite(v)
		w.encap(v)
		w.finish(v)
	}
}

const (
	// scanPeriod is the time in nanoseconds in which all connections are looked at once, so how late one may be to expire.
	scanPeriod = 100_000_000
	// scanSlice is the most connections that one slice of the scan looks at, 8 microseconds, and endedSlice how many it ends if there are so many, up to
	// conntrack.Together more, 0.3 to 0.4 microseconds each: all of it little more than half of the 50 that a slice may take.
	scanSlice  = 1 << 13
	endedSlice = 32
)

// scan looks at as many connections as are due to be looked at since the last round, or pays a part of that if it is much.
func (w *Worker) scan() {
	all := int64(w.table.Used())
	elapsed := w.now - w.scanned
	w.debt = min(w.debt+(all*min(w.now-w.scanned, scanPeriod)+scanPeriod-1)/scanPeriod, all)
	w.scanned = w.now
	if o := w.snap.Overlay; o != nil {
		o.Stations.Expire(vxlan.SecondOf(w.now), w.shares[0].take(o.Stations.Slots(), elapsed))
		o.Hosts.Expire(vxlan.SecondOf(w.now), w.shares[1].take(o.Hosts.Slots(), elapsed))
	}
	// A round that opens connections ends as many more, else a flood of them would fill the table with what is over.
	for n := 1 + w.table.Opened(w.id)/endedSlice; n > 0 && (w.debt > 0 || w.table.Orphans()); n-- {
		slice := min(w.debt, scanSlice)
		w.debt -= slice - int64(w.expire(int(slice)))
	}
}

// overlayPeriod is the time in nanoseconds in which all of the overlay's tables are looked at once.
const overlayPeriod = 1_000_000_000

// share is what part of a slot of a table is due to be looked at, in slots times nanoseconds of overlayPeriod. A round of a few microseconds is less
// than one slot: what it leaves is the next one's, else nothing would age while rounds are short.
type share int64

// take is how many of n slots are due to be looked at after some nanoseconds more.
func (s *share) take(n int, elapsed int64) int {
	due := int64(n)*min(elapsed, overlayPeriod) + int64(*s)
	*s = share(due % overlayPeriod)
	return int(min(due/overlayPeriod, 4*scanSlice))
}

// expire looks at so many connections, ends those whose time is up and takes them out of their backends' accounts. It returns how many it
// did not get to because it had ended as many as it may at once.
func (w *Worker) expire(slice int) (left int) {
	n, left := w.table.Expire(w.id, w.tick, slice, w.ended[:])
	for i := range w.ended[:n] {
		w.account(&w.ended[i])
	}
	return left
}

// account takes an ended connection out of its backend's counts.
func (w *Worker) account(e *conntrack.Ended) { w.backend(e.Backend).account(e) }

func (b *Backend) account(e *conntrack.Ended) {
	switch {
	case b.Load == nil:
	case e.State == conntrack.Template:
		b.Load.UnbindTemplate(b.Upper, b.Lower)
	default:
		b.Load.Unbind(connFlags(e.Flags).active(e.State), b.Upper, b.Lower)
	}
}

// Bear counts for a backend a connection that it has from a former process.
func Bear(l *sched.Load, e *conntrack.Ended) {
	if e.State == conntrack.Template {
		l.BindTemplate(0, 0)
		return
	}
	l.Bind(connFlags(e.Flags).active(e.State), 0, 0)
}

// Carries reports whether flags are those that a connection can have been opened with: a way to its server that there is.
func Carries(flags uint32) bool { return connFlags(flags).forward() < forwards }

// backend is what the snapshot says of id. Another worker may already have a newer snapshot, in which a server has the ID that nobody has
// here, and have made connections by it; of that server the newer one says. All else of the vector goes on by the one it began with:
// its frames are in segments by that one's indices.
func (w *Worker) backend(id uint32) *Backend {
	if id < uint32(len(w.snap.Backends)) {
		if b := &w.snap.Backends[id]; b.Timeouts != nil {
			return b
		}
	}
	return &w.engine.snapshot.Load().Backends[id]
}

// ExpireAll looks at every connection once. Replay calls it when its clock jumps; `weir run` relies on scan's slices.
func (w *Worker) ExpireAll(now int64) {
	w.now, w.tick = now, conntrack.TickOf(now)
	w.look()
	for w.expire(1<<30) > 0 {
	}
	w.table.Quiesce(w.id)
}

// Holding is the number of frames that the worker holds between two rounds: those that wait for a neighbour, or for the first fragment of
// their datagram.
func (w *Worker) Holding() int { return w.hold.used + w.early.n }

// Behind reports whether connections are overdue to be looked at, and so for the next round whether or not a frame arrives.
func (w *Worker) Behind() bool { return w.debt > 0 }

// Pending reports whether the last round left something unfinished in a queue, so that the worker must not sleep for long.
func (w *Worker) Pending() bool { return w.pending }

// Chunks is the size of the worker's frame memory.
func (w *Worker) Chunks() int { return w.pool.Chunks() }
