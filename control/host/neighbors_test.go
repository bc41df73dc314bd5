package host_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"weir/control/host"
	"weir/control/host/testnet"
	"weir/dataplane/route"
)

func end(s *testnet.Space, name string) testnet.End { return testnet.End{Space: s, Name: name} }

// entry is the neighbour as the host has it; the zero one if there is none.
func entry(t *testing.T, h *host.Host, addr string) host.Neighbor {
	t.Helper()
	all, err := h.Neighbors()
	must(t, err)
	for _, n := range all {
		if n.Addr == netip.MustParseAddr(addr) {
			return n
		}
	}
	return host.Neighbor{}
}

func TestNeighborStates(t *testing.T) {
	p := newPair(t)
	links, err := p.h.Links()
	must(t, err)
	ports, err := host.MapPorts(links, p.ports)
	must(t, err)
	for _, tc := range []struct {
		nud   string
		valid bool
	}{
		{"permanent", true}, {"noarp", true}, {"reachable", true}, {"stale", true}, {"delay", true}, {"probe", true}, {"failed", false}, {"incomplete", false},
	} {
		mac := " lladdr 02:00:00:00:00:63"
		if tc.nud == "incomplete" {
			mac = ""
		}
		for _, addr := range []string{"198.18.0.99", "2001:db8::99"} {
			ip(t, p.lb, "neigh replace "+addr+mac+" nud "+tc.nud+" dev wan")
			n := entry(t, p.h, addr)
			if n.Valid() != tc.valid || n.Ifindex != p.wan {
				t.Errorf("%s %s: valid %v on device %d, want %v on %d", addr, tc.nud, n.Valid(), n.Ifindex, tc.valid, p.wan)
			}
			got, ok := n.Route(ports)
			want := route.Neighbor{Port: 0, Addr: netip.MustParseAddr(addr), MAC: n.MAC, Valid: tc.valid}
			if !ok || got != want || tc.valid && got.MAC[5] != 0x63 {
				t.Errorf("%s %s: in the data path's words %+v, want %+v", addr, tc.nud, got, want)
			}
			ip(t, p.lb, "neigh flush all nud all")
		}
	}
}

func TestKeeperResolvesAndTheKernelKeepsFresh(t *testing.T) {
	p := newPair(t)
	// An entry turns stale within half a second of its confirmation, and is probed quickly. How often the kernel looks after its managed
	// ones is a setting of the first namespace alone: each 5 s.
	for _, family := range []string{"ipv4", "ipv6"} {
		for key, value := range map[string]string{"base_reachable_time_ms": "500", "delay_first_probe_time": "0", "retrans_time_ms": "50",
			"ucast_solicit": "1", "mcast_resolicit": "2"} {
			must(t, p.lb.Sysctl("net/"+family+"/neigh/wan/"+key, value))
		}
	}
	k, err := p.h.NewKeeper(everywhere)
	must(t, err)
	for _, addr := range addrs("198.18.0.2", "2001:db8::2") {
		must(t, k.Resolve(p.wan, addr))
		eventually(t, addr.String()+" is resolved", func() bool {
			n := entry(t, p.h, addr.String())
			return n.Valid() && n.MAC == [6]byte{2, 0, 0, 0, 0, 0xc}
		})
		n := entry(t, p.h, addr.String())
		if !n.Managed {
			t.Skip("the kernel has no NTF_EXT_MANAGED (before 5.16)")
		}
		if n.Protocol != host.Protocol {
			t.Errorf("%s has protocol %#x, want %#x", addr, n.Protocol, host.Protocol)
		}
	}
	if out := ip(t, p.lb, "neigh show 198.18.0.2"); !strings.Contains(out, "managed") || !strings.Contains(out, "proto 87") {
		t.Errorf("ip shows %q, want it managed and of protocol 87", out)
	}
	// The peer moves to another MAC without a word; nobody sends, and yet the kernel finds out.
	must(t, p.peer.Sysctl("net/ipv4/conf/eth0/arp_notify", "0"))
	ip(t, p.peer, "link set eth0 address 02:00:00:00:00:0d")
	for _, addr := range []string{"198.18.0.2", "2001:db8::2"} {
		within(t, 15*time.Second, addr+" is found at its new MAC", func() bool { n := entry(t, p.h, addr); return n.Valid() && n.MAC[5] == 0x0d })
	}
	must(t, k.Release())
	for _, addr := range []string{"198.18.0.2", "2001:db8::2"} {
		if n := entry(t, p.h, addr); n.Managed {
			t.Errorf("after Release %+v is there", n)
		}
	}
}

func TestKeeperLeavesAnOperatorsEntriesAlone(t *testing.T) {
	p := newPair(t)
	k, err := p.h.NewKeeper(everywhere)
	must(t, err)
	for _, tc := range []struct {
		name, addr, add string
	}{
		{"permanent", "198.18.0.50", "neigh add 198.18.0.50 lladdr 02:00:00:00:00:50 nud permanent dev wan"},
		{"permanent, IPv6", "2001:db8::50", "neigh add 2001:db8::50 lladdr 02:00:00:00:00:50 nud permanent dev wan"},
		{"noarp", "198.18.0.51", "neigh add 198.18.0.51 lladdr 02:00:00:00:00:51 nud noarp dev wan"},
		{"managed by somebody", "198.18.0.52", "neigh add 198.18.0.52 managed dev wan"},
		{"learned by a routing daemon", "198.18.0.53", "neigh add 198.18.0.53 lladdr 02:00:00:00:00:53 nud reachable extern_learn dev wan"},
		{"with another protocol number", "198.18.0.54", "neigh add 198.18.0.54 lladdr 02:00:00:00:00:54 nud reachable proto zebra dev wan"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := p.lb.IP(tc.add); err != nil {
				t.Skipf("this ip or kernel cannot: %v", err)
			}
			before := entry(t, p.h, tc.addr)
			must(t, k.Resolve(p.wan, netip.MustParseAddr(tc.addr)))
			after := entry(t, p.h, tc.addr)
			before.State, after.State = before.State&0xc0, after.State&0xc0 // dynamic states go their way
			if before != after {
				t.Errorf("was %+v, is %+v", before, after)
			}
		})
	}
	must(t, k.Release())
	for _, addr := range []string{"198.18.0.50", "2001:db8::50", "198.18.0.51", "198.18.0.53", "198.18.0.54"} {
		if n := entry(t, p.h, addr); !n.Addr.IsValid() {
			t.Errorf("%s is gone after Release", addr)
		}
	}
	// Made permanent while we kept it: not ours any more.
	k, err = p.h.NewKeeper(everywhere)
	must(t, err)
	must(t, k.Resolve(p.wan, netip.MustParseAddr("198.18.0.60")))
	ip(t, p.lb, "neigh replace 198.18.0.60 lladdr 02:00:00:00:00:60 nud permanent dev wan")
	must(t, k.Release())
	if n := entry(t, p.h, "198.18.0.60"); n.MAC[5] != 0x60 || !n.Valid() {
		t.Errorf("an entry that the operator took over is %+v after Release", n)
	}
}

func TestKeeperLetsGoOfWhatTheKernelHadBefore(t *testing.T) {
	p := newPair(t)
	ip(t, p.lb, "neigh add 198.18.0.2 lladdr "+peerMAC+" nud reachable dev wan")
	k, err := p.h.NewKeeper(everywhere)
	must(t, err)
	must(t, k.Resolve(p.wan, netip.MustParseAddr("198.18.0.2")))
	if n := entry(t, p.h, "198.18.0.2"); !n.Managed || !n.Valid() {
		t.Errorf("kept, it is %+v", n)
	}
	must(t, k.Release())
	if n := entry(t, p.h, "198.18.0.2"); n.Managed || !n.Valid() {
		t.Errorf("let go, it is %+v; want it valid for the kernel's own traffic, and not managed", n)
	}
}

func TestRetainForgetsTheOthers(t *testing.T) {
	p := newPair(t)
	k, err := p.h.NewKeeper(everywhere)
	must(t, err)
	for _, a := range addrs("198.18.0.2", "198.18.0.3") {
		must(t, k.Resolve(p.wan, a))
	}
	must(t, k.Retain(func(ifindex int, a netip.Addr) bool { return a == netip.MustParseAddr("198.18.0.2") }))
	if !entry(t, p.h, "198.18.0.2").Managed || entry(t, p.h, "198.18.0.3").Managed {
		t.Error("kept is not what was to be retained")
	}
	must(t, k.Release())
}

func everywhere(int) bool { return true }

func TestEntriesOfAKilledWeirAreFoundAgain(t *testing.T) {
	p := newPair(t)
	dead, err := p.h.NewKeeper(everywhere)
	must(t, err)
	must(t, dead.Resolve(p.wan, netip.MustParseAddr("198.18.0.2"))) // and never released
	must(t, dead.Resolve(p.wan, netip.MustParseAddr("198.18.0.3")))
	ip(t, p.lb, "neigh add 198.18.0.50 lladdr 02:00:00:00:00:50 nud permanent dev wan")

	elsewhere, err := p.h.NewKeeper(func(ifindex int) bool { return ifindex != p.wan })
	must(t, err)
	must(t, elsewhere.Release())
	if !entry(t, p.h, "198.18.0.2").Managed {
		t.Error("a weir on other devices has let go of what this one keeps")
	}
	next, err := p.h.NewKeeper(everywhere)
	must(t, err)
	must(t, next.Retain(func(_ int, a netip.Addr) bool { return a == netip.MustParseAddr("198.18.0.3") }))
	if entry(t, p.h, "198.18.0.2").Addr.IsValid() || !entry(t, p.h, "198.18.0.3").Managed {
		t.Error("the next start has not taken over what the killed one kept")
	}
	removed, err := p.h.CleanupNeighbors()
	must(t, err)
	if len(removed) != 1 || removed[0].Addr != netip.MustParseAddr("198.18.0.3") {
		t.Errorf("cleanup removed %+v, want 198.18.0.3 alone", removed)
	}
	if !entry(t, p.h, "198.18.0.50").Valid() {
		t.Error("cleanup took the operator's entry")
	}
}

func TestBeforeLinux516TheKeeperAsksAgainAndAgain(t *testing.T) {
	p := newPair(t)
	must(t, p.lb.Sysctl("net/ipv4/neigh/wan/base_reachable_time_ms", "200"))
	must(t, p.lb.Sysctl("net/ipv4/neigh/wan/delay_first_probe_time", "0"))
	k, err := p.h.NewKeeper(everywhere)
	must(t, err)
	tick := k.AsBefore516()
	must(t, k.Resolve(p.wan, netip.MustParseAddr("198.18.0.2")))
	eventually(t, "resolved", func() bool { return entry(t, p.h, "198.18.0.2").Valid() })
	if n := entry(t, p.h, "198.18.0.2"); n.Managed || n.Protocol != 0 {
		t.Errorf("the entry bears marks: %+v", n)
	}
	ip(t, p.peer, "link set eth0 address 02:00:00:00:00:0d")
	eventually(t, "found at its new MAC", func() bool {
		tick()
		time.Sleep(50 * time.Millisecond)
		return entry(t, p.h, "198.18.0.2").MAC[5] == 0x0d
	})
	ip(t, p.lb, "neigh replace 198.18.0.2 lladdr 02:00:00:00:00:77 nud permanent dev wan")
	tick()
	if out := ip(t, p.lb, "neigh show 198.18.0.2"); !strings.Contains(out, "PERMANENT") {
		t.Errorf("the operator's entry is %q after a tick", out)
	}
	must(t, k.Release())
}
