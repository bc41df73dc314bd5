package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Kind is what is done.
type Kind string

// The kinds of events.
const (
	Reload      Kind = "reload"      // the configuration is loaded anew, unchanged or with more services: goes on all the time
	Weights     Kind = "weights"     // the servers' weights change
	Remove      Kind = "remove"      // a server is taken out of all services, and put in again
	Drain       Kind = "drain"       // a server is drained, and taken back
	KillServer  Kind = "kill-server" // a server's process is killed, and started again
	StopServer  Kind = "stop-server" // a server's process stands still for a while
	Flap        Kind = "flap"        // a device of the balancer goes down, and up
	Vanish      Kind = "vanish"      // a device of the balancer is deleted, and made anew
	Stop        Kind = "stop"        // the balancer stands still (SIGSTOP)
	KillWeir    Kind = "kill"        // the balancer is killed (SIGKILL), and started again
	RestartWeir Kind = "restart"     // the balancer is stopped cleanly, and started again
	Takeover    Kind = "takeover"    // another process takes over from the balancer, alive
	Squeeze     Kind = "squeeze"     // the balancer's control group may have hardly more memory than it has
	Clock       Kind = "clock"       // the balancer is killed, and started again with another monotonic clock
	Starved     Kind = "starved"     // the machine let the suite, or a worker of weir's, wait for a processor: nothing was done, but buffers may have overflowed, and rings have
	Quiet       Kind = "quiet"       // traffic rests, and frames and counters are added up
)

// Event is one thing that was done, or is being done.
type Event struct {
	Kind   Kind
	Server int    // number of the server it is about, from 1; 0: none in particular
	What   string // for the reader
	Begin  time.Time
	End    time.Time // zero while it goes on
	Drops  string    // what weir dropped meanwhile, by reason
	before map[string]uint64
}

func (e *Event) String() string {
	s := string(e.Kind)
	if e.Server > 0 {
		s += fmt.Sprintf(" s%d", e.Server)
	}
	if e.What != "" {
		s += " (" + e.What + ")"
	}
	if e.Drops != "" {
		s += ", dropped " + e.Drops
	}
	return s
}

// over reports whether the event's effects are over at t, linger after its end.
func (e *Event) over(t time.Time, linger time.Duration) bool {
	return !e.End.IsZero() && t.After(e.End.Add(linger))
}

// journal is all events so far. Reloads come ten a second and are none.
type journal struct {
	mu     sync.Mutex
	start  time.Time
	events []*Event
	note   func(format string, args ...any)
	drops  func() map[string]uint64 // of weir; nil when it is not there
}

// begin notes an event before anything is done.
func (j *journal) begin(k Kind, server int, format string, args ...any) *Event {
	e := &Event{Kind: k, Server: server, What: fmt.Sprintf(format, args...), before: j.drops()}
	j.mu.Lock()
	e.Begin = time.Now()
	if k == KillWeir || k == RestartWeir || k == Clock {
		e.before = map[string]uint64{} // another process counts from nothing
	}
	j.events = append(j.events, e)
	j.mu.Unlock()
	j.note("%8.3f %v", e.Begin.Sub(j.start).Seconds(), e)
	return e
}

// stall notes that the machine stood still between two moments.
func (j *journal) stall(from, to time.Time) {
	j.mu.Lock()
	j.events = append(j.events, &Event{Kind: Starved, What: to.Sub(from).Round(time.Millisecond).String(), Begin: from, End: to})
	j.mu.Unlock()
}

// end notes that everything has been undone.
func (j *journal) end(e *Event) {
	after := j.drops()
	j.mu.Lock()
	defer j.mu.Unlock()
	e.End = time.Now()
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(after)) {
		if n := after[reason] - e.before[reason]; e.before != nil && n != 0 && n < 1<<63 { // a weir that was started anew has fewer
			parts = append(parts, fmt.Sprintf("%s %d", reason, n))
		}
	}
	e.Drops = strings.Join(parts, ", ")
}

// each calls f with every event, the latest first, until it returns false.
func (j *journal) each(f func(*Event) bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := len(j.events) - 1; i >= 0; i-- {
		if !f(j.events[i]) {
			return
		}
	}
}

// between are the events that went on at some time between two moments.
func (j *journal) between(from, to time.Time) (all []*Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.events {
		if !e.Begin.After(to) && !e.over(from, 0) {
			all = append(all, e)
		}
	}
	return all
}
