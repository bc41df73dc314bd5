package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weir/control/health"
)

// patients are servers that are down if the test says so. They answer in no time, in a synctest bubble.
type patients struct {
	mu    sync.Mutex
	down  map[netip.Addr]bool
	asked map[netip.Addr]int
}

func (p *patients) probe(_ context.Context, c *health.Check) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[c.Target.Addr()]++
	if p.down[c.Target.Addr()] {
		return errors.New("connect: connection refused")
	}
	return nil
}

func (p *patients) set(host int, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down[netip.AddrFrom4([4]byte{198, 18, 1, byte(host)})] = down
}

// healthBed is a coreBed whose servers are looked after. Time is the bubble's.
type healthBed struct {
	*coreBed
	*patients
}

func newHealthBed(t *testing.T, services string) *healthBed {
	t.Helper()
	b := &healthBed{patients: &patients{down: map[netip.Addr]bool{}, asked: map[netip.Addr]int{}}}
	b.coreBed = newCoreBedWith(t, services, func(c *core) {
		m := health.NewMonitor(health.Options{Probe: b.probe})
		t.Cleanup(m.Close)
		c.reg.watch = newWatch(m)
	})
	return b
}

// pass lets time go by as control's loop does, a housekeeping at a time.
func (b *healthBed) pass(d time.Duration) {
	b.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(housekeeping)
		synctest.Wait()
		b.core.mu.Lock()
		b.core.reg.shun(b.core.engine.Handshakes)
		if b.core.reg.attend() {
			s, err := offline(b.core.cfg)
			if err != nil {
				b.t.Fatal(err)
			}
			x, err := b.core.again(s)
			if err == nil {
				err = b.core.engine.Publish(x.snapshot)
			}
			if err != nil {
				b.t.Fatal(err)
			}
			b.core.purge(x)
		}
		b.core.mu.Unlock()
	}
}

// told are the events since the last time.
func (b *healthBed) told() string {
	b.t.Helper()
	b.core.mu.Lock()
	defer b.core.mu.Unlock()
	var all []string
	for _, e := range b.core.reg.events {
		all = append(all, fmt.Sprintf("%s %s>%s %s", e.Backend, e.From, e.To, e.Why))
	}
	b.core.reg.events = nil
	return strings.Join(all, "; ")
}

// spread opens n connections and counts them by server.
func (b *healthBed) spread(n int) map[byte]int {
	b.t.Helper()
	all := map[byte]int{}
	for range n {
		all[b.connect()]++
	}
	return all
}

// until opens connections until one goes to a server.
func (b *healthBed) until(host byte) {
	b.t.Helper()
	for range 10 {
		if b.connect() == host {
			return
		}
	}
	b.t.Fatalf("no connection goes to %d: %v, %v", host, b.spread(4), b.core.stats().Drops)
}

func (b *healthBed) view(i int) BackendView {
	b.core.mu.Lock()
	defer b.core.mu.Unlock()
	return b.core.services()[0].Backends[i]
}

// watched is a service with a tcp check, with these lines more.
func watched(lines string, backends ...string) string {
	s := "  - {name: web, vip: 198.18.9.9, port: 80, check: {interval: 1s}, " + lines + "backends: ["
	for _, b := range backends {
		s += "{address: 198.18.1." + strings.Replace(b, " ", ", port: 8000, ", 1) + "},"
	}
	return strings.TrimSuffix(s, ",") + "]}\n"
}

func TestADeadServerGetsNoMore(t *testing.T) {
	for _, x := range []struct{ name, lines string }{
		{"rr", "scheduler: rr, "}, {"wrr", "scheduler: wrr, "}, {"wlc", ""}, {"mh", "scheduler: mh, "}, {"sh", "scheduler: sh, flags: [sh-port], "},
		{"inhibited", "scheduler: wrr, inhibit_on_failure: true, "},
		{"mh inhibited", "scheduler: mh, flags: [mh-port, mh-fallback], inhibit_on_failure: true, "},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHealthBed(t, watched(x.lines, "10 weight: 1", "11 weight: 1", "12 weight: 1"))
				b.pass(3 * time.Second)
				if got := b.told(); got != "" {
					t.Errorf("told %s", got)
				}
				b.set(11, true)
				b.pass(5 * time.Second)
				if got := b.told(); got != "198.18.1.11:8000 up>down connect: connection refused" {
					t.Errorf("told %s", got)
				}
				got := b.spread(60)
				if len(got) == 0 || got[11] != 0 || got[0] != 0 {
					t.Errorf("60 connections went to %v", got)
				}
				if v := b.view(1); v.State != "down" || v.Weight != 0 || v.Configured != 1 || v.Why == "" || v.Check.Up || v.SinceS == 0 {
					t.Errorf("the dead server is %+v", v)
				}
				b.set(11, false)
				b.pass(4 * time.Second)
				if got := b.told(); got != "198.18.1.11:8000 down>up " {
					t.Errorf("told %s", got)
				}
				if got := b.spread(60); got[11] == 0 || got[0] != 0 {
					t.Errorf("60 connections went to %v when it was back", got)
				}
			})
		})
	}
}

// TestWhatBecomesOfOldConnections has one connection on a server that dies and comes back.
func TestWhatBecomesOfOldConnections(t *testing.T) {
	for _, x := range []struct {
		name, how        string
		middle, syn, end byte // where a segment goes while it is down, then a SYN from the same port, then a segment when it is back; 0: nowhere
		answered         uint64
		dropped          string
	}{
		{"keep", "keep", 11, 10, 10, 0, ""},
		{"reset", "reset", 0, 10, 10, 1, ""},
		{"reschedule", "reschedule", 0, 10, 10, 0, "backend_gone"},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHealthBed(t, watched("scheduler: rr, on_down: "+x.how+", ", "10 weight: 1", "11 weight: 1"))
				b.pass(2 * time.Second)
				b.until(11)
				port := b.port
				if got := b.send(port, false); got != 11 {
					t.Fatalf("its connection goes to %d", got)
				}
				b.set(11, true)
				b.pass(5 * time.Second)
				before := b.core.stats()
				if got := b.send(port, false); got != x.middle {
					t.Errorf("a segment went to %d", got)
				}
				after := b.core.stats()
				if got := after.Verdicts.Answered - before.Verdicts.Answered; got != x.answered {
					t.Errorf("%d answered", got)
				}
				if x.dropped != "" && after.Drops[x.dropped] != before.Drops[x.dropped]+1 {
					t.Errorf("drops %v", after.Drops)
				}
				if got := b.send(port, true); got != x.syn {
					t.Errorf("a SYN went to %d", got)
				}
				b.set(11, false)
				b.pass(4 * time.Second)
				if got := b.send(port, false); got != x.end {
					t.Errorf("when it was back a segment went to %d", got)
				}
			})
		})
	}
	t.Run("what falls silent goes on if the server comes back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newHealthBed(t, watched("scheduler: rr, on_down: reschedule, ", "10 weight: 1", "11 weight: 1"))
			b.pass(2 * time.Second)
			b.until(11)
			b.set(11, true)
			b.pass(5 * time.Second)
			if got := b.send(b.port, false); got != 0 {
				t.Errorf("a segment went to %d", got)
			}
			b.set(11, false)
			b.pass(4 * time.Second)
			if got := b.send(b.port, false); got != 11 {
				t.Errorf("when it was back a segment went to %d", got)
			}
		})
	})
}

func TestPersistentClientsLeaveADeadServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHealthBed(t, watched("scheduler: rr, persistence: {}, ", "10 weight: 1", "11 weight: 1"))
		b.pass(2 * time.Second)
		first := b.connect()
		if again := b.connect(); again != first {
			t.Fatalf("persistence led to %d and %d", first, again)
		}
		b.set(int(first), true)
		b.pass(5 * time.Second)
		other := byte(10 + 11 - int(first))
		if got := b.spread(4); got[other] != 4 {
			t.Errorf("clients of %d went to %v", first, got)
		}
	})
}

func TestBackupServesWhenAllAreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHealthBed(t, watched("scheduler: rr, ", "10 weight: 1", "11 weight: 1", "12 backup: true"))
		b.set(10, true)
		b.set(11, true)
		b.pass(5 * time.Second)
		if got := b.spread(4); got[12] != 4 {
			t.Errorf("went to %v", got)
		}
		b.set(12, true)
		b.pass(5 * time.Second)
		if got := b.spread(4); got[0] != 4 {
			t.Errorf("with all down, went to %v", got)
		}
		b.set(11, false)
		b.pass(5 * time.Second)
		if got := b.spread(4); got[11] != 4 {
			t.Errorf("with one back, went to %v", got)
		}
	})
}

// TestSlowStart looks at the share of a server that comes up, of two with weight 1 and wrr, whose shares are exact.
// It opens connections by SYNs alone, of which the table has more than enough in the end.
func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHealthBed(t, watched("scheduler: wrr, slow_start: 20s, syn_cookies: off, ", "10 weight: 1", "11 weight: 1"))
		b.pass(3 * time.Second)
		if got := b.spread(20); got[11] != 10 {
			t.Errorf("a server that never went down begins with %v", got)
		}
		b.set(11, true)
		b.pass(5 * time.Second)
		b.set(11, false)
		for range 10 {
			if b.pass(housekeeping); b.view(1).State == "slow_start" {
				break
			}
		}
		last := 0
		for i := range 45 {
			v := b.view(1)
			if v.State == "up" {
				if i < 36 || i > 42 {
					t.Errorf("full after %v", time.Duration(i)*housekeeping)
				}
				break
			}
			if v.Share < last || v.Share < 10 || v.Share > 90 {
				t.Errorf("%d%% after %d%%", v.Share, last)
			}
			last = v.Share
			n := 11 * (100 + v.Share) / 10 // whole rounds of weights 10 and Share/10
			got := b.spread(n)
			if want := 11 * v.Share / 10; got[11] < want-2 || got[11] > want+2 {
				t.Errorf("with %d%% it got %d of %d", v.Share, got[11], n)
			}
			b.pass(housekeeping)
		}
		if last != 90 {
			t.Errorf("the last step was %d%%", last)
		}
		if v := b.view(1); v.State != "up" || v.Weight != 1 {
			t.Errorf("it ends as %+v", v)
		}
		if got := b.spread(20); got[11] != 10 {
			t.Errorf("in the end %v", got)
		}
		if got := b.told(); got != "198.18.1.11:8000 up>down connect: connection refused; 198.18.1.11:8000 down>slow_start ; 198.18.1.11:8000 slow_start>up " {
			t.Errorf("told %s", got)
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHealthBed(t, watched("scheduler: rr, ", "10 weight: 1", "11 weight: 1"))
		b.pass(2 * time.Second)
		b.until(11)
		port := b.port
		b.reload(watched("scheduler: rr, ", "10 weight: 1", "11 weight: 1, state: drain, drain_timeout: 10s"))
		if got := b.spread(10); got[10] != 10 {
			t.Errorf("connections went to %v", got)
		}
		b.pass(5 * time.Second)
		if v := b.view(1); v.State != "drain" || v.Left != v.Active+v.Inactive || v.Left == 0 || v.EndsInS < 4 || v.EndsInS > 5 || v.Weight != 0 {
			t.Errorf("it is %+v", v)
		}
		if got := b.send(port, false); got != 11 {
			t.Errorf("its connection goes to %d", got)
		}
		b.reload(watched("scheduler: wrr, ", "10 weight: 1", "11 weight: 1, state: drain, drain_timeout: 10s")) // time goes on over a reload
		b.pass(5500 * time.Millisecond)
		if v := b.view(1); v.State != "drained" || v.Left != 0 {
			t.Errorf("it is %+v", v)
		}
		before := b.core.stats().Verdicts.Answered
		if got := b.send(port, false); got != 0 || b.core.stats().Verdicts.Answered != before+1 {
			t.Errorf("a segment after the deadline went to %d, unanswered", got)
		}
		b.reload(watched("scheduler: rr, ", "10 weight: 1", "11 weight: 1"))
		if got := b.spread(10); got[11] != 5 {
			t.Errorf("when it is back, connections went to %v", got)
		}
		if got := b.told(); got != "198.18.1.11:8000 up>drain ; 198.18.1.11:8000 drain>drained drain_timeout of 10s is over; 198.18.1.11:8000 drained>up " {
			t.Errorf("told %s", got)
		}
	})
}

// TestDrainOfAServerThatStops: an application that is drained fails its check as soon as it is told to stop. Its connections go on, as on_down says,
// but not beyond drain_timeout, which counts from the reload whenever the check began to fail.
func TestDrainOfAServerThatStops(t *testing.T) {
	drained := watched("scheduler: rr, ", "10 weight: 1", "11 weight: 1, state: drain, drain_timeout: 20s")
	for _, x := range []struct {
		name   string
		before bool // it fails before it is drained
		again  bool // and is well again before the time is over
	}{{"it stops while it drains", false, false}, {"it was down before", true, false}, {"it comes back", false, true}} {
		synctest.Test(t, func(t *testing.T) {
			b := newHealthBed(t, watched("scheduler: rr, ", "10 weight: 1", "11 weight: 1"))
			b.pass(2 * time.Second)
			b.until(11)
			port := b.port
			if b.set(11, x.before); x.before {
				b.pass(5 * time.Second)
			}
			b.reload(drained)
			b.set(11, true)
			b.pass(5 * time.Second)
			if v := b.view(1); v.State != "down" || v.Check.Up {
				t.Errorf("%s: it is %+v", x.name, v)
			}
			if got := b.send(port, false); got != 11 {
				t.Errorf("%s: its connection goes to %d", x.name, got)
			}
			b.set(11, !x.again)
			b.pass(10 * time.Second)
			if v := b.view(1); x.again != (v.State == "drain") || x.again && (v.EndsInS < 4 || v.EndsInS > 5) {
				t.Errorf("%s: after 15s it is %+v", x.name, v)
			}
			if got := b.send(port, false); got != 11 {
				t.Errorf("%s: after 15s its connection goes to %d", x.name, got)
			}
			b.pass(5500 * time.Millisecond)
			if v := b.view(1); v.State != "drained" || v.Left != 0 || !strings.Contains(v.Why, "drain_timeout of 20s is over") {
				t.Errorf("%s: after its time it is %+v", x.name, v)
			}
			if got := b.send(port, false); got != 0 {
				t.Errorf("%s: a segment after the deadline went to %d", x.name, got)
			}
			b.set(11, false)
			b.pass(5 * time.Second)
			if v := b.view(1); v.State != "drained" {
				t.Errorf("%s: in the end it is %+v", x.name, v)
			}
			b.reload(watched("scheduler: rr, ", "10 weight: 1", "11 weight: 1"))
			if got := b.spread(10); got[11] != 5 {
				t.Errorf("%s: when it is back, connections went to %v", x.name, got)
			}
		})
	}
}

// TestHealthOverReloads reloads other things, the check itself, and what is refused, while a server is down.
func TestHealthOverReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := watched("scheduler: rr, ", "10 weight: 1", "11 weight: 1")
		b := newHealthBed(t, service)
		b.set(11, true)
		b.pass(5 * time.Second)
		b.told()
		for _, edited := range []string{
			watched("scheduler: wrr, ", "10 weight: 1", "11 weight: 1"),
			strings.Replace(service, "interval: 1s", "interval: 2s", 1),
			service + "  - {vip: 198.18.9.10, port: 80, check: {interval: 1s}, backends: [{address: 198.18.1.11, port: 8000}]}\n",
			service,
		} {
			b.reload(edited)
			if got := b.spread(4); got[10] != 4 {
				t.Errorf("after a reload connections went to %v\n%s", got, edited)
			}
			// A refused configuration, with news of the server under way.
			b.core.mu.Lock()
			cfg := b.parse(watched("scheduler: rr, ", "11 weight: 1"))
			s, _ := offline(cfg)
			if _, err := b.core.prepare(cfg, s); err != nil {
				t.Fatal(err)
			}
			b.core.undo()
			b.core.mu.Unlock()
			if got := b.spread(4); got[10] != 4 {
				t.Errorf("after a refusal connections went to %v", got)
			}
		}
		if v := b.view(1); v.State != "down" {
			t.Errorf("it is %+v", v)
		}
		if got := b.told(); got != "" && got != "198.18.1.11:8000 up>down connect: connection refused" { // the second service's
			t.Errorf("told %s", got)
		}
		b.set(11, false)
		b.pass(6 * time.Second)
		if got := b.spread(4); got[11] != 2 {
			t.Errorf("in the end connections went to %v", got)
		}
		b.reload(strings.Replace(service, "check: {interval: 1s}, ", "", 1))
		b.set(11, true)
		b.pass(6 * time.Second)
		if got := b.spread(4); got[11] != 2 {
			t.Errorf("without a check connections went to %v", got)
		}
	})
}

// TestEditedCheckWhileItChanges has a server go down between the compile of a configuration that edits its check and its publication.
func TestEditedCheckWhileItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := watched("scheduler: rr, ", "10 weight: 1", "11 weight: 1")
		b := newHealthBed(t, service)
		b.pass(3 * time.Second)
		edited := b.parse(strings.Replace(service, "interval: 1s", "interval: 2s", 1))
		s, err := offline(edited)
		if err != nil {
			t.Fatal(err)
		}
		b.core.mu.Lock()
		x, err := b.core.prepare(edited, s)
		if err != nil {
			t.Fatal(err)
		}
		b.set(11, true)
		time.Sleep(5 * time.Second) // a reload of ten thousand services takes one of these
		synctest.Wait()
		if err := b.core.publish(edited, x, time.Now()); err != nil {
			t.Fatal(err)
		}
		b.core.mu.Unlock()
		b.pass(10 * time.Second)
		if v := b.view(1); v.State != "down" || v.Check.Up {
			t.Errorf("it is %s, its check says %v", v.State, v.Check)
		}
		if got := b.spread(4); got[10] != 4 {
			t.Errorf("connections went to %v", got)
		}
	})
}

// TestRefusalKeepsTime: what becomes otherwise with time alone does so though a configuration that says otherwise was refused.
func TestRefusalKeepsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := watched("scheduler: wrr, slow_start: 10s, ", "10 weight: 1", "11 weight: 1", "12 weight: 1, state: drain, drain_timeout: 20s")
		b := newHealthBed(t, slow)
		b.set(11, true)
		b.pass(5 * time.Second)
		b.set(11, false)
		for b.view(1).State != "slow_start" {
			b.pass(housekeeping)
		}
		refused := watched("scheduler: wrr, ", "10 weight: 1", "11 weight: 1", "12 weight: 1")
		b.core.mu.Lock()
		if _, err := b.core.prepare(b.parse(refused), b.surroundings(refused)); err != nil {
			t.Fatal(err)
		}
		b.core.undo()
		b.core.mu.Unlock()
		b.pass(20 * time.Second)
		if x, y := b.view(1), b.view(2); x.State != "up" || y.State != "drained" {
			t.Errorf("after its slow start the one is %s with %d%%, after its time the other %s", x.State, x.Share, y.State)
		}
	})
}

// TestOneCheckForAll has a hundred services with the same two servers.
func TestOneCheckForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var services string
		for i := range 100 {
			services += fmt.Sprintf("  - {vip: 198.19.0.%d, port: 80, check: tcp, backends: [{address: 198.18.1.10, port: 8000}, {address: 198.18.1.11, port: 8000}]}\n", i+1)
		}
		b := newHealthBed(t, services)
		b.set(11, true)
		b.pass(10 * time.Second)
		b.mu.Lock()
		n := b.asked[netip.MustParseAddr("198.18.1.11")]
		b.mu.Unlock()
		if n < 4 || n > 6 {
			t.Errorf("asked %d times in 10s", n)
		}
		b.core.mu.Lock()
		defer b.core.mu.Unlock()
		for _, s := range b.core.services() {
			if s.Backends[0].State != "up" || s.Backends[1].State != "down" {
				t.Fatalf("%s has servers %s and %s", s.Name, s.Backends[0].State, s.Backends[1].State)
			}
		}
	})
}

func TestInitStateDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHealthBed(t, strings.Replace(watched("scheduler: rr, ", "10 weight: 1", "11 weight: 1"), "interval: 1s", "interval: 1s, init_state: down", 1))
		b.set(11, true)
		if got := b.spread(4); got[0] != 4 {
			t.Errorf("before any answer connections went to %v", got)
		}
		if v := b.view(0); v.State != "down" || v.Why != "not checked yet" {
			t.Errorf("it is %+v", v)
		}
		b.pass(2 * time.Second)
		if got := b.spread(4); got[10] != 4 {
			t.Errorf("connections went to %v", got)
		}
	})
}

// TestPassive has a server that answers its check but no client.
func TestPassive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHealthBed(t, watched("scheduler: rr, passive: {syns: 3, for: 10s}, ", "10 weight: 1", "11 weight: 1"))
		b.pass(2 * time.Second)
		retry := func(host byte) uint16 { // a SYN to that server, and the same once more
			b.t.Helper()
			b.until(host)
			if got := b.send(b.port, true); got != host {
				t.Errorf("a SYN that is repeated goes to %d, not to %d", got, host)
			}
			return b.port
		}
		port := retry(11)
		retry(11)
		b.pass(time.Second)
		b.send(port, false) // the client's ACK: the server has answered after all
		b.pass(time.Second)
		retry(11)
		retry(11)
		b.pass(time.Second)
		if got := b.told(); got != "" || b.view(1).State != "up" {
			t.Errorf("two in a row, and it is %s: %s", b.view(1).State, got)
		}
		port = retry(11)
		b.pass(time.Second)
		if got := b.told(); got != "198.18.1.11:8000 up>down 3 SYNs in a row without an answer" {
			t.Errorf("told %s", got)
		}
		if got := b.spread(6); got[10] != 6 {
			t.Errorf("connections went to %v", got)
		}
		if got := b.send(port, true); got != 10 {
			t.Errorf("a SYN that is repeated once more goes to %d", got)
		}
		b.pass(10 * time.Second)
		if got := b.spread(6); got[11] != 3 {
			t.Errorf("when it is tried again, connections went to %v", got)
		}
		if retried, opened := b.core.engine.Handshakes(1); retried != 5 || opened != 1 {
			t.Errorf("%d repeated, %d opened", retried, opened)
		}
		b.pass(20 * time.Second)
		if v := b.view(1); v.State != "up" {
			t.Errorf("those of before count again: %+v", v)
		}
	})
}
