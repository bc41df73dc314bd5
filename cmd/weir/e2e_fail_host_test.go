package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host/testnet"
)

// listenAt accepts TCP connections in a namespace at address:port and echoes.
func (b *bed) listenAt(s *testnet.Space, at string) {
	b.t.Helper()
	var l net.Listener
	must(b.t, s.Exec(func() (err error) { l, err = net.Listen("tcp", at); return err }))
	b.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); echo(c) }()
		}
	}()
}

// talk connects from a namespace, exchanges a message, and leaves the connection open.
func talk(t testing.TB, s *testnet.Space, from, to string) net.Conn {
	t.Helper()
	c, err := dialFrom(s, "tcp", from, to)
	if err != nil {
		t.Fatalf("%s to %s: %v", s.Name, to, err)
	}
	t.Cleanup(func() { c.Close() })
	if err := pingPong(c, 5*time.Second); err != nil {
		t.Fatalf("%s to %s: %v", s.Name, to, err)
	}
	return c
}

// dnsAndWeb is a configuration with TCP at port 80 and UDP at port 53 of both VIPs, whose servers use the ports 8000 and 53.
func (b *bed) dnsAndWeb(more ...string) string {
	tcp, udp := "port: 80, protocol: tcp, scheduler: rr", "port: 53, protocol: udp, scheduler: rr"
	return b.config(append(more, "services:",
		b.service(vip4, tcp, 8000)+b.service(vip6, tcp, 8000)+b.service(vip4, udp, 53)+b.service(vip6, udp, 53))...)
}

// asRouter makes the balancer route between its two sides, and the client answer the servers.
func (b *bed) asRouter() {
	b.t.Helper()
	must(b.t, b.lb.Sysctl("net/ipv4/ip_forward", "1"))
	must(b.t, b.lb.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	must(b.t, b.client.Route("198.18.1.0/24", wan4))
	must(b.t, b.client.Route("2001:db8:1::/64", wan6))
}

func TestTheHostKeepsItsOwnTraffic(t *testing.T) {
	needs(t, "ping")
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			b := newBed(t, o)
			b.echoes(8000)
			b.listenAt(b.lb, ":22") // on every address, as sshd does
			early := talk(t, b.client, "", hostPort(wan4, 22))
			d := b.start(b.dnsAndWeb())
			for _, f := range families {
				works(t, b.client, hostPort(f.vip, 80), 1)
			}

			// SSH to the balancer, and to the VIP that it shares with a service; a port of the VIP that nobody has.
			ssh := []net.Conn{early}
			for _, at := range []string{wan4, wan6, vip4, vip6} {
				c := talk(t, b.client, "", hostPort(at, 22))
				if at == wan4 || at == wan6 {
					ssh = append(ssh, c)
				}
				in(t, b.client, "ping", "-c", "3", "-i", "0.05", "-W", "2", at)
			}
			if _, err := dial(b.client, "tcp", hostPort(vip4, 23)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("to a port of the VIP where nobody listens: %v, want it refused", err)
			}
			// Neighbour discovery anew: nobody remembers anybody.
			in(t, b.client, "ip", "neigh", "flush", "dev", "eth0")
			in(t, b.servers[0], "ip", "neigh", "flush", "dev", "eth0")
			in(t, b.client, "ping", "-c", "1", "-W", "2", wan6)
			in(t, b.servers[0], "ping", "-c", "1", "-W", "2", lan6)
			in(t, b.lb, "ping", "-c", "1", "-W", "2", server6(1))
			in(t, b.lb, "ping", "-c", "1", "-W", "2", server4(1))

			// Health checks from the balancer to a service's port.
			for i := range 50 {
				addr := []string{server4(i % 3), server6(i % 3)}[i%2]
				talk(t, b.lb, "", hostPort(addr, 8000)).Close()
			}
			if v := d.settled().Verdicts; v.Punted != 0 || v.Dropped != 0 {
				t.Errorf("the balancer took what is the host's: %+v, drops %s", v, d.cli("drops"))
			}

			if code := d.stop(); code != 0 {
				t.Errorf("exit %d", code)
			}
			for i, c := range ssh {
				if err := pingPong(c, 5*time.Second); err != nil {
					t.Errorf("connection %d to the balancer after weir: %v", i, err)
				}
			}
			talk(t, b.lb, "", hostPort(server4(0), 8000))
			in(t, b.client, "ping", "-c", "1", "-W", "2", wan4)
		})
	}
}

func TestTheHostsCurlReachesTheServers(t *testing.T) {
	needs(t, "curl")
	b := newBed(t, options{})
	b.nginx(0, 8000)
	b.start(b.tcp())
	for _, addr := range []string{server4(0), server6(0)} {
		for range 5 {
			if out := in(t, b.lb, "curl", "-sS", "--fail", "--globoff", "--max-time", "5", "http://"+hostPort(addr, 8000)+"/"); out != "s1\n" {
				t.Errorf("curl on the balancer to %s: %q", addr, out)
			}
		}
	}
}

func TestAServersOwnTrafficPassesThroughTheKernel(t *testing.T) {
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			b := newBed(t, o)
			b.asRouter()
			b.listenAt(b.client, ":9000")
			// A name server on the client's side that answers with what was asked and who asked.
			for _, addr := range []string{client4, client6} {
				var c net.PacketConn
				must(t, b.client.Exec(func() (err error) { c, err = net.ListenPacket("udp", hostPort(addr, 53)); return err }))
				t.Cleanup(func() { c.Close() })
				go func() {
					buf := make([]byte, 1500)
					for {
						n, from, err := c.ReadFrom(buf)
						if err != nil {
							return
						}
						_, _ = c.WriteTo(fmt.Appendf(nil, "%s from %s", buf[:n], from), from)
					}
				}()
			}
			d := b.start(b.dnsAndWeb())
			const server = 2
			for _, x := range []struct{ own, to string }{{server4(server), client4}, {server6(server), client6}} {
				// Its own queries, from the port of its service.
				c, err := dialFrom(b.servers[server], "udp", hostPort(x.own, 53), hostPort(x.to, 53))
				must(t, err)
				defer c.Close()
				for i := range 20 {
					must(t, c.SetDeadline(time.Now().Add(5*time.Second)))
					query := fmt.Sprintf("query %d", i)
					if _, err := io.WriteString(c, query); err != nil {
						t.Fatal(err)
					}
					buf := make([]byte, 1500)
					n, err := c.Read(buf)
					if want := query + " from " + hostPort(x.own, 53); err != nil || string(buf[:n]) != want {
						t.Fatalf("answer %q, %v, want %q", buf[:n], err, want)
					}
				}
				// Its own connection, from the port of its service.
				own := talk(t, b.servers[server], hostPort(x.own, 8000), hostPort(x.to, 9000))
				for range 20 {
					if err := pingPong(own, 5*time.Second); err != nil {
						t.Fatal(err)
					}
				}
				// Others do not come near weir.
				talk(t, b.servers[server], "", hostPort(x.to, 9000))
			}
			v := d.settled().Verdicts
			if v.Punted < 2*(20+20) || v.Punted != v.Received {
				t.Errorf("%+v: want the 20 queries and the 20 messages of both families punted, nothing else received", v)
			}
			if l, err := b.lb.Host().Link("weir0"); err != nil || !l.Up {
				t.Errorf("weir0: %+v, %v", l, err)
			}
		})
	}
}

func TestSteeringWithoutBoundVIPs(t *testing.T) {
	for _, operator := range []bool{true, false} {
		t.Run(map[bool]string{true: "the operator bound them", false: "nobody did"}[operator], func(t *testing.T) {
			b := newBed(t, options{})
			b.echoes(8000)
			if operator {
				must(t, b.lb.Address("lo", vip4+"/32", vip6+"/128"))
				b.listenAt(b.lb, ":22")
			}
			d := b.start(b.tcp("bind_vips: false"))
			for _, vip := range []string{vip4, vip6} {
				works(t, b.client, hostPort(vip, 80), 3)
				if operator {
					talk(t, b.client, "", hostPort(vip, 22))
				}
				if has(t, b.lb, vip) != operator {
					t.Errorf("%s is on the host: %v", vip, !operator)
				}
			}
			d.reload(b.tcp("bind_vips: false", "grace: 5s"))
			if code := d.stop(); code != 0 {
				t.Errorf("exit %d", code)
			}
			for _, vip := range []string{vip4, vip6} {
				if has(t, b.lb, vip) != operator {
					t.Errorf("%s after weir: on the host %v, want %v", vip, !operator, operator)
				}
			}
			if strings.Contains(d.log.String(), "level=ERROR") {
				t.Errorf("errors in the log:\n%s", d.log)
			}
		})
	}
}
