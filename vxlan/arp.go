package vxlan

import (
	"encoding/binary"

	"weir/dataplane/packet"
)

// ARP of IPv4 over Ethernet (RFC 826), behind the Ethernet header:
//
//	0      2       4    5    6   8            14          18           24
//	| 1    | 0x0800 | 6  | 4  | op | sender MAC | sender IP | target MAC | target IP |
const (
	arpLen     = 28
	arpStarts  = 0x0001080006040000 // of its first eight bytes all but op
	arpRequest = 1
	arpReply   = 2
)

// ARPLen is the length in bytes of the frames that the Put functions of ARP write.
const ARPLen = etherLen + arpLen

// ARP is a request or a reply. A request with equal addresses, or either with Target equal to Sender, is gratuitous.
type ARP struct {
	Reply          bool
	SenderMAC      MAC
	TargetMAC      MAC
	Sender, Target Addr // Sender is zero in a probe (RFC 5227)
}

// ReadARP reads the ARP message in f, as Parse found it. It reports false for whatever is no request or reply of a single station's: an
// address that cannot be a host's, or a sender other than the frame's. If it is a request or reply at all, a says what it says also then.
func ReadARP(f *packet.Frame) (a ARP, ok bool) {
	b := f.Chunk()[f.L3:f.End]
	if f.EtherType != packet.EtherTypeARP || len(b) < arpLen {
		return a, false
	}
	b = b[:arpLen]
	first := binary.BigEndian.Uint64(b)
	if first&^0xffff != arpStarts || first&0xffff != arpRequest && first&0xffff != arpReply {
		return a, false
	}
	a = ARP{
		Reply: first&0xffff == arpReply, SenderMAC: MACOf(b[8:]), TargetMAC: MACOf(b[18:]),
		Sender: addr4(b[14:]), Target: addr4(b[24:]),
	}
	if !a.SenderMAC.station() || a.SenderMAC != MACOf(f.Bytes()[6:]) || !unicast(a.Target, false) {
		return a, false
	}
	return a, unicast(a.Sender, false) || a.Sender == Addr{} && !a.Reply
}

// Gratuitous reports whether a tells of its sender and asks for nothing.
func (a *ARP) Gratuitous() bool { return a.Sender == a.Target }

// PutARPReply writes the answer to a, that Target has the given MAC, and returns its length, ARPLen; 0 if b is shorter.
func PutARPReply(b []byte, a *ARP, mac MAC) int {
	return putARP(b, a.SenderMAC, arpReply, &ARP{SenderMAC: mac, Sender: a.Target, TargetMAC: a.SenderMAC, Target: a.Sender})
}

// PutARPRequest writes a request of the station (mac, addr) for target's MAC. It is sent to dst, which is Broadcast, or the station that was known.
func PutARPRequest(b []byte, dst, mac MAC, addr, target Addr) int {
	return putARP(b, dst, arpRequest, &ARP{SenderMAC: mac, Sender: addr, Target: target})
}

// PutARPAnnouncement writes a gratuitous request: all who know addr learn that it has the given MAC (RFC 5227 section 3).
func PutARPAnnouncement(b []byte, mac MAC, addr Addr) int {
	return PutARPRequest(b, Broadcast, mac, addr, addr)
}

func putARP(b []byte, dst MAC, op uint64, a *ARP) int {
	if len(b) < ARPLen {
		return 0
	}
	dst.Put(b)
	a.SenderMAC.Put(b[6:])
	binary.BigEndian.PutUint16(b[12:], packet.EtherTypeARP)
	b = b[etherLen:ARPLen]
	binary.BigEndian.PutUint64(b, arpStarts|op)
	a.SenderMAC.Put(b[8:])
	a.Sender.put4(b[14:])
	a.TargetMAC.Put(b[18:])
	a.Target.put4(b[24:])
	return ARPLen
}
