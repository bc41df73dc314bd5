package conntrack

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Workers look up, track, insert, unlink and expire the same few connections, beside some that stay. Nobody ever misses one that stays,
// reads an entry of another connection, or accounts for one twice.
func TestConcurrentWorkers(t *testing.T) {
	const workers, changing, staying = 4, 96, 32
	tab := newTable(t, changing/4+staying, workers) // so that Full happens, too
	conns := make([]Conn, changing+staying)
	for i := range conns {
		conns[i] = nat(i, i%2 == 0, udp)
		if i < changing && i%8 >= 6 { // two that share a reply tuple
			conns[i].Reply = conns[i-2].Reply
		}
	}
	for i := changing; i < len(conns); i++ {
		mustInsert(t, tab, conns[i], 0, 0)
	}
	var inserted, ended [workers]atomic.Int64
	var outcomes [Clash + 1]atomic.Int64
	var clock atomic.Uint32
	stop := time.Now().Add(time.Second)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 7))
			to := DefaultTimeouts()
			to[UDP] = 40
			forever := DefaultTimeouts()
			forever[UDP] = MaxTimeout
			var q [16]Query
			var at [16]int
			out := make([]Ended, 8)
			for round := 0; round&15 != 0 || time.Now().Before(stop); round++ {
				now := Tick(clock.Load())
				for i := range q {
					at[i] = rng.IntN(len(conns))
					q[i].Tuple = conns[at[i]].Forward
					if rng.IntN(2) == 0 {
						q[i].Tuple = conns[at[i]].Reply
					}
				}
				tab.Lookup(q[:])
				for i := range q {
					r := q[i].Ref
					if r == 0 {
						if at[i] >= changing {
							t.Errorf("connection %d stays, but is not found", at[i])
							return
						}
						r, _, o := tab.Insert(w, &conns[at[i]], 0, &to, now)
						outcomes[o].Add(1)
						if o == Inserted {
							inserted[w].Add(1)
							q[i].Ref = r
						}
						continue
					}
					if in, _ := tab.tuples(r); in != q[i].Tuple {
						t.Errorf("looked up %+v, found %+v", q[i].Tuple, in)
						return
					}
					n := tab.Flags(r)
					if c := &conns[n]; c.Backend != tab.Backend(r) || tab.Flags(r.Peer()) != n || c.Forward != q[i].Tuple && c.Reply != q[i].Tuple {
						t.Errorf("looked up %+v, found connection %d", q[i].Tuple, n)
						return
					}
					if int(n) >= changing {
						if _, alive := tab.Track(r, 0, &forever, now); !alive {
							t.Errorf("connection %d stays, but takes no packet", n)
							return
						}
						continue
					}
					tab.Track(r, 0, &to, now)
					if rng.IntN(4) == 0 {
						if _, ok := tab.Unlink(w, r); ok {
							ended[w].Add(1)
						}
					}
				}
				// What was looked up or inserted at the beginning of the vector is what it was, whatever has ended since.
				for i := range q {
					if r := q[i].Ref; r != 0 {
						if in, _ := tab.tuples(r); in != q[i].Tuple && in != conns[at[i]].Forward {
							t.Errorf("%+v has become %+v within a vector", q[i].Tuple, in)
							return
						}
					}
				}
				n, _ := tab.Expire(w, now, 64, out)
				ended[w].Add(int64(n))
				switch rng.IntN(64) {
				case 0:
					tab.Sleep(w)
					tab.Wake(w)
				case 1:
					clock.Add(5)
					tab.Quiesce(w)
				case 2:
					tab.Range(now, func(i *Info) bool {
						if c := &conns[i.Flags]; i.Forward != c.Forward || i.ReplyTo != c.ReplyTo || i.Backend != c.Backend {
							t.Errorf("Range lists %+v as connection %d", i, i.Flags)
						}
						return true
					})
					fallthrough
				default:
					tab.Quiesce(w)
				}
			}
		})
	}
	wg.Wait()
	var in, gone int64
	for w := range workers {
		in += inserted[w].Load()
		gone += ended[w].Load()
	}
	now := Tick(clock.Load())
	gone += int64(len(tab.expireAll(0, now+1000)))
	if in-gone != 0 || tab.Len() != staying {
		t.Errorf("%d inserted and %d ended; Len is %d, want %d", in, gone, tab.Len(), staying)
	}
	for o := range outcomes {
		t.Logf("%v: %d times", Outcome(o), outcomes[o].Load())
	}
	if outcomes[Inserted].Load() == 0 || outcomes[Clash].Load() == 0 || outcomes[Full].Load() == 0 {
		t.Error("an outcome never occurred: the test shows less than it should")
	}
}

// Two workers insert connections that share a tuple at the same moment: one wins.
func TestSimultaneousInserts(t *testing.T) {
	const workers = 4
	for _, c := range []struct {
		name string
		vary func(c *Conn, w int)
		lost Outcome
	}{
		{"the same forward tuple", func(c *Conn, w int) { c.Reply.Ports += uint32(w) }, Exists},
		{"the same reply tuple", func(c *Conn, w int) { c.Forward.Ports += uint32(w) }, Clash},
	} {
		tab, to := newTable(t, 1<<12, workers), DefaultTimeouts()
		for round := range 500 {
			var outcomes [Clash + 1]atomic.Int32
			var start, wg sync.WaitGroup
			start.Add(1)
			for w := range workers {
				wg.Go(func() {
					conn := nat(round, round%2 == 0, udp)
					c.vary(&conn, w)
					start.Wait()
					_, _, o := tab.Insert(w, &conn, 0, &to, 0)
					outcomes[o].Add(1)
				})
			}
			start.Done()
			wg.Wait()
			if outcomes[Inserted].Load() != 1 || outcomes[c.lost].Load() != workers-1 {
				t.Fatalf("%s: inserted %d times, %v %d times", c.name, outcomes[Inserted].Load(), c.lost, outcomes[c.lost].Load())
			}
		}
	}
}

const plant = "CONNTRACK_PLANT_RACE"

// The tests above show something only if the race detector sees a Table's memory. So it must report a race that is planted there.
func TestRaceDetectorSeesTheTable(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a test binary")
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("no go tool: %v", err)
	}
	cmd := exec.Command(tool, "test", "-race", "-count=1", "-run=^TestPlantedRace$", ".")
	cmd.Env = append(os.Environ(), plant+"=1")
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "-race requires cgo") || strings.Contains(string(out), "build failed") || strings.Contains(string(out), "not supported") {
		t.Skipf("no race detector here: %s", out)
	}
	if err == nil || !strings.Contains(string(out), "WARNING: DATA RACE") {
		t.Errorf("a planted race was not reported: %v\n%s", err, out)
	}
}

func TestPlantedRace(t *testing.T) {
	if os.Getenv(plant) == "" {
		t.Skip("only for TestRaceDetectorSeesTheTable")
	}
	tab := newTable(t, 4, 2)
	r := mustInsert(t, tab, nat(1, false, udp), 0, 0)
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() { tab.Entry4(r).Backend = uint32(w) })
	}
	wg.Wait()
}
