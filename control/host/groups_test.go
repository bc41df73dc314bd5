package host_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"weir/control/host"
)

// TestGroups joins more groups than one socket may (net.ipv4.igmp_max_memberships, 20) and leaves them, as iproute2 sees it.
func TestGroups(t *testing.T) {
	p := newPair(t)
	g := p.h.NewGroups()
	var all []host.Membership
	for i := range 25 {
		all = append(all, host.Membership{Ifindex: p.wan, Group: netip.MustParseAddr(fmt.Sprintf("239.1.1.%d", i+1))})
	}
	v6 := host.Membership{Ifindex: p.wan, Group: netip.MustParseAddr("ff05::1:77")}
	all = append(all, v6)
	member := func(m host.Membership) bool {
		return strings.Contains(ip(t, p.lb, "maddr show dev wan")+"\n", " "+m.Group.String()+"\n")
	}
	check := func(what string, in ...host.Membership) {
		t.Helper()
		want := map[host.Membership]bool{}
		for _, m := range in {
			want[m] = true
		}
		for _, m := range all {
			if member(m) != want[m] {
				t.Errorf("%s: %v: the kernel is a member: %v, want %v", what, m, !want[m], want[m])
			}
		}
		if len(g.Joined()) != len(in) {
			t.Errorf("%s: %d memberships, want %d", what, len(g.Joined()), len(in))
		}
	}
	check("at first")
	must(t, g.Set(all))
	check("all", all...)
	must(t, g.Set(all))
	check("again", all...)
	must(t, g.Set([]host.Membership{all[3], v6}))
	check("two of them", all[3], v6)
	err := g.Set([]host.Membership{all[3], {Ifindex: 9999, Group: all[0].Group}, v6})
	if err == nil || !strings.Contains(err.Error(), "239.1.1.1 on device 9999") {
		t.Errorf("a device that is not there: %v", err)
	}
	check("with a device that is not there", all[3], v6)
	must(t, g.Close())
	check("after all")
}
