// Package conntrack holds the connections of all workers and the translation each is under.
//
// A [Table] is shared: looking up takes no lock, inserting and unlinking lock a few stretches of the index. A connection is two
// adjacent entries, one for each direction; its state is one word of the forward entry, changed by compare-and-swap:
//
//	forward  client  -> VIP     as the client sent it
//	reply    backend -> client  as the backend answers it
//
// All memory is taken in [New]: an index of 8-byte slots, two arenas of dense entries, one for each family, and an array of deadlines that
// is all the expiry scan reads. Pages that were never used cost nothing. A full table refuses the connection.
//
// A worker is a goroutine with a number. It holds the [Ref]s that it looked up until it says [Table.Quiesce], once a vector; memory of
// a connection that ended is given to another when all workers have said so since. Time is handed in, as a [Tick].
package conntrack

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

// Limits of [Options].
const (
	MaxCapacity = 1 << 28
	MaxWorkers  = 256
)

// Options say how large a Table is and where it lives.
type Options struct {
	Capacity int       // most connections, both families together: 1 to MaxCapacity
	Workers  int       // their numbers are 0 to Workers-1: 1 to MaxWorkers
	File     *os.File  // mapped and locked (flock) until Close: a memfd, or a file on tmpfs. nil: the Go heap
	Secret   [2]uint64 // of the hash; zero: random
	HalfOpen int       // most connections whose handshake is not over (see [State.HalfOpen]): 1 to Capacity; 0: a quarter of it

	// ID names the table, zero: a random name. Boot is which start of the machine the clock counts from.
	ID   uint64
	Boot [16]byte

	// Old, which may be File itself, has the connections of a former process. Keep is asked of each if it is to go on, Kept is told of those that
	// do. Now is the time.
	Old  *os.File
	Keep func(*Ended) bool
	Kept func(*Ended)
	Now  Tick

	CountSources bool // from the beginning, those that are taken over included: see [Table.CountSources]
	// Beside says that a process which is still alive has its Table in File, under the Secret given, and is about to hand it over: nothing is looked at
	// or changed before [Table.Resume], and nothing may be done with the Table. The lock of File is held by whoever gave it, and is not given back.
	Beside bool
}

// Table is the connections of all workers.
type Table struct {
	// read for every packet
	hasher hasher
	homes  uint64   // places of the index that a hash can point at
	index  []uint64 // tag<<32 | Ref, or empty, or tombstone; atomic. Longer than homes, so that no probe wraps around
	v4     []Entry4 // by Ref
	v6     []Entry6 // by Ref without its family
	locks  []spin   // one for each stretch of the index

	splices [families][]Splice // by connection; read for those that have one

	// written for new and ended connections
	_        [64]byte // keeps what is written off the lines above
	counts   counts
	epoch    atomic.Uint64 // read once a vector, written when it moves
	_        [56]byte
	families [families]arena
	cursor   atomic.Uint64 // of the expiry scan: the next connection, counted through both arenas
	serial   atomic.Uint32 // of the latest template
	orphans  orphans       // ended by Insert, not yet reported by Expire
	workers  []worker      // the last is Range's
	sources  sources
	evicted  atomic.Uint64 // half-open connections that gave way

	// read by control
	capacity  int
	halfOpen  int // most half-open ones
	memory    *memory
	secret    [2]uint64
	adopted   Adopted
	waiting   []Tuple    // see Waiting
	ranging   sync.Mutex // one Range at a time, and no Close meanwhile
	enlarging sync.Mutex // one Enlarge at a time
}

// New makes a Table: an empty one, or one of the connections of a former process' (see adopt.go). A file that holds anything but a Table of this
// layout is refused, with an error that says what it holds; a Table that File holds is lost, unless it is Old as well. All workers start awake:
// one that does not run must be put to [Table.Sleep], else what ends is never reused.
func New(o Options) (*Table, error) {
	if o.Beside && (o.File == nil || o.Old != o.File || o.Secret == [2]uint64{}) {
		return nil, errors.New("conntrack: a table that is handed over stays where it is, under its secret")
	}
	if err := o.complete(); err != nil {
		return nil, err
	}
	l := layoutOf(o.Capacity, o.Workers)
	found := Header{}
	if o.Old != nil {
		var err error
		if found, err = ReadHeader(o.Old, o.Boot); err != nil {
			return nil, err
		}
		o.ID = found.ID
	}
	inPlace := o.Old != nil && o.Old == o.File
	if inPlace && !o.Fits(found) {
		return nil, fmt.Errorf("conntrack: %s: a table for %d connections does not become one for %d where it is", o.Old.Name(), found.Capacity, o.Capacity)
	}
	m, err := newMemory(l, o.File, inPlace, o.Beside)
	if err != nil {
		return nil, err
	}
	if !inPlace {
		h := header{magic: magic, version: layoutVersion, shape: shapeOf(), capacity: uint64(o.Capacity), conns: uint64(l.conns), id: o.ID, boot: o.Boot, used: [families]uint32{1, 1}}
		h.sum = h.checksum()
		*m.header() = h
	}
	t := &Table{
		hasher:   newHasher(o.Secret),
		homes:    uint64(l.homes),
		index:    m.index(),
		v4:       m.entries4(),
		v6:       m.entries6(),
		locks:    make([]spin, stretch(uint32(l.slots-1))+1),
		capacity: o.Capacity,
		halfOpen: o.HalfOpen,
		memory:   m,
		secret:   o.Secret,
		workers:  make([]worker, o.Workers+1),
	}
	for i := range t.workers {
		t.workers[i].random = random(t.hasher[0] ^ uint64(i)<<32 | 1)
	}
	for f := range t.families {
		a := &t.families[f]
		*a = arena{next: make([]uint32, l.conns), deadlines: m.deadlines(family(f)), used: &m.header().used[f]}
		a.fresh.Store(1)
		a.ready.Store(m.ready(family(f)))
		t.splices[f] = m.splices(family(f))
	}
	t.workers[o.Workers].quiet.Store(asleep)
	if o.CountSources {
		t.CountSources()
	}
	switch {
	case o.Beside:
		m.prefault()
	case inPlace:
		err = t.takeOver(m, &o)
	case o.Old != nil:
		err = t.takeOverFrom(found, &o)
	default:
		err = t.Enlarge()
	}
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return t, nil
}

// complete checks o and fills in what is not given.
func (o *Options) complete() error {
	if o.Capacity < 1 || o.Capacity > MaxCapacity {
		return fmt.Errorf("conntrack: capacity %d: must be 1 to %d", o.Capacity, MaxCapacity)
	}
	if o.Workers < 1 || o.Workers > MaxWorkers {
		return fmt.Errorf("conntrack: %d workers: must be 1 to %d", o.Workers, MaxWorkers)
	}
	if o.HalfOpen < 0 || o.HalfOpen > o.Capacity {
		return fmt.Errorf("conntrack: %d half-open connections: must be 1 to the capacity, %d", o.HalfOpen, o.Capacity)
	}
	if o.HalfOpen == 0 {
		o.HalfOpen = max(1, o.Capacity/4)
	}
	if o.Secret == [2]uint64{} {
		o.Secret = [2]uint64{randomWord(), randomWord()}
	}
	if o.ID == 0 {
		o.ID = randomWord()
	}
	return nil
}

// Fits reports whether a Table of o can take over one of header h where that is: it has the same sizes.
func (o Options) Fits(h Header) bool {
	return h.Capacity == o.Capacity && h.conns == layoutOf(o.Capacity, o.Workers).conns
}

func randomWord() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.NativeEndian.Uint64(b[:])
}

// ID names t, also after another process has taken it over.
func (t *Table) ID() uint64 { return t.memory.header().id }

// Close gives the memory back; a file keeps what is in it. No worker may be running, and none may touch t or an entry of it afterwards. Range, Delete, Purge and
// Find may: they find nothing more.
func (t *Table) Close() error {
	t.ranging.Lock()
	defer t.ranging.Unlock()
	t.index, t.v4, t.v6 = nil, nil, nil
	for f := range t.families {
		t.families[f].deadlines, t.splices[f] = nil, nil
		t.families[f].fresh.Store(0)
	}
	return t.memory.close()
}
