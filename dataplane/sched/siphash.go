package sched

import (
	"encoding/binary"
	"math/bits"
)

// client is what sh and mh tell clients apart by: the address, and the port if that is asked for. The kernel adds up words of them, so that a client who
// has some addresses to choose from, or ports, can aim at one server and take others with it. Under a seed that he does not know it is
// a hash of all their bytes, and the schedulers go on from it as the kernel does from its sum.
func (p *Plan) client(f *Flow, withPort bool) uint32 {
	port := uint16(0)
	if withPort {
		port = f.SrcPort
	}
	if p.seed == 0 {
		return fold(&f.Src, f.V6) + uint32(port)
	}
	return secretHash(f, port, p.seed, ^p.seed)
}

// secretHash is SipHash-1-3, the lower half of it, of a client's address and port, both words little end first.
func secretHash(f *Flow, port uint16, k0, k1 uint64) uint32 {
	h := newSipHash(k0, k1)
	if !f.V6 {
		return h.sum(6<<56 | uint64(port)<<32 | uint64(binary.LittleEndian.Uint32(f.Src[:])))
	}
	h.word(binary.LittleEndian.Uint64(f.Src[:]))
	h.word(binary.LittleEndian.Uint64(f.Src[8:]))
	return h.sum(18<<56 | uint64(port))
}

// The keys are constants in the kernel, too: whoever knows them can aim at one server (docs/ipvs.md).
const (
	mhOffsetKey = 2654435761
	mhSkipKey   = 2654446892
)

// hsiphash is the kernel's hsiphash of the 4 bytes of v, little end first, on a 64-bit machine: the lower half of SipHash-1-3. Both words of the
// key are key.
func hsiphash(v uint32, key uint64) uint32 { return siphash13(v, key, key) }

func siphash13(v uint32, k0, k1 uint64) uint32 {
	h := newSipHash(k0, k1)
	return h.sum(4<<56 | uint64(v))
}

// sipHash is SipHash's state: its four words.
type sipHash struct{ a, b, c, d uint64 }

func newSipHash(k0, k1 uint64) sipHash {
	return sipHash{0x736f6d6570736575 ^ k0, 0x646f72616e646f6d ^ k1, 0x6c7967656e657261 ^ k0, 0x7465646279746573 ^ k1}
}

// word takes in 8 bytes.
func (h *sipHash) word(v uint64) {
	h.d ^= v
	h.round()
	h.a ^= v
}

// sum takes in the last word, which is the message's length in its highest byte and up to seven bytes that are left over, and returns the lower half
// of the hash.
func (h *sipHash) sum(last uint64) uint32 {
	h.word(last)
	h.c ^= 0xff
	for range 3 {
		h.round()
	}
	return uint32(h.a ^ h.b ^ h.c ^ h.d)
}

func (h *sipHash) round() {
	a, b, c, d := h.a+h.b, h.b, h.c+h.d, h.d
	b, d = bits.RotateLeft64(b, 13)^a, bits.RotateLeft64(d, 16)^c
	a = bits.RotateLeft64(a, 32)
	a, c = a+d, c+b
	d, b = bits.RotateLeft64(d, 21)^a, bits.RotateLeft64(b, 17)^c
	h.a, h.b, h.c, h.d = a, b, bits.RotateLeft64(c, 32), d
}
