package vxlan

import (
	"encoding/binary"
	"fmt"

	"weir/dataplane/packet"
)

// Segments finds the segment of a frame: by VNI if it came through a tunnel, by port and VLAN if it came from an access port. It never
// changes.
type Segments struct {
	byVNI    []*Segment // open addressing; nil: empty
	byAccess []accessSlot
	list     []*Segment
}

type accessSlot struct {
	segment *Segment // nil: empty
	key     uint32   // port<<16 | VLAN
	index   uint16   // in the segment's Access
}

// NewSegments refuses a VNI, or a port and VLAN, that occurs twice.
func NewSegments(list []*Segment) (*Segments, error) {
	access := 0
	for _, s := range list {
		access += len(s.Access)
	}
	t := &Segments{byVNI: make([]*Segment, places(len(list))), byAccess: make([]accessSlot, places(access)), list: list}
	for _, s := range list {
		if t.ByVNI(s.VNI) != nil {
			return nil, fmt.Errorf("vxlan: segment %d: is there twice", s.VNI)
		}
		at := t.place(s.VNI)
		for t.byVNI[at] != nil {
			at = (at + 1) & uint32(len(t.byVNI)-1)
		}
		t.byVNI[at] = s
		for i, a := range s.Access {
			if !a.Used {
				continue
			}
			if other, _ := t.ByAccess(a.Port, a.VLAN); other != nil {
				return nil, fmt.Errorf("vxlan: segment %d: VLAN %d of port %d belongs to segment %d", s.VNI, a.VLAN, a.Port, other.VNI)
			}
			key := uint32(a.Port)<<16 | uint32(a.VLAN)
			at := t.accessPlace(key)
			for t.byAccess[at].segment != nil {
				at = (at + 1) & uint32(len(t.byAccess)-1)
			}
			t.byAccess[at] = accessSlot{s, key, uint16(i)}
		}
	}
	return t, nil
}

// places is a power of two that n entries fill to one half at the most.
func places(n int) int {
	size := 2
	for size < 2*n {
		size *= 2
	}
	return size
}

// scatter spreads small numbers over 32 bits (Fibonacci hashing).
func scatter(n uint32) uint32 { return uint32(uint64(n) * 0x9e3779b97f4a7c15 >> 32) }

func (t *Segments) place(vni uint32) uint32 { return scatter(vni) & uint32(len(t.byVNI)-1) }

func (t *Segments) accessPlace(key uint32) uint32 { return scatter(key) & uint32(len(t.byAccess)-1) }

// List is all segments, as they were given.
func (t *Segments) List() []*Segment { return t.list }

// ByVNI is the segment of a VNI, nil if there is none.
func (t *Segments) ByVNI(vni uint32) *Segment {
	for at := t.place(vni); t.byVNI[at] != nil; at = (at + 1) & uint32(len(t.byVNI)-1) {
		if t.byVNI[at].VNI == vni {
			return t.byVNI[at]
		}
	}
	return nil
}

// ByAccess is the segment that a VLAN of a port belongs to, nil if there is none, and the access port's index in it.
func (t *Segments) ByAccess(port, vlan uint16) (s *Segment, index uint16) {
	key := uint32(port)<<16 | uint32(vlan)
	for at := t.accessPlace(key); t.byAccess[at].segment != nil; at = (at + 1) & uint32(len(t.byAccess)-1) {
		if x := &t.byAccess[at]; x.key == key {
			return x.segment, x.index
		}
	}
	return nil, 0
}

// Arrival is where a frame came into a segment.
type Arrival struct {
	Outer            // of a frame from a tunnel; valid with a fault as well, as far as it was read
	Segment *Segment // nil: none was found
	At      Place    // zero: a source that is no peer (see Strangers)
}

// Decap takes the inner frame out of f, a UDP datagram without a fault of Parse's. Without a fault f is the inner frame, to be parsed anew.
// All checks that need no segment come first, then those of who sent it to whom, those that read all of it last.
func (t *Segments) Decap(f *packet.Frame) (a Arrival, fault Fault) {
	if a.Outer, fault = ReadOuter(f); fault != FaultNone {
		return a, fault
	}
	if a.Segment = t.ByVNI(a.VNI); a.Segment == nil {
		return a, FaultVNI
	}
	peer, fault := a.Segment.Admit(&a.Outer)
	if fault != FaultNone {
		return a, fault
	}
	if peer != NoPeer {
		a.At = AtPeer(peer)
	}
	return a, Decap(f, a.Segment.Policy)
}

// Peel is Decap for the commonest of packets, without a Frame: over IPv4, without a UDP checksum or a mark of congestion, from a peer, of an untagged
// frame, into a segment that ignores reserved bits. ip is a whole UDP datagram in an intact IPv4 packet without options; inner lies within it.
//
// It reports false if the packet is not of this kind, or if anything is wrong with it: that is for Decap to find.
func (t *Segments) Peel(ip []byte) (inner []byte, s *Segment, at Place, ok bool) {
	const front = ipv4Len + udpLen + headerLen
	if len(ip) < front+etherLen {
		return nil, nil, 0, false
	}
	udp := ip[ipv4Len:]
	size := int(binary.BigEndian.Uint16(udp[4:]))
	vni, fault := readHeader(udp[udpLen:], false)
	if size > len(udp) || size < udpLen+headerLen+etherLen || fault != FaultNone || ip[1]&ecnMask != notECT {
		return nil, nil, 0, false
	}
	if s = t.ByVNI(vni); s == nil || s.Policy.Strict || binary.BigEndian.Uint16(udp[6:]) != 0 && !s.Policy.NoChecksum {
		return nil, nil, 0, false
	}
	src, dst := addr4(ip[12:]), addr4(ip[16:])
	peer, known := s.Peer(src)
	inner = ip[front : ipv4Len+size]
	if binary.BigEndian.Uint16(udp[2:]) != s.Port || s.V6 || dst != s.VTEP || src == s.VTEP || !known || !MACOf(inner[6:]).station() || isTag(inner) {
		return nil, nil, 0, false
	}
	return inner, s, AtPeer(peer), true
}

// Enter takes f, as Parse found it, from the access port that it came from into its segment: the port's VLAN tag comes off, and so does a
// priority tag. A frame of any other VLAN goes into the segment of the untagged frames if that keeps tags.
func (t *Segments) Enter(f *packet.Frame) (a Arrival, fault Fault) {
	vlan := f.VLAN
	s, i := t.ByAccess(f.Port, vlan)
	if s == nil && vlan != 0 {
		vlan = 0
		if s, i = t.ByAccess(f.Port, 0); s != nil && !s.Policy.KeepTags {
			s = nil
		}
	}
	if s == nil {
		return a, FaultAccess
	}
	a.Segment, a.At = s, AtAccess(i)
	return a, s.enter(f, vlan)
}
