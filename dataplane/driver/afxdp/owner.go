package afxdp

import (
	"fmt"

	"weir/dataplane/packet"
)

// Every chunk that a queue holds bears the queue's number in the memory's owner bytes. A hand-over is one load and one store; for 16384
// chunks the bytes are 16 KiB. What they buy: a queue without device gives back exactly its chunks, and a chunk that comes
// back twice, from a worker or from a driver with a bug, is counted as an invalid descriptor instead of being in two places.

// acquire makes the chunk at addr the queue's. It reports false if some queue has it already.
func (q *Queue) acquire(addr uint64) bool {
	c := addr >> q.shift
	if c < uint64(len(q.owner)) && q.owner[c] == 0 {
		q.owner[c] = q.id
		return true
	}
	q.object("handed over", addr)
	return false
}

// release makes the chunk at addr the caller's. It reports false if the queue does not have it.
func (q *Queue) release(addr uint64) bool {
	c := addr >> q.shift
	if c < uint64(len(q.owner)) && q.owner[c] == q.id {
		q.owner[c] = 0
		return true
	}
	q.object("returned by the kernel", addr)
	return false
}

// object counts a chunk that was handed over against the rules, or panics if UmemOptions.Owners says so.
func (q *Queue) object(how string, addr uint64) {
	q.refused.Add(1)
	if !q.check {
		return
	}
	owner := "is not in the pool"
	if c := addr >> q.shift; c < uint64(len(q.owner)) {
		owner = fmt.Sprintf("belongs to queue %d", q.owner[c])
	}
	panic(fmt.Sprintf("afxdp: queue %d (%s): chunk at %#x %s, but it %s", q.id, q.dev.name, addr, how, owner))
}

// valid reports whether d is a frame within one chunk of the pool.
func (q *Queue) valid(d *packet.Desc) bool {
	last := d.Addr + uint64(d.Len) - 1
	return d.Len > 0 && last >= d.Addr && last>>q.shift == d.Addr>>q.shift && last>>q.shift < uint64(len(q.owner))
}

// refuse counts a descriptor that is not valid and frees its chunk, if it has one.
func (q *Queue) refuse(d *packet.Desc) {
	if c := d.Addr >> q.shift; c >= uint64(len(q.owner)) || q.owner[c] != 0 {
		q.object("handed over", d.Addr)
		return
	}
	q.refused.Add(1)
	q.pool.Put(d.Addr)
}

// lose frees the chunks of frames that cannot be sent.
func (q *Queue) lose(d []packet.Desc) {
	lost := 0
	for i := range d {
		if !q.valid(&d[i]) || q.owner[d[i].Addr>>q.shift] != 0 {
			q.refuse(&d[i])
			continue
		}
		q.pool.Put(d[i].Addr)
		lost++
	}
	q.taken.Add(uint64(lost))
	q.lost.Add(uint64(lost))
}

// reclaim gives all chunks of the queue back to the pool: those in rings that are no more, and those the kernel had.
func (q *Queue) reclaim() {
	for c := range q.owner {
		if q.owner[c] == q.id {
			q.owner[c] = 0
			q.pool.Put(uint64(c) << q.shift)
			q.held--
		}
	}
	q.sending, q.owed = 0, 0
	q.unsent, q.starved = false, false
}
