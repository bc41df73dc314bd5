// Package config turns a configuration file into typed values with every default filled in, or into a list of what is wrong with it.
//
// Two steps, each of which goes on after an error so that the user sees all of them at once:
//
//	decode  YAML nodes -> Config   key by key, by tables of what each mapping may hold; wrong types, ranges, unknown keys
//	check   Config                 what two places together make wrong: duplicate services, a port that does not exist
//
// Every element keeps its place in the file ([Place]), so that later stages report their errors at the right line, too. Nothing here
// touches the machine: interfaces and files that the configuration names are looked at by those who use them.
package config

import (
	"net/netip"
	"slices"
	"time"
)

// Config is a configuration, complete with defaults.
type Config struct {
	Place
	File      string // as given to Load or Parse, for diagnostics
	spans     []span // of files, if there are included ones
	Include   []string
	Version   int // 1
	Engine    Engine
	Ports     []Port // at least one
	Routes    []Route
	Neighbors []Neighbor
	Services  []Service
	Conntrack Conntrack
	Limits    Limits
	VXLAN     VXLAN
	Admin     Admin
	BindVIPs  bool
	Grace     time.Duration // 0 to 10 min
}

// Engine is how workers run.
type Engine struct {
	Place
	Workers Workers
	Wait    string // one of Waits

	StateDir string // where connections are kept for the next process: an absolute path, StateAuto or StateNone
}

// What Engine.StateDir says besides a directory.
const (
	StateAuto = "auto" // a directory in memory that suits
	StateNone = "none" // nothing is kept
)

// Workers is how many workers there are, and where: all fields zero is "auto".
type Workers struct {
	Count int   // 1 to 256; 0: as many as CPUs names, or automatic
	CPUs  []int // one worker on each, in ascending order; empty: left to the daemon
}

// Auto reports whether the daemon chooses the number of workers.
func (w Workers) Auto() bool { return w.Count == 0 && len(w.CPUs) == 0 }

// Port is a network device, or one VLAN of it.
type Port struct {
	Place
	Name      string
	Interface string // empty only for pcap and mem, and for a replay
	Driver    string // one of Drivers
	XDPMode   string // one of XDPModes
	XDPSend   string // one of XDPSends
	Queues    Queues
	VLAN      uint16 // 0 (none) to 4094
	MAC       [6]byte
	HasMAC    bool           // false: MAC is the device's
	Addresses []netip.Prefix // with host bits; empty: the device's
	MTU       int            // of the IP packet in bytes, 576 to 3500; 0: the device's. Never 0 where no device is behind the port.
}

// Queues are the receive queues of a port that weir uses.
type Queues struct {
	All  bool
	List []int // ascending; empty if All
}

// Route is a route besides the kernel's.
type Route struct {
	Place
	To   netip.Prefix // without host bits
	Via  netip.Addr   // of To's family
	Port string       // name of the port; empty: the one whose link Via is on
}

// Neighbor is a neighbour besides the kernel's.
type Neighbor struct {
	Place
	Address netip.Addr
	MAC     [6]byte
	Port    string
}

// Service is a virtual service on each of its VIPs. Its identities are (Protocol, VIP, Port, VNI).
type Service struct {
	Place
	Name         string         // unique; by default made of the identity
	VIPs         []netip.Prefix // one or more, both families; an address is a prefix of full length
	VNI          uint32         // segment that the VIPs live in; 0: none
	Port         PortRange      // 0-65535 for port 0, every port
	Protocol     string         // one of Protocols
	Scheduler    string         // one of Schedulers
	Flags        []string       // of the scheduler
	Forward      string         // one of Forwards
	OnePacket    bool           // udp only
	Persistence  *Persistence   // nil: none
	FullNAT      *FullNAT       // nil unless a backend is forwarded to by fullnat, or masquerading has addresses of its own
	Masquerade   Masquerade
	UDPActive    bool           // udp only: connections count as active, so that sed, nq and ovf see them
	HashSeed     uint64         // of sh and mh; 0: the kernel's own constants
	MHTable      int            // slots of mh's table, one of MHTables
	Allow, Deny  []netip.Prefix // networks that may, and may not, open connections; no Allow: all may
	Conntrack    Conntrack      // what holds for this service: its own keys over the global ones
	Check        *Check         // what its backends' checks begin from; nil: they have none
	OnDown       string         // one of OnDowns: what becomes of connections to a server that is down
	Inhibit      bool           // a server that is down stays among the scheduler's, with weight 0
	DrainTimeout time.Duration  // what its backends' begin as
	SlowStart    time.Duration  // 0 to 1 h: how long a server takes to its full weight when it comes up
	Passive      *Passive       // nil: SYNs without an answer count for nothing
	Backends     []Backend      // in the scheduler's order
}

// PortRange is From to To, both included. Port 0 of a service, which stands for every port, is 0-65535.
type PortRange struct{ From, To uint16 }

// Any reports whether the range is port 0: every port.
func (p PortRange) Any() bool { return p.From == 0 && p.To != 0 }

// Single reports whether the range is one port.
func (p PortRange) Single() bool { return p.From == p.To && p.From != 0 }

// overlaps reports whether the ranges share a port.
func (p PortRange) overlaps(o PortRange) bool { return p.From <= o.To && o.From <= p.To }

// Persistence keeps the connections of a client, or of a network of clients, on one backend.
type Persistence struct {
	Place
	Timeout time.Duration // 1 s to 31 days
	Prefix  int           // bits of an IPv4 client that count, 1 to 32
	Prefix6 int           // bits of an IPv6 client that count, 1 to 128
}

// FullNAT is where the source addresses of fullnat connections come from. (address, port) of these is ours alone.
type FullNAT struct {
	Place
	Addresses     []netip.Addr
	Ports         PortRange
	ClientAddress string // one of ClientAddresses: how the server learns of the client
}

// Masquerade is when the source of a nat service's packets is rewritten, too.
type Masquerade struct {
	Mode   string         // one of Masquerades
	Except []netip.Prefix // clients that are not masqueraded; only with Mode "except"
}

// Backend is a real server of a service. Its identity within the service is (Address, Port, VNI).
type Backend struct {
	Place
	Name           string // unique within the service; by default made of the identity
	Address        netip.Addr
	Port           uint16        // 0: the client's destination port
	Weight         int           // 0 (no new connection) to 65535
	UpperThreshold uint32        // connections at which it takes no more; 0: never
	LowerThreshold uint32        // connections below which it does again; 0: three quarters of the upper one
	Forward        string        // one of Forwards
	TunnelPort     uint16        // UDP port of gue, else 0
	TunnelChecksum bool          // gue, gre: the tunnel's own checksum is made
	Backup         bool          // takes new connections only when no other backend does
	VNI            uint32        // segment of vxlan and vxlan-dr, else 0
	Check          *Check        // nil: none
	State          string        // one of States
	DrainTimeout   time.Duration // 0 to 31 days: how long its connections may go on with State "drain"; 0: as long as they like
}

// Serves reports whether the backend can serve vip: a tunnel (ipip, gue, gre) carries either family, all else only the VIP's own.
func (b *Backend) Serves(vip netip.Prefix) bool {
	return carriesBoth(b.Forward) || b.Address.Is4() == vip.Addr().Is4()
}

// VIPText is a VIP as it is written: an address, or a prefix.
func VIPText(vip netip.Prefix) string {
	if vip.IsSingleIP() {
		return vip.Addr().String()
	}
	return vip.String()
}

// Conntrack is how connections are kept. MaxConnections is the global one's alone; in a service it repeats that.
type Conntrack struct {
	Place
	MaxConnections          int // 1024 to 1<<26
	Timeouts                Timeouts
	SloppyTCP               bool
	ConnReuseMode           int // 0 to 3
	ExpireNodestConn        bool
	ExpireQuiescentTemplate bool
	SynCookies              string // one of SynCookies: when TCP clients are asked for a sign of life first
}

// SynCookies are when a service asks.
var SynCookies = []string{"off", "auto", "always"}

// Timeouts are how long a connection is kept in each state, 1 s to 31 days.
type Timeouts struct {
	TCPNone, TCPEstablished, TCPSynSent, TCPSynRecv, TCPFinWait, TCPTimeWait, TCPClose, TCPCloseWait, TCPLastAck, UDP time.Duration
}

// Limits bounds what weir makes by itself.
type Limits struct {
	Place
	Answers Rate // ICMP errors, RSTs and echo replies in all; a tenth of it for one source

	HalfOpenPerSource int  // most half-open connections of a /32 or /64, 0: no limit
	NewPerSource      Rate // of connections that a /32 or /64 opens, 0: no limit

	Unusual Rate // of fragments, of ICMP messages and of packets whose TTL is used up, each, at each worker, 0: no limit
}

// Rate is a number of events a second, 0 to 1000000; the burst is as much.
type Rate struct{ PerSecond int }

// VXLAN is the overlay.
type VXLAN struct {
	Place
	Port        uint16
	SourcePorts PortRange
	UDPChecksum bool
	Segments    []Segment
}

// Segment is all that is configured of one VNI.
type Segment struct {
	Place
	VNI            uint32     // 1 to 1<<24-1
	VTEP           netip.Addr // ours
	Port           uint16     // UDP port of our VTEP, and of peers that have none of their own
	Peers          []Peer
	Group          netip.Addr // floods go there instead of to each peer; invalid: none
	GroupInterface string     // name of the port that the group is on; empty without a group
	Accept         string     // one of Accepts: whose frames are taken
	Access         []Access
	FDB            []FDB
	Learning       bool
	Ageing         time.Duration // 1 s to 31 days
	MaxEntries     int           // 1 to 1<<20
	UDPChecksum    Checksum
	Strict         bool
	KeepTags       bool
	TTL            Inheritable // 1 to 255
	DSCP           Inheritable // 0 to 63
	FloodLimit     Rate        // frames that are for all; 0: no limit
	MSSClamp       string      // one of MSSClamps
	Suppression    bool        // answer ARP and ND in the stead of stations that are known
	Gateway        *Gateway    // nil: none
}

// Peer is one VTEP of other's that floods go to.
type Peer struct {
	Place
	Address     netip.Addr
	Port        uint16 // UDP port it receives on
	UDPChecksum Checksum
}

// Checksum is whether a tunnel's UDP checksums are made. Over IPv6 a missing one is the receiver's to permit (RFC 6935), so only who
// says "no" to it there, and not for the overlay as a whole, gets none.
type Checksum uint8

const (
	ChecksumIPv6  Checksum = iota // over IPv6 alone
	ChecksumMade                  // over both families
	ChecksumNever                 // over neither
)

// Inheritable is a field of the outer header: a number, or what the packet inside has.
type Inheritable struct {
	Value   uint8 // with Inherit that of frames which are not IP
	Inherit bool
}

// Access is a local port of a segment.
type Access struct {
	Place
	Port string
	VLAN uint16 // 0: untagged
}

// FDB is a static entry: the station MAC is behind VTEP.
type FDB struct {
	Place
	MAC  [6]byte
	VTEP netip.Addr
}

// Gateway is our own station in a segment.
type Gateway struct {
	Place
	Addresses []netip.Prefix // one or more, with host bits
	MAC       [6]byte
	Reaches   []Reach // where packets of the segment are routed; none: nowhere
}

// Reach is a segment, or the underlay.
type Reach struct {
	VNI uint32 // 0: the underlay
}

// Underlay reports whether packets of the segment are routed outside, and from there into it.
func (g *Gateway) Underlay() bool { return slices.Contains(g.Reaches, Reach{}) }

// Speaks reports whether the gateway has an address of the family.
func (g *Gateway) Speaks(v4 bool) bool {
	return slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == v4 })
}

// Admin is where the daemon answers.
type Admin struct {
	Place
	Socket    string
	HTTP      netip.AddrPort // invalid: off
	TokenFile string         // empty: HTTP is read-only
	Pprof     bool           // profiles over HTTP
	Hosts     []string       // names that browsers may ask for it by
}

// What enumerated keys may be. The first is the default, except for schedulers.
var (
	Waits           = []string{"adaptive", "busy", "poll", "epoll-level", "epoll-edge", "signal"}
	Drivers         = []string{"af_xdp", "af_packet", "pcap", "mem"}
	XDPModes        = []string{"auto", "zerocopy", "native", "generic"}
	XDPSends        = []string{"ring", "live"}
	Protocols       = []string{"tcp", "udp", "sctp"}
	Schedulers      = []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf", "twos"}
	SchedulerFlags  = []string{"sh-port", "sh-fallback", "mh-port", "mh-fallback"} // those of a scheduler begin with its name
	Forwards        = []string{"nat", "fullnat", "dr", "ipip", "gue", "gre", "vxlan", "vxlan-dr"}
	ClientAddresses = []string{"none", "toa"}
	Masquerades     = []string{"never", "always", "hairpin", "except"} // except is written {except: [...]}
	Accepts         = []string{"peers", "any"}
	MSSClamps       = []string{"true", "false", "all"} // services in a segment, nothing, bridged frames as well
	MHTables        = []int{4093, 251, 509, 1021, 2039, 8191, 16381, 32749, 65521, 131071}
)

// carriesBoth reports whether forward carries packets of one family to a server of the other.
func carriesBoth(forward string) bool {
	return forward == "ipip" || forward == "gue" || forward == "gre"
}

// keepsPort reports whether forward leaves the packet as the client sent it, so that the server sees the VIP's port.
func keepsPort(forward string) bool {
	return forward == "dr" || forward == "vxlan-dr" || carriesBoth(forward)
}

// overlay reports whether forward goes through a VXLAN segment.
func overlay(forward string) bool { return forward == "vxlan" || forward == "vxlan-dr" }

// masquerades reports whether the source of what goes to a backend by forward can be rewritten, too.
func masquerades(forward string) bool { return forward == "nat" || forward == "vxlan" }

// kernelDevice reports whether a driver stands on an interface of the kernel's.
func kernelDevice(driver string) bool { return driver == "af_xdp" || driver == "af_packet" }

// defaults is a configuration of which no key was given.
func defaults() Config {
	return Config{
		Engine: Engine{Wait: "adaptive", StateDir: StateAuto},
		Conntrack: Conntrack{
			MaxConnections: 1 << 20, ConnReuseMode: 1, SynCookies: "auto",
			Timeouts: Timeouts{
				TCPNone: 2 * time.Second, TCPEstablished: 900 * time.Second, TCPSynSent: 120 * time.Second, TCPSynRecv: 60 * time.Second,
				TCPFinWait: 120 * time.Second, TCPTimeWait: 120 * time.Second, TCPClose: 10 * time.Second, TCPCloseWait: 60 * time.Second,
				TCPLastAck: 30 * time.Second, UDP: 300 * time.Second,
			},
		},
		Limits:   Limits{Answers: Rate{PerSecond: 1000}, Unusual: Rate{PerSecond: 200_000}},
		VXLAN:    VXLAN{Port: 4789, SourcePorts: PortRange{49152, 65535}},
		Admin:    Admin{Socket: "/run/weir.sock"},
		BindVIPs: true,
		Grace:    10 * time.Second,
	}
}
