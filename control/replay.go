package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sort"
	"time"

	"weir/conntrack"
	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/pcapfile"
	"weir/dataplane/packet"
	"weir/dataplane/route"
	"weir/dataplane/steer"
	"weir/vxlan"
)

// ReplayOptions say what to replay. Port names map to files, in the order given.
type ReplayOptions struct {
	Config   string
	In, Out  []PortFile
	Reloads  []TimedReload
	Counters string    // file for the counters as JSON; empty: none
	Seed     uint64    // of everything that would be random
	Stderr   io.Writer // diagnostics of refused configurations
}

// PortFile is a capture file of a port.
type PortFile struct{ Port, File string }

// TimedReload loads a configuration at a moment counted from the first input frame.
type TimedReload struct {
	At     time.Duration
	Config string
}

// replayChunks is the frame memory of a replay. Nothing waits but a few frames for neighbours, so a few vectors' worth are plenty.
const replayChunks = 4096

// Replay runs the engine over capture files: one worker, the captures' own time, nothing random. The same input gives the same output
// byte for byte. A configuration that is invalid gives an error that is ErrInvalid, after its diagnostics have gone to Stderr.
func Replay(o ReplayOptions) (err error) {
	cfg, err := load(config.LoadReplay, o.Config, o.Stderr)
	if err != nil {
		return err
	}
	sort.SliceStable(o.Reloads, func(i, j int) bool { return o.Reloads[i].At < o.Reloads[j].At })
	table, err := conntrack.New(conntrack.Options{Capacity: cfg.Conntrack.MaxConnections, Workers: 1, Secret: [2]uint64{o.Seed + 1, ^o.Seed}})
	if err != nil {
		return err
	}
	defer table.Close()
	r := &replay{core: newCore(table, 1, o.Seed), clock: pcapfile.NewClock(), options: &o}
	r.engine.HostAnswers = true
	r.core.clock = r.clock.Now
	r.engine.Wake = func() { r.woken = true }
	if err := r.apply(cfg); err != nil {
		return err
	}
	if err := r.open(); err != nil {
		return err
	}
	defer func() {
		for _, q := range r.queues {
			err = errors.Join(err, q.Close())
		}
	}()
	r.run()
	if err := errors.Join(r.refused, r.clock.Err()); err != nil {
		return errors.Join(err, r.writeCounters())
	}
	return r.writeCounters()
}

// replay is one replay under way.
type replay struct {
	*core
	options *ReplayOptions
	clock   *pcapfile.Clock
	queues  []*pcapfile.Queue // by port
	worker  *dataplane.Worker
	around  *surroundings
	woken   bool  // by the worker: a stranger sent into an open segment
	refused error // of the reloads
}

// apply puts cfg in force.
func (r *replay) apply(cfg *config.Config) error {
	s, err := offline(cfg)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	x, err := r.prepare(cfg, s)
	if err != nil {
		return err
	}
	r.around = s
	return errors.Join(r.publish(cfg, x, time.Unix(0, r.clock.Now())), r.unsettled)
}

// adopt makes strangers peers as the daemon does, in no time.
func (r *replay) adopt() error {
	r.woken = false
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.reg.overlay; o == nil || !o.adopt(r.cfg, vxlan.SecondOf(r.clock.Now())) {
		return nil
	}
	x, err := r.again(r.around)
	if err != nil {
		return err
	}
	return errors.Join(r.engine.Publish(x.snapshot), r.reg.overlay.settle(r.cfg, r.clock.Now()))
}

// offline is what surrounds a configuration without a kernel behind it: ports as they are written, and the links they are on.
func offline(cfg *config.Config) (*surroundings, error) {
	s := &surroundings{}
	for i := range cfg.Ports {
		p := &cfg.Ports[i]
		if !p.HasMAC || len(p.Addresses) == 0 {
			return nil, fmt.Errorf("ports[%d] %s: replay needs mac and addresses: %w", i, p.Name, ErrInvalid)
		}
		s.ports = append(s.ports, portOf(cfg, i, p.MAC, p.MTU, p.Addresses))
		s.devices = append(s.devices, steer.Port{Name: p.Name, MACs: [][6]byte{p.MAC}, VLAN: p.VLAN})
		for _, a := range p.Addresses {
			s.local = append(s.local, a.Addr())
			s.routes = append(s.routes, route.Route{To: a.Masked(), Kind: route.Unicast, Hops: []route.Hop{{Port: i, Weight: 1}}})
			if !a.IsSingleIP() {
				// The port's own address is nobody's next hop.
				s.routes = append(s.routes, route.Route{To: netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), Kind: route.Local})
			}
		}
	}
	return s, nil
}

// open opens the captures and makes the worker.
func (r *replay) open() error {
	pool, err := packet.NewPool(make([]byte, replayChunks*4096), 4096)
	if err != nil {
		return err
	}
	byName := map[string]*pcapfile.Queue{}
	var queues []driver.Queue
	for i := range r.cfg.Ports {
		q := r.clock.Queue(r.cfg.Ports[i].Name, pool)
		byName[r.cfg.Ports[i].Name] = q
		r.queues, queues = append(r.queues, q), append(queues, q)
	}
	for _, f := range r.options.In {
		q := byName[f.Port]
		if q == nil {
			return fmt.Errorf("--in %s=%s: no port of that name in %s", f.Port, f.File, r.options.Config)
		}
		if err := q.In(f.File); err != nil {
			return err
		}
	}
	for _, f := range r.options.Out {
		q := byName[f.Port]
		if q == nil {
			return fmt.Errorf("--out %s=%s: no port of that name in %s", f.Port, f.File, r.options.Config)
		}
		if err := q.Out(f.File); err != nil {
			return err
		}
	}
	r.worker = r.engine.AddWorker(pool, queues)
	return nil
}

// run turns rounds at every instant at which something happens: an input frame, a reload, the end of a wait.
func (r *replay) run() {
	first, ok := r.clock.Next()
	if !ok {
		return
	}
	for {
		frame, ok := r.clock.Next()
		if !ok {
			return
		}
		now := frame
		if at, waiting := r.worker.NextDeadline(); waiting && at < now {
			now = at
		}
		if len(r.options.Reloads) > 0 {
			if at := first + int64(r.options.Reloads[0].At); at <= now {
				r.clock.Set(at)
				r.reload(r.options.Reloads[0])
				r.options.Reloads = r.options.Reloads[1:]
				continue
			}
		}
		r.clock.Set(now)
		r.worker.ExpireAll(now)
		r.worker.Round(now)
		if r.woken {
			r.refused = errors.Join(r.refused, r.adopt())
		}
	}
}

// reload loads a configuration. One that is refused leaves the old one running.
func (r *replay) reload(x TimedReload) {
	cfg, err := load(config.LoadReplay, x.Config, r.options.Stderr)
	if err == nil {
		if d := config.Compare(r.cfg, cfg); len(d.Refusals) > 0 {
			err = fmt.Errorf("%w: %w", ErrInvalid, config.Errors(d.Refusals))
		} else {
			err = r.apply(cfg)
		}
	}
	if err != nil {
		r.refused = errors.Join(r.refused, &RefusedReload{x.At, err})
	}
}

// RefusedReload is a reload of a replay that did not happen.
type RefusedReload struct {
	At  time.Duration
	Err error
}

func (e *RefusedReload) Error() string { return fmt.Sprintf("reload at %v refused: %v", e.At, e.Err) }

// writeCounters writes the counters as `weir stats -o json` shows them.
func (r *replay) writeCounters() error {
	if r.options.Counters == "" {
		return nil
	}
	s := r.stats()
	for i, q := range r.queues {
		st := q.Stats()
		p := &r.cfg.Ports[i]
		s.Ports = append(s.Ports, PortView{Name: p.Name, Driver: "pcap", Mode: st.Mode, Up: true, Queues: 1, MTU: p.MTU, VLAN: p.VLAN,
			Received: st.Received, Sent: st.Sent, SendLost: st.SendLost, RxLost: st.FillRingEmpty})
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(r.options.Counters, append(b, '\n'), 0o644)
}
