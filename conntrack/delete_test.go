package conntrack

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestDeleteEndsWhatIsWantedAndNothingElse(t *testing.T) {
	tab := newTable(t, 3000, 1)
	for i := range 3000 {
		c := nat(i, i%3 == 0, tcp)
		c.Backend, c.OneWay = uint32(i%7), i%5 == 0
		mustInsert(t, tab, c, syn, 0)
	}
	ended := map[uint32]int{}
	n := tab.Delete(0, 0, func(i *Info) bool { return i.Backend == 2 && !i.OneWay }, func(e Ended) { ended[e.Backend]++ })
	want := 0
	for i := range 3000 {
		gone := i%7 == 2 && i%5 != 0
		if gone {
			want++
		}
		if (find(t, tab, nat(i, i%3 == 0, tcp).Forward) == 0) != gone {
			t.Fatalf("connection %d: gone %v", i, !gone)
		}
	}
	if n != want || len(ended) != 1 || ended[2] != want || tab.Len() != 3000-want {
		t.Errorf("%d deleted, %v accounted for, %d left; want %d", n, ended, tab.Len(), want)
	}
	const most = 300 // some of one family, then of both
	for range 5 {
		before := tab.Len()
		if n := tab.Delete(0, most, func(i *Info) bool { return !i.OneWay }, func(Ended) {}); n != most || tab.Len() != before-most {
			t.Errorf("%d deleted of %d at most, from %d to %d", n, most, before, tab.Len())
		}
	}
	want += 5 * most
	if n := tab.Delete(0, 0, func(*Info) bool { return true }, func(Ended) {}); n != 3000-want || tab.Len() != 0 {
		t.Errorf("%d deleted, %d left", n, tab.Len())
	}
	tab.Quiesce(0) // their memory is used again
	for i := 3000; i < 6000; i++ {
		mustInsert(t, tab, nat(i, i%3 == 0, tcp), syn, 0)
		tab.Quiesce(0)
	}
}

// TestDeleteCountsWhatItEnds: one that a worker ends between the question and the end is not among those that are to be ended.
func TestDeleteCountsWhatItEnds(t *testing.T) {
	tab := newTable(t, 100, 1)
	refs := map[Tuple]Ref{}
	for i := range 10 {
		c := nat(i, false, udp)
		refs[c.Forward] = mustInsert(t, tab, c, 0, 0)
	}
	first := true
	n := tab.Delete(0, 4, func(i *Info) bool {
		if first {
			if _, ok := tab.Unlink(0, refs[i.Forward]); !ok {
				t.Fatal("it has ended already")
			}
		}
		first = false
		return true
	}, func(Ended) {})
	if n != 4 || tab.Len() != 5 {
		t.Errorf("%d deleted, %d left, want 4 and 5", n, tab.Len())
	}
}

// Workers open and end the connections that Delete takes from them: each connection is accounted for once, and none is lost.
func TestDeleteWhileWorkersRun(t *testing.T) {
	const workers, conns = 3, 64
	tab := newTable(t, 4*conns, workers)
	var inserted, ended, deleted atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			to := DefaultTimeouts()
			to[UDP] = 3
			out := make([]Ended, 16)
			for round := 0; !stop.Load(); round++ {
				now := Tick(round)
				c := nat(round%conns, round%2 == 0, udp)
				if r, _, o := tab.Insert(w, &c, 0, &to, now); o == Inserted {
					inserted.Add(1)
					if round%5 == 0 {
						if _, ok := tab.Unlink(w, r); ok {
							ended.Add(1)
						}
					}
				}
				n, _ := tab.Expire(w, now, 32, out)
				ended.Add(int64(n))
				tab.Quiesce(w)
			}
		})
	}
	limit := time.Now().Add(20 * time.Second) // on a machine that is very slow, the workers may not come to run at once
	for rounds := 0; (rounds < 200 || deleted.Load() == 0) && time.Now().Before(limit); rounds++ {
		deleted.Add(int64(tab.Delete(0, 0, func(i *Info) bool { return i.Backend == nat(0, false, udp).Backend }, func(Ended) {})))
	}
	stop.Store(true)
	wg.Wait()
	left := tab.Delete(0, 0, func(*Info) bool { return true }, func(Ended) {})
	ended.Add(int64(len(tab.expireAll(0, 1<<30)))) // what had expired by tick 0 is not for Delete
	if got := ended.Load() + deleted.Load() + int64(left); got != inserted.Load() || tab.Len() != 0 {
		t.Errorf("%d inserted, %d ended, %d deleted, %d left; Len is %d", inserted.Load(), ended.Load(), deleted.Load(), left, tab.Len())
	}
	if deleted.Load() == 0 {
		t.Error("nothing was deleted")
	}
}
