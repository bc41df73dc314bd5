package afxdp

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/driver"
	"weir/dataplane/packet"
)

var _ driver.Queue = (*Queue)(nil)

// Queue is one AF_XDP socket on one queue of a device. It implements [driver.Queue].
//
// While the device is gone the queue has no socket: FD is -1, rings of one entry stand in for the kernel's, and everything given to
// Send is lost. While its link is down, frames that were already in the send ring stay there, at most the ring's size, and leave
// when it is up again; but of a device that is up without a carrier the kernel takes one each time that somebody waits on the socket, and
// loses it: see drained.
type Queue struct {
	// read for every packet
	socket
	pool    *packet.Pool
	owner   []uint8    // the memory's
	shift   uint8      // log2 of the chunk size
	id      uint8      // in owner
	check   bool       // UmemOptions.Owners
	up      bool       // the device is there and up
	unsent  bool       // tx may have entries that the kernel has not taken
	starved bool       // the kernel has no chunk of ours to receive into, and the last refill found none
	idle    bool       // nothing was received or sent since the last Flush
	doubted bool       // the device refused a frame: ask whether its carrier is there
	held    int        // chunks in all rings and in the kernel
	sending int        // those of them that are on their way out
	stuck   int        // entries of tx that the kernel had not taken when we looked last, while the link is down
	owed    int        // fill entries that the kernel has used since the last refill, as far as we have seen
	batch   int        // refill when as many are owed
	touched byte       // keeps the compiler from leaving out a read
	live    *liveQueue // how else it sends; nil: by the ring alone

	// written by the worker, read by anyone
	received atomic.Uint64
	taken    atomic.Uint64 // by Send
	lost     atomic.Uint64
	refused  atomic.Uint64 // descriptors that never entered a ring
	wakeups  atomic.Uint64
	lively   atomic.Uint64 // sent as live frames
	isUp     atomic.Bool
	isZero   atomic.Bool
	attached atomic.Bool  // the program is attached in generic mode
	bound    atomic.Int64 // the index of the device and the descriptor of the socket, 32 bits each
	epoch    atomic.Uint32
	trouble  atomic.Pointer[error] // why there is no socket

	// used for few
	umem    *Umem
	dev     *device
	number  int // of the device's queue
	options Options
	watched time.Time
	mu      sync.Mutex // between Stats and the end of a socket; never taken on the packets' way
	past    KernelStats
	closed  bool
}

func newQueue(u *Umem, id uint8, dev *device, number int, o Options) *Queue {
	q := &Queue{
		socket: socket{rings: plainRings(), fd: -1}, pool: u.pool, owner: u.owner, id: id, check: u.options.Owners,
		umem: u, dev: dev, number: number, options: o, batch: o.RingSize / 4,
	}
	for 1<<q.shift < u.pool.ChunkSize() {
		q.shift++
	}
	q.bind(-1, 0)
	q.attached.Store(o.Attached == ModeGeneric)
	return q
}

// Receive implements [driver.Queue].
func (q *Queue) Receive(d []packet.Desc) int {
	n := q.rx.available(uint32(len(d)))
	if n == 0 {
		return 0
	}
	got, mem, touched := 0, q.pool.Memory(), byte(0)
	for i := range n {
		e := &q.rx.desc[(q.rx.next+i)&q.rx.mask]
		if q.release(e.Addr) {
			// The kernel wrote the frame on another core. Nothing waits for what is read here, so a dozen of such misses are under way at a
			// time; where each frame is looked at, they would follow one another: a tenth of a microsecond a frame.
			touched |= mem[e.Addr]
			d[got] = packet.Desc{Addr: e.Addr, Len: e.Len}
			got++
		}
	}
	q.touched = touched
	q.rx.next += n
	q.rx.publish()
	q.held -= got
	q.owed += int(n)
	q.idle = false
	q.received.Add(uint64(got))
	return got
}

// Send implements [driver.Queue]. A descriptor that is empty or leaves its chunk never enters the ring, where the kernel would skip
// it and keep the chunk for ever; it counts as taken and as invalid.
func (q *Queue) Send(d []packet.Desc) int {
	if !q.up {
		q.lose(d)
		return len(d)
	}
	if q.live != nil {
		return q.stage(d)
	}
	n := q.tx.room(uint32(len(d)))
	if n == 0 {
		return 0
	}
	next := q.tx.next
	for i := range d[:n] {
		if !q.valid(&d[i]) {
			q.refuse(&d[i])
			continue
		}
		if !q.acquire(d[i].Addr) {
			continue
		}
		q.tx.desc[next&q.tx.mask] = packet.Desc{Addr: d[i].Addr, Len: d[i].Len}
		next++
	}
	if sent := int(next - q.tx.next); sent > 0 {
		q.tx.next = next
		q.tx.publish()
		q.held += sent
		q.sending += sent
		q.taken.Add(uint64(sent))
		q.unsent, q.idle = true, false
	}
	return int(n)
}

// Flush implements [driver.Queue].
func (q *Queue) Flush() (pending bool) {
	if q.fd < 0 {
		return q.recover()
	}
	if q.sending > 0 {
		q.reap()
	}
	if q.live != nil && len(q.live.staged) > 0 {
		q.post()
	}
	if q.unsent && q.up {
		q.kick()
		if q.fd < 0 {
			return !q.closed
		}
	} else if q.unsent {
		q.drained()
	}
	if q.owed >= q.batch || q.owed > 0 && q.idle {
		q.refill(&q.socket)
	}
	if q.zerocopy && q.fill.needsWakeup() {
		// Short in zero copy, where it only schedules the driver; so the scheduler of Go need not know.
		unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(q.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
		q.wakeups.Add(1)
	}
	if q.idle || !q.up || q.doubted {
		q.watch()
	}
	q.idle = true
	return q.unsent || q.starved || !q.up
}

// reap takes back the chunks that the kernel is done sending.
func (q *Queue) reap() {
	n := q.completion.available(uint32(q.sending))
	if n == 0 {
		return
	}
	done := 0
	for i := range n {
		addr := q.completion.addr[(q.completion.next+i)&q.completion.mask]
		if q.release(addr) {
			q.pool.Put(addr) // anywhere in the chunk
			done++
		}
	}
	q.completion.next += n
	q.completion.publish()
	q.held -= done
	q.sending -= done
}

// refill tops the fill ring of s up, which need not be q's socket yet. It leaves the memory's reserve to the worker.
func (q *Queue) refill(s *socket) {
	free := max(q.pool.Free()-q.umem.reserve, 0)
	want := s.fill.room(s.fill.mask + 1)
	n := min(want, uint32(free))
	filled := uint32(0)
	for range n {
		addr, ok := q.pool.Get()
		if !ok {
			break
		}
		if !q.acquire(addr) {
			continue // the pool gave out what some queue holds; that queue will give it back
		}
		s.fill.addr[(s.fill.next+filled)&s.fill.mask] = addr
		filled++
	}
	if filled > 0 {
		s.fill.next += filled
		s.fill.publish()
		q.held += int(filled)
	}
	q.owed = int(want - filled)
	q.starved = q.held == q.sending // nothing can arrive, so nothing would wake the worker
}

// kick calls the kernel to send what is in the send ring, if the kernel wants to be called. In copy mode the call does the sending,
// for up to sendBudget frames at a microsecond or so each.
//
// One call a Flush is the rule. EAGAIN means that frames are left: the budget is used up, the socket's buffer is full, or the
// completion ring is, which reaping helps. Two more calls are tried, then the rest waits for the next Flush.
func (q *Queue) kick() {
	for range 3 {
		if !q.tx.needsWakeup() {
			break // the driver is at it
		}
		errno := q.sendto()
		q.wakeups.Add(1)
		switch errno {
		case 0:
			if q.zerocopy {
				q.unsent = q.tx.left() > 0 // it was scheduled, not done
				return
			}
		case unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			q.reap()
		case unix.EBUSY: // the device dropped one frame, whose chunk is completed like any other's
			q.lost.Add(1)
			q.doubted = true
			q.reap()
		case unix.ENETDOWN:
			q.setUp(false)
			return
		default: // ENXIO: the device is gone. Nothing else is known to happen, and a new socket is the cure for that, too
			q.disconnect()
			return
		}
		if q.tx.left() == 0 {
			q.unsent = false
			return
		}
	}
	q.unsent = q.tx.left() > 0
}

// sendto is sendto(2) without data. In copy mode it runs for long, hundreds of microseconds for a burst, and must tell the scheduler
// of Go, or stopping the world would wait for it; in zero copy it only schedules the driver.
func (q *Queue) sendto() (errno unix.Errno) {
	if q.zerocopy {
		_, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(q.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	} else {
		_, _, errno = unix.Syscall6(unix.SYS_SENDTO, uintptr(q.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	}
	return errno
}

// FD implements [driver.Queue]. It is -1 while the device is gone.
func (q *Queue) FD() int { return q.fd }

// Held implements [driver.Queue].
func (q *Queue) Held() int { return q.held }
