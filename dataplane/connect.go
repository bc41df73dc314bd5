package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/dataplane/sched"
)

// connect opens a connection of svc for the packet: a server is chosen, the entries made, and the packet goes on as one of theirs.
func (w *Worker) connect(v *vector, i int, svc *Service) {
	l, q := &v.lanes[i], &v.queries[i]
	if !svc.OnePacket {
		// A packet before this one in the vector, or another worker, may have opened it since lookup.
		w.table.Lookup(v.queries[i : i+1])
		if q.Ref != 0 && w.known(v, i, q.Ref) {
			return
		}
	}
	if !svc.admits(q.Src, q.V6) {
		l.discard(DropDenied)
		return
	}
	if !w.shields(v, i, svc) {
		w.place(v, i, svc)
	}
}

// modest reports whether the client that q is of may open one more connection by what is set for each source. If not, the frame has its verdict. It
// is asked behind shields: what a source is charged with it has sent itself, as far as anybody can tell.
func (w *Worker) modest(v *vector, i int) bool {
	q := &v.queries[i]
	if most := w.snap.HalfOpenPerSource; most > 0 && w.table.HalfOpenOf(&q.Tuple) >= most && handshakes(q.Proto()) {
		v.lanes[i].discard(DropSourceHalfOpen)
		return false
	}
	if !w.engine.opens.allow(w.now, &q.Tuple) {
		v.lanes[i].discard(DropSourceRate)
		return false
	}
	return true
}

// handshakes reports whether connections of a protocol begin half-open.
func handshakes(proto uint8) bool { return proto == packet.ProtoTCP || proto == packet.ProtoSCTP }

// place chooses a server for the packet of a client who may have one, and opens the connection.
func (w *Worker) place(v *vector, i int, svc *Service) {
	f, l, q := &v.frames[i], &v.lanes[i], &v.queries[i]
	if !svc.OnePacket && !w.modest(v, i) {
		return
	}
	var id uint32
	var template conntrack.Ref
	found := false
	if svc.Persistence != nil {
		id, template, found = w.stick(svc, f, &q.Tuple, l)
	} else {
		id, found = w.choose(svc, f, &q.Tuple)
	}
	switch {
	case l.verdict != Pending:
	case !found && w.splicing:
		w.renege(v, i)
	case !found:
		w.unreachable(v, i, DropNoBackend)
	default:
		w.open(v, i, svc, id, template)
	}
}

// choose asks the service's scheduler for a server, and when that has none, the one of its backups.
func (w *Worker) choose(svc *Service, f *packet.Frame, t *conntrack.Tuple) (id uint32, found bool) {
	flow := flowOf(f, t, w.now)
	if n := svc.Plan.Schedule(svc.State, &flow); n >= 0 {
		return svc.Dests[n], true
	}
	if svc.Backup != nil {
		if n := svc.Backup.Schedule(svc.BackupState, &flow); n >= 0 {
			return svc.BackupDests[n], true
		}
	}
	return 0, false
}

// flowOf is a packet of t as schedulers see it.
func flowOf(f *packet.Frame, t *conntrack.Tuple, now int64) sched.Flow {
	return sched.Flow{V6: t.V6, SrcPort: f.SrcPort, DstPort: f.DstPort, Now: now, Src: wire(t.Src, t.V6), Dst: wire(t.Dst, t.V6)}
}

// open makes a connection of the packet to backend id, under a template unless that is zero.
func (w *Worker) open(v *vector, i int, svc *Service, id uint32, template conntrack.Ref) {
	f, l, q := &v.frames[i], &v.lanes[i], &v.queries[i]
	b := w.backend(id)
	flags := flagsOf(b)
	if w.splicing && b.Forward != ForwardNAT {
		w.renege(v, i) // a reload has made it so since the cookie went out
		return
	}
	w.conn = conntrack.Conn{Forward: q.Tuple, Backend: id, Control: template}
	if w.splicing {
		w.conn.Spliced, w.conn.Splice = true, w.splice
	}
	sources := w.translate(b, f, &q.Tuple)
	if sources != nil && sources.TOA && f.Proto == packet.ProtoTCP {
		flags |= flagTOA
	}
	w.conn.Flags = uint32(flags)
	if svc.OnePacket {
		w.once(v, i, b, sources)
		return
	}
	b.Load.Bind(false, b.Upper, b.Lower) // as inactive, before anyone can unbind it
	var ref conntrack.Ref
	var state conntrack.State
	var outcome conntrack.Outcome
	if sources != nil {
		ref, state, outcome = w.allocate(b, sources, f)
	} else {
		ref, state, outcome = w.insert(b, f)
		if outcome == conntrack.Clash && w.yields(ref) {
			ref, state, outcome = w.insert(b, f)
		}
	}
	switch outcome {
	case conntrack.Inserted:
		w.Backends[id].Conns.add(1)
		if flags.active(state) {
			b.Load.Activate()
		}
	case conntrack.Exists: // another worker was faster; its choice holds
		b.Load.Unbind(false, b.Upper, b.Lower)
	default:
		b.Load.Unbind(false, b.Upper, b.Lower)
		switch {
		case outcome == conntrack.Full:
			l.discard(DropTableFull)
		case outcome == conntrack.Crowded:
			l.discard(DropHalfOpen)
		case sources != nil:
			l.discard(w.sourceless(b, sources))
		default:
			l.discard(DropClash)
		}
		return
	}
	if id = w.table.Backend(ref); !w.join(v, i, ref, id, w.backend(id)) {
		l.discard(DropTableFull) // ended in the instant it was made; the client will try again
	}
}

// translate writes into w.conn what becomes of a packet of t at b. It returns where the source address and port are to come from if they
// are rewritten, too; allocate then writes them.
func (w *Worker) translate(b *Backend, f *packet.Frame, t *conntrack.Tuple) *Sources {
	c := &w.conn
	back := conntrack.Tuple{Src: t.Dst, Dst: t.Src, Ports: t.Ports<<16 | t.Ports>>16, Space: t.Space, V6: t.V6}
	if b.Forward != ForwardNAT {
		c.OneWay = true
		c.ForwardTo, c.Reply, c.ReplyTo = *t, back, back
		return nil
	}
	port := uint32(b.Port)
	if port == 0 {
		port = t.Ports & 0xffff
	}
	space := b.VNI<<8 | t.Space&0xff
	c.ForwardTo = conntrack.Tuple{Src: t.Src, Dst: b.Addr, Ports: t.Ports&^0xffff | port, Space: space, V6: t.V6}
	c.Reply = conntrack.Tuple{Src: b.Addr, Dst: t.Src, Ports: port<<16 | t.Ports>>16, Space: space, V6: t.V6}
	c.ReplyTo = back
	if b.Sources == nil || !w.masquerades(b, t) {
		return nil
	}
	return b.Sources
}

func (w *Worker) insert(b *Backend, f *packet.Frame) (conntrack.Ref, conntrack.State, conntrack.Outcome) {
	return w.table.Insert(w.id, &w.conn, f.Flags, b.Timeouts, w.tick)
}

// once sends a packet of a one-packet service on its way: its connection ends with it, so the next one is scheduled anew, and an answer
// of the server's is none of ours (ip_vs_conn_new with IP_VS_CONN_F_ONE_PACKET).
func (w *Worker) once(v *vector, i int, b *Backend, sources *Sources) {
	f, l, id := &v.frames[i], &v.lanes[i], w.conn.Backend
	if sources != nil && !w.borrow(sources) {
		l.discard(w.sourceless(b, sources))
		return
	}
	ref := w.table.Once(w.id, &w.conn)
	if ref == 0 {
		l.discard(DropTableFull)
		return
	}
	b.Load.Bind(false, b.Upper, b.Lower)
	b.Load.Unbind(false, b.Upper, b.Lower)
	w.Backends[id].Conns.add(1)
	w.count(f, id, ref)
	if f.TTL <= 1 {
		w.timeExceeded(v, i)
		return
	}
	l.ref, l.backend, l.flags = ref, id, connFlags(w.conn.Flags)
}

// yields ends the connection at ref, which a new one would be mixed up with at the server, if it is over in all but name.
func (w *Worker) yields(ref conntrack.Ref) bool {
	if ref == 0 {
		return false
	}
	switch w.table.State(ref) {
	case conntrack.TimeWait, conntrack.Close, conntrack.LastAck:
		w.unlink(ref)
		return true
	}
	return false
}

// wire is a in network byte order, IPv4 in the first four bytes.
func wire(a conntrack.Addr, v6 bool) (b [16]byte) {
	if v6 {
		put64(b[:], a.Hi)
		put64(b[8:], a.Lo)
	} else {
		put32(b[:], uint32(a.Lo))
	}
	return b
}
