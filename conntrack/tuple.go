package conntrack

import "math/bits"

// Addr is an IPv6 address as two host-order words of its 16 bytes, or an IPv4 address in Lo with Hi zero.
type Addr struct{ Hi, Lo uint64 }

// Tuple names the packets of one direction as they arrive, or as they leave.
type Tuple struct {
	Src, Dst Addr
	Ports    uint32 // source<<16 | destination
	Space    uint32 // segment<<8 | protocol; the segment is a 24-bit VNI, 0 for none
	V6       bool
}

// Proto is the IP protocol of t's packets.
func (t *Tuple) Proto() uint8 { return uint8(t.Space) }

// pair and rest are an IPv4 tuple in two words, as entries and queries of that family have it.
func (t *Tuple) pair() uint64 { return t.Src.Lo<<32 | t.Dst.Lo }
func (t *Tuple) rest() uint64 { return uint64(t.Ports)<<32 | uint64(t.Space) }

func tuple4(pair, rest uint64) Tuple {
	return Tuple{Src: Addr{Lo: pair >> 32}, Dst: Addr{Lo: pair & 0xffffffff}, Ports: uint32(rest >> 32), Space: uint32(rest)}
}

// Ref names one direction of one connection; zero names none. It is valid until its holder's next [Table.Quiesce] or [Table.Sleep],
// that is for the vector it was looked up in: until then its entry is not given to another connection, even if this one ends.
type Ref uint32

const (
	refReply Ref = 1
	refV6    Ref = 1 << 31
)

// Reply reports whether r is the entry of the reply direction.
func (r Ref) Reply() bool { return r&refReply != 0 }

// Direction is 0 for the forward entry, 1 for that of the reply direction.
func (r Ref) Direction() uint { return uint(r & refReply) }

// Peer is the other direction of the same connection.
func (r Ref) Peer() Ref { return r ^ refReply }

// V6 reports whether r's connection is an IPv6 one: whether Entry6 has it rather than Entry4.
func (r Ref) V6() bool { return r&refV6 != 0 }

// number is the connection's place in its family's arena. Number 0 is never given out, so that Ref 0 is nobody.
func (r Ref) number() uint32 { return uint32(r&^refV6) >> 1 }

func (r Ref) family() family { return family(r >> 31) }

// family indexes what exists once for IPv4 and once for IPv6.
type family uint32

const (
	ip4 family = iota
	ip6
	families
)

// ref is the forward direction of connection n.
func (f family) ref(n uint32) Ref { return Ref(f)<<31 | Ref(n)<<1 }

// Query is a packet's Tuple and, after [Table.Lookup], the Ref of its entry.
type Query struct {
	Tuple
	Ref Ref

	// Lookup's notes from one pass to the next; a Query is 64 bytes with them.
	at   uint32 // place in the index
	slot uint64 // what stood there; later the entry's ports<<32 | its Ref
}

// Query4 is a Query of IPv4 in half the space, for what looks up all of a vector.
type Query4 struct {
	Pair uint64 // source<<32 | destination
	Rest uint64 // ports<<32 | space: Ports and Space of the Tuple
	Ref  Ref    // written by [Table.Lookup4]: most likely that of its entry
	at   uint32
	slot uint64
}

// Narrow is q as a Query4, to be looked up. It must be of IPv4.
func (q *Query) Narrow() Query4 { return Query4{Pair: q.pair(), Rest: q.rest()} }

// hasher is a keyed hash of tuples. The key is random and never leaves the process, so nobody who can only choose tuples can aim
// many of them at one place of the index.
type hasher [4]uint64

func newHasher(secret [2]uint64) hasher {
	// wyhash's constants spread the two secret words over four keys, so that no key is zero because the secret is.
	return hasher{
		mum(secret[0]^0xa0761d6478bd642f, secret[1]^0xe7037ed1a0b428db),
		mum(secret[0]^0x8ebc6af09c88c6e3, secret[1]^0x589965cc75374cc3),
		mum(secret[1]^0xa0761d6478bd642f, secret[0]^0x8ebc6af09c88c6e3) ^ secret[0],
		mum(secret[1]^0xe7037ed1a0b428db, secret[0]^0x589965cc75374cc3) ^ secret[1],
	}
}

// mum folds the 128-bit product of a and b to 64 bits (wyhash).
func mum(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// sum4 is two multiplications deep. Both halves of the first product go into the second: folding them before would let tuples collide
// whatever the key.
func (k *hasher) sum4(pair, rest uint64) uint64 {
	hi, lo := bits.Mul64(pair^k[0], rest^k[1])
	return mum(lo^k[2], hi^k[3])
}

func (k *hasher) sum6(src, dst Addr, ports, space uint32) uint64 {
	s := mum(src.Hi^k[0], src.Lo^k[1])
	d := mum(dst.Hi^k[2], dst.Lo^k[3])
	hi, lo := bits.Mul64(s^uint64(ports)^uint64(space)<<32^k[3], d^k[0])
	return mum(lo^k[1], hi^k[2])
}

func (k *hasher) sum(t *Tuple) uint64 {
	if t.V6 {
		return k.sum6(t.Src, t.Dst, t.Ports, t.Space)
	}
	return k.sum4(t.pair(), t.rest())
}
