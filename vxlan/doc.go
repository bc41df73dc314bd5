// Package vxlan carries Ethernet frames over UDP (RFC 7348) and knows which station of which segment is where.
//
// A [Segment] is all that the data path knows of one VNI, a [Tunnel] the outer header to one of its peers, ready but for lengths, ECN and
// checksums:
//
//	in    outer IP | UDP | VXLAN | inner frame   Segments.Decap: who sent it into which segment, Start at the inner frame
//	out   inner frame                            Tunnel.Encap: prepends the rest in the headroom, all but the outer Ethernet header
//
// Three tables are shared by all workers and all segments: [FDB] (segment, MAC -> place), [Neighbors] (segment, address -> MAC) and
// [Strangers], the sources that are no peers. Looking up takes no lock; what is rare, a new station or one that moved, takes a short spin
// lock and is limited per second. All memory is taken when a table is made. A full one refuses, and counts that.
//
// Segments, peers and access ports are indices that control keeps stable from one configuration to the next, so a reload leaves alone
// what was learned of those that stay. Time is handed in, as a [Second] or in nanoseconds.
package vxlan
