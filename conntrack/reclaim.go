package conntrack

import (
	"math"
	"sync/atomic"
)

// A connection that ended is still held by workers that looked it up in their present vector. It waits in a limbo until they have all
// moved on (epoch-based reclamation):
//
//   - The epoch moves from e to e+1 when every worker that is awake was quiet in e.
//   - What was unlinked in epoch e (read after the unlinking) may be reused in e+2: to leave e+1 every worker had to be quiet
//     in e+1, which began after the unlinking, so what it looked up before is forgotten.
//
// A free connection lies in one list at a time: a worker's cache, a limbo, or its arena's pool. Lists are linked through arena.next, so
// they take no memory of their own and a whole limbo moves at once.

const (
	asleep = math.MaxUint64 // worker.quiet of one that holds no Ref and will not look any up

	cacheMax = 64 // most connections that lie in one worker's cache of one family
	refill   = 32 // taken from the pool at once
	limbos   = 3  // epochs e, e-1, and e-2, which is over
)

// list is connections linked through arena.next, from head to tail.
type list struct{ head, tail, n uint32 }

// limbo is what was unlinked in one epoch.
type limbo struct {
	list
	epoch uint64
}

// arena is the connections of one family that are not in use.
type arena struct {
	next      []uint32      // by connection; belongs to the owner of the list that it is in
	deadlines []uint32      // by connection, atomic: see expire.go
	fresh     atomic.Uint32 // the first that was never given out
	ready     atomic.Uint32 // the first that there is no memory for yet: see Enlarge
	used      *uint32       // atomic: fresh, for whoever takes the memory over

	lock    spin // guards what follows
	free    list
	limbos  [limbos]limbo // handed over by workers that went to sleep
	waiting atomic.Uint32 // in limbos
}

// worker is what one worker alone touches, but for quiet. The padding keeps two workers off one cache line.
type worker struct {
	quiet  atomic.Uint64 // the epoch in which it was last quiet, or asleep
	_      [120]byte
	cache  [families]list
	limbos [families][limbos]limbo
	held   uint32 // in limbos
	opened uint32 // by Insert, since Opened was asked last
	random random // for choosing what gives way
	_      [72]byte
}

// Quiesce says that worker w holds no Ref now. Call it once a vector: without it nothing that ends is reused.
func (t *Table) Quiesce(w int) {
	me := &t.workers[w]
	e := t.epoch.Load()
	if me.quiet.Load() != e {
		me.quiet.Store(e)
	}
	if me.held != 0 || t.families[ip4].waiting.Load() != 0 || t.families[ip6].waiting.Load() != 0 {
		t.reclaim(w)
	}
}

// Sleep says that worker w holds no Ref and looks up nothing until Wake: the others need not wait for it. What it has not reused yet is
// theirs.
func (t *Table) Sleep(w int) {
	me := &t.workers[w]
	t.Quiesce(w)
	for f := range t.families {
		for i := range me.limbos[f] {
			if l := &me.limbos[f][i]; l.n != 0 {
				me.held -= l.n
				t.families[f].inherit(l)
			}
		}
	}
	me.quiet.Store(asleep)
}

// Wake ends Sleep. It comes before w's next Lookup.
func (t *Table) Wake(w int) {
	me := &t.workers[w]
	for {
		e := t.epoch.Load()
		me.quiet.Store(e)
		if t.epoch.Load() == e {
			return
		}
	}
}

// reclaim moves the epoch on if it can and frees what has waited long enough. w is quiet: it follows the epoch at once, so that a worker
// alone gets everything back in one call.
func (t *Table) reclaim(w int) {
	me := &t.workers[w]
	for range 2 {
		e := t.epoch.Load()
		me.quiet.Store(e)
		if !t.advance(e) {
			break
		}
	}
	e := t.epoch.Load()
	me.quiet.Store(e)
	for f := range t.families {
		a := &t.families[f]
		for i := range me.limbos[f] {
			l := &me.limbos[f][i]
			if l.n == 0 || l.epoch+2 > e {
				continue
			}
			me.held -= l.n
			if c := &me.cache[f]; c.n+l.n <= cacheMax {
				a.splice(c, &l.list)
			} else {
				a.lock.lock()
				a.splice(&a.free, &l.list)
				a.lock.unlock()
			}
		}
		if a.waiting.Load() != 0 {
			a.lock.lock()
			a.settle(e)
			a.lock.unlock()
		}
	}
}

// advance moves the epoch on from e if no worker that is awake is behind it.
func (t *Table) advance(e uint64) bool {
	for i := range t.workers {
		if q := t.workers[i].quiet.Load(); q != e && q != asleep {
			return false
		}
	}
	return t.epoch.CompareAndSwap(e, e+1)
}

// retire puts connection n, which has left the index, into w's limbo.
func (t *Table) retire(w int, f family, n uint32) {
	e := t.epoch.Load()
	me, a := &t.workers[w], &t.families[f]
	l := &me.limbos[f][e%limbos]
	if l.epoch != e {
		if l.n != 0 { // of e-3 or before, which is over
			me.held -= l.n
			a.lock.lock()
			a.splice(&a.free, &l.list)
			a.lock.unlock()
		}
		l.epoch = e
	}
	a.push(&l.list, n)
	me.held++
}

// take gives w a connection that nobody uses, or zero: then all are in use or wait in limbos.
func (t *Table) take(w int, f family) uint32 {
	a, c := &t.families[f], &t.workers[w].cache[f]
	if c.n == 0 {
		a.refill(c, t.epoch.Load())
	}
	if c.n == 0 {
		return 0
	}
	return a.pop(c)
}

// giveBack takes back a connection that was never in the index.
func (t *Table) giveBack(w int, f family, n uint32) {
	a, c := &t.families[f], &t.workers[w].cache[f]
	if c.n < cacheMax {
		a.push(c, n)
		return
	}
	a.lock.lock()
	a.push(&a.free, n)
	a.lock.unlock()
}

// refill moves some connections from the pool to c: used ones first, for their pages exist.
func (a *arena) refill(c *list, epoch uint64) {
	a.lock.lock()
	if a.free.n == 0 && a.waiting.Load() != 0 {
		a.settle(epoch)
	}
	for c.n < refill && a.free.n != 0 {
		a.push(c, a.pop(&a.free))
	}
	fresh := a.fresh.Load()
	to := max(min(fresh+refill-min(c.n, refill), a.ready.Load()), fresh)
	atomic.StoreUint32(a.used, to) // before anything is written there
	for ; fresh < to; fresh++ {
		atomic.StoreUint32(&a.deadlines[fresh], 0) // as it is, unless somebody wrote into the file of a former process
		a.push(c, fresh)
		a.fresh.Store(fresh + 1)
	}
	a.lock.unlock()
}

// inherit takes over the limbo of a worker that goes to sleep.
func (a *arena) inherit(l *limbo) {
	a.lock.lock()
	mine := &a.limbos[l.epoch%limbos]
	if mine.n != 0 && mine.epoch < l.epoch { // by limbos epochs at least, so what is here has waited enough
		a.waiting.Add(-mine.n)
		a.splice(&a.free, &mine.list)
	}
	if mine.n == 0 {
		mine.epoch = l.epoch
	}
	if mine.epoch == l.epoch {
		a.waiting.Add(l.n)
		a.splice(&mine.list, &l.list)
	} else { // mine is the later one, so theirs have waited enough
		a.splice(&a.free, &l.list)
	}
	a.lock.unlock()
}

// settle frees what has waited long enough. The lock is held.
func (a *arena) settle(epoch uint64) {
	for i := range a.limbos {
		if l := &a.limbos[i]; l.n != 0 && l.epoch+2 <= epoch {
			a.waiting.Add(-l.n)
			a.splice(&a.free, &l.list)
		}
	}
}

func (a *arena) push(l *list, n uint32) {
	if l.n == 0 {
		l.tail = n
	}
	a.next[n] = l.head
	l.head = n
	l.n++
}

func (a *arena) pop(l *list) uint32 {
	n := l.head
	l.head = a.next[n]
	l.n--
	return n
}

// splice moves all of from to the front of to.
func (a *arena) splice(to, from *list) {
	if from.n == 0 {
		return
	}
	if to.n == 0 {
		to.tail = from.tail
	}
	a.next[from.tail] = to.head
	to.head = from.head
	to.n += from.n
	*from = list{}
}
