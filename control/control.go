// Package control turns configuration into what the data path runs on, and looks after it: it starts and stops the daemon, applies a
// reload by one pointer swap, follows the kernel's routes and neighbours, binds VIPs, and answers the admin socket. It also replays
// capture files through the same engine.
//
// One goroutine (Control.loop) makes every change. It never stands in a packet's way: workers read snapshots, and ask for a next hop
// by a ring and a wake-up.
package control

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weir/conntrack"
	"weir/control/admin"
	"weir/control/config"
	"weir/control/dashboard"
	"weir/control/events"
	"weir/control/health"
	"weir/control/privilege"
	"weir/control/systemd"
	"weir/dataplane"
)

// Options of a daemon.
type Options struct {
	Config  string       // file
	Socket  string       // admin socket; empty: what the configuration says, or DefaultSocket
	Logger  *slog.Logger // nil: slog.Default()
	Stderr  io.Writer    // diagnostics of configurations
	Reload  <-chan os.Signal
	Version string
	Manager *systemd.Manager // who started us and watches over us; nil: nobody
	// Ready is called once packets flow and VIPs are bound.
	Ready func()

	// Takeover has the daemon take the place of the one that answers on the socket, alive: see taking.go.
	Takeover bool
	// Upgrade asks for a successor, which Successor begins: another process of the program that is installed now. It is not waited for.
	Upgrade   <-chan os.Signal
	Successor func() error
	// Again begins the program anew in this process, as after a crash, without Takeover. It returns only if it fails.
	Again func() error
}

// Control is a running daemon.
type Control struct {
	*core
	options  Options
	log      *slog.Logger
	started  time.Time
	ports    *ports // devices, sockets, steering, host
	runners  []*dataplane.Runner
	release  func()        // lets control's threads run on the workers' cores again
	cores    unix.CPUSet   // of the process, before confine; empty: not known
	asks     chan func()   // what the API wants done
	wake     chan struct{} // a worker wants a next hop
	health   chan struct{} // a server's health has changed
	cramped  error         // why there is no memory for more connections; guarded by mu
	provided func()        // ends provide
	last     Outcome       // of the last reload; guarded by mu
	lastAt   time.Time
	reader   config.Reader  // of the configuration file; Control's goroutine alone uses it
	file     *config.Config // as it was loaded; guarded by mu, as what follows
	edits    []config.Edit  // changes of it that are in force
	outside  outside        // ports, but in tests
	rest     rest

	compared lastDiff

	events *events.Log
	rising rising // Control's goroutine alone uses it

	auditing sync.Mutex   // one Frames at a time
	cutting  sync.RWMutex // held to read by requests that end connections, to write while they may be a successor's; taken before mu

	viewers  *dashboard.Hub
	front    *admin.Front
	sights   sights
	seed     uint64        // of all that is random and must be the same after a takeover
	listener net.Listener  // admin socket
	giving   atomic.Bool   // a successor is preparing
	frozen   bool          // and may count on what it was told; Control's goroutine alone uses it, as handed
	left     chan struct{} // closed with it
	handed   bool          // a successor works: nothing here is ours any more; written with cutting held, too
	broken   error         // why there is nothing to hand over, or to go on with
	taken    *TakeoverView // from whom this process has taken over; guarded by mu
	behind   bool          // workers do not know yet what has changed; Control's goroutine alone uses it
	pulse    beat          // of loop
	stopping atomic.Bool   // loop has ended
	reported string        // what the service manager was told last; guarded by mu
}

// Run is the daemon: it returns when ctx ends, after a clean stop, or when it cannot go on.
func Run(ctx context.Context, o Options) (err error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	kept := events.NewLog(keptEvents)
	c := &Control{options: o, log: slog.New(kept.Handler(o.Logger.Handler())), events: kept, started: time.Now(), asks: make(chan func()), left: make(chan struct{}), wake: make(chan struct{}, 1), health: make(chan struct{}, 1)}
	_ = unix.SchedGetaffinity(0, &c.cores) // where that fails confine does, too
	cfg, err := load(c.reader.Load, o.Config, o.Stderr)
	if err != nil {
		return err
	}
	if err := checkRights(cfg); err != nil {
		return err
	}
	c.log.Info("privileges", "user", os.Geteuid(), "capabilities", strings.Join(privilege.Names(), " "))
	if o.Socket == "" {
		o.Socket = cfg.Admin.Socket
	}
	c.front = admin.NewFront(c.log, refuse)
	bring := c.start
	if o.Takeover {
		from, err := c.approach(o.Socket)
		if err != nil {
			return c.orphaned(err)
		}
		defer from.close()
		o.Socket, c.listener = from.offer.Socket, from.listener
		bring = func(cfg *config.Config) error { return c.take(ctx, from, cfg) }
	} else if c.listener, err = listenAdmin(o.Socket); err != nil {
		return err
	}
	c.options.Socket = o.Socket
	defer func() { err = errors.Join(err, c.stop()) }()
	defer c.listener.Close()
	defer c.front.Close()
	front, err := c.front.Prepare(frontSettings(cfg)) // whoever asks before it is committed waits for the answer
	if err != nil {
		return err
	}
	if err := bring(cfg); err != nil {
		front.Abort()
		return err
	}
	c.pulse.now()
	c.viewers = dashboard.NewHub(newLive(c))
	handler := c.handler()
	c.front.Handle(handler)
	front.Commit()
	api := c.serve(c.listener, handler)
	defer api.close()
	defer c.viewers.Close() // first: they would hold up the others, who wait for requests under way
	defer c.sights.stop()   // or close would wait for them
	c.log.Info("running", "config", o.Config, "generation", c.generation, "workers", len(c.runners), "socket", o.Socket)
	c.mu.Lock()
	c.reported = c.summary()
	c.notified(o.Manager.Ready(c.reported))
	c.mu.Unlock()
	watched, unwatch := context.WithCancel(ctx) // a stop takes as long as it takes: the manager has another limit for it
	defer unwatch()
	go c.watchdog(watched)
	if o.Ready != nil {
		o.Ready()
	}
	return c.loop(ctx)
}

// load reads and checks the configuration at path, by config.Load or config.LoadReplay, and prints what is wrong with it.
func load(read func(string) (*config.Config, []config.Diagnostic), path string, stderr io.Writer) (*config.Config, error) {
	cfg, diags := read(path)
	return cfg, diagnose(path, diags, stderr)
}

// start brings everything up in the order that loses and resets nothing: the table, the snapshot, the steering program with its rules,
// the sockets with their chunks, the workers, and the VIPs last.
func (c *Control) start(cfg *config.Config) error {
	workers, err := workerCPUs(cfg)
	if err != nil {
		return err
	}
	st, err := openState(c.log, c.options.Socket, cfg.Engine.StateDir)
	if err != nil {
		return err
	}
	c.seed = rand.Uint64()
	reg := newRegistry(dataplane.DefaultMaxBackends, c.seed)
	table, err := st.open(conntrack.Options{Capacity: cfg.Conntrack.MaxConnections, Workers: len(workers), Keep: reg.knows, Kept: reg.bear,
		CountSources: cfg.Limits.HalfOpenPerSource > 0}, reg.restore)
	if err != nil {
		return err
	}
	c.assemble(table, reg, st, len(workers))
	c.provided = c.provide()
	if c.ports, err = openPorts(c.log, c.options.Socket, cfg, c.engine); err != nil {
		return err
	}
	c.outside = c.ports
	c.mu.Lock()
	x, err := c.prepare(cfg, c.ports.surroundings())
	if err == nil {
		err = c.publish(cfg, x, time.Now())
		c.file = cfg
		c.reg.weigh()
		c.resume()
		c.tell()
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if c.release, err = confine(workers); err != nil {
		c.log.Warn("control may run on the workers' cores", "err", err)
	}
	runtime.GC() // while there is no worker to stop
	if c.runners, err = c.ports.begin(cfg, x, workers); err != nil {
		return err
	}
	return c.ports.bind(cfg, x)
}

// assemble puts together what does not depend on how the table was come by.
func (c *Control) assemble(table *conntrack.Table, reg *registry, st *state, workers int) {
	c.core = newCoreOf(table, reg, workers, c.seed)
	c.state = st
	c.reg.renamed = true
	c.reg.watch = newWatch(health.NewMonitor(health.Options{Changed: func() {
		select {
		case c.health <- struct{}{}:
		default:
		}
	}}))
	c.engine.Wake = func() {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// stop takes everything down the other way round: VIPs, workers, steering, sockets. What a successor has, or what was not taken over in the end, is not
// ours to take down: it goes with the process.
func (c *Control) stop() error {
	if c.handed || c.options.Takeover && c.taken == nil {
		return nil
	}
	var errs []error
	if c.ports != nil {
		errs = append(errs, c.ports.unbind())
	}
	for _, r := range c.runners {
		r.Stop()
	}
	if c.release != nil {
		c.release()
	}
	if c.ports != nil {
		errs = append(errs, c.ports.close())
	}
	for _, r := range c.runners {
		errs = append(errs, r.Waiter.Close())
	}
	if c.core != nil {
		c.reg.watch.monitor.Close()
		c.provided()
		c.state.hurry()
		c.keep(time.Now())
		connections := c.engine.Table.Len()
		errs = append(errs, c.engine.Table.Close(), c.state.close(connections))
	}
	return errors.Join(errs...)
}

// housekeeping is how often control looks at what nobody tells it about.
const housekeeping = 500 * time.Millisecond

// reportEvery is after how many rounds of housekeeping the service manager is told how it stands, if that has changed.
const reportEvery = 10

// settle is how long control waits for more events of the host before it makes a snapshot of them.
const settle = 20 * time.Millisecond

// loop makes every change of a running daemon, one after the other.
func (c *Control) loop(ctx context.Context) error {
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := c.ports.watch(watch)
	if err != nil {
		return err
	}
	tick := time.NewTicker(housekeeping)
	defer tick.Stop()
	var settled, adopting, examined, again, late <-chan time.Time
	lateness := firstLateness
	ticks := 0
	for {
		switch {
		case !c.behind:
			lateness = firstLateness
		case late == nil:
			late = time.After(lateness)
			lateness = min(2*lateness, longestLateness)
		}
		if d := c.ports.lookAgain(); again == nil && d > 0 {
			again = time.After(d)
		}
		c.pulse.now()
		hups := c.options.Reload
		if c.frozen {
			hups = nil // nobody would hear that it was refused: it waits, for this process or the next
		}
		select {
		case <-ctx.Done():
			c.stopping.Store(true)
			c.notified(c.options.Manager.Stopping())
			c.log.Info("stopping")
			return nil
		case <-hups:
			c.reload(false)
		case do := <-c.asks:
			do()
			if c.handed {
				c.stopping.Store(true)
				return c.broken
			}
		case <-c.options.Upgrade:
			c.upgrade()
		case e, ok := <-events:
			if !ok && ctx.Err() != nil {
				continue // it ended because we do
			}
			if !ok {
				return errors.New("the watch of the host's routes and neighbours ended")
			}
			if e.Err != nil {
				c.log.Warn("watching the host", "kind", "host", "err", e.Err)
			}
			c.ports.note(e)
			switch {
			case c.ports.unguarded(e): // the kernel answers what comes by it, and there is more to come: nobody waits for that
				settled = time.After(0)
			case settled == nil:
				settled = time.After(settle)
			}
		case <-settled:
			settled = nil
			c.follow(false)
		case <-late:
			if late = nil; c.behind && !c.frozen {
				c.follow(true)
			}
		case <-again:
			again = nil
			c.mu.Lock()
			c.ports.register()
			c.ports.tendLive()
			c.mu.Unlock()
		case <-c.wake:
			c.engine.Wants(c.ports.resolve)
			if adopting == nil {
				adopting = time.After(settle)
			}
		case <-adopting:
			adopting = nil
			c.adopt()
		case <-c.health:
			if examined == nil {
				examined = time.After(settle)
			}
		case <-examined:
			examined = nil
			c.republish("health")
		case <-tick.C:
			c.mu.Lock()
			c.reg.shun(c.engine.Handshakes)
			due := c.reg.attend()
			c.ports.tend()
			freed := !c.frozen && c.collect()
			if ticks++; ticks%reportEvery == 0 {
				c.report()
			}
			c.keep(time.Now())
			c.mu.Unlock()
			if due {
				c.republish("health")
			}
			if freed {
				c.republish("the last connections of a backend, or by a former way, ended")
				c.mu.Lock()
				c.ports.left()
				c.mu.Unlock()
			}
			c.adopt()
			c.notice(time.Now())
		}
	}
}

// follow takes over what has changed on the host.
//
// It is tried again, whole, until it has worked: of a change that could not be read, or published, no event comes a second time.
func (c *Control) follow(again bool) {
	changed, err := c.ports.refresh()
	if again {
		err = errors.Join(err, c.ports.bindAgain())
	}
	if err != nil {
		c.log.Warn("reading the host", "kind", "host", "err", err)
	}
	if changed || again {
		c.republish("host changed")
		c.mu.Lock()
		c.ports.tend() // a device made anew gets its program before traffic finds it
		c.mu.Unlock()
	}
	c.behind = c.behind || err != nil
}

// How long after what could not be done it is tried again: longer each time, for it costs as much as a reload.
const (
	firstLateness   = time.Second
	longestLateness = time.Minute
)

// republish makes a snapshot of the same configuration in new surroundings. The generation stays: it counts configurations.
func (c *Control) republish(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x, err := c.again(c.ports.surroundings())
	if err == nil {
		err = c.ports.apply(x, func() error { return c.engine.Publish(x.snapshot) })
	}
	if err == nil { // the connections of who is gone from it end now or never, whatever could not be done besides
		c.purge(x)
		c.tell()
		for _, r := range c.runners {
			r.Waiter.Notify()
		}
		err = c.ports.rebind(c.cfg, x)
	}
	c.rest.take()
	if c.behind = err != nil; c.behind {
		c.log.Error("snapshot", "why", why, "err", err)
		return
	}
	c.log.Debug("snapshot", "why", why)
}

// tell logs what became of servers, one line each, and what of a publication could not be done. c.mu is held.
func (c *Control) tell() {
	if c.unsettled != nil {
		c.log.Error("overlay", "kind", "vxlan", "err", c.unsettled)
		c.unsettled = nil
	}
	for _, e := range c.reg.events {
		args := []any{"kind", "health", "service", e.Service, "backend", e.Backend, "old", e.From.String(), "new", e.To.String()}
		if e.Why != "" {
			args = append(args, "reason", e.Why)
		}
		if e.To == down {
			c.log.Warn("backend_state", args...)
		} else {
			c.log.Info("backend_state", args...)
		}
	}
	c.reg.events = nil
}
