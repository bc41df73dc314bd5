package control

import (
	"fmt"
	"net/netip"
	"time"

	"weir/dataplane"
)

// keep has the kernel keep the next hops of routes, the servers and the VTEPs on our links resolved, and lets go of what is needed no more.
func (p *ports) keep() {
	if p.keeper == nil {
		return
	}
	need, lost := p.needed(), 0
	for hop := range need {
		asked := p.keeper.Keeps(hop.ifindex, hop.addr)
		there, kept := p.mirror.Keeps(hop.ifindex, hop.addr)
		if hop.ifindex == 0 || asked && kept {
			continue
		}
		if asked && !there {
			lost++
		}
		if err := p.keeper.Resolve(hop.ifindex, hop.addr); err != nil {
			p.log.Debug("resolve", "address", hop.addr, "err", err)
		}
	}
	if p.crowd.note(lost, time.Now()) {
		p.log.Warn("the kernel's neighbour table is too small for all servers and routers on our links: it drops some to take others, which packets then wait for",
			"kind", "host", "needed", len(need), "dropped", lost, "cure", fmt.Sprintf("sysctl -w net.ipv4.neigh.default.gc_thresh3=%d net.ipv4.neigh.default.gc_thresh2=%d (IPv6: net.ipv6.neigh)", 4*len(need), 2*len(need)))
	}
	p.wanted.expire(time.Now(), p.answered())
	p.retain(need)
}

// crowd is what is known of the kernel's neighbour table being too small (gc_thresh3, 1024 of all namespaces together): each next hop that it is asked
// for then pushes out another, of which an event tells, for which it is asked again. So it is asked less and less often.
type crowd struct {
	at    time.Time     // when many were lost last
	pause time.Duration // from then on
	owed  bool          // something has changed meanwhile
}

const (
	// manyLost next hops at once are lost with their device, too, but then not again and again.
	manyLost     = 64
	crowdedFor   = 10 * time.Second
	leastPause   = time.Second
	longestPause = time.Minute
)

// note takes in how many next hops were found lost that were kept. It reports true when a crowd begins.
func (c *crowd) note(lost int, now time.Time) (begins bool) {
	c.owed = false
	if lost < manyLost {
		return false
	}
	again := !c.at.IsZero() && now.Sub(c.at) < crowdedFor+2*c.pause
	c.at = now
	if !again {
		c.pause = 0
		return false
	}
	begins = c.pause == 0
	c.pause = min(max(2*c.pause, leastPause), longestPause)
	return begins
}

// waits reports whether the kernel is to be left alone for now, though something has changed.
func (c *crowd) waits(now time.Time) bool {
	c.owed = now.Sub(c.at) < c.pause
	return c.owed
}

// due reports whether that is over.
func (c *crowd) due(now time.Time) bool { return c.owed && now.Sub(c.at) >= c.pause }

// letGo lets go of next hops that workers wanted and that are wanted no more.
func (p *ports) letGo() {
	if p.keeper != nil && len(p.wanted) > 0 && p.wanted.expire(time.Now(), p.answered()) {
		p.retain(p.needed())
	}
}

// needed are the next hops that the configuration and the routes name, and those of connections to servers that it names no more.
func (p *ports) needed() map[hopKey]bool {
	state := p.mirror.State()
	need := map[hopKey]bool{}
	for _, r := range state.Routes {
		for _, h := range r.Hops {
			if h.Port >= 0 && h.Via.IsValid() {
				need[hopKey{state.Ports.Ifindex(h.Port), h.Via}] = true
			}
		}
	}
	for _, a := range append(p.cfg.Stations(), p.leaving()...) {
		if port := p.onLink(a); port >= 0 {
			need[hopKey{state.Ports.Ifindex(port), a}] = true
		}
	}
	return need
}

// leaving are servers that were removed while connections bear them. They may come back, and all of these go on in the same instant then: more packets
// than wait for a neighbour.
func (p *ports) leaving() (all []netip.Addr) {
	if p.engine == nil { // nothing is balanced yet
		return nil
	}
	snap := p.engine.Snapshot()
	for i := range snap.Backends {
		if b := &snap.Backends[i]; b.Timeouts != nil && !b.Live && b.VNI == 0 {
			all = append(all, dataplane.NetipOf(b.Addr, b.V6))
		}
	}
	return all
}

// inheritHops has a new keeper go on with what workers of the weir before wanted, clients above all. Else their entries would be deleted this moment, while
// their packets arrive: more of them than wait for a neighbour.
func (p *ports) inheritHops() {
	need, now := p.needed(), time.Now()
	p.keeper.Each(func(ifindex int, addr netip.Addr) {
		if hop := (hopKey{ifindex, addr}); !need[hop] {
			p.wanted.note(hop, now)
		}
	})
}

// answered reports whether the kernel knows the MAC address of a next hop.
func (p *ports) answered() func(hopKey) bool {
	state := p.mirror.State()
	known := map[hopKey]bool{}
	for _, n := range state.Neighbors {
		if n.Valid {
			known[hopKey{state.Ports.Ifindex(n.Port), n.Addr}] = true
		}
	}
	return func(hop hopKey) bool { return known[hop] }
}

// left lets go of the servers that the last connection has left.
func (p *ports) left() {
	if p.keeper != nil {
		p.retain(p.needed())
	}
}

func (p *ports) retain(need map[hopKey]bool) {
	if err := p.keeper.Retain(func(ifindex int, addr netip.Addr) bool {
		hop := hopKey{ifindex, addr}
		return p.wanted.has(hop) || need[hop]
	}); err != nil {
		p.log.Debug("neighbours", "err", err)
	}
}

// wanted are next hops that workers asked for, by when they did last. Whoever may send packets through us, or has us answer some, decides which these
// are, and the kernel asks for each of them every few seconds for as long as we keep it: so those that do not answer are soon let go, and there are
// never more than the kernel's own table has without being swept (net.ipv4.neigh.default.gc_thresh2 is 512).
type wanted map[hopKey]time.Time

const (
	// wantedFor is how long a next hop that answers is kept resolved by us; after that the kernel keeps it as any other, and a worker may ask again.
	wantedFor = 10 * time.Minute
	// silentFor is how long one may not answer: longer than a frame waits for it, and than the kernel asks (3 times, once a second).
	silentFor = 5 * time.Second
	maxWanted = 256
)

// note enters a hop that a worker asks for now. It reports false where there is no room.
func (w wanted) note(hop hopKey, now time.Time) bool {
	if _, known := w[hop]; !known && len(w) >= maxWanted {
		return false
	}
	w[hop] = now
	return true
}

// expire forgets what has been wanted for long enough, and reports whether that was any.
func (w wanted) expire(now time.Time, answered func(hopKey) bool) (any bool) {
	for hop, at := range w {
		if idle := now.Sub(at); idle > wantedFor || idle > silentFor && !answered(hop) {
			delete(w, hop)
			any = true
		}
	}
	return any
}

func (w wanted) has(hop hopKey) bool {
	_, is := w[hop]
	return is
}

// onLink is the port whose link has the address, -1 if none has.
func (p *ports) onLink(a netip.Addr) int {
	for i, l := range p.mirror.State().Links {
		for _, prefix := range l.Addresses {
			if prefix.Contains(a) && !prefix.IsSingleIP() {
				return i
			}
		}
	}
	return -1
}

// resolve makes the kernel resolve a next hop that a worker wants.
func (p *ports) resolve(w dataplane.Want) {
	ifindex := p.mirror.State().Ports.Ifindex(w.Port)
	if ifindex == 0 || p.keeper == nil {
		return
	}
	addr := dataplane.NetipOf(w.Addr, w.V6)
	if !p.wanted.note(hopKey{ifindex, addr}, time.Now()) {
		return
	}
	if err := p.keeper.Resolve(ifindex, addr); err != nil {
		p.log.Debug("resolve", "address", addr, "err", err)
	}
}
