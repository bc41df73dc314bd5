package steer

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// router is a kernel that forwards what near sends to the servers' networks, over a link with an MTU of 1300. It stands on far; the
// host that the program stands on is only a name to it.
func router(t *testing.T, v veth) net.HardwareAddr {
	t.Helper()
	narrow, err := netlink.LinkByIndex(newVeth(t, "wxr").near)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetMTU(narrow, 1300); err != nil {
		t.Fatal(err)
	}
	// What the program passes comes back to this same kernel, by near, where it must not be forwarded once more.
	for _, file := range []string{"ipv4/conf/wxsf/forwarding", "ipv6/conf/all/forwarding", "ipv6/conf/wxsn/disable_ipv6"} {
		if err := os.WriteFile("/proc/sys/net/"+file, []byte("1"), 0o644); err != nil {
			t.Skipf("needs a kernel that forwards: %v", err)
		}
	}
	far, err := netlink.LinkByIndex(v.far)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []struct {
		own, host, servers string
	}{{"198.18.0.254/24", local4.String(), "198.18.1.0/24"}, {"2001:db8::fe/64", local6.String(), "2001:db8:1::/64"}} {
		own, err := netlink.ParseAddr(a.own)
		if err != nil {
			t.Fatal(err)
		}
		own.Flags = unix.IFA_F_NODAD
		_, servers, err := net.ParseCIDR(a.servers)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(far, own); err != nil {
			t.Fatal(err)
		}
		if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: v.far, IP: net.ParseIP(a.host), HardwareAddr: ourMAC[:], State: netlink.NUD_PERMANENT}); err != nil {
			t.Fatal(err)
		}
		if err := netlink.RouteAdd(&netlink.Route{Dst: servers, LinkIndex: narrow.Attrs().Index, Scope: netlink.SCOPE_LINK}); err != nil {
			t.Fatal(err)
		}
	}
	return far.Attrs().HardwareAddr
}

// TestRouterErrors has a kernel answer packets that we and the host send to servers: the errors about our tunnels are ours, the others
// the host's.
func TestRouterErrors(t *testing.T) {
	needBPF(t)
	inNamespace(t)
	v := newVeth(t, "wxs")
	mac := router(t, v)
	p := start(t, Options{}, v.rules(), v.near)
	p.Beat(uint64(Now()))
	large := func(src, dst netip.Addr, proto layers.IPProtocol, payload []byte) []byte {
		return ipPacket(src, dst, proto, append(payload, make([]byte, 1380-len(payload))...), dontFragment)
	}
	expired := func(h *layers.IPv4) { h.TTL = 1 }
	for _, tt := range []struct {
		name   string
		packet []byte
		want   Reason
	}{
		{"IPIP too large", large(local4, web4, packet.ProtoIPIP, tcp(client4, 4000, vip4, 80)), TakeTunnelICMP},
		{"GRE too large", large(local4, web4, packet.ProtoGRE, nil), TakeTunnelICMP},
		{"GUE too large", large(local4, web4, protoUDP, udpHeader(50000, 6080)), TakeTunnelICMP},
		{"IPIP with its TTL used up", raw(local4, web4, packet.ProtoIPIP, 40, expired), TakeTunnelICMP},
		{"6in6 too large", large(local6, web6, packet.ProtoIPv6, tcp(client6, 4000, vip6, 80)), TakeTunnelICMP},
		{"the host's own TCP", large(local4, web4, protoTCP, tcpHeader(40000, 8000)), PassHost},
		{"the host's own UDP, IPv6", large(local6, web6, protoUDP, udpHeader(40000, 8000)), PassHost},
	} {
		in := withChecksum(tt.packet)
		kind := layers.EthernetTypeIPv4
		if in[0]>>4 == 6 {
			kind = layers.EthernetTypeIPv6
		}
		before, err := p.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(v.tap, eth([6]byte(mac), kind, in)); err != nil {
			t.Fatal(err)
		}
		var after Stats
		for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline) && after[tt.want] <= before[tt.want]; time.Sleep(time.Millisecond) {
			if after, err = p.Stats(); err != nil {
				t.Fatal(err)
			}
		}
		if after[tt.want] != before[tt.want]+1 {
			t.Errorf("%s: %s rose by %d, want 1\nbefore %v\nafter %v", tt.name, tt.want, after[tt.want]-before[tt.want], before.Named(), after.Named())
		}
	}
}

// withChecksum gives an IPv4 header its checksum, without which a kernel forwards nothing.
func withChecksum(p []byte) []byte {
	if p[0]>>4 == 4 {
		sum := packet.Sum(p[:20])
		p[10], p[11] = byte(sum>>8), byte(sum)
	}
	return p
}
