package dataplane

import (
	"weir/dataplane/packet"
	"weir/vxlan"
)

// Verdict is what became of a frame that was received. Each gets exactly one, so received equals their sum whenever the worker is
// between two vectors.
type Verdict uint8

const (
	Pending   Verdict = iota // on its way through the stages
	Forwarded                // left by a port, translated
	Answered                 // we sent an answer of our own in its place
	Punted                   // given to the kernel through the TUN device
	Consumed                 // taken in: nothing leaves for it
	Dropped                  // discarded, for a Drop
	Held                     // waits for its next hop's MAC address
)

// Drop is why a frame was discarded. Each has one counter, one metric name and one line in docs/packet-walk.md.
type Drop uint8

const (
	DropNone Drop = iota

	// parse: the bytes contradict themselves, one for each packet.Fault
	DropShort
	DropVersion
	DropHeaderLen
	DropLength
	DropIPChecksum
	DropTCPOffset
	DropExtension
	DropBadFragment
	DropICMPShort

	DropUnusualLimit // more fragments, ICMP messages, or packets without TTL than limits.unusual has

	// lookup and schedule
	DropFragmentAlone     // a fragment to a VIP whose first did not come, or of an ICMP error
	DropFragmentDuplicate // the same piece of a datagram once more
	DropFragmentOverlap   // pieces of a datagram overlap: this one and all later ones
	DropFragmentMany      // more pieces than a datagram may have
	DropFragmentSCTP      // the first fragment of an SCTP packet whose ports change: its checksum is over all fragments
	DropSourceRoute       // a source route (RFC 7126, RFC 5095)
	DropMartian           // a source that no packet may have: unspecified, loopback, multicast, our own VIP, or of another segment's network
	DropTCPFlags          // SYN with FIN or RST opens nothing
	DropNoConnection      // a RST without a connection; there is nothing to answer
	DropDenied            // the service does not admit the client
	DropNoBackend         // no server takes the connection and the answer must not be sent
	DropBackendGone       // the connection's server was removed from the service
	DropTableFull         // the connection table has no free entry
	DropHalfOpen          // half-open connections have their part of the table, and none was found that could give way
	DropSourceHalfOpen    // its source has as many half-open connections as one may have
	DropSourceRate        // its source has opened as many connections within a second as one may
	DropNoLocalPort       // every local address and port for the server is taken
	DropClash             // the server would see two connections with the same addresses and ports
	DropChecksum          // a TCP segment or UDP datagram that was to be answered, but whose checksum is wrong
	DropICMPChecksum      // an ICMP error whose checksum is wrong
	DropICMPUnrelated     // an ICMP error to a VIP that quotes no packet of ours
	DropProtocol          // a protocol that is not balanced, to a VIP, that nobody here answers
	DropTooBig            // larger than the next link, and the answer must not be sent
	DropTTL               // TTL or hop limit used up, and the answer must not be sent
	DropAnswerLimit       // it was to be answered, but limits.answers is used up
	DropPuntLimit         // it was to be punted, but the kernel takes no more now
	DropNoRoute           // no route to where it should go, or a blackhole
	DropNoNeighbor        // its next hop did not answer ARP or ND in time, or too many waited for it
	DropStaticMAC         // a frame from elsewhere than where its static MAC address is
	DropOwnMAC            // a frame from our gateway's own MAC address, on a port of ours or to itself: a loop
	DropOwnAddress        // ARP or ND of a station's that says an address of our gateway's, or of a VIP, is its own
	DropSameSide          // a frame to a station that is where it came from
	DropSplitHorizon      // a frame from one peer to another
	DropNoStation         // a frame that nobody in its segment is there for
	DropFloodLimit        // more flooded frames than the segment may have
	DropVXLANRouted       // out of a segment to a VTEP's VXLAN port: it would come out in whatever segment it names
	DropVXLANFragment     // one for each vxlan.Fault
	DropVXLANSourceRoute
	DropVXLANShort
	DropVXLANFlags
	DropVXLANReserved
	DropVXLANVNI
	DropVXLANAccess
	DropVXLANDestination
	DropVXLANLoop
	DropVXLANPeer
	DropVXLANChecksum
	DropVXLANTagged
	DropVXLANSourceMAC
	DropVXLANECN
	DropNoMemory     // no free chunk for an answer or a fragment
	DropSendRingFull // the port's send ring is full
	DropPortGone     // the port it should leave by is not there

	// before us: lost by the kernel on its way into a ring
	DropRxRingFull
	DropFillRingEmpty
	DropRxDropped
	DropInvalidDescriptor

	NumDrops
)

var dropNames = [NumDrops]string{
	DropNone:              "none",
	DropShort:             "short",
	DropVersion:           "ip_version",
	DropHeaderLen:         "ip_header_length",
	DropLength:            "length",
	DropIPChecksum:        "ip_checksum",
	DropTCPOffset:         "tcp_offset",
	DropExtension:         "extension_header",
	DropBadFragment:       "bad_fragment",
	DropICMPShort:         "icmp_short",
	DropUnusualLimit:      "unusual_limit",
	DropFragmentAlone:     "fragment_alone",
	DropFragmentDuplicate: "fragment_duplicate",
	DropFragmentOverlap:   "fragment_overlap",
	DropFragmentMany:      "fragment_many",
	DropFragmentSCTP:      "fragment_sctp",
	DropSourceRoute:       "source_route",
	DropMartian:           "martian_source",
	DropTCPFlags:          "tcp_flags",
	DropNoConnection:      "no_connection",
	DropDenied:            "denied",
	DropNoBackend:         "no_backend",
	DropBackendGone:       "backend_gone",
	DropTableFull:         "table_full",
	DropHalfOpen:          "half_open",
	DropSourceHalfOpen:    "source_half_open",
	DropSourceRate:        "source_rate",
	DropNoLocalPort:       "no_local_port",
	DropClash:             "tuple_clash",
	DropChecksum:          "checksum",
	DropICMPChecksum:      "icmp_checksum",
	DropICMPUnrelated:     "icmp_unrelated",
	DropProtocol:          "protocol",
	DropTooBig:            "too_big",
	DropTTL:               "ttl",
	DropAnswerLimit:       "answer_limit",
	DropPuntLimit:         "punt_limit",
	DropNoRoute:           "no_route",
	DropNoNeighbor:        "no_neighbor",
	DropStaticMAC:         "static_mac",
	DropOwnMAC:            "own_mac",
	DropOwnAddress:        "own_address",
	DropSameSide:          "same_side",
	DropSplitHorizon:      "split_horizon",
	DropNoStation:         "no_station",
	DropFloodLimit:        "flood_limit",
	DropVXLANRouted:       "vxlan_routed",
	DropVXLANFragment:     "vxlan_fragment",
	DropVXLANSourceRoute:  "vxlan_source_route",
	DropVXLANShort:        "vxlan_short",
	DropVXLANFlags:        "vxlan_flags",
	DropVXLANReserved:     "vxlan_reserved",
	DropVXLANVNI:          "vxlan_vni",
	DropVXLANAccess:       "vxlan_access",
	DropVXLANDestination:  "vxlan_destination",
	DropVXLANLoop:         "vxlan_loop",
	DropVXLANPeer:         "vxlan_peer",
	DropVXLANChecksum:     "vxlan_checksum",
	DropVXLANTagged:       "vxlan_tagged",
	DropVXLANSourceMAC:    "vxlan_source_mac",
	DropVXLANECN:          "vxlan_ecn",
	DropNoMemory:          "no_memory",
	DropSendRingFull:      "send_ring_full",
	DropPortGone:          "port_gone",
	DropRxRingFull:        "rx_ring_full",
	DropFillRingEmpty:     "fill_ring_empty",
	DropRxDropped:         "rx_dropped",
	DropInvalidDescriptor: "invalid_descriptor",
}

// String is the drop's metric name.
func (d Drop) String() string {
	if d < NumDrops {
		return dropNames[d]
	}
	return "unknown"
}

// faultDrops names each of the parser's faults as a drop.
var faultDrops = [packet.FaultCount]Drop{
	packet.FaultShort:      DropShort,
	packet.FaultVersion:    DropVersion,
	packet.FaultHeaderLen:  DropHeaderLen,
	packet.FaultLength:     DropLength,
	packet.FaultIPChecksum: DropIPChecksum,
	packet.FaultTCPOffset:  DropTCPOffset,
	packet.FaultExtension:  DropExtension,
	packet.FaultFragment:   DropBadFragment,
	packet.FaultICMP:       DropICMPShort,
}

// vxlanDrops names each fault of a frame that came out of a tunnel, or should have, as a drop.
var vxlanDrops = func() (drops [vxlan.FaultCount]Drop) {
	for fault := vxlan.FaultFragment; fault < vxlan.FaultCount; fault++ {
		drops[fault] = DropVXLANFragment + Drop(fault-vxlan.FaultFragment)
	}
	return drops
}()
