package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// dismiss drops those frames that express has left for which the stages could do nothing any more: TCP segments of no connection that are not
// answered, since limits.answers is used up, and packets for no service that the kernel is not given, since its budget is. Both are floods' most
// usual frames. What a glance has found says enough of them: nobody parses them, and they go through no stage.
//
// It decides nothing that the stages do not decide: TestDismiss holds the two against each other.
func (w *Worker) dismiss(v *vector) {
	e, o := w.engine, w.snap.Overlay
	mute := e.answers.spent(w.now)
	full := e.Punt != nil && !e.HostAnswers && e.punts.spent(w.now)
	if !mute && !full || o != nil && o.Inward != nil { // what comes from outside may be for a segment's network
		return
	}
	asking := w.now-e.shielded.Load() <= cookieLife+shieldedEvery
	left := v.rest.n
	v.rest.n = 0
	for _, k := range v.rest.at[:left] {
		i := int(k)
		p := &v.plain[i]
		if p.size == 0 || p.known || p.home != 0 {
			v.rest.add(i)
			continue
		}
		ref, v6 := v.narrow[i].Ref, p.kind == plainIPv6
		var src, dst conntrack.Addr
		var port uint16
		if v6 {
			q := &v.queries[i]
			ref, src, dst, port = q.Ref, q.Src, q.Dst, uint16(q.Ports)
		} else {
			q := &v.narrow[i]
			src.Lo, dst.Lo, port = q.Pair>>32, q.Pair&0xffffffff, uint16(q.Rest>>32)
		}
		drop := DropNone
		if ref == 0 {
			svc, _ := w.snap.Services.Find(dst, v6, p.proto, port)
			switch {
			case svc == nil && full:
				drop = DropPuntLimit
			case svc != nil && mute && !(asking && svc.Cookies != CookiesOff) && !w.martian(src, v6, 0):
				drop = astray(p, svc)
			}
		}
		if drop == DropNone {
			v.rest.add(i)
			continue
		}
		w.Counters.Drops[drop].add(1)
		w.pool.Put(p.at)
	}
}

// astray is why refuse drops a TCP segment to a service while nothing is answered, and DropNone if the packet is for miss.
func astray(p *plain, svc *Service) Drop {
	switch {
	case p.proto != packet.ProtoTCP || opens(svc, p.event):
		return DropNone
	case p.event&packet.TCPRst != 0:
		return DropNoConnection
	case p.event&packet.TCPSyn != 0 && p.event&packet.TCPFin != 0:
		return DropTCPFlags
	}
	return DropAnswerLimit
}
