package route

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"
)

// Neighbor is a host on the link of a port.
type Neighbor struct {
	Port  int // index of weir's port
	Addr  netip.Addr
	MAC   [6]byte
	Valid bool // MAC is known
}

// Neighbors finds MAC addresses. It is immutable: two open-addressed tables with linear probing, at most half full, so that most
// look-ups touch one cache line. Their hash is keyed at random, because the hosts on a link choose their own addresses.
type Neighbors struct {
	v4   []neighbor4
	v6   []neighbor6
	seed uint64
}

// neighbor4 is a slot of 16 bytes.
type neighbor4 struct {
	addr uint32
	port int32 // plus one; 0: free
	mac  [6]byte
}

// neighbor6 is a slot of 32 bytes.
type neighbor6 struct {
	addr addr6
	port int32 // plus one; 0: free
	mac  [6]byte
}

// NewNeighbors builds the table of all that are Valid; of two with one port and address the later counts. An IPv4 address mapped into IPv6
// becomes IPv4, zones are ignored. Neighbours of negative ports, which are none of ours, are left out.
func NewNeighbors(all []Neighbor) *Neighbors {
	n4, n6 := 0, 0
	for i := range all {
		if all[i].Addr.Unmap().Is4() {
			n4++
		} else {
			n6++
		}
	}
	n := &Neighbors{v4: make([]neighbor4, slots(n4)), v6: make([]neighbor6, slots(n6)), seed: rand.Uint64()}
	for i := range all {
		e := &all[i]
		if !e.Valid || e.Port < 0 || !e.Addr.IsValid() {
			continue
		}
		port := int32(e.Port) + 1
		if a := e.Addr.Unmap(); a.Is4() {
			b := a.As4()
			addr := binary.BigEndian.Uint32(b[:])
			*n.slot4(port, addr) = neighbor4{addr: addr, port: port, mac: e.MAC}
		} else {
			addr := words(a)
			*n.slot6(port, addr) = neighbor6{addr: addr, port: port, mac: e.MAC}
		}
	}
	return n
}

// slots is a power of two, at least twice n and never 0.
func slots(n int) int { return 2 << bits.Len(uint(n)) }

// Lookup4 returns the MAC address of a, in host order, on port's link, or nil if it is not known. What it points to is the table's: not to be written.
func (n *Neighbors) Lookup4(port int, a uint32) *[6]byte {
	if e := n.slot4(int32(port)+1, a); e.port != 0 {
		return &e.mac
	}
	return nil
}

// Lookup6 is Lookup4 for the IPv6 address with the halves hi and lo.
func (n *Neighbors) Lookup6(port int, hi, lo uint64) *[6]byte {
	if e := n.slot6(int32(port)+1, addr6{hi, lo}); e.port != 0 {
		return &e.mac
	}
	return nil
}

// slot4 returns the slot of (port, a), or the free one where it would go. There is always a free one.
func (n *Neighbors) slot4(port int32, a uint32) *neighbor4 {
	mask := uint64(len(n.v4) - 1)
	for i := n.hash(uint64(port)<<32 | uint64(a)); ; i++ {
		if e := &n.v4[i&mask]; e.port == 0 || e.addr == a && e.port == port {
			return e
		}
	}
}

func (n *Neighbors) slot6(port int32, a addr6) *neighbor6 {
	mask := uint64(len(n.v6) - 1)
	for i := n.hash(n.hash(a.hi^uint64(port)<<48) ^ a.lo); ; i++ {
		if e := &n.v6[i&mask]; e.port == 0 || e.addr == a && e.port == port {
			return e
		}
	}
}

// hash folds the 128-bit product of x and a constant, as wyhash does.
func (n *Neighbors) hash(x uint64) uint64 {
	hi, lo := bits.Mul64(x^n.seed, 0x9fb21c651e98df25)
	return hi ^ lo
}
