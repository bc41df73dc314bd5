package dataplane

import "weir/dataplane/packet"

// fragment cuts a packet into pieces that fit the link: an IPv4 packet whose DF bit is clear, as a router does (RFC 791 3.2), or an outer
// packet of ours, as its source. The first piece carries the frame's verdict; the others count as sent.
func (w *Worker) fragment(f *packet.Frame, l *lane, own bool) {
	ip, whole, kind := f.Chunk()[f.L3:f.L3End], f.Desc().Addr, f.Kind // read now: f may be w.own, as the pieces are
	mtu := w.mtu(l)
	first, v6 := true, kind&packet.KindIPv6 != 0
	id := uint32(0)
	if v6 {
		id = uint32(w.identification())
	}
	for offset := 0; offset >= 0; {
		addr, ok := w.pool.Get()
		if !ok {
			break
		}
		piece := &w.own
		*piece = packet.Frame{}
		piece.Open(w.pool, packet.Desc{Addr: addr + packet.Headroom, Len: uint32(w.pool.ChunkSize() - packet.Headroom)})
		var n, next int
		if v6 {
			n, next = packet.Fragment6(piece.Bytes(), ip, id, offset, mtu)
		} else {
			n, next = packet.Fragment4(piece.Bytes(), ip, offset, mtu)
		}
		if n == 0 {
			w.pool.Put(addr)
			break
		}
		piece.Kind = kind
		piece.L3, piece.L3End = piece.Start, piece.Start+uint16(n)
		p := &w.snap.Ports[l.out]
		w.link(piece, p, l.mac)
		w.transmit(p.Device, piece.Desc(), own || !first)
		first, offset = false, next
	}
	w.pool.Put(whole)
	if !first {
		return
	}
	if own {
		w.Counters.AnswerLost.add(1)
	} else {
		w.Counters.Drops[DropNoMemory].add(1)
	}
}
