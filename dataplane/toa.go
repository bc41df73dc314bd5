package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// A fullnat server sees our address. With client_address: toa it learns the client's from a TCP option (TCP option address), which modules for
// Linux and many servers read: kind 254 (RFC 4727 experimental), length 8 or 20, the client's port and address. It stands in
// every segment of the client's between the handshake and the server's first byte, so that the handshake's last ACK, or whichever
// segment arrives in its place, brings it; DPVS does the same.

const (
	toaKind = 254
	toaLen4 = 8
	toaLen6 = 20
	tcpLen  = 20
	tcpMax  = 60
)

// greeted notes the sequence number behind the SYN of a server's SYN+ACK: as long as the client acknowledges no more, the server has
// sent nothing else.
func (w *Worker) greeted(f *packet.Frame, ref conntrack.Ref) {
	if connFlags(w.table.Flags(ref))&flagTOA != 0 {
		w.table.SetNote(ref, be32(f.Chunk()[f.L4+4:])+1)
	}
}

// addTOA puts the client's address into a TCP segment that has been rewritten and is to bear it, if there is room: in the
// header, and in the MTU. The headers move to the front, so that no payload does.
func (w *Worker) addTOA(f *packet.Frame, l *lane) {
	const unfit = packet.TCPSyn | packet.TCPRst
	if f.Proto != packet.ProtoTCP || f.Flags&(unfit|packet.TCPAck) != packet.TCPAck || f.Kind&fragment != 0 {
		return
	}
	b := f.Chunk()
	if be32(b[f.L4+8:]) != w.table.Note(l.ref) {
		return
	}
	n := uint16(toaLen4)
	if l.ref.V6() {
		n = toaLen6
	}
	if int(b[f.L4+12]>>4)*4+int(n) > tcpMax || int(f.L3End-f.L3+n) > w.mtu(l) {
		return
	}
	was := f.L3
	end := f.L4 + tcpLen // of what moves
	f.L3, f.L4, f.Start = f.L3-n, f.L4-n, f.Start-n
	copy(b[f.L3:], b[was:end])
	h, t := b[f.L3:f.L4], b[f.L4:f.L3End]
	o := t[tcpLen:][:n]
	client := w.table.Tuple(l.ref)
	o[0], o[1] = toaKind, byte(n)
	put16(o[2:], uint16(client.Ports>>16))
	if l.ref.V6() {
		put64(o[4:], client.Src.Hi)
		put64(o[12:], client.Src.Lo)
		put16(h[4:], be16(h[4:])+n)
	} else {
		put32(o[4:], uint32(client.Src.Lo))
		was := be16(h[2:])
		put16(h[2:], was+n)
		put16(h[10:], packet.Update16(be16(h[10:]), was, was+n))
	}
	// The checksum covers the option, the data offset, and the length in the pseudo-header (RFC 9293 3.1).
	delta := packet.Diff16(0, 0, n)
	for at := 0; at < len(o); at += 2 {
		delta = packet.Diff16(delta, 0, be16(o[at:]))
	}
	offset := be16(t[12:])
	put16(t[12:], offset+n/4<<12)
	delta = packet.Diff16(delta, offset, offset+n/4<<12)
	put16(t[16:], packet.ApplyDelta(be16(t[16:]), delta))
}
