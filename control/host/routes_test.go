package host_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weir/control/host"
	"weir/dataplane/route"
)

func TestRoutesOfTheMainTable(t *testing.T) {
	p := newPair(t)
	must(t, p.net.Veth(end(p.lb, "lan"), end(p.peer, "eth1")))
	must(t, p.net.Veth(end(p.lb, "mgmt"), end(p.peer, "eth2")))
	must(t, p.lb.Address("lan", "198.18.1.1/24", "2001:db8:1::1/64"))
	must(t, p.lb.Address("mgmt", "198.18.2.1/24"))
	ports := []host.Port{{Interface: "wan"}, {Interface: "lan"}} // mgmt is the kernel's alone

	gw := netip.MustParseAddr
	for _, tc := range []struct {
		name string
		ip   []string
		to   string
		want []route.Route // in the order of the kernel; To is filled in
	}{
		{name: "one gateway", ip: []string{"route add 203.0.113.0/25 via 198.18.0.2"}, to: "203.0.113.0/25",
			want: []route.Route{{Kind: route.Unicast, Hops: []route.Hop{{Via: gw("198.18.0.2"), Port: 0, Weight: 1, MTU: 1500}}}}},
		{name: "the default route with a metric and an MTU", ip: []string{"route add default via 198.18.1.2 metric 100 mtu 1400"}, to: "0.0.0.0/0",
			want: []route.Route{{Kind: route.Unicast, Metric: 100, Hops: []route.Hop{{Via: gw("198.18.1.2"), Port: 1, Weight: 1, MTU: 1400}}}}},
		{name: "on-link, as addresses make it", to: "198.18.1.0/24",
			want: []route.Route{{Kind: route.Unicast, Hops: []route.Hop{{Port: 1, Weight: 1, MTU: 1500}}}}},
		{name: "a gateway off the link (onlink)", ip: []string{"route add 203.0.113.128/26 via 192.0.2.77 dev lan onlink"}, to: "203.0.113.128/26",
			want: []route.Route{{Kind: route.Unicast, Hops: []route.Hop{{Via: gw("192.0.2.77"), Port: 1, Weight: 1, MTU: 1500}}}}},
		{name: "ECMP with weights", ip: []string{"route add 203.0.113.192/26 nexthop via 198.18.0.2 weight 3 nexthop via 198.18.1.2 weight 1"}, to: "203.0.113.192/26",
			want: []route.Route{{Kind: route.Unicast, Hops: []route.Hop{
				{Via: gw("198.18.0.2"), Port: 0, Weight: 3, MTU: 1500}, {Via: gw("198.18.1.2"), Port: 1, Weight: 1, MTU: 1500}}}}},
		{name: "ECMP of next hop objects", ip: []string{"nexthop add id 1 via 198.18.0.2 dev wan", "nexthop add id 2 via 198.18.1.2 dev lan",
			"nexthop add id 10 group 1,5/2,2", "route add 192.0.2.0/25 nhid 10"}, to: "192.0.2.0/25",
			want: []route.Route{{Kind: route.Unicast, Hops: []route.Hop{
				{Via: gw("198.18.0.2"), Port: 0, Weight: 5, MTU: 1500}, {Via: gw("198.18.1.2"), Port: 1, Weight: 2, MTU: 1500}}}}},
		{name: "a device that is no port", ip: []string{"route add 192.0.2.128/25 via 198.18.2.2"}, to: "192.0.2.128/25",
			want: []route.Route{{Kind: route.Unicast, Hops: []route.Hop{{Via: gw("198.18.2.2"), Port: -1, Weight: 1, MTU: 1500}}}}},
		{name: "an IPv6 gateway for IPv4", ip: []string{"route add 198.18.64.0/18 via inet6 2001:db8::2 dev wan"}, to: "198.18.64.0/18",
			want: []route.Route{{Kind: route.Unicast, Hops: []route.Hop{{Via: gw("2001:db8::2"), Port: 0, Weight: 1, MTU: 1500}}}}},
		{name: "two routes that differ by metric", ip: []string{"route add 198.18.128.0/18 via 198.18.0.2 metric 20", "route add 198.18.128.0/18 via 198.18.1.2 metric 10"}, to: "198.18.128.0/18",
			want: []route.Route{
				{Kind: route.Unicast, Metric: 10, Hops: []route.Hop{{Via: gw("198.18.1.2"), Port: 1, Weight: 1, MTU: 1500}}},
				{Kind: route.Unicast, Metric: 20, Hops: []route.Hop{{Via: gw("198.18.0.2"), Port: 0, Weight: 1, MTU: 1500}}}}},
		{name: "blackhole", ip: []string{"route add blackhole 198.19.1.0/24"}, to: "198.19.1.0/24", want: []route.Route{{Kind: route.Blackhole}}},
		{name: "unreachable", ip: []string{"route add unreachable 198.19.2.0/24"}, to: "198.19.2.0/24", want: []route.Route{{Kind: route.Unreachable}}},
		{name: "prohibit", ip: []string{"route add prohibit 198.19.3.0/24"}, to: "198.19.3.0/24", want: []route.Route{{Kind: route.Prohibit}}},
		{name: "a TOS of its own is left out", ip: []string{"route add 198.19.4.0/24 tos 0x10 via 198.18.0.2"}, to: "198.19.4.0/24"},
		{name: "another table is left out", ip: []string{"route add 198.19.5.0/24 via 198.18.0.2 table 1000"}, to: "198.19.5.0/24"},
		{name: "IPv6 with one gateway", ip: []string{"-6 route add 2001:db8:20::/48 via 2001:db8::2"}, to: "2001:db8:20::/48",
			want: []route.Route{{Kind: route.Unicast, Metric: 1024, Hops: []route.Hop{{Via: gw("2001:db8::2"), Port: 0, Weight: 1, MTU: 1500}}}}},
		{name: "IPv6 ECMP", ip: []string{"-6 route add 2001:db8:21::/48 nexthop via 2001:db8::2 weight 2 nexthop via 2001:db8:1::2"}, to: "2001:db8:21::/48",
			want: []route.Route{{Kind: route.Unicast, Metric: 1024, Hops: []route.Hop{
				{Via: gw("2001:db8::2"), Port: 0, Weight: 2, MTU: 1500}, {Via: gw("2001:db8:1::2"), Port: 1, Weight: 1, MTU: 1500}}}}},
		{name: "IPv6 ECMP, one hop added later", ip: []string{"-6 route add 2001:db8:22::/48 via 2001:db8::2", "-6 route append 2001:db8:22::/48 via 2001:db8:1::2"}, to: "2001:db8:22::/48",
			want: []route.Route{{Kind: route.Unicast, Metric: 1024, Hops: []route.Hop{
				{Via: gw("2001:db8::2"), Port: 0, Weight: 1, MTU: 1500}, {Via: gw("2001:db8:1::2"), Port: 1, Weight: 1, MTU: 1500}}}}},
		{name: "IPv6 default", ip: []string{"-6 route add default via 2001:db8::2"}, to: "::/0",
			want: []route.Route{{Kind: route.Unicast, Metric: 1024, Hops: []route.Hop{{Via: gw("2001:db8::2"), Port: 0, Weight: 1, MTU: 1500}}}}},
		{name: "IPv6 unreachable", ip: []string{"-6 route add unreachable 2001:db8:23::/48"}, to: "2001:db8:23::/48", want: []route.Route{{Kind: route.Unreachable, Metric: 1024}}},
		{name: "link-local is left out", to: "fe80::/64"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, line := range tc.ip {
				ip(t, p.lb, line)
			}
			for i := range tc.want {
				tc.want[i].To = netip.MustParsePrefix(tc.to)
			}
			expect := func() {
				t.Helper()
				if diff := cmp.Diff(tc.want, routesTo(t, p.h, ports, tc.to), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
					t.Errorf("routes to %s (-want +got):\n%s", tc.to, diff)
				}
			}
			expect()
		})
	}
}

// With nexthop_compat_mode=0 the kernel tells the number of a next hop object, and not what it is.
func TestNextHopObjectsWithoutCompatibility(t *testing.T) {
	p := newPair(t)
	if p.lb.Sysctl("net/ipv4/nexthop_compat_mode", "0") != nil {
		t.Skip("the kernel has no net.ipv4.nexthop_compat_mode (before 5.8)")
	}
	gw := netip.MustParseAddr
	for _, line := range []string{"nexthop add id 1 via 198.18.0.2 dev wan", "nexthop add id 2 via 198.18.0.3 dev wan", "nexthop add id 3 blackhole",
		"nexthop add id 10 group 1,255/2", "nexthop add id 4 via 2001:db8::2 dev wan",
		"route add 203.0.113.0/25 nhid 1", "route add 203.0.113.128/25 nhid 10", "route add 192.0.2.0/24 nhid 3", "-6 route add 2001:db8:20::/48 nhid 4"} {
		ip(t, p.lb, line)
	}
	for to, want := range map[string][]route.Route{
		"203.0.113.0/25": {{Kind: route.Unicast, Hops: []route.Hop{{Via: gw("198.18.0.2"), Weight: 1, MTU: 1500}}}},
		"203.0.113.128/25": {{Kind: route.Unicast, Hops: []route.Hop{
			{Via: gw("198.18.0.2"), Weight: 255, MTU: 1500}, {Via: gw("198.18.0.3"), Weight: 1, MTU: 1500}}}},
		"192.0.2.0/24":     {{Kind: route.Blackhole}},
		"2001:db8:20::/48": {{Kind: route.Unicast, Metric: 1024, Hops: []route.Hop{{Via: gw("2001:db8::2"), Weight: 1, MTU: 1500}}}},
	} {
		want[0].To = netip.MustParsePrefix(to)
		if diff := cmp.Diff(want, routesTo(t, p.h, p.ports, to), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
			t.Errorf("routes to %s (-want +got):\n%s", to, diff)
		}
	}
}

func TestHopsWithoutCarrierGoWhenTheKernelDropsThem(t *testing.T) {
	p := newPair(t)
	ip(t, p.lb, "route add 203.0.113.0/24 via 198.18.0.2")
	must(t, p.lb.Sysctl("net/ipv4/conf/wan/ignore_routes_with_linkdown", "1"))
	must(t, p.peer.Host().SetUp("eth0", false))
	eventually(t, "the route is gone without carrier", func() bool { return len(routesTo(t, p.h, p.ports, "203.0.113.0/24")) == 0 })
	must(t, p.lb.Sysctl("net/ipv4/conf/wan/ignore_routes_with_linkdown", "0"))
	if got := routesTo(t, p.h, p.ports, "203.0.113.0/24"); len(got) != 1 {
		t.Errorf("the kernel still uses the route, we have %v", got)
	}
}

func TestLocalsAreTheHostsOwn(t *testing.T) {
	p := newPair(t)
	ip(t, p.lb, "route add local 203.0.113.0/28 dev lo") // "any IP"
	got, err := p.h.Locals()
	must(t, err)
	for _, want := range []string{"198.18.0.1/32", "2001:db8::1/128", "127.0.0.0/8", "203.0.113.0/28", "::1/128"} {
		if !slices.Contains(got, netip.MustParsePrefix(want)) {
			t.Errorf("%s is not among the local ones %v", want, got)
		}
	}
	for _, p := range got {
		if p.Addr().IsMulticast() || p == netip.MustParsePrefix("198.18.0.255/32") {
			t.Errorf("%s is a group's or the broadcast's", p)
		}
	}
}

func routesTo(t *testing.T, h *host.Host, config []host.Port, to string) (out []route.Route) {
	t.Helper()
	links, err := h.Links()
	must(t, err)
	ports, err := host.MapPorts(links, config)
	must(t, err)
	all, err := h.Routes(ports)
	must(t, err)
	for _, r := range all {
		if r.To == netip.MustParsePrefix(to) {
			out = append(out, r)
		}
	}
	return out
}
