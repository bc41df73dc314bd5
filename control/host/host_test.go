package host_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host"
	"weir/control/host/testnet"
)

const prefix = "wxhost"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until ok says yes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	within(t, 20*time.Second, what, ok)
}

func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// pair is a balancer with one port, wan, and the peer on its link:
//
//	peer eth0 198.18.0.2/24 2001:db8::2/64 --- lb wan 198.18.0.1/24 2001:db8::1/64
type pair struct {
	net      *testnet.Net
	lb, peer *testnet.Space
	h        *host.Host
	wan      int // index of the device
	ports    []host.Port
}

const (
	wanMAC  = "02:00:00:00:01:0c"
	peerMAC = "02:00:00:00:00:0c"
)

func newPair(t *testing.T) pair {
	t.Helper()
	n := testnet.NewT(t, prefix)
	p := pair{net: n, ports: []host.Port{{Interface: "wan"}}}
	var err error
	p.lb, err = n.Space("lb")
	must(t, err)
	p.peer, err = n.Space("peer")
	must(t, err)
	must(t, n.Veth(testnet.End{Space: p.lb, Name: "wan", MAC: wanMAC, Queues: 2}, testnet.End{Space: p.peer, Name: "eth0", MAC: peerMAC}))
	must(t, p.lb.Address("wan", "198.18.0.1/24", "2001:db8::1/64"))
	must(t, p.peer.Address("eth0", "198.18.0.2/24", "2001:db8::2/64"))
	p.h = p.lb.Host()
	l, err := p.h.Link("wan")
	must(t, err)
	p.wan = l.Index
	return p
}

// ip asks iproute2, the judge of what the kernel has, inside a namespace.
func ip(t *testing.T, s *testnet.Space, line string) string {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("iproute2 is not installed")
	}
	out, err := s.Command("ip", strings.Fields(line)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", line, err, out)
	}
	return string(out)
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestLinkTellsWhatThePortIs(t *testing.T) {
	p := newPair(t)
	l, err := p.h.Link("wan")
	must(t, err)
	if l.Kind != "veth" || l.Driver != "veth" || !l.Up || !l.Carrier || l.MTU != 1500 || l.RxQueues != 2 || l.TxQueues != 2 ||
		l.Channels.Rx != 2 || l.Channels.Tx != 2 || l.Channels.Combined || l.MAC != [6]byte{2, 0, 0, 0, 1, 0xc} {
		t.Errorf("wan is %+v", l)
	}
	if c, err := p.h.Channels("wan"); err != nil || c != l.Channels {
		t.Errorf("its channels alone are %+v, %v", c, err)
	}
	if c, err := p.h.Channels("eth7"); err == nil {
		t.Errorf("a device that is not there has %+v", c)
	}
	want := map[string]bool{"198.18.0.1/24": true, "2001:db8::1/64": true}
	for _, a := range l.Addresses {
		delete(want, a.String())
	}
	if len(want) > 0 {
		t.Errorf("addresses %v, not among them: %v", l.Addresses, want)
	}
	must(t, p.h.SetUp("wan", false))
	if l, err = p.h.Link("wan"); err != nil || l.Up || l.Carrier {
		t.Errorf("set down: up %v carrier %v, %v", l.Up, l.Carrier, err)
	}
}

func TestBridgePortNamesItsMaster(t *testing.T) {
	p := newPair(t)
	ip(t, p.lb, "link add br0 type bridge")
	ip(t, p.lb, "link set wan master br0")
	br, err := p.h.Link("br0")
	must(t, err)
	l, err := p.h.Link("wan")
	must(t, err)
	if br.Kind != "bridge" || l.Master != br.Index {
		t.Errorf("br0 is a %s with index %d, wan's master is %d", br.Kind, br.Index, l.Master)
	}
}

func TestUnknownInterfaceIsNamed(t *testing.T) {
	p := newPair(t)
	_, err := p.h.Link("eth7")
	if !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "eth7") || !strings.Contains(err.Error(), "ip link") {
		t.Errorf("error %q, want one with call, object and cure", err)
	}
	if _, _, err = p.h.DisableOffloads("eth7"); !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "ETHTOOL_GFEATURES eth7") {
		t.Errorf("error %q, want one with call, object and cure", err)
	}
}

func TestOffloadsAreOffAndComeBack(t *testing.T) {
	n := testnet.NewT(t, prefix)
	lb, err := n.Space("lb")
	must(t, err)
	// A bare pair, as the kernel makes it: with its offloads on.
	ip(t, lb, "link add va type veth peer name vb")
	h := lb.Host()
	before, err := h.Offloads("va")
	must(t, err)
	for _, name := range []string{"tx-checksum-ip-generic", "tx-tcp-segmentation", "rx-vlan-hw-parse", "tx-vlan-hw-insert"} {
		if !before[name] {
			t.Fatalf("a new veth has %s off: nothing to test", name)
		}
	}
	restore, changed, err := h.DisableOffloads("va")
	must(t, err)
	after, err := h.Offloads("va")
	must(t, err)
	for _, name := range changed {
		if after[name] {
			t.Errorf("%s is on, and listed as switched off", name)
		}
	}
	for _, name := range []string{"tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-generic-segmentation", "tx-udp-segmentation",
		"rx-vlan-hw-parse", "rx-gro", "tx-vlan-hw-insert", "tx-sctp-segmentation", "rx-checksum"} {
		if after[name] {
			t.Errorf("%s is on", name)
		}
	}
	if _, again, err := h.DisableOffloads("va"); err != nil || len(again) > 0 {
		t.Errorf("the second time changed %v, %v", again, err)
	}
	must(t, restore())
	now, err := h.Offloads("va")
	must(t, err)
	for name, on := range before {
		if now[name] != on {
			t.Errorf("%s is %v after restore, was %v", name, now[name], on)
		}
	}
	ip(t, lb, "link del va")
	if err := restore(); err != nil {
		t.Errorf("restore of a device that is gone: %v", err)
	}
}

// events collects what a watch says.
func watch(t *testing.T, h *host.Host) <-chan host.Event {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events := make(chan host.Event, 1000)
	must(t, h.Watch(ctx, events))
	t.Cleanup(func() {
		cancel()
		for range events { // the goroutine has ended when this is closed
		}
	})
	if e := <-events; e.Change != host.ChangeAll {
		t.Fatalf("the first event is %v, want all", e.Change)
	}
	return events
}

// await reads events until one is as wanted.
func await(t *testing.T, events <-chan host.Event, what string, want func(host.Event) bool) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case e, ok := <-events:
			if !ok || e.Change == host.ChangeEnd {
				t.Fatalf("the watch ended before %s: %v", what, e.Err)
			}
			if want(e) {
				return
			}
		case <-timeout:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func TestWatchSeesWhatIPDoes(t *testing.T) {
	p := newPair(t)
	events := watch(t, p.h)
	next := netip.MustParseAddr("198.18.0.99")
	for _, tc := range []struct {
		do   string
		want func(host.Event) bool
	}{
		{"link set wan mtu 1400", func(e host.Event) bool {
			return e.Change == host.ChangeLink && e.Link.Name == "wan" && e.Link.MTU == 1400
		}},
		{"addr add 198.18.7.1/24 dev wan", func(e host.Event) bool {
			return e.Change == host.ChangeAddress && !e.Gone && e.Address.Prefix == netip.MustParsePrefix("198.18.7.1/24") && e.Address.Ifindex == p.wan
		}},
		{"route add 203.0.113.0/24 via 198.18.0.2", func(e host.Event) bool {
			return e.Change == host.ChangeRoute && !e.Gone && e.To == netip.MustParsePrefix("203.0.113.0/24")
		}},
		{"route del 203.0.113.0/24", func(e host.Event) bool {
			return e.Change == host.ChangeRoute && e.Gone && e.To == netip.MustParsePrefix("203.0.113.0/24")
		}},
		{"route add 2001:db8:9::/48 via 2001:db8::2", func(e host.Event) bool {
			return e.Change == host.ChangeRoute && e.To == netip.MustParsePrefix("2001:db8:9::/48")
		}},
		{"neigh add 198.18.0.99 lladdr 02:00:00:00:00:63 dev wan", func(e host.Event) bool {
			return e.Change == host.ChangeNeighbor && !e.Gone && e.Neighbor.Addr == next && e.Neighbor.Valid() && e.Neighbor.MAC[5] == 0x63
		}},
		{"neigh del 198.18.0.99 dev wan", func(e host.Event) bool {
			return e.Change == host.ChangeNeighbor && e.Neighbor.Addr == next && (e.Gone || !e.Neighbor.Valid())
		}},
		{"nexthop add id 7 via 198.18.0.2 dev wan", func(e host.Event) bool { return e.Change == host.ChangeRoute && !e.To.IsValid() }},
		{"addr del 198.18.7.1/24 dev wan", func(e host.Event) bool { return e.Change == host.ChangeAddress && e.Gone }},
		{"link add gone0 type bridge", func(e host.Event) bool { return e.Change == host.ChangeLink && e.Link.Name == "gone0" && !e.Gone }},
		{"link del gone0", func(e host.Event) bool { return e.Change == host.ChangeLink && e.Link.Name == "gone0" && e.Gone }},
	} {
		ip(t, p.lb, tc.do)
		await(t, events, tc.do, tc.want)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	p := newPair(t)
	ctx, cancel := context.WithCancel(context.Background())
	events := make(chan host.Event)
	must(t, p.h.Watch(ctx, events))
	cancel()
	select {
	case _, ok := <-events:
		for ok {
			_, ok = <-events
		}
	case <-time.After(20 * time.Second):
		t.Fatal("events is not closed 20 s after the context ended")
	}
}

// A buffer of a few kilobytes, a hundred routes and nobody who reads: most notifications are lost, and the mirror has to be right
// all the same, as it reads everything anew. What was in the buffer when it overflowed must not come after that.
func TestOverflowedWatchIsReadAnew(t *testing.T) {
	p := newPair(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	events := make(chan host.Event)
	must(t, p.h.WatchBuffered(ctx, events, 16<<10))
	<-events
	m, err := p.h.NewMirror(p.ports)
	must(t, err)
	// The watch holds the first event in its hand and waits for us; what follows is in the buffer, until that is full.
	ip(t, p.lb, "link set wan mtu 1400")
	for i := 90; i < 100; i++ {
		ip(t, p.lb, fmt.Sprintf("neigh add 198.18.0.%d lladdr 02:00:00:00:00:01 nud stale dev wan", i))
	}
	for i := range 100 {
		must(t, p.lb.Route(netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 32).String(), "198.18.0.2"))
	}
	for i := 90; i < 100; i++ {
		ip(t, p.lb, fmt.Sprintf("neigh replace 198.18.0.%d lladdr 02:00:00:00:00:63 nud permanent dev wan", i))
	}

	seen, all := 0, 0
	for quiet := false; !quiet; {
		select {
		case e, ok := <-events:
			if !ok || e.Change == host.ChangeEnd {
				t.Fatalf("the watch ended: %v", e.Err)
			}
			m.Note(e)
			seen++
			if e.Change == host.ChangeAll {
				all++
				_, err := m.Refresh()
				must(t, err)
			}
		case <-time.After(500 * time.Millisecond):
			quiet = true
		}
	}
	if all == 0 || seen >= 120 {
		t.Fatalf("%d events, %d of them all: the buffer did not overflow", seen, all)
	}
	_, err = m.Refresh()
	must(t, err)
	routes, state := 0, m.State()
	for _, r := range state.Routes {
		if r.To.Bits() == 32 {
			routes++
		}
	}
	if routes != 100 {
		t.Errorf("%d of 100 routes are known after the overflow", routes)
	}
	became := 0
	for _, n := range state.Neighbors {
		if n.MAC[5] == 0x63 && n.Valid {
			became++
		}
	}
	if became != 10 {
		t.Errorf("%d of 10 neighbours are what they became: %+v", became, state.Neighbors)
	}
}

func TestMirrorFollows(t *testing.T) {
	p := newPair(t)
	events := watch(t, p.h)
	m, err := p.h.NewMirror(p.ports)
	must(t, err)
	follow := func() (changed bool) {
		for quiet := false; !quiet; {
			select {
			case e := <-events:
				m.Note(e)
			case <-time.After(300 * time.Millisecond):
				quiet = true
			}
		}
		changed, err := m.Refresh()
		must(t, err)
		return changed
	}
	has := func(to string) bool {
		for _, r := range m.State().Routes {
			if r.To == netip.MustParsePrefix(to) {
				return true
			}
		}
		return false
	}
	follow()
	if follow() {
		t.Error("changed while nothing happened")
	}
	ip(t, p.lb, "route add 203.0.113.0/24 via 198.18.0.2")
	if !follow() || !has("203.0.113.0/24") {
		t.Error("a new route is not in the state")
	}
	// The kernel says nothing of the IPv4 routes that go with their device's address.
	ip(t, p.lb, "addr flush dev wan")
	if !follow() || has("203.0.113.0/24") || has("198.18.0.0/24") {
		t.Error("routes outlive the address that they came with")
	}
	ip(t, p.lb, "link del wan")
	if _, err := m.Refresh(); err != nil {
		t.Errorf("refresh without news: %v", err)
	}
	await(t, events, "the port is gone", func(e host.Event) bool { m.Note(e); return e.Change == host.ChangeLink && e.Gone })
	if !follow() || m.State().Links[0].Name != "" || m.State().Ports.Ifindex(0) != 0 {
		t.Errorf("the port's device is gone, the state has %+v", m.State().Links[0])
	}
	if _, err := p.h.NewMirror(p.ports); !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "wan") {
		t.Errorf("a mirror of a port without a device: %v, want an error that names it", err)
	}
	must(t, p.net.Veth(testnet.End{Space: p.lb, Name: "wan"}, testnet.End{Space: p.peer, Name: "eth0"}))
	must(t, p.lb.Address("wan", "198.18.0.1/24"))
	if !follow() || m.State().Links[0].Name != "wan" || !has("198.18.0.0/24") {
		t.Errorf("the device is back, the state has %+v", m.State().Links[0])
	}
}

// TestTakesXDPFrames: a veth takes them while its other end has GRO or an XDP program, a loopback never.
func TestTakesXDPFrames(t *testing.T) {
	n := testnet.NewT(t, prefix)
	lb, err := n.Space("lb")
	must(t, err)
	ip(t, lb, "link add va type veth peer name vb")
	ip(t, lb, "link set va up")
	ip(t, lb, "link set vb up")
	h := lb.Host()
	for _, x := range []struct {
		gro, dev string
		want     bool
	}{{"off", "va", false}, {"on", "va", true}, {"off", "va", false}, {"on", "lo", false}} {
		if out, err := lb.Command("ethtool", "-K", "vb", "gro", x.gro).CombinedOutput(); err != nil {
			t.Skipf("needs ethtool: %v: %s", err, out)
		}
		l, err := h.Link(x.dev)
		must(t, err)
		if got, err := h.TakesXDPFrames(l.Index); err != nil || got != x.want {
			t.Errorf("%s with gro %s: %v, %v, want %v", x.dev, x.gro, got, err, x.want)
		}
	}
	if _, err := h.TakesXDPFrames(9999); err == nil {
		t.Error("a device that is not there takes them, or not")
	}
}
