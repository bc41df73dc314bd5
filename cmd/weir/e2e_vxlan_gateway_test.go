package main_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"weir/control/host/testnet"
)

// Segments of a routed bed have networks of their own, and gateways that speak both families in them: 198.18.65.0/24 and up.
func ownNet4(n int) string     { return fmt.Sprintf("198.18.%d.0/24", 65+n) }
func ownNet6(n int) string     { return fmt.Sprintf("2001:db8:%d::/64", 65+n) }
func own4(n, host int) string  { return fmt.Sprintf("198.18.%d.%d", 65+n, host) }
func own6(n, host int) string  { return fmt.Sprintf("2001:db8:%d::%d", 65+n, host) }
func ownMAC(n int) string      { return fmt.Sprintf("02:00:00:00:64:%02x", 0xa0+n) }
func ownLocal(n int) string    { return fmt.Sprintf("fe80::ff:fe00:64%02x", 0xa0+n) }
func gates(n int) (g []string) { return []string{own4(n, 1), own6(n, 1)} }

// newRoutedBed is an overlay bed whose stations are in the networks of their own segment. Host i has the address 11+i, access host i 21+i.
func newRoutedBed(t *testing.T, o options, segments ...*overlay) *overlayBed {
	t.Helper()
	needs(t, "ping")
	b := newOverlayBed(t, o, vxlanPort, segments...)
	for n, seg := range segments {
		for i, h := range append(append([]*testnet.Space{}, seg.hosts...), seg.access...) {
			host := 11 + i
			if i >= len(seg.hosts) {
				host = 21 + i - len(seg.hosts)
			}
			must(t, h.Address("eth0", own4(n, host)+"/24", own6(n, host)+"/64"))
			must(t, h.IP("route replace default via "+own4(n, 1)))
			must(t, h.IP("-6 route replace default via "+own6(n, 1)))
		}
		must(t, b.client.Route(ownNet4(n), wan4))
		must(t, b.client.Route(ownNet6(n), wan6))
	}
	return b
}

// gatewayText is the gateway of segment n, with what it reaches.
func gatewayText(n int, reaches string) string {
	return fmt.Sprintf("gateway: {addresses: [%s/24, %q], mac: %q, reaches: [%s]}", own4(n, 1), own6(n, 1)+"/64", ownMAC(n), reaches)
}

// pinged has s ping an address until it answers. Where next hops are not known yet, a packet waits for a second, and on a busy machine to resolve one may
// take longer.
func pinged(t *testing.T, s *testnet.Space, addr string) {
	t.Helper()
	eventually(t, dialLimit, s.Name+" reaches "+addr, func() bool { return command(t, s.Command("ping", "-n", "-c1", "-W2", addr)).code == 0 })
}

// TestVXLANRouting has stations of two segments reach each other, and one of them the outside, by gateways of both families.
func TestVXLANRouting(t *testing.T) {
	first, second := &overlay{vni: 5001, access: make([]*testnet.Space, 1)}, &overlay{vni: 6001, over6: true}
	b := newRoutedBed(t, options{}, first, second)
	reaches := map[*overlay]string{first: "6001, underlay", second: "5001"}
	number := map[*overlay]int{first: 0, second: 1}
	config := func() string {
		return b.config(func(seg *overlay) string { return gatewayText(number[seg], reaches[seg]) })
	}
	d := b.start(config())
	here, there, station := first.hosts[0], second.hosts[1], first.access[0]

	t.Run("addresses", func(t *testing.T) {
		for _, s := range []*testnet.Space{here, station} {
			for _, a := range append(gates(0), ownLocal(0)+"%eth0") {
				in(t, s, "ping", "-n", "-c2", "-i0.05", "-W2", a)
				bare, _, _ := strings.Cut(a, "%")
				if out := in(t, s, "ip", "neigh", "show", bare); !strings.Contains(out, "lladdr "+ownMAC(0)) {
					t.Errorf("%s knows %s as %q", s.Name, bare, out)
				}
			}
		}
	})
	t.Run("between segments", func(t *testing.T) {
		for _, s := range []*testnet.Space{here, station} {
			for _, a := range []string{own4(1, 12), own6(1, 12)} {
				if out := in(t, s, "ping", "-n", "-c3", "-i0.05", "-W2", a); !strings.Contains(out, "ttl=63") {
					t.Errorf("%s: not one hop: %s", a, out)
				}
			}
			in(t, s, "ping", "-n", "-c1", "-W2", "-s", "3000", own4(1, 12))                  // in fragments
			_ = command(t, s.Command("ping", "-n", "-c1", "-W1", "-s", "3000", own6(1, 12))) // learns of the tunnel's MTU
			in(t, s, "ping", "-n", "-c1", "-W2", "-s", "3000", own6(1, 12))
		}
	})
	t.Run("errors", func(t *testing.T) {
		for _, x := range []struct{ says, from string }{
			{"ping -n -c1 -W2 -t1 " + own4(1, 12), own4(0, 1) + " icmp_seq=1 Time to live exceeded"},
			{"ping -n -c1 -W2 -t1 " + own6(1, 12), own6(0, 1) + " icmp_seq=1 Time exceeded: Hop limit"},
			{"ping -n -c1 -W4 " + own4(1, 99), own4(0, 1) + " icmp_seq=1 Destination Host Unreachable"},
			{"ping -n -c1 -W4 " + own6(1, 99), own6(0, 1) + " icmp_seq=1 Destination unreachable: Address unreachable"},
			{"ping -n -c1 -W2 203.0.113.77", own4(0, 1) + " icmp_seq=1 Destination Net Unreachable"},
			{"ping -n -c1 -W2 2001:db8:bad::1", own6(0, 1) + " icmp_seq=1 Destination unreachable: No route"},
			{fmt.Sprintf("ping -n -c1 -W2 -Mdo -s%d %s", tenantMTU-28, own4(1, 12)), fmt.Sprintf("mtu = %d", tenantMTU6)},
		} {
			line := strings.Fields(x.says)
			if r := command(t, here.Command(line[0], line[1:]...)); !strings.Contains(r.out+r.errors, x.from) {
				t.Errorf("%s: nothing of %q: %v", x.says, x.from, r)
			}
		}
		must(t, here.IP("route flush cache"))
	})
	t.Run("outside", func(t *testing.T) {
		for _, a := range []string{own4(0, 11), own6(0, 11), own4(0, 21), own6(0, 21), own4(0, 1), own6(0, 1)} {
			pinged(t, b.client, a)
		}
		for _, a := range []string{client4, client6} {
			pinged(t, here, a)
			pinged(t, station, a)
		}
		in(t, here, "ping", "-n", "-c1", "-W2", "-s", "3000", client4) // in fragments, which into the tunnel become others
		x := b.behind(t, first)
		x.named(8000 + echoPort)
		sent, got := make([]byte, 4<<20), make([]byte, 4<<20)
		_, _ = rand.NewChaCha8([32]byte{5}).Read(sent)
		for _, a := range []string{own4(0, 11), own6(0, 11)} {
			c, _ := reach(t, x, a, 8000+echoPort)
			must(t, c.SetDeadline(time.Now().Add(60*time.Second)))
			go func() { _, _ = c.Write(sent) }()
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%s: what came back differs, %v", a, err)
			}
			c.Close()
		}
	})
	t.Run("apart", func(t *testing.T) {
		before := d.settled()
		if r := command(t, b.client.Command("ping", "-n", "-c1", "-W1", own4(1, 12))); r.code == 0 {
			t.Errorf("the second segment can be reached from outside: %v", r)
		}
		if r := command(t, there.Command("ping", "-n", "-c1", "-W1", client4)); r.code == 0 {
			t.Errorf("the second segment reaches the outside: %v", r)
		}
		if s := d.settled(); s.Verdicts.Punted != before.Verdicts.Punted {
			t.Errorf("%d packets went to the host", s.Verdicts.Punted-before.Verdicts.Punted)
		}
	})
	t.Run("no more", func(t *testing.T) { // a reload takes it back
		reaches[first], reaches[second] = "", ""
		d.reload(config())
		for _, s := range []*testnet.Space{here, b.client} {
			to := own4(1, 12)
			if s == b.client {
				to = own4(0, 11)
			}
			if r := command(t, s.Command("ping", "-n", "-c1", "-W1", to)); r.code == 0 {
				t.Errorf("%s is reached: %v", to, r)
			}
		}
		in(t, here, "ping", "-n", "-c1", "-W2", own4(0, 1))
	})
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	b.cleared(d)
}

// TestVXLANSharedGateway has the kernel's bridge behind the first VTEP be a gateway with the same address and MAC as ours. It routes to a
// station on a port of ours, and hears what that answers to its request for it.
func TestVXLANSharedGateway(t *testing.T) {
	seg := &overlay{vni: 5001, access: make([]*testnet.Space, 1)}
	b := newRoutedBed(t, options{}, seg)
	const behind = "203.0.113.5" // a host behind the other gateway
	twin, station := b.servers[0], seg.access[0]
	must(t, b.lb.Route(behind+"/32", server4(0)))
	must(t, twin.Address("lo", behind+"/32"))
	for _, dev := range []string{"all", "default", "br5001", "eth0"} {
		must(t, twin.Sysctl("net/ipv4/conf/"+dev+"/rp_filter", "0"))
	}
	for _, line := range []string{"link set br5001 address " + ownMAC(0), "addr add " + own4(0, 1) + "/24 dev br5001"} {
		must(t, twin.IP(line))
	}
	d := b.start(b.config(func(*overlay) string { return gatewayText(0, "underlay") }))
	in(t, station, "ping", "-n", "-c1", "-W2", own4(0, 1)) // ours
	// The way there leads by the twin, which has to ask for the station, the way back by ours.
	eventually(t, 10*time.Second, "the other gateway reaches a station on our port", func() bool {
		return command(t, twin.Command("ping", "-n", "-c1", "-W1", "-I", behind, own4(0, 21))).code == 0
	})
	if out := in(t, twin, "ip", "neigh", "show", own4(0, 21)); !strings.Contains(out, "lladdr "+tenantMAC(10)) {
		t.Errorf("the other gateway knows the station as %q", out)
	}
	// Ours has lost nothing of itself: the station still finds it here, and so does one behind the other VTEP.
	for _, s := range []*testnet.Space{station, seg.hosts[1]} {
		must(t, s.IP("neigh flush dev eth0"))
		if out := command(t, s.Command("ping", "-n", "-c1", "-W2", own4(0, 1))).out; s == station && !strings.Contains(out, "1 received") {
			t.Errorf("%s does not reach the gateway: %s", s.Name, out)
		}
		if out := in(t, s, "ip", "neigh", "show", own4(0, 1)); !strings.Contains(out, "lladdr "+ownMAC(0)) {
			t.Errorf("%s knows the gateway as %q", s.Name, out)
		}
	}
	if s := d.settled(); s.Drops["own_mac"] != 0 {
		t.Errorf("%d frames were taken for a loop", s.Drops["own_mac"])
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// TestVXLANSuppression has a station that answers no ARP any more be found all the same, and only where that is asked for.
func TestVXLANSuppression(t *testing.T) {
	suppressed, plain := &overlay{vni: 5001, access: make([]*testnet.Space, 1)}, &overlay{vni: 5002, access: make([]*testnet.Space, 1)}
	b := newOverlayBed(t, options{}, vxlanPort, suppressed, plain)
	d := b.start(b.config(func(seg *overlay) string { return fmt.Sprint("suppression: ", seg == suppressed) }))
	for _, seg := range b.segments {
		host, station := seg.hosts[0], seg.access[0]
		for _, a := range []string{tenant4(0), tenant6(0)} {
			in(t, station, "ping", "-n", "-c1", "-W2", a) // each has heard of the other
		}
		must(t, host.IP("link set eth0 arp off"))
		must(t, host.IP("-6 addr flush dev eth0")) // nor ND
		must(t, station.IP("neigh flush dev eth0"))
		must(t, station.IP("-6 neigh flush dev eth0"))
		for _, a := range []string{tenant4(0), tenant6(0)} {
			_ = command(t, station.Command("ping", "-n", "-c1", "-W1", a))
			out := in(t, station, "ip", "neigh", "show", a)
			if found := strings.Contains(out, "lladdr "+tenantMAC(0)); found != (seg == suppressed) {
				t.Errorf("%v: %s is known as %q", seg, a, out)
			}
		}
		// Whether an address is free nobody else can say: another station may take it.
		must(t, station.IP("addr add "+tenant6(0)+"/64 dev eth0"))
		eventually(t, 10*time.Second, "duplicate address detection is over", func() bool {
			return !strings.Contains(in(t, station, "ip", "addr", "show", "dev", "eth0"), "tentative")
		})
		if out := in(t, station, "ip", "addr", "show", "dev", "eth0"); strings.Contains(out, "dadfailed") {
			t.Errorf("%v: an address that nobody has any more: %s", seg, out)
		}
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// TestVXLANVIPInASegment has two tenants with the same addresses have the same VIP, each with servers of its own, in the segment, in another one and
// outside, and clients behind a VTEP and on a port.
func TestVXLANVIPInASegment(t *testing.T) {
	first, second := &overlay{vni: 5001, access: make([]*testnet.Space, 1)}, &overlay{vni: 6002, over6: true, gate6: false, access: make([]*testnet.Space, 1)}
	b := newOverlayBed(t, options{}, vxlanPort, first, second)
	const vip = "198.18.64.100"
	for _, seg := range b.segments {
		b.behind(t, seg).named(8000 + echoPort)
		answersAsk(t, seg.hosts[1], seg.host(1))
	}
	b.named(8000 + echoPort)
	d := b.start(b.config(nil, fmt.Sprintf(`services:
  - {name: first, vip: %[1]s, vni: 5001, port: %[2]d, scheduler: rr, forward: vxlan, backends: [{address: %[3]s, port: %[5]d, vni: 5001}, {address: %[4]s, port: %[5]d, vni: 5001}]}
  - {name: second, vip: %[1]s, vni: 6002, port: %[2]d, scheduler: rr, forward: vxlan, backends: [{address: %[3]s, port: %[5]d, vni: 6002}, {address: %[4]s, port: %[5]d, vni: 6002}]}
  - {name: across, vip: %[1]s, vni: 5001, port: %[6]d, forward: vxlan, backends: [{address: %[4]s, port: %[5]d, vni: 6002}]}
  - {name: outside, vip: %[1]s, vni: 6002, port: %[6]d, backends: [{address: %[7]s, port: %[5]d}]}
  - {name: ask, vip: %[1]s, vni: 5001, port: %[8]d, protocol: udp, forward: vxlan, backends: [{address: %[4]s, port: %[9]d, vni: 5001}]}
`, vip, echoPort, tenant4(0), tenant4(1), 8000+echoPort, movedPort, server4(1), askPort, 8000+askPort)))
	for i, seg := range b.segments {
		for _, client := range []*testnet.Space{seg.access[0], seg.hosts[0]} {
			x := b.bed.with(t)
			x.client = client
			var names []string
			for range 4 {
				c, name := reach(t, x, vip, echoPort)
				must(t, pingPong(c, dialLimit))
				names = append(names, name)
				c.Close()
			}
			want := []string{seg.hosts[0].Name, seg.hosts[1].Name}
			if got := fmt.Sprint(names); got != fmt.Sprint(append(want, want...)) && got != fmt.Sprint([]string{want[1], want[0], want[1], want[0]}) {
				t.Errorf("%v: %s got %s, want %s in turn", seg, client.Name, got, want)
			}
			c, name := reach(t, x, vip, movedPort)
			must(t, pingPong(c, dialLimit))
			if want := []string{second.hosts[1].Name, b.servers[1].Name}[i]; name != want {
				t.Errorf("%v: %s answered, not %s", seg, name, want)
			}
			c.Close()
			in(t, client, "ping", "-n", "-c1", "-W2", vip)
			if out := in(t, client, "ip", "neigh", "show", vip); !strings.Contains(out, "lladdr "+gateMAC) {
				t.Errorf("%s knows the VIP as %q", client.Name, out)
			}
			if c, err := dial(client, "tcp", hostPort(vip, closedPort)); err == nil {
				c.Close()
				t.Errorf("%v: a port without a service was opened", seg)
			} else if !strings.Contains(err.Error(), "refused") {
				t.Errorf("%v: a port without a service: %v", seg, err)
			}
		}
	}
	c, err := dial(first.access[0], "udp", hostPort(vip, askPort))
	must(t, err)
	defer c.Close()
	must(t, asks(c, strings.Repeat("q", 3000)))
	if c, err := dialWithin(b.client, hostPort(vip, echoPort), time.Second); err == nil {
		c.Close()
		t.Error("the VIP can be reached from outside")
	}
	if has(t, b.lb, vip) {
		t.Error("the host has the VIP")
	}
	list := d.cli("list")
	for _, want := range []string{vip + ":81@5001", vip + ":81@6002", tenant4(1) + ":8081@6002", server4(1) + ":8081 "} {
		if !strings.Contains(list, want) {
			t.Errorf("weir list has no %s:\n%s", want, list)
		}
	}
	if s := d.settled(); s.Verdicts.Punted != 0 {
		t.Errorf("%d packets went to the host", s.Verdicts.Punted)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	b.cleared(d)
}

// asks sends a question and wants it back, with a name in front; a datagram that is lost is sent again.
func asks(c net.Conn, q string) (err error) {
	buf := make([]byte, 8192)
	for range 5 {
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if _, err = c.Write([]byte(q)); err != nil {
			continue
		}
		var n int
		if n, err = c.Read(buf); err == nil && strings.HasSuffix(string(buf[:n]), " "+q) {
			return nil
		}
	}
	return fmt.Errorf("no answer to a question of %d bytes: %w", len(q), err)
}

// TestVXLANPeersAreKeptResolved has the kernel keep the VTEPs on our links resolved, so that no flooded frame waits for them.
func TestVXLANPeersAreKeptResolved(t *testing.T) {
	b := newOverlayBed(t, options{}, vxlanPort, &overlay{vni: 5001}, &overlay{vni: 6001, over6: true})
	d := b.start(b.config(nil))
	for _, seg := range b.segments {
		for i := range b.servers {
			eventually(t, 10*time.Second, seg.theirs(i)+" is kept resolved", func() bool {
				n := b.neighbor(seg.theirs(i))
				return n.Managed && n.Valid()
			})
		}
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
}
