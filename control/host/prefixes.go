package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weir/dataplane/route"
)

// A VIP that is a whole prefix is `ip route add local PREFIX dev lo proto 87` (the kernel's "anyip"): every address of it is local, none
// needs to be bound. What follows from it, as seen on Linux 6.18 from a neighbour on the link:
//
//	IPv4  ARP is answered for each address of the prefix, the first and the last included: arp_process() asks the routing table
//	IPv6  ND is not answered, as ndisc_recv_ns() asks for addresses of the device: the prefix must be routed to us
//
// It also follows that the host takes for itself whoever else has an address in the prefix. That is refused for neighbours without
// which the host is cut off: a port's whole link, and the next hops of routes.

// holding is something on the host that may be a VIP: an address of a device, or a local route to a whole prefix.
type holding struct {
	Binding
	ifindex  int
	protocol uint8 // who made it (IFA_PROTO, RTPROT_*)
	alone    bool  // it is as we would make it; otherwise an address that came with the prefix of its link
}

// holdings are all of them in the namespace, on links that have these addresses.
func (h *Host) holdings(links []Link, addresses []Address) (all []holding, err error) {
	name := make(map[int]string, len(links))
	for _, l := range links {
		name[l.Index] = l.Name
	}
	for _, a := range addresses {
		all = append(all, holding{bindingOf(name[a.Ifindex], a.Prefix.Addr()), a.Ifindex, a.Protocol, a.Prefix.IsSingleIP()})
	}
	var routes []holding
	err = h.dumpTable(unix.RT_TABLE_LOCAL, func() { routes = nil }, func(r kernelRoute) {
		if r.typ == unix.RTN_LOCAL && !r.to.IsSingleIP() && len(r.hops) == 1 {
			at := r.hops[0].ifindex
			routes = append(routes, holding{Binding{name[at], r.to}, at, r.protocol, true})
		}
	})
	return append(all, routes...), err
}

// harmless leaves out the whole prefixes that would cut the host off, and says why.
func (h *Host) harmless(missing []Binding, addresses []Address, links []Link, m PortMap) (ok []Binding, errs []error) {
	if !slices.ContainsFunc(missing, func(b Binding) bool { return !b.Prefix.IsSingleIP() }) {
		return missing, nil
	}
	routes, err := h.routes(m, nil)
	for _, b := range missing {
		if b.Prefix.IsSingleIP() {
			ok = append(ok, b)
			continue
		}
		err := err
		if err == nil {
			err = shadows(b.Prefix, addresses, links, routes)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("VIP %s: %w", b.Prefix, err))
			continue
		}
		ok = append(ok, b)
	}
	return ok, errs
}

var errShadows = errors.New("the host would take its neighbours there for itself")

// shadows says what the host cannot do without lies in p.
func shadows(p netip.Prefix, addresses []Address, links []Link, routes []route.Route) error {
	for _, a := range addresses {
		i := slices.IndexFunc(links, func(l Link) bool { return l.Index == a.Ifindex })
		if i >= 0 && links[i].Name != "lo" && !a.Prefix.IsSingleIP() && p.Bits() <= a.Prefix.Bits() && p.Contains(a.Prefix.Addr()) {
			return fmt.Errorf("holds the whole link of %s, %s: %w", links[i].Name, a.Prefix.Masked(), errShadows)
		}
	}
	for _, r := range routes {
		for _, hop := range r.Hops {
			if hop.Via.IsValid() && p.Contains(hop.Via) {
				return fmt.Errorf("holds %s, the next hop of the route to %s: %w", hop.Via, r.To, errShadows)
			}
		}
	}
	return nil
}

// Advise names the prefixes of want that neighbours of ours will not find by themselves, as the kernel answers no ND for them.
func (v *VIPs) Advise(want []netip.Prefix) (out []Advice) {
	links, err := v.h.Links()
	if err != nil {
		return nil
	}
	m := mapPorts(links, v.ports)
	for _, p := range want {
		if p.IsSingleIP() || p.Addr().Is4() {
			continue
		}
		for _, l := range links {
			on := slices.ContainsFunc(l.Addresses, func(a netip.Prefix) bool { return !a.IsSingleIP() && a.Overlaps(p) })
			if m.Port(l.Index) >= 0 && on {
				out = append(out, Advice{Key: "VIP " + p.String(), Value: "on the link of " + l.Name,
					Why: "ND is answered for single addresses alone, so the link's neighbours need a route to it by an address of this host"})
			}
		}
	}
	return out
}

// addLocalRoute makes every address of p the host's own. It reports EEXIST if there is such a route.
func (h *Host) addLocalRoute(ifindex int, p netip.Prefix) error {
	return h.request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, nil, localRoute(ifindex, p)...)
}

// deleteLocalRoute deletes the route if it is ours: the kernel compares the protocol.
func (h *Host) deleteLocalRoute(ifindex int, p netip.Prefix) error {
	return h.request(unix.RTM_DELROUTE, unix.NLM_F_ACK, nil, localRoute(ifindex, p)...)
}

// localRoute is a struct rtmsg with its attributes. The table is the kernel's own, which is asked before all others.
func localRoute(ifindex int, p netip.Prefix) []nl.NetlinkRequestData {
	header := raw{familyOf(p.Addr()), uint8(p.Bits()), 0, 0, unix.RT_TABLE_LOCAL, Protocol, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0}
	return []nl.NetlinkRequestData{header, nl.NewRtAttr(unix.RTA_DST, p.Addr().AsSlice()), nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(ifindex)))}
}
