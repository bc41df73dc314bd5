package conntrack

import (
	"testing"
	"time"
)

func TestNothingIsAllocated(t *testing.T) {
	tab, to := newTable(t, 1000, 2), DefaultTimeouts()
	tab.Sleep(1)
	q, narrow := make([]Query, 64), make([]Query4, 64)
	for i := range q {
		c := nat(i, i%2 == 0, tcp)
		mustInsert(t, tab, c, syn, 0)
		q[i].Tuple = c.Reply
		if !c.Reply.V6 {
			narrow[i] = q[i].Narrow()
		}
	}
	out := make([]Ended, 16)
	extra, now := nat(500, false, tcp), Tick(0)
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"Lookup", func() { tab.Lookup(q) }},
		{"Lookup4", func() {
			tab.Lookup4(narrow)
			tab.Wide(&narrow[1])
		}},
		{"Track", func() { now++; tab.Track(q[0].Ref, ack, &to, now) }},
		{"Track with a transition", func() {
			tab.Track(q[1].Ref, syn, &to, 0)
			tab.Track(q[1].Ref, rst, &to, 0)
		}},
		{"Insert and Unlink", func() {
			r, _, _ := tab.Insert(0, &extra, syn, &to, 0)
			tab.Unlink(0, r)
		}},
		{"Insert of what exists", func() {
			c := nat(1, false, tcp)
			tab.Insert(0, &c, syn, &to, 0)
		}},
		{"Expire", func() {
			extra := nat(500, true, tcp)
			tab.Insert(0, &extra, syn, &to, 0)
			tab.Expire(0, ticks(time.Second), 256, out)
		}},
		{"Quiesce, Sleep and Wake", func() { tab.Quiesce(0); tab.Sleep(0); tab.Wake(0) }},
	} {
		if n := testing.AllocsPerRun(100, c.f); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}
