package main_test

import (
	"fmt"
	"strings"
	"testing"

	"weir/control/host/testnet"
)

// direct is a segment's address for services that answer past the balancer.
func (o *overlay) direct() string { return numbered(o.vip(), o.vni%1000+o.vni/1000*10) }

// answersPastUs is `forward: vxlan-dr`: packets reach a server behind a VTEP as the client sent them, and it answers by the host of its VTEP, which
// routes to the client's second device.
func answersPastUs(t *testing.T, b *overlayBed, d *daemon) {
	b = &overlayBed{b.with(t), b.port, b.segments}
	b.plug("client", testnet.End{Space: b.client, Name: "eth1"})
	must(t, b.client.Address("eth1", back4+"/24", back6+"/64"))
	for _, s := range b.servers {
		must(t, s.Sysctl("net/ipv4/ip_forward", "1"))
		must(t, s.Sysctl("net/ipv6/conf/all/forwarding", "1"))
		must(t, s.Route("198.18.0.0/24", back4))
		must(t, s.Route("2001:db8::/64", back6))
	}
	services := b.allServices()
	for _, seg := range b.segments {
		for i, h := range seg.hosts {
			b.answersBy(b.servers[i], seg, h)
		}
		services += fmt.Sprintf("  - {vip: %q, port: 80, scheduler: rr, forward: vxlan-dr, backends: [{address: %q, vni: %d}, {address: %q, vni: %d}]}\n",
			seg.direct(), seg.host(0), seg.vni, seg.host(1), seg.vni)
	}
	d.reload(b.config(nil, services))
	for _, seg := range b.segments {
		t.Run(seg.String(), func(t *testing.T) {
			d, x := d.with(t), b.behind(t, seg)
			x.named(80)
			want := strings.Join([]string{seg.hosts[0].Name, seg.hosts[1].Name, seg.hosts[0].Name, seg.hosts[1].Name}, " ")
			var got []string
			for range 4 {
				c, name := reach(t, x, seg.direct(), 80)
				for range 10 {
					must(t, pingPong(c, dialLimit))
				}
				c.Close()
				got = append(got, name)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("connections went to %v, not to %s", got, want)
			}
			for _, s := range d.settled().Services {
				if s.VIP.String() == seg.direct() && (s.Conns != 4 || s.InPackets < 50 || s.OutPackets != 0) {
					t.Errorf("counted %+v", s)
				}
			}
		})
	}
}

// answersBy gives a host the segment's address for direct answers, of which it keeps quiet, and has it send what comes from there to the host of its
// VTEP.
func (b *overlayBed) answersBy(s *testnet.Space, seg *overlay, h *testnet.Space) {
	b.t.Helper()
	br := fmt.Sprintf("br%d", seg.vni)
	family, bits, via := "", "/32", "198.18.64.2"
	if seg.gate6 {
		family, bits, via = "-6 ", "/128", "2001:db8:64::2"
		must(b.t, s.Sysctl("net/ipv6/conf/"+br+"/disable_ipv6", "0"))
	}
	must(b.t, h.Sysctl("net/ipv4/conf/all/arp_ignore", "1"))
	must(b.t, h.Sysctl("net/ipv4/conf/all/arp_announce", "2"))
	must(b.t, h.Address("lo", seg.direct()+bits))
	must(b.t, h.Neighbor("eth0", via, s.MAC(br)))
	must(b.t, h.IP(family+"rule add from "+seg.direct()+" lookup 100"))
	must(b.t, h.IP(family+"route add default via "+via+" dev eth0 table 100"))
}
