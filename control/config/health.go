package config

import (
	"net/netip"
	"time"
)

// Check is how servers are asked whether they serve. That of a service is where those of its backends begin.
type Check struct {
	Place
	Type      string        // one of CheckTypes; "none": not at all
	Address   netip.Addr    // that is asked; invalid: the backend's
	Port      uint16        // 0: the backend's
	Interval  time.Duration // 100 ms to 1 h, from the beginning of one to that of the next
	Timeout   time.Duration // 10 ms to 1 h
	Rise      int           // successes in a row that bring a server up, 1 to 100
	Fall      int           // failures in a row that take it down, 1 to 100
	InitState string        // one of CheckStates: what holds until the first answer

	// http, https
	Method string // one of CheckMethods
	URI    string // path and query
	Host   string // empty: what is asked
	Status []int  // that say that it serves, ascending

	Authorization string // of the request, whole: Basic or Bearer and what follows; empty: none

	// https
	Verify bool   // the certificate must be good, for SNI
	CAFile string // certificates of the authorities; empty: the host's
	SNI    string // empty: Host without its port

	// tcp, udp; http and https read their body for Expect
	Send        string // bytes; empty: nothing, of udp an empty datagram
	Expect      string // that the answer contains; empty: anything goes
	ExpectRegex string // likewise, in RE2's syntax

	// dns
	Query     string
	QueryType string // one of QueryTypes

	// exec
	Command []string // absolute path and arguments
}

// Passive takes servers out of the choice that leave SYNs without an answer.
type Passive struct {
	Place
	SYNs int           // that clients repeat in a row while nothing is opened, 1 to 1000000
	For  time.Duration // 1 s to 1 h
}

var (
	CheckTypes   = []string{"tcp", "http", "https", "udp", "dns", "icmp", "exec", "none"}
	CheckStates  = []string{"up", "down"}
	CheckMethods = []string{"GET", "HEAD", "OPTIONS"}
	QueryTypes   = []string{"SOA", "A", "AAAA", "NS", "CNAME", "MX", "TXT", "PTR", "SRV", "ANY"}
	OnDowns      = []string{"keep", "reset", "reschedule"}
	States       = []string{"ready", "drain", "down"}
)

// RampedSchedulers are the schedulers that give a server in its slow start less: those by which weight is a share, and only that.
var RampedSchedulers = []string{"wrr", "wlc", "sed", "nq", "mh", "twos"}

// needsPort reports whether checks of a type go to a port.
func needsPort(check string) bool {
	return check != "icmp" && check != "exec" && check != "none" && check != ""
}

// defaultCheck is a check of which no key was given.
func defaultCheck() Check {
	c := Check{Type: "tcp", Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3, InitState: "up", Method: "GET", URI: "/",
		Query: ".", QueryType: "SOA"}
	for status := 200; status < 400; status++ {
		c.Status = append(c.Status, status)
	}
	return c
}
