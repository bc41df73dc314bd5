package afxdp

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// Set-ups of the first socket.
const (
	setupAsavie = "asavie/xdp"
	setupOwn    = "weir"
	setupJoined = "joined"
)

const (
	defaultChunks = 16384 // two ports with rings of 2048 at their fullest
	maxQueues     = 255   // owner numbers are a byte, and 0 is none
)

// UmemOptions of a worker's memory. The zero value is usable.
type UmemOptions struct {
	ChunkSize int  // 2048 (default) or 4096; an MTU above 1700 needs 4096
	Chunks    int  // default 16384; each port can hold four times its ring size
	Headroom  int  // bytes before a received frame besides the kernel's 256, at most 512
	HugePages bool // try pages of 2 MiB, fall back to transparent ones
	OwnSetup  bool // never use asavie/xdp
	Shared    bool // in a file, so that another process can go on with it, see handover.go; then asavie/xdp, which brings its own memory, is not used
	Owners    bool // for tests: panic when a chunk is handed over twice or comes back from where it was not, rather than count it
}

// Umem is the frame memory of one worker, shared by the sockets of all its queues. It is driven by the worker as its queues are.
//
// To the kernel, the memory is registered by the first socket and joined by the others. It stays registered as long as any socket of it is
// bound, whether or not that is the first one; a socket joins whichever is bound at that time. When all devices have
// vanished, the next socket registers the same memory anew. So no socket is special, and the pool's memory never moves.
type Umem struct {
	options UmemOptions
	mem     []byte
	pages   string
	file    *os.File // that mem is in; nil: it is this process' alone
	pool    *packet.Pool
	owner   []uint8  // by chunk: the number of the queue that holds it; 0: free, or the worker's
	queues  []*Queue // by number less one; nil where closed
	fresh   bool     // no socket has been made over mem yet, so its pages may still be exchanged
	copies  bool     // zero copy has been ruled out by one of the ports
	reserve int      // chunks that filling leaves to the worker: for answers, fragments and copies of a flood
}

// NewUmem maps the memory of a worker and makes the pool over it. It needs no rights; opening a queue does.
func NewUmem(o UmemOptions) (*Umem, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	mem, pages, file, err := o.newMemory()
	if err != nil {
		return nil, fmt.Errorf("umem: mmap of %d bytes: %w", o.Chunks*o.ChunkSize, err)
	}
	return newUmem(o, mem, pages, file)
}

// complete checks o and fills in what is not given.
func (o *UmemOptions) complete() error {
	if o.ChunkSize == 0 {
		o.ChunkSize = 2048
	}
	if o.Chunks == 0 {
		o.Chunks = defaultChunks
	}
	if o.Headroom < 0 || o.Headroom > 512 {
		return fmt.Errorf("umem: headroom of %d bytes: must be 0 to 512", o.Headroom)
	}
	if o.Chunks < 0 || o.Chunks > 1<<24 || o.ChunkSize != 2048 && o.ChunkSize != 4096 || o.Chunks*o.ChunkSize%unix.Getpagesize() != 0 {
		return fmt.Errorf("umem: %d chunks of %d bytes: must be chunks of 2048 or 4096, at most %d, in whole pages", o.Chunks, o.ChunkSize, 1<<24)
	}
	return nil
}

func (o *UmemOptions) newMemory() (mem []byte, pages string, file *os.File, err error) {
	if o.Shared {
		return makeShared(o.Chunks*o.ChunkSize, o.HugePages)
	}
	mem, pages, err = mapMemory(o.Chunks*o.ChunkSize, o.HugePages)
	return mem, pages, nil, err
}

// newUmem makes a Umem over mem, which is unmapped on an error.
func newUmem(o UmemOptions, mem []byte, pages string, file *os.File) (*Umem, error) {
	u := &Umem{
		options: o,
		mem:     mem,
		pages:   pages,
		file:    file,
		owner:   make([]uint8, o.Chunks),
		fresh:   true,
		reserve: min(packet.VectorSize, o.Chunks/8),
	}
	var err error
	if u.pool, err = packet.NewPool(mem, o.ChunkSize); err != nil {
		return nil, errors.Join(err, u.unmap())
	}
	return u, nil
}

// Pages of a Umem's memory.
const (
	PagesReserved    = "hugetlb"     // 2 MiB, of those that the operator has reserved
	PagesTransparent = "transparent" // 2 MiB where the kernel had them when they were touched
	PagesSmall       = "none"
)

// Pages is which of these u got.
func (u *Umem) Pages() string { return u.pages }

// mapMemory maps anonymous memory and says of which pages. Huge ones may be exhausted or off; both are only a matter of speed.
func mapMemory(size int, huge bool) (m []byte, pages string, err error) {
	const flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	if huge {
		if m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags|unix.MAP_HUGETLB|unix.MAP_POPULATE); err == nil {
			return m, PagesReserved, nil
		}
	}
	m, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags)
	pages = PagesSmall
	if err == nil && huge && unix.Madvise(m, unix.MADV_HUGEPAGE) == nil {
		pages = PagesTransparent
	}
	return m, pages, err
}

// Pool is the pool over the memory.
func (u *Umem) Pool() *packet.Pool { return u.pool }

// Queues are those of u, in the order of their numbers: that of [UmemState].
func (u *Umem) Queues() (all []*Queue) {
	for _, q := range u.queues {
		if q != nil {
			all = append(all, q)
		}
	}
	return all
}

// Close unmaps the memory. All its queues must be closed before.
func (u *Umem) Close() error {
	for _, q := range u.queues {
		if q != nil {
			return fmt.Errorf("umem: %s queue %d is still open", q.dev.name, q.number)
		}
	}
	if u.mem == nil {
		return nil
	}
	return u.unmap()
}

func (u *Umem) unmap() (err error) {
	if u.file != nil {
		err = unmapShared(u.mem, u.file)
	} else {
		err = unix.Munmap(u.mem)
	}
	u.mem, u.pool, u.file = nil, nil, nil
	return err
}

// add makes a queue without a socket.
func (u *Umem) add(dev *device, number int, o Options) (*Queue, error) {
	if u.mem == nil {
		return nil, errors.New("umem is closed")
	}
	if number < 0 || number > 1<<16 {
		return nil, fmt.Errorf("queue number %d: must be 0 to %d", number, 1<<16)
	}
	slot := 0
	for slot < len(u.queues) && u.queues[slot] != nil {
		slot++
	}
	if slot == maxQueues {
		return nil, fmt.Errorf("umem has %d queues already", maxQueues)
	}
	if slot == len(u.queues) {
		u.queues = append(u.queues, nil)
	}
	q := newQueue(u, uint8(slot+1), dev, number, o)
	u.queues[slot] = q
	return q, nil
}

func (u *Umem) remove(q *Queue) { u.queues[q.id-1] = nil }

// bound is the descriptor of a socket that other sockets of the memory can join, or -1.
func (u *Umem) bound() int {
	for _, q := range u.queues {
		if q != nil && q.fd >= 0 && !q.dev.gone() {
			return q.fd
		}
	}
	return -1
}

// zerocopy reports whether a bound socket of the memory is in zero copy; then all are.
func (u *Umem) zerocopy() bool {
	for _, q := range u.queues {
		if q != nil && q.fd >= 0 && q.zerocopy {
			return true
		}
	}
	return false
}

// leaveZerocopy opens all queues again with copies, as the port of q cannot do without. Waiting for the busy queues also waits for the
// devices to let go of the chunks they were receiving into.
func (u *Umem) leaveZerocopy(q *Queue) error {
	u.copies = true
	if !u.zerocopy() {
		return nil
	}
	var again []*Queue
	for _, other := range u.queues {
		if other == nil || other.fd < 0 {
			continue
		}
		if other.options.Mode == ModeZerocopy {
			u.copies = false
			return fmt.Errorf("%s queue %d: needs copies, but %s insists on zerocopy and all ports of a worker share one mode", q.dev.name, q.number, other.dev.name)
		}
		again = append(again, other)
	}
	for _, other := range again {
		other.disconnect()
	}
	for _, other := range again {
		if err := other.connectWithin(busyFor); err != nil {
			return err
		}
	}
	return nil
}
