package conntrack

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestLookup(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		tab := newTable(t, 8, 1)
		c := nat(3, v6, tcp)
		c.Forward.Space, c.ReplyTo.Space = 5001<<8|tcp, 5001<<8|tcp
		r := mustInsert(t, tab, c, syn, 0)
		if r.Reply() || r.V6() != v6 || !r.Peer().Reply() || r.Peer().Peer() != r {
			t.Errorf("v6 %v: Insert returns %#x, want a forward entry", v6, r)
		}
		near := func(f func(*Tuple)) Tuple { k := c.Forward; f(&k); return k }
		for _, k := range []struct {
			name string
			key  Tuple
			want Ref
		}{
			{"the forward tuple", c.Forward, r},
			{"the reply tuple", c.Reply, r.Peer()},
			{"what the forward tuple becomes", c.ForwardTo, 0},
			{"another source", near(func(k *Tuple) { k.Src.Lo++ }), 0},
			{"another destination", near(func(k *Tuple) { k.Dst.Lo++ }), 0},
			{"another port", near(func(k *Tuple) { k.Ports ^= 1 }), 0},
			{"another protocol", near(func(k *Tuple) { k.Space ^= 1 }), 0},
			{"another segment", near(func(k *Tuple) { k.Space ^= 1 << 8 }), 0},
			{"the other family", near(func(k *Tuple) { k.V6 = !k.V6 }), 0},
			{"no space", near(func(k *Tuple) { k.Space = 0 }), 0},
			{"nothing at all", Tuple{}, 0},
		} {
			if got := tab.lookup(k.key); got != k.want {
				t.Errorf("v6 %v: %s: %#x, want %#x", v6, k.name, got, k.want)
			}
		}
		if tab.Backend(r.Peer()) != c.Backend || tab.Flags(r) != c.Flags {
			t.Errorf("v6 %v: backend %d flags %d, want %d and %d", v6, tab.Backend(r.Peer()), tab.Flags(r), c.Backend, c.Flags)
		}
		if v6 {
			if e := tab.Entry6(r); e.NewDst != c.ForwardTo.Dst || e.NewSrc != c.ForwardTo.Src || e.NewPorts != c.ForwardTo.Ports || e.NewSpace != tcp {
				t.Errorf("IPv6 rewrite is %+v", e)
			}
		} else if e := tab.Entry4(r); uint64(e.NewDst) != c.ForwardTo.Dst.Lo || uint64(e.NewSrc) != c.ForwardTo.Src.Lo || e.NewPorts != c.ForwardTo.Ports || e.NewSpace != tcp {
			t.Errorf("IPv4 rewrite is %+v", e)
		}
	}
}

func TestOutcomes(t *testing.T) {
	to := DefaultTimeouts()
	tab := newTable(t, 8, 1)
	a, b := nat(1, false, tcp), nat(2, false, tcp)
	r := mustInsert(t, tab, a, syn, 0)

	again := a
	again.Reply = b.Reply
	if got, s, o := tab.Insert(0, &again, syn, &to, 0); o != Exists || got != r || s != SynRecv {
		t.Errorf("the same forward tuple: %v %#x %v, want Exists with the first one's Ref and state", o, got, s)
	}
	clash := b
	clash.Reply = a.Reply
	if got, _, o := tab.Insert(0, &clash, syn, &to, 0); o != Clash || got != r.Peer() {
		t.Errorf("the same reply tuple: %v %#x, want Clash with %#x", o, got, r.Peer())
	}
	crossed := b
	crossed.Forward = a.Reply
	if got, _, o := tab.Insert(0, &crossed, syn, &to, 0); o != Exists || got != r.Peer() {
		t.Errorf("a forward tuple that is another's reply: %v %#x, want Exists with %#x", o, got, r.Peer())
	}
	mirror := b
	mirror.Reply = mirror.Forward
	if _, _, o := tab.Insert(0, &mirror, syn, &to, 0); o != Clash {
		t.Errorf("a reply tuple equal to the forward one: %v, want Clash", o)
	}
	clash.OneWay = true
	if _, _, o := tab.Insert(0, &clash, syn, &to, 0); o != Inserted {
		t.Errorf("a one-way connection has no reply tuple that could clash: %v", o)
	}
	if tab.lookup(a.Reply) != r.Peer() {
		t.Error("the reply tuple leads to another connection now")
	}
	if tab.Len() != 2 {
		t.Errorf("Len() = %d after two insertions and four refusals", tab.Len())
	}
}

// Capacity is reached exactly, again and again, by any worker, whoever ended the connections before and whatever lies in caches.
func TestFull(t *testing.T) {
	for _, workers := range []int{1, 3} {
		for _, capacity := range []int{1, 2, 100, 1000} {
			tab, to := newTable(t, capacity, workers), DefaultTimeouts()
			for round := range 4 {
				v6 := func(i int) bool { return (i+round)%3 == 0 }
				for i := range capacity {
					c := nat(round*capacity+i, v6(i), udp)
					if _, _, o := tab.Insert(i%workers, &c, 0, &to, 0); o != Inserted {
						t.Fatalf("%d workers, capacity %d, round %d: connection %d: %v", workers, capacity, round, i, o)
					}
				}
				c := nat(1<<20, false, udp)
				if _, _, o := tab.Insert(0, &c, 0, &to, 0); o != Full {
					t.Fatalf("%d workers, capacity %d, round %d: one more: %v, want Full", workers, capacity, round, o)
				}
				c = nat(round*capacity, v6(0), udp)
				if _, _, o := tab.Insert(0, &c, 0, &to, 0); o != Exists {
					t.Fatalf("a connection that exists is found in a full table, too: %v", o)
				}
				if tab.Len() != capacity || tab.Cap() != capacity {
					t.Fatalf("Len %d Cap %d, want %d", tab.Len(), tab.Cap(), capacity)
				}
				if n := len(tab.expireAll(round%workers, ticks(301*time.Second))); n != capacity || tab.Len() != 0 {
					t.Fatalf("%d connections expired, %d are left; want %d and 0", n, tab.Len(), capacity)
				}
				for range 3 {
					for w := range workers {
						tab.Quiesce(w)
					}
				}
			}
		}
	}
}

// A worker that ended everything and sleeps keeps nothing from the others.
func TestSleeperLeavesNothing(t *testing.T) {
	const capacity = 500
	tab, to := newTable(t, capacity, 2), DefaultTimeouts()
	for round := range 5 {
		for i := range capacity {
			c := nat(round*capacity+i, false, udp)
			if _, _, o := tab.Insert(1, &c, 0, &to, 0); o != Inserted {
				t.Fatalf("round %d: connection %d: %v", round, i, o)
			}
		}
		tab.Wake(0)
		if n := len(tab.expireAll(0, ticks(301*time.Second))); n != capacity {
			t.Fatalf("%d connections expired", n)
		}
		tab.Sleep(0)
		tab.Quiesce(1)
		tab.Quiesce(1)
	}
}

func TestUnlink(t *testing.T) {
	tab, to := newTable(t, 4, 1), DefaultTimeouts()
	for _, v6 := range []bool{false, true} {
		for _, oneWay := range []bool{false, true} {
			c := nat(5, v6, tcp)
			c.OneWay = oneWay
			r := mustInsert(t, tab, c, syn, 0)
			tab.Track(r, ack, &to, 0)
			want := Ended{Backend: c.Backend, Flags: c.Flags, State: Established, Proto: tcp}
			if e, ok := tab.Unlink(0, r.Peer()); !ok || e != want {
				t.Errorf("Unlink: %+v %v, want %+v", e, ok, want)
			}
			if _, ok := tab.Unlink(0, r); ok {
				t.Error("a second Unlink says that it ended the connection")
			}
			if _, alive := tab.Track(r, ack, &to, 0); alive {
				t.Error("a packet is taken after Unlink")
			}
			if a, b := tab.lookup(c.Forward), tab.lookup(c.Reply); a != 0 || b != 0 || tab.Len() != 0 {
				t.Errorf("after Unlink: forward %#x, reply %#x, Len %d", a, b, tab.Len())
			}
		}
	}
}

// Until a worker is quiet, what it looked up is not given to another connection, whoever ended it and whoever inserts.
func TestRefIsNotReusedWithinAVector(t *testing.T) {
	tab, to := newTable(t, 1, 3), DefaultTimeouts()
	tab.Sleep(2)
	old := nat(1, false, udp)
	r := mustInsert(t, tab, old, 0, 0)
	if got := tab.lookup(old.Forward); got != r {
		t.Fatal("not found")
	}
	tab.Unlink(0, r) // worker 1 holds r
	for i := 2; i < 1000; i++ {
		tab.Quiesce(0)
		c := nat(i, false, udp)
		got, _, o := tab.Insert(0, &c, 0, &to, 0)
		if o == Inserted {
			if got == r {
				t.Fatalf("insertion %d got the entry that worker 1 holds", i)
			}
			tab.Unlink(0, got)
		}
	}
	if in, _ := tab.tuples(r); in != old.Forward {
		t.Errorf("worker 1 reads %+v, want %+v", in, old.Forward)
	}
	tab.Quiesce(1)
	seen := false
	for i := 1000; i < 2000 && !seen; i++ {
		tab.Quiesce(0)
		tab.Quiesce(1)
		c := nat(i, false, udp)
		got, _, o := tab.Insert(0, &c, 0, &to, 0)
		if o != Inserted {
			t.Fatalf("insertion %d with all workers quiet: %v", i, o)
		}
		seen = got == r
		tab.Unlink(0, got)
	}
	if !seen {
		t.Error("the entry is never reused, though all workers were quiet")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{Capacity: 0, Workers: 1}, {Capacity: MaxCapacity + 1, Workers: 1}, {Capacity: 1}, {Capacity: 1, Workers: MaxWorkers + 1}} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), "must be 1 to") {
			t.Errorf("New(%+v): error %v, want one that names the range", o, err)
		}
	}
}

// TestFind looks for both directions of a connection, one of each family, while it lives and after.
func TestFind(t *testing.T) {
	tab, to := newTable(t, 16, 1), DefaultTimeouts()
	for i, v6 := range []bool{false, true} {
		c := nat(i, v6, tcp)
		r := mustInsert(t, tab, c, syn, 0)
		tab.Track(r, syn, &to, 0)
		for _, x := range []struct {
			tuple Tuple
			ref   Ref
		}{{c.Forward, r}, {c.Reply, r.Peer()}} {
			found := false
			ok := tab.Find(100, &x.tuple, func(ref Ref, i *Info) {
				found = ref == x.ref && i.Forward == c.Forward && i.ReplyTo == c.ReplyTo && i.State == SynRecv && i.InPackets == 1
			})
			if !ok || !found {
				t.Errorf("v6 %t: %t, as it is: %t", v6, ok, found)
			}
			if tab.Find(Tick(to[SynRecv])+1, &x.tuple, func(Ref, *Info) {}) {
				t.Error("it is found when it is over")
			}
		}
		if tab.Find(0, &Tuple{}, func(Ref, *Info) {}) || tab.Find(0, &c.ForwardTo, func(Ref, *Info) {}) {
			t.Error("what there is not is found")
		}
		tab.Unlink(0, r)
		if tab.Find(0, &c.Forward, func(Ref, *Info) {}) {
			t.Error("it is found when it is unlinked")
		}
	}
}

func TestRange(t *testing.T) {
	tab, to := newTable(t, 300, 1), DefaultTimeouts()
	want := map[string]bool{}
	for i := range 300 {
		c := nat(i, i%2 == 0, tcp)
		r := mustInsert(t, tab, c, syn, 0)
		tab.Track(r, syn, &to, 0)
		tab.Track(r.Peer(), syn|ack, &to, Tick(i))
		want[fmt.Sprint(Info{c.Forward, c.ForwardTo, c.Reply, c.ReplyTo, SynRecv, c.Backend, c.Flags,
			time.Duration(to[SynRecv]+uint32(i)-100) << tickShift, 1, 1, false})] = true
	}
	n := 0
	tab.Range(100, func(i *Info) bool {
		if !want[fmt.Sprint(*i)] {
			t.Errorf("unexpected %+v", i)
		}
		n++
		return true
	})
	if n != 300 {
		t.Errorf("Range lists %d connections, want 300", n)
	}
	n = 0
	tab.Range(100, func(*Info) bool { n++; return n < 10 })
	if n != 10 {
		t.Errorf("Range went on to %d after false at 10", n)
	}
	tab.Range(ticks(2*time.Minute), func(i *Info) bool { t.Errorf("expired, but listed: %+v", i); return false })
}
