package health

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// bench is a set of servers that answer as the test says, in a synctest bubble: time passes when all wait.
type bench struct {
	mu     sync.Mutex
	errs   map[netip.AddrPort]error
	takes  time.Duration                      // an answer
	asked  map[netip.AddrPort][]time.Duration // when, since the bubble began
	began  time.Time
	under  atomic.Int32
	most   int32
	events int
}

func newBench() *bench {
	return &bench{errs: map[netip.AddrPort]error{}, asked: map[netip.AddrPort][]time.Duration{}, began: time.Now()}
}

func (b *bench) probe(ctx context.Context, c *Check) error {
	b.mu.Lock()
	b.asked[c.Target] = append(b.asked[c.Target], time.Since(b.began))
	err, takes := b.errs[c.Target], b.takes
	b.most = max(b.most, b.under.Add(1))
	b.mu.Unlock()
	defer b.under.Add(-1)
	select {
	case <-time.After(takes):
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *bench) answer(target netip.AddrPort, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.errs[target] = err
}

func (b *bench) changed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events++
}

func (b *bench) times(target netip.AddrPort) []time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]time.Duration(nil), b.asked[target]...)
}

// monitor is one of these servers, without jitter.
func (b *bench) monitor(limit int) *Monitor {
	return NewMonitor(Options{Probe: b.probe, Limit: limit, Changed: b.changed, Jitter: func(d time.Duration) time.Duration { return d / 2 }})
}

// server is the check of the n-th server.
func server(n int) Check {
	return Check{Target: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}), 80), Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3}
}

var errDead = errors.New("connect: connection refused")

func TestMonitorFollowsAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		m := b.monitor(10)
		defer m.Close()
		c := server(1)
		if !m.State(c).Up {
			t.Error("a server is not up before it was asked")
		}
		m.Set([]Check{c})
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if got, want := fmt.Sprint(b.times(c.Target)), "[500ms 2.5s 4.5s 6.5s 8.5s]"; got != want {
			t.Errorf("asked at %s, want %s", got, want)
		}
		b.answer(c.Target, errDead)
		time.Sleep(5 * time.Second) // asked at 10.5s and 12.5s
		synctest.Wait()
		if s := m.State(c); !s.Up || s.Run != 2 || s.Why != errDead.Error() {
			t.Errorf("after two failures it is %+v", s)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		s := m.State(c)
		if s.Up || s.Since.Sub(b.began) != 14500*time.Millisecond || s.Answers != 8 || s.Failed != 3 {
			t.Errorf("after three failures it is %+v, down at %v", s, s.Since.Sub(b.began))
		}
		if got := m.Changes(); len(got) != 1 || got[0] != c || b.events != 1 {
			t.Errorf("changes %v, told %d times", got, b.events)
		}
		b.answer(c.Target, nil)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if s := m.State(c); !s.Up || s.Why != "" || b.events != 2 || len(m.Changes()) != 1 || len(m.Changes()) != 0 {
			t.Errorf("after two successes it is %+v, told %d times", s, b.events)
		}
	})
}

func TestTimeoutIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.takes = time.Hour
		m := b.monitor(10)
		defer m.Close()
		c := server(1)
		m.Set([]Check{c})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := m.State(c); s.Up || s.Why != "no answer in time" || s.Took != time.Second || s.Answers != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestSetKeepsWhatStays adds, removes and edits checks: what stays keeps state and turn.
func TestSetKeepsWhatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		m := b.monitor(10)
		defer m.Close()
		stays, goes, edited := server(1), server(2), server(3)
		for _, c := range []Check{stays, goes, edited} {
			b.answer(c.Target, errDead)
		}
		m.Set([]Check{stays, stays, goes, edited})
		time.Sleep(time.Second)
		synctest.Wait()
		before := m.State(stays)
		if before.Up || len(b.times(stays.Target)) != 1 {
			t.Fatalf("%+v after %v", before, b.times(stays.Target))
		}
		now := edited
		now.Interval = 10 * time.Second
		if s := m.State(now); s.Up || s.Why == "" {
			t.Errorf("an edit would bring a dead server up: %+v", s)
		}
		m.Set([]Check{now, stays})
		if s := m.State(stays); s != before {
			t.Errorf("what stays went from %+v to %+v", before, s)
		}
		if s := m.State(now); s.Up || s.Answered() {
			t.Errorf("an edited check begins as %+v", s)
		}
		if s := m.State(goes); !s.Up {
			t.Errorf("a check that is gone is remembered: %+v", s)
		}
		time.Sleep(time.Second) // at 2s
		b.answer(now.Target, nil)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if got := fmt.Sprint(b.times(stays.Target)); got != "[500ms 2.5s 4.5s]" {
			t.Errorf("what stays was asked at %s", got)
		}
		if got := fmt.Sprint(b.times(goes.Target)); got != "[500ms]" {
			t.Errorf("what is gone was asked at %s", got)
		}
		if checks, _, _ := m.Load(); checks != 2 {
			t.Errorf("%d checks", checks)
		}
	})
}

// TestNamesOfOneServer edits the checks of two names that one server serves, of which one is down: whichever was given last, no check begins with what
// was found out about the other name.
func TestNamesOfOneServer(t *testing.T) {
	for _, darkLast := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var lit atomic.Bool // dark.example is up, too
			m := NewMonitor(Options{Jitter: func(d time.Duration) time.Duration { return d / 2 }, Probe: func(_ context.Context, c *Check) error {
				if c.Host == "dark.example" && !lit.Load() {
					return errDead
				}
				return nil
			}})
			defer m.Close()
			named := func(host string, interval time.Duration) Check {
				c := server(1)
				c.Kind, c.Host, c.Interval = HTTP, host, interval
				return c
			}
			bright, dark := named("bright.example", 2*time.Second), named("dark.example", 2*time.Second)
			if darkLast {
				m.Set([]Check{bright, dark})
			} else {
				m.Set([]Check{dark, bright})
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			slowBright, slowDark := named("bright.example", 10*time.Second), named("dark.example", 10*time.Second)
			if b, d := m.State(slowBright), m.State(slowDark); !b.Up || d.Up {
				t.Fatalf("dark last %v: edited, bright begins as %+v, dark as %+v", darkLast, b, d)
			}
			other, otherDown := named("other.example", 2*time.Second), named("other.example", 2*time.Second)
			otherDown.Down = true
			if u, d := m.State(other), m.State(otherDown); !u.Up || d.Up || u.inherited || d.inherited {
				t.Errorf("dark last %v: a third name begins as %+v, with init_state down as %+v", darkLast, u, d)
			}
			m.Set([]Check{slowBright, slowDark})
			if b, d := m.State(slowBright), m.State(slowDark); !b.Up || d.Up || b.Answered() || d.Answered() {
				t.Errorf("dark last %v: after the edit bright is %+v, dark %+v", darkLast, b, d)
			}
			lit.Store(true)
			time.Sleep(25 * time.Second)
			synctest.Wait()
			if s := m.State(slowDark); !s.Up {
				t.Fatalf("dark last %v: dark is up, and it is %+v", darkLast, s)
			}
			if s := m.State(otherDown); !s.Up {
				t.Errorf("dark last %v: where all agree a third name begins as %+v", darkLast, s)
			}
			lit.Store(false)
			time.Sleep(45 * time.Second)
			synctest.Wait()
			m.Set([]Check{slowDark})
			if s := m.State(other); s.Up {
				t.Errorf("dark last %v: where the only one is down a third name begins as %+v", darkLast, s)
			}
		})
	}
}

// TestACheckUnderWayIsDroppedWithItsTarget: its answer comes late and says nothing.
func TestACheckUnderWayIsDroppedWithItsTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.takes = 900 * time.Millisecond
		m := b.monitor(10)
		defer m.Close()
		c := server(1)
		b.answer(c.Target, errDead)
		m.Set([]Check{c})
		time.Sleep(600 * time.Millisecond) // it began at 500ms
		m.Set(nil)
		synctest.Wait()
		if n := b.under.Load(); n != 0 {
			t.Errorf("%d checks are under way after all are gone", n)
		}
		m.Set([]Check{c})
		if s := m.State(c); !s.Up || s.Answered() {
			t.Errorf("it begins as %+v", s)
		}
	})
}

// TestLimit has three hundred servers of which none answers, and room for ten checks: they begin late, and no more than ten are under way.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.takes = time.Hour
		m := b.monitor(10)
		defer m.Close()
		var all []Check
		for n := range 300 {
			all = append(all, server(n))
		}
		m.Set(all)
		time.Sleep(40 * time.Second) // 300 checks of a second each, ten at once
		synctest.Wait()
		for _, c := range all {
			if s := m.State(c); s.Up {
				t.Fatalf("%v is up", c.Target)
			}
		}
		_, running, late := m.Load()
		if b.most > 10 || running > 10 || late == 0 {
			t.Errorf("at most %d at once, %d under way, %d late", b.most, running, late)
		}
	})
}

// TestThousandsTakeTheirTurns checks that each of five thousand servers is asked once an interval, and that first ones are spread.
func TestThousandsTakeTheirTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.takes = time.Millisecond
		m := NewMonitor(Options{Probe: b.probe})
		defer m.Close()
		var all []Check
		for n := range 5000 {
			all = append(all, server(n))
		}
		m.Set(all)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		firsts := map[time.Duration]int{}
		for _, c := range all {
			times := b.times(c.Target)
			firsts[times[0].Truncate(100*time.Millisecond)]++
			if n := len(times); n < 9 || n > 11 {
				t.Fatalf("%v was asked %d times in 20s", c.Target, n)
			}
			for i := 1; i < len(times); i++ {
				if d := times[i] - times[i-1]; d < 1900*time.Millisecond || d > 2100*time.Millisecond+time.Millisecond {
					t.Fatalf("%v was asked %v after the last time", c.Target, d)
				}
			}
		}
		if len(firsts) != 10 {
			t.Errorf("the first checks began at %v", maps.Collect(maps.All(firsts)))
		}
		if b.most > 1024 {
			t.Errorf("%d at once", b.most)
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.takes = time.Hour
		m := b.monitor(100)
		var all []Check
		for n := range 50 {
			all = append(all, server(n))
		}
		m.Set(all)
		time.Sleep(600 * time.Millisecond)
		synctest.Wait()
		if b.under.Load() != 50 {
			t.Fatalf("%d under way", b.under.Load())
		}
		m.Close()
		if b.under.Load() != 0 || b.events != 0 {
			t.Errorf("%d under way after Close, %d told", b.under.Load(), b.events)
		}
		m.Close()
	})
}
