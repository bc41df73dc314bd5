// Package route finds the next hop of a packet: the longest matching prefix, one of its hops by the flow's hash, the hop's MAC address.
//
// Control builds a [Table] and [Neighbors] from what the kernel has and publishes them in a snapshot; workers read them without a lock.
// Both are immutable, so a change means a new one: a microsecond or two for each prefix. Nothing on the packet's way allocates or fails; what
// is not there is nil.
package route

import (
	"cmp"
	"net/netip"
	"slices"
)

// Kind says what a route does with a packet.
type Kind uint8

const (
	Unicast     Kind = iota // sends it to one of the hops
	Local                   // delivers it to this host
	Blackhole               // drops it in silence
	Unreachable             // drops it: host unreachable
	Prohibit                // drops it: communication administratively prohibited
)

var kindNames = [...]string{"unicast", "local", "blackhole", "unreachable", "prohibit"}

// String is the name that ip-route(8) has for k.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Hop is where a packet goes next.
type Hop struct {
	Via    netip.Addr // the router; invalid: the destination itself is on the link
	Port   int        // index of weir's port; -1: a device that is none of ours
	Weight int        // share of the flows relative to the route's other hops; below 1 counts as 1
	MTU    int        // in bytes; 0: the port's
}

// Route is what control knows of a prefix. Several hops share its flows (ECMP).
type Route struct {
	To     netip.Prefix
	Kind   Kind
	Hops   []Hop // of a Unicast route, else without meaning
	Metric int   // of two routes to one prefix the lower one counts
}

// Entry is a route of a Table.
type Entry struct {
	Kind Kind

	hops   []Hop
	bounds []uint32 // by hop: the highest of the 2^31 hash values that are its

	// read by control
	to     netip.Prefix
	metric int
}

// To is the prefix of e, without host bits.
func (e *Entry) To() netip.Prefix { return e.to }

// Metric is the metric that e had among the routes to its prefix.
func (e *Entry) Metric() int { return e.metric }

// Hops are all hops of e. They are the table's: not to be written.
func (e *Entry) Hops() []Hop { return e.hops }

// entriesOf sorts routes by prefix, address before length, and keeps the best of each: that of the lowest metric, of equals the first. An
// IPv4 prefix mapped into IPv6 becomes IPv4; an invalid prefix is left out.
func entriesOf(routes []Route) (v4, v6 []Entry) {
	for _, r := range routes {
		if !r.To.IsValid() {
			continue
		}
		e := Entry{Kind: r.Kind, to: unmap(r.To).Masked(), metric: r.Metric}
		if r.Kind == Unicast {
			e.hops = slices.Clone(r.Hops)
			e.bounds = boundsOf(e.hops)
		}
		if e.to.Addr().Is4() {
			v4 = append(v4, e)
		} else {
			v6 = append(v6, e)
		}
	}
	return best(v4), best(v6)
}

func unmap(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

func best(all []Entry) []Entry {
	slices.SortStableFunc(all, func(a, b Entry) int {
		return cmp.Or(a.to.Addr().Compare(b.to.Addr()), cmp.Compare(a.to.Bits(), b.to.Bits()), cmp.Compare(a.metric, b.metric))
	})
	return slices.CompactFunc(all, func(a, b Entry) bool { return a.to == b.to })
}
