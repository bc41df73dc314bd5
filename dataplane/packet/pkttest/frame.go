package pkttest

import (
	"encoding/binary"
	"net"
	"slices"
)

// MAC is the hardware address that s spells.
func MAC(s string) net.HardwareAddr {
	a, err := net.ParseMAC(s)
	must(err)
	return a
}

// VLAN gives the frame tags, the outer one first. A single tag is 802.1Q; in front of another it is 802.1ad.
func (p Packet) VLAN(id ...uint16) Packet { p.vlans = slices.Clone(id); return p }

// Frame is the packet in an Ethernet frame.
func (p Packet) Frame(src, dst net.HardwareAddr) []byte {
	return Frame(p.Bytes(), src, dst, p.vlans...)
}

// Frame puts an IP packet into an Ethernet frame with these tags; it is not filled up to 60 bytes, see [Pad].
func Frame(ip []byte, src, dst net.HardwareAddr, vlans ...uint16) []byte {
	etherType := uint16(0x0800)
	if len(ip) > 0 && ip[0]>>4 == 6 {
		etherType = 0x86dd
	}
	return Ethernet(ip, src, dst, etherType, vlans...)
}

// Ethernet puts any payload into an Ethernet frame with these tags.
func Ethernet(payload []byte, src, dst net.HardwareAddr, etherType uint16, vlans ...uint16) []byte {
	b := slices.Concat(dst, src)
	for i, id := range vlans {
		tpid := uint16(0x8100)
		if i < len(vlans)-1 {
			tpid = 0x88a8
		}
		b = binary.BigEndian.AppendUint16(b, tpid)
		b = binary.BigEndian.AppendUint16(b, id)
	}
	b = binary.BigEndian.AppendUint16(b, etherType)
	return append(b, payload...)
}

// Pad fills the frame up to n bytes with 0xee; 60 is what Ethernet asks for.
func Pad(frame []byte, n int) []byte {
	frame = slices.Clone(frame)
	for len(frame) < n {
		frame = append(frame, 0xee)
	}
	return frame
}
