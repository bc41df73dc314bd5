// Package steer decides which frames are weir's and which the kernel's.
//
// The same questions are asked in three places: by an XDP program in front of AF_XDP sockets, by a tc program beside packet sockets
// (it drops what is ours, so that the kernel does not answer it too), and by [Classify], their twin in software, for ports with no
// program in front. A frame is asked, in this order, and the first answer stands:
//
//  1. Is it of an access VLAN? Take. Not on a VLAN of ours, not for our MAC or a group's, ARP, ND, not IP? Pass.
//  2. To a local NAT address inside its port range, or VXLAN to a VTEP with a VNI of ours? Take.
//  3. To a network that is routed, and no address known by itself? Take. To a VIP: to a service, a fragment, an ICMP error that quotes a packet of ours, or malformed? Take; else pass.
//  4. To another address of this host? Pass. (Here, as for a VIP: an ICMP error that quotes what we put into a tunnel? Take.)
//  5. From a NAT service's server and its port, or an ICMP error that quotes a packet to there? Take.
//  6. Pass.
//
// A VIP may be a prefix. What an address is, the longest match says, and it alone: an address that is known by itself, as a VIP, of
// this host, or as a server's, is that and nothing else, and a prefix within another is asked only for its own services.
//
// Limits, each with its effect: more than 6 IPv6 extension headers are malformed; of two VLAN tags the outer one says whose the frame
// is; IPv4 redirects and parameter problems are the kernel's, also about packets of ours; a client inside a VIP's prefix gets no
// answer, which would be to a VIP; AH counts as a protocol in IPv4 alone, in IPv6 what stands behind it decides, as with IPVS; of a
// packet in pieces the tc program reads 512 bytes. Length fields and checksums are not looked at: what they contradict is ours to
// drop, under a name, where the addresses and ports are ours.
//
// [Rules] is what control knows. [Compile] makes the twin's tables of it, [Program.Add] and [Program.Remove] the kernel's.
package steer

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
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
	Servers  []Server       // of NAT services; those of other forward modes answer the client themselves
	Routed   []netip.Prefix // networks of segments that are reached from outside: whatever is for an address in them is ours
	Tunnels  []Tunnel

	// Grace is how long after the last heartbeat what is ours is still dropped rather than passed when no socket takes it. It is
	// the program's alone.
	Grace time.Duration

	// Unusual is what each fragment, ICMP message and packet without TTL takes up, on average, of its kind's budget in its queue; what is for a VIP and the kernel would only
	// answer takes ten times that. One that comes sooner, after a tenth of a second's worth at once, is dropped before it takes room in a ring, or the kernel's time.
	// 0: there is no limit. It is the XDP program's alone.
	Unusual time.Duration
}

// Port is a network device, or one VLAN on it. Ports may share a device by VLAN.
type Port struct {
	Name    string
	Ifindex int       // 0: no kernel device behind it (replay, memory); it is then a device of its own
	MACs    [][6]byte // frames to any of these are for us
	VLAN    uint16    // the tag its traffic bears, 0: none, or a priority tag
	Access  []uint16  // VLANs on its device that belong to a VXLAN segment as a whole: every frame is ours; 0: the untagged
	Trunk   bool      // besides these, frames of every VLAN that no port is on and no segment has by itself belong to a segment
	Groups  [][6]byte // multicast MAC addresses of VTEPs that are groups: of frames to these, VXLAN to a VTEP alone is looked at
}

// NAT is a local address of fullnat or masquerade services and its ports From..To, for TCP, UDP and SCTP, ours alone. The host may
// use the address's other ports.
type NAT struct {
	Addr     netip.Addr
	From, To uint16
}

// VTEP is a tunnel end of ours, or a multicast group that stands for those of a segment. VXLAN for other VNIs than these, on the same address and port, is the kernel's.
type VTEP struct {
	Addr netip.Addr
	Port uint16
	VNIs []uint32
}

// Service is a virtual service: ports From..To of a VIP, every port if both are 0, as they must be for AH and ESP. The VIP is a
// prefix, each of whose addresses has the service, or one address: see One.
type Service struct {
	VIP      netip.Prefix
	Protocol uint8
	From, To uint16
}

// One is the prefix of a single address.
func One(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen())
}

// Server is a real server of a NAT service; port 0: every port, or for AH and ESP the protocol as a whole.
type Server struct {
	Addr     netip.Addr
	Protocol uint8
	Port     uint16
}

// Tunnel is one that we put clients' packets into: IPv4 (protocol 4), IPv6 (41) or GRE (47) in IP to a server, or whatever in UDP (17)
// to a port there. The outer source is any address of this host; ICMP errors about outer packets come back to it.
type Tunnel struct {
	Server   netip.Addr
	Protocol uint8
	Port     uint16 // 0 but for UDP
}

// Equal reports whether both say the same, in the same order.
func (r *Rules) Equal(o *Rules) bool {
	return r.Grace == o.Grace && r.Unusual == o.Unusual && slices.EqualFunc(r.Ports, o.Ports, Port.equal) && slices.Equal(r.Local, o.Local) && slices.Equal(r.NAT, o.NAT) &&
		slices.EqualFunc(r.VTEPs, o.VTEPs, func(a, b VTEP) bool { return a.Addr == b.Addr && a.Port == b.Port && slices.Equal(a.VNIs, b.VNIs) }) &&
		slices.Equal(r.Services, o.Services) && slices.Equal(r.Servers, o.Servers) && slices.Equal(r.Routed, o.Routed) && slices.Equal(r.Tunnels, o.Tunnels)
}

func (p Port) equal(o Port) bool {
	return p.Name == o.Name && p.Ifindex == o.Ifindex && p.VLAN == o.VLAN && p.Trunk == o.Trunk && slices.Equal(p.MACs, o.MACs) && slices.Equal(p.Access, o.Access) &&
		slices.Equal(p.Groups, o.Groups)
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
		bad(!balanced(s.Protocol), "services[%d] %s: protocol %d is not balanced", i, s.VIP, s.Protocol)
		bad(isIPsec(s.Protocol) && s.To != 0, "services[%d] %s: protocol %d has no ports", i, s.VIP, s.Protocol)
		bad(s.From > s.To, "services[%d] %s: ports %d-%d run backwards", i, s.VIP, s.From, s.To)
	}
	for i, s := range r.Servers {
		if s.Addr.IsValid() && hasPorts(s.Protocol) {
			continue // nearly all, and there may be a hundred thousand
		}
		bad(!s.Addr.IsValid(), "servers[%d]: no address", i)
		bad(!balanced(s.Protocol), "servers[%d] %s: protocol %d is not balanced", i, s.Addr, s.Protocol)
		bad(isIPsec(s.Protocol) && s.Port != 0, "servers[%d] %s: protocol %d has no ports", i, s.Addr, s.Protocol)
	}
	for i, p := range r.Routed {
		bad(!p.IsValid() || p.IsSingleIP(), "routed[%d]: %s is no network", i, p)
	}
	for i, t := range r.Tunnels {
		bad(!t.Server.IsValid(), "tunnels[%d]: no address", i)
		bad(!isTunnel(t.Protocol) && t.Protocol != packet.ProtoUDP, "tunnels[%d] %s: protocol %d is no tunnel's", i, t.Server, t.Protocol)
		bad((t.Port != 0) != (t.Protocol == packet.ProtoUDP), "tunnels[%d] %s: protocol %d to port %d", i, t.Server, t.Protocol, t.Port)
	}
	return errors.Join(errs...)
}

// hasPorts reports whether the first four bytes of the protocol's header are a source and a destination port.
func hasPorts(proto uint8) bool {
	return proto == packet.ProtoTCP || proto == packet.ProtoUDP || proto == packet.ProtoSCTP
}

// isIPsec reports whether the protocol is ESP or AH. They have no ports, and are balanced as a whole.
func isIPsec(proto uint8) bool { return proto == packet.ProtoESP || proto == packet.ProtoAH }

// balanced reports whether there can be services of the protocol.
func balanced(proto uint8) bool { return hasPorts(proto) || isIPsec(proto) }

// isTunnel reports whether the protocol is an IP packet's in another, or GRE's.
func isTunnel(proto uint8) bool {
	return proto == packet.ProtoIPIP || proto == packet.ProtoIPv6 || proto == packet.ProtoGRE
}

// ports is the service's range with its shorthand for every port written out. What has no ports has port 0 in all tables.
func (s Service) ports() (from, to uint16) { return everyPort(s.Protocol, s.From, s.To) }

func (s Server) ports() (from, to uint16) { return everyPort(s.Protocol, s.Port, s.Port) }

func everyPort(proto uint8, from, to uint16) (uint16, uint16) {
	if hasPorts(proto) && from == 0 && to == 0 {
		return 0, 65535
	}
	return from, to
}
