package main_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host"
)

// neighbor is an entry of the balancer's neighbour table; the zero value if there is none.
func (b *bed) neighbor(addr string) (found host.Neighbor) {
	b.t.Helper()
	all, err := b.lb.Host().Neighbors()
	must(b.t, err)
	for _, n := range all {
		if n.Addr == netip.MustParseAddr(addr) {
			found = n
		}
	}
	return found
}

func TestPacketsForAServerThatIsDownWaitAndAreDropped(t *testing.T) {
	for _, o := range drivers {
		for _, f := range []struct{ name, vip, server string }{{"IPv4", vip4, server4(0)}, {"IPv6", vip6, server6(0)}} {
			t.Run(o.String()+" "+f.name, func(t *testing.T) {
				t.Parallel() // it mostly waits
				o := o
				o.servers = 1
				b := newBed(t, o)
				b.answerUDP(0, 53, func(q []byte) []byte { return q })
				must(t, b.fabric.IP("link set s1 down")) // the cable is pulled
				d := b.start(b.dnsAndWeb())
				c, err := dial(b.client, "udp", hostPort(f.vip, 53))
				must(t, err)
				defer c.Close()
				// The first sixteen wait for a second; those behind them find no room. On a busy machine we may look too late: then once more.
				const waiting, burst = 16, 18
				seen := false
				for sent := uint64(0); !seen && sent < 5*burst; {
					for range burst {
						_, err := c.Write([]byte("query"))
						must(t, err)
					}
					sent += burst
					eventually(t, 5*time.Second, "all are dropped for want of a neighbour", func() bool {
						s := d.now()
						if s.Verdicts.Held > waiting {
							t.Fatalf("%d are held for one next hop", s.Verdicts.Held)
						}
						seen = seen || s.Verdicts.Held == waiting && s.Drops["no_neighbor"] == sent-waiting
						return s.Verdicts.Held == 0 && s.Drops["no_neighbor"] == sent
					})
				}
				if !seen {
					t.Errorf("%d were never held with %d dropped at once", waiting, burst-waiting)
				}
				d.settled()

				must(t, b.fabric.IP("link set s1 up"))
				eventually(t, 20*time.Second, "an answer", func() bool {
					must(t, c.SetDeadline(time.Now().Add(300*time.Millisecond)))
					if _, err := c.Write([]byte("query")); err != nil {
						return false
					}
					_, err := c.Read(make([]byte, 64))
					return err == nil
				})
				was := d.settled().Drops["no_neighbor"]
				for range 10 {
					must(t, c.SetDeadline(time.Now().Add(5*time.Second)))
					if _, err := c.Write([]byte("query")); err != nil {
						t.Fatal(err)
					}
					if _, err := c.Read(make([]byte, 64)); err != nil {
						t.Fatal(err)
					}
				}
				if now := d.settled().Drops["no_neighbor"]; now != was {
					t.Errorf("%d dropped after the server came back", now-was)
				}
			})
		}
	}
}

func TestTheKernelKeepsServersAndGatewaysResolved(t *testing.T) {
	b := newBed(t, options{})
	b.echoes(8000)
	for _, family := range []string{"ipv4", "ipv6"} {
		for _, dev := range b.ports() {
			must(t, b.lb.Sysctl("net/"+family+"/neigh/"+dev+"/base_reachable_time_ms", "500")) // of 30 s
		}
	}
	const gateway = "198.18.0.2"
	must(t, b.lb.Route("default", gateway))
	const permanent = "198.18.1.12" // server 1
	must(t, b.lb.Neighbor("lan", permanent, serverMAC(1)))
	before := in(t, b.lb, "ip", "-d", "neigh", "show", permanent)
	const brief = "conntrack: {timeouts: {tcp_established: 3s, tcp_fin_wait: 1s, tcp_time_wait: 1s, tcp_close: 1s, tcp_close_wait: 1s, tcp_last_ack: 1s}}"
	d := b.start(b.tcp(brief))
	kept := []string{gateway, server4(0), server4(2), server6(0), server6(1), server6(2)}
	for _, addr := range kept {
		eventually(t, 5*time.Second, addr+" is kept resolved", func() bool {
			n := b.neighbor(addr)
			return n.Managed && n.Valid()
		})
	}
	// Without a packet to any of them: each turns stale and becomes reachable again (the kernel probes every 5 s), and is valid all the time.
	stale, again := map[string]bool{}, map[string]bool{}
	eventually(t, 20*time.Second, "all are probed by the kernel", func() bool {
		for _, addr := range kept {
			n := b.neighbor(addr)
			if !n.Valid() {
				t.Fatalf("%s is not valid: %+v", addr, n)
			}
			if n.State&unix.NUD_REACHABLE == 0 {
				stale[addr] = true
			} else if stale[addr] {
				again[addr] = true
			}
		}
		return len(again) == len(kept)
	})
	works(t, b.client, hostPort(vip4, 80), 3)
	if after := in(t, b.lb, "ip", "-d", "neigh", "show", permanent); after != before || !strings.Contains(after, "PERMANENT") {
		t.Errorf("the operator's neighbour was %q, is %q", before, after)
	}
	// A server that is removed is let go, as soon as no connection bears it any more; one that is added is kept.
	all := streams(t, b.client, hostPort(vip4, 80), 3, 5*time.Second) // one at each
	d.reload(b.config(brief, "services:", b.service(vip4, "port: 80, protocol: tcp, scheduler: rr", 8000, 1)))
	if !b.neighbor(server4(2)).Managed {
		t.Errorf("%s was let go, while a connection to it is there", server4(2))
	}
	eventually(t, 5*time.Second, "servers without a connection are let go", func() bool {
		return b.neighbor(server4(0)).Managed && !b.neighbor(server6(0)).Managed
	})
	for _, x := range all {
		x.conn.Close()
	}
	eventually(t, 30*time.Second, "servers whose connections have ended are let go", func() bool {
		return b.neighbor(server4(0)).Managed && !b.neighbor(server4(2)).Managed
	})
	d.reload(b.tcp(brief))
	eventually(t, 5*time.Second, "they are kept again", func() bool { return b.neighbor(server4(2)).Managed && b.neighbor(server6(0)).Managed })
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	b.nothingLeft(d)
	if after := in(t, b.lb, "ip", "-d", "neigh", "show", permanent); after != before {
		t.Errorf("the operator's neighbour was %q, is %q after weir", before, after)
	}
}
