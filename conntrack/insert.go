package conntrack

import "sync/atomic"

// Conn is a connection to be inserted. Its four tuples are of one family, and their Space is not zero.
type Conn struct {
	Forward, Reply     Tuple // packets of each direction as they arrive
	ForwardTo, ReplyTo Tuple // what they become
	Backend, Flags     uint32
	OneWay             bool // only Forward is looked up (direct routing and tunnels), and TCP and SCTP go by their INPUT_ONLY tables
	Template           bool // a template of persistence: OneWay, in a [TemplateSpace]
	Control            Ref  // the template that the connection is opened under, or zero; a valid Ref
	Spliced            bool // Splice is valid: client and server have sequence numbers of their own
	Splice             Splice
}

// Outcome is what Insert did.
type Outcome uint8

const (
	Inserted Outcome = iota
	Exists           // there is a connection of the forward tuple: Insert's Ref and State are its
	Full             // no room: capacity is reached, or so much has just ended that its memory still waits for the workers
	Crowded          // half-open connections fill their part, and none was found that could give way
	Clash            // another connection has the reply tuple, or Reply equals Forward: Insert's Ref is the other one's entry, or zero
)

// String is the outcome in lower case.
func (o Outcome) String() string {
	switch o {
	case Inserted:
		return "inserted"
	case Exists:
		return "exists"
	case Full:
		return "full"
	case Crowded:
		return "crowded"
	case Clash:
		return "clash"
	}
	return "?"
}

// Insert makes c a connection, as worker w, and returns its forward entry. The packet that opens it is not counted; give it to Track with
// the Ref, as every other. The state of a TCP connection is what kernel IPVS gives it for this packet, whose event is as for Track: that of
// None after it. Track runs it through the state machine again, which changes nothing, as no event moves TCP's None twice. Those of SCTP do: a
// second INIT means something else. So its connections begin in SCTPNone, and Track moves them.
//
// Of two workers that insert the same forward or reply tuple at once, one gets Exists or Clash. A connection in the way that has
// expired is ended; the next Expire of any worker reports it.
func (t *Table) Insert(w int, c *Conn, event uint8, to *Timeouts, now Tick) (Ref, State, Outcome) {
	if c.Forward.Space == 0 || !c.OneWay && (c.Reply.Space == 0 || c.Forward == c.Reply) {
		return 0, None, Clash
	}
	f := ip4
	if c.Forward.V6 {
		f = ip6
	}
	state := c.firstState(event)
	n := t.take(w, f)
	r := f.ref(n)

	// What is needed from memory is asked for at once: the slots of both directions, the entries, the deadline. The first locked instruction
	// waits for all that was stored before it, so none stands between.
	forward := t.hasher.sum(&c.Forward)
	home := t.home(forward)
	atomic.LoadUint64(&t.index[home])
	var reply uint64
	var s stretches
	s.add(home)
	if !c.OneWay {
		reply = t.hasher.sum(&c.Reply)
		home = t.home(reply)
		atomic.LoadUint64(&t.index[home])
		s.add(home)
	}
	atomic.LoadUint32(&t.families[f].deadlines[n])

	// Before any lock the entries are written, so that a lock is not held through their cache misses.
	crowded := false
	if n != 0 {
		t.prepare(r, c, state, to, now)
		live, halfOpen := t.counts.enter(state)
		if state.HalfOpen() {
			t.raiseSource(r) // before anybody can end it
		}
		if live > t.capacity {
			t.leave(r, state)
			t.undo(w, r)
			n, r = 0, f.ref(0)
		}
		crowded = state.HalfOpen() && halfOpen > t.halfOpen
	}

	var ended [2]Ref // expired connections that stood in the way
	t.lock(&s)
	other, outcome := t.publish(r, c, forward, reply, now, &ended)
	if outcome == Inserted {
		atomic.StoreUint32(&t.families[f].deadlines[n], due(now, to[state])) // under the lock: whoever unlinks it now clears it after us
	}
	t.unlock(&s)

	for _, e := range ended {
		if e != 0 {
			t.vanish(e)
			t.orphans.push(t, e)
		}
	}
	switch {
	case outcome != Inserted:
		if n != 0 {
			t.leave(r, state)
			t.undo(w, r)
		}
		if other != 0 {
			return other, t.State(other), outcome
		}
		return 0, None, outcome
	case crowded && !t.giveWay(w, r, now) && t.withdraw(w, r):
		return 0, None, Crowded
	}
	t.workers[w].opened++
	return r, state, Inserted
}

// leave takes what was never published out of the counts.
func (t *Table) leave(r Ref, state State) {
	t.counts.leave(state)
	if state.HalfOpen() {
		t.lowerSource(r)
	}
}

// undo takes prepare back. Nobody has seen r.
func (t *Table) undo(w int, r Ref) {
	t.release(r)
	p := t.life(r)
	atomic.StoreUint64(p, uint64(word(atomic.LoadUint64(p))&generationMask))
	t.giveBack(w, r.family(), r.number())
}

// withdraw unlinks a connection that was inserted this moment, unless another worker's packet has already moved it to a state that may stay.
// Nobody needs to be told of it.
func (t *Table) withdraw(w int, r Ref) bool {
	p := t.life(r)
	x := word(atomic.LoadUint64(p))
	if !x.live() || !x.state().HalfOpen() || !atomic.CompareAndSwapUint64(p, uint64(x), uint64(x&^wordLive)) {
		return false
	}
	t.vanish(r)
	t.bury(w, r)
	return true
}

// firstState is the state that Insert gives a connection.
func (c *Conn) firstState(event uint8) State {
	switch {
	case c.Template:
		return Template
	case c.Forward.Proto() == protoSCTP:
		return SCTPNone
	case c.Forward.Proto() != protoTCP:
		return UDP
	case c.OneWay:
		return None.step(inputOnly, event)
	}
	return None.step(input, event)
}

const (
	protoTCP  = 6
	protoSCTP = 132
)

// prepare writes both entries of r. Nobody can find them yet.
func (t *Table) prepare(r Ref, c *Conn, state State, to *Timeouts, now Tick) {
	t.fill(r, &c.Forward, &c.ForwardTo, c)
	t.fill(r|refReply, &c.Reply, &c.ReplyTo, c)
	flags := wordLive
	if c.OneWay {
		flags |= wordNoOutput | wordOneWay
	}
	if c.Spliced {
		flags |= wordSpliced
		t.begin(r, c)
	}
	// Plain stores, each of which would be a locked instruction: whoever reads these words came by a slot or a deadline, which are
	// stored afterwards.
	e, p := t.common(r), t.common(r|refReply)
	e.seen, p.seen = uint32(now), uint32(now)
	e.packets.set(0)
	p.packets.set(0)
	e.word = uint64(makeWord(state, flags, word(e.word)+generationUnit, to[state]))
	t.adopt(r, c)
	t.assure(r, state)
}

// publish puts r's slots into the index unless a living connection has one of its tuples. The stretches of both hashes are locked.
// A slot of a connection that is ending or has expired is taken over where it stands: two slots of one key would let a reader meet
// the wrong one.
func (t *Table) publish(r Ref, c *Conn, forward, reply uint64, now Tick, ended *[2]Ref) (Ref, Outcome) {
	at, other := t.find(&c.Forward, forward, nowhere)
	if other != 0 && t.holds(other, now, &ended[0]) {
		return other, Exists
	}
	var replyAt uint32
	if !c.OneWay {
		replyAt, other = t.find(&c.Reply, reply, at)
		if other != 0 && t.holds(other, now, &ended[1]) {
			return other, Clash
		}
	}
	if r.number() == 0 || at == nowhere || replyAt == nowhere {
		return 0, Full
	}
	atomic.StoreUint64(&t.index[at], slotOf(forward, at-t.home(forward), r))
	if !c.OneWay {
		atomic.StoreUint64(&t.index[replyAt], slotOf(reply, replyAt-t.home(reply), r|refReply))
	}
	return 0, Inserted
}

// holds reports whether the connection of r is alive. One that has expired is ended here, and its forward entry written to ended if it was
// this call that ended it.
func (t *Table) holds(r Ref, now Tick, ended *Ref) bool {
	for p := t.life(r); ; {
		w := word(atomic.LoadUint64(p))
		if !w.live() {
			return false
		}
		if !t.over(r, w, now) {
			return true
		}
		if atomic.CompareAndSwapUint64(p, uint64(w), uint64(w&^wordLive)) {
			*ended = r &^ refReply
			return false
		}
	}
}

// Once gives c's entries to a packet that is a connection of its own (one-packet scheduling): the Ref is valid as every other, but no
// packet finds it, it has no state, and Track may not be called with it. It returns zero if no memory is left.
func (t *Table) Once(w int, c *Conn) Ref {
	f := ip4
	if c.Forward.V6 {
		f = ip6
	}
	n := t.take(w, f)
	if n == 0 {
		return 0
	}
	r := f.ref(n)
	t.fill(r, &c.Forward, &c.ForwardTo, c)
	t.fill(r|refReply, &c.Reply, &c.ReplyTo, c)
	t.retire(w, f, n)
	return r
}
