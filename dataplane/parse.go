package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/dataplane/steer"
)

// parse opens the vector's frames and finds their headers. What contradicts itself is dropped under the name of its fault, but only
// after steering: a malformed frame that is not for us is the kernel's to judge.
func (w *Worker) parse(v *vector, d []packet.Desc) {
	shared := w.snap.Ports[v.port].Shared
	for i := range d {
		f, l := &v.frames[i], &v.lanes[i]
		*l = lane{}
		f.Port = uint16(v.port)
		if !f.Open(w.pool, d[i]) {
			// No driver gives out such a descriptor; there is no chunk to return either.
			l.discard(DropInvalidDescriptor)
			continue
		}
		if fault := packet.Parse(f); fault != packet.FaultNone {
			l.discard(faultDrops[fault])
		}
		if shared {
			w.sort(f)
		}
	}
	w.Counters.Received.add(uint64(len(d)))
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
