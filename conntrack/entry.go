package conntrack

import "sync/atomic"

// Entry4 is one direction of an IPv4 connection, one cache line: what arrives (private), what it becomes, and whose it is. Two adjacent
// entries are a connection, an aligned 128 bytes.
//
//	0        16         32     36        40      44     48     56
//	| key    | rewrite  | delta| backend | flags | seen | word | packets |
//
// The exported fields do not change while a Ref to the entry is valid.
type Entry4 struct {
	pair uint64 // source<<32 | destination
	rest uint64 // ports<<32 | space

	NewSrc, NewDst uint32 // host order
	NewPorts       uint32 // source<<16 | destination
	NewSpace       uint32 // segment<<8 | protocol

	common
}

// Entry6 is one direction of an IPv6 connection, two cache lines. The second one has what only a rewrite needs, and the ports.
type Entry6 struct {
	src, dst Addr

	common

	ports, space   uint32
	NewSrc, NewDst Addr
	NewPorts       uint32 // source<<16 | destination
	NewSpace       uint32 // segment<<8 | protocol
	_              [16]byte
}

// common is what the entries of both families have. Its 32 bytes begin at byte 32 of both.
type common struct {
	// DeltaL3 and DeltaL4 turn checksums of the packet as it arrives into checksums of what it becomes:
	//
	//	new = ^(^old + delta), + with end-around carry (RFC 1624 equation 3)
	//
	// DeltaL3 is of the addresses (the IPv4 header checksum), DeltaL4 of addresses and ports (TCP and UDP with their pseudo-header).
	// Neither is 0xffff: of the two zeros of one's complement it is 0 that means "no change".
	DeltaL3, DeltaL4 uint16

	Backend uint32 // the caller's number of the backend
	Flags   uint32 // of the forward entry: the caller's; of the reply entry: [Table.Note], atomic

	seen    uint32  // atomic: Tick of this direction's latest packet
	word    uint64  // atomic; of the forward entry: see word.go, of the reply entry: see template.go
	packets counter // packets of this direction
}

// Entry4 is the entry of r, which must be an IPv4 one and valid.
func (t *Table) Entry4(r Ref) *Entry4 { return &t.v4[r] }

// Entry6 is the entry of r, which must be an IPv6 one and valid.
func (t *Table) Entry6(r Ref) *Entry6 { return &t.v6[r&^refV6] }

// Backend is the number that the connection of r was inserted with.
func (t *Table) Backend(r Ref) uint32 { return t.common(r).Backend }

// Flags are those that the connection of r was inserted with.
func (t *Table) Flags(r Ref) uint32 { return t.common(r &^ refReply).Flags }

// Tuple is that of packets of r's direction as they arrive.
func (t *Table) Tuple(r Ref) Tuple {
	in, _ := t.tuples(r)
	return in
}

// Note is what SetNote kept beside the connection of r last, zero at first.
func (t *Table) Note(r Ref) uint32 { return atomic.LoadUint32(&t.common(r | refReply).Flags) }

// SetNote keeps a number of the caller's beside the connection of r. Any worker may, at any time.
func (t *Table) SetNote(r Ref, note uint32) { atomic.StoreUint32(&t.common(r|refReply).Flags, note) }

func (t *Table) common(r Ref) *common {
	if r.V6() {
		return &t.v6[r&^refV6].common
	}
	return &t.v4[r].common
}

// is reports whether r's entry is that of packets of q. Keys are written before a Ref to them can be found and not again while it
// is valid, so they are read without atomics.
func (t *Table) is(r Ref, q *Tuple) bool {
	if r.V6() != q.V6 {
		return false
	}
	if q.V6 {
		e := &t.v6[r&^refV6]
		return e.src == q.Src && e.dst == q.Dst && e.ports == q.Ports && e.space == q.Space
	}
	e := &t.v4[r]
	return e.pair == q.pair() && e.rest == q.rest()
}

// hash is that of r's key.
func (t *Table) hash(r Ref) uint64 {
	if r.V6() {
		e := &t.v6[r&^refV6]
		return t.hasher.sum6(e.src, e.dst, e.ports, e.space)
	}
	e := &t.v4[r]
	return t.hasher.sum4(e.pair, e.rest)
}

func (t *Table) proto(r Ref) uint8 {
	if r.V6() {
		return uint8(t.v6[r&^refV6].space)
	}
	return uint8(t.v4[r].rest)
}

// fill writes the entry of r but for its atomic words: packets of in become out.
func (t *Table) fill(r Ref, in, out *Tuple, c *Conn) {
	var e *common
	if r.V6() {
		f := &t.v6[r&^refV6]
		f.src, f.dst, f.ports, f.space = in.Src, in.Dst, in.Ports, in.Space
		f.NewSrc, f.NewDst, f.NewPorts, f.NewSpace = out.Src, out.Dst, out.Ports, out.Space
		e = &f.common
	} else {
		f := &t.v4[r]
		f.pair, f.rest = in.pair(), in.rest()
		f.NewSrc, f.NewDst, f.NewPorts, f.NewSpace = uint32(out.Src.Lo), uint32(out.Dst.Lo), out.Ports, out.Space
		e = &f.common
	}
	e.DeltaL3, e.DeltaL4 = deltas(in, out)
	e.Backend, e.Flags = c.Backend, 0
	if !r.Reply() {
		e.Flags = c.Flags
	}
}

// tuples are what arrives in r's direction and what it becomes.
func (t *Table) tuples(r Ref) (in, out Tuple) {
	if r.V6() {
		e := &t.v6[r&^refV6]
		return Tuple{Src: e.src, Dst: e.dst, Ports: e.ports, Space: e.space, V6: true},
			Tuple{Src: e.NewSrc, Dst: e.NewDst, Ports: e.NewPorts, Space: e.NewSpace, V6: true}
	}
	e := &t.v4[r]
	return tuple4(e.pair, e.rest),
		Tuple{Src: Addr{Lo: uint64(e.NewSrc)}, Dst: Addr{Lo: uint64(e.NewDst)}, Ports: e.NewPorts, Space: e.NewSpace}
}

// deltas are the changes to checksums when a packet of in becomes one of out.
func deltas(in, out *Tuple) (l3, l4 uint16) {
	was := halves(in.Src.Hi) + halves(in.Src.Lo) + halves(in.Dst.Hi) + halves(in.Dst.Lo)
	now := halves(out.Src.Hi) + halves(out.Src.Lo) + halves(out.Dst.Hi) + halves(out.Dst.Lo)
	return difference(was, now), difference(was+halves(uint64(in.Ports)), now+halves(uint64(out.Ports)))
}

// halves adds up the four 16-bit words of v.
func halves(v uint64) uint32 {
	return uint32(v>>48) + uint32(v>>32&0xffff) + uint32(v>>16&0xffff) + uint32(v&0xffff)
}

// difference is now - was in one's complement, 0 rather than 0xffff. Both are sums of at most 20 words.
func difference(was, now uint32) uint16 {
	was, now = was%0xffff, now%0xffff // one's complement addition is addition modulo 0xffff
	return uint16((now + 0xffff - was) % 0xffff)
}
