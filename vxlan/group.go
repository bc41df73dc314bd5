package vxlan

import "net/netip"

// GroupMAC is the Ethernet address that a multicast group has on every link: 01:00:5e and the last 23 bits of an IPv4 group (RFC 1112 section
// 6.4), 33:33 and the last 32 bits of an IPv6 one (RFC 2464 section 7). Several groups share each.
func GroupMAC(group netip.Addr) [6]byte {
	if group = group.Unmap(); group.Is4() {
		b := group.As4()
		return [6]byte{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
	}
	b := group.As16()
	return [6]byte{0x33, 0x33, b[12], b[13], b[14], b[15]}
}
