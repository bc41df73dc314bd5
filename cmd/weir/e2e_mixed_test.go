package main_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// everywhere is a service's backends, one of each kind: nat, dr, fullnat and, behind a router, a tunnel of the other family.
func everywhere(vip string) (backends, options string) {
	server, lan, far, tunnel := server4, lan4, remote6, "gue"
	if strings.Contains(vip, ":") {
		server, lan, far, tunnel = server6, lan6, remote4, "gre"
	}
	return fmt.Sprintf("[{address: %q}, {address: %q, forward: dr}, {address: %q, forward: fullnat}, {address: %q, forward: %s}]",
		server(0), server(1), server(2), far, tunnel), fmt.Sprintf("fullnat: {addresses: [%q], ports: 40000-44999}", lan)
}

// TestModesInOneService has one service forward to four servers in four ways, over TCP and UDP, one connection after the other, and then a
// server's mode be changed under a connection: with every driver, and with two workers.
func TestModesInOneService(t *testing.T) {
	for _, o := range append(drivers, options{queues: 2}) {
		name := o.String()
		if o.queues > 0 {
			name = fmt.Sprint(o.queues, " workers")
		}
		t.Run(name, func(t *testing.T) { modesInOneService(t, newForwardBed(t, o)) })
	}
}

func modesInOneService(t *testing.T, f *forwardBed) {
	f.serve(1 << 20)
	var services []string
	for _, fam := range families {
		backends, options := everywhere(fam.vip)
		for _, head := range []string{"port: 80", "port: 9000", "port: 53, protocol: udp"} {
			services = append(services, fmt.Sprintf("  - {vip: %q, %s, scheduler: rr, %s, backends: %s}\n", fam.vip, head, options, backends))
		}
	}
	d := f.start(f.config("services:", strings.Join(services, "")))
	for i, fam := range families {
		client, lan := []string{client4, client6}[i], []string{lan4, lan6}[i]
		want := []string{"s1 " + client, "s2 " + client, "s3 " + lan, "remote " + client}
		for round := range 3 {
			for n, want := range want {
				if got := f.curl("http://" + hostPort(fam.vip, portWeb) + "/who"); got != want+"\n" {
					t.Errorf("%s: request %d: %q, want %q", fam.name, 4*round+n, got, want)
				}
				if err := f.upload(fam.vip, 100_000); err != nil {
					t.Errorf("%s: upload %d: %v", fam.name, 4*round+n, err)
				}
				c, err := dial(f.client, "udp", hostPort(fam.vip, portEcho))
				must(t, err)
				defer c.Close()
				name, _, _ := strings.Cut(want, " ")
				if err := say(c, name, 100); err != nil {
					t.Errorf("%s: datagram %d: %v", fam.name, 4*round+n, err)
				}
			}
		}
		for n, s := range d.settled().Services[3*i : 3*i+3] {
			for _, b := range s.Backends {
				if b.Conns != 3 {
					t.Errorf("%s: service %d: backend %s has got %d connections of 12", fam.name, n, b.Name, b.Conns)
				}
			}
		}
	}
	// What is under way stays in its mode; only what begins is forwarded as the file says now.
	c, err := dial(f.client, "udp", hostPort(vip4, portEcho))
	must(t, err)
	defer c.Close()
	must(t, say(c, "s1", 100)) // by nat
	tunneled := f.ends[f.servers[0]].taken.Load()
	for i, s := range services {
		services[i] = strings.Replace(s, "backends: [{address: ", "backends: [{forward: ipip, address: ", 1)
	}
	d.reload(f.config("services:", strings.Join(services, "")))
	must(t, say(c, "s1", 100))
	if n := f.ends[f.servers[0]].taken.Load(); n != tunneled {
		t.Errorf("%d packets of a connection that began by nat came through a tunnel", n-tunneled)
	}
	var names []string
	for range 4 {
		c, err := dial(f.client, "udp", hostPort(vip4, portEcho))
		must(t, err)
		defer c.Close()
		names = append(names, answering(t, c))
	}
	if slices.Sort(names); !slices.Equal(names, []string{"remote", "s1", "s2", "s3"}) {
		t.Errorf("four datagrams were answered by %v", names)
	}
	if n := f.ends[f.servers[0]].taken.Load(); n != tunneled+1 {
		t.Errorf("%d packets came through the tunnel to s1, want the one of the new connection", n-tunneled)
	}
	f.ends[f.servers[0]].count(t, "ipip 4in4")
}

// answering is the name of the server that answers a datagram.
func answering(t testing.TB, c net.Conn) string {
	t.Helper()
	must(t, c.SetDeadline(time.Now().Add(dialLimit)))
	_, err := c.Write([]byte("?"))
	must(t, err)
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatalf("no server answers: %v", err)
	}
	name, _, _ := strings.Cut(string(buf[:n]), " ")
	return name
}

// TestOnePacketSpreadsOneSocket has every datagram of one socket scheduled anew, and the servers' answers, which go past the balancer, all
// arrive at that socket.
func TestOnePacketSpreadsOneSocket(t *testing.T) {
	f := newForwardBed(t, options{})
	var services string
	for _, fam := range families {
		server, far := server4, remote4
		if fam.vip == vip6 {
			server, far = server6, remote6
		}
		services += fmt.Sprintf("  - {vip: %q, port: %d, protocol: udp, scheduler: wrr, one_packet: true, forward: dr, backends: "+
			"[{address: %q}, {address: %q, weight: 2}, {address: %q, forward: gue}]}\n", fam.vip, portEcho, server(0), server(1), far)
	}
	d := f.start(f.config("services:", services))
	for i, fam := range families {
		c, err := dial(f.client, "udp", hostPort(fam.vip, portEcho))
		must(t, err)
		defer c.Close()
		got := map[string]int{}
		for range 40 {
			got[answering(t, c)]++
		}
		if got["s1"] != 10 || got["s2"] != 20 || got["remote"] != 10 {
			t.Errorf("%s: 40 datagrams of one socket were answered by %v", fam.name, got)
		}
		s := d.settled().Services[i]
		if s.Conns != 40 || s.InPackets != 40 {
			t.Errorf("%s: counted %d connections and %d packets", fam.name, s.Conns, s.InPackets)
		}
		for _, b := range s.Backends {
			if b.Active+b.Inactive != 0 {
				t.Errorf("%s: backend %s has %d connections after their only packet", fam.name, b.Name, b.Active+b.Inactive)
			}
		}
	}
}
