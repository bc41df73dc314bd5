package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/vxlan"
)

// vector is the frames that go through the stages together, and what the stages have decided on each so far. Arrays of one stage's data
// lie together, so that a stage's loop touches few cache lines.
type vector struct {
	n       int
	port    int  // all frames of a vector were received on one port
	tunnels bool // some packet goes through a tunnel: encap has work
	odd     list // those that are not plain, or were not at a glance
	six     list // those that are plain and of IPv6
	gone    int  // how many unusual has dropped
	missed  bool // there is no entry of IPv4 for some frame
	whole   bool // quick.at is that of every
	quick   list // those that express may take
	late    list // those of them that it has left
	rest    list // those that the stages behind lookup are at work on
	held    held // connections of which a frame is in rest
	held6   held // those of IPv6
	descs   []packet.Desc
	plain   [packet.VectorSize]plain
	narrow  [packet.VectorSize]conntrack.Query4 // of those that are plain; else its Ref is zero
	frames  [packet.VectorSize]packet.Frame
	queries [packet.VectorSize]conntrack.Query // of those that are for the stages
	asked   [packet.VectorSize]conntrack.Query // side by side: of those in six, and of those in odd that are not plain
	lanes   [packet.VectorSize]lane
	tails   [packet.VectorSize]tail // of later fragments, which have no entry in their lane

	// of the frames that are bridged, in their order
	bridged  int
	bridges  [packet.VectorSize]bridged
	stations [packet.VectorSize]vxlan.Query
}

// bridged is a frame that goes on to another place of its segment.
type bridged struct {
	segment *vxlan.Segment
	from    vxlan.Place
	frame   uint16 // its number in the vector
}

// lane is what the stages decide on one frame: a cache line.
type lane struct {
	verdict  Verdict       // written by the first stage that knows; later stages pass the frame over
	drop     Drop          // valid with Dropped
	out      int16         // index of the port to leave by; it and what follows are valid after resolve, while Pending
	ref      conntrack.Ref // entry whose rewrite applies, 0: a later fragment, see tails
	backend  uint32        // it and flags are valid with ref
	flags    connFlags     // of the connection; those of a reply say ForwardNAT
	segment  segmentRef    // that the packet came from, through its gateway
	home     segmentRef    // that the frame came into: whose loss it is if it is dropped; valid from decap on
	into     segmentRef    // that it goes into; none: out is valid
	routeMTU uint16        // of the route, in bytes, 0: the port's
	v6       bool          // family of hop
	hop      conntrack.Addr
	mac      *[6]byte // of the next hop, nil: unknown yet

	// with into
	station vxlan.MAC   // of hop; 0: unknown yet
	place   vxlan.Place // of the station; 0: unknown
}

func (l *lane) discard(d Drop) {
	l.verdict, l.drop = Dropped, d
}
