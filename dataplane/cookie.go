package dataplane

import (
	"math/bits"

	"weir/conntrack"
)

// A SYN cookie is a sequence number of ours that says all we must know of a handshake, so that nothing is kept until its ACK brings the number
// back (RFC 4987 section 3.6). The layout is FreeBSD's, which has room for all options; Linux' has it only with timestamps:
//
//	31                    8 7      5 4     2   1      0
//	| keyed hash            | window | MSS  | SACK | epoch |
//
// The low byte is covered by the hash and stored exclusive-or the high one, so that nobody reads in it. A number that was guessed is taken once in
// 2^24 times, and twice as often without payload (see redeem): who floods us with a million ACKs a second gets seven wrong connections a minute.
const (
	// epochShift is of the clock's nanoseconds: 69 s. A cookie is good in its epoch and the one after it, so for 69 to 137 s. The epoch is part of
	// what is hashed, so each has a secret of its own by one key that never leaves the process.
	epochShift = 36
	// cookieLife is the longest that a cookie is good, in nanoseconds.
	cookieLife = 2 << epochShift
)

// cookieMSS4 and cookieMSS6 are the sizes that the three bits stand for; a client gets the largest that it can take. They are what the commonest links
// leave: 1500 bytes, PPPoE, tunnels, and what IPv4 and IPv6 guarantee.
var (
	cookieMSS4 = [8]uint16{216, 536, 1200, 1360, 1400, 1440, 1452, 1460}
	cookieMSS6 = [8]uint16{516, 1220, 1300, 1340, 1380, 1420, 1432, 1440}
)

// cookieScales are the window scales: 0 stands for no option. A client whose scale is not among them is told of as one with the next smaller one:
// its server sees less of its window than there is, never more.
var cookieScales = [8]uint8{0, 0, 1, 2, 4, 6, 7, 8}

// offer is what a client's SYN offers, as far as a cookie can say it, and whether it has timestamps, which every segment says anew:
//
//	8       7      5 4   2   1     0
//	| stamps | window | MSS | SACK | 0 |
type offer uint16

const (
	offerSACK   offer = 1 << 1
	offerMSS          = 2 // shifts
	offerScale        = 5
	offerStamps offer = 1 << 8
)

func (o offer) mss(v6 bool) uint16 {
	if v6 {
		return cookieMSS6[o>>offerMSS&7]
	}
	return cookieMSS4[o>>offerMSS&7]
}

// scale is the client's window scale; ok is false if it offered none.
func (o offer) scale() (shift uint8, ok bool) {
	return cookieScales[o>>offerScale&7], o>>offerScale&7 != 0
}

// offerOf is what options of a SYN come to.
func offerOf(o *tcpOptions, v6 bool) (x offer) {
	sizes, mss := &cookieMSS4, uint16(536)
	if v6 {
		sizes, mss = &cookieMSS6, 1220
	}
	if o.mss != 0 {
		mss = o.mss
	}
	for i := 7; i > 0; i-- {
		if sizes[i] <= mss {
			x |= offer(i) << offerMSS
			break
		}
	}
	if o.scaled {
		for i := 7; i > 0; i-- {
			if cookieScales[i] <= o.scale {
				x |= offer(i) << offerScale
				break
			}
		}
	}
	if o.sack {
		x |= offerSACK
	}
	if o.stamped {
		x |= offerStamps
	}
	return x
}

// cookieKey is the secret of all cookies of a process.
type cookieKey [2]uint64

// sign is the cookie for a client's SYN with sequence number first, of tuple t, in an epoch.
func (k *cookieKey) sign(t *conntrack.Tuple, first uint32, o offer, epoch int64) uint32 {
	low := uint32(o)&0xfe | uint32(epoch)&1
	h := uint32(k.hash(t, uint64(low)<<32|uint64(first), uint64(epoch)))
	return h&^0xff | (low^h>>24)&0xff
}

// verify reads a cookie that an ACK brings back, which acknowledges it and follows on first. It reports false if we never gave it out, or too long ago.
func (k *cookieKey) verify(t *conntrack.Tuple, first, cookie uint32, now int64) (offer, bool) {
	low := (cookie ^ cookie>>24) & 0xff
	epoch := now >> epochShift
	if uint32(epoch)&1 != low&1 {
		epoch--
	}
	return offer(low & 0xfe), k.sign(t, first, offer(low), epoch) == cookie
}

// challenge is the number that a client is asked with for a connection of tuple t: it answers with a RST that bears it (RFC 9293 section
// 3.10.7.3), if it is there.
func (k *cookieKey) challenge(t *conntrack.Tuple, epoch int64) uint32 {
	return uint32(k.hash(t, 1<<63, uint64(epoch)))
}

// met reports whether a RST answers our challenge.
func (k *cookieKey) met(t *conntrack.Tuple, seq uint32, now int64) bool {
	epoch := now >> epochShift
	return k.challenge(t, epoch) == seq || k.challenge(t, epoch-1) == seq
}

// hash is SipHash-2-4 of a tuple and two words.
func (k *cookieKey) hash(t *conntrack.Tuple, a, b uint64) uint64 {
	h := newSip(k[0], k[1])
	if t.V6 {
		h.word(t.Src.Hi)
		h.word(t.Dst.Hi)
		h.word(t.Src.Lo)
		h.word(t.Dst.Lo)
	} else {
		h.word(t.Src.Lo<<32 | t.Dst.Lo)
	}
	h.word(uint64(t.Ports)<<32 | uint64(t.Space))
	h.word(a)
	return h.sum(b)
}

// sip is SipHash's state (Aumasson and Bernstein 2012).
type sip struct{ a, b, c, d uint64 }

func newSip(k0, k1 uint64) sip {
	return sip{0x736f6d6570736575 ^ k0, 0x646f72616e646f6d ^ k1, 0x6c7967656e657261 ^ k0, 0x7465646279746573 ^ k1}
}

// word takes in 8 bytes.
func (h *sip) word(v uint64) {
	a, b, c, d := h.a, h.b, h.c, h.d^v
	a, b, c, d = sipRound(a, b, c, d)
	a, b, c, d = sipRound(a, b, c, d)
	h.a, h.b, h.c, h.d = a^v, b, c, d
}

// sum takes in the last word and returns the hash. All messages of one kind have one length, so that is not part of it.
func (h *sip) sum(last uint64) uint64 {
	h.word(last)
	a, b, c, d := h.a, h.b, h.c^0xff, h.d
	a, b, c, d = sipRound(a, b, c, d)
	a, b, c, d = sipRound(a, b, c, d)
	a, b, c, d = sipRound(a, b, c, d)
	a, b, c, d = sipRound(a, b, c, d)
	return a ^ b ^ c ^ d
}

// sipRound has its state in registers.
func sipRound(a, b, c, d uint64) (uint64, uint64, uint64, uint64) {
	a += b
	c += d
	b = bits.RotateLeft64(b, 13) ^ a
	d = bits.RotateLeft64(d, 16) ^ c
	a = bits.RotateLeft64(a, 32) + d
	c += b
	d = bits.RotateLeft64(d, 21) ^ a
	b = bits.RotateLeft64(b, 17) ^ c
	return a, b, bits.RotateLeft64(c, 32), d
}
