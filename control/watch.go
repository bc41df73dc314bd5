package control

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weir/control/config"
	"weir/control/health"
)

// watch is the servers' health as control sees it: the monitor that asks them, who uses which answer, and which backends change with time alone.
// Control's mu guards it, the monitor aside.
type watch struct {
	monitor *health.Monitor
	now     func() time.Time

	// of the configuration in force
	services map[serviceKey]*observed
	users    map[health.Check][]backendKey
	passive  []serviceKey // whose SYNs are counted
	round    uint64       // of set

	timed map[backendKey]time.Time // when each is to be examined again

	assumed map[health.Check]bool // up, of checks that are not done yet: what the latest compile went by
	missed  []health.Check        // that turned out otherwise when they were begun
}

func newWatch(m *health.Monitor) *watch {
	return &watch{monitor: m, now: time.Now, services: map[serviceKey]*observed{}, users: map[health.Check][]backendKey{}, timed: map[backendKey]time.Time{},
		assumed: map[health.Check]bool{}}
}

// verdict is what the backend's check says: why it is down, or nothing.
func (w *watch) verdict(x *config.Backend) string {
	c, ok := checkOf(x)
	if !ok {
		return ""
	}
	s := w.monitor.State(c)
	if w.users[c] == nil {
		w.assumed[c] = s.Up
	}
	switch {
	case s.Up:
		return ""
	case s.Why != "":
		return s.Why
	case !s.Answered():
		return "not checked yet"
	default:
		return "it has just begun to answer"
	}
}

// expect notes when b is to be examined again.
func (w *watch) expect(b *backend) {
	if b.fit.next.IsZero() {
		delete(w.timed, b.key)
	} else {
		w.timed[b.key] = b.fit.next
	}
}

// restore takes back expect.
func (w *watch) restore(key backendKey, at time.Time, timed bool) {
	if timed {
		w.timed[key] = at
	} else {
		delete(w.timed, key)
	}
}

// observed is a service whose backends have checks.
type observed struct {
	from  *config.Service
	uses  []use
	round uint64 // in which a configuration had it
}

// use is a backend's use of a check.
type use struct {
	check   health.Check
	backend backendKey
}

// set has the checks of a configuration done, and no others. What it reads are the services that changed: with a hundred thousand backends all
// of them would take as long as the rest of a reload.
func (w *watch) set(cfg *config.Config) {
	w.passive = nil
	w.round++
	var add, drop []health.Check
	for i := range cfg.Services {
		s := &cfg.Services[i]
		for _, key := range keysOf(s) {
			if s.Passive != nil {
				w.passive = append(w.passive, key)
			}
			o := w.services[key]
			if o != nil && o.from.Same(s) {
				o.from, o.round = s, w.round
				continue
			}
			uses := usesOf(s, key)
			if o != nil {
				drop = append(drop, w.release(o.uses)...)
				delete(w.services, key)
			}
			if len(uses) == 0 {
				continue
			}
			for _, u := range uses {
				if w.users[u.check] == nil {
					add = append(add, u.check)
				}
				w.users[u.check] = append(w.users[u.check], u.backend)
			}
			w.services[key] = &observed{s, uses, w.round}
		}
	}
	for key, o := range w.services {
		if o.round != w.round {
			drop = append(drop, w.release(o.uses)...)
			delete(w.services, key)
		}
	}
	// One that lost its last user may have found another.
	drop = slices.DeleteFunc(drop, func(c health.Check) bool { return w.users[c] != nil })
	w.monitor.Change(add, drop)
	// One begins in the state of another that is dropped for it, and that may have changed since the compile.
	for _, c := range add {
		if up, ok := w.assumed[c]; ok && up != w.monitor.State(c).Up {
			w.missed = append(w.missed, c)
		}
	}
	clear(w.assumed)
}

// release takes back uses, and returns the checks that nobody uses any more.
func (w *watch) release(uses []use) (unused []health.Check) {
	for _, u := range uses {
		left := slices.DeleteFunc(w.users[u.check], func(k backendKey) bool { return k == u.backend })
		if w.users[u.check] = left; len(left) == 0 {
			delete(w.users, u.check)
			unused = append(unused, u.check)
		}
	}
	return unused
}

// usesOf are the checks of the backends of service key.
func usesOf(s *config.Service, key serviceKey) (uses []use) {
	checked := false
	for i := range s.Backends {
		checked = checked || s.Backends[i].Check != nil
	}
	if !checked {
		return nil
	}
	for x := range backendsOf(s, key) {
		if c, ok := checkOf(x.config); ok {
			uses = append(uses, use{c, x.key})
		}
	}
	return uses
}

// attend has the services compiled anew whose backends may be otherwise by now. It reports whether there are any. No compile may be under way: what
// it has found out stays though a configuration be refused.
func (r *registry) attend() (any bool) {
	if r.watch == nil {
		return false
	}
	mark := func(key backendKey) {
		if s := r.services[key.service]; s != nil {
			s.from = nil
			any = true
		}
	}
	changes := append(r.watch.monitor.Changes(), r.watch.missed...)
	r.watch.missed = nil
	for _, c := range changes {
		for _, key := range r.watch.users[c] {
			mark(key)
		}
	}
	now := r.watch.now()
	for key, at := range r.watch.timed {
		switch b := r.backends[key]; {
		case b == nil || !b.live:
			delete(r.watch.timed, key)
		case !now.Before(at):
			mark(key)
		}
	}
	return any
}

// queryTypes are the numbers of record types (RFC 1035 section 3.2.2, RFC 3596, RFC 2782).
var queryTypes = map[string]uint16{"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "ANY": 255}

// checkOf is a backend's check, if it has one.
func checkOf(x *config.Backend) (c health.Check, ok bool) {
	from := x.Check
	if from == nil || from.Type == "none" {
		return c, false
	}
	addr, port := from.Address, from.Port
	if !addr.IsValid() {
		addr = x.Address
	}
	if port == 0 {
		port = x.Port
	}
	c = health.Check{Interval: from.Interval, Timeout: from.Timeout, Rise: from.Rise, Fall: from.Fall, Down: from.InitState == "down"}
	talks := func() { c.Expect, c.ExpectRegex = from.Expect, from.ExpectRegex }
	switch from.Type {
	case "http", "https":
		c.Kind, c.Method, c.URI, c.Host, c.Authorization = health.HTTP, from.Method, from.URI, from.Host, from.Authorization
		for _, code := range from.Status {
			c.Status.Add(code)
		}
		talks()
		if from.Type == "https" {
			c.Kind, c.Verify, c.Authorities, c.SNI = health.HTTPS, from.Verify, from.CAFile, from.SNI
			if c.SNI == "" {
				c.SNI = nameIn(from.Host)
			}
		}
	case "udp":
		c.Kind, c.Send = health.UDP, from.Send
		talks()
	case "dns":
		c.Kind, c.Query, c.QueryType = health.DNS, from.Query, queryTypes[from.QueryType]
	case "icmp":
		c.Kind, port = health.ICMP, 0
	case "exec":
		c.Kind, c.Command = health.Exec, strings.Join(from.Command, "\x00")
	default:
		c.Kind, c.Send = health.TCP, from.Send
		talks()
	}
	c.Target = netip.AddrPortFrom(addr, port)
	return c, true
}

// nameIn is the name in a Host header, if it is one rather than an address.
func nameIn(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return ""
	}
	return host
}

// condition shows what a backend is, and what its check says of it.
func (r *registry) condition(to *BackendView, b *backend, x *config.Backend) {
	f := &b.fit
	to.State, to.Why = f.condition.String(), f.why
	if f.off() {
		to.Weight = 0
	}
	if f.condition == slowStart {
		to.Share = int(f.tenths) * 100 / slowSteps
	}
	if f.condition == drain || f.condition == drained {
		to.Left = to.Active + to.Inactive
	}
	if r.watch == nil {
		return
	}
	if !f.since.IsZero() {
		to.SinceS = int(r.watch.now().Sub(f.since).Seconds())
	}
	if !f.next.IsZero() && f.condition == drain {
		to.EndsInS = int(f.next.Sub(r.watch.now()).Seconds())
	}
	if c, ok := checkOf(x); ok {
		s := r.watch.monitor.State(c)
		to.Check = &CheckView{Type: c.Kind.String(), Target: c.Target.String(), Up: s.Up, Why: s.Why, Run: s.Run, TookMS: float64(s.Took.Microseconds()) / 1000,
			Answers: s.Answers, Failed: s.Failed}
		if c.Target.Port() == 0 {
			to.Check.Target = c.Target.Addr().String()
		}
	}
}

// health counts backends by what they are.
func (r *registry) health() (v HealthView) {
	for _, b := range r.backends {
		if !b.live {
			continue
		}
		switch b.fit.condition {
		case up:
			v.Up++
		case slowStart:
			v.SlowStart++
		case drain:
			v.Drain++
			v.Left += b.load.Active() + b.load.Inactive()
		case drained:
			v.Drained++
		case down:
			v.Down++
		}
	}
	if r.watch != nil {
		v.Checks, v.Running, v.Late = r.watch.monitor.Load()
	}
	return v
}
