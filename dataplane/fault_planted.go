//go:build chaosfaults

package dataplane

import (
	"os"
	"sync/atomic"

	"weir/conntrack"
	"weir/dataplane/packet"
)

// This build has bugs: WEIR_FAULT names the one that comes out once 3000 frames have been received. The chaos suite proves by it that it would
// find a real one.
//
//	leak    a chunk of frame memory is taken and forgotten
//	count   a frame that was forwarded is not counted
//	switch  four UDP connections go on at another server than theirs
var (
	fault   = os.Getenv("WEIR_FAULT")
	planted atomic.Bool
)

func (w *Worker) spoil() {
	if fault == "" || w.Counters.Received.load() < 3000 || planted.Load() {
		return
	}
	switch fault {
	case "leak":
		w.pool.Get()
	case "count":
		w.Counters.Forwarded.sub(1)
	case "switch":
		if !w.swap() {
			return
		}
	default:
		panic("WEIR_FAULT=" + fault + ": no such fault")
	}
	planted.Store(true)
}

// swap makes other connections of up to four; it reports false if there is none yet to make them of.
func (w *Worker) swap() bool {
	var found []conntrack.Info
	w.table.Range(w.tick, func(i *conntrack.Info) bool {
		if !i.OneWay && uint8(i.Forward.Space) == packet.ProtoUDP && i.ForwardTo.Src == i.Forward.Src {
			found = append(found, *i)
		}
		return len(found) < 4
	})
	for i := range found {
		x := &found[i]
		other, ok := w.elsewhere(x)
		if !ok {
			continue
		}
		var ref conntrack.Ref
		if !w.table.Find(w.tick, &x.Forward, func(r conntrack.Ref, _ *conntrack.Info) { ref = r }) {
			continue
		}
		ended, ok := w.table.Unlink(w.id, ref)
		if !ok {
			continue
		}
		w.account(&ended)
		b := w.backend(other)
		c := conntrack.Conn{Forward: x.Forward, ForwardTo: x.ForwardTo, Reply: x.Reply, ReplyTo: x.ReplyTo, Backend: other, Flags: x.Flags}
		c.ForwardTo.Dst, c.Reply.Src = b.Addr, b.Addr
		b.Load.Bind(false, b.Upper, b.Lower)
		w.table.Insert(w.id, &c, 0, b.Timeouts, w.tick)
	}
	return len(found) > 0
}

// elsewhere is another backend with the port of x's.
func (w *Worker) elsewhere(x *conntrack.Info) (id uint32, ok bool) {
	was := w.backend(x.Backend)
	for id := range w.snap.Backends {
		if b := &w.snap.Backends[id]; b.Timeouts != nil && b.Live && b.V6 == was.V6 && b.Port == was.Port && b.Addr != was.Addr && b.Forward == was.Forward {
			return uint32(id), true
		}
	}
	return 0, false
}
