package chaos

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// checker judges what clients saw. Whatever no rule allows is a violation.
type checker struct {
	journal *journal
	ring    ring

	mu         sync.Mutex
	violations []Violation
	forgiven   map[Kind]map[string]int // by event, what it was the reason of
	counts     map[string]int          // what was done, by name
	lives      []life                  // of connections of records
}

// life is when a connection of records was there, and when nothing came back for longer than noticed.
type life struct {
	began, ended time.Time
	gaps         []gap
}

type gap struct{ from, to time.Time }

// noticed is from when on a silence counts as a pause: some records' time.
const noticed = 150 * time.Millisecond

// Violation is something that must not have happened.
type Violation struct {
	At       float64  `json:"at_s"` // seconds from the start
	What     string   `json:"what"`
	Timeline []string `json:"timeline"` // the connection's history, with the events beside it
}

// maxViolations are told; more are counted.
const maxViolations = 50

// subject is whoever saw something: a connection, a flow.
type subject struct {
	traffic Traffic
	name    string // "nat4 stream 17 from 198.18.0.2:4711"
	server  int    // that it is at, 0: none yet
	began   time.Time
	history []moment
}

type moment struct {
	at   time.Time
	what string
}

// tell adds to the subject's history, of which the first and the last moments are kept.
func (s *subject) tell(format string, args ...any) {
	if len(s.history) >= 40 {
		s.history = slices.Delete(s.history, 10, 11)
	}
	s.history = append(s.history, moment{time.Now(), fmt.Sprintf(format, args...)})
}

// saw judges what s saw at a moment, of what was made at began. It reports whether that was allowed.
func (c *checker) saw(s *subject, what Sight, began, at time.Time, format string, args ...any) bool {
	e := c.journal.pardon(s.traffic, what, s.server, began, at)
	if e == nil {
		c.violation(s, at, "%s: %v, which no event allows: %s", s.name, what, fmt.Sprintf(format, args...))
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forgiven[e.Kind] == nil {
		c.forgiven[e.Kind] = map[string]int{}
	}
	c.forgiven[e.Kind][trafficNames[s.traffic]+" "+what.String()]++
	return true
}

// violation notes what must never happen. s may be nil: then it is nobody's in particular.
func (c *checker) violation(s *subject, at time.Time, format string, args ...any) {
	v := Violation{At: at.Sub(c.journal.start).Seconds(), What: fmt.Sprintf(format, args...)}
	c.journal.note("%8.3f VIOLATION: %s", v.At, v.What) // at once: a run may die before it reports
	from := at.Add(-15 * time.Second)
	var told []moment
	if s != nil {
		for _, m := range s.history {
			told = append(told, moment{m.at, "    " + m.what})
		}
	}
	for _, e := range c.journal.between(from, at.Add(time.Second)) {
		told = append(told, moment{e.Begin, "begins: " + e.String()})
		if !e.End.IsZero() {
			told = append(told, moment{e.End, "ends:   " + e.String()})
		}
	}
	told = append(told, c.ring.between(at.Add(-5*time.Second), at.Add(time.Second))...)
	told = append(told, moment{at, "VIOLATION"})
	sortMoments(told)
	for _, m := range told {
		v.Timeline = append(v.Timeline, fmt.Sprintf("%9.3f  %s", m.at.Sub(c.journal.start).Seconds(), m.what))
	}
	c.mu.Lock()
	if len(c.violations) < maxViolations {
		c.violations = append(c.violations, v)
	}
	c.counts["violations"]++
	c.mu.Unlock()
	c.journal.note("VIOLATION %s\n%s", v.What, strings.Join(v.Timeline, "\n"))
}

// count adds to what was done.
func (c *checker) count(what string, n int) {
	c.mu.Lock()
	c.counts[what] += n
	c.mu.Unlock()
}

// lived notes a connection of records that has ended.
func (c *checker) lived(l life) {
	c.mu.Lock()
	c.lives = append(c.lives, l)
	c.mu.Unlock()
}

// pausesIn are the longest silences, during an event, of all connections of records that were there when it began.
func (c *checker) pausesIn(e *Event) (all []time.Duration) {
	for i := range c.lives {
		l := &c.lives[i]
		if l.began.After(e.Begin) || l.ended.Before(e.Begin) {
			continue
		}
		longest := time.Duration(0)
		for _, g := range l.gaps {
			if g.to.Before(e.Begin) || g.from.After(e.End) {
				continue
			}
			longest = max(longest, g.to.Sub(g.from))
		}
		all = append(all, longest)
	}
	return all
}

// most keeps the largest of the numbers that were said under a name.
func (c *checker) most(what string, n int) {
	c.mu.Lock()
	c.counts["most "+what] = max(c.counts["most "+what], n)
	c.mu.Unlock()
}
