package conntrack

import (
	"math"
	"sync/atomic"
)

// A process that is killed leaves its memory as the last store of each of its threads left it. What is good of it follows from the order in which
// the stores are made, which other workers rely on as well:
//
//	Insert   both entries, the word with its live bit -> the template's count of children -> slots of the index -> deadline
//	Track    seen -> word                             (one word each)
//	end      word, live bit cleared -> slots -> deadline cleared -> the template's count of children
//
// So a connection is there from the store of its deadline on, the last of Insert, until the live bit goes, the first of its end. One
// without a deadline was not inserted yet, though its word may say live already; one with a deadline and without the bit has ended, though it may
// still stand in the index. State, timers and counts of packets are one word each, so they are old or new. What is left of an operation that was cut off
// is in the index and in the templates' counts. Neither is believed: the index is made anew, which a new secret wants anyway, and children are counted.
// The lists of free connections and all other counts are the process' own and are made anew, too.
//
// TestStoppedAtEveryStore stops a worker after each of its stores and looks at what is found then.
//
// Besides, an entry is checked for what Insert would never have written, such as checksum deltas that are not those of its tuples: whatever has
// happened to the file, what is taken over is a Table.

// Adopted is what became of a former process' connections.
type Adopted struct {
	Kept    int // go on, templates among them
	Expired int // their time was over
	Refused int // by Options.Keep
	Broken  int // ended, or not inserted yet, when the process was; or damaged
	Crowded int // that there was no room for in a smaller table
}

// Adopted is what became of the connections that [Options.Old] had.
func (t *Table) Adopted() Adopted { return t.adopted }

// takeOverFrom takes over the connections of a table in another file.
func (t *Table) takeOverFrom(h Header, o *Options) error {
	old, err := oldMemory(o.Old, h)
	if err != nil {
		return err
	}
	defer old.close()
	return t.takeOver(old, o)
}

// source is where adopted connections come from. view is a Table as far as entries go, and is only read.
type source struct {
	view Table
	used [families]uint32
}

// takeOver takes over the connections in old, which is t's own memory or another, in three steps: templates, as others name them; all others;
// templates that nobody named and whose time is over go. It does not matter if it is killed itself: in t's own memory it only takes connections away
// that are none, and counts children from zero; another file stays as it is.
func (t *Table) takeOver(m *memory, o *Options) error {
	s := &source{}
	s.view.v4, s.view.v6 = m.entries4(), m.entries6()
	for f := range families {
		s.view.families[f].deadlines, s.view.splices[f] = m.deadlines(f), m.splices(f)
		s.used[f] = min(max(atomic.LoadUint32(&m.header().used[f]), 1), uint32(m.conns))
	}
	a := adoption{t: t, s: s, o: o, inPlace: m == t.memory, moved: map[Ref]Ref{}}
	if a.inPlace {
		for f := range families {
			n := int(s.used[f]) + ahead/m.pairBytes(f)
			for _, x := range m.parts(f, 1, n)[:hot] {
				m.collapse(x.from, x.to)
			}
			// Where others have filled the file system meanwhile, what is there goes on, as it would have in the process before: see Enlarge.
			if m.reserve(f, n) != nil {
				if err := m.reserve(f, int(s.used[f])); err != nil {
					return err
				}
			}
			t.families[f].fresh.Store(s.used[f])
			t.families[f].ready.Store(m.ready(f))
		}
		clear(t.index)
	}
	for f := range families {
		a.sweep(f, a.template)
	}
	for f := range families {
		a.sweep(f, a.connection)
		a.link()
	}
	a.wither()
	for f := range families {
		a.freeRest(f)
	}
	if err := t.Enlarge(); err != nil && !a.inPlace {
		return err
	}
	return nil
}

// adoption is one takeOver under way.
type adoption struct {
	t       *Table
	s       *source
	o       *Options
	inPlace bool

	moved     map[Ref]Ref // templates, by what they were
	templates []Ref
	batch     [adoptBatch]placed
	n         int
}

// adoptBatch is how many connections go into the index together, so that their cache misses overlap.
const adoptBatch = 64

// placed is a connection that is in its place but not yet in the index.
type placed struct {
	ref    Ref
	hashes places
}

// sweep gives f each connection of a family that looks like one, by its Ref in the source.
func (a *adoption) sweep(f family, take func(Ref)) {
	deadlines := a.s.view.families[f].deadlines
	for n := uint32(1); n < a.s.used[f]; n++ {
		if atomic.LoadUint32(&deadlines[n]) != 0 {
			take(f.ref(n))
		}
	}
}

// drop forgets a connection of the source and counts why.
func (a *adoption) drop(r Ref, why *int) {
	*why++
	if a.inPlace {
		atomic.StoreUint32(&a.t.families[r.family()].deadlines[r.number()], 0)
	}
}

// template takes over r if it is a template, and throws away what is none and no connection either.
func (a *adoption) template(r Ref) {
	t := a.t
	if !a.s.sound(r) {
		a.drop(r, &t.adopted.Broken)
		return
	}
	if a.s.view.State(r) != Template {
		return
	}
	own := atomic.LoadUint64(a.s.view.control(r)) &^ controlChildren
	if own&controlSerial == 0 {
		a.drop(r, &t.adopted.Broken)
		return
	}
	t.serial.Store(max(t.serial.Load(), uint32(own>>32)))
	if e := a.s.view.ended(r); !a.o.Keep(&e) {
		a.drop(r, &t.adopted.Refused)
		return
	}
	to, ok := a.place(r)
	if !ok {
		a.drop(r, &t.adopted.Crowded)
		return
	}
	atomic.StoreUint64(t.control(to), own) // nobody's so far
	a.moved[r] = to
	a.templates = append(a.templates, to)
}

// connection takes over r, unless it is a template.
func (a *adoption) connection(r Ref) {
	t := a.t
	w := word(atomic.LoadUint64(a.s.view.life(r)))
	if !a.inPlace && !a.s.sound(r) {
		return // counted with the templates, and still there in another's memory
	}
	if w.state() == Template {
		return
	}
	if w.expired(a.s.last(r, a.o.Now), a.o.Now) {
		a.drop(r, &t.adopted.Expired)
		return
	}
	if e := a.s.view.ended(r); !a.o.Keep(&e) {
		a.drop(r, &t.adopted.Refused)
		return
	}
	own := atomic.LoadUint64(a.s.view.control(r))
	to, ok := a.place(r)
	if !ok {
		a.drop(r, &t.adopted.Crowded)
		return
	}
	if template := a.moved[Ref(own)]; own != 0 && template != 0 && *t.control(template)>>32 == own>>32 {
		*t.control(template)++
		own = own&controlSerial | uint64(template)
	} else {
		own = 0
	}
	atomic.StoreUint64(t.control(to), own)
	a.batch[a.n&(adoptBatch-1)] = placed{ref: to}
	if a.n++; a.n == adoptBatch {
		a.link()
	}
}

// place gives a connection of the source its place in the table, and reports false if there is none.
func (a *adoption) place(r Ref) (Ref, bool) {
	t := a.t
	f := r.family()
	if t.Len() >= t.capacity {
		return 0, false
	}
	to := r
	if !a.inPlace {
		arena := &t.families[f]
		n := arena.fresh.Load()
		if n == arena.ready.Load() && t.Enlarge() != nil || n >= arena.ready.Load() {
			return 0, false
		}
		arena.fresh.Store(n + 1)
		atomic.StoreUint32(arena.used, n+1)
		to = f.ref(n)
		if r.V6() {
			copy(t.v6[to&^refV6:][:2], a.s.view.v6[r&^refV6:][:2])
		} else {
			copy(t.v4[to:][:2], a.s.view.v4[r:][:2])
		}
		if a.s.view.Spliced(r) {
			*t.Splice(to) = *a.s.view.Splice(r)
		}
	}
	now := a.o.Now
	for _, e := range []*common{t.common(to), t.common(to | refReply)} {
		if now.since(Tick(e.seen)) < 0 {
			e.seen = uint32(now) // the clock was another's: better a little late than in 52 days
		}
	}
	w := word(t.common(to).word)
	atomic.StoreUint32(&t.families[f].deadlines[to.number()], due(t.last(to), w.timeout()))
	t.counts.enter(w.state())
	return to, true
}

// link puts the connections of the batch into the index.
func (a *adoption) link() {
	t := a.t
	for i := range a.batch[:a.n] {
		a.batch[i].hashes = t.placesOf(a.batch[i].ref)
	}
	for i := range a.batch[:a.n] {
		a.enter(a.batch[i].ref, &a.batch[i].hashes)
	}
	a.n = 0
}

// enter puts a connection into the index. One whose tuples another has was never inserted and goes.
func (a *adoption) enter(r Ref, p *places) {
	t := a.t
	forward, _ := t.tuples(r)
	at, other := t.find(&forward, p.forward, nowhere)
	replyAt := uint32(0)
	if !p.oneWay && other == 0 && at != nowhere {
		reply, _ := t.tuples(r | refReply)
		replyAt, other = t.find(&reply, p.reply, at)
	}
	if other != 0 || at == nowhere || replyAt == nowhere {
		why := &t.adopted.Broken
		if other == 0 {
			why = &t.adopted.Crowded
		}
		a.unplace(r, why)
		return
	}
	atomic.StoreUint64(&t.index[at], slotOf(p.forward, at-t.home(p.forward), r))
	if !p.oneWay {
		atomic.StoreUint64(&t.index[replyAt], slotOf(p.reply, replyAt-t.home(p.reply), r|refReply))
	}
	if t.State(r).HalfOpen() {
		t.raiseSource(r)
	}
	if t.waits(r) && len(t.waiting) < maxWaiting {
		t.waiting = append(t.waiting, t.Tuple(r))
	}
	t.adopted.Kept++
	if a.o.Kept != nil {
		e := t.ended(r)
		a.o.Kept(&e)
	}
}

// maxWaiting is how many connections are remembered whose servers had not answered: more would be more SYNs at once than servers like.
const maxWaiting = 1 << 12

// waits reports whether r is of two halves and its server has not answered yet.
func (t *Table) waits(r Ref) bool {
	if !t.Spliced(r) || t.State(r) != SynRecv {
		return false
	}
	_, answered := t.Answered(r)
	return !answered
}

// Waiting are connections of two halves that were taken over before their servers had answered, each told once: the forward tuples of n of them at
// most. Whoever asked these servers is gone.
func (t *Table) Waiting(n int) (some []Tuple) {
	n = min(n, len(t.waiting))
	some, t.waiting = t.waiting[:n:n], t.waiting[n:]
	return some
}

// unplace takes back a connection that has its place but is not in the index.
func (a *adoption) unplace(r Ref, why *int) {
	t := a.t
	*why++
	t.release(r)
	t.counts.leave(t.State(r))
	atomic.StoreUint32(&t.families[r.family()].deadlines[r.number()], 0)
}

// wither puts the templates into the index, but not those that are over: now their children are counted.
func (a *adoption) wither() {
	t := a.t
	for _, r := range a.templates {
		w := word(atomic.LoadUint64(t.life(r)))
		if t.over(r, w, a.o.Now) {
			a.unplace(r, &t.adopted.Expired)
			continue
		}
		p := t.placesOf(r)
		a.enter(r, &p)
	}
}

// freeRest makes what was given out once and is no connection now free, the lowest numbers first.
func (a *adoption) freeRest(f family) {
	arena := &a.t.families[f]
	for n := arena.fresh.Load() - 1; n > 0; n-- {
		if arena.deadlines[n] == 0 {
			arena.push(&arena.free, n)
		}
	}
}

// last is the latest packet of r's connection, but not after now.
func (s *source) last(r Ref, now Tick) Tick {
	idle := int32(math.MaxInt32)
	for _, e := range []*common{s.view.common(r), s.view.common(r | refReply)} {
		idle = min(idle, max(now.since(Tick(atomic.LoadUint32(&e.seen))), 0))
	}
	return now - Tick(idle)
}

// sound reports whether r, which has a deadline, is a connection that Insert finished and nobody ended: see above.
func (s *source) sound(r Ref) bool {
	e, p := s.view.common(r), s.view.common(r|refReply)
	w := word(atomic.LoadUint64(&e.word))
	const known = wordState | wordLive | wordNoOutput | wordKind | generationMask
	if !w.live() || w&(1<<32-1)&^known != 0 || w.timeout() == 0 || w.timeout() > MaxTimeout || w&wordNoOutput != 0 && w&wordOneWay == 0 {
		return false
	}
	forward, forwardTo := s.view.tuples(r)
	reply, replyTo := s.view.tuples(r | refReply)
	if forward.Space == 0 || w&wordOneWay == 0 && (reply.Space == 0 || forward == reply) {
		return false
	}
	there3, there4 := deltas(&forward, &forwardTo)
	back3, back4 := deltas(&reply, &replyTo)
	if e.DeltaL3 != there3 || e.DeltaL4 != there4 || p.DeltaL3 != back3 || p.DeltaL4 != back4 || p.Backend != e.Backend {
		return false
	}
	switch state, proto := w.state(), forward.Proto(); {
	case state == Template:
		return w&wordOneWay != 0
	case proto == protoTCP:
		return state < numTCP
	case proto == protoSCTP:
		return state >= SCTPNone && state <= SCTPClosed
	default:
		return state == UDP
	}
}
