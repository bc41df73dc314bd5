package control

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/sched"
	"weir/vxlan"
)

// registry remembers services and backends by their identity from one configuration to the next: the ID that connections bear, the
// connection counts, the scheduler's position, the counters. Only control's goroutine touches it.
type registry struct {
	services map[serviceKey]*service
	backends map[backendKey]*backend
	ids      []*backend                     // by ID; nil: free
	leaving  []uint32                       // IDs of backends that were removed, or have a former way, as of the latest compile
	free     []uint32                       // IDs below len(ids) that are free, the last is given out first
	overlay  *overlay                       // nil until there is a segment
	paths    map[netip.Addr]*dataplane.Path // to servers behind tunnels, by their address
	limit    int
	workers  int    // that count what passes through segments; 0 is one
	plans    uint64 // generation of the last plan made
	seed     uint64 // of the schedulers' random numbers

	ports    []dataplane.Port          // that backends were compiled for
	gateways map[uint32]*vxlan.Gateway // likewise, by VNI
	steering steering                  // of the latest compile: most have the same rules as the one before
	live     []bool                    // by ID, while a configuration is compiled: it names the backend
	journal  *journal                  // of the compile under way, or nil: nobody will take it back
	renamed  bool                      // an ID means something else than when it was last written down

	watch  *watch          // of servers' health; nil: nobody looks, and all is up
	ended  map[uint32]bool // backends whose connections the compile under way ends, though they are still configured
	events []healthEvent   // that nobody was told of yet
}

// serviceKey is a service's identity, as in IPVS, with its segment.
type serviceKey struct {
	protocol uint8
	vip      netip.Prefix
	port     uint16
	portTo   uint16
	vni      uint32 // of the segment that the VIP is in, 0: none
}

// backendKey is a backend's identity within all services.
type backendKey struct {
	service serviceKey
	address netip.Addr
	port    uint16
	vni     uint32
}

// service is what outlives a reload of a service.
type service struct {
	key     serviceKey
	name    string
	real    planned
	backup  planned           // of the backends that serve when no other does
	retired dataplane.Traffic // counts of backends whose IDs were given back
	zero    dataplane.Traffic // what views take off, since Zero; metrics do not
	zeroed  time.Time

	ids  []uint32          // of all its backends, those that are down too
	from *config.Service   // what it was compiled from; nil: not yet, or it must be compiled anew
	made dataplane.Service // what that came to
}

// planned is a plan and what its scheduler remembers.
type planned struct {
	state  *sched.State
	plan   *sched.Plan
	inputs planInputs // what plan was made from: equal inputs keep plan and position
}

// planInputs decide a scheduler's decisions.
type planInputs struct {
	scheduler string
	options   sched.Options
	dests     string // printed form of every destination
}

// backend is what outlives a reload of a backend, and the backend itself while connections still bear its ID.
type backend struct {
	id         uint32
	key        backendKey
	name       string
	load       *sched.Load
	weight     int32
	lastWeight int32
	live       bool
	uncounted  bool              // it may have connections that load does not know yet: a takeover brings them last
	base       dataplane.Traffic // counters of the ID's former bearers: counters only grow
	zero       dataplane.Traffic // as the service's
	removed    time.Time         // when it was removed, unless live
	snapshot   dataplane.Backend
	cursor     *dataplane.Cursor // of its local addresses and ports
	ways       ways
	fit        fitness
}

func newRegistry(limit int, seed uint64) *registry {
	return &registry{services: map[serviceKey]*service{}, backends: map[backendKey]*backend{},
		paths: map[netip.Addr]*dataplane.Path{}, limit: limit, seed: seed}
}

// state is the scheduler state of a new service, whose random numbers are its own and follow from the registry's seed.
func (r *registry) state() *sched.State {
	s := new(sched.State)
	s.Seed(r.seed + r.plans)
	return s
}

// journal is what a compile has changed in services and backends, to be taken back in reverse order. With a hundred thousand backends
// a copy of all of them would take longer than the compile.
type journal struct{ undo []func() }

func (r *registry) note(undo func()) {
	if r.journal != nil {
		r.journal.undo = append(r.journal.undo, undo)
	}
}

// checkpoint returns a function that makes the registry what it is now: a configuration that is refused after it was compiled has then never
// been there. Connection counts and schedulers' positions are not taken back: packets have moved them meanwhile.
func (r *registry) checkpoint() (restore func()) {
	was := *r
	was.journal = nil
	was.paths, was.overlay = maps.Clone(r.paths), r.overlay.clone()
	was.ids, was.free = slices.Clone(r.ids), slices.Clone(r.free)
	j := new(journal)
	r.journal = j
	return func() {
		for _, undo := range slices.Backward(j.undo) {
			undo()
		}
		*r = was
	}
}

// settle forgets how to take back what was done since the checkpoint.
func (r *registry) settle() { r.journal = nil }

// touch is called before a backend is changed, and touchService before a service is.
func (r *registry) touch(b *backend) {
	if r.journal != nil {
		was := *b
		r.note(func() { *b = was })
	}
}

func (r *registry) touchService(s *service) {
	if r.journal != nil {
		was := *s
		r.note(func() { *s = was })
	}
}

// service returns the service with key, made anew if unknown.
func (r *registry) service(key serviceKey) *service {
	s := r.services[key]
	if s == nil {
		s = &service{key: key}
		r.services[key] = s
		r.note(func() { delete(r.services, key) })
	}
	return s
}

// drop forgets the service with key.
func (r *registry) drop(key serviceKey) {
	s := r.services[key]
	delete(r.services, key)
	r.note(func() { r.services[key] = s })
}

// path is what is known of the way to a server behind a tunnel.
func (r *registry) path(to netip.Addr) *dataplane.Path {
	p := r.paths[to]
	if p == nil {
		p = new(dataplane.Path)
		r.paths[to] = p
	}
	return p
}

// backend returns the backend with key, to be changed: the live one, the one that was removed but still has connections, or a new one. counts gives
// an ID's counters as they stand, so that a new bearer starts from zero.
func (r *registry) backend(key backendKey, counts func(id uint32) dataplane.Traffic) (*backend, error) {
	if b := r.backends[key]; b != nil {
		r.touch(b)
		return b, nil
	}
	b := &backend{key: key, load: new(sched.Load), cursor: new(dataplane.Cursor)}
	b.cursor.Seed(r.seed)
	switch n := len(r.free); {
	case n > 0:
		b.id, r.free = r.free[n-1], r.free[:n-1]
		b.base = counts(b.id)
	case len(r.ids) < r.limit:
		b.id = uint32(len(r.ids))
		r.ids = append(r.ids, nil)
	default:
		return nil, fmt.Errorf("more than %d backends, those counted that are removed but still have connections", r.limit)
	}
	r.ids[b.id] = b
	r.backends[key] = b
	r.renamed = true
	r.note(func() { delete(r.backends, key) })
	return b, nil
}

// idle reports whether no connection bears b's ID, templates aside.
func (b *backend) idle() bool { return !b.uncounted && b.load.Active()+b.load.Inactive() == 0 }

// collect gives back the IDs of backends that were removed before a moment and have no connection left. It reports whether it freed
// any, or found one whose former ways no connection goes by: the next snapshot can do without. counts is as for backend.
func (r *registry) collect(before time.Time, counts func(id uint32) dataplane.Traffic) (freed bool) {
	stay := r.leaving[:0]
	for _, id := range r.leaving {
		b := r.ids[id]
		if b.live {
			freed = freed || b.ways.since.Before(before) && b.idle()
		}
		if b.live || b.removed.After(before) || !b.idle() || b.load.Persistent() != 0 {
			stay = append(stay, id)
			continue
		}
		if s := r.services[b.key.service]; s != nil {
			s.retired = s.retired.Plus(counts(b.id).Minus(b.base))
		}
		delete(r.backends, b.key)
		r.ids[b.id] = nil
		r.free = append(r.free, b.id)
		freed = true
	}
	r.leaving = stay
	return freed
}
