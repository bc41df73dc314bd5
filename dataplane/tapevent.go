package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/steer"
)

// Event is what became of one frame, and why.
type Event struct {
	Time   int64  // nanoseconds of the workers' clock
	Number uint64 // of the worker's events; those of one frame have the same
	Worker int
	Kind   EventKind
	Frame  Image // as it was received; of EventWaited, as it was when it had waited; of EventAlso nothing
	Sent   Image // the first frame that left for it; Port -1: none
	Unseen int   // frames that left for it, and that no event shows

	Verdict Verdict      // Pending if the frame is one of our own that has waited
	Drop    Drop         // with Dropped
	Steered steer.Reason // valid if Ruled: what steering in software said
	Ruled   bool
	VNI     uint32 // of the segment that its packet is in, 0: none

	Snapshot *Snapshot
	Service  *Service // nil: none
	VIP      bool     // the packet is to a VIP, whether or not that has a service for it

	// of its connection
	Conn    ConnFate
	Reply   bool // it came from the server
	Related bool // it is an ICMP error about it
	Was, Is conntrack.State
	Client  Endpoint
	Virtual Endpoint
	Sticks  bool   // the client had a persistence template
	ID      uint32 // of the backend; valid if Backend is not nil
	Backend *Backend
	Active  int // connections of the backend, this one included
	Inact   int

	Hop     conntrack.Addr // next hop; valid if OutPort is not -1
	HopV6   bool
	Known   bool // its MAC address is known
	OutPort int
}

// EventKind says what an event tells of.
type EventKind uint8

const (
	EventReceived EventKind = iota // a frame was received, and has its verdict
	EventWaited                    // a frame that had the verdict Held goes on, or has waited in vain
	EventAlso                      // one more frame left, because of the event with the same number
)

// Image is a frame as it was.
type Image struct {
	Port int    // index of the port that it came by, or left by
	Len  int    // bytes
	Own  bool   // made by us: an answer, a fragment, a copy
	Data []byte // the first of them
}

// ConnFate says what a packet has to do with a connection.
type ConnFate uint8

const (
	ConnNone   ConnFate = iota // it is of none
	ConnKnown                  // it is of one that there was
	ConnNew                    // it opened one
	ConnReopen                 // it ended one and opened another
	ConnOnce                   // it opened one for itself alone: one_packet
)

// Endpoint is an address and a port.
type Endpoint struct {
	Addr conntrack.Addr
	Port uint16
	V6   bool
}

// Passed is the verdict of a frame that steering in software left to the kernel. It is not counted as received.
const Passed = passVerdict

var verdictNames = [...]string{"pending", "forwarded", "answered", "punted", "consumed", "dropped", "held"}

// String is the verdict's name in JSON.
func (v Verdict) String() string {
	switch {
	case int(v) < len(verdictNames):
		return verdictNames[v]
	case v == Passed:
		return "passed"
	}
	return "unknown"
}
