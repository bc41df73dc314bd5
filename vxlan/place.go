package vxlan

// Place is where a station of a segment is. Zero is nowhere.
type Place uint32

const (
	kindPeer Place = (iota + 1) << 16
	kindAccess
	kindGateway

	placeBits       = 18
	placeMask Place = 1<<placeBits - 1
)

// AtPeer is behind the peer with the given index in the segment's list.
func AtPeer(i uint16) Place { return kindPeer | Place(i) }

// AtAccess is behind the access port with the given index in the segment's list.
func AtAccess(i uint16) Place { return kindAccess | Place(i) }

// AtGateway is our own station in the segment.
const AtGateway = kindGateway

// Peer is the index of the peer, if the place is behind one.
func (p Place) Peer() (i uint16, ok bool) { return uint16(p), p&^0xffff == kindPeer }

// Access is the index of the access port, if the place is behind one.
func (p Place) Access() (i uint16, ok bool) { return uint16(p), p&^0xffff == kindAccess }
