package main_test

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	"weir/control/host/testnet"
)

// What an overlay bed has besides what every bed has. Tenants are alike in all segments, to the last address: only the VNI tells them apart.
const (
	tenantNet4, tenantNet6   = "198.18.64.0/24", "2001:db8:64::/64"
	tenantGate4, tenantGate6 = "198.18.64.1", "2001:db8:64::1"
	gateMAC                  = "02:00:00:00:64:01"
	staticMAC                = "02:00:00:00:64:99" // a station of which only the configuration knows, behind the second VTEP
	tenantMTU                = 1450                // over IPv4 the underlay carries no more
	tenantMTU6               = 1430                // over IPv6
	vxlanPort                = 4789

	ourVTEP4, ourVTEP6     = "192.0.2.1", "2001:db8:fe::1"
	theirVTEP4, theirVTEP6 = "192.0.2.11", "2001:db8:fe::11" // of the first VTEP, as ours on no link
)

// tenant4, tenant6 and tenantMAC are those of host i behind VTEP i, from 0, and of the access host i+10.
func tenant4(i int) string   { return fmt.Sprintf("198.18.64.%d", 11+i) }
func tenant6(i int) string   { return fmt.Sprintf("2001:db8:64::%d", 11+i) }
func tenantMAC(i int) string { return fmt.Sprintf("02:00:00:00:64:%02x", 11+i) }

// overlay is one segment of an overlay bed.
type overlay struct {
	vni    int
	over6  bool             // the underlay is IPv6
	gate6  bool             // the gateway is IPv6; hosts speak both
	udp    int              // UDP port, 0: the bed's
	group  string           // floods go there; empty: to each peer
	routed bool             // our VTEP and the first are on no link, as it is done where the underlay is routed
	hosts  []*testnet.Space // hosts[i] is behind VTEP i
	access []*testnet.Space // on devices of the balancer, see port
}

// port is the balancer's device that access host i is on.
func (o *overlay) port(i int) string { return fmt.Sprintf("acc%d%c", o.vni, 'a'+i) }

func (o *overlay) String() string { return fmt.Sprintf("VNI %d over %s", o.vni, o.underlay()) }

func (o *overlay) underlay() string {
	if o.over6 {
		return "IPv6"
	}
	return "IPv4"
}

// portOf is a segment's UDP port.
func (b *overlayBed) portOf(seg *overlay) int { return cmp.Or(seg.udp, b.port) }

// ours is the balancer's VTEP.
func (o *overlay) ours() string { return o.vtepOf(lan4, lan6, ourVTEP4, ourVTEP6) }

// theirs is VTEP i.
func (o *overlay) theirs(i int) string {
	if i == 0 {
		return o.vtepOf(server4(0), server6(0), theirVTEP4, theirVTEP6)
	}
	return o.vtepOf(server4(i), server6(i), server4(i), server6(i))
}

func (o *overlay) vtepOf(link4, link6, routed4, routed6 string) string {
	switch {
	case o.routed && o.over6:
		return routed6
	case o.routed:
		return routed4
	case o.over6:
		return link6
	}
	return link4
}

// mtu is how much the underlay leaves to tenants.
func (o *overlay) mtu() int {
	if o.over6 {
		return tenantMTU6
	}
	return tenantMTU
}

// host is the address of host i in the gateway's family.
func (o *overlay) host(i int) string {
	if o.gate6 {
		return tenant6(i)
	}
	return tenant4(i)
}

// overlayBed is a bed whose servers are VTEPs made of the kernel's own vxlan devices and bridges, one of each for every segment, with a host
// behind each, and more hosts on devices of the balancer:
//
//	client ---- wan  lb  lan ---- switch ---- eth0 s1 vx5001 - br5001 ---- host 0
//	                 | |                 '--- eth0 s2 vx5001 - br5001 ---- host 1
//	   host 10, 11 --' '-- acc5001a, acc5001b
//
// All devices carry 1500 bytes but those of tenants, which carry what fits into a tunnel.
type overlayBed struct {
	*bed
	port     int // UDP
	segments []*overlay
}

// newOverlayBed makes the bed. The balancer's end is not made: see config, and kernelEnd.
func newOverlayBed(t testing.TB, o options, port int, segments ...*overlay) *overlayBed {
	t.Helper()
	needs(t, "ip", "bridge")
	o.servers = 2
	b := &overlayBed{bed: newBed(t, o), port: port, segments: segments}
	for _, s := range append([]*testnet.Space{b.lb}, b.servers...) {
		must(t, s.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")) // the bridges and their ports do not speak themselves
	}
	b.probeKernel()
	must(t, b.lb.Address("lo", ourVTEP4+"/32", ourVTEP6+"/128"))
	must(t, b.servers[0].Address("lo", theirVTEP4+"/32", theirVTEP6+"/128"))
	for _, s := range b.servers {
		must(t, s.Route(ourVTEP4+"/32", lan4))
		must(t, s.Route(ourVTEP6+"/128", lan6))
		if s != b.servers[0] {
			must(t, s.Route(theirVTEP4+"/32", server4(0)))
			must(t, s.Route(theirVTEP6+"/128", server6(0)))
		}
	}
	must(t, b.lb.Route(theirVTEP4+"/32", server4(0)))
	must(t, b.lb.Route(theirVTEP6+"/128", server6(0)))
	b.acquainted()
	for _, seg := range segments {
		for i := range b.servers {
			b.vtep(seg, b.servers[i], seg.theirs(i), seg.ours(), seg.theirs(1-i))
			h := b.tenant(seg, b.servers[i], fmt.Sprintf("h%d", seg.vni), fmt.Sprintf("%dh%d", seg.vni, i), i)
			must(t, b.servers[i].IP(fmt.Sprintf("link set h%d master br%d", seg.vni, seg.vni)))
			seg.hosts = append(seg.hosts, h)
		}
		for i := range seg.access {
			seg.access[i] = b.tenant(seg, b.lb, seg.port(i), fmt.Sprintf("%da%d", seg.vni, i), 10+i)
		}
	}
	return b
}

// probeKernel skips the test on a kernel without what the other ends are made of.
func (b *overlayBed) probeKernel() {
	b.t.Helper()
	for _, kind := range []string{"bridge", "vxlan id 1 dstport 4789"} {
		if err := b.servers[0].IP("link add probe type " + kind); err != nil {
			b.t.Skipf("this kernel has no such device: %v", err)
		}
		must(b.t, b.servers[0].IP("link del probe"))
	}
}

// acquainted has the ends of all tunnels know each other's hardware addresses, so that no frame waits for them, or is lost waiting.
func (b *overlayBed) acquainted() {
	b.t.Helper()
	needs(b.t, "ping")
	ends := map[*testnet.Space][]string{b.lb: {lan4, lan6}, b.servers[0]: {server4(0), server6(0)}, b.servers[1]: {server4(1), server6(1)}}
	for s := range ends {
		for other, addrs := range ends {
			for _, a := range addrs {
				if s != other {
					in(b.t, s, "ping", "-n", "-c1", "-W2", a)
				}
			}
		}
	}
}

// vtep makes a vxlan device on a bridge of its own, which floods to these peers. Device and bridge learn. Over IPv6 the first
// VTEP wants UDP checksums, as the kernel does unless told otherwise, and sends none; the second sends them. Over IPv4 neither does.
func (b *overlayBed) vtep(seg *overlay, s *testnet.Space, local string, peers ...string) {
	b.t.Helper()
	dev := "eth0"
	if s == b.lb {
		dev = "lan"
	}
	options := "noudpcsum df set"
	switch {
	case !seg.over6:
	case s == b.servers[0]:
		options = "udp6zerocsumtx"
	default:
		options = "udp6zerocsumrx"
	}
	if seg.group != "" {
		options, peers = options+" ttl 64 group "+seg.group, nil
	}
	for _, line := range []string{
		fmt.Sprintf("link add br%d type bridge mcast_snooping 0", seg.vni),
		fmt.Sprintf("link add vx%d type vxlan id %d local %s dev %s dstport %d srcport 49152 65535 %s", seg.vni, seg.vni, local, dev, b.portOf(seg), options),
		fmt.Sprintf("link set vx%d master br%d", seg.vni, seg.vni),
		fmt.Sprintf("link set vx%d up", seg.vni),
		fmt.Sprintf("link set br%d up", seg.vni),
	} {
		must(b.t, s.IP(line))
	}
	for _, peer := range peers {
		b.fdb(s, fmt.Sprintf("append 00:00:00:00:00:00 dev vx%d dst %s", seg.vni, peer))
	}
}

// fdb runs `bridge fdb`.
func (b *overlayBed) fdb(s *testnet.Space, line string) string {
	b.t.Helper()
	return in(b.t, s, "bridge", append([]string{"fdb"}, strings.Fields(line)...)...)
}

// tenant makes host i of a segment, whose link ends in dev of s. It has both families, and the gateway is its default route. The kernel's
// end of a tunnel has an MTU that fits, so all of a segment have it; the balancer's ports carry 1500 bytes.
func (b *overlayBed) tenant(seg *overlay, s *testnet.Space, dev, name string, i int) *testnet.Space {
	b.t.Helper()
	h := b.space(name)
	near, far := testnet.End{Space: h, Name: "eth0", MAC: tenantMAC(i), MTU: seg.mtu()}, testnet.End{Space: s, Name: dev, MTU: seg.mtu()}
	if s == b.lb {
		far.MTU, far.Queues, near.Queues = 1500, b.options.queues, b.options.queues
	}
	must(b.t, b.net.Veth(near, far))
	must(b.t, h.Address("eth0", tenant4(i)+"/24", tenant6(i)+"/64"))
	gate := tenantGate4
	if seg.gate6 {
		gate = tenantGate6
	}
	must(b.t, h.Route("default", gate))
	must(b.t, h.Sysctl("net/ipv4/icmp_ratelimit", "0"))
	must(b.t, h.Sysctl("net/ipv6/icmp/ratelimit", "0"))
	return h
}

// kernelEnd puts the kernel in the balancer's place, for as long as the test runs: a VTEP as all others, with the access ports on its bridge. What
// tests want of the balancer must be true of it, too.
func (b *overlayBed) kernelEnd(t testing.TB) {
	t.Helper()
	for _, seg := range b.segments {
		b.vtep(seg, b.lb, seg.ours(), seg.theirs(0), seg.theirs(1))
		b.fdb(b.lb, fmt.Sprintf("add %s dev vx%d dst %s self static", staticMAC, seg.vni, seg.theirs(1)))
		b.fdb(b.lb, fmt.Sprintf("add %s dev vx%d master static", staticMAC, seg.vni))
		for i := range seg.access {
			must(t, b.lb.IP(fmt.Sprintf("link set %s master br%d", seg.port(i), seg.vni)))
		}
		t.Cleanup(func() {
			must(t, b.lb.IP(fmt.Sprintf("link del br%d", seg.vni)))
			must(t, b.lb.IP(fmt.Sprintf("link del vx%d", seg.vni)))
		})
	}
}

// config is a configuration with the bed's ports and segments, then what the test says. more may add lines to a segment, such as "ageing: 1s",
// also in place of the bed's gateway, peers and fdb.
func (b *overlayBed) config(more func(*overlay) string, parts ...string) string {
	var text strings.Builder
	text.WriteString("ports:\n")
	port := func(name string) { fmt.Fprintf(&text, "  - %s\n", b.portText(name)) }
	port("wan")
	port("lan")
	for _, seg := range b.segments {
		for i := range seg.access {
			port(seg.port(i))
		}
	}
	fmt.Fprintf(&text, "vxlan:\n  port: %d\n  segments:\n", b.port)
	for _, seg := range b.segments {
		gate := tenantGate4 + "/24"
		if seg.gate6 {
			gate = tenantGate6 + "/64"
		}
		extra := ""
		if more != nil {
			extra = more(seg)
		}
		fmt.Fprintf(&text, "    - vni: %d\n      vtep: %q\n", seg.vni, seg.ours())
		if !strings.Contains(extra, "gateway:") {
			fmt.Fprintf(&text, "      gateway: {address: %q, mac: %q}\n", gate, gateMAC)
		}
		text.WriteString("      access: [")
		for i := range seg.access {
			fmt.Fprintf(&text, "{port: %s}, ", seg.port(i))
		}
		text.WriteString("]\n")
		if seg.udp != 0 {
			fmt.Fprintf(&text, "      port: %d\n", seg.udp)
		}
		if seg.group != "" {
			fmt.Fprintf(&text, "      group: %q\n      group_interface: lan\n", seg.group)
		} else if !strings.Contains(extra, "peers:") {
			fmt.Fprintf(&text, "      peers: [%q, %q]\n", seg.theirs(0), seg.theirs(1))
		}
		if !strings.Contains(extra, "fdb:") {
			fmt.Fprintf(&text, "      fdb: [{mac: %q, vtep: %q}]\n", staticMAC, seg.theirs(1))
		}
		for line := range strings.Lines(extra) {
			text.WriteString("      " + strings.TrimSpace(line) + "\n")
		}
	}
	return b.bed.config(append([]string{text.String()}, parts...)...)
}

// cleared wants nothing of a daemon that has ended to be left, on any port.
func (b *overlayBed) cleared(d *daemon) {
	b.t.Helper()
	b.nothingLeft(d)
	for _, seg := range b.segments {
		for i := range seg.access {
			if id := xdp(b.t, b.lb, seg.port(i)); id != 0 {
				b.t.Errorf("XDP program %d is on %s", id, seg.port(i))
			}
		}
		if has(b.t, b.lb, seg.vip()) {
			b.t.Errorf("the VIP %s is bound", seg.vip())
		}
	}
}

// portText is a port of a configuration, named as its device.
func (b *overlayBed) portText(name string) string {
	mode := ""
	if b.options.xdpMode != "" {
		mode = ", xdp_mode: " + b.options.xdpMode
	}
	return fmt.Sprintf("{name: %s, interface: %s, driver: %s%s}", name, name, b.options.driver, mode)
}

// behind is the bed with a segment's hosts as its servers.
func (b *overlayBed) behind(t testing.TB, seg *overlay) *bed {
	x := b.with(t)
	x.servers = seg.hosts
	return x
}
