package dataplane

import (
	"net/netip"

	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/dataplane/sched"
)

// Question is the first packet of a connection: a SYN, an INIT, a datagram.
type Question struct {
	Protocol        uint8
	Client, Virtual netip.AddrPort // of one family
	VNI             uint32         // of the segment that the client is in, 0: none
}

// Fate is what would become of a Question's packet.
type Fate string

const (
	FateScheduled   Fate = "scheduled"      // a new connection, to the server that the scheduler chooses
	FateBackup      Fate = "backup"         // the same, to a server for the time when there is no other
	FatePersistent  Fate = "persistent"     // a new connection, to the server that the client sticks to
	FateConnection  Fate = "connection"     // it is one of a connection that there is
	FateBackendGone Fate = "backend_gone"   // of one whose server was removed: dropped
	FateTableFull   Fate = "table_full"     // the connection table has no room for it: dropped
	FateNoBackend   Fate = "no_backend"     // no server takes it: answered with port unreachable
	FateDenied      Fate = "denied"         // the service does not admit the client
	FateMartian     Fate = "martian_source" // no packet can come from there
	FateRouted      Fate = "routed"         // for no service, from a segment or into one: the gateway's
	FateHost        Fate = "host"           // for no service: the kernel's
)

// Explanation is how a Question's packet would fare, step by step as far as it comes.
type Explanation struct {
	Fate     Fate
	Snapshot *Snapshot
	VIP      bool            // Virtual's address is a VIP, whether or not it has this service
	Service  *Service        // nil: none
	Conn     *conntrack.Info // that there is with the same addresses and ports; nil: none
	Reopens  bool            // the packet ends Conn and opens a new one
	Template *conntrack.Info // of persistence; nil: none
	Void     bool            // the template leads to a server that is gone, down or drained
	Plan     *sched.Preview  // nil: the scheduler is not asked
	Backup   *sched.Preview  // likewise
	Backend  uint32          // ID of the server
	Found    bool            // there is one
	Rewrites bool            // the client's address does not reach the server: fullnat, masquerade
}

// Explain tells what would become of a packet at a time of the workers' clock, by the stages' own code on copies of what they would change:
// no state moves, no timer starts, nothing is counted. A packet that comes meanwhile may change the answer. Whether half-open connections or the server's local
// ports leave room for it is not foretold: both are found out by trying.
func (e *Engine) Explain(q Question, now int64) Explanation {
	// A worker that drives no queue: what it is asked below reads the snapshot and the table alone.
	w := &Worker{engine: e, table: e.Table, snap: e.Snapshot(), now: now, tick: conntrack.TickOf(now)}
	x := Explanation{Snapshot: w.snap}
	src, v6 := AddrOf(q.Client.Addr())
	dst, _ := AddrOf(q.Virtual.Addr())
	t := conntrack.Tuple{Src: src, Dst: dst, Ports: uint32(q.Client.Port())<<16 | uint32(q.Virtual.Port()), Space: q.VNI<<8 | uint32(q.Protocol), V6: v6}
	var f packet.Frame
	f.Proto, f.SrcPort, f.DstPort = q.Protocol, q.Client.Port(), q.Virtual.Port()
	switch q.Protocol {
	case packet.ProtoTCP:
		f.Flags = packet.TCPSyn
	case packet.ProtoSCTP:
		f.Flags = packet.SCTPInit
	}
	x.Service, x.VIP = w.snap.Services.FindFrom(q.VNI, dst, v6, q.Protocol, q.Virtual.Port())
	if w.explainConn(&x, &f, &t) {
		return x
	}
	switch o := w.snap.Overlay; {
	case o != nil && !w.snap.Services.IsVIPFrom(q.VNI, dst, v6) && (q.VNI != 0 || o.segmentOf(o.Inward, dst, v6) != nil):
		x.Fate = FateRouted
	case x.Service == nil:
		x.Fate = FateHost
	case w.martian(src, v6, q.VNI):
		x.Fate = FateMartian
	case !x.Service.admits(src, v6):
		x.Fate = FateDenied
	default:
		w.explainChoice(&x, &f, &t)
		if x.Found && w.table.Cap()-w.table.Len() < x.needs() {
			x.Fate, x.Found = FateTableFull, false
		}
	}
	if x.Found {
		b := w.backend(x.Backend)
		x.Rewrites = b.Forward == ForwardNAT && b.Sources != nil && w.masquerades(b, &t)
	}
	return x
}

// needs is how many places in the table a new connection takes, those deducted that it frees.
func (x *Explanation) needs() (n int) {
	n = 1
	if x.Fate == FateScheduled && x.Service.Persistence != nil {
		n++ // a template; a backup gets none
	}
	if x.Reopens {
		n--
	}
	if x.Void {
		n--
	}
	return n
}

// explainConn is known. It reports whether the packet's way ends there.
func (w *Worker) explainConn(x *Explanation, f *packet.Frame, t *conntrack.Tuple) (ends bool) {
	w.table.Find(w.tick, t, func(ref conntrack.Ref, i *conntrack.Info) {
		conn := *i
		x.Conn = &conn
		b := w.backend(i.Backend)
		x.Backend, x.Found, x.Fate = i.Backend, true, FateConnection
		if ref.Reply() {
			ends = true
			return
		}
		switch {
		case reopens(f) && w.reschedules(b, ref), !b.Live && b.ExpireNow:
			x.Reopens, x.Found = true, false
		case !b.Live:
			x.Fate, x.Found, ends = FateBackendGone, false, true
		default:
			ends = true
		}
	})
	return ends
}

// explainChoice is stick and choose.
func (w *Worker) explainChoice(x *Explanation, f *packet.Frame, t *conntrack.Tuple) {
	svc := x.Service
	if p := svc.Persistence; p != nil {
		k := p.template(svc, t)
		w.table.Find(w.tick, &k, func(_ conntrack.Ref, i *conntrack.Info) {
			template := *i
			x.Template = &template
			if b := w.backend(i.Backend); !b.Live || b.Down || p.Quiescent && b.Weight == 0 {
				x.Void = true
				return
			}
			x.Fate, x.Backend, x.Found = FatePersistent, i.Backend, true
		})
		if x.Found {
			return
		}
	}
	flow := flowOf(f, t, w.now)
	plan := svc.Plan.Preview(svc.State, &flow)
	if x.Plan = &plan; plan.Chosen >= 0 {
		x.Fate, x.Backend, x.Found = FateScheduled, svc.Dests[plan.Chosen], true
		return
	}
	if svc.Backup != nil {
		backup := svc.Backup.Preview(svc.BackupState, &flow)
		if x.Backup = &backup; backup.Chosen >= 0 {
			x.Fate, x.Backend, x.Found = FateBackup, svc.BackupDests[backup.Chosen], true
			return
		}
	}
	x.Fate = FateNoBackend
}
