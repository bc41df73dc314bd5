package control

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"weir/dataplane"
	"weir/dataplane/sched"
)

// registry remembers services and backends by their identity from one configuration to the next: the ID that connections bear, the
// connection counts, the scheduler's position, the counters. Only control's goroutine touches it.
type registry struct {
	services map[serviceKey]*service
	backends map[backendKey]*backend
	ids      []*backend                     // by ID; nil: free
	free     []uint32                       // IDs below len(ids) that are free, the last is given out first
	overlay  *overlay                       // nil until there is a segment
	paths    map[netip.Addr]*dataplane.Path // to servers behind tunnels, by their address
	limit    int
	plans    uint64 // generation of the last plan made
	seed     uint64 // of the schedulers' random numbers
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
	base       dataplane.Traffic // counters of the ID's former bearers: counters only grow
	removed    time.Time         // when it was removed, unless live
	snapshot   dataplane.Backend
	cursor     *dataplane.Cursor // of its local addresses and ports
	ways       ways
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

// checkpoint returns a function that makes the registry what it is now: a configuration that is refused after it was compiled has then never
// been there. Connection counts and schedulers' positions are not taken back: packets have moved them meanwhile.
func (r *registry) checkpoint() (restore func()) {
	was := *r
	was.services, was.backends, was.paths = maps.Clone(r.services), maps.Clone(r.backends), maps.Clone(r.paths)
	was.overlay = r.overlay.clone()
	was.ids, was.free = slices.Clone(r.ids), slices.Clone(r.free)
	services, backends := map[*service]service{}, map[*backend]backend{}
	for _, s := range r.services {
		services[s] = *s
	}
	for _, b := range r.backends {
		copied := *b
		copied.ways = b.ways.clone()
		backends[b] = copied
	}
	return func() {
		*r = was
		for s, copied := range services {
			*s = copied
		}
		for b, copied := range backends {
			*b = copied
		}
	}
}

// service returns the service with key, made anew if unknown.
func (r *registry) service(key serviceKey) *service {
	s := r.services[key]
	if s == nil {
		s = &service{key: key}
		r.services[key] = s
	}
	return s
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

// backend returns the backend with key: the live one, the one that was removed but still has connections, or a new one. counts gives
// an ID's counters as they stand, so that a new bearer starts from zero.
func (r *registry) backend(key backendKey, counts func(id uint32) dataplane.Traffic) (*backend, error) {
	if b := r.backends[key]; b != nil {
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
	return b, nil
}

// idle reports whether no connection bears b's ID, templates aside.
func (b *backend) idle() bool { return b.load.Active()+b.load.Inactive() == 0 }

// collect gives back the IDs of backends that were removed before a moment and have no connection left. It reports whether it freed
// any, or found one whose former ways no connection goes by: the next snapshot can do without. counts is as for backend.
func (r *registry) collect(before time.Time, counts func(id uint32) dataplane.Traffic) (freed bool) {
	for key, b := range r.backends {
		if b.live {
			freed = freed || b.ways.former && b.ways.since.Before(before) && b.idle()
			continue
		}
		if b.removed.After(before) || !b.idle() || b.load.Persistent() != 0 {
			continue
		}
		if s := r.services[key.service]; s != nil {
			s.retired = s.retired.Plus(counts(b.id).Minus(b.base))
		}
		delete(r.backends, key)
		r.ids[b.id] = nil
		r.free = append(r.free, b.id)
		freed = true
	}
	return freed
}
