package conntrack

import "sync/atomic"

// A connection's deadline is its latest packet plus the timeout of its state. Packets move it all the time, so it is not written
// down: arena.deadlines holds for each connection a lower bound, which the scan reads, 16 to a cache line, and moves up to the
// real deadline when it has passed. Only a packet that shortens the timeout writes it. Zero: not a connection.

// due is now plus timeout as a deadline is written.
func due(now Tick, timeout uint32) uint32 {
	if d := uint32(now) + timeout; d != 0 {
		return d
	}
	return 1 // a tick late, once in 208 days, rather than never
}

// lower makes the deadline of connection n be d if it is later.
func (a *arena) lower(n, d uint32) {
	for p := &a.deadlines[n]; ; {
		old := atomic.LoadUint32(p)
		if old == 0 || Tick(d).since(Tick(old)) >= 0 || atomic.CompareAndSwapUint32(p, old, d) {
			return
		}
	}
}

// Ended is what its owner must know of a connection that is no more.
type Ended struct {
	Backend uint32
	Flags   uint32
	State   State // the last one; Active says if it counted as active
	Proto   uint8
}

// Unlink ends the connection of r, as worker w. It reports false if another call has: only one caller accounts for each connection.
func (t *Table) Unlink(w int, r Ref) (e Ended, ok bool) {
	p := t.life(r)
	for {
		x := word(atomic.LoadUint64(p))
		if !x.live() {
			return Ended{}, false
		}
		if atomic.CompareAndSwapUint64(p, uint64(x), uint64(x&^wordLive)) {
			break
		}
	}
	r &^= refReply
	t.vanish(r)
	return t.bury(w, r), true
}

// vanish takes a connection whose word is no longer live out of the index and out of the scan. r is its forward entry.
func (t *Table) vanish(r Ref) {
	forward := t.hash(r)
	var reply uint64
	var s stretches
	s.add(t.home(forward))
	oneWay := word(atomic.LoadUint64(t.life(r)))&wordOneWay != 0
	if !oneWay {
		reply = t.hash(r | refReply)
		s.add(t.home(reply))
	}
	t.lock(&s)
	t.remove(forward, r)
	if !oneWay {
		t.remove(reply, r|refReply)
	}
	atomic.StoreUint32(&t.families[r.family()].deadlines[r.number()], 0)
	t.unlock(&s)
	t.live.Add(-1)
}

// bury hands the memory of a connection that has vanished on and says what it was.
func (t *Table) bury(w int, r Ref) Ended {
	e := t.common(r)
	ended := Ended{Backend: e.Backend, Flags: e.Flags, State: word(atomic.LoadUint64(&e.word)).state(), Proto: t.proto(r)}
	t.release(r)
	t.retire(w, r.family(), r.number())
	return ended
}

// Expire ends connections that have expired by now, as worker w, and reports each in out. It looks at budget connections, or at all, going on
// where the last call of any worker stopped, so that every connection is looked at once in (used + budget) / budget calls, where used is the
// most that were there at once. It costs about a nanosecond for each that has not expired.
//
// more says that out was full before the budget was used up: call it again.
func (t *Table) Expire(w int, now Tick, budget int, out []Ended) (n int, more bool) {
	for ; n < len(out); n++ {
		r := t.orphans.pop(t)
		if r == 0 {
			break
		}
		out[n] = t.bury(w, r)
	}
	budget = min(budget, t.Used())
	for budget > 0 {
		if n == len(out) {
			return n, true
		}
		f, from, to := t.claim(min(budget, len(out)-n)) // no more than out can take
		budget -= int(to - from)
		deadlines := t.families[f].deadlines[from:to]
		for i := range deadlines {
			d := atomic.LoadUint32(&deadlines[i])
			if d == 0 || now.since(Tick(d)) < 0 {
				continue
			}
			if r := f.ref(from + uint32(i)); t.expire(r, now) {
				out[n] = t.bury(w, r)
				n++
			}
		}
	}
	return n, false
}

// Used is the most connections that were there at once: what one pass of Expire over all looks at.
func (t *Table) Used() int {
	return int(t.families[ip4].fresh.Load()) + int(t.families[ip6].fresh.Load())
}

// claim takes the next n connections, or fewer, for the caller to scan. They are of one family.
func (t *Table) claim(n int) (f family, from, to uint32) {
	for {
		at := t.cursor.Load()
		used := [families]uint64{uint64(t.families[ip4].fresh.Load()), uint64(t.families[ip6].fresh.Load())}
		first, f := at, ip4
		if first >= used[ip4]+used[ip6] {
			first = 0
		}
		base := uint64(0)
		if first >= used[ip4] {
			base, f = used[ip4], ip6
		}
		last := min(first+uint64(n), base+used[f])
		if t.cursor.CompareAndSwap(at, last) {
			return f, uint32(first - base), uint32(last - base)
		}
	}
}

// expire ends the connection of r if it is over. If not it writes its deadline down, and looks again if the word changed meanwhile: a
// packet may have shortened the timeout.
func (t *Table) expire(r Ref, now Tick) bool {
	p, d := t.life(r), &t.families[r.family()].deadlines[r.number()]
	for {
		x := word(atomic.LoadUint64(p)) // before seen: see transit
		if !x.live() {
			return false
		}
		last := t.last(r)
		if t.over(r, x, now) {
			if atomic.CompareAndSwapUint64(p, uint64(x), uint64(x&^wordLive)) {
				t.vanish(r)
				return true
			}
			continue
		}
		if x.expired(last, now) {
			t.renew(r, x, now)
			continue
		}
		if old := atomic.LoadUint32(d); old != 0 {
			atomic.CompareAndSwapUint32(d, old, due(last, x.timeout()))
		}
		if word(atomic.LoadUint64(p)) == x {
			return false
		}
	}
}

// orphans are connections that Insert had to end, whose end nobody was told yet.
type orphans struct {
	waiting atomic.Uint32
	lock    spin
	lists   [families]list
}

func (o *orphans) push(t *Table, r Ref) {
	o.lock.lock()
	t.families[r.family()].push(&o.lists[r.family()], r.number())
	o.waiting.Add(1)
	o.lock.unlock()
}

func (o *orphans) pop(t *Table) (r Ref) {
	if o.waiting.Load() == 0 {
		return 0
	}
	o.lock.lock()
	for f := range o.lists {
		if l := &o.lists[f]; l.n != 0 {
			r = family(f).ref(t.families[f].pop(l))
			o.waiting.Add(^uint32(0))
			break
		}
	}
	o.lock.unlock()
	return r
}
