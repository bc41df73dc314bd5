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
	p := t.placesOf(r)
	t.vanishFrom(r, &p)
}

// places are where a connection stands in the index.
type places struct {
	forward, reply uint64 // hashes
	stretches
	oneWay bool
}

// placesOf computes r's places and loads the slots there, so that the misses of several connections, and those of one's two directions, overlap.
func (t *Table) placesOf(r Ref) (p places) {
	p.forward = t.hash(r)
	home := t.home(p.forward)
	t.warm(home)
	p.add(home)
	if p.oneWay = word(atomic.LoadUint64(t.life(r)))&wordOneWay != 0; !p.oneWay {
		p.reply = t.hash(r | refReply)
		home = t.home(p.reply)
		t.warm(home)
		p.add(home)
	}
	return p
}

// warm loads what taking out an entry of a home most often reads: the slots around it, which lie in one cache line or two.
func (t *Table) warm(home uint32) {
	atomic.LoadUint64(&t.index[max(home, 1)-1])
	atomic.LoadUint64(&t.index[home+2])
}

// vanishFrom is vanish for one whose places are known.
func (t *Table) vanishFrom(r Ref, p *places) {
	t.lock(&p.stretches)
	t.remove(p.forward, r)
	if !p.oneWay {
		t.remove(p.reply, r|refReply)
	}
	atomic.StoreUint32(&t.families[r.family()].deadlines[r.number()], 0)
	t.unlock(&p.stretches)
	t.leave(r, t.State(r))
}

// bury hands the memory of a connection that has vanished on and says what it was.
func (t *Table) bury(w int, r Ref) Ended {
	ended := t.ended(r)
	t.release(r)
	t.retire(w, r.family(), r.number())
	return ended
}

// ended is what the owner of the connection of r, a forward entry, must know of it.
func (t *Table) ended(r Ref) Ended {
	e := t.common(r)
	return Ended{Backend: e.Backend, Flags: e.Flags, State: word(atomic.LoadUint64(&e.word)).state(), Proto: t.proto(r)}
}

// Expire ends connections that have expired by now, as worker w, and reports each in out. It looks at budget connections, or at all, going on
// where the last call of any worker stopped, so that every connection is looked at once in (used + budget) / budget calls, where used is the
// most that were there at once. It costs about a nanosecond for each that has not expired, and some hundred for each that has.
//
// left is how much of the budget could not be used because out was full, or had less room than Together: call it again. That is not filled to the last,
// as no more is looked at at a time than may have to be reported.
func (t *Table) Expire(w int, now Tick, budget int, out []Ended) (n, left int) {
	for ; n < len(out); n++ {
		r := t.orphans.pop(t)
		if r == 0 {
			break
		}
		out[n] = t.bury(w, r)
	}
	budget = min(budget, t.Used())
	for budget > 0 && (n == 0 || len(out)-n >= Together) {
		f, from, to := t.claim(min(budget, len(out)-n)) // no more than out can take
		budget -= int(to - from)
		var refs [Together]Ref
		k := 0
		deadlines := t.families[f].deadlines[from:to]
		for i := range deadlines {
			if d := atomic.LoadUint32(&deadlines[i]); d == 0 || now.since(Tick(d)) < 0 {
				continue
			}
			refs[k] = f.ref(from + uint32(i))
			if k++; k == Together {
				n += t.endAll(w, refs[:], now, out[n:])
				k = 0
			}
		}
		n += t.endAll(w, refs[:k], now, out[n:])
	}
	return n, budget
}

// Together is how many connections Expire ends at once: as many misses as a core has under way at a time, and some.
const Together = 16

// endAll ends those of refs that are over. It goes over them in passes, as Lookup does: load the entries, decide, load the slots of the
// index, take out.
func (t *Table) endAll(w int, refs []Ref, now Tick, out []Ended) (n int) {
	for _, r := range refs {
		atomic.LoadUint64(t.life(r))
		atomic.LoadUint32(&t.common(r | refReply).seen)
	}
	for _, r := range refs {
		if t.expire(r, now) {
			refs[n] = r // n is not beyond r's own place
			n++
		}
	}
	var gone [Together]places // in a loop without locked instructions, which would wait for the loads before them
	for i, r := range refs[:n] {
		gone[i&(Together-1)] = t.placesOf(r)
	}
	for i, r := range refs[:n] {
		t.vanishFrom(r, &gone[i&(Together-1)])
		if s := t.State(r); s != UDP && s != Template && t.Len() > t.capacity/2 {
			t.follow(r)
		}
		out[i] = t.bury(w, r)
	}
	return n
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

// expire makes the word of r's connection dead if it is over; the caller takes it out. If not it writes its deadline down, and looks again if the word changed meanwhile: a
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
				return true
			}
			continue
		}
		if x.expired(last, now) {
			t.renew(r, x, now)
			continue
		}
		t.keepUp(r, last)
		if old := atomic.LoadUint32(d); old != 0 {
			atomic.CompareAndSwapUint32(d, old, due(last, x.timeout()))
		}
		if word(atomic.LoadUint64(p)) == x {
			return false
		}
	}
}

// keepUp moves the latest packet of a direction up to last, the latest of both, if it came so long ago that their difference could soon not be told any
// more: a server that answers past us is never seen, and its connection may be older than any Tick. expire looks at each connection once in MaxTimeout.
func (t *Table) keepUp(r Ref, last Tick) {
	for _, e := range [...]*common{t.common(r), t.common(r ^ refReply)} {
		if seen := atomic.LoadUint32(&e.seen); last.since(Tick(seen)) > MaxTimeout/2 {
			atomic.CompareAndSwapUint32(&e.seen, seen, uint32(last)) // else a packet has just come
		}
	}
}

// orphans are connections that Insert had to end, because they were over or had to give way, whose end nobody was told yet.
type orphans struct {
	waiting atomic.Uint32
	lock    spin
	lists   [families]list
}

// Orphans reports whether Insert has ended connections that Expire has yet to report, which takes no budget.
func (t *Table) Orphans() bool { return t.orphans.waiting.Load() != 0 }

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
