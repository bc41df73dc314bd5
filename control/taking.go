package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"weir/conntrack"
	"weir/control/config"
	"weir/control/handover"
	"weir/control/host"
	"weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/afxdp"
	"weir/dataplane/driver/wait"
	"weir/dataplane/steer"
)

// A takeover, as the successor sees it; giving.go has the whole. It is a start whose table, sockets and memory are there already. All of it that can be done
// beside the process that still works is done before that stops.

// predecessor is the process that is taken over from.
type predecessor struct {
	conn     *handover.Conn
	offer    *offer
	files    map[string]int // by name; what was taken out is not ours any more
	listener net.Listener
	alive    int // pidfd
	begun    time.Time
}

// Why a takeover ends before it was one.
var (
	// errRestart says that what there is to take over cannot be gone on with as it is.
	errRestart = errors.New("do a restart, which keeps connections as well")
	// errOrphaned says that the former process died before it had handed over.
	errOrphaned = errors.New("the process to take over from has died")
)

// approach asks the weir on the socket at path for an offer.
func (c *Control) approach(path string) (p *predecessor, err error) {
	p = &predecessor{files: map[string]int{}, alive: -1, begun: time.Now()}
	if p.conn, err = handover.Dial(path, takeoverVersion, offerTime); err != nil {
		if errors.Is(err, handover.ErrRefused) || errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("takeover: weir on %s: %w", path, err)
		}
		return nil, fmt.Errorf("takeover: %w on %s: %w", ErrNoDaemon, path, err)
	}
	p.offer = new(offer)
	files, err := p.conn.Receive(offerTime, "offer", p.offer)
	if err == nil && len(files) != len(p.offer.Files) {
		handover.Close(files)
		err = fmt.Errorf("%d files are named, %d came", len(p.offer.Files), len(files))
	}
	if err == nil {
		for i, name := range p.offer.Files {
			p.files[name] = files[i]
		}
		if p.alive, err = unix.PidfdOpen(p.offer.PID, 0); err == unix.ESRCH {
			err = errOrphaned
		} else {
			err = os.NewSyscallError("pidfd_open", err)
		}
	}
	if err == nil {
		p.listener, err = fileListenerOf(p.take(fileListener), p.offer.Socket)
	}
	if err == nil && p.offer.Front.IsValid() {
		var l net.Listener
		if l, err = fileListenerOf(p.take(fileFront), "admin.http"); err == nil {
			c.front.Inherit(l, p.offer.Front)
		}
	}
	if err != nil {
		p.conn.Abort(err)
		p.close()
		return nil, fmt.Errorf("takeover: weir on %s: %w", path, err)
	}
	return p, nil
}

// take is a file of the offer, which is the caller's from then on; -1 if there is none of the name.
func (p *predecessor) take(name string) int {
	fd, ok := p.files[name]
	if !ok {
		return -1
	}
	delete(p.files, name)
	return fd
}

// close lets go of all that was not taken.
func (p *predecessor) close() {
	p.conn.Close()
	for _, fd := range p.files {
		unix.Close(fd)
	}
	clear(p.files)
	if p.alive >= 0 {
		unix.Close(p.alive)
		p.alive = -1
	}
}

// dead reports whether the former process has ended, and waits for its end for a moment: its connection ends first.
func (p *predecessor) dead() bool { return ended(p.alive, time.Second) }

// lost says what an error of the conversation means: errOrphaned if the former process has died.
func (p *predecessor) lost(err error) error {
	if errors.Is(err, handover.ErrGone) && p.dead() {
		return errOrphaned
	}
	return err
}

// take takes over from a process that is alive. Up to the commit an error leaves that as it was, and so does the end of ctx: whoever ends a successor that
// works not yet does not mean that nobody shall forward.
func (c *Control) take(ctx context.Context, p *predecessor, cfg *config.Config) error {
	x, port, err := c.makeReady(p, cfg)
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		p.conn.Abort(err)
		return fmt.Errorf("takeover from pid %d, which goes on: %w", p.offer.PID, err)
	}
	s, err := c.await(p)
	if err == nil {
		if err = errors.Join(context.Cause(ctx), c.own(s, port)); err == nil {
			err = p.lost(c.commit(p))
		} else {
			p.conn.Abort(err)
		}
		if errors.Is(err, errOrphaned) {
			err = nil // it has told everything
		}
	}
	if err != nil {
		return fmt.Errorf("takeover from pid %d: %w", p.offer.PID, c.orphaned(err))
	}
	for _, r := range c.runners {
		r.Start()
	}
	c.firstRounds()
	dark := time.Duration(dataplane.Monotonic() - s.Stopped)
	_ = p.conn.Send(time.Second, "forwarding", nothing{})
	c.mu.Lock()
	c.taken = &TakeoverView{PID: p.offer.PID, Version: p.offer.Version, TookMS: float64(time.Since(p.begun).Microseconds()) / 1e3, DarkUS: float64(dark.Nanoseconds()) / 1e3}
	c.mu.Unlock()
	c.log.Info("taken over", "kind", "takeover", "from", p.offer.PID, "version", p.offer.Version, "took", time.Since(p.begun).Round(time.Microsecond), "dark", dark.Round(time.Microsecond),
		"connections", c.engine.Table.Len())
	_, _ = p.conn.Receive(time.Second, "farewell", &nothing{}) // after it the service manager listens to us
	p.close()
	c.settleIn(cfg, x)
	return nil
}

// orphaned begins this process anew, to start as after a crash, if that is what err says.
func (c *Control) orphaned(err error) error {
	if !errors.Is(err, errOrphaned) || c.options.Again == nil {
		return err
	}
	c.log.Warn("this process starts as after a crash", "kind", "takeover", "err", err)
	return errors.Join(err, spread(&c.cores, c.options.Again))
}

// makeReady does all that can be done while the other works.
func (c *Control) makeReady(p *predecessor, cfg *config.Config) (x *compiled, port func(int) int, err error) {
	cpus, err := workerCPUs(cfg)
	if err != nil {
		return nil, nil, err
	}
	if err := p.offer.fits(cfg, len(cpus)); err != nil {
		return nil, nil, err
	}
	st, err := c.inherit(p.offer, cfg.Engine.StateDir, p.take(fileTable), p.take(fileLock))
	if err != nil {
		return nil, nil, err
	}
	c.seed = p.offer.Seed
	reg := newRegistry(dataplane.DefaultMaxBackends, c.seed)
	reg.restore(p.offer.Legend)
	reg.expect() // or ways of before, which connections go by, would be forgotten
	table, err := conntrack.New(conntrack.Options{Capacity: cfg.Conntrack.MaxConnections, Workers: len(cpus), File: st.file, Old: st.file,
		Secret: p.offer.Table.Secret, Boot: st.boot, Beside: true})
	if err != nil {
		return nil, nil, err
	}
	st.table = table.ID()
	c.assemble(table, reg, st, len(cpus))
	c.reg.watch.monitor.Remember(p.offer.Health)
	c.generation = p.offer.Loaded // this one is the next, as after a reload
	if c.ports, err = openPorts(c.log, c.options.Socket, cfg, c.engine); err != nil {
		return nil, nil, err
	}
	c.outside = c.ports
	c.mu.Lock()
	defer c.mu.Unlock()
	with, edits, lost := kept(cfg, p.offer.Edits)
	for _, l := range lost {
		c.log.Warn("a change that is not in the file is lost", "kind", "takeover", "change", l)
	}
	if x, err = c.prepare(with, c.ports.surroundings()); err == nil {
		err = c.publish(with, x, time.Now())
	}
	if err != nil {
		return nil, nil, err
	}
	c.file, c.edits = cfg, edits
	c.resume()
	if c.release, err = confine(cpus); err != nil {
		c.log.Warn("control may run on the workers' cores", "err", err)
	}
	runtime.GC() // while there is no worker to stop
	if c.runners, err = c.ports.assume(p, with, x, cpus); err != nil {
		return nil, nil, err
	}
	return x, p.offer.translate(with), nil
}

// fits says what of a configuration cannot be had without a restart, with what is offered.
func (o *offer) fits(cfg *config.Config, workers int) error {
	var why []string
	tell := func(what string, theirs, ours any) {
		if fmt.Sprint(theirs) != fmt.Sprint(ours) {
			why = append(why, fmt.Sprintf("%s: it has %v, here it is %v", what, theirs, ours))
		}
	}
	tell("layout of the connection table", o.Table.Layout, conntrack.Layout())
	tell("conntrack.max_connections", o.Table.Capacity, cfg.Conntrack.MaxConnections)
	tell("engine.state_dir", o.Table.Place, cfg.Engine.StateDir)
	tell("workers", len(o.Workers), workers)
	devices := map[string]bool{}
	for i := range cfg.Ports {
		c := &cfg.Ports[i]
		tell(fmt.Sprintf("ports[%d] %s: driver", i, c.Name), "af_xdp", c.Driver)
		devices[c.Interface] = true
	}
	for w := range o.Workers {
		x := &o.Workers[w]
		seen := map[string]bool{}
		for _, q := range x.Queues {
			seen[q.Interface] = true
			for i := range cfg.Ports {
				if c := &cfg.Ports[i]; c.Interface == q.Interface && w < workers {
					number := w
					if !c.Queues.All && w < len(c.Queues.List) {
						number = c.Queues.List[w]
					}
					tell(fmt.Sprintf("ports[%d] %s: queue of worker %d", i, c.Name, w), q.Number, number)
					tell(fmt.Sprintf("ports[%d] %s: xdp_mode", i, c.Name), q.Mode, c.XDPMode)
				}
			}
		}
		tell("interfaces of ports", names(seen), names(devices))
	}
	if len(why) == 0 {
		return nil
	}
	slices.Sort(why)
	return fmt.Errorf("%s: %w", strings.Join(slices.Compact(why), "; "), errRestart)
}

func names(set map[string]bool) string {
	var all []string
	for name := range set {
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// translate finds the number of a port of the former process among ours, by what it is: a device and a VLAN.
func (o *offer) translate(cfg *config.Config) func(int) int {
	to := make([]int, len(o.Ports))
	for i, p := range o.Ports {
		to[i] = slices.IndexFunc(cfg.Ports, func(c config.Port) bool { return c.Interface == p.Interface && c.VLAN == p.VLAN })
	}
	return func(i int) int {
		if i < 0 || i >= len(to) {
			return -1
		}
		return to[i]
	}
}

// await says that we are ready, and waits for the state.
func (c *Control) await(p *predecessor) (*handState, error) {
	if err := p.conn.Send(time.Second, "ready", readyMessage{os.Getpid(), c.options.Version, c.options.Manager.Present()}); err != nil {
		return nil, p.lost(err)
	}
	s := new(handState)
	if _, err := p.conn.Receive(offerTime, "state", s); err != nil {
		return nil, p.lost(err)
	}
	return s, nil
}

// own makes the state ours. Neither rings nor table are touched.
func (c *Control) own(s *handState, port func(int) int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	workers := c.engine.Workers()
	if len(s.Workers) != len(workers) {
		return fmt.Errorf("%d workers are handed over, %d are here", len(s.Workers), len(workers))
	}
	if err := c.engine.Table.Resume(s.Table); err != nil {
		return err
	}
	for _, x := range s.Loads {
		if int(x.ID) >= len(c.reg.ids) || c.reg.ids[x.ID] == nil {
			return fmt.Errorf("backend %d has connections, and nobody knows it", x.ID)
		}
		c.reg.ids[x.ID].load.Restore(x.LoadState)
	}
	c.reg.counted()
	now := dataplane.Monotonic()
	c.engine.Resume(&s.Engine, now)
	for i, w := range workers {
		x := &s.Workers[i]
		if err := c.ports.umems[i].Resume(&x.Frames, x.Worker.Chunks()); err != nil {
			return fmt.Errorf("worker %d: %w", i, err)
		}
		for port, n := range w.Resume(&x.Worker, now, port) {
			if q, ok := c.ports.queues[i][c.ports.owner(port)].(*afxdp.Queue); ok {
				q.Carried(n)
			}
		}
	}
	return nil
}

// commit is the last word of the former process about whose the packets are.
func (c *Control) commit(p *predecessor) error {
	sent := p.conn.Send(time.Second, "prepared", nothing{})
	// Also if it is not there any more: it may have given up and worked again, and died since. Then what it has told is of the past.
	_, err := p.conn.Receive(switchTime+time.Second, "commit", &nothing{})
	if sent != nil && !errors.Is(err, handover.ErrAborted) {
		return sent
	}
	return err
}

// firstRounds waits until every worker has turned a round, but not for long.
func (c *Control) firstRounds() {
	end := time.Now().Add(time.Second)
	for _, r := range c.runners {
		for r.Worker.Counters.Sum().Rounds == 0 && time.Now().Before(end) {
			time.Sleep(20 * time.Microsecond)
		}
	}
}

// settleIn makes the host ours, now that packets are. What fails is told and tried again; it is no reason to stop forwarding.
func (c *Control) settleIn(cfg *config.Config, x *compiled) {
	c.provided = c.provide()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reg.weigh()
	c.purge(x)
	c.tell()
	if err := errors.Join(c.ports.settle(x), c.ports.bind(c.cfg, x)); err != nil {
		c.log.Error("after the takeover", "kind", "takeover", "err", err)
		c.behind = true
	}
	if l, ok := c.listener.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(true)
		if raw, err := l.SyscallConn(); err == nil {
			// Who connects is told by the kernel who listens: whoever said so last.
			_ = raw.Control(func(fd uintptr) { _ = unix.Listen(int(fd), unix.SOMAXCONN) })
		}
	}
}

// assume makes sockets, memory and devices of an offer ours, and workers that do not run yet.
func (p *ports) assume(from *predecessor, cfg *config.Config, x *compiled, cpus []int) (runners []*dataplane.Runner, err error) {
	mode, err := wait.ParseMode(cfg.Engine.Wait)
	if err != nil {
		return nil, err
	}
	p.workers = len(cpus)
	if err := p.checkQueues(len(cpus)); err != nil {
		return nil, err
	}
	path, err := pinPath(p.host, p.socket)
	if err != nil {
		return nil, err
	}
	p.program, err = steer.Load(steer.Options{Path: path, Rules: x.rules, Queues: p.queueRoom(), Adopt: true})
	if errors.Is(err, steer.ErrMaps) {
		return nil, fmt.Errorf("this configuration: %w: %w", err, errRestart)
	}
	if err != nil {
		return nil, err
	}
	mtu := 0
	for _, port := range x.snapshot.Ports {
		mtu = max(mtu, port.MTU)
	}
	tun := from.take(fileTUN)
	if p.tun, err = p.host.AdoptTUN(tun, from.offer.TUN, host.TUNOptions{MTU: mtu}); err != nil {
		unix.Close(tun)
		return nil, err
	}
	device := p.tun
	p.engine.Punt = func(ip []byte) bool { return device.Write(ip) == 0 }
	for name, features := range from.offer.Offloads {
		p.wereOn(name, features)
	}
	p.beats = make([]beat, len(cpus))
	p.openLive()
	for w, cpu := range cpus {
		worker, err := p.assumeWorker(from, w, mtu)
		if err != nil {
			return nil, err
		}
		waiter, err := wait.New(mode)
		if err != nil {
			return nil, err
		}
		runners = append(runners, &dataplane.Runner{Worker: worker, Waiter: waiter, CPU: cpu, Beat: func(now int64) {
			p.program.Beat(uint64(now))
			p.beats[w].at(now)
		}})
	}
	return runners, nil
}

func (p *ports) assumeWorker(from *predecessor, w, mtu int) (*dataplane.Worker, error) {
	o := &from.offer.Workers[w]
	chunk, most := chunkSize(mtu)
	if chunk != o.ChunkSize || o.Chunks != chunksFor(len(p.devices())) {
		return nil, fmt.Errorf("frames of %d bytes are needed, there are some of %d: %w", chunk, o.ChunkSize, errRestart)
	}
	p.maxMTU = most
	memory := os.NewFile(uintptr(from.take(fileMemory(w))), fileMemory(w))
	umem, err := afxdp.AdoptUmem(memory, afxdp.UmemOptions{ChunkSize: o.ChunkSize, Chunks: o.Chunks}, o.Pages)
	if err != nil {
		return nil, err
	}
	p.umems = append(p.umems, umem)
	queues := make([]driver.Queue, len(p.cfg.Ports))
	for n, x := range o.Queues { // in the former process' order, by which the memory's owners are numbered
		i := slices.IndexFunc(p.cfg.Ports, func(c config.Port) bool { return c.Interface == x.Interface })
		fd := from.take(fileSocket(w, n))
		q, err := afxdp.Adopt(umem, x, fd)
		if err != nil {
			unix.Close(fd)
			return nil, err
		}
		p.enliven(i, q)
		queues[i] = q
		p.rings = append(p.rings, &ring{port: i, number: x.Number, queue: q, registered: q.Generation()})
		p.guarded[i] = guard{p.mirror.State().Links[i].Index, x.Attached}
	}
	p.queues = append(p.queues, queues)
	return p.engine.AddWorker(umem.Pool(), queues), nil
}

// settle makes the steering ours: rules, links, and the end of what is not needed any more. The sockets are in their places.
func (p *ports) settle(x *compiled) error {
	if err := p.program.Look(); err != nil {
		return err
	}
	// Whatever fails, each link that can be had must be ours: Remove, with the next snapshot, takes those that are not for leftovers, and detaches them.
	errs := []error{p.program.Add(x.rules)}
	for i := range p.cfg.Ports {
		if p.owner(i) != i {
			continue
		}
		if err := p.attach(i); err != nil {
			delete(p.guarded, i) // so that register attaches it, once it can be
			errs = append(errs, fmt.Errorf("ports[%d] %s: %w", i, p.cfg.Ports[i].Name, err))
		}
	}
	p.tendLive()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err := p.program.Remove()
	return err
}
