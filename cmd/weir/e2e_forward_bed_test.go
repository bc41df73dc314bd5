package main_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"weir/control/host/testnet"
)

// Addresses of a forwarding bed besides those of every bed.
const (
	back4, back6     = "198.18.1.2", "2001:db8:1::2" // the client on the servers' link
	router4, router6 = "198.18.1.3", "2001:db8:1::3" // on the servers' link
	local4, local6   = "198.18.1.4", "2001:db8:1::4" // fullnat's; nobody has it but by the balancer
	remote4, remote6 = "198.18.2.11", "2001:db8:2::11"
	remoteMTU        = 1300 // of the link between the router and the remote server
)

// forwardBed is a two-armed bed whose servers are set up for every way a balancer forwards:
//
//	client eth0 ---- wan  lb  lan ---- switch ---- eth0 of s1, s2, s3
//	       eth1 -----------------------'    '----- eth0 router eth1 ---- eth0 of remote
//	                                                          (1300 bytes)
//
// s1, s2 and remote have the VIPs on lo, keep quiet about them, and have the ends of all tunnels. What they send from a VIP goes to the client's
// eth1, past the balancer; what they send from their own address goes by the balancer. s3 knows its own link and nothing else: no VIP, no
// route to the client. remote believes that all links carry 1500 bytes, so that it and the client learn of the narrow one on the way.
type forwardBed struct {
	*bed
	router *testnet.Space
	remote *testnet.Space
	ends   map[*testnet.Space]*receiver
}

// forwardVIPs are on the lo of s1, s2 and remote.
func forwardVIPs() (all []string) {
	all = []string{vip4, vip6}
	for i := range 40 {
		all = append(all, numbered(vip4, i), numbered(vip6, i))
	}
	return all
}

// numbered is the i-th further VIP of vip's family.
func numbered(vip string, i int) string {
	if strings.Contains(vip, ":") {
		return fmt.Sprintf("2001:db8:9::%x", 0x100+i)
	}
	return fmt.Sprintf("198.18.9.%d", 100+i)
}

func newForwardBed(t testing.TB, o options) *forwardBed {
	t.Helper()
	f := &forwardBed{bed: newBed(t, o), ends: map[*testnet.Space]*receiver{}}
	f.plug("client", testnet.End{Space: f.client, Name: "eth1"})
	must(t, f.client.Address("eth1", back4+"/24", back6+"/64"))
	f.router, f.remote = f.space("router"), f.space("remote")
	f.plug("router", testnet.End{Space: f.router, Name: "eth0"})
	must(t, f.net.Veth(testnet.End{Space: f.router, Name: "eth1", MTU: remoteMTU}, testnet.End{Space: f.remote, Name: "eth0", MTU: remoteMTU}))
	must(t, f.router.Address("eth0", router4+"/24", router6+"/64"))
	must(t, f.router.Address("eth1", "198.18.2.1/24", "2001:db8:2::1/64"))
	must(t, f.remote.Address("eth0", remote4+"/24", remote6+"/64"))
	must(t, f.router.Sysctl("net/ipv4/ip_forward", "1"))
	must(t, f.router.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	for _, s := range append([]*testnet.Space{f.router, f.remote}, f.servers...) { // a test may ask for more errors than one a second
		must(t, s.Sysctl("net/ipv4/icmp_ratelimit", "0"))
		must(t, s.Sysctl("net/ipv6/icmp/ratelimit", "0"))
	}
	must(t, f.lb.Route("198.18.2.0/24", router4))
	must(t, f.lb.Route("2001:db8:2::/64", router6))
	for _, s := range []*testnet.Space{f.servers[0], f.servers[1], f.router} {
		f.twoWays(s)
	}
	for _, line := range []string{"route del default", "-6 route del default"} {
		must(t, f.servers[2].IP(line))
	}
	for _, line := range []string{"route add default via 198.18.2.1 advmss 1460", "-6 route add default via 2001:db8:2::1 advmss 1440"} {
		must(t, f.remote.IP(line))
	}
	f.servers = append(f.servers, f.remote)
	for i, s := range f.servers {
		own := []string{server4(i), server6(i)}
		if s == f.remote {
			own = []string{remote4, remote6}
		}
		if i != 2 {
			f.ends[s] = f.receive(s, map[bool]int{true: 1}[s == f.remote], own...)
			f.quiet(s, forwardVIPs())
			own = append(own, forwardVIPs()...)
		}
		f.answerAt(s, 53, own)
	}
	return f
}

// twoWays has a space send what comes from a VIP straight to the client, and all else by the balancer.
func (f *forwardBed) twoWays(s *testnet.Space) {
	f.t.Helper()
	for _, line := range []string{
		"route replace default via " + lan4, "rule add from 198.18.9.0/24 lookup 100", "route add default via " + back4 + " table 100",
		"-6 route replace default via " + lan6, "-6 rule add from 2001:db8:9::/64 lookup 100", "-6 route add default via " + back6 + " table 100",
	} {
		must(f.t, s.IP(line))
	}
}

// quiet puts VIPs on a server's lo so that nobody on the link learns of them, as dr and tunnels need it.
func (f *forwardBed) quiet(s *testnet.Space, vips []string) {
	f.t.Helper()
	for key, value := range map[string]string{"arp_ignore": "1", "arp_announce": "2", "rp_filter": "0"} {
		must(f.t, s.Sysctl("net/ipv4/conf/all/"+key, value))
	}
	must(f.t, s.Sysctl("net/ipv4/conf/tun0/rp_filter", "0"))
	var on []string
	for _, v := range vips {
		bits := "/32"
		if strings.Contains(v, ":") {
			bits = "/128"
		}
		on = append(on, v+bits)
	}
	must(f.t, s.Address("lo", on...))
}

// answerAt answers every datagram to a port of these addresses with the server's name and what it said, from the address asked.
func (f *forwardBed) answerAt(s *testnet.Space, port int, addrs []string) {
	f.t.Helper()
	for _, a := range addrs {
		var c net.PacketConn
		must(f.t, s.Exec(func() (err error) {
			c, err = net.ListenPacket("udp", hostPort(a, port))
			return err
		}))
		f.t.Cleanup(func() { c.Close() })
		go answerAll(c, s.Name)
	}
}

// answerAll answers until the socket is closed.
func answerAll(c net.PacketConn, name string) {
	buf := make([]byte, 16<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = c.WriteTo(append([]byte(name+" "), buf[:n]...), from)
		}
	}
}

// with is the bed in the hands of a subtest.
func (f *forwardBed) with(t testing.TB) *forwardBed {
	x := *f
	x.bed = f.bed.with(t)
	return &x
}
