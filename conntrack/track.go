package conntrack

import "sync/atomic"

// Track is one packet of r's direction: it counts the packet, restarts the timer with to's timeout of the state, and moves the state.
// event is what of the packet moves it: byte 13 of a TCP header; of SCTP the type of the first chunk and, as 16, an ABORT behind it (see
// chunkData); nothing of others. Only the caller that gets a Change whose states differ has made it.
//
// It reports false, and has changed nothing, if the connection has expired or is being unlinked: the packet is to be treated as one of
// no connection. Such a caller may Unlink it at once; else Insert or Expire end it.
//
// A packet never restarts the timer of a connection that Expire has ended, nor does Expire end one whose timer a packet has restarted,
// as long as no worker's now is behind another's by half the timeout.
func (t *Table) Track(r Ref, event uint8, to *Timeouts, now Tick) (c Change, alive bool) {
	w := word(atomic.LoadUint64(t.life(r)))
	if !w.live() {
		return Change{}, false
	}
	e, state := t.common(r), w.state()
	idle := now.since(Tick(atomic.LoadUint32(&e.seen)))
	if state.step(w.direction(r), event) != state || to[state] != w.timeout() || 2*int64(idle) >= int64(w.timeout()) ||
		w&wordNoOutput != 0 && r.Reply() {
		return t.transit(r, event, to, now)
	}
	if idle > 0 {
		atomic.StoreUint32(&e.seen, uint32(now)) // once in a tick, not for each packet: it is a locked instruction
	}
	e.packets.add(1)
	return Change{state, state}, true
}

// Keeps4 and then Seen are Track for the commonest packet, one that leaves its connection, an IPv4 one, as it is. Each is small enough to be
// compiled into its caller's loop. Keeps4 reports whether the packet is of this kind, as far as the state tells, and the timeout of the state. It is
// not if the connection has a Splice.
func (t *Table) Keeps4(r Ref, event uint8, to *Timeouts) (timeout uint32, ok bool) {
	return word(atomic.LoadUint64(&t.v4[r&^refReply].word)).keeps(r, event, to)
}

// Keeps6 is Keeps4 for an IPv6 connection.
func (t *Table) Keeps6(r Ref, event uint8, to *Timeouts) (timeout uint32, ok bool) {
	return word(atomic.LoadUint64(&t.v6[r&^(refV6|refReply)].word)).keeps(r, event, to)
}

func (w word) keeps(r Ref, event uint8, to *Timeouts) (timeout uint32, ok bool) {
	s := (w&(wordSpliced|wordNoOutput|wordLive|wordState) ^ wordLive) // the state, if it is live, whole and was answered, else more
	return w.timeout(), s < word(NumStates) && steady[r&refReply][event&31]>>s&1 != 0 && to[s] == w.timeout()
}

// Seen counts the packet for its direction, whose entry e is, and restarts the timer. It reports false, and has changed nothing, if the
// timer may fire at the same moment: then the packet is for Track.
func (e *common) Seen(now Tick, timeout uint32) bool {
	idle := now.since(Tick(atomic.LoadUint32(&e.seen)))
	if 2*int64(idle) >= int64(timeout) {
		return false
	}
	if idle > 0 {
		atomic.StoreUint32(&e.seen, uint32(now)) // once in a tick, not for each packet: it is a locked instruction
	}
	e.packets.add(1)
	return true
}

// State is that of r's connection now.
func (t *Table) State(r Ref) State { return word(atomic.LoadUint64(t.life(r))).state() }

// Unanswered reports whether r is of a one-way connection whose server has not been seen (the kernel's IP_VS_CONN_F_NOOUTPUT).
func (t *Table) Unanswered(r Ref) bool { return word(atomic.LoadUint64(t.life(r)))&wordNoOutput != 0 }

// direction is that of packets of r.
func (w word) direction(r Ref) direction {
	switch {
	case r.Reply():
		return output
	case w&wordNoOutput != 0:
		return inputOnly
	}
	return input
}

// transit is Track for a packet that changes the word: a transition, a new timeout, the first packet of a server, or one so late that
// the timer may fire at the same moment. seen is stored before the word is changed and the timer reads them the other way round
// (Expire), so either it sees the packet or its own change of the word fails.
func (t *Table) transit(r Ref, event uint8, to *Timeouts, now Tick) (Change, bool) {
	e, p := t.common(r), t.life(r)
	for {
		w := word(atomic.LoadUint64(p))
		if !w.live() || t.over(r, w, now) {
			return Change{}, false
		}
		c := Change{w.state(), w.state().step(w.direction(r), event)}
		flags := w & (wordLive | wordNoOutput | wordKind)
		if r.Reply() {
			flags &^= wordNoOutput
		}
		next := makeWord(c.New, flags, w+generationUnit, to[c.New])
		if now.since(Tick(atomic.LoadUint32(&e.seen))) > 0 {
			atomic.StoreUint32(&e.seen, uint32(now))
		}
		rises := c.New.HalfOpen() && !c.Old.HalfOpen()
		if rises {
			t.raiseSource(r) // before anybody can lower it again: its source's count does not fall below zero
		}
		if !atomic.CompareAndSwapUint64(p, uint64(w), uint64(next)) {
			if rises {
				t.lowerSource(r)
			}
			continue
		}
		if c.Old.HalfOpen() != c.New.HalfOpen() {
			t.counts.move(c)
			if !rises {
				t.lowerSource(r)
			}
		}
		if c.Old != c.New {
			t.assure(r, c.New)
		}
		if to[c.New] < w.timeout() {
			t.families[r.family()].lower(r.number(), due(now, to[c.New]))
		}
		e.packets.add(1)
		return c, true
	}
}
