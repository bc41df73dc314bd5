package route

import (
	"encoding/binary"
	"net/netip"
)

// A bound is the address that an interval starts with.
type bound interface{ uint32 | addr6 }

// flatten cuts the address space at the ends of all prefixes and names the longest that covers each piece. entries are sorted by
// address, then length, without duplicates. bounds gives a prefix's first address and the one behind its last, and false if there is none
// behind it.
func flatten[B bound](entries []Entry, bounds func(netip.Prefix) (first, behind B, more bool)) (starts []B, owners []*Entry) {
	var zero B
	starts, owners = append(make([]B, 0, 2*len(entries)+1), zero), append(make([]*Entry, 0, 2*len(entries)+1), nil)
	cut := func(at B, owner *Entry) {
		n := len(starts) - 1
		if starts[n] != at {
			starts, owners = append(starts, at), append(owners, owner)
		} else {
			owners[n] = owner // a longer prefix starts, or a second one ends, at the same address
		}
	}
	var open []*Entry // prefixes around the present place, each within the one before it
	shut := func() {  // ends the innermost
		n := len(open) - 1
		_, behind, more := bounds(open[n].to)
		open = open[:n]
		if !more {
			return
		}
		if n > 0 {
			cut(behind, open[n-1])
		} else {
			cut(behind, nil)
		}
	}
	for i := range entries {
		e := &entries[i]
		for len(open) > 0 && !open[len(open)-1].to.Contains(e.to.Addr()) {
			shut()
		}
		first, _, _ := bounds(e.to)
		cut(first, e)
		open = append(open, e)
	}
	for len(open) > 0 {
		shut()
	}
	return starts, owners
}

func bounds4(p netip.Prefix) (first, behind uint32, more bool) {
	b := p.Addr().As4()
	first = binary.BigEndian.Uint32(b[:])
	behind = first + uint32(1<<(32-p.Bits())) // 0 if the last address is the highest
	return first, behind, behind != 0
}

func bounds6(p netip.Prefix) (first, behind addr6, more bool) {
	first = words(p.Addr())
	behind = first
	if p.Bits() <= 64 {
		behind.hi += 1 << (64 - p.Bits()) // shifted out, thus 0, for ::/0
		return first, behind, p.Bits() != 0 && behind.hi != 0
	}
	behind.lo += 1 << (128 - p.Bits())
	if behind.lo == 0 {
		behind.hi++
	}
	return first, behind, behind != addr6{}
}

// words are the two halves of an IPv6 address in host order.
func words(a netip.Addr) addr6 {
	b := a.As16()
	return addr6{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}
