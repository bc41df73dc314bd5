// Package sched chooses the backend of a new connection, decision for decision as Linux IPVS does.
//
// A [Plan] is one configuration of one service: its destinations in list order, immutable, made by control. A [State] is what the
// scheduler remembers between two connections; it belongs to the service and outlives plans. A [Load] is what a backend bears
// now; it belongs to the backend, and all plans and workers share it:
//
//	Plan  dests in list order, weights, tables      one per reload, read without a lock
//	State cursor of rr, wrr; cache of lblc, lblcr   one per service, under its own spin lock
//	Load  active, inactive, persistent, overload    one per backend, atomics
//
// Nothing here runs for each packet: [Plan.Schedule] runs once for each new connection, from any worker. It allocates nothing and
// fails in one way only, by finding no destination.
package sched

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// ErrUnknownScheduler is wrapped by New's error when no scheduler has the name.
var ErrUnknownScheduler = errors.New("unknown scheduler")

// ErrOption is wrapped by New's error when a flag, a table size or a seed is given to a scheduler that has none.
var ErrOption = errors.New("option belongs to another scheduler")

// ErrSlots is wrapped by New's error when mh's table cannot have the size that is asked for.
var ErrSlots = errors.New("table size must be one of 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071")

// Dest is a destination of a service: a backend, as the scheduler sees it.
type Dest struct {
	Load       *Load // the backend's counts; must not be nil
	ID         uint32
	Weight     int32  // 0: takes no new connection; negative is refused
	LastWeight int32  // the latest weight that was not 0; need not be set where Weight is not
	Upper      uint32 // connections at which the backend is overloaded; 0: never
	Lower      uint32 // connections below which it is no longer; 0: three quarters of Upper
	Addr       netip.Addr
	Port       uint16
}

// lastWeight is what the kernel calls last_weight.
func (d *Dest) lastWeight() int32 {
	if d.Weight != 0 {
		return d.Weight
	}
	return d.LastWeight
}

// fold is the address as fold has it of a packet's.
func (d *Dest) fold() uint32 {
	var b [16]byte
	a := d.Addr.Unmap()
	copy(b[:], a.AsSlice())
	return fold(&b, a.Is6())
}

// Flags change how a scheduler chooses. Each belongs to one scheduler.
type Flags uint8

const (
	ShPort     Flags = 1 << iota // sh hashes the source port, too
	ShFallback                   // sh goes on to another bucket when the first one's destination is unavailable
	MhPort                       // the same two, for mh
	MhFallback
)

// Options is how a scheduler is set up. Its zero value is the kernel's default.
type Options struct {
	Flags Flags
	Slots int    // mh: size of its table, one of [Slots]; 0: 4093
	Seed  uint64 // sh, mh: secret that clients' addresses are hashed with; 0: they are hashed as the kernel does, which anybody can work out
}

// Flow is the packet that opens a connection. Ports are in host order; addresses are as on the wire, IPv4 in the first 4 bytes.
type Flow struct {
	Src, Dst         [16]byte
	V6               bool
	SrcPort, DstPort uint16
	Now              int64 // nanoseconds, of a clock that all packets of a service share: for lblc and lblcr
}

// kind is a scheduler. Schedule dispatches by a switch on it rather than through an interface or a function value, so that a caller's
// Flow stays on its stack.
type kind uint8

const (
	kindRR kind = iota
	kindWRR
	kindLC
	kindWLC
	kindSH
	kindDH
	kindMH
	kindSED
	kindNQ
	kindFO
	kindOVF
	kindLBLC
	kindLBLCR
	kindTwos
	kinds
)

// A scheduler is its name and flags here, and its cases in New, Schedule and, if it remembers anything, adjust.
var (
	names = [kinds]string{kindRR: "rr", kindWRR: "wrr", kindLC: "lc", kindWLC: "wlc", kindSH: "sh", kindDH: "dh", kindMH: "mh",
		kindSED: "sed", kindNQ: "nq", kindFO: "fo", kindOVF: "ovf", kindLBLC: "lblc", kindLBLCR: "lblcr", kindTwos: "twos"}
	flags = [kinds]Flags{kindSH: ShPort | ShFallback, kindMH: MhPort | MhFallback}
)

// Names lists the schedulers that New knows.
func Names() []string { return append([]string(nil), names[:]...) }

// Plan is a service's destinations under one scheduler. It is immutable.
type Plan struct {
	kind       kind
	flags      Flags
	seed       uint64
	generation uint64
	dests      []slot

	scale   scale       // wrr: of the weights
	first   int32       // wrr: the level of a new service
	buckets *[256]int32 // sh: index into dests, of all buckets; nil without dests
	maglev  *maglev     // mh: nil without dests that ever had a weight

	groups []group // lc, wlc, sed, nq: of many dests

	order []place // the dests by ID, where the scheduler has a cursor or a cache to find again
}

// slot is what scheduling reads of a Dest: 16 bytes, so that four share a cache line.
type slot struct {
	load   *Load
	weight int32
	id     uint32
}

// usable reports whether the destination takes new connections.
func (d *slot) usable() bool { return d.weight > 0 && !d.load.Overloaded() }

// New makes a plan of dests, whose first is the head of the kernel's list. generation must grow from each plan of a service to its next;
// it is how State tells a plan that is new from one that a worker has not let go of yet.
//
// It fails for an unknown name (ErrUnknownScheduler), an option of another scheduler (ErrOption), a table size that mh cannot have (ErrSlots), a negative
// weight, a Dest without Load, and more dests than mh's table has slots, or than 65536. No dests at all are a valid plan that never finds one.
func New(name string, o Options, generation uint64, dests []Dest) (*Plan, error) {
	return (*Plan)(nil).Next(name, o, generation, dests)
}

// Next is New for the plan that follows p, which may be nil. It shares mh's table with p when both come out the same: making one takes
// tens of microseconds, or milliseconds if it is large, and an edit that only drains a server changes none.
func (p *Plan) Next(name string, o Options, generation uint64, dests []Dest) (*Plan, error) {
	k := kind(0)
	for k < kinds && names[k] != name {
		k++
	}
	if k == kinds {
		return nil, fmt.Errorf("scheduler %q: %w", name, ErrUnknownScheduler)
	}
	size, err := o.check(k)
	if err != nil {
		return nil, fmt.Errorf("scheduler %q: %w", name, err)
	}
	var was *maglev
	if p != nil {
		was = p.maglev
	}
	p = &Plan{kind: k, flags: o.Flags, seed: o.Seed, generation: generation, dests: make([]slot, len(dests))}
	for i, d := range dests {
		switch {
		case d.Load == nil:
			return nil, fmt.Errorf("scheduler %q: dests[%d]: no Load", name, i)
		case d.Weight < 0:
			return nil, fmt.Errorf("scheduler %q: dests[%d]: weight %d is negative", name, i, d.Weight)
		case d.LastWeight < 0:
			return nil, fmt.Errorf("scheduler %q: dests[%d]: last weight %d is negative", name, i, d.LastWeight)
		}
		p.dests[i] = slot{load: d.Load, weight: d.Weight, id: d.ID}
	}
	if k.grouped() {
		p.groups = newGroups(len(dests))
	}
	switch k {
	case kindRR, kindLBLC, kindLBLCR:
		p.order = placesOf(p.dests)
	case kindWRR:
		p.scale, p.first = levelsOf(p.dests)
	case kindSH:
		p.buckets = bucketsOf(p.dests)
	case kindMH:
		if room := min(mhSizes[size], mhMaxDest); len(dests) > room {
			return nil, fmt.Errorf("scheduler %q: %d destinations, but its table has room for %d", name, len(dests), room)
		}
		p.maglev = maglevOf(dests, size, was)
	}
	return p, nil
}

// check reports whether the scheduler has these options, and returns the index of its table's size in mhSizes.
func (o *Options) check(k kind) (size int, err error) {
	slots := o.Slots
	if slots == 0 {
		slots = mhSlots
	}
	switch size = slices.Index(mhSizes[:], slots); {
	case o.Flags&^flags[k] != 0:
		return 0, fmt.Errorf("flags %#x: %w", uint8(o.Flags&^flags[k]), ErrOption)
	case o.Slots != 0 && k != kindMH:
		return 0, fmt.Errorf("table size %d: %w", o.Slots, ErrOption)
	case o.Seed != 0 && k != kindSH && k != kindMH:
		return 0, fmt.Errorf("seed: %w", ErrOption)
	case size < 0:
		return 0, fmt.Errorf("table size %d: %w", o.Slots, ErrSlots)
	}
	return size, nil
}

// Scheduler is the name of the plan's scheduler.
func (p *Plan) Scheduler() string { return names[p.kind] }

// Generation is what New was given.
func (p *Plan) Generation() uint64 { return p.generation }

// Schedule chooses the destination of a new connection and returns its index in New's dests, or -1 if there is none. s is the service's;
// only schedulers with a memory lock it: rr and wrr for at most a few walks over the destinations, lblc and lblcr for a look into their cache,
// those that weigh many destinations for a look at their groups.
//
// The first plan of a newer generation adjusts s as the kernel does on an edit. A plan older than s, of a worker that has not
// seen the reload yet, chooses by its own destinations and leaves s as it is.
func (p *Plan) Schedule(s *State, f *Flow) int {
	switch p.kind {
	case kindRR, kindWRR:
		return p.scheduleNext(s)
	case kindLC, kindWLC, kindSED, kindNQ:
		return p.scheduleLeast(s)
	case kindLBLC, kindLBLCR:
		return p.scheduleLocal(s, f)
	}
	if s.plan.Load() != p {
		p.take(s) // so that rr starts anew if it comes back after this scheduler
	}
	switch p.kind {
	case kindSH:
		return p.sourceHash(f)
	case kindDH:
		return p.destinationHash(f)
	case kindMH:
		return p.maglevHash(f)
	case kindFO:
		return p.failover()
	case kindOVF:
		return p.overflow()
	default:
		return p.twoChoices(s)
	}
}

// scheduleNext is Schedule for those that remember where they stood.
func (p *Plan) scheduleNext(s *State) (i int) {
	s.lock()
	m, keep := p.resume(s)
	if p.kind == kindRR {
		i = p.roundRobin(&m)
	} else {
		i = p.weightedRoundRobin(&m)
	}
	if keep {
		s.mark = m
	}
	s.unlock()
	return i
}
