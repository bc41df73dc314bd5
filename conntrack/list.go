package conntrack

import (
	"sync/atomic"
	"time"
)

// Info is a connection as control sees it.
type Info struct {
	Forward, ForwardTo    Tuple
	Reply, ReplyTo        Tuple
	State                 State
	Backend, Flags        uint32
	Expires               time.Duration // after now, unless a packet comes
	InPackets, OutPackets uint64        // forward and reply
	OneWay                bool
}

// Range calls f for each connection that has not expired, in no order, until f returns false. Any goroutine may call it while workers
// run, and f may take its time: connections are copied a few at a time, and only meanwhile is memory held back from reuse, and who else
// looks at all of them held up. What is inserted or ends during Range may be listed or not.
func (t *Table) Range(now Tick, f func(*Info) bool) {
	const batch = 64
	var infos [batch]Info
	for fam := range t.families {
		a := &t.families[fam]
		for from := uint32(1); from < a.fresh.Load(); from += batch {
			t.ranging.Lock()
			n := t.copyTo(&infos, family(fam), from, min(from+batch, a.fresh.Load()), now)
			t.ranging.Unlock()
			for i := range infos[:n] {
				if !f(&infos[i]) {
					return
				}
			}
		}
	}
}

// copyTo writes connections from to to-1 to infos and returns how many it wrote. It is awake as the last worker meanwhile, so none of
// them is given to another connection.
func (t *Table) copyTo(infos *[64]Info, f family, from, to uint32, now Tick) (n int) {
	me := len(t.workers) - 1
	t.Wake(me)
	defer t.workers[me].quiet.Store(asleep)
	for c := from; c < to; c++ {
		// A deadline is written after the entries, and taken away before they are.
		if atomic.LoadUint32(&t.families[f].deadlines[c]) == 0 {
			continue
		}
		if t.copyOne(&infos[n], f.ref(c), now) {
			n++
		}
	}
	return n
}

// copyOne writes the connection of r, its forward entry, to i. It reports false if it has expired or is being unlinked.
func (t *Table) copyOne(i *Info, r Ref, now Tick) bool {
	w := word(atomic.LoadUint64(t.life(r)))
	last := t.last(r)
	if !w.live() || t.over(r, w, now) {
		return false
	}
	e, p := t.common(r), t.common(r|refReply)
	*i = Info{
		State: w.state(), Backend: e.Backend, Flags: e.Flags, OneWay: w&wordOneWay != 0,
		Expires:   time.Duration(int64(w.timeout())-int64(now.since(last))) << tickShift,
		InPackets: e.packets.load(), OutPackets: p.packets.load(),
	}
	i.Forward, i.ForwardTo = t.tuples(r)
	i.Reply, i.ReplyTo = t.tuples(r | refReply)
	return true
}

// Find calls f with the connection that a packet of tuple belongs to, and the Ref of its direction, which is valid until f returns. It
// reports false if there is none, or none that is alive. Like Range it is for control; f must be quick, and must not call it or Range.
func (t *Table) Find(now Tick, tuple *Tuple, f func(Ref, *Info)) bool {
	t.ranging.Lock()
	defer t.ranging.Unlock()
	if t.index == nil { // closed
		return false
	}
	me := len(t.workers) - 1
	t.Wake(me)
	defer t.workers[me].quiet.Store(asleep)
	q := [1]Query{{Tuple: *tuple}}
	t.Lookup(q[:])
	var i Info
	if r := q[0].Ref; r == 0 || !t.copyOne(&i, r&^refReply, now) {
		return false
	}
	f(q[0].Ref, &i)
	return true
}

// Purge ends every connection of the backends that gone names and gives each to ended. Any goroutine may call it while workers run, as
// Range; what is inserted meanwhile may be left out.
func (t *Table) Purge(gone func(backend uint32) bool, ended func(Ended)) {
	t.ranging.Lock()
	defer t.ranging.Unlock()
	const batch = 1024
	me := len(t.workers) - 1
	for fam := range t.families {
		a := &t.families[fam]
		for from := uint32(1); from < a.fresh.Load(); from += batch {
			t.Wake(me)
			for c := from; c < min(from+batch, a.fresh.Load()); c++ {
				if atomic.LoadUint32(&a.deadlines[c]) == 0 {
					continue
				}
				r := family(fam).ref(c)
				if !gone(t.Backend(r)) {
					continue
				}
				if e, ok := t.Unlink(me, r); ok {
					ended(e)
				}
			}
			t.Sleep(me) // hands what it has ended to the workers
		}
	}
}
