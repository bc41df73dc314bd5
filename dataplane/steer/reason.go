package steer

// Verdict is whose a frame is.
type Verdict uint8

const (
	Pass Verdict = iota // the kernel's
	Take                // ours
)

// Reason is the rule that decided over a frame. Each is a counter of the program, too.
type Reason uint8

const (
	PassShort      Reason = iota // cut off within the Ethernet header, a tag, or the fixed IP header
	PassNotOurPort               // a device or VLAN without a port of ours
	PassNotOurMAC                // for another station, or for many
	PassARPND                    // ARP, or ICMPv6 types 133 to 137
	PassNotIP                    // another Ethernet type
	PassVIP                      // to a VIP, but of no service: echo, unused ports
	PassHost                     // to another address of this host
	PassOther                    // none of the rules: what the kernel routes, or drops

	TakeAccess         // of an access VLAN
	TakeNAT            // to a local NAT address: inside its range, a later fragment, or an ICMP error that quotes one of our ports
	TakeVXLAN          // to a VTEP, with a VNI of ours
	TakeService        // to a service
	TakeFragment       // to a VIP, any fragment: only the first shows its ports, and all of a datagram must go one way
	TakeICMP           // an ICMP error to a VIP that quotes a packet of a service
	TakeTunnelICMP     // an ICMP error to an address of this host that quotes what we put into a tunnel
	TakeMalformed      // to a VIP, but cut off or contradictory before its ports: the engine drops it under a name of its own
	TakeServer         // from a server and its port
	TakeServerFragment // from a server, a later fragment
	TakeServerICMP     // an ICMP error that quotes a packet to a server and its port
	TakeRouted         // to a network that is routed

	// what became of frames that were not given to a socket, or to the kernel after all; the program's alone
	DroppedUnusual  // more fragments, ICMP messages, packets without TTL, or such for a VIP as the kernel would only answer, than the queue's budget has
	DroppedNoSocket // none stood in the queue, and the heartbeat is young: weir is about to come (back)
	PassedStale     // the heartbeat is older than grace: nobody is there, the kernel does what it can

	NumReasons
)

var reasonNames = [NumReasons]string{
	PassShort:          "pass_short",
	PassNotOurPort:     "pass_not_our_port",
	PassNotOurMAC:      "pass_not_our_mac",
	PassARPND:          "pass_arp_nd",
	PassNotIP:          "pass_not_ip",
	PassVIP:            "pass_vip",
	PassHost:           "pass_host",
	PassOther:          "pass_other",
	TakeAccess:         "take_access",
	TakeNAT:            "take_nat",
	TakeVXLAN:          "take_vxlan",
	TakeService:        "take_service",
	TakeFragment:       "take_fragment",
	TakeICMP:           "take_icmp",
	TakeTunnelICMP:     "take_tunnel_icmp",
	TakeMalformed:      "take_malformed",
	TakeServer:         "take_server",
	TakeServerFragment: "take_server_fragment",
	TakeServerICMP:     "take_server_icmp",
	TakeRouted:         "take_routed",
	DroppedUnusual:     "dropped_unusual",
	DroppedNoSocket:    "dropped_no_socket",
	PassedStale:        "passed_stale",
}

// String is the reason's metric name.
func (r Reason) String() string {
	if r < NumReasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Verdict is what the rule decides.
func (r Reason) Verdict() Verdict {
	if r >= TakeAccess && r <= TakeRouted {
		return Take
	}
	return Pass
}
