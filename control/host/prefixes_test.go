package host_test

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"weir/control/host"
	"weir/control/host/testnet"
)

const (
	wholeV4  = "203.0.113.0/28"
	wholeV6  = "2001:db8:9::/64"
	linkedV4 = "198.18.0.64/28"      // a part of the port's link
	linkedV6 = "2001:db8:0:0:9::/80" // the same
)

// localRoutes are the routes to whole prefixes that iproute2 sees in the local table, but the kernel's own.
func localRoutes(t *testing.T, s *testnet.Space) (out []string) {
	t.Helper()
	for _, family := range []string{"-4", "-6"} {
		for l := range strings.Lines(ip(t, s, family+" route show table local type local")) {
			if f := strings.Fields(l); strings.Contains(l, "/") && !strings.Contains(l, "proto kernel") {
				out = append(out, strings.Join(f[:6], " ")) // local PREFIX dev lo proto N
			}
		}
	}
	return out
}

// pings says if the peer's echo requests to addr are answered.
func pings(p pair, addr string) bool {
	return p.peer.Command("ping", "-c1", "-W1", addr).Run() == nil
}

// answers waits until addr answers the peer: in IPv6 once the kernel has finished with the link, and on a busy machine after more than the second
// that a ping waits.
func answers(t *testing.T, p pair, addr string) {
	t.Helper()
	eventually(t, addr+" answers the peer", func() bool { return pings(p, addr) })
}

func needPing(t *testing.T, p pair) {
	t.Helper()
	if !pings(p, "198.18.0.1") {
		t.Skip("ping is not installed, or may not")
	}
}

func TestAWholePrefixIsLocal(t *testing.T) {
	p := newPair(t)
	v := newVIPs(t, p, t.TempDir())
	must(t, v.Set(vips(wholeV4, wholeV6, routedV4, "203.0.113.9/32")))
	want := []string{"local 203.0.113.0/28 dev lo proto 87", "local 2001:db8:9::/64 dev lo proto 87"}
	if got := localRoutes(t, p.lb); !slices.Equal(got, want) {
		t.Errorf("local routes %q, want %q", got, want)
	}
	if got := v.Bound(); !slices.Equal(got, []host.Binding{{"lo", vip(wholeV4)}, {"lo", vip(routedV4)}, {"lo", vip(wholeV6)}}) {
		t.Errorf("bound %v", got)
	}
	if sent, refused := v.Announced(); sent > 1 || refused > 0 {
		t.Errorf("%d announcements sent, %d refused; want one at once, for the single address", sent, refused)
	}
	needPing(t, p)
	must(t, p.peer.Route("203.0.113.0/28", "198.18.0.1"))
	must(t, p.peer.Route("2001:db8:9::/64", "2001:db8::1"))
	for _, a := range []string{"203.0.113.0", "203.0.113.7", "203.0.113.15", "2001:db8:9::", "2001:db8:9::7", "2001:db8:9:0:ffff:ffff:ffff:ffff"} {
		answers(t, p, a)
	}
	must(t, v.Set(vips(wholeV6)))
	if got := localRoutes(t, p.lb); !slices.Equal(got, want[1:]) {
		t.Errorf("after Set of one prefix: local routes %q, want %q", got, want[1:])
	}
	must(t, v.Release())
	if got := localRoutes(t, p.lb); len(got) > 0 || pings(p, "203.0.113.7") || pings(p, "2001:db8:9::7") {
		t.Errorf("local routes %q after Release, or an address still answers", got)
	}
}

// What docs/config.md says of a prefix on the link: ARP finds it, ND does not.
func TestNeighborsFindAPrefixOfTheirLinkByARPButNotByND(t *testing.T) {
	p := newPair(t)
	needPing(t, p)
	v := newVIPs(t, p, t.TempDir())
	want := vips(linkedV4, linkedV6)
	must(t, v.Set(want))
	for _, a := range []string{"198.18.0.64", "198.18.0.70", "198.18.0.79"} {
		answers(t, p, a)
		if n := entry(t, p.peer.Host(), a); n.MAC != [6]byte{2, 0, 0, 0, 1, 0xc} {
			t.Errorf("the peer has %s at %x, want the port's MAC", a, n.MAC)
		}
	}
	if pings(p, "2001:db8::9:0:0:7") {
		t.Error("ND is answered: the documents are to be changed")
	}
	must(t, p.peer.Route("2001:db8:0:0:9::/80", "2001:db8::1"))
	answers(t, p, "2001:db8::9:0:0:7") // routed to us, it does
	advice := v.Advise(want)
	if len(advice) != 1 || advice[0].Key != "VIP 2001:db8:0:0:9::/80" || !strings.Contains(advice[0].String(), "link of wan: ND") {
		t.Errorf("advice %v, want one about the IPv6 prefix", advice)
	}
	if advice := v.Advise(vips(wholeV4, wholeV6, onLinkV6)); len(advice) > 0 {
		t.Errorf("advice about prefixes that are routed to us, and one address: %v", advice)
	}
	must(t, v.Release())
}

func TestAPrefixThatWouldCutTheHostOffIsRefused(t *testing.T) {
	p := newPair(t)
	must(t, p.lb.Route("203.0.113.128/25", "198.18.0.2"))
	must(t, p.lb.Route("default", "2001:db8::2"))
	for _, tc := range []struct{ vip, why string }{
		{"198.18.0.0/24", "the whole link of wan, 198.18.0.0/24"},
		{"198.18.0.0/15", "the whole link of wan, 198.18.0.0/24"},
		{"2001:db8::/64", "the whole link of wan, 2001:db8::/64"},
		{"198.18.0.0/28", "198.18.0.2, the next hop of the route to 203.0.113.128/25"},
		{"2001:db8::/120", "2001:db8::2, the next hop of the route to ::/0"},
	} {
		v := newVIPs(t, p, t.TempDir())
		err := v.Set(vips(tc.vip, routedV4, wholeV4))
		if err == nil || !strings.Contains(err.Error(), "VIP "+tc.vip+": ") || !strings.Contains(err.Error(), tc.why) {
			t.Errorf("%s: %v, want %s", tc.vip, err, tc.why)
		}
		if got := localRoutes(t, p.lb); !slices.Equal(got, []string{"local 203.0.113.0/28 dev lo proto 87"}) || !has(t, p.lb, "lo", routedV4) {
			t.Errorf("%s refused: local routes %q, %s on lo: %v; the others should be bound", tc.vip, got, routedV4, has(t, p.lb, "lo", routedV4))
		}
		must(t, v.Release())
	}
}

func TestPrefixesThatWereThereStay(t *testing.T) {
	p := newPair(t)
	ip(t, p.lb, "route add local "+wholeV4+" dev lo")
	ip(t, p.lb, "-6 route add local "+wholeV6+" dev lo")
	ip(t, p.lb, "addr add 203.0.113.65/28 dev lo") // on lo the kernel makes such a route by itself
	before := ip(t, p.lb, "route show table local") + ip(t, p.lb, "-6 route show table local")
	v := newVIPs(t, p, t.TempDir())
	must(t, v.Set(vips(wholeV4, wholeV6, "203.0.113.64/28")))
	if got := v.Bound(); len(got) > 0 {
		t.Errorf("bound %v, where all were there", got)
	}
	must(t, v.Set(vips("203.0.113.64/26"))) // around what is on lo, which is nobody's link
	if got := v.Bound(); !slices.Equal(got, []host.Binding{{"lo", vip("203.0.113.64/26")}}) {
		t.Errorf("bound %v, want the wider prefix", got)
	}
	must(t, v.Release())
	removed, err := p.h.CleanupVIPs(t.TempDir())
	must(t, err)
	if after := ip(t, p.lb, "route show table local") + ip(t, p.lb, "-6 route show table local"); after != before || len(removed) > 0 {
		t.Errorf("cleanup removed %v; before:\n%safter:\n%s", removed, before, after)
	}
}

func TestPrefixesOfAKilledWeirAreTakenOver(t *testing.T) {
	p := newPair(t)
	for _, lost := range []bool{false, true} { // the record, so that the mark alone tells
		dir := t.TempDir()
		must(t, newVIPs(t, p, dir).Set(vips(wholeV4, wholeV6, linkedV4))) // killed: not released
		if lost {
			dir = t.TempDir()
		}
		ip(t, p.lb, "route add local 203.0.113.128/28 dev lo") // the operator's
		next := newVIPs(t, p, dir)
		must(t, next.Set(vips(wholeV4)))
		want := []string{"local 198.18.0.64/28 dev lo proto 87", "local 203.0.113.0/28 dev lo proto 87", "local 2001:db8:9::/64 dev lo proto 87"}
		if !lost { // with the record the next knows that it may take away what nobody wants
			want = want[1:2]
		}
		got := slices.DeleteFunc(localRoutes(t, p.lb), func(s string) bool { return strings.HasPrefix(s, "local 203.0.113.128/28 ") })
		if !slices.Equal(got, want) || !slices.Equal(next.Bound(), []host.Binding{{"lo", vip(wholeV4)}}) {
			t.Errorf("record lost %v: local routes %q, want %q; bound %v", lost, got, want, next.Bound())
		}
		// That one is killed, too, and nobody starts again.
		removed, err := p.h.CleanupVIPs(dir)
		must(t, err)
		if got := localRoutes(t, p.lb); len(removed) != len(want) || len(got) != 1 || !strings.HasPrefix(got[0], "local 203.0.113.128/28 ") {
			t.Errorf("record lost %v: cleanup removed %v and left %q", lost, removed, got)
		}
		if files, _ := os.ReadDir(dir); len(files) > 0 {
			t.Errorf("record lost %v: the state directory holds %v", lost, files)
		}
		ip(t, p.lb, "route del local 203.0.113.128/28 dev lo")
	}
}

func TestAPrefixThatSomebodyDeletedComesBackAndHisOwnStays(t *testing.T) {
	p := newPair(t)
	v := newVIPs(t, p, t.TempDir())
	must(t, v.Set(vips(wholeV4, wholeV6)))
	mirror, err := p.h.NewMirror(p.ports)
	must(t, err)
	had := len(mirror.State().Locals)
	events := watch(t, p.h)
	for i, gone := range []string{wholeV4, wholeV6} {
		family := []string{"", "-6 "}[i]
		ip(t, p.lb, family+"route del local "+gone+" dev lo")
		await(t, events, "the event of "+gone, func(e host.Event) bool {
			mirror.Note(e)
			return e.Change == host.ChangeRoute && e.Gone && e.To == vip(gone)
		})
		// Control binds again when what is local has changed.
		if changed, err := mirror.Refresh(); err != nil || !changed || len(mirror.State().Locals) != had-1-i {
			t.Errorf("%s is gone, and the mirror sees no change: %v, %v", gone, changed, err)
		}
	}
	must(t, v.Set(vips(wholeV4, wholeV6)))
	if got := localRoutes(t, p.lb); len(got) != 2 {
		t.Errorf("local routes %q, want both again", got)
	}
	// Deleted and added by the operator, it is his.
	ip(t, p.lb, "route del local "+wholeV4+" dev lo")
	ip(t, p.lb, "route add local "+wholeV4+" dev lo proto static")
	must(t, v.Set(vips(wholeV4, wholeV6)))
	if got := v.Bound(); !slices.Equal(got, []host.Binding{{"lo", vip(wholeV6)}}) {
		t.Errorf("bound %v, want the IPv6 prefix alone", got)
	}
	must(t, v.Release())
	if got := localRoutes(t, p.lb); !slices.Equal(got, []string{"local 203.0.113.0/28 dev lo proto static"}) {
		t.Errorf("local routes %q after Release, want the operator's", got)
	}
}

func TestLoIsSetUpForPrefixes(t *testing.T) {
	p := newPair(t)
	must(t, p.h.SetUp("lo", false))
	v := newVIPs(t, p, t.TempDir())
	must(t, v.Set(vips(wholeV4, wholeV6)))
	if l, err := p.h.Link("lo"); err != nil || !l.Up {
		t.Errorf("lo up %v, %v", l.Up, err)
	}
	if got := localRoutes(t, p.lb); len(got) != 2 {
		t.Errorf("local routes %q", got)
	}
	must(t, v.Release())
}

// A source of full NAT is bound as a VIP is, and servers find it, though no socket of the host uses it.
func TestFullNATAddressesAreAnsweredFor(t *testing.T) {
	p := newPair(t)
	needPing(t, p)
	const mine, mine6, hosts = "198.18.0.50", "2001:db8::50", "198.18.0.1" // the last is the host's own
	v := newVIPs(t, p, t.TempDir())
	must(t, v.Set(vips(routedV4, mine, mine6, hosts)))
	if got := v.Bound(); !slices.Equal(got, []host.Binding{{"lo", vip(mine)}, {"lo", vip(routedV4)}, {"wan", vip(mine6)}}) {
		t.Errorf("bound %v", got)
	}
	for _, a := range []string{mine, mine6} {
		answers(t, p, a)
		if n := entry(t, p.peer.Host(), a); n.MAC != [6]byte{2, 0, 0, 0, 1, 0xc} {
			t.Errorf("the peer has %s at %x, want the port's MAC", a, n.MAC)
		}
	}
	must(t, v.Release())
	if has(t, p.lb, "lo", mine) || has(t, p.lb, "wan", mine6) || !has(t, p.lb, "wan", hosts) {
		t.Error("after Release: ours is there, or the host's own gone")
	}
}

func TestUnmappedVIPsAreOneWithTheirIPv4(t *testing.T) {
	p := newPair(t)
	v := newVIPs(t, p, t.TempDir())
	mapped := netip.PrefixFrom(netip.MustParseAddr("::ffff:203.0.113.0"), 96+28)
	must(t, v.Set([]netip.Prefix{mapped, vip(wholeV4)}))
	if got := v.Bound(); !slices.Equal(got, []host.Binding{{"lo", vip(wholeV4)}}) {
		t.Errorf("bound %v", got)
	}
	must(t, v.Release())
}
