package vxlan

import (
	"encoding/binary"
	"net/netip"
)

// Addr is an IPv6 address as two host-order words of its 16 bytes, or an IPv4 address in Lo with Hi zero. Which of the two it is stands
// beside it.
type Addr struct{ Hi, Lo uint64 }

// AddrOf is a as an Addr, and whether it is an IPv6 address.
func AddrOf(a netip.Addr) (addr Addr, v6 bool) {
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return addr4(b[:]), false
	}
	b := a.As16()
	return addr6(b[:]), true
}

// Netip is a as the standard library's type.
func (a Addr) Netip(v6 bool) netip.Addr {
	if !v6 {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(a.Lo))))
	}
	var b [16]byte
	a.put6(b[:])
	return netip.AddrFrom16(b)
}

func addr4(b []byte) Addr { return Addr{Lo: uint64(binary.BigEndian.Uint32(b))} }

func addr6(b []byte) Addr {
	_ = b[15]
	return Addr{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

func (a Addr) put4(b []byte) { binary.BigEndian.PutUint32(b, uint32(a.Lo)) }

func (a Addr) put6(b []byte) {
	_ = b[15]
	binary.BigEndian.PutUint64(b, a.Hi)
	binary.BigEndian.PutUint64(b[8:], a.Lo)
}

// MAC is an Ethernet address, its first byte in bits 47 to 40.
type MAC uint64

const (
	macMask MAC = 1<<48 - 1
	group   MAC = 1 << 40 // the bit that multicast and broadcast addresses have

	// Broadcast is the MAC of all stations.
	Broadcast = macMask
)

// MACOf is the address that b begins with.
func MACOf(b []byte) MAC {
	_ = b[5]
	return MAC(binary.BigEndian.Uint16(b))<<32 | MAC(binary.BigEndian.Uint32(b[2:]))
}

// Put writes m's six bytes.
func (m MAC) Put(b []byte) {
	_ = b[5]
	binary.BigEndian.PutUint16(b, uint16(m>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(m))
}

// Group reports whether m is a multicast address or the broadcast address.
func (m MAC) Group() bool { return m&group != 0 }

// station reports whether m can be a single station's address.
func (m MAC) station() bool { return m&group == 0 && m != 0 && m <= macMask }

// String is m with colons.
func (m MAC) String() string {
	const digits = "0123456789abcdef"
	b := make([]byte, 0, 17)
	for i := 40; i >= 0; i -= 8 {
		b = append(b, digits[m>>(i+4)&15], digits[m>>i&15])
		if i > 0 {
			b = append(b, ':')
		}
	}
	return string(b)
}
