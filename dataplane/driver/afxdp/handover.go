package afxdp

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A process can hand its sockets over to another while frames arrive. A socket is a descriptor, its rings are mapped from that, and what the rings and
// the kernel hold stands in them, not in us. What is ours alone is which chunk belongs to whom:
//
//	former process                      successor
//	works                               AdoptUmem, Adopt: maps memory and rings, touches nothing
//	stops, Umem.Surrender  -------->    Umem.Resume: owners and indices
//	                                    works
//
// Nothing is taken out of a ring or put into one for it, so until the successor works the former process can go on as if nothing had been; and
// frames that arrive meanwhile find the rings that they always found.

// UmemState is who has the chunks of a worker's memory, and its queues in the order of their numbers.
type UmemState struct {
	Owner  []byte       `json:"owner"` // by chunk: number of the queue, 0: the worker's, or free
	Copies bool         `json:"copies,omitempty"`
	Queues []QueueState `json:"queues"`
}

// QueueState is what of a queue does not stand in its rings.
type QueueState struct {
	Held    int         `json:"held"`
	Sending int         `json:"sending"`
	Up      bool        `json:"up"`
	Kernel  KernelStats `json:"kernel"` // counted for the socket so far
}

// QueueOffer is what a successor must know to make a Queue of a socket that it is given.
type QueueOffer struct {
	Interface string `json:"interface"`
	Index     int    `json:"ifindex"`
	Number    int    `json:"queue"`
	RingSize  int    `json:"ring_size"`
	Mode      string `json:"mode"`     // as asked for
	Attached  string `json:"attached"` // mode of the program
	Setup     string `json:"setup"`
}

// Share is the file that u's memory is in, for a successor, and reports false if it is in none: see [UmemOptions].Shared.
func (u *Umem) Share() (file *os.File, ok bool) { return u.file, u.file != nil }

// Offer is a copy of q's descriptor and what is to be known of the socket. It may be called from any goroutine, and fails while there is no socket, as the
// device is gone. Whether the socket is still q's when the worker has stopped, [Queue.Generation] and SocketFD say.
func (q *Queue) Offer() (o QueueOffer, fd int, err error) {
	q.mu.Lock() // so that the socket does not end meanwhile
	defer q.mu.Unlock()
	if q.fd < 0 {
		return o, -1, fmt.Errorf("%s queue %d: its device is gone", q.dev.name, q.number)
	}
	if fd, err = unix.FcntlInt(uintptr(q.fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return o, -1, fmt.Errorf("%s queue %d: %w", q.dev.name, q.number, err)
	}
	o = QueueOffer{Interface: q.dev.name, Index: q.dev.index, Number: q.number, RingSize: q.options.RingSize, Mode: q.options.Mode, Attached: ModeNative, Setup: q.setup}
	if q.attached.Load() {
		o.Attached = ModeGeneric
	}
	return o, fd, nil
}

// AdoptUmem maps the memory of a worker that runs in another process, in file, which o describes. It cannot be used before Resume. The file is u's
// from then on, also to be closed.
func AdoptUmem(file *os.File, o UmemOptions, pages string) (*Umem, error) {
	o.Shared = true
	if err := o.complete(); err != nil {
		return nil, err
	}
	size := o.Chunks * o.ChunkSize
	if info, err := file.Stat(); err != nil || info.Size() < int64(wholeHuge(size)) {
		return nil, fmt.Errorf("umem: memory of another process: %d chunks of %d bytes are not in %s: %w", o.Chunks, o.ChunkSize, file.Name(), os.ErrInvalid)
	}
	mem, err := mapShared(file, size)
	if err != nil {
		return nil, fmt.Errorf("umem: mmap of %d bytes of another process: %w", size, err)
	}
	u, err := newUmem(o, mem, pages, file)
	if u != nil {
		u.fresh = false // its pages are the kernel's
	}
	return u, err
}

// Adopt makes the queue of a socket of another process', which becomes q's to close, but not on an error. It cannot be used before Umem.Resume.
func Adopt(u *Umem, o QueueOffer, fd int) (*Queue, error) {
	fail := func(err error) (*Queue, error) {
		return nil, fmt.Errorf("%s queue %d of another process: %w", o.Interface, o.Number, err)
	}
	options := Options{Mode: o.Mode, Attached: o.Attached, RingSize: o.RingSize}
	if err := options.complete(); err != nil {
		return fail(err)
	}
	dev, err := newDevice(o.Interface)
	if err != nil {
		return fail(err)
	}
	if dev.index != o.Index {
		err = fmt.Errorf("%s is another device now, index %d, than its socket's, %d", o.Interface, dev.index, o.Index)
	}
	s := &socket{fd: fd, setup: o.Setup}
	if err == nil {
		if err = s.mapRings(o.RingSize); errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("%w: %w", err, errRemap)
		}
	}
	var q *Queue
	if err == nil {
		q, err = u.add(dev, o.Number, options)
	}
	if err != nil {
		s.unmap()
		dev.close()
		return fail(err)
	}
	if x, err := unix.GetsockoptInt(fd, unix.SOL_XDP, unix.XDP_OPTIONS); err == nil {
		s.zerocopy = x&unix.XDP_OPTIONS_ZEROCOPY != 0
	}
	q.adopt(s)
	return q, nil
}

// Surrender says what a successor needs to go on with u. The worker has stopped between two rounds, and u stays as it is.
func (u *Umem) Surrender() UmemState {
	s := UmemState{Owner: u.owner, Copies: u.copies}
	for _, q := range u.queues {
		x := QueueState{Held: q.held, Sending: q.sending, Up: q.up}
		x.Kernel.add(q.fd)
		s.Queues = append(s.Queues, x)
	}
	return s
}

// Resume makes u and its queues what they were in the process before. held are the chunks that the worker has, by any address in them. Where the
// state contradicts itself nothing is changed.
func (u *Umem) Resume(s *UmemState, held []uint64) error {
	if len(s.Owner) != len(u.owner) || len(s.Queues) != len(u.queues) {
		return fmt.Errorf("umem: %d chunks and %d queues are handed over, %d and %d are there", len(s.Owner), len(s.Queues), len(u.owner), len(u.queues))
	}
	owned := make([]int, len(u.queues)+1)
	for _, o := range s.Owner {
		if int(o) > len(u.queues) {
			return fmt.Errorf("umem: a chunk is of queue %d of %d", o, len(u.queues))
		}
		owned[o]++
	}
	for i := range s.Queues {
		if x := &s.Queues[i]; owned[i+1] != x.Held || x.Sending < 0 || x.Sending > x.Held {
			return fmt.Errorf("umem: queue %d has %d chunks, %d of them on their way out, but %d are said to be its", i+1, x.Held, x.Sending, owned[i+1])
		}
	}
	used := make([]bool, len(u.owner))
	for _, addr := range held {
		c := addr / uint64(u.pool.ChunkSize())
		if c >= uint64(len(used)) || used[c] || s.Owner[c] != 0 {
			return fmt.Errorf("umem: the chunk at %#x is not the worker's", addr)
		}
		used[c] = true
	}
	copy(u.owner, s.Owner)
	u.copies = s.Copies
	u.pool.Reset(func(c uint32) bool { return s.Owner[c] == 0 && !used[c] })
	for i, q := range u.queues {
		q.resume(&s.Queues[i])
	}
	return nil
}

// Carried counts n frames as received, which the process before had received and kept: now they are of this one. It is called before the worker runs.
func (q *Queue) Carried(n uint64) { q.received.Add(n) }

// resume begins where the process before stopped: all indices are in the rings.
func (q *Queue) resume(x *QueueState) {
	q.rewind(q.options.RingSize)
	q.held, q.sending = x.Held, x.Sending
	q.owed = q.batch // look at the fill ring in the first round
	q.unsent = q.tx.left() > 0
	q.past = KernelStats{}.minus(&x.Kernel)
	q.setUp(x.Up)
}
