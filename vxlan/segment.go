package vxlan

import (
	"fmt"
	"net/netip"

	"weir/dataplane/packet"
)

// SegmentOptions are what a Segment is made of.
type SegmentOptions struct {
	TunnelOptions // to every peer; Local is our VTEP, Port its own as well. Peer is not used

	Index     uint16        // stable for as long as the segment is configured
	Peers     []PeerOptions // by peer index, stable as well; one without an address is an index that is free
	Group     netip.Addr    // floods go to this multicast group instead of to each peer; invalid: none
	GroupPort uint16        // that they leave by, as in packet.Frame
	Access    []Access      // by access index, stable as well
	Gateway   *Gateway      // our own station; nil: none
	Policy    Policy
	Learning  bool // learn from the frames of peers and access ports
	Open      bool // take frames from any source, not only from peers
	Suppress  bool // answer ARP and ND for stations that are known
	Clamp     Clamp
	BUM       *Gate // bounds what is flooded; nil: nothing does
}

// Clamp says of which TCP connections the maximum segment size is lowered to what fits into a tunnel.
type Clamp uint8

const (
	ClampServices Clamp = iota // those that are translated on their way into the segment or out of it
	ClampNone
	ClampAll // bridged ones as well
)

// PeerOptions are one VTEP of other's. Of what is zero the segment's holds.
type PeerOptions struct {
	Addr          netip.Addr
	Port          uint16
	Checksum      bool
	NoChecksum    bool // over IPv4, also where the segment makes them
	ZeroChecksum6 bool
	NoFlood       bool // not in the replication list: known unicast only
}

// Access is a local port of a segment: a VLAN of a port, 0 for its untagged frames.
type Access struct {
	Port uint16 // as in packet.Frame
	VLAN uint16
	Used bool // otherwise this index is free
}

// Peer is one VTEP of other's.
type Peer struct {
	Addr   Addr
	Tunnel *Tunnel // nil: the index is free
}

// NoPeer is the index of a source that is no peer.
const NoPeer = ^uint16(0)

// Segment is all that the data path knows of one VNI. It never changes: another configuration is another Segment with the same Index.
type Segment struct {
	// read for every packet
	VNI      uint32
	Index    uint16
	Port     uint16 // UDP port of our VTEP
	V6       bool   // family of the underlay
	Learning bool
	Open     bool
	Suppress bool
	Clamp    Clamp
	Policy   Policy
	VTEP     Addr
	Group    Addr     // zero: none
	peers    []uint16 // open addressing by address: index in Peers + 1
	Peers    []Peer
	Flood    []*Tunnel // where a frame goes that is for all: each peer, or the group
	Access   []Access
	Gateway  *Gateway // nil: none
	BUM      *Gate    // nil: none

	// read for floods to the group
	GroupPort uint16
	GroupMAC  [6]byte // the next hop: groups have no neighbours
}

// NewSegment checks o and builds the tunnels.
func NewSegment(o SegmentOptions) (*Segment, error) {
	s := &Segment{
		VNI: o.VNI, Index: o.Index, Port: o.Port, Learning: o.Learning, Open: o.Open, Suppress: o.Suppress, Clamp: o.Clamp, Policy: o.Policy,
		Access: o.Access, Gateway: o.Gateway, BUM: o.BUM,
	}
	if s.Port == 0 {
		s.Port = Port
	}
	if !o.Local.IsValid() || len(o.Peers) >= int(NoPeer) {
		return nil, fmt.Errorf("vxlan: segment %d: VTEP %s with %d peers: must be an address, and at most %d", o.VNI, o.Local, len(o.Peers), NoPeer-1)
	}
	s.VTEP, s.V6 = AddrOf(o.Local)
	size := 2
	for size < 2*len(o.Peers)+2 {
		size *= 2
	}
	s.peers = make([]uint16, size)
	s.Peers = make([]Peer, len(o.Peers))
	for i, p := range o.Peers {
		if !p.Addr.IsValid() {
			continue
		}
		t := o.TunnelOptions
		t.Peer, t.Checksum, t.ZeroChecksum6 = p.Addr, t.Checksum && !p.NoChecksum || p.Checksum, t.ZeroChecksum6 && !p.Checksum || p.ZeroChecksum6
		if p.Port != 0 {
			t.Port = p.Port
		}
		tunnel, err := NewTunnel(t)
		if err != nil {
			return nil, fmt.Errorf("segment %d, peer %d: %w", o.VNI, i, err)
		}
		a, _ := AddrOf(p.Addr)
		if _, twice := s.Peer(a); twice || a == s.VTEP {
			return nil, fmt.Errorf("vxlan: segment %d, peer %d: %s is there already, or is our own VTEP", o.VNI, i, p.Addr)
		}
		tunnel.peer = uint16(i)
		s.Peers[i] = Peer{a, tunnel}
		at := peerHash(a) & uint64(size-1)
		for s.peers[at] != 0 {
			at = (at + 1) & uint64(size-1)
		}
		s.peers[at] = uint16(i + 1)
		if !p.NoFlood && !o.Group.IsValid() {
			s.Flood = append(s.Flood, tunnel)
		}
	}
	if o.Group.IsValid() {
		t := o.TunnelOptions
		t.Peer = o.Group
		tunnel, err := NewTunnel(t)
		if err != nil || !o.Group.IsMulticast() {
			return nil, fmt.Errorf("vxlan: segment %d: group %s: must be a multicast address of the VTEP's family", o.VNI, o.Group)
		}
		s.Group, _ = AddrOf(o.Group)
		s.GroupPort, s.GroupMAC = o.GroupPort, GroupMAC(o.Group)
		s.Flood = []*Tunnel{tunnel}
	}
	return s, nil
}

func peerHash(a Addr) uint64 { return mum(a.Hi^0xa0761d6478bd642f, a.Lo^0xe7037ed1a0b428db) }

// Peer is the index of the peer with the address a, of the segment's family.
func (s *Segment) Peer(a Addr) (i uint16, ok bool) {
	mask := uint64(len(s.peers) - 1)
	for at := peerHash(a) & mask; s.peers[at] != 0; at = (at + 1) & mask { // half of the places are empty
		if i = s.peers[at] - 1; s.Peers[i].Addr == a {
			return i, true
		}
	}
	return NoPeer, false
}

// Tunnel is the way to where p says, nil if that is not behind a peer there is.
func (s *Segment) Tunnel(p Place) *Tunnel {
	if i, ok := p.Peer(); ok && int(i) < len(s.Peers) {
		return s.Peers[i].Tunnel
	}
	return nil
}

// Admit says which peer sent o into this segment, or why it may not. In an open segment that may be NoPeer: the frame is taken, but
// nothing is learned of it until control has made the source a peer.
func (s *Segment) Admit(o *Outer) (peer uint16, fault Fault) {
	switch {
	case o.Port != s.Port:
		return NoPeer, FaultVNI
	case o.V6 != s.V6 || o.Dst != s.VTEP && (o.Dst != s.Group || s.Group == Addr{}):
		return NoPeer, FaultDestination
	case o.Src == s.VTEP:
		return NoPeer, FaultLoop
	}
	peer, known := s.Peer(o.Src)
	if !known && (!s.Open || !unicast(o.Src, o.V6)) {
		return NoPeer, FaultPeer
	}
	return peer, FaultNone
}

// unicast reports whether a can be a host's address: neither unspecified nor loopback, multicast or class E.
func unicast(a Addr, v6 bool) bool {
	if v6 {
		return a.Hi>>56 != 0xff && (a.Hi != 0 || a.Lo > 1)
	}
	first := a.Lo >> 24
	return first != 0 && first != 127 && first < 224
}

// enter takes in f, which came from the access port with that VLAN: its tag comes off, and so does a priority tag. A further
// tag is refused unless the segment keeps tags.
func (s *Segment) enter(f *packet.Frame, vlan uint16) Fault {
	b := f.Bytes()
	switch {
	case len(b) < etherLen:
		return FaultShort
	case !MACOf(b[6:]).station():
		return FaultSourceMAC
	}
	if f.VLANs > 0 && f.VLAN == vlan {
		Untag(f)
	}
	if f.VLANs > 0 && !s.Policy.KeepTags {
		return FaultTagged
	}
	return FaultNone
}
