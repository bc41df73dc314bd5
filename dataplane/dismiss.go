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
		p, q := &v.plain[i], &v.narrow[i]
		if p.size == 0 || q.Ref != 0 || p.known || p.home != 0 {
			v.rest.add(i)
			continue
		}
		drop := DropPuntLimit
		svc, _ := w.snap.Services.Find(conntrack.Addr{Lo: q.Pair & 0xffffffff}, false, p.proto, uint16(q.Rest>>32))
		if svc == nil && full {
			// the kernel's
		} else if svc != nil && mute && !(asking && svc.Cookies != CookiesOff) {
			drop = w.astray(p, q, svc)
		} else {
			drop = DropNone
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
func (w *Worker) astray(p *plain, q *conntrack.Query4, svc *Service) Drop {
	switch {
	case p.proto != packet.ProtoTCP || opens(svc, p.event) || w.martian(conntrack.Addr{Lo: q.Pair >> 32}, false, 0):
		return DropNone
	case p.event&packet.TCPRst != 0:
		return DropNoConnection
	case p.event&packet.TCPSyn != 0 && p.event&packet.TCPFin != 0:
		return DropTCPFlags
	}
	return DropAnswerLimit
}
