package afxdp

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// A ring is an array of 2^n entries and two indices that count up for ever and wrap at 2^32. Whoever produces owns one index,
// whoever consumes the other; entries from consumer up to producer are full:
//
//	       consumer          producer
//	          v                 v
//	... free | full full full  | free free ...
//
// Each side keeps its own index and the last it saw of the other's in its own memory, and looks at the shared word again only when what it
// saw is not enough: the word lies in a cache line that the kernel writes. An index is stored once per burst. sync/atomic gives the order
// that the kernel's smp_store_release and smp_load_acquire expect: entries before index.

// producer is our side of a ring that we put entries into.
type producer struct {
	next     uint32  // the entry we write next; the kernel sees those before it after publish
	limit    uint32  // entries before it are free: the kernel's index, as last seen, plus the size
	mask     uint32  // size - 1
	shared   *uint32 // our index, as the kernel sees it; written by us alone
	consumer *uint32 // written by the kernel alone
	flags    *uint32 // XDP_RING_NEED_WAKEUP; written by the kernel alone
}

// room is how many entries can be written now, at most want.
func (p *producer) room(want uint32) uint32 {
	free := p.limit - p.next
	if free < want {
		p.limit = atomic.LoadUint32(p.consumer) + p.mask + 1
		free = p.limit - p.next
	}
	return min(free, want)
}

// publish hands all entries before next to the kernel. The store is a full fence, so a flag read after it is not older than it.
func (p *producer) publish() { atomic.StoreUint32(p.shared, p.next) }

// left is how many published entries the kernel has not taken yet.
func (p *producer) left() uint32 { return p.next - atomic.LoadUint32(p.consumer) }

// needsWakeup reports whether the kernel looks at the ring only when called.
func (p *producer) needsWakeup() bool {
	return atomic.LoadUint32(p.flags)&unix.XDP_RING_NEED_WAKEUP != 0
}

// consumer is our side of a ring that we take entries from.
type consumer struct {
	next     uint32  // the entry we read next
	limit    uint32  // entries before it are full: the kernel's index, as last seen
	mask     uint32  // size - 1
	shared   *uint32 // our index, as the kernel sees it; written by us alone
	producer *uint32 // written by the kernel alone
}

// available is how many entries can be read now, at most want.
func (c *consumer) available(want uint32) uint32 {
	full := c.limit - c.next
	if full < want {
		c.limit = atomic.LoadUint32(c.producer)
		full = c.limit - c.next
	}
	return min(full, want)
}

// publish gives the places of all entries before next back to the kernel.
func (c *consumer) publish() { atomic.StoreUint32(c.shared, c.next) }

// rings are the four of a socket.
type rings struct {
	rx struct {
		consumer
		desc []packet.Desc
	}
	tx struct {
		producer
		desc []packet.Desc
	}
	fill struct {
		producer
		addr []uint64
	}
	completion struct {
		consumer
		addr []uint64
	}
}

// words are the shared words of a ring.
type words struct {
	producer, consumer, flags *uint32
}

func newProducer(w words, size int) producer {
	p := producer{next: atomic.LoadUint32(w.producer), mask: uint32(size - 1), shared: w.producer, consumer: w.consumer, flags: w.flags}
	p.limit = atomic.LoadUint32(w.consumer) + uint32(size)
	return p
}

func newConsumer(w words, size int) consumer {
	c := consumer{next: atomic.LoadUint32(w.consumer), mask: uint32(size - 1), shared: w.consumer, producer: w.producer}
	c.limit = c.next
	return c
}

// plainRings are rings over ordinary memory with nobody on the other side: nothing ever arrives and, their send ring being full,
// nothing is ever taken. They stand in while a queue has no socket, so that the packets' way need not ask.
func plainRings() rings {
	var r rings
	w := make([]uint32, 8)
	r.rx.consumer = newConsumer(words{&w[0], &w[1], nil}, 1)
	r.tx.producer = newProducer(words{&w[2], &w[3], &w[6]}, 1)
	r.fill.producer = newProducer(words{&w[4], &w[5], &w[6]}, 1)
	r.completion.consumer = newConsumer(words{&w[6], &w[7], nil}, 1)
	r.tx.limit, r.fill.limit = 0, 0
	w[3], w[5] = ^uint32(0), ^uint32(0) // consumer + size == producer: full
	r.rx.desc, r.tx.desc = make([]packet.Desc, 1), make([]packet.Desc, 1)
	r.fill.addr, r.completion.addr = make([]uint64, 1), make([]uint64, 1)
	return r
}
