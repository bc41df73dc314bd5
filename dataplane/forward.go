package dataplane

import (
	"sync/atomic"

	"weir/conntrack"
	"weir/dataplane/packet"
)

// Forward is how packets reach a backend.
type Forward uint8

const (
	ForwardNAT     Forward = iota // addresses and ports are rewritten, and answers come back through us; fullnat is NAT with the source rewritten, too
	ForwardDR                     // the packet as it is, to the server's MAC address
	ForwardIPIP                   // the packet in an IP packet to the server (RFC 2003, RFC 2473, RFC 4213)
	ForwardGUE                    // the same in a UDP datagram (draft-ietf-intarea-gue)
	ForwardGRE                    // the same behind a GRE header (RFC 2784)
	ForwardVXLANDR                // the packet as it is, to the server's MAC address in its segment; NAT into a segment is ForwardNAT
	forwards
)

var forwardNames = [forwards]string{"nat", "dr", "ipip", "gue", "gre", "vxlan-dr"}

// String is the forward's name in the configuration.
func (f Forward) String() string {
	if f < forwards {
		return forwardNames[f]
	}
	return "unknown"
}

// tunnels reports whether packets get an outer header.
func (f Forward) tunnels() bool { return f >= ForwardIPIP && f <= ForwardGRE }

// connFlags are how a connection goes on, decided when it was opened and kept in its entry: a reload changes it for new ones only.
//
//	31          16 15       6    5       4      3       2   0
//	| tunnel port |          | sum | toa  | udpActive | forward |
type connFlags uint32

const (
	flagForward   connFlags = 7
	flagUDPActive connFlags = 1 << 3 // its UDP state counts as active
	flagTOA       connFlags = 1 << 4 // the client's address goes along as a TCP option
	flagTunnelSum connFlags = 1 << 5 // the tunnel's own checksum is made
	flagSpliced   connFlags = 1 << 6 // of lanes alone: it has two halves, both of which have spoken: see splice.go

	tunnelPortShift = 16
)

func (c connFlags) forward() Forward   { return Forward(c & flagForward) }
func (c connFlags) tunnelPort() uint16 { return uint16(c >> tunnelPortShift) }

// flagsOf are those of a new connection to b.
func flagsOf(b *Backend) connFlags {
	c := connFlags(b.Forward) | connFlags(b.TunnelPort)<<tunnelPortShift
	if b.UDPActive {
		c |= flagUDPActive
	}
	if b.TunnelSum {
		c |= flagTunnelSum
	}
	return c
}

// active reports whether a connection in state s counts as active for the schedulers.
func (c connFlags) active(s conntrack.State) bool {
	return s.Active() || s == conntrack.UDP && c&flagUDPActive != 0
}

// Lengths in bytes of what a tunnel puts in front.
const (
	ipv4Len = 20
	ipv6Len = 40
	udpLen  = 8
	gueLen  = 4
	greLen  = 4
	greSum  = 4 // checksum and reserved field
)

// overhead is how many bytes the outer headers of a tunnel to a server of the given family take.
func (c connFlags) overhead(v6 bool) int {
	n := ipv4Len
	if v6 {
		n = ipv6Len
	}
	switch c.forward() {
	case ForwardIPIP:
		return n
	case ForwardGUE:
		return n + udpLen + gueLen
	case ForwardGRE:
		if c&flagTunnelSum != 0 {
			n += greSum
		}
		return n + greLen
	}
	return 0
}

// protocol is what the outer IP header says of what follows, for a packet of the given family.
func (c connFlags) protocol(innerV6 bool) uint8 {
	switch {
	case c.forward() == ForwardGUE:
		return packet.ProtoUDP
	case c.forward() == ForwardGRE:
		return packet.ProtoGRE
	case innerV6:
		return packet.ProtoIPv6
	}
	return packet.ProtoIPIP
}

// Path is what has been learned of the way to one server's address: its MTU, when a router between said that an outer packet was too
// big (RFC 1191, RFC 8201). All backends with the address share it, and all snapshots. Its zero value knows nothing.
type Path struct {
	word atomic.Uint64 // MTU in bits 15-0, coarse time until which it holds above
}

const (
	pathTime  = 600_000_000_000 // nanoseconds that a learned MTU holds, Linux' mtu_expires
	pathShift = 20              // of nanoseconds, so that they leave room for an MTU: milliseconds

	minPath4 = 552 // Linux' min_pmtu: less is somebody's forgery or of no use
	minPath6 = 1280
)

// learn notes that the way takes packets of mtu bytes at most. What is known to take less is not believed to take more: an error only ever
// lowers (RFC 8201 4).
func (p *Path) learn(mtu int, v6 bool, now int64) {
	least := minPath4
	if v6 {
		least = minPath6
	}
	if mtu = max(mtu, least); mtu > p.mtu(now) {
		return
	}
	p.word.Store(uint64((now+pathTime)>>pathShift)<<16 | uint64(mtu))
}

// mtu is the learned one in bytes, or 0xffff. Of nil it is that, too: another worker with the snapshot before may have made a connection
// through a tunnel to a server that has none in this one.
func (p *Path) mtu(now int64) int {
	if p == nil {
		return 0xffff
	}
	x := p.word.Load()
	if x == 0 || uint64(now>>pathShift) >= x>>16 {
		return 0xffff
	}
	return int(x & 0xffff)
}
