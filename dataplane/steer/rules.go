// Package steer decides which frames are weir's and which the kernel's.
//
// The same questions are asked in three places: by an XDP program in front of AF_XDP sockets, by a tc program beside packet sockets
// (it drops what is ours, so that the kernel does not answer it too), and by [Classify], their twin in software, for ports with no
// program in front. A frame is asked, in this order, and the first answer stands:
//
//  1. Is it of an access VLAN? Take. Not on a VLAN of ours, not for our MAC, ARP, ND, not IP? Pass.
//  2. To a local NAT address inside its port range, or VXLAN to a VTEP with a VNI of ours? Take.
//  3. To a VIP: to a service, a fragment, an ICMP error that quotes a packet of ours, or malformed? Take; else pass.
//  4. To another address of this host? Pass.
//  5. From a NAT service's server and its port, or an ICMP error that quotes a packet to there? Take.
//  6. Pass.
//
// Limits, each with its effect: more than 6 IPv6 extension headers are malformed; of two VLAN tags the outer one says whose the frame
// is; an ICMP error about a packet that we put into a tunnel comes to an address of the host and is the kernel's, as are IPv4
// redirects and parameter problems; of a packet in pieces the tc program reads 512 bytes. Length fields and checksums are not looked
// at: what they contradict is ours to drop, under a name, where the addresses and ports are ours.
//
// [Rules] is what control knows. [Compile] makes the twin's tables of it, [Program.Add] and [Program.Remove] the kernel's.
package steer

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"weir/dataplane/packet"
)

// Rules says what is ours. Control builds it from the configuration and never changes it afterwards.
type Rules struct {
	Ports    []Port // by port index of the engine
	Local    []netip.Addr
	NAT      []NAT
	VTEPs    []VTEP
	Services []Service
	Servers  []Server // of NAT services; those of other forward modes answer the client themselves

	// Grace is how long after the last heartbeat what is ours is still dropped rather than passed when no socket takes it. It is
	// the program's alone.
	Grace time.Duration
}

// Port is a network device, or one VLAN on it. Ports may share a device by VLAN.
type Port struct {
	Name    string
	Ifindex int       // 0: no kernel device behind it (replay, memory); it is then a device of its own
	MACs    [][6]byte // frames to any of these are for us
	VLAN    uint16    // the tag its traffic bears, 0: none, or a priority tag
	Access  []uint16  // VLANs on its device that belong to a VXLAN segment as a whole: every frame is ours; 0: the untagged
}

// NAT is a local address of fullnat or masquerade services and its ports From..To, for TCP, UDP and SCTP, ours alone. The host may
// use the address's other ports.
type NAT struct {
	Addr     netip.Addr
	From, To uint16
}

// VTEP is a tunnel end of ours. VXLAN for other VNIs than these, on the same address and port, is the kernel's.
type VTEP struct {
	Addr netip.Addr
	Port uint16
	VNIs []uint32
}

// Service is a virtual service: ports From..To of a VIP, every port if both are 0.
type Service struct {
	VIP      netip.Addr
	Protocol uint8
	From, To uint16
}

// Server is a real server of a NAT service; port 0: every port.
type Server struct {
	Addr     netip.Addr
	Protocol uint8
	Port     uint16
}

// maxVNI is the greatest 24-bit VNI.
const maxVNI = 1<<24 - 1

// Check returns every contradiction in the rules at once, or nil. Compile and Add refuse rules that do not pass it.
func (r *Rules) Check() error {
	var errs []error
	bad := func(cond bool, format string, args ...any) {
		if cond {
			errs = append(errs, fmt.Errorf("steer: "+format, args...))
		}
	}
	for i, p := range r.Ports {
		bad(p.Ifindex < 0, "ports[%d] %s: ifindex %d is negative", i, p.Name, p.Ifindex)
		bad(p.VLAN > 4094, "ports[%d] %s: vlan %d is above 4094", i, p.Name, p.VLAN)
		for _, v := range p.Access {
			bad(v > 4094, "ports[%d] %s: access vlan %d is above 4094", i, p.Name, v)
		}
	}
	for i, a := range r.Local {
		bad(!a.IsValid(), "local[%d]: no address", i)
	}
	for i, n := range r.NAT {
		bad(!n.Addr.IsValid(), "nat[%d]: no address", i)
		bad(n.From > n.To, "nat[%d] %s: ports %d-%d run backwards", i, n.Addr, n.From, n.To)
	}
	for i, v := range r.VTEPs {
		bad(!v.Addr.IsValid(), "vteps[%d]: no address", i)
		for _, vni := range v.VNIs {
			bad(vni > maxVNI, "vteps[%d] %s: vni %d is above %d", i, v.Addr, vni, maxVNI)
		}
	}
	for i, s := range r.Services {
		bad(!s.VIP.IsValid(), "services[%d]: no address", i)
		bad(!hasPorts(s.Protocol), "services[%d] %s: protocol %d has no ports", i, s.VIP, s.Protocol)
		bad(s.From > s.To, "services[%d] %s: ports %d-%d run backwards", i, s.VIP, s.From, s.To)
	}
	for i, s := range r.Servers {
		bad(!s.Addr.IsValid(), "servers[%d]: no address", i)
		bad(!hasPorts(s.Protocol), "servers[%d] %s: protocol %d has no ports", i, s.Addr, s.Protocol)
	}
	return errors.Join(errs...)
}

// hasPorts reports whether the first four bytes of the protocol's header are a source and a destination port.
func hasPorts(proto uint8) bool {
	return proto == packet.ProtoTCP || proto == packet.ProtoUDP || proto == packet.ProtoSCTP
}

// ports is the service's range with its shorthand for every port written out.
func (s Service) ports() (from, to uint16) { return everyPort(s.From, s.To) }

func everyPort(from, to uint16) (uint16, uint16) {
	if from == 0 && to == 0 {
		return 0, 65535
	}
	return from, to
}
