package health

import (
	"container/heap"
	"context"
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Options of a Monitor.
type Options struct {
	Probe   Probe                             // nil: Ask
	Limit   int                               // checks at once; 0: 1024
	Changed func()                            // called after a state has changed, from any goroutine; it must not block. Nil: nobody wants to know
	Jitter  func(time.Duration) time.Duration // a moment from 0 to below what it is given; nil: at random
}

// Monitor does checks. Close ends it.
type Monitor struct {
	options Options
	ctx     context.Context // of all probes
	cancel  context.CancelFunc
	wake    chan struct{} // the schedule has changed, or a probe has ended
	ended   sync.WaitGroup
	seed    maphash.Seed // of alike

	mu      sync.Mutex
	targets map[Check]*target
	alike   map[uint64]*target // one of those that ask the same, by its digest
	kin     map[kin]*family
	before  map[kin]State // what another process knew, as long as that is news: see Remember
	newsTo  time.Time
	due     schedule
	running int
	late    uint64  // checks that began a second or more after they were due
	changed []Check // since they were asked for last
}

// target is one check with its state.
type target struct {
	check Check
	state State
	next  time.Time          // when it is due
	index int                // in the schedule; -1: it is under way, or gone
	stop  context.CancelFunc // of the probe under way
	gone  bool
}

// asked is what c asks, whatever its pace: the server's state is not forgotten because its interval was edited.
func (c *Check) asked() Check {
	a := *c
	a.Interval, a.Timeout, a.Rise, a.Fall, a.Down = 0, 0, 0, 0, false
	return a
}

// digest is of what c asks. A table of the checks themselves would be as large as that of the targets.
func (m *Monitor) digest(c *Check) uint64 { return maphash.Comparable(m.seed, c.asked()) }

// kin is what a check has in common with one that replaces it though it asks for something else.
type kin struct {
	kind   Kind
	target netip.AddrPort
}

func (c *Check) kin() kin { return kin{c.Kind, c.Target} }

// family are the checks of one kin. Their answers may well differ: one server serves many names, and each has a check of its own.
type family struct {
	of       map[*target]struct{}
	up, down int // of those whose state is known
}

// count adds t to its family's counts, or with -1 takes it from them.
func (f *family) count(t *target, by int) {
	switch {
	case !t.state.known():
	case t.state.Up:
		f.up += by
	default:
		f.down += by
	}
}

// join has later checks begin in the state of t, as initial says, and leave ends that.
func (m *Monitor) join(t *target) {
	f := m.kin[t.check.kin()]
	if f == nil {
		f = &family{of: map[*target]struct{}{}}
		m.kin[t.check.kin()] = f
	}
	f.of[t] = struct{}{}
	f.count(t, 1)
	m.alike[m.digest(&t.check)] = t
}

func (m *Monitor) leave(t *target) {
	f := m.kin[t.check.kin()]
	f.count(t, -1)
	if delete(f.of, t); len(f.of) == 0 {
		delete(m.kin, t.check.kin())
	}
	if d := m.digest(&t.check); m.alike[d] == t {
		delete(m.alike, d)
	}
}

// firstWithin is how soon after it was given a check is done for the first time, at random, so that a thousand are not done at once.
const firstWithin = time.Second

// NewMonitor makes a monitor without checks.
func NewMonitor(o Options) *Monitor {
	if o.Probe == nil {
		o.Probe = Ask
	}
	if o.Limit == 0 {
		o.Limit = 1024
	}
	if o.Jitter == nil {
		o.Jitter = func(d time.Duration) time.Duration { return rand.N(max(d, 1)) }
	}
	m := &Monitor{options: o, wake: make(chan struct{}, 1), seed: maphash.MakeSeed(), targets: map[Check]*target{}, alike: map[uint64]*target{}, kin: map[kin]*family{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.ended.Go(m.run)
	return m
}

// Close ends all checks, those under way too, and returns when nothing of the monitor runs any more.
func (m *Monitor) Close() {
	m.cancel()
	m.ended.Wait()
}

// Set makes these the checks that are done, and no others, as Change does.
func (m *Monitor) Set(checks []Check) {
	wanted := make(map[Check]bool, len(checks))
	for _, c := range checks {
		wanted[c] = true
	}
	var drop []Check
	m.mu.Lock()
	for c := range m.targets {
		if !wanted[c] {
			drop = append(drop, c)
		}
	}
	m.mu.Unlock()
	m.Change(checks, drop)
}

// Change has the checks in add done from now on, and those in drop no more; none is in both. Those that are done already keep their state and
// their turn; of what is dropped nothing is remembered, but that a check which is added with it may begin in its state: see initial.
func (m *Monitor) Change(add, drop []Check) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	fresh := make([]*target, 0, len(add))
	for i := range add {
		c := add[i]
		if m.targets[c] != nil {
			continue
		}
		t := &target{check: c, state: m.initial(&c, now), next: now.Add(m.options.Jitter(min(firstWithin, c.Interval)))}
		m.targets[c] = t
		heap.Push(&m.due, t)
		fresh = append(fresh, t)
	}
	for _, c := range drop {
		t := m.targets[c]
		if t == nil {
			continue
		}
		delete(m.targets, c)
		t.gone = true
		m.leave(t)
		if t.index >= 0 {
			heap.Remove(&m.due, t.index)
		} else if t.stop != nil {
			t.stop()
		}
	}
	for _, t := range fresh { // after all of them have begun as those before
		m.join(t)
	}
	m.poke()
}

// initial is the state of a check before its first answer: as another one says that asks the same, or as all say that ask something of the same
// target in the same way, or as it is configured. Where those differ none speaks for another: a name that is down would take down all servers of one
// whose check was edited.
func (m *Monitor) initial(c *Check, now time.Time) State {
	if t := m.alike[m.digest(c)]; t != nil && t.state.known() && t.check.asked() == c.asked() {
		return t.state.heir()
	}
	if f := m.kin[c.kin()]; f != nil && (f.up > 0) != (f.down > 0) {
		for t := range f.of {
			if t.state.known() {
				return t.state.heir()
			}
		}
	}
	if s, ok := m.before[c.kin()]; ok && now.Before(m.newsTo) {
		return s
	}
	return State{Up: !c.Down, Since: now}
}

// State is what is known of a check; of one that is not done, what holds before the first answer.
func (m *Monitor) State(c Check) State {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.targets[c]; t != nil {
		return t.state
	}
	return m.initial(&c, time.Now())
}

// Changes are the checks whose state has changed since Changes was called last, each once, in no order. Some may have changed back.
func (m *Monitor) Changes() []Check {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := make(map[Check]bool, len(m.changed))
	var all []Check
	for _, c := range m.changed {
		if !seen[c] {
			seen[c] = true
			all = append(all, c)
		}
	}
	m.changed = nil
	return all
}

// Load is how many checks there are, how many are under way, and how many began a second or more too late.
func (m *Monitor) Load() (checks, running int, late uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.targets), m.running, m.late
}

// poke makes run look at the schedule anew.
func (m *Monitor) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run begins checks when they are due.
func (m *Monitor) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for m.ctx.Err() == nil {
		timer.Reset(m.begin())
		select {
		case <-m.ctx.Done():
		case <-m.wake:
		case <-timer.C:
		}
	}
}

// begin begins what is due and may begin, and returns how long there is nothing else to do.
func (m *Monitor) begin() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for m.running < m.options.Limit && len(m.due) > 0 && !m.due[0].next.After(now) {
		t := heap.Pop(&m.due).(*target)
		if now.Sub(t.next) >= time.Second {
			m.late++
		}
		ctx, stop := context.WithTimeout(m.ctx, t.check.Timeout)
		t.stop = stop
		m.running++
		m.ended.Go(func() { m.ask(ctx, t, now) })
	}
	if m.running >= m.options.Limit || len(m.due) == 0 {
		return time.Hour // a probe that ends pokes
	}
	return m.due[0].next.Sub(now)
}

// ask does a check and puts it back into the schedule.
func (m *Monitor) ask(ctx context.Context, t *target, began time.Time) {
	err := m.options.Probe(ctx, &t.check)
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		err = errTimeout
	}
	at := time.Now()
	m.mu.Lock()
	t.stop()
	t.stop = nil
	m.running--
	changed := false
	if !t.gone && m.ctx.Err() == nil {
		f := m.kin[t.check.kin()]
		f.count(t, -1)
		if changed = t.state.note(&t.check, err, at, at.Sub(began)); changed {
			m.changed = append(m.changed, t.check)
		}
		f.count(t, 1)
		i := t.check.Interval
		t.next = began.Add(i - i/20 + m.options.Jitter(i/10))
		if t.next.Before(at) {
			t.next = at
		}
		heap.Push(&m.due, t)
	}
	m.mu.Unlock()
	m.poke()
	if changed && m.options.Changed != nil {
		m.options.Changed()
	}
}

// errTimeout is a check that was not over in time, whatever it waited for.
var errTimeout = errors.New("no answer in time")

// schedule is the targets that wait for their turn, a heap by when that is.
type schedule []*target

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].next.Before(s[j].next) }
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}

func (s *schedule) Push(x any) {
	t := x.(*target)
	t.index = len(*s)
	*s = append(*s, t)
}

func (s *schedule) Pop() any {
	n := len(*s) - 1
	t := (*s)[n]
	(*s)[n] = nil
	*s = (*s)[:n]
	t.index = -1
	return t
}
