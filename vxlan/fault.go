package vxlan

// Fault is why a packet that came to a VTEP of ours is not taken out of its tunnel, or a frame of an access port not into its segment. It
// must be dropped.
type Fault uint8

const (
	FaultNone        Fault = iota
	FaultFragment          // a fragment of an outer packet: it may be dropped (RFC 7348 section 4.3), and is
	FaultSourceRoute       // the outer packet has a source route
	FaultShort             // the UDP datagram ends before a whole VXLAN and inner Ethernet header
	FaultFlags             // the I flag is not set
	FaultReserved          // a reserved bit is set, and the segment is strict
	FaultVNI               // no segment has this VNI on this UDP port
	FaultAccess            // no segment has this VLAN of the port that the frame came from
	FaultDestination       // not sent to the segment's VTEP or group
	FaultLoop              // sent by our own VTEP: what we sent to a group came back
	FaultPeer              // sent by none of the segment's peers
	FaultChecksum          // the UDP checksum is there, and wrong
	FaultTagged            // the inner frame bears a VLAN tag (RFC 7348 section 6.1)
	FaultSourceMAC         // the inner source is a group's address, or zero
	FaultECN               // congestion was marked on a packet whose sender does not know ECN (RFC 6040 section 4.2)
	FaultCount
)

var faultNames = [FaultCount]string{
	FaultNone:        "none",
	FaultFragment:    "vxlan_fragment",
	FaultSourceRoute: "vxlan_source_route",
	FaultShort:       "vxlan_short",
	FaultFlags:       "vxlan_flags",
	FaultReserved:    "vxlan_reserved",
	FaultVNI:         "vxlan_vni",
	FaultAccess:      "vxlan_access",
	FaultDestination: "vxlan_destination",
	FaultLoop:        "vxlan_loop",
	FaultPeer:        "vxlan_peer",
	FaultChecksum:    "vxlan_checksum",
	FaultTagged:      "vxlan_tagged",
	FaultSourceMAC:   "vxlan_source_mac",
	FaultECN:         "vxlan_ecn",
}

// String is the fault's metric name.
func (f Fault) String() string {
	if f < FaultCount {
		return faultNames[f]
	}
	return "unknown"
}
