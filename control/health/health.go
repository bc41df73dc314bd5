// Package health asks servers whether they serve, and says when the answer changes.
//
//	Check    what is asked of whom, how often, and how many answers make a state; equal ones are one
//	Monitor  does the checks it was given last, each when it is due, and knows the state of each
//	State    up or down, since when and why
//
// A Monitor is one goroutine that sleeps until the next check is due, and one more for each check under way, at most so many at once:
// with ten thousand targets of which none answers, checks begin later than they should, and nothing else happens. Sources of checks are
// the host's own addresses, by its routes.
package health

import (
	"context"
	"net/netip"
	"time"
)

// Kind is what is asked.
type Kind uint8

const (
	TCP   Kind = iota // a connection opens; with Send and Expect an answer comes
	HTTP              // a request is answered with a status among Status, and a body with Expect in it
	HTTPS             // the same within TLS
	UDP               // with Expect an answer comes; without, no ICMP error within Timeout
	DNS               // a query is answered without error
	ICMP              // an echo request is answered
	Exec              // a program ends with 0
)

// String is the word of the configuration.
func (k Kind) String() string {
	return [...]string{"tcp", "http", "https", "udp", "dns", "icmp", "exec"}[k]
}

// Check is what is asked of whom. It is comparable, and whoever gives equal ones to a Monitor has them done once.
type Check struct {
	Kind     Kind
	Target   netip.AddrPort // port 0: of kinds that have none
	Interval time.Duration  // from the beginning of one to that of the next
	Timeout  time.Duration  // of one, its connection included
	Rise     int            // successes in a row from down to up
	Fall     int            // failures in a row from up to down
	Down     bool           // the state until the first answer, which decides at once

	Method, URI, Host string // HTTP; an empty Host is the target
	Authorization     string // header of the request; empty: none
	Status            Status
	Verify            bool   // the certificate must be good for SNI, or for the target's address
	Authorities       string // file of the certificates that sign good ones; empty: the host's
	SNI               string // empty: none is sent
	Send              string // bytes
	Expect            string // bytes that the answer must contain
	ExpectRegex       string // RE2, that must match in the answer
	Query             string // a domain name
	QueryType         uint16 // RFC 1035 section 3.2.2
	Command           string // path and arguments, with a zero byte between each two
}

// Status is a set of HTTP status codes, 0 to 639.
type Status [10]uint64

// Add puts code into the set; one that is out of range is left out.
func (s *Status) Add(code int) {
	if code >= 0 && code < 64*len(s) {
		s[code/64] |= 1 << (code % 64)
	}
}

// Has reports whether code is in the set.
func (s *Status) Has(code int) bool {
	return code >= 0 && code < 64*len(s) && s[code/64]>>(code%64)&1 != 0
}

// State is what a Monitor knows of a check.
type State struct {
	Up      bool
	Since   time.Time     // of the latest change, or when the check was first given
	Why     string        // the latest failure; empty after a success
	Run     int           // answers in a row that were like the latest one
	Last    time.Time     // when the latest answer came; zero: there was none yet
	Took    time.Duration // how long it took
	Answers uint64        // in all
	Failed  uint64        // of them

	inherited bool // it began as another check, or another process, had found it
}

// Answered reports whether there was an answer yet.
func (s *State) Answered() bool { return !s.Last.IsZero() }

// known reports whether the state is more than what was configured.
func (s *State) known() bool { return s.Answered() || s.inherited }

// heir is the state that another check begins in.
func (s *State) heir() State { return State{Up: s.Up, Since: s.Since, Why: s.Why, inherited: true} }

// Probe does a check once, and returns nil if the server serves. It ends with ctx. Several goroutines call it at once.
type Probe func(ctx context.Context, c *Check) error

// note takes an answer, and reports whether it has changed the state. The first one decides at once where nothing was known.
func (s *State) note(c *Check, err error, at time.Time, took time.Duration) (changed bool) {
	ok := err == nil
	if was := s.Why == ""; !s.Answered() || was != ok {
		s.Run = 0
	}
	first := !s.Answered() && !s.inherited
	s.Run++
	s.Answers++
	s.Last, s.Took, s.Why = at, took, ""
	if !ok {
		s.Failed++
		if s.Why = err.Error(); s.Why == "" {
			s.Why = "failed"
		}
	}
	need := c.Fall
	if ok {
		need = c.Rise
	}
	if ok == s.Up || s.Run < need && !first {
		return false
	}
	s.Up, s.Since = ok, at
	return true
}
