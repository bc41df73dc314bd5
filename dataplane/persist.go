package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// Persistence keeps a client's connections to a service, or those of a network of clients, on one backend, by a template for each
// (ip_vs_sched_persist). A template outlives its timeout while connections opened under it live.
type Persistence struct {
	Mask4     uint32         // of the client's address, host order
	Mask6     conntrack.Addr // the same for IPv6
	Quiescent bool           // expire_quiescent_template: a template to a server of weight 0 is void
}

// template is the tuple of the template for a packet of t. All ports and all addresses of a service share one. VIPs that are prefixes may
// begin with one address, so in place of a segment the tuple has the number of bits that differ within the VIP. One in a segment is no prefix:
// it has its VNI there, and another bit of the protocol turned, so that neither is taken for the other.
func (p *Persistence) template(svc *Service, t *conntrack.Tuple) conntrack.Tuple {
	base, _ := AddrOf(svc.VIP.Addr())
	free := uint32(svc.VIP.Addr().BitLen() - svc.VIP.Bits())
	space := free<<8 | uint32(t.Proto())
	if svc.VNI != 0 {
		space = (svc.VNI<<8 | uint32(t.Proto())) ^ SegmentTemplate
	}
	k := conntrack.Tuple{Dst: base, Ports: uint32(svc.PortTo)<<16 | uint32(svc.Port), Space: conntrack.TemplateSpace(space), V6: t.V6}
	if t.V6 {
		k.Src = conntrack.Addr{Hi: t.Src.Hi & p.Mask6.Hi, Lo: t.Src.Lo & p.Mask6.Lo}
	} else {
		k.Src.Lo = t.Src.Lo & uint64(p.Mask4)
	}
	return k
}

// SegmentTemplate is the bit of a template's space that is turned where its service is in a segment: no balanced protocol has it.
const SegmentTemplate = 0x20

// stick finds the backend that the client of a packet of t sticks to, or schedules one and makes a template for it. A template leads to
// its server even if that is overloaded or of weight 0; one whose server is gone or down is void. l has a verdict if the table is full.
//
// A backup server takes the client for this once: it is to return when a real one is back.
func (w *Worker) stick(svc *Service, f *packet.Frame, t *conntrack.Tuple, l *lane) (id uint32, template conntrack.Ref, found bool) {
	q := [1]conntrack.Query{{Tuple: svc.Persistence.template(svc, t)}}
	w.table.Lookup(q[:])
	if ref := q[0].Ref; ref != 0 {
		id = w.table.Backend(ref)
		b := w.backend(id)
		if b.Live && !b.Down && !(svc.Persistence.Quiescent && b.Weight == 0) {
			if _, alive := w.table.Track(ref, 0, b.Timeouts, w.tick); alive {
				return id, ref, true
			}
		} else {
			w.unlink(ref)
		}
	}
	if id, found = w.choose(svc, f, t); !found {
		return 0, 0, false
	}
	b := w.backend(id)
	if b.Backup {
		return id, 0, true
	}
	w.conn = conntrack.Conn{Forward: q[0].Tuple, ForwardTo: q[0].Tuple, Reply: q[0].Tuple, ReplyTo: q[0].Tuple, Backend: id, OneWay: true, Template: true}
	b.Load.BindTemplate(b.Upper, b.Lower)
	ref, _, outcome := w.table.Insert(w.id, &w.conn, 0, b.Timeouts, w.tick)
	switch outcome {
	case conntrack.Inserted:
	case conntrack.Exists: // another worker was faster; its choice holds
		b.Load.UnbindTemplate(b.Upper, b.Lower)
		id = w.table.Backend(ref)
	default:
		b.Load.UnbindTemplate(b.Upper, b.Lower)
		l.discard(DropTableFull)
	}
	return id, ref, true
}
