package judge

import (
	"net/netip"

	"weir/dataplane/packet/pkttest"
)

// complaint is an ICMP error about the latest packet of the flow that came out on that side.
func (w *world) complaint(o *Op, f *flowState) [][]byte {
	about := f.last[o.Side]
	if about == nil {
		return nil
	}
	h, err := headersOf(about)
	if err != nil || h.dst.Is6() != f.vip.Addr().Is6() { // types and codes are the family's
		return nil
	}
	if h.src == balancer4 && w.twofold[h.dst] {
		return nil
	}
	if h.src == balancer6 {
		return nil // about a tunnel over IPv6: the kernel leaves such errors to a tunnel device, weir takes them (docs/ipvs.md)
	}
	from := h.dst
	if o.Router {
		from = routers[o.Side][0]
		if h.dst.Is6() {
			from = routers[o.Side][1]
		}
	}
	n := len(about)
	if o.Quote > 0 {
		n = min(n, len(about)-len(h.payload)+o.Quote)
	}
	w.id++
	ip := pkttest.ICMPError(from, h.src, uint8(o.Type), uint8(o.Code), uint32(o.MTU), about[:min(n, 1232)]).ID(w.id).Bytes()
	return [][]byte{spoil(ip, o.Spoil)}
}

// Where the balancer's tunnels begin.
var (
	balancer4 = netip.MustParseAddr("198.18.1.1")
	balancer6 = netip.MustParseAddr("2001:db8:1::1")
)

// routers complain in the name of neither end.
var routers = [2][2]netip.Addr{
	{netip.MustParseAddr("198.18.200.1"), netip.MustParseAddr("2001:db8:c::ffff")},
	{netip.MustParseAddr("198.18.1.19"), netip.MustParseAddr("2001:db8:1::19")},
}

// twofold are the servers at the end of tunnels of two kinds, at any time. Of IPIP and GRE the kernel knows only the one that came last, and
// ignores errors about the other (ip_vs_find_tunnel); and what it learned of the way's MTU by one kind it may not know for the other, whose
// route it has kept. weir knows the packet, and one way to a server (docs/ipvs.md).
func (s *Script) twofold() map[netip.Addr]bool {
	tunnels := map[string]bool{"ipip": true, "gre": true, "gue": true}
	by := map[string]string{}
	both := map[netip.Addr]bool{}
	see := func(b *Backend) {
		if !tunnels[b.Forward] {
			return
		}
		if was := by[b.Address]; was != "" && was != b.Forward {
			if a, err := netip.ParseAddr(b.Address); err == nil {
				both[a] = true
			}
		}
		by[b.Address] = b.Forward
	}
	services := s.Services
	for i := range s.Ops {
		if e := s.Ops[i].Edit; e != nil && e.AddService != nil {
			services = append(services[:len(services):len(services)], *e.AddService)
		} else if e != nil && e.AddBackendFirst != nil {
			see(e.AddBackendFirst)
		} else if e != nil && e.EditBackend != nil {
			see(e.EditBackend)
		}
	}
	for i := range services {
		for j := range services[i].Backends {
			see(&services[i].Backends[j])
		}
	}
	return both
}
