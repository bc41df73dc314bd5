package vxlan

import (
	"encoding/binary"

	"weir/dataplane/packet"
)

// isTag reports whether an Ethernet frame begins with a VLAN tag.
func isTag(frame []byte) bool {
	t := binary.BigEndian.Uint16(frame[12:])
	return t == packet.EtherTypeVLAN || t == packet.EtherTypeQinQ
}

// untag moves the MAC addresses of a frame over its first tag.
func untag(frame []byte) {
	dst, src := MACOf(frame), MACOf(frame[6:])
	dst.Put(frame[tagLen:])
	src.Put(frame[tagLen+6:])
}

// Untag takes the first tag off f, which must have one. The offsets in Headers hold.
func Untag(f *packet.Frame) {
	untag(f.Bytes())
	f.Start += tagLen
	f.VLANs--
	f.VLAN = 0
	if b := f.Bytes(); f.VLANs > 0 {
		f.VLAN = binary.BigEndian.Uint16(b[etherLen:]) & 0xfff
	}
}

// Tag puts an 802.1Q tag of the given VLAN in front of f's Ethernet type. It reports false, and leaves f untouched, without headroom.
func Tag(f *packet.Frame, vlan uint16) bool {
	if !f.Prepend(tagLen) {
		return false
	}
	b := f.Bytes()
	dst, src := MACOf(b[tagLen:]), MACOf(b[tagLen+6:])
	dst.Put(b)
	src.Put(b[6:])
	binary.BigEndian.PutUint16(b[12:], packet.EtherTypeVLAN)
	binary.BigEndian.PutUint16(b[14:], vlan&0xfff)
	f.VLANs++
	f.VLAN = vlan & 0xfff
	return true
}
