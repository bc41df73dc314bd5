package control

import (
	"fmt"
	"slices"
	"time"

	"weir/control/config"
	"weir/dataplane"
)

// condition is what a backend is for new connections, and what becomes of old ones.
//
//	up -> down -> slow start -> up     by its check
//	up -> drain -> drained             by the configuration; drained when drain_timeout is over, also if it is down by then
//	up -> down                         by the configuration, too
type condition uint8

const (
	up        condition = iota
	slowStart           // up, with a part of its weight
	drain               // no new connections
	drained             // neither new connections nor old ones
	down                // no new connections; on_down says what becomes of old ones
)

// String is the word of the API.
func (c condition) String() string {
	return [...]string{"up", "slow_start", "drain", "drained", "down"}[c]
}

// slowSteps is how many steps a slow start has.
const slowSteps = 10

// stateDown is why a backend is down that the configuration takes out.
const stateDown = "state: down"

// fitness is what control makes of a backend's health and of its state in the configuration.
type fitness struct {
	condition condition
	tenths    int32     // of its weight, while in slow start
	why       string    // it is as it is; may be empty
	since     time.Time // that it is in this condition; zero: it was never examined
	up        time.Time // when its slow start began; zero: it never went down
	drain     time.Time // when it began to drain
	shunned   time.Time // it is down until then, whatever its check says
	shaken    handshakes
	next      time.Time // when it will be otherwise by itself; zero: never
}

// off reports whether the backend takes no new connections.
func (f *fitness) off() bool { return f.condition >= drain }

// parts is how many tenths of its weight the backend has.
func (f *fitness) parts() int32 {
	if f.condition == slowStart {
		return f.tenths
	}
	return slowSteps
}

// ends reports whether the connections of the backend end with its being as it is. A client of UDP has no SYN to choose anew by.
func (f *fitness) ends(c *config.Service) bool {
	return f.condition == drained || f.condition == down && (c.OnDown == "reset" || c.OnDown == "reschedule" && c.Protocol == "udp")
}

// apply tells the data path: connections that end do so as those of a removed server do with expire_nodest_conn, whose client's next packet
// finds none and is answered with RST; those that are to be rescheduled fall silent until a SYN comes.
func (f *fitness) apply(s *dataplane.Backend, c *config.Service) {
	if f.off() {
		s.Weight = 0
	}
	s.Down = f.condition == down || f.condition == drained
	switch {
	case f.ends(c):
		s.Live, s.ExpireNow = false, true
	case f.condition == down && c.OnDown == "reschedule":
		s.Live, s.ExpireNow = false, false
	}
}

// examine finds out what b is now. c and x are what the configuration says of its service and of it.
func (r *registry) examine(b *backend, c *config.Service, x *config.Backend) {
	if r.watch == nil { // a replay: time is the captures', and nobody is asked
		b.fit = fitness{}
		switch x.State {
		case "drain":
			b.fit.condition = drain
		case "down":
			b.fit.condition, b.fit.why = down, stateDown
		}
		return
	}
	now := r.watch.now()
	was := b.fit
	f := was.examined(r.watch.verdict(x), c, x, now)
	if f.condition != was.condition || was.since.IsZero() {
		f.since = now
		if !was.since.IsZero() || f.off() {
			r.events = append(r.events, healthEvent{Service: c.Name, Backend: x.Name, From: was.condition, To: f.condition, Why: f.why})
		}
	}
	if f.ends(c) && !(was.ends(c) && !was.since.IsZero()) {
		r.ended[b.id] = true
	}
	b.fit = f
	at, timed := r.watch.timed[b.key]
	r.note(func() { r.watch.restore(b.key, at, timed) })
	r.watch.expect(b)
}

// examined is what becomes of f. failure is what its check says, empty if all is well.
func (f fitness) examined(failure string, c *config.Service, x *config.Backend, now time.Time) fitness {
	was := f
	f.next, f.why, f.tenths = time.Time{}, "", 0
	var end time.Time // of its drain; zero: there is none
	switch {
	case x.State != "drain":
		f.drain = time.Time{}
	case f.drain.IsZero():
		f.drain = now
	}
	if x.State == "drain" && x.DrainTimeout > 0 {
		end = f.drain.Add(x.DrainTimeout)
	}
	switch {
	case x.State == "down":
		f.condition, f.why = down, stateDown
	case !end.IsZero() && !now.Before(end): // whatever its check says: who drains a server to stop it often has its check fail first
		f.condition, f.why = drained, fmt.Sprintf("drain_timeout of %v is over", x.DrainTimeout)
	case failure != "":
		f.condition, f.why, f.next = down, failure, end
	case now.Before(f.shunned):
		f.condition, f.next = down, f.shunned
		if !end.IsZero() && end.Before(f.next) {
			f.next = end
		}
		f.why = fmt.Sprintf("%d SYNs in a row without an answer", f.shaken.why)
	case x.State == "drain":
		f.condition, f.next = drain, end
	default:
		if was.off() {
			f.up = now
		}
		f.condition = up
		if over := f.up.Add(c.SlowStart); now.Before(over) && !f.up.IsZero() && slices.Contains(config.RampedSchedulers, c.Scheduler) {
			f.condition = slowStart
			f.tenths = int32(max(1, slowSteps*now.Sub(f.up)/c.SlowStart))
			f.next = f.up.Add((c.SlowStart*time.Duration(f.tenths+1) + slowSteps - 1) / slowSteps)
		}
	}
	return f
}

// handshakes is what passive checking remembers of a backend.
type handshakes struct {
	known           bool   // the two that follow were read once
	retried, opened uint64 // as they stood at the last look
	streak          uint64 // SYNs that clients repeated since a handshake was done
	why             uint64 // the streak that it was shunned for
}

// look takes the counters as they stand, and reports whether there were limit repeated SYNs since a handshake was done.
func (h *handshakes) look(retried, opened, limit uint64) (shun bool) {
	was := *h
	h.known, h.retried, h.opened = true, retried, opened
	switch {
	case !was.known:
		return false
	case opened != was.opened:
		h.streak = 0
		return false
	}
	if h.streak += retried - was.retried; h.streak < limit {
		return false
	}
	h.why, h.streak = h.streak, 0
	return true
}

// shun takes backends down that leave SYNs without an answer, by the counters of the data path. As attend, it stands outside of a compile.
func (r *registry) shun(counts func(id uint32) (retried, opened uint64)) {
	if r.watch == nil {
		return
	}
	now := r.watch.now()
	for _, key := range r.watch.passive {
		s := r.services[key]
		if s == nil || s.from == nil || s.from.Passive == nil {
			continue // to be compiled anew: its turn comes
		}
		p := s.from.Passive
		for _, id := range s.ids {
			b := r.ids[id]
			if b == nil || !b.live {
				continue
			}
			retried, opened := counts(id)
			if b.fit.shaken.look(retried, opened, uint64(p.SYNs)) && !b.fit.off() {
				b.fit.shunned = now.Add(p.For)
				r.watch.timed[b.key] = now
			}
		}
	}
}

// healthEvent is a change of a backend's condition, to be logged.
type healthEvent struct {
	Service, Backend string
	From, To         condition
	Why              string
}
