package dataplane

import (
	"math"

	"weir/conntrack"
	"weir/dataplane/packet"
)

// Frames whose next hop has no MAC address yet wait here while control makes the kernel resolve it: the first few of each hop, for up
// to holdTime, as the kernel's own neighbour queues do. All memory is in the worker.
const (
	holdHops   = 64            // next hops that can be waited for at once
	holdOthers = holdHops / 2  // of them for what anybody may send anywhere: into segments, out of them, and answers of ours
	holdDepth  = 16            // frames that wait for one of them: what a dozen flows send in the 20 to 50 ms until a snapshot has the answer
	holdTime   = 1_000_000_000 // nanoseconds
)

type hold struct {
	used   int    // frames that wait, in all
	inside int    // next hops of them in segments, whose stations are learned at any time
	epoch  uint32 // of the snapshot at the latest release
	next   int64  // the first of the deadlines, nanoseconds
	pace   pace
	hops   [holdHops]heldHop
}

// heldHop is a next hop that is waited for; n of zero marks a free slot.
type heldHop struct {
	lane     lane
	vni      uint32 // of the segment that the lane leads into, 0: none. Its index may be another's after a reload
	deadline int64  // nanoseconds, of the first frame
	n        int
	frames   [holdDepth]packet.Frame
	mtu      [holdDepth]uint16 // routeMTU of each: ways through tunnels differ
	own      [holdDepth]bool
	routed   [holdDepth]bool   // as it came, but for its TTL: its sender is told if the next hop is not found
	from     [holdDepth]uint32 // VNI of the segment that such a packet came from
}

// wait holds f until its next hop is known. What finds no room is dropped. A half of the room is for services' packets on our links alone: their next
// hops are few, while a tenant that looks for hosts where none are wants as many as there is room for, every second.
func (w *Worker) wait(f *packet.Frame, l *lane, own bool) {
	var free *heldHop
	vni, room := w.vni(l.into), holdHops
	if own || l.into|l.segment != 0 {
		room = holdOthers
	}
	for i := range w.hold.hops {
		h := &w.hold.hops[i]
		if h.n == 0 {
			if i < room {
				free = h // the last one, so that the first half is not filled by those who may have the second
			}
			continue
		}
		if h.lane.out == l.out && h.lane.hop == l.hop && h.lane.v6 == l.v6 && h.lane.into == l.into && h.vni == vni {
			if h.n == holdDepth {
				w.forsake(f, l.into, own)
				return
			}
			w.keep(h, f, l, own)
			return
		}
	}
	if free == nil {
		w.forsake(f, l.into, own)
		return
	}
	free.lane, free.vni, free.deadline = *l, vni, w.now+holdTime
	if w.hold.used == 0 || free.deadline < w.hold.next {
		w.hold.next = free.deadline
	}
	w.keep(free, f, l, own)
	if l.into != 0 {
		w.hold.inside++
	}
	if l.into == 0 { // a segment's gateway asks itself
		w.engine.want(w.id, Want{Port: int(l.out), Addr: l.hop, V6: l.v6})
	}
}

func (w *Worker) keep(h *heldHop, f *packet.Frame, l *lane, own bool) {
	h.frames[h.n], h.mtu[h.n], h.own[h.n] = *f, l.routeMTU, own
	h.routed[h.n], h.from[h.n] = l.ref == 0 && !own && f.Kind&packet.KindOuter == 0, w.vni(l.segment)
	h.n++
	w.hold.used++
	if !own {
		w.Counters.Held.add(1)
	}
}

// forsake drops a frame that no neighbour was found for, in the segment that into names if it names one.
func (w *Worker) forsake(f *packet.Frame, into segmentRef, own bool) {
	w.pool.Put(f.Desc().Addr)
	if own {
		w.Counters.AnswerLost.add(1)
	} else {
		w.Counters.Drops[DropNoNeighbor].add(1)
		w.countDrop(into, DropNoNeighbor)
	}
}

// release lets those frames go whose next hop has become known, and drops those that have waited long enough, if there is a reason to look: a hop
// outside of segments becomes known by a snapshot.
func (w *Worker) release() {
	switch {
	case w.hold.epoch != w.epoch:
		w.hold.epoch = w.epoch
	case w.hold.inside == 0 && w.now < w.hold.next, !w.hold.pace.allow(w.now):
		return
	}
	w.hold.next = math.MaxInt64
	for i := range w.hold.hops {
		h := &w.hold.hops[i]
		if h.n == 0 {
			continue
		}
		known, gone := int(h.lane.out) < len(w.snap.Ports), false
		if h.lane.into != 0 {
			gone = w.vni(h.lane.into) != h.vni // a tenant's packet never goes to whoever has its segment's index now
			known = !gone && w.locate(&h.lane)
		} else if known {
			h.lane.mac = w.neighbor(int(h.lane.out), h.lane.hop, h.lane.v6)
			known = h.lane.mac != nil
		}
		if !known && !gone && w.now < h.deadline {
			w.hold.next = min(w.hold.next, h.deadline)
			continue
		}
		if h.lane.into != 0 {
			w.hold.inside--
		}
		waiting := *h // the slot may be given to an answer while its frames go
		h.n = 0
		w.hold.used -= waiting.n
		for j := range waiting.n {
			if !waiting.own[j] {
				w.Counters.Held.sub(1)
			}
			seen := w.expectLate(&waiting.frames[j], waiting.vni, waiting.own[j])
			if gone {
				w.lose(&waiting.frames[j], nil, DropNoRoute, waiting.own[j])
			} else {
				w.letGo(&waiting, j, known)
			}
			w.endLate(seen)
		}
	}
}

// letGo is the end of a frame's wait: it leaves, or it is dropped, or its sender is told.
func (w *Worker) letGo(h *heldHop, j int, known bool) {
	f, own := &h.frames[j], h.own[j]
	switch {
	case known && h.lane.into != 0:
		w.enter(f, &h.lane, own)
	case known:
		h.lane.routeMTU = h.mtu[j]
		w.leave(f, &h.lane, own)
	case h.routed[j] && w.giveUp(f, h.from[j]):
		w.Counters.Answered.add(1)
		w.pool.Put(f.Desc().Addr)
	default:
		w.forsake(f, h.lane.into, own)
	}
}

// NextDeadline is when the first of the frames that wait gives up, or a server is asked again, in nanoseconds; ok is false when none waits.
func (w *Worker) NextDeadline() (ns int64, ok bool) {
	sooner := func(at int64) {
		if !ok || at < ns {
			ns, ok = at, true
		}
	}
	if w.early.n > 0 {
		sooner(max(w.early.next, w.early.pace.from()))
	}
	if w.hold.used > 0 {
		sooner(max(w.hold.next, w.hold.pace.from()))
	}
	for i := range w.asked.queues {
		if q := &w.asked.queues[i]; q.n > 0 {
			sooner(q.at[q.head].due)
		}
	}
	return ns, ok
}

// Want asks control to make a next hop known.
type Want struct {
	Port int
	Addr conntrack.Addr
	V6   bool
}
