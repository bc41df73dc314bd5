package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// A worker that has stopped can be gone on with in another process: its table, its frame memory and its rings are there, too. What lies in none of
// these is said here, in numbers that mean the same to both: ports by name are control's to translate, segments go by their VNI. Surrender
// changes nothing, so a worker whose successor did not come to work just starts again.

// EngineState is what workers share beside the table.
type EngineState struct {
	Shielded  int64           `json:"shielded"` // when a cookie went out last: an ACK may still bring it back
	Fragments []FragmentState `json:"fragments,omitempty"`
}

// WorkerState is what of one worker lies neither in the table nor in rings.
type WorkerState struct {
	Scanned int64         `json:"scanned"` // nanoseconds, when it last looked for connections that are over
	IPID    uint16        `json:"ip_id"`
	Hops    []HeldHop     `json:"hops,omitempty"`
	Early   []EarlyFrame  `json:"early,omitempty"`
	Asked   []AskedServer `json:"asked,omitempty"`
}

// HeldFrame is a frame that waits, with all that was found out of it.
type HeldFrame struct {
	Desc    packet.Desc    `json:"desc"`
	Port    uint16         `json:"port"`
	Headers packet.Headers `json:"headers"`
}

// HeldHop is a next hop that is waited for.
type HeldHop struct {
	At       int            `json:"at"`
	Port     int            `json:"port"`
	Hop      conntrack.Addr `json:"hop"`
	V6       bool           `json:"v6,omitempty"`
	Inside   bool           `json:"inside,omitempty"` // of segment VNI
	VNI      uint32         `json:"vni,omitempty"`
	Deadline int64          `json:"deadline"`
	Frames   []HeldPacket   `json:"frames"`
}

// HeldPacket is a frame that waits for a next hop.
type HeldPacket struct {
	HeldFrame
	MTU    uint16 `json:"mtu,omitempty"`
	Own    bool   `json:"own,omitempty"`
	Routed bool   `json:"routed,omitempty"`
	From   uint32 `json:"from,omitempty"`
}

// EarlyFrame is a fragment that waits for its datagram's first.
type EarlyFrame struct {
	HeldFrame
	Deadline int64  `json:"deadline"`
	VNI      uint32 `json:"vni,omitempty"`
}

// AskedServer is a server that owes a cookie's connection an answer.
type AskedServer struct {
	Time  int             `json:"time"`
	Tuple conntrack.Tuple `json:"tuple"`
	Due   int64           `json:"due"`
}

// FragmentState is a datagram in pieces.
type FragmentState struct {
	Src, Dst conntrack.Addr
	ID, VNI  uint32
	Proto    uint8
	V6       bool

	Deadline    int64
	Known, Cut  bool
	Have, Total uint16
	Seen        [][2]uint16

	ToSrc, ToDst, Server conntrack.Addr
	Backend, ToVNI       uint32
	Flags                uint32
	Reply, Routed        bool
}

// Surrender says what a successor's engine needs. No worker runs. What the table has ended and told nobody is accounted for first.
func (e *Engine) Surrender(now int64) (s EngineState) {
	if len(e.workers) > 0 {
		w := e.workers[0]
		w.now, w.tick = now, conntrack.TickOf(now)
		w.table.Wake(w.id)
		for w.table.Orphans() {
			w.expire(0)
		}
		w.table.Sleep(w.id)
	}
	s.Shielded = e.shielded.Load()
	for i := range e.fragments.sets {
		for j := range e.fragments.sets[i].ways {
			d := &e.fragments.sets[i].ways[j]
			if d.deadline <= now {
				continue
			}
			x := FragmentState{
				Src: d.key.src, Dst: d.key.dst, ID: d.key.id, VNI: d.key.vni, Proto: d.key.proto, V6: d.key.v6,
				Deadline: d.deadline, Known: d.known, Cut: d.cut, Have: d.have, Total: d.total,
				ToSrc: d.to.src, ToDst: d.to.dst, Server: d.to.server, Backend: d.to.backend, ToVNI: d.to.vni, Flags: uint32(d.to.flags), Reply: d.to.reply, Routed: d.to.routed,
			}
			for _, r := range d.seen[:d.pieces] {
				x.Seen = append(x.Seen, [2]uint16{r.from, r.to})
			}
			s.Fragments = append(s.Fragments, x)
		}
	}
	return s
}

// Resume is told what the engine of the process before knew. No worker runs yet, and a snapshot has been published. A datagram is forgotten whose
// backend is beyond it: nobody has the ID any more, and here nobody ever had.
func (e *Engine) Resume(s *EngineState, now int64) {
	e.shielded.Store(s.Shielded)
	backends := uint32(len(e.snapshot.Load().Backends))
	for i := range s.Fragments {
		x := &s.Fragments[i]
		k := fragmentKey{src: x.Src, dst: x.Dst, id: x.ID, vni: x.VNI, proto: x.Proto, v6: x.V6}
		if x.Known && !x.Routed && x.Backend >= backends || len(x.Seen) > fragmentRanges {
			continue
		}
		d := e.fragments.set(&k).find(&k, now, true)
		*d = datagramInPieces{key: k, deadline: x.Deadline, known: x.Known, cut: x.Cut, have: x.Have, total: x.Total, pieces: uint8(len(x.Seen)),
			to: tail{src: x.ToSrc, dst: x.ToDst, server: x.Server, backend: x.Backend, vni: x.ToVNI, flags: connFlags(x.Flags), reply: x.Reply, routed: x.Routed}}
		for n, r := range x.Seen {
			d.seen[n].from, d.seen[n].to = r[0], r[1]
		}
	}
}

// Surrender says what a successor's worker needs; w has stopped, or was never started.
func (w *Worker) Surrender() WorkerState {
	s := WorkerState{Scanned: w.scanned, IPID: w.ipID}
	for i := range w.hold.hops {
		h := &w.hold.hops[i]
		if h.n == 0 {
			continue
		}
		x := HeldHop{At: i, Port: int(h.lane.out), Hop: h.lane.hop, V6: h.lane.v6, Inside: h.lane.into != 0, VNI: h.vni, Deadline: h.deadline}
		for j := range h.n {
			x.Frames = append(x.Frames, HeldPacket{heldFrame(&h.frames[j]), h.mtu[j], h.own[j], h.routed[j], h.from[j]})
		}
		s.Hops = append(s.Hops, x)
	}
	for i := range w.early.n {
		s.Early = append(s.Early, EarlyFrame{heldFrame(&w.early.frames[i]), w.early.deadline[i], w.early.vni[i]})
	}
	for time := range w.asked.queues {
		q := &w.asked.queues[time]
		for i := range q.n {
			x := &q.at[(q.head+i)%askedMax]
			s.Asked = append(s.Asked, AskedServer{time, x.tuple, x.due})
		}
	}
	return s
}

func heldFrame(f *packet.Frame) HeldFrame {
	return HeldFrame{Desc: f.Desc(), Port: f.Port, Headers: f.Headers}
}

// Chunks are where the frames are that the worker holds.
func (s *WorkerState) Chunks() (addrs []uint64) {
	for i := range s.Hops {
		for j := range s.Hops[i].Frames {
			addrs = append(addrs, s.Hops[i].Frames[j].Desc.Addr)
		}
	}
	for i := range s.Early {
		addrs = append(addrs, s.Early[i].Desc.Addr)
	}
	return addrs
}

// Resume gives w, which was not started yet, what the worker before held. port translates that one's ports to ours, -1 for one that is no more. The
// chunks are w's already. What has no place any more is dropped. All that had been received counts as received once more, here, and received says
// by which of our ports, whose queues do not know.
func (w *Worker) Resume(s *WorkerState, now int64, port func(int) int) (received []uint64) {
	received = make([]uint64, len(w.queues))
	for i := range s.Hops {
		for j := range s.Hops[i].Frames {
			if x := &s.Hops[i].Frames[j]; !x.Own {
				received[max(port(int(x.Port)), 0)]++
			}
		}
	}
	for i := range s.Early {
		received[max(port(int(s.Early[i].Port)), 0)]++
	}
	for _, n := range received {
		w.Counters.Received.add(n)
	}
	w.now, w.tick, w.scanned, w.ipID = now, conntrack.TickOf(now), s.Scanned, s.IPID
	w.snap = w.engine.snapshot.Load()
	for i := range s.Hops {
		w.holdAgain(&s.Hops[i], port)
	}
	for i := range s.Early {
		w.delayAgain(&s.Early[i], port)
	}
	for i := range s.Asked {
		if x := &s.Asked[i]; x.Time >= 0 && x.Time < askedTimes && w.asked.queues[x.Time].n < askedMax {
			q := &w.asked.queues[x.Time]
			q.at[(q.head+q.n)%askedMax] = question{x.Tuple, x.Due}
			q.n++
			w.asked.n++
		}
	}
	return received
}

// reopen makes a frame of x, of a chunk that is ours.
func (w *Worker) reopen(x *HeldFrame, port func(int) int) (f packet.Frame, ok bool) {
	if !f.Open(w.pool, x.Desc) {
		return f, false
	}
	f.Headers, f.Port = x.Headers, uint16(max(port(int(x.Port)), 0))
	n := uint16(w.pool.ChunkSize())
	return f, f.L3 <= f.L4 && f.L4 <= f.L3End && f.L3End <= n && f.QuoteL3 <= n && f.QuoteL4 <= n
}

func (w *Worker) holdAgain(x *HeldHop, port func(int) int) {
	into, there := segmentRef(0), true
	if x.Inside {
		into, there = w.cameFrom(x.VNI)
	}
	out := port(x.Port)
	there = there && x.At >= 0 && x.At < holdHops && w.hold.hops[x.At].n == 0 && len(x.Frames) <= holdDepth && (x.Inside || out >= 0)
	h := &w.hold.hops[max(min(x.At, holdHops-1), 0)]
	for i := range x.Frames {
		p := &x.Frames[i]
		f, ok := w.reopen(&p.HeldFrame, port)
		if !ok || !there {
			w.pool.Put(p.Desc.Addr)
			if p.Own {
				w.Counters.AnswerLost.add(1)
			} else {
				w.Counters.Drops[DropNoRoute].add(1)
			}
			continue
		}
		if h.n == 0 {
			h.lane = lane{out: int16(max(out, 0)), into: into, hop: x.Hop, v6: x.V6}
			h.vni, h.deadline = x.VNI, x.Deadline
			if w.hold.used == 0 || h.deadline < w.hold.next {
				w.hold.next = h.deadline
			}
			if into != 0 {
				w.hold.inside++
			} else {
				w.engine.want(w.id, Want{Port: out, Addr: x.Hop, V6: x.V6})
			}
		}
		h.frames[h.n], h.mtu[h.n], h.own[h.n], h.routed[h.n], h.from[h.n] = f, p.MTU, p.Own, p.Routed, p.From
		h.n++
		w.hold.used++
		if !p.Own {
			w.Counters.Held.add(1)
		}
	}
}

func (w *Worker) delayAgain(x *EarlyFrame, port func(int) int) {
	e := &w.early
	f, ok := w.reopen(&x.HeldFrame, port)
	if !ok || e.n == earlySlots {
		w.Counters.Drops[DropFragmentAlone].add(1)
		w.pool.Put(x.Desc.Addr)
		return
	}
	e.frames[e.n], e.deadline[e.n], e.vni[e.n] = f, x.Deadline, x.VNI
	if e.n == 0 || x.Deadline < e.next {
		e.next = x.Deadline
	}
	e.n++
	w.Counters.Held.add(1)
}
