package vxlan

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Workers look up and learn, entries age, control adds, removes and flushes, all on the same few slots. A station that stays is always found
// where it is, and a place is always one of the station's own: the slot of one key is never read as another's.
func TestConcurrentFDB(t *testing.T) {
	const workers, changing, staying = 3, 48, 16
	f := newFDB(t, changing/2+staying, 2) // so that the table is full now and then
	f.Configure(0, changing, 2)
	// A station's places are its own: a peer whose number says who it is.
	at := func(n, which int) Place { return AtPeer(uint16(n*2 + which)) }
	for n := changing; n < changing+staying; n++ {
		if f.Learn(1, station(n), at(n, 0), 0) != New {
			t.Fatal("no room for those that stay")
		}
	}
	var clock atomic.Uint32
	var outcomes [numCounts]atomic.Int64
	f.Configure(1, staying, 0)
	stop := time.Now().Add(time.Second)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			var q [16]Query
			var who [16]int
			for time.Now().Before(stop) {
				now := Second(clock.Load())
				for i := range q {
					who[i] = rng.IntN(changing + staying)
					q[i] = Query{MAC: station(who[i])}
					if who[i] >= changing {
						q[i].Segment = 1
					}
				}
				f.Lookup(q[:])
				for i := range q {
					n := who[i]
					if n >= changing && q[i].Place != at(n, 0) {
						t.Errorf("station %d stays, but is at %#x", n, q[i].Place)
						return
					}
					if p := q[i].Place; p != 0 && p != at(n, 0) && p != at(n, 1) {
						t.Errorf("station %d is at %#x, which is another's place", n, p)
						return
					}
					if n < changing {
						outcomes[f.Learn(0, station(n), at(n, rng.IntN(2)), now)].Add(1)
					} else {
						f.Learn(1, station(n), at(n, 0), now)
					}
				}
				if rng.IntN(16) == 0 {
					f.Expire(now, 64)
				}
			}
		})
	}
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(9, 9))
		for time.Now().Before(stop) {
			n := rng.IntN(changing)
			switch rng.IntN(8) {
			case 0:
				clock.Add(1)
			case 1:
				f.Add(0, station(n), at(n, 1), Second(clock.Load()))
			case 2:
				f.Flush(func(s Station) bool { return s.Segment == 0 && s.Static })
			case 3:
				f.Range(func(s Station) bool {
					if n := int(s.MAC - station(0)); s.Place != at(n, 0) && s.Place != at(n, 1) {
						t.Errorf("Range lists %+v", s)
					}
					return true
				})
			default:
				f.Remove(0, station(n))
			}
		}
	})
	wg.Wait()
	if f.Used(1) != staying {
		t.Errorf("%d of those that stay, want %d", f.Used(1), staying)
	}
	f.Flush(func(s Station) bool { return s.Segment == 0 })
	if f.Used(0) != 0 || f.Len() != staying || f.segments[0].learned.Load() != 0 {
		t.Errorf("flushed, yet %d entries, %d learned, %d in all", f.Used(0), f.segments[0].learned.Load(), f.Len())
	}
	for l := Known; l < numCounts; l++ {
		t.Logf("%v: %d times", l, outcomes[l].Load())
	}
	for _, l := range []Learned{Known, New, Moved, Static, Frozen, TableFull} {
		if outcomes[l].Load() == 0 {
			t.Errorf("%v never happened: the test shows less than it should", l)
		}
	}
}

// The same for Neighbors: an address is never said to have another's MAC.
func TestConcurrentNeighbors(t *testing.T) {
	const workers, hosts = 3, 48
	n := newNeighbors(t, hosts/2, 1)
	n.Configure(0, hosts, 2)
	host := func(i int) (Addr, bool) {
		if i%2 == 0 {
			return Addr{Lo: 198<<24 | 18<<16 | uint64(i)}, false
		}
		return Addr{0x20010db8 << 32, uint64(i)}, true
	}
	mac := func(i, which int) MAC { return station(i*2 + which) }
	var clock atomic.Uint32
	stop := time.Now().Add(time.Second)
	var known atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 2))
			var q [16]NeighborQuery
			var who [16]int
			for time.Now().Before(stop) {
				now := Second(clock.Load())
				for i := range q {
					who[i] = rng.IntN(hosts)
					a, v6 := host(who[i])
					q[i] = NeighborQuery{Addr: a, V6: v6}
				}
				n.Resolve(q[:], now)
				for i := range q {
					if m := q[i].MAC; m != 0 {
						known.Add(1)
						if m != mac(who[i], 0) && m != mac(who[i], 1) {
							t.Errorf("host %d has %v, which is another's", who[i], m)
							return
						}
					}
					if q[i].Ask != AskNone || rng.IntN(4) == 0 {
						n.Learn(0, q[i].Addr, q[i].V6, mac(who[i], rng.IntN(2)), Proof(rng.IntN(3)), now)
					}
					n.Known(0, q[i].Addr, q[i].V6, now)
				}
				switch rng.IntN(64) {
				case 0:
					clock.Add(1)
				case 1:
					n.Flush(func(x Neighbor) bool { return x.Addr.Lo%5 == 0 })
				default:
					n.Expire(now, 16)
				}
			}
		})
	}
	wg.Wait()
	if known.Load() == 0 {
		t.Error("nothing was ever known")
	}
	n.Flush(func(Neighbor) bool { return true })
	if n.Len() != 0 || n.Used(0) != 0 {
		t.Errorf("flushed, yet %d entries, %d in the segment", n.Len(), n.Used(0))
	}
}
