package afxdp

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// liveQueue is how a queue sends live frames.
type liveQueue struct {
	*Live
	call   liveCall
	state  *liveState
	on     atomic.Bool   // the device takes XDP frames
	anew   atomic.Bool   // it has not for a while, but does again
	staged []packet.Desc // of Send, for the next Flush; their chunks are the queue's
	until  time.Time     // the ring is used
	pause  time.Duration // for how long next time
}

// A device that did not take all of a batch is given none for so long, and twice as long if it does not take all of the next one either. A veth's other
// end has room for 256, and frames come faster this way than a network stack on another core takes them; by the ring they come at its pace.
const (
	liveLeastPause = time.Millisecond
	liveMostPause  = time.Minute
)

// SendLive has q send bursts as live frames while its socket is in copy mode. It takes one of l's places, and is called once, before the worker runs.
func (q *Queue) SendLive(l *Live) {
	x := &liveQueue{Live: l, state: l.state(l.used), staged: make([]packet.Desc, 0, q.options.RingSize), pause: liveLeastPause}
	x.call.prepare(l.program.FD(), l.ifindex, l.used)
	l.used++
	q.live = x
}

// SetLive says whether the device takes XDP frames now; at first it does not. It may be called from any goroutine. A frame given to a device that
// takes none is lost.
func (q *Queue) SetLive(takes bool) {
	if q.live != nil && q.live.on.Swap(takes) != takes && takes {
		q.live.anew.Store(true)
	}
}

// stage is Send of a queue that may send live frames.
func (q *Queue) stage(d []packet.Desc) int {
	x := q.live
	room := int(q.tx.room(uint32(len(d)+len(x.staged)))) - len(x.staged) // all may have to go there
	n := min(len(d), cap(x.staged)-len(x.staged), room)
	if n <= 0 {
		return 0
	}
	before := len(x.staged)
	for i := range d[:n] {
		if !q.valid(&d[i]) {
			q.refuse(&d[i])
			continue
		}
		if q.acquire(d[i].Addr) {
			x.staged = append(x.staged, d[i])
		}
	}
	if sent := len(x.staged) - before; sent > 0 {
		q.held += sent
		q.sending += sent
		q.taken.Add(uint64(sent))
		q.idle = false
	}
	return n
}

// post sends what Send has staged: as live frames if there are many, else by the ring.
func (q *Queue) post() {
	x := q.live
	if x.anew.Load() {
		x.anew.Store(false)
		x.until, x.pause = time.Time{}, liveLeastPause
	}
	done := 0
	if len(x.staged) >= liveLeast && q.up && !q.unsent && !q.zerocopy && x.on.Load() && (x.until.IsZero() || time.Now().After(x.until)) {
		done = q.postLive()
	}
	rest := x.staged[done:]
	for i := range rest {
		q.tx.desc[(q.tx.next+uint32(i))&q.tx.mask] = rest[i]
	}
	if len(rest) > 0 {
		q.tx.next += uint32(len(rest))
		q.tx.publish()
		q.unsent = true
	}
	x.staged = x.staged[:0]
}

// postLive sends frames from the first staged one on, as long as there are enough for a call, and returns how many.
func (q *Queue) postLive() (done int) {
	x, mem := q.live, q.pool.Memory()
	for len(x.staged)-done >= liveLeast {
		batch := x.staged[done:min(len(x.staged), done+liveBatch)]
		n, shortest := 0, liveFrame
		for i := range batch {
			d := &batch[i]
			if d.Len > liveFrame || d.Len < linkHeader {
				break
			}
			copy(x.state.frames[i][:], mem[d.Addr:d.Addr+uint64(d.Len)])
			x.state.sizes[i] = uint16(d.Len)
			shortest = min(shortest, int(d.Len))
			n++
		}
		if n < liveLeast {
			return done
		}
		before := atomic.LoadUint64(&x.state.dropped)
		atomic.StoreUint64(&x.state.next, 0)
		x.state.device, x.state.page = uint32(q.dev.index), uint32(shortest)
		sent, errno := 0, unix.EINTR
		for sent < n && errno == unix.EINTR { // by a signal, of which Go makes use: it has sent some
			errno = x.call.run(n-sent, shortest)
			q.wakeups.Add(1)
			sent = int(min(atomic.LoadUint64(&x.state.next), uint64(n)))
		}
		lost := int(min(atomic.LoadUint64(&x.state.dropped)-before, uint64(sent)))
		if errno != 0 {
			lost = sent // some of them perhaps not
		}
		for i := range batch[:sent] {
			if q.release(batch[i].Addr) {
				q.pool.Put(batch[i].Addr)
				q.held--
				q.sending--
			}
		}
		q.lost.Add(uint64(lost))
		q.lively.Add(uint64(sent - lost))
		done += sent
		if lost > 0 || sent == 0 {
			x.until = time.Now().Add(x.pause)
			x.pause = min(2*x.pause, liveMostPause)
			q.doubted = q.doubted || lost == sent // the device may have gone down
			return done
		}
		x.pause = liveLeastPause
		if sent < n {
			return done
		}
	}
	return done
}
