package control

import (
	"net/netip"
	"sync"
	"time"

	"weir/conntrack"
	"weir/control/config"
	"weir/dataplane"
)

// core is what running and replaying have in common: the engine, the registry, the configuration in force, and the views of them. mu guards
// all but the engine, which looks after itself: control changes, the API reads.
type core struct {
	engine *dataplane.Engine
	clock  func() int64 // nanoseconds, as workers get it; nil: dataplane.Monotonic

	mu         sync.Mutex
	reg        *registry
	cfg        *config.Config
	generation uint64
	loaded     time.Time
	undo       func()  // takes back what the latest prepare did to the registry
	state      *state  // for the next process; nil: none is kept
	wide       *layout // of the services' metrics; of an older generation until somebody scrapes
	unsettled  error   // what of the latest publication could not be done, until somebody is told
}

// newCore makes an engine over table with an empty registry. secret keeps strangers from aiming at one slot of the fragment map, and random
// numbers follow from it.
func newCore(table *conntrack.Table, workers int, secret uint64) *core {
	return newCoreOf(table, newRegistry(dataplane.DefaultMaxBackends, secret), workers, secret)
}

// newCoreOf is newCore with a registry that may know backends.
func newCoreOf(table *conntrack.Table, r *registry, workers int, secret uint64) *core {
	r.workers = workers
	return &core{engine: dataplane.NewEngine(dataplane.Options{Table: table, MaxWorkers: workers, Secret: secret}), reg: r}
}

// prepare compiles cfg as the next generation; publish puts it in force, or undo forgets it. Between them stands what must happen before
// workers see it. c.mu is held from before prepare until after either.
func (c *core) prepare(cfg *config.Config, s *surroundings) (*compiled, error) {
	c.reg.attend()
	c.undo = c.reg.checkpoint()
	s.counts = c.engine.Backend
	x, err := c.reg.compile(cfg, c.generation+1, s)
	c.note(err)
	return x, err
}

// note writes down what IDs mean, before a worker can use one in a new sense.
func (c *core) note(err error) {
	if err == nil && c.state != nil && c.reg.renamed {
		c.reg.renamed = false
		c.state.write(c.reg.legend())
	}
}

func (c *core) publish(cfg *config.Config, x *compiled, now time.Time) error {
	if err := c.engine.Publish(x.snapshot); err != nil {
		return err
	}
	for _, s := range c.reg.services {
		for _, p := range []*planned{&s.real, &s.backup} {
			if p.plan != nil {
				p.plan.Adopt(p.state) // or two edits without a connection between them would count as one
			}
		}
	}
	c.reg.settle()
	c.cfg, c.generation, c.loaded = cfg, x.snapshot.Generation, now
	if o := c.reg.overlay; o != nil {
		c.unsettled = o.settle(cfg, c.now()) // workers have it: this is no refusal any more
	}
	if w := c.reg.watch; w != nil {
		w.set(cfg)
	}
	c.purge(x)
	return nil
}

// purge ends the connections that end with x, which workers see by now.
func (c *core) purge(x *compiled) {
	if len(x.gone) > 0 {
		c.engine.Purge(func(id uint32) bool { return x.gone[id] })
	}
}

// again compiles the configuration in force once more, in other surroundings.
func (c *core) again(s *surroundings) (*compiled, error) {
	c.reg.attend()
	s.counts = c.engine.Backend
	x, err := c.reg.compile(c.cfg, c.generation, s)
	c.note(err)
	return x, err
}

// collect gives back the IDs of removed backends that no connection bears any more. By a second after the removal every worker has begun
// a vector since, so none schedules to them.
func (c *core) collect() (freed bool) {
	return c.reg.collect(time.Now().Add(-time.Second), c.engine.Backend)
}

// services are the services in force with their backends in list order, and their counters since the start. c.mu is held.
func (c *core) services() []ServiceView { return c.servicesSince(false) }

// servicesSince are the services with their counters since they were zeroed, if zeroed, or since the start. c.mu is held.
func (c *core) servicesSince(zeroed bool) []ServiceView {
	views := []ServiceView{}
	if c.cfg == nil {
		return views
	}
	// Each is read once, so that a service's sum is that of the servers that are shown, also while they count on.
	totals, counts := map[serviceKey]dataplane.Traffic{}, make(map[*backend]dataplane.Traffic, len(c.reg.backends))
	for _, b := range c.reg.backends {
		counts[b] = c.traffic(b)
		totals[b.key.service] = totals[b.key.service].Plus(counts[b])
	}
	for i := range c.cfg.Services {
		cfg := &c.cfg.Services[i]
		for _, key := range keysOf(cfg) {
			s := c.reg.services[key]
			if s == nil {
				continue
			}
			v := serviceView(cfg, key)
			v.Traffic = totals[key].Plus(s.retired)
			if zeroed && !s.zeroed.IsZero() {
				since := s.zeroed
				v.Traffic, v.Zeroed = v.Traffic.Minus(s.zero), &since
			}
			n := 0
			for x := range backendsOf(cfg, key) {
				to := &v.Backends[n] // they are in the same order
				n++
				if b := c.reg.backends[x.key]; b != nil {
					to.Active, to.Inactive, to.Persistent, to.Traffic = b.load.Active(), b.load.Inactive(), b.load.Persistent(), counts[b]
					if zeroed {
						to.Traffic = to.Traffic.Minus(b.zero)
					}
					c.reg.condition(to, b, x.config)
				}
			}
			views = append(views, v)
		}
	}
	return views
}

// traffic is what was counted for b, not for others that had its ID before.
func (c *core) traffic(b *backend) dataplane.Traffic { return c.engine.Backend(b.id).Minus(b.base) }

// stats are all counters but those of ports.
func (c *core) stats() Stats {
	s := c.totals()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Services = c.servicesSince(true)
	return s
}

// totals are the counters of stats without those of services, of which there may be many.
func (c *core) totals() Stats {
	v, drops := c.engine.Verdicts()
	s := Stats{Verdicts: v, Drops: map[string]uint64{}}
	for d := dataplane.Drop(1); d < dataplane.NumDrops; d++ {
		s.Drops[d.String()] = drops[d]
	}
	for _, w := range c.engine.Workers() {
		sum := w.Counters.Sum()
		s.Sent += sum.Sent
		s.Passed += sum.Passed
	}
	who := c.census()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Generation = c.generation
	s.VXLAN, _ = c.segments(0, who)
	return s
}

// timeoutsOf are timeouts in the table's ticks. The states that IPVS does not let one set keep the kernel's values.
func timeoutsOf(c *config.Conntrack, p *config.Persistence) *conntrack.Timeouts {
	t := conntrack.DefaultTimeouts()
	o := &c.Timeouts
	for state, d := range map[conntrack.State]time.Duration{
		conntrack.None: o.TCPNone, conntrack.Established: o.TCPEstablished, conntrack.SynSent: o.TCPSynSent, conntrack.SynRecv: o.TCPSynRecv,
		conntrack.FinWait: o.TCPFinWait, conntrack.TimeWait: o.TCPTimeWait, conntrack.Close: o.TCPClose, conntrack.CloseWait: o.TCPCloseWait,
		conntrack.LastAck: o.TCPLastAck, conntrack.UDP: o.UDP,
	} {
		t[state] = conntrack.Ticks(d)
	}
	if p != nil {
		t[conntrack.Template] = conntrack.Ticks(p.Timeout)
	}
	return &t
}

// portOf is what the data path knows of port i, with a device of its own.
func portOf(cfg *config.Config, i int, mac [6]byte, mtu int, addresses []netip.Prefix) dataplane.Port {
	p := &cfg.Ports[i]
	return dataplane.Port{Name: p.Name, MAC: mac, VLAN: p.VLAN, MTU: mtu, Addresses: addresses, Device: i}
}
