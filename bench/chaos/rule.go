package chaos

import (
	"strings"
	"time"
)

// Sight is something that a client may see and that must have been allowed. What is not here is never allowed: wrong bytes, bytes out of order,
// another server in the middle of a TCP connection, silence without end.
type Sight uint16

const (
	Reset       Sight = 1 << iota // a connection is reset
	Closed                        // a server closes a connection too early
	Refused                       // a connection is refused when it is made
	Unreachable                   // a connection cannot be made: no route, no answer in time
	Lost                          // a datagram or its answer is lost
	Moved                         // a UDP flow or a persistent client gets another server
)

var sightNames = []string{"reset", "closed", "refused", "unreachable", "lost", "moved"}

func (s Sight) String() string {
	var names []string
	for i, name := range sightNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "a pause"
	}
	return strings.Join(names, ", ")
}

// Traffic is what sees it.
type Traffic int

const (
	Stream Traffic = iota // a TCP connection of records
	Short                 // a connection for one request
	Stick                 // one of a persistent client
	Flow                  // datagrams
	numTraffic
)

var trafficNames = [numTraffic]string{"streams", "short connections", "persistent clients", "UDP flows"}

// rule is what an event allows each traffic to see, from its beginning until linger after its end; of an event that is about a server, only those
// that are at this server, or do not know where they are.
type rule struct {
	allows [numTraffic]Sight
	linger time.Duration
}

// settle is how long after an event its effects may show: retransmissions are 2 s apart at most, and an idle machine is not promised.
const settle = 20 * time.Second

// rules is all there is to be forgiven. To demand more of weir is to take a word out of a line.
var rules = map[Kind]rule{
	Reload:     {},
	Weights:    {},
	Drain:      {},
	Stop:       {allows: [numTraffic]Sight{Flow: Lost}, linger: settle}, // rings hold 2048 frames
	StopServer: {allows: [numTraffic]Sight{Flow: Lost}, linger: settle}, // so do sockets some
	Remove:     {allows: [numTraffic]Sight{Stick: Moved, Flow: Lost}, linger: settle},
	Flap:       {allows: [numTraffic]Sight{Short: Unreachable, Stick: Unreachable, Flow: Lost}, linger: settle},
	// Until the program is in front of a new device the kernel sees what comes by it, and the VIPs are the kernel's own.
	Vanish:     {allows: [numTraffic]Sight{Stream: Reset, Short: Reset | Refused | Unreachable, Stick: Reset | Refused | Unreachable, Flow: Lost}, linger: settle},
	KillServer: {allows: [numTraffic]Sight{Stream: Reset | Closed, Short: Reset | Closed | Refused, Stick: Reset | Closed | Refused, Flow: Lost}, linger: settle},
	Squeeze:    {allows: [numTraffic]Sight{Flow: Lost}, linger: settle},
	Starved:    {allows: [numTraffic]Sight{Flow: Lost}, linger: 5 * time.Second},
	// The connection table outlives weir. What arrives while nobody is there is lost.
	KillWeir: {allows: [numTraffic]Sight{Flow: Lost}, linger: settle},
	Clock:    {allows: [numTraffic]Sight{Flow: Lost}, linger: settle},
	// One that is stopped also takes the VIPs away, so that the host has no way to them.
	RestartWeir: {allows: [numTraffic]Sight{Short: Unreachable, Stick: Unreachable, Flow: Lost}, linger: settle},
	Takeover:    {}, // frames wait in the rings
	Quiet:       {},
}

// pardon finds the event that allows what a client of some traffic saw at a moment. began is when what it lost was made: what was made after an event
// has ended is none of its victims. server is where it was, 0 if that is not known.
func (j *journal) pardon(t Traffic, s Sight, server int, began, at time.Time) (by *Event) {
	j.each(func(e *Event) bool {
		r := rules[e.Kind]
		if r.allows[t]&s == 0 || e.over(at, r.linger) || e.over(began, 0) || e.Begin.After(at) {
			return true
		}
		if e.Server != 0 && server != 0 && e.Server != server {
			return true
		}
		by = e
		return false
	})
	return by
}
