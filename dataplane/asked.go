package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// asked is the servers that were asked by a cookie's connection and have not answered. The client believes that it is connected: if it waits for
// the server to speak first it never sends anything that would be a reason to ask again, so weir does, as a host would (RFC 6298 section 5), a second
// later, then 2, 4 and 8 seconds after that, and then tells the client that there is nobody.
//
// Each time of waiting has a queue of its own, so all are in the order of their time. What finds no room is asked again only by what the client sends.
type asked struct {
	n      int // in all queues
	queues [askedTimes]struct {
		head, n int
		at      [askedMax]question
	}
}

type question struct {
	tuple conntrack.Tuple // of the client's packets
	due   int64           // nanoseconds
}

const (
	askedTimes = 4
	askedMax   = 256
	askedFirst = 1_000_000_000 // nanoseconds
)

// await notes that a server was asked for the time-th time, from 0.
func (w *Worker) await(t *conntrack.Tuple, time int) {
	q := &w.asked.queues[time]
	if q.n == askedMax {
		return
	}
	q.at[(q.head+q.n)%askedMax] = question{*t, w.now + askedFirst<<time}
	q.n++
	w.asked.n++
}

// repeat looks at the questions whose time is up.
func (w *Worker) repeat() {
	for time := range w.asked.queues {
		q := &w.asked.queues[time]
		for q.n > 0 && q.at[q.head].due <= w.now {
			x := [1]conntrack.Query{{Tuple: q.at[q.head].tuple}}
			q.head = (q.head + 1) % askedMax
			q.n--
			w.asked.n--
			w.table.Lookup(x[:])
			ref := x[0].Ref
			if ref == 0 || ref.Reply() || !w.table.Spliced(ref) || w.table.State(ref) != conntrack.SynRecv {
				continue
			}
			if _, ok := w.table.Answered(ref); ok {
				continue
			}
			if time+1 == askedTimes {
				w.giveUpOn(ref, &x[0].Tuple)
				continue
			}
			w.ask(ref)
			w.await(&x[0].Tuple, time+1)
		}
	}
}

// ask sends the server of ref, a forward entry, the client's SYN once more.
func (w *Worker) ask(ref conntrack.Ref) {
	s := w.table.Splice(ref)
	x := offer(s.Options)
	g := w.segmentTo(ref)
	g.Flags, g.Seq, g.Window = packet.TCPSyn, s.First, s.Window
	scale, _ := x.scale()
	offers(&g, x.mss(g.V6), x, scale, s.Theirs, 0)
	w.Backends[w.table.Backend(ref)].Retried.add(1)
	w.sendAs(ref, &g)
}

// giveUpOn ends the connection of ref and resets its client.
func (w *Worker) giveUpOn(ref conntrack.Ref, t *conntrack.Tuple) {
	g := packet.Segment{
		Src: wire(t.Dst, t.V6), Dst: wire(t.Src, t.V6), V6: t.V6, SrcPort: uint16(t.Ports), DstPort: uint16(t.Ports >> 16),
		Flags: packet.TCPRst, Seq: w.table.Splice(ref).Cookie + 1,
	}
	w.sendAs(ref.Peer(), &g)
	w.unlink(ref)
}

// segmentTo is a segment of the direction of ref as the connection's entry makes it.
func (w *Worker) segmentTo(ref conntrack.Ref) packet.Segment {
	src, dst, ports, _, v6 := w.becomes(ref)
	return packet.Segment{Src: wire(src, v6), Dst: wire(dst, v6), V6: v6, SrcPort: uint16(ports >> 16), DstPort: uint16(ports)}
}

// sendAs sends a segment of our own the way that packets of ref go, once translated.
func (w *Worker) sendAs(ref conntrack.Ref, g *packet.Segment) {
	f := w.compose(g)
	if f == nil {
		w.Counters.AnswerLost.add(1) // the other side says what it said once more
		return
	}
	_, dst, _, space, v6 := w.becomes(ref)
	l := lane{ref: ref, hop: dst, v6: v6}
	if !ref.Reply() {
		l.flags = connFlags(w.table.Flags(ref))
	}
	ok := true
	if vni := space >> 8; vni != 0 {
		s := w.segment(vni)
		if ok = s != nil && s.Gateway != nil; ok {
			l.into = refOf(s)
			w.locate(&l)
		}
	} else {
		in := w.table.Tuple(ref)
		_, ok = w.nextHop(&l, dst, v6, in.Ports)
	}
	if !ok {
		w.Counters.AnswerLost.add(1)
		w.pool.Put(f.Desc().Addr)
		return
	}
	if l.into != 0 {
		w.clamp(f, &l)
	}
	if l.flags&flagTOA != 0 {
		w.addTOA(f, &l)
	}
	if l.into != 0 {
		w.enter(f, &l, true)
	} else {
		w.leave(f, &l, true)
	}
}
