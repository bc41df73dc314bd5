package conntrack

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// TestSpliceIsTakenOver: what joins the halves of a connection comes along into another process, in place and into a table of another size, whether
// or not the server has answered; connections that are whole stay whole.
func TestSpliceIsTakenOver(t *testing.T) {
	for _, capacity := range []int{64, 100} {
		file := memfd(t)
		old, err := New(Options{Capacity: 64, HalfOpen: 64, Workers: 1, File: file})
		if err != nil {
			t.Fatal(err)
		}
		to := DefaultTimeouts()
		answer := Answer{Seq: 0xfffffff0, Stamp: 7, In: 3, Out: -7}
		conn := func(i int) Conn {
			c := nat(i, i%2 == 1, tcp)
			if c.Spliced = i%3 != 0; c.Spliced {
				c.Splice = Splice{Cookie: uint32(i), First: 2, Stamp: 3, Theirs: 4, Window: 5, Options: 6}
			}
			return c
		}
		for i := range 30 {
			c := conn(i)
			r, _, o := old.Insert(0, &c, syn, &to, 0)
			if o != Inserted {
				t.Fatal(o)
			}
			if i%3 == 2 {
				old.Answer(r.Peer(), answer)
			}
			old.Track(r, syn, &to, 1) // a change of state must not lose it
			old.Track(r.Peer(), ack, &to, 1)
		}
		abandon(t, old)
		o := Options{Capacity: capacity, HalfOpen: capacity, Workers: 1, File: file, Old: file, Keep: all, Now: 2}
		if capacity != 64 {
			o.File = memfd(t)
		}
		tab, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		reachable(t, tab, 2)
		for i := range 30 {
			c := conn(i)
			r := tab.lookup(c.Reply)
			if r == 0 || tab.Spliced(r) != c.Spliced {
				t.Fatalf("capacity %d: connection %d: found %v, spliced %v", capacity, i, r != 0, r != 0 && tab.Spliced(r))
			}
			if !c.Spliced {
				continue
			}
			s := tab.Splice(r)
			if got := (Splice{Cookie: s.Cookie, First: s.First, Stamp: s.Stamp, Theirs: s.Theirs, Window: s.Window, Options: s.Options}); got != c.Splice {
				t.Errorf("capacity %d: connection %d has %+v, want %+v", capacity, i, got, c.Splice)
			}
			if got, ok := tab.Answered(r); ok != (i%3 == 2) || ok && got != answer {
				t.Errorf("capacity %d: connection %d: the answer is %+v, %v", capacity, i, got, ok)
			}
		}
	}
}

// TestHalfOpenOfSources inserts, moves and ends connections of a few sources at random and compares each source's count with one that is kept beside.
func TestHalfOpenOfSources(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		tab := newTable(t, 256, 1)
		tab.CountSources()
		to := DefaultTimeouts()
		refs := map[Ref]Addr{}
		for step := range 2000 {
			i := r.IntN(500)
			c := nat(i, i%2 == 1, tcp)
			if c.Forward.V6 {
				c.Forward.Src = Addr{Hi: 0x20010db8<<32 | uint64(i%5), Lo: uint64(i)} // five networks of many hosts
			} else {
				c.Forward.Src = Addr{Lo: 0xc6120000 | uint64(i%7)}
			}
			c.ForwardTo.Src, c.Reply.Dst, c.ReplyTo.Dst = c.Forward.Src, c.Forward.Src, c.Forward.Src
			switch at := tab.lookup(c.Forward); {
			case at == 0:
				if n, _, o := tab.Insert(0, &c, syn, &to, Tick(step)); o == Inserted {
					refs[n] = c.Forward.Src
				}
			case r.IntN(2) == 0:
				tab.Track(at, []uint8{syn, ack, rst}[r.IntN(3)], &to, Tick(step))
			default:
				tab.Unlink(0, at)
				delete(refs, at)
			}
			tab.Quiesce(0)
			want := map[Addr]int{}
			for n, src := range refs {
				if word(*tab.life(n)).live() && tab.State(n).HalfOpen() {
					if n.V6() {
						src.Lo = 0
					}
					want[src]++
				}
			}
			if step%100 != 0 {
				continue
			}
			for i := range 7 {
				if got := tab.HalfOpenOf(&Tuple{Src: Addr{Lo: 0xc6120000 | uint64(i)}, Space: 6}); got != want[Addr{Lo: 0xc6120000 | uint64(i)}] {
					t.Fatalf("seed %d, step %d: source %d has %d, want %d", seed, step, i, got, want[Addr{Lo: 0xc6120000 | uint64(i)}])
				}
				net := Addr{Hi: 0x20010db8<<32 | uint64(i)}
				if got := tab.HalfOpenOf(&Tuple{Src: Addr{Hi: net.Hi, Lo: 99}, Space: 6, V6: true}); got != want[net] {
					t.Fatalf("seed %d, step %d: network %d has %d, want %d", seed, step, i, got, want[net])
				}
			}
		}
	}
}

// TestWaitingIsTakenOver: the next process is told of each connection whose server has not answered, once, and of no other.
func TestWaitingIsTakenOver(t *testing.T) {
	file := memfd(t)
	old, err := New(Options{Capacity: 64, HalfOpen: 64, Workers: 1, File: file})
	if err != nil {
		t.Fatal(err)
	}
	to := DefaultTimeouts()
	waiting := map[Tuple]bool{}
	for i := range 40 {
		c := nat(i, i%2 == 1, tcp)
		c.Spliced, c.Splice = i%4 != 0, Splice{Cookie: uint32(i)}
		r, _, o := old.Insert(0, &c, syn, &to, 0)
		if o != Inserted {
			t.Fatal(o)
		}
		switch i % 4 {
		case 1:
			waiting[c.Forward] = true
		case 2:
			old.Answer(r.Peer(), Answer{Seq: 7})
		case 3:
			old.Track(r.Peer(), syn|ack, &to, 0)
			old.Track(r, ack, &to, 0)
		}
	}
	abandon(t, old)
	tab, err := New(Options{Capacity: 64, HalfOpen: 64, Workers: 1, File: file, Old: file, Keep: all})
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	for _, n := range []int{3, 100, 1} {
		some := tab.Waiting(n)
		if len(some) > n {
			t.Errorf("%d were asked for, %d told", n, len(some))
		}
		for _, k := range some {
			if !waiting[k] {
				t.Errorf("%v does not wait for its server, or was told before", k)
			}
			delete(waiting, k)
		}
	}
	if len(waiting) != 0 {
		t.Errorf("%d wait for their server and nobody knows", len(waiting))
	}
}

// TestSourcesAreTakenOver: half-open connections count for their source also in the next process, until they are over.
func TestSourcesAreTakenOver(t *testing.T) {
	file := memfd(t)
	old, err := New(Options{Capacity: 64, HalfOpen: 64, Workers: 1, File: file})
	if err != nil {
		t.Fatal(err)
	}
	to := DefaultTimeouts()
	conn := func(i int) Conn {
		c := nat(i, i%2 == 1, tcp)
		c.Forward.Src = nat(i%2, i%2 == 1, tcp).Forward.Src // two sources, one of each family
		c.ReplyTo.Dst = c.Forward.Src
		return c
	}
	const half, whole = 10, 4 // of each
	for i := range 2 * (half + whole) {
		c := conn(i)
		r, _, o := old.Insert(0, &c, syn, &to, 0)
		if o != Inserted {
			t.Fatal(o)
		}
		if i >= 2*half {
			old.Track(r.Peer(), syn|ack, &to, 0)
			old.Track(r, ack, &to, 0)
		}
	}
	abandon(t, old)
	tab, err := New(Options{Capacity: 64, HalfOpen: 64, Workers: 1, File: file, Old: file, Keep: all, CountSources: true})
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	reachable(t, tab, 0)
	for i := range 2 {
		c := conn(i)
		if n := tab.HalfOpenOf(&c.Forward); n != half {
			t.Errorf("source %d has %d half-open connections, want %d", i, n, half)
		}
		r := tab.lookup(c.Forward)
		tab.Track(r.Peer(), syn|ack, &to, 0)
		tab.Track(r, ack, &to, 0)
		if n := tab.HalfOpenOf(&c.Forward); n != half-1 {
			t.Errorf("source %d has %d after one handshake is over, want %d", i, n, half-1)
		}
	}
}

// TestHalfOpenOfSourceByTwo: two workers take packets of one connection at once, one of which makes it half-open and the other not. However their stores
// fall, its source has nothing half-open in the end.
func TestHalfOpenOfSourceByTwo(t *testing.T) {
	tab, to := newTable(t, 16, 2), DefaultTimeouts()
	tab.CountSources()
	c := nat(1, false, tcp)
	r := mustInsert(t, tab, c, syn, 0)
	var wg sync.WaitGroup
	for _, side := range []Ref{r, r.Peer()} {
		wg.Go(func() {
			for range 1_000_000 { // nearly always enough to see the wrong order
				if side.Reply() {
					tab.Track(side, ack, &to, 0) // half-open, established
					tab.Track(side, rst, &to, 0) // closed
				} else {
					tab.Track(side, syn, &to, 0) // half-open
				}
			}
		})
	}
	wg.Wait()
	if _, ok := tab.Unlink(0, r); !ok {
		t.Fatal("the connection is gone")
	}
	if n := tab.HalfOpenOf(&c.Forward); n != 0 || tab.HalfOpen() != 0 {
		t.Errorf("%d of the source and %d in all are half-open, want none", n, tab.HalfOpen())
	}
}
