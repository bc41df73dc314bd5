package host

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Attributes that x/sys has no name for (linux/neighbour.h, linux/if_addr.h, linux/rtnetlink.h).
const (
	ndaProtocol   = 12
	ndaFlagsExt   = 15
	ifaProto      = 11
	rtaNextHopID  = 30
	ntfExtManaged = 1 // in NDA_FLAGS_EXT (Linux 5.16)
)

// attrs walks the attributes in b. Type flags (nested, byte order) are masked off; an attribute whose length contradicts the bytes
// ends the walk.
func attrs(b []byte, each func(typ uint16, value []byte)) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[4:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

// u32 is an attribute's number; 0 if it is too short to be one.
func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

// u16 is like u32, for two bytes.
func u16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.NativeEndian.Uint16(b)
}

// ipAttr is an attribute's address: 4 or 16 bytes, anything else is no address.
func ipAttr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// raw is a message's fixed header, as it is on the wire. It satisfies nl.NetlinkRequestData.
type raw []byte

func (r raw) Len() int          { return len(r) }
func (r raw) Serialize() []byte { return r }

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
