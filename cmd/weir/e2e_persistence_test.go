package main_test

import (
	"fmt"
	"testing"
	"time"

	"weir/control/host/testnet"
)

// crowd are addresses that the client has besides its own: four in each of two prefixes that persistence may take for one client.
func crowd(vip string) (all []string) {
	for prefix := range 2 {
		for host := range 4 {
			if vip == vip6 {
				all = append(all, fmt.Sprintf("2001:db8:c:%d::%d", 1+prefix, 1+host))
			} else {
				all = append(all, fmt.Sprintf("198.18.%d.%d", 128+prefix, 1+host))
			}
		}
	}
	return all
}

// TestPersistentClients has clients of eight addresses come to a service again and again. Each comes to the server that it, or anyone of its
// prefix, came to first, by nat and by dr, through any port of a service that has all.
func TestPersistentClients(t *testing.T) {
	f := newForwardBed(t, options{})
	f.serve(1)
	for _, fam := range families {
		bits := map[string]string{vip4: "/32", vip6: "/128"}[fam.vip]
		for _, a := range crowd(fam.vip) {
			must(t, f.client.Address("lo", a+bits))
		}
	}
	for _, s := range []*testnet.Space{f.lb, f.servers[0], f.servers[1]} {
		gw4, gw6 := client4, client6
		if s != f.lb {
			gw4, gw6 = lan4, lan6
		}
		must(t, s.Route("198.18.128.0/23", gw4))
		must(t, s.Route("2001:db8:c::/48", gw6))
	}
	service := func(vip, head string, persistence string) string {
		server := server4
		if vip == vip6 {
			server = server6
		}
		return fmt.Sprintf("  - {vip: %q, %s, scheduler: rr, persistence: {%s}, backends: [{address: %q}, {address: %q, forward: dr}]}\n",
			vip, head, persistence, server(0), server(1))
	}
	ask := func(vip, from string, port int) string {
		t.Helper()
		var name, addr string
		if port != portEcho {
			_, _ = fmt.Sscan(f.curl("--interface", from, "http://"+hostPort(vip, port)+"/who"), &name, &addr)
			if addr != from {
				t.Errorf("the server sees %q, not %s", addr, from)
			}
			return name
		}
		c, err := dialFrom(f.client, "udp", hostPort(from, 0), hostPort(vip, port))
		must(t, err)
		defer c.Close()
		return answering(t, c)
	}
	for _, fam := range families {
		for _, tc := range []struct {
			name, head, persistence string
			ports                   []int
			alike                   int // so many addresses in a row count as one client
		}{
			{"each address", "port: 80", "timeout: 60s", []int{portWeb}, 1},
			{"each address, datagrams", "port: 53, protocol: udp", "timeout: 60s", []int{portEcho}, 1},
			{"each prefix", "port: 80", "timeout: 60s, prefix: 24, prefix6: 64", []int{portWeb}, 4},
			{"every port", "port: 0", "timeout: 60s", []int{portWeb, portOther}, 1},
		} {
			t.Run(fam.name+" "+tc.name, func(t *testing.T) {
				f := f.with(t)
				d := f.start(f.config("services:", service(fam.vip, tc.head, tc.persistence)))
				first := map[int]string{} // the server of a client, by its number
				for round := range 4 {
					for n, from := range crowd(fam.vip) {
						for _, port := range tc.ports {
							got, client := ask(fam.vip, from, port), n/tc.alike
							if want, known := first[client]; known && got != want {
								t.Errorf("round %d: %s came to %s, before to %s", round, from, got, want)
							}
							first[client] = got
						}
					}
				}
				each := map[string]int{}
				for _, s := range first {
					each[s]++
				}
				if clients := len(first); each["s1"] != clients/2 || each["s2"] != clients/2 {
					t.Errorf("%d clients were spread %v", clients, each)
				}
				if s := d.settled().Services[0]; s.Backends[0].Persistent+s.Backends[1].Persistent != len(first) {
					t.Errorf("%d clients, but %d and %d are remembered", len(first), s.Backends[0].Persistent, s.Backends[1].Persistent)
				}
				d.stop()
			})
		}
	}
}

// TestPersistenceEnds has a client be forgotten when nothing of it is left for so long as the service says. Its connections are gone by then:
// while one is left, the kernel keeps the client for another minute, and so do we.
func TestPersistenceEnds(t *testing.T) {
	f := newForwardBed(t, options{})
	d := f.start(f.config("services:", fmt.Sprintf("  - {vip: %q, port: %d, protocol: udp, scheduler: rr, persistence: {timeout: 3s}, timeouts: {udp: 1s}, "+
		"backends: [{address: %q}, {address: %q}]}\n", vip4, portEcho, server4(0), server4(1))))
	ask := func() string {
		c, err := dial(f.client, "udp", hostPort(vip4, portEcho))
		must(t, err)
		defer c.Close()
		return answering(t, c)
	}
	first := ask()
	for range 3 {
		if got := ask(); got != first {
			t.Errorf("came to %s, before to %s", got, first)
		}
	}
	eventually(t, 10*time.Second, "the client is forgotten", func() bool {
		time.Sleep(100 * time.Millisecond)
		s := d.stats().Services[0]
		return s.Backends[0].Persistent+s.Backends[1].Persistent == 0
	})
	if got := ask(); got == first {
		t.Errorf("came to %s again, though it is the other's turn", got)
	}
}
