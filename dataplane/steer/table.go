package steer

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// addr is an IPv4 address in the low 32 bits of lo, or an IPv6 address. The family stands beside it in every key, so that
// ::198.18.9.9 is not 198.18.9.9.
type addr struct{ hi, lo uint64 }

func addrOf(a netip.Addr) (addr, uint8) {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		return addr{lo: uint64(binary.BigEndian.Uint32(b[:]))}, 4
	}
	return addr16(a.As16()), 6
}

func addr16(b [16]byte) addr {
	return addr{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// key is what a table is asked for: an address and whatever else the table is about.
type key struct{ hi, lo, rest uint64 }

// hash mixes the key by two folded multiplications (wyhash's way). It is not keyed: the operator chooses what lies in the tables, and
// whoever sends packets can at worst probe the longest run, which a load of one half keeps short.
func (k key) hash() uint64 {
	hi, lo := bits.Mul64(k.hi^0xa0761d6478bd642f, k.lo^0xe7037ed1a0b428db)
	hi, lo = bits.Mul64(hi^k.rest^0x8ebc6af09c88c6e3, lo^0x589965cc75374cc3)
	return hi ^ lo
}

// table is a flat hash from key to a value that is not zero. It is built once and then only read.
type table struct {
	slots []slot // a power of two, at most half of them used, so a search always ends
}

type slot struct {
	key
	value uint32 // 0: free
}

// newTable holds the entries of m, whose values must not be zero.
func newTable(m map[key]uint32) table {
	n := 2
	for n < 2*len(m) {
		n *= 2
	}
	t := table{slots: make([]slot, n)}
	for k, v := range m {
		i := k.hash() & uint64(n-1)
		for t.slots[i].value != 0 {
			i = (i + 1) & uint64(n-1)
		}
		t.slots[i] = slot{k, v}
	}
	return t
}

// get returns the key's value, or 0.
func (t *table) get(k key) uint32 {
	mask := uint64(len(t.slots) - 1)
	for i := k.hash() & mask; ; i = (i + 1) & mask {
		s := &t.slots[i&mask]
		if s.value == 0 || s.key == k {
			return s.value
		}
	}
}
