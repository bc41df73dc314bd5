package sched

import (
	"runtime"
	"slices"
	"sync/atomic"
)

// State is what a service's scheduler remembers from one connection to the next. It outlives plans; its zero value is that of a service
// that has never chosen. It must not be copied.
type State struct {
	locked atomic.Uint32
	mark   mark                 // of plan; read and written under the lock
	plan   atomic.Pointer[Plan] // the newest seen; written under the lock
	cache  *cache               // lblc, lblcr: of plan's scheduler, nil until Adopt; used under the lock
	random atomic.Uint64        // twos: counter of its numbers
}

// Seed says where the random numbers of twos begin. Equal seeds give equal numbers; a service that is never given one begins with 0.
func (s *State) Seed(seed uint64) { s.random.Store(seed) }

// mark is the scheduler's position among the destinations of one plan.
type mark struct {
	at    int32 // index of the destination chosen last; head: the search starts with the first
	level int32 // wrr: the weight asked for; 0: not set yet
}

// head stands for the kernel's list head, which lies before the first destination and behind the last.
const head = -1

// spins is how often a lock that is taken is looked at before the thread offers its core to whom it may be waiting for. The lock is held
// for about a microsecond, unless its holder was preempted, and then spinning on would not help; a full cache of lblc is swept in a tenth of a
// millisecond, every half an hour.
const spins = 128

// lock takes s. It is no sync.Mutex, since that puts a worker's thread to sleep when the lock is contended.
func (s *State) lock() {
	for !s.locked.CompareAndSwap(0, 1) {
		for i := 0; s.locked.Load() != 0; i++ { // reading alone leaves the line shared
			if i == spins {
				runtime.Gosched()
				i = 0
			}
		}
	}
}

func (s *State) unlock() { s.locked.Store(0) }

// Adopt adjusts s to p as the kernel adjusts a scheduler to an edit, unless it is p's already or a newer plan's. Schedule
// does it by itself; control calls it when it publishes p, so that an edit counts even if no connection comes before the next, and so
// that memory is taken here: until then lblc and lblcr remember nothing.
func (p *Plan) Adopt(s *State) {
	if !p.take(s) {
		return
	}
	fresh := newCache(p.kind)
	s.lock()
	if s.plan.Load() == p && s.cache == nil {
		s.cache = fresh
	}
	s.unlock()
}

// take is Adopt without taking memory. It reports whether s is p's now and has no cache, but needs one.
func (p *Plan) take(s *State) (bare bool) {
	s.lock()
	m, keep := p.resume(s)
	if keep {
		s.mark = m
	}
	bare = keep && p.kind.keeps() && s.cache == nil
	s.unlock()
	return bare
}

// resume returns the mark that p starts from, and makes p the plan of s unless s is of a newer one: then keep is false, and what becomes
// of the mark is nobody's business. s is locked.
func (p *Plan) resume(s *State) (m mark, keep bool) {
	from := s.plan.Load()
	if from == p {
		return s.mark, true
	}
	m = p.adjust(from, s.mark)
	if from != nil && from.generation > p.generation {
		return m, false
	}
	switch {
	case from == nil || !from.kind.keeps():
	case from.kind != p.kind:
		s.cache = nil
	default:
		p.retire(from)
	}
	p.join()
	s.plan.Store(p)
	return m, true
}

// adjust carries a mark of the plan from, which may be nil, over to p. A reload is one adjustment however many edits it holds: the kernel makes
// one for each, and after several wrr may stand at another level here than there.
func (p *Plan) adjust(from *Plan, m mark) mark {
	switch {
	case from == p:
		return m
	case from == nil:
		return mark{at: head, level: p.first}
	case from.kind != p.kind: // the service has been given another scheduler, which starts anew
		return mark{at: head, level: p.scale.top}
	case p.kind == kindRR:
		return mark{at: p.follow(from, m.at)}
	case p.kind == kindWRR:
		return mark{at: head, level: p.scale.relevel(m.level)}
	}
	return mark{at: head}
}

// follow finds the destination in p that a cursor at index at of another plan stands on. If that one is gone, the cursor falls back to
// the nearest before it that is still there, as ip_vs_rr_del_dest moves it for each that is deleted.
func (p *Plan) follow(from *Plan, at int32) int32 {
	for ; at > head; at-- {
		if i := p.indexOf(from.dests[at].id); i >= 0 {
			return int32(i)
		}
	}
	return head
}

// indexOf is the index of the destination with an ID, -1 if there is none.
func (p *Plan) indexOf(id uint32) int {
	if i, ok := slices.BinarySearchFunc(p.order, id, place.compare); ok {
		return int(p.order[i].at)
	}
	return -1
}

// place says where in the list the destination with an ID is.
type place struct {
	id uint32
	at int32
}

func (p place) compare(id uint32) int {
	switch {
	case p.id < id:
		return -1
	case p.id > id:
		return 1
	}
	return 0
}

// placesOf sorts dests by ID. It spares follow a walk over all of them for each that is gone, which it would do under the lock.
func placesOf(dests []slot) []place {
	out := make([]place, len(dests))
	for i := range dests {
		out[i] = place{dests[i].id, int32(i)}
	}
	slices.SortStableFunc(out, func(a, b place) int { return a.compare(b.id) })
	return out
}

// Resume puts s, which is of p, to a position that another process had: the destination chosen last, if there is one of that ID, and the level, which is
// adjusted as for an edit. It does nothing for schedulers that have none.
func (p *Plan) Resume(s *State, at Position) {
	i := slices.IndexFunc(p.dests, func(d slot) bool { return d.id == at.LastID })
	if p.kind != kindRR && p.kind != kindWRR || i < 0 {
		return
	}
	s.lock()
	if s.plan.Load() == p {
		s.mark.at = int32(i)
		if p.kind == kindWRR {
			s.mark.level = p.scale.relevel(int32(min(max(at.Level, 0), int(p.scale.top))))
		}
	}
	s.unlock()
}

// Position is where a scheduler with a memory stands, for showing it.
type Position struct {
	Last      int    // index of the destination chosen last, -1: the search starts with the first
	LastID    uint32 // its ID, where Last is not -1
	Level     int    // wrr: the weight that is asked for; of Top
	Top, Step int    // wrr: the highest level and the distance of two
}

// Position tells what [Plan.Schedule] would start from now. It changes nothing.
func (p *Plan) Position(s *State) Position {
	s.lock()
	m := p.adjust(s.plan.Load(), s.mark)
	s.unlock()
	out := Position{Last: int(m.at), Level: int(m.level), Top: int(p.scale.top), Step: int(p.scale.step)}
	if m.at > head {
		out.LastID = p.dests[m.at].id
	}
	return out
}
