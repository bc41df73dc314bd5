package main_test

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weir/control/host/testnet"
)

// far4 and far6 are a client behind two routers, which the balancer reaches by a default route of two next hops.
const far4, far6 = "203.0.113.2", "2001:db8:f::2"

// routers puts two routers and a client behind them beside the balancer of a one-armed bed:
//
//	          /-- r1 (.21) --\
//	switch ---                --- far
//	          \-- r2 (.22) --/
func (b *bed) routers() (far *testnet.Space, routers []*testnet.Space) {
	b.t.Helper()
	far = b.space("far")
	must(b.t, far.Address("lo", far4+"/32", far6+"/128"))
	for _, what := range []string{"net/ipv4/conf/all/rp_filter", "net/ipv4/conf/default/rp_filter"} {
		must(b.t, far.Sysctl(what, "0"))
	}
	for i := range 2 {
		name := fmt.Sprintf("r%d", i+1)
		r := b.space(name)
		routers = append(routers, r)
		must(b.t, r.Sysctl("net/ipv4/ip_forward", "1"))
		must(b.t, r.Sysctl("net/ipv6/conf/all/forwarding", "1"))
		must(b.t, r.Sysctl("net/ipv4/conf/all/send_redirects", "0"))
		b.plug(name, testnet.End{Space: r, Name: "eth0", MAC: fmt.Sprintf("02:00:00:00:04:%02x", 21+i)})
		must(b.t, b.net.Veth(testnet.End{Space: r, Name: "eth1"}, testnet.End{Space: far, Name: name}))
		must(b.t, r.Address("eth0", fmt.Sprintf("198.18.0.%d/24", 21+i), fmt.Sprintf("2001:db8::%d/64", 21+i)))
		must(b.t, r.Address("eth1", fmt.Sprintf("198.18.%d.1/24", 4+i), fmt.Sprintf("2001:db8:%d::1/64", 4+i)))
		must(b.t, far.Address(name, fmt.Sprintf("198.18.%d.2/24", 4+i), fmt.Sprintf("2001:db8:%d::2/64", 4+i)))
		must(b.t, r.Route(far4+"/32", fmt.Sprintf("198.18.%d.2", 4+i)))
		must(b.t, r.Route(far6+"/128", fmt.Sprintf("2001:db8:%d::2", 4+i)))
		must(b.t, r.Route("198.18.9.0/24", wan4))
		must(b.t, r.Route("2001:db8:9::/64", wan6))
	}
	must(b.t, far.IP("route add 198.18.9.0/24 via 198.18.4.1 src "+far4)) // requests all come by r1; it is the answers that are spread
	must(b.t, far.IP("-6 route add 2001:db8:9::/64 via 2001:db8:4::1 src "+far6))
	must(b.t, b.lb.IP("route add default nexthop via 198.18.0.21 nexthop via 198.18.0.22"))
	must(b.t, b.lb.IP("-6 route add default nexthop via 2001:db8::21 nexthop via 2001:db8::22"))
	return far, routers
}

// paths are the routers that the answers of each flow went by, as bits.
type paths struct {
	mu sync.Mutex
	by map[netip.AddrPort]int // by the client's side of the flow
}

func (p *paths) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.by = map[netip.AddrPort]int{}
}

// count is how many flows of a client went by exactly these routers.
func (p *paths) count(client string, routers int) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for to, by := range p.by {
		if by == routers && to.Addr().String() == client {
			n++
		}
	}
	return n
}

func TestFlowsAreSpreadOverAllRoutersAndStayOnTheirs(t *testing.T) {
	const flowsEach = 32
	b := newBed(t, options{oneArm: true})
	b.echoes(8000)
	far, routers := b.routers()
	seen := &paths{by: map[netip.AddrPort]int{}}
	for i, r := range routers {
		tap(t, r, "eth0", func(s segment) {
			if a := s.dst.Addr().String(); a == far4 || a == far6 {
				seen.mu.Lock()
				seen.by[s.dst] |= 1 << i
				seen.mu.Unlock()
			}
		})
	}
	d := b.start(b.tcp())
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			client := far4
			if f.name == "IPv6" {
				client = far6
			}
			seen.forget()
			all := make([]net.Conn, flowsEach)
			for i := range all {
				all[i] = talk(t, far, "", hostPort(f.vip, 80))
			}
			round := func() {
				t.Helper()
				for i, c := range all {
					if err := pingPong(c, 5*time.Second); err != nil {
						t.Fatalf("flow %d: %v", i, err)
					}
				}
			}
			for range 5 {
				round()
			}
			one, two, both := seen.count(client, 1), seen.count(client, 2), seen.count(client, 3)
			t.Logf("%d flows by the first router, %d by the second", one, two)
			// Of 32 fair coins fewer than 5 fall on one side once in 80,000 times.
			if one+two != flowsEach || one < 5 || two < 5 || both != 0 {
				t.Errorf("of %d flows %d went by the first router, %d by the second, %d by both", flowsEach, one, two, both)
			}

			// The first router is taken out: its flows go by the other, all live on.
			family, second := "-4", "198.18.0.22"
			if f.name == "IPv6" {
				family, second = "-6", "2001:db8::22"
			}
			must(t, b.lb.IP(family+" route replace default via "+second))
			if family == "-6" { // the kernel replaces one next hop of an IPv6 route, and may keep the other
				_ = b.lb.IP("-6 route del default via 2001:db8::21")
			}
			eventually(t, 5*time.Second, "all answers go by the second router", func() bool {
				seen.forget()
				round()
				return seen.count(client, 2) == flowsEach
			})
			// And the route to nowhere and back.
			before := d.settled().Drops["no_route"]
			must(t, b.lb.IP(family+" route del default"))
			eventually(t, 5*time.Second, "answers have no route", func() bool {
				_, _ = all[0].Write([]byte("x"))
				return d.now().Drops["no_route"] > before
			})
			must(t, b.lb.IP(family+" route add default via "+second))
			all = all[1:] // the first has an answer more than was asked for
			eventually(t, 5*time.Second, "answers go again", func() bool { return pingPong(all[0], time.Second) == nil })
			for i, c := range all[1:] {
				if err := pingPong(c, 5*time.Second); err != nil {
					t.Errorf("flow %d: %v", i, err)
				}
			}
		})
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	b.nothingLeft(d)
}
