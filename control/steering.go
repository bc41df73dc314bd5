package control

import (
	"fmt"
	"slices"
	"time"

	"weir/control/host"
	"weir/dataplane/steer"
)

// steering loads or adopts the steering program, teaches it the rules and attaches it.
func (p *ports) steering(x *compiled) (err error) {
	path, unpinned := pinPath(p.host, p.socket)
	if p.program, err = steer.Load(steer.Options{Path: path, Rules: x.rules, Queues: p.queueRoom()}); err != nil {
		return err
	}
	if p.program.Adopted() {
		p.log.Info("adopted the steering program of a predecessor", "kind", "steering")
	}
	if ok, why := p.program.Pinned(); !ok {
		if unpinned != nil {
			why = unpinned.Error()
		}
		p.log.Warn("the steering program is not pinned: after a crash the kernel sees what is ours", "kind", "steering", "why", why)
	}
	if err := p.program.Add(x.rules); err != nil {
		return err
	}
	for i := range p.cfg.Ports {
		if p.owner(i) != i {
			continue
		}
		if err := p.attach(i); err != nil {
			return fmt.Errorf("ports[%d] %s: %w", i, p.cfg.Ports[i].Name, err)
		}
	}
	return nil
}

// queueRoom is how many queues of a device the program must know: beyond the usual if workers, or the numbers given, are.
func (p *ports) queueRoom() int {
	n := 64
	for i := range p.cfg.Ports {
		last := p.workers - 1
		if q := p.cfg.Ports[i].Queues; !q.All {
			last = q.List[len(q.List)-1]
		}
		for last >= n {
			n *= 2
		}
	}
	return n
}

// attach puts the program in front of the device of port i.
func (p *ports) attach(i int) error {
	c, l := &p.cfg.Ports[i], p.mirror.State().Links[i]
	if c.Driver == "af_packet" {
		if err := p.program.AttachDrop(l.Index); err != nil {
			return err
		}
		p.guarded[i] = guard{ifindex: l.Index}
		return nil
	}
	mode := steer.Auto
	switch c.XDPMode {
	case "native", "zerocopy":
		mode = steer.Native
	case "generic":
		mode = steer.Generic
	}
	got, err := p.program.Attach(l.Index, mode)
	if err != nil {
		return fmt.Errorf("attach to %s: %w", c.Interface, err)
	}
	p.guarded[i] = guard{l.Index, string(got)}
	for _, r := range p.rings {
		if r.port == i {
			r.queue.SetAttached(string(got))
		}
	}
	p.log.Info("steering attached", "kind", "steering", "port", c.Name, "interface", c.Interface, "mode", string(got))
	return nil
}

// unguarded reports whether e is about a device of ours, made anew, that the program does not stand in front of yet.
func (p *ports) unguarded(e host.Event) bool {
	if e.Change != host.ChangeLink || e.Gone {
		return false
	}
	for i := range p.cfg.Ports {
		if p.cfg.Ports[i].Interface == e.Link.Name && p.owner(i) == i && p.guarded[i].ifindex != e.Link.Index {
			return true
		}
	}
	return false
}

// register makes the steering program know every socket that it does not know yet, and every device that has come back. It is pending where the
// worker has not made the socket of such a device yet: nothing tells when it has.
func (p *ports) register() {
	p.pending = false
	trouble := map[int]string{}
	for i := range p.cfg.Ports {
		l, was := p.mirror.State().Links[i], p.guarded[i].ifindex
		if p.owner(i) != i || l.Index == 0 || l.Index == was {
			continue
		}
		if p.plain[i] != l.Index { // it has offloads of its own, of which some stand in the way of native XDP
			p.plain[i] = l.Index
			p.disableOffloads(p.cfg.Ports[i].Interface)
		}
		// At once, also before the sockets are there: nothing that is ours may reach the kernel.
		err := p.attach(i)
		for _, r := range p.rings {
			if r.port == i {
				r.registered = r.queue.Generation() - 1 // a new device has a new place for its sockets
			}
		}
		if err == nil {
			err = p.program.Detach(was)
		}
		if err != nil {
			trouble[i] = err.Error()
		}
	}
	for _, r := range p.rings {
		generation := r.queue.Generation()
		if generation == r.registered {
			continue
		}
		fd := r.queue.SocketOn(p.guarded[r.port].ifindex)
		if fd < 0 {
			switch err := r.queue.Err(); {
			case trouble[r.port] != "": // the program does not stand in front of it
			case err != nil:
				trouble[r.port] = err.Error()
			case p.mirror.State().Links[r.port].Index == 0:
				trouble[r.port] = "the device is gone"
			default:
				trouble[r.port] = "the device is new, and has no socket yet"
				p.pending = true
			}
			continue
		}
		if err := p.program.Register(p.guarded[r.port].ifindex, r.number, fd); err != nil {
			trouble[r.port] = err.Error()
			continue
		}
		r.registered = generation
	}
	for i := range p.cfg.Ports {
		if p.owner(i) != i {
			continue
		}
		l := p.mirror.State().Links[i]
		switch {
		case trouble[i] != "":
		case l.Index == 0:
			trouble[i] = "the device is gone"
		case !l.Up:
			trouble[i] = "the device is down"
		case !l.Carrier:
			trouble[i] = "the link is down"
		case p.deaf[i] != "":
			trouble[i] = p.deaf[i]
		case p.cfg.Ports[i].Driver == "af_xdp" && l.MTU > p.maxMTU:
			trouble[i] = fmt.Sprintf("the MTU is %d, but larger frames than those of %d are lost: restart weir", l.MTU, p.maxMTU)
		}
		p.complain(p.cfg.Ports[i].Name, trouble[i])
	}
}

// How often control looks, beside housekeeping, whether a worker has made a socket that it waits for, which takes a worker a tenth of a second or two, and
// whether devices take XDP frames. Such a look is a request or two to the kernel.
const (
	lookForSockets = 20 * time.Millisecond
	lookForXDP     = 100 * time.Millisecond
)

// lookAgain is when register and tendLive are to be called again; 0: by housekeeping.
func (p *ports) lookAgain() time.Duration {
	switch {
	case p.pending:
		return lookForSockets
	case p.live != nil:
		return lookForXDP
	}
	return 0
}

// complain logs what is wrong with a port when that changes.
func (p *ports) complain(port, what string) {
	if p.missing[port] == what {
		return
	}
	p.missing[port] = what
	if what == "" {
		p.log.Info("port is back", "kind", "port", "port", port)
		if p.vips != nil {
			p.vips.Announce() // a switch may have forgotten us
		}
	} else {
		p.log.Warn("port", "kind", "port", "port", port, "err", what)
	}
}

// complaints are what is wrong with ports now, and with local ports.
func (p *ports) complaints() (all []string) {
	for port, what := range p.missing {
		if what != "" {
			all = append(all, "port "+port+": "+what)
		}
	}
	for what, why := range p.under {
		all = append(all, what+": "+why)
	}
	if p.scarce != "" {
		all = append(all, p.scarce)
	}
	all = append(all, p.notLives()...)
	slices.Sort(all)
	return all
}

// apply brings the steering in line with x around the publication of its snapshot: additions before, removals after, so no packet of
// either configuration is missed.
func (p *ports) apply(x *compiled, publish func() error) error {
	if err := p.program.Add(x.rules); err != nil {
		return err
	}
	if p.local != nil {
		p.reserve(x) // before a connection uses one
	}
	if err := publish(); err != nil {
		return err
	}
	if _, err := p.program.Remove(); err != nil {
		p.log.Warn("steering: rules that are not needed any more stay", "kind", "steering", "err", err)
	}
	return nil
}
