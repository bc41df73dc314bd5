package steer

import (
	"cmp"
	"net/netip"
	"slices"
)

// network is a prefix, with the address bits behind it zero.
type network struct {
	addr   addr
	family uint8
	bits   uint8
}

func netOf(p netip.Prefix) network {
	a, bits := p.Addr(), p.Bits()
	if a.Is4In6() && bits >= 96 { // a shorter one is of IPv6, and holds the mapped addresses among others
		a, bits = a.Unmap(), bits-96
	}
	n := network{addr16(a.As16()), 6, uint8(bits)}
	if a.Is4() {
		n.addr, n.family = addrOf(a)
	}
	n.addr = n.addr.masked(n.family, n.bits)
	return n
}

// single reports whether the network is one address.
func (n network) single() bool { return n.family == 4 && n.bits == 32 || n.bits == 128 }

// masked is the address with all but its first bits zero.
func (a addr) masked(family, bits uint8) addr {
	if family == 4 {
		bits += 96
	}
	if bits < 64 {
		return addr{hi: a.hi &^ (^uint64(0) >> bits)}
	}
	return addr{a.hi, a.lo &^ (^uint64(0) >> (bits - 64))}
}

// nets finds the longest of the prefixes that an address lies in: one look-up for each length that occurs.
type nets struct {
	table  table      // address, family and length -> host bits
	widths [2][]uint8 // lengths that occur, longest first: IPv4's, IPv6's
}

func newNets(known map[network]uint32) nets {
	m := map[key]uint32{}
	var n nets
	for k, bits := range known {
		m[k.key()] = bits
		w := n.of(k.family)
		if !slices.Contains(*w, k.bits) {
			*w = append(*w, k.bits)
		}
	}
	for i := range n.widths {
		slices.SortFunc(n.widths[i], func(a, b uint8) int { return cmp.Compare(b, a) })
	}
	n.table = newTable(m)
	return n
}

func (n network) key() key { return key{n.addr.hi, n.addr.lo, uint64(n.bits)<<8 | uint64(n.family)} }

func (n *nets) of(family uint8) *[]uint8 {
	if family == 4 {
		return &n.widths[0]
	}
	return &n.widths[1]
}

// longest is the longest network of the address and its host bits, which are 0 if there is none.
func (n *nets) longest(a addr, family uint8) (network, uint32) {
	for _, bits := range *n.of(family) {
		at := network{a.masked(family, bits), family, bits}
		if is := n.table.get(at.key()); is != 0 {
			return at, is
		}
	}
	return network{}, 0
}
