package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/dataplane/steer"
)

// parse looks at the vector's frames. Those that a glance is enough for are only opened if they turn out not to be for express.
func (w *Worker) parse(v *vector) {
	w.Counters.Received.add(uint64(v.n))
	v.odd.n, v.six.n, v.gone, v.bridged = 0, 0, 0, 0
	found, glances := 0, w.glances(v.port)
	if glances {
		found = w.glance(v.plain[:], v.narrow[:], v.descs)
	} else {
		for i := range v.plain[:v.n] {
			v.plain[i] = plain{}
		}
	}
	if found == v.n {
		return
	}
	o, peels, bounded := w.snap.Overlay, true, glances || w.bounded(v.port)
	v.unknown()
	for _, k := range v.rest.all() {
		i := int(k)
		p := &v.plain[i]
		if p.kind == plainOuter {
			if peels && w.peel(v, i) {
				if p.size == 0 {
					v.odd.add(i)
				}
				continue
			}
		} else if glances && w.glance6(v, i) || bounded && w.exceeds(v, i) {
			continue
		}
		w.inspect(v, i)
		v.odd.add(i)
		if o != nil && o.ours(&v.frames[i]) {
			peels = false // where stations are is learned from frames in their order
		}
	}
}

// glances reports whether all that arrives on a port's queues is for that port and no VXLAN packet: what needs no other stage before lookup.
func (w *Worker) glances(port int) bool {
	p := &w.snap.Ports[port]
	o := w.snap.Overlay
	return p.Filtered && !p.Shared && (o == nil || !o.Access[port])
}

// bounded reports whether limits.unusual holds on a port's queues: all that arrives there is ours, and none of it a tenant's, which may be bridged
// whatever it is.
func (w *Worker) bounded(port int) bool {
	p, o := &w.snap.Ports[port], w.snap.Overlay
	if !p.Filtered {
		return false
	}
	for i := range w.snap.Ports {
		if o != nil && o.Access[i] && w.snap.Ports[i].Device == p.Device {
			return false
		}
	}
	return true
}

// inspect opens a frame and finds its headers. What contradicts itself is dropped under the name of its fault, but only after steering:
// a malformed frame that is not for us is the kernel's to judge.
func (w *Worker) inspect(v *vector, i int) {
	f, l := &v.frames[i], &v.lanes[i]
	*l = lane{}
	v.plain[i].size = 0
	f.Port = uint16(v.port)
	if !f.Open(w.pool, v.descs[i]) {
		// No driver gives out such a descriptor; there is no chunk to return either.
		l.discard(DropInvalidDescriptor)
		return
	}
	if fault := packet.Parse(f); fault != packet.FaultNone {
		l.discard(faultDrops[fault])
	}
	if w.snap.Ports[v.port].Shared {
		w.sort(f)
	}
}

// sort finds the port of a frame among those that share its device, by its outer tag. Steering has made sure that there is one.
func (w *Worker) sort(f *packet.Frame) {
	for i := range w.snap.Ports {
		if p := &w.snap.Ports[i]; p.Device == int(f.Port) && p.VLAN == f.VLAN {
			f.Port = uint16(i)
			return
		}
	}
}

// steer asks in software what the XDP program asks where one is attached (package steer). What is the kernel's is not ours to count
// as received. Where we answer in the host's place, what is to the host is ours, too.
func (w *Worker) steer(v *vector) {
	passed := uint64(0)
	for i := range v.n {
		r := steer.Explain(w.snap.Steer, v.port, &v.frames[i])
		if r.Verdict() == steer.Take || w.engine.HostAnswers && (r == steer.PassVIP || r == steer.PassHost) {
			continue
		}
		v.lanes[i].verdict = passVerdict
		passed++
	}
	w.Counters.Received.sub(passed)
	w.Counters.Passed.add(passed)
}

// passVerdict marks a frame that steering in software left to the kernel: finish frees it without counting it.
const passVerdict Verdict = 0xff

// addresses are the source and destination of the IP header at offset l3 of the frame's chunk.
func addresses(f *packet.Frame, l3 uint16) (src, dst conntrack.Addr) {
	b := f.Chunk()[l3:]
	if f.Kind&packet.KindIPv4 != 0 {
		b = b[:20]
		return conntrack.Addr{Lo: uint64(be32(b[12:]))}, conntrack.Addr{Lo: uint64(be32(b[16:]))}
	}
	b = b[:40]
	return conntrack.Addr{Hi: be64(b[8:]), Lo: be64(b[16:])}, conntrack.Addr{Hi: be64(b[24:]), Lo: be64(b[32:])}
}
