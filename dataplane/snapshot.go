package dataplane

import (
	"net/netip"

	"weir/conntrack"
	"weir/dataplane/route"
	"weir/dataplane/sched"
	"weir/dataplane/steer"
)

// Snapshot is all that workers know of the configuration, the health of servers, routes and neighbours at one moment. Control builds
// it, publishes it by one pointer swap and never changes it again; a worker loads it once per vector, so no vector sees two.
type Snapshot struct {
	// read for every packet
	Ports     []Port    // by port index
	Backends  []Backend // by backend ID; IDs are stable from snapshot to snapshot, unused ones are zero
	Routes    *route.Table
	Neighbors *route.Neighbors

	// read for new connections and oddities
	Services *Services
	Steer    *steer.Compiled         // what the XDP program knows, for ports without one
	Local    map[netip.Addr]struct{} // the host's own addresses, VIPs aside; used where we answer in the host's place
	Answers  Rate

	HalfOpenPerSource int                  // most half-open connections of one source, 0: no limit
	NewPerSource      Rate                 // of connections that one source opens; zero: no limit
	Overlay           *Overlay             // nil: no segments
	Paths             map[netip.Addr]*Path // to the servers behind tunnels, for errors from their ways

	Unusual Rate // of each kind of unusual packets at each worker; zero: no limit

	leastMTU     uint16 // written by Publish, see least
	unusualEvery int64  // written by Publish: nanoseconds that such a packet takes up, 0: no limit

	// read by control
	Generation uint64
}

// Port is what the stages know of a network device, or of one VLAN on it.
type Port struct {
	Name string
	MAC  [6]byte
	VLAN uint16 // identifier of the tag its traffic bears, 0: none

	// Device is the index of the port whose queues move this one's frames: itself, or the first of those that share a device by VLAN.
	Device int
	Shared bool // other ports share the device
	MTU    int  // of the IP packet, in bytes

	// Filtered says that a steering program stands in front, so that only what is ours arrives. Otherwise steer asks the same
	// questions in software.
	Filtered  bool
	Addresses []netip.Prefix
}

// Backend is a real server of one service. Its identity within the service is (address, port, segment), and its ID stands for both.
type Backend struct {
	// read for every packet
	Timeouts  *conntrack.Timeouts // of its service
	Load      *sched.Load         // its connection counts, the same in every snapshot
	Live      bool                // its connections go on; otherwise it was removed, or is down, and only old ones bear the ID
	V6        bool
	Forward   Forward
	Port      uint16 // 0: the client's destination port
	Addr      conntrack.Addr
	Upper     uint32 // connection thresholds, 0: none
	Lower     uint32
	ExpireNow bool   // expire_nodest_conn of its service: connections end with the server instead of falling silent
	Weight    int32  // as configured, or 0 while it takes no new connections
	ReuseMode uint32 // conn_reuse_mode of its service

	VNI uint32 // of the segment that Addr is in, 0: none

	// of tunnels
	TunnelPort uint16 // of GUE
	TunnelSum  bool   // make GUE's or GRE's checksum
	Path       *Path  // to Addr; not nil where Forward is a tunnel, or was one of a connection that is still there

	UDPActive bool // udp_active of its service: its UDP connections count as active
	Backup    bool // takes new connections only when no other server of the service does
	Down      bool // by its health: no template leads to it, and a SYN on a connection to it goes to another

	Sources *Sources // of NAT: where the source is rewritten, too; nil: it never is
}

// Service is a virtual service: one (protocol, VIP, port or port range), in a segment or outside.
type Service struct {
	Name     string
	Protocol uint8
	VIP      netip.Prefix // one address, or all of a network
	VNI      uint32       // of the segment that the VIP, then one address, lives in; 0: none
	Port     uint16
	PortTo   uint16       // equal to Port unless a range; 0-65535 for port 0
	Plan     *sched.Plan  // immutable, of this snapshot
	State    *sched.State // cursor, shared by all snapshots
	Dests    []uint32     // backend ID of each of the plan's destinations

	Backup      *sched.Plan // of the servers that serve when the plan finds none; nil: there are none
	BackupState *sched.State
	BackupDests []uint32

	Persistence *Persistence // nil: none
	OnePacket   bool         // UDP: every packet is scheduled anew
	Allow, Deny *route.Table // networks that may, or may not, open connections; nil: all may, none is denied
	SloppyTCP   bool         // any TCP segment but a RST opens a connection, not only a SYN
	Cookies     Cookies      // when clients are asked for a sign of life before a connection is opened
	Challenge   bool         // they are asked by a challenge: the answers of some server pass us by
}

// admits reports whether a client at addr may open a connection: it is in none of the denied networks, and in one of the allowed if any are
// named.
func (s *Service) admits(addr conntrack.Addr, v6 bool) bool {
	return (s.Deny == nil || !covers(s.Deny, addr, v6)) && (s.Allow == nil || covers(s.Allow, addr, v6))
}

// Rate is a limit of events, in events a second; the burst is one second's worth. Zero refuses everything.
type Rate struct {
	PerSecond int
}

// Every is how many nanoseconds each takes up, 0 if the rate is.
func (r Rate) Every() int64 {
	if r.PerSecond <= 0 {
		return 0
	}
	return max(1_000_000_000/int64(r.PerSecond), 1)
}
