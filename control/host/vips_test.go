package host_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"weir/control/host"
	"weir/control/host/testnet"
)

var (
	routedV4 = "203.0.113.9"
	onLinkV4 = "198.18.0.9"
	onLinkV6 = "2001:db8::9"
	routedV6 = "2001:db8:9::9"
)

// vip is an address or a whole prefix as one.
func vip(s string) netip.Prefix {
	if a, err := netip.ParseAddr(s); err == nil {
		return host.HostPrefix(a)
	}
	return netip.MustParsePrefix(s)
}

func vips(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, vip(s))
	}
	return out
}

func newVIPs(t *testing.T, p pair, dir string) *host.VIPs {
	t.Helper()
	v, err := p.h.NewVIPs(p.ports, dir)
	must(t, err)
	return v
}

// has says if iproute2 sees addr on dev.
func has(t *testing.T, s *testnet.Space, dev, addr string) bool {
	t.Helper()
	return strings.Contains(ip(t, s, "-o addr show dev "+dev), " "+addr+"/")
}

func TestVIPsGoWhereTheKernelAnswersForThem(t *testing.T) {
	p := newPair(t)
	v := newVIPs(t, p, t.TempDir())
	must(t, v.Set(vips(routedV4, onLinkV4, onLinkV6, routedV6)))
	want := []host.Binding{{"lo", vip(onLinkV4)}, {"lo", vip(routedV4)}, {"lo", vip(routedV6)}, {"wan", vip(onLinkV6)}}
	if got := v.Bound(); !slices.Equal(got, want) {
		t.Errorf("bound %v, want %v", got, want)
	}
	for _, b := range want {
		line := ""
		for l := range strings.Lines(ip(t, p.lb, "-o addr show dev "+b.Device)) {
			if strings.Contains(l, " "+b.Prefix.Addr().String()+"/") {
				line = l
			}
		}
		if !strings.Contains(line, b.Prefix.String()) {
			t.Errorf("%v: ip shows %q, want %s", b, line, b.Prefix)
		}
		if b.Prefix.Addr().Is6() && (!strings.Contains(line, "nodad") || !strings.Contains(line, "noprefixroute") || !strings.Contains(line, "deprecated")) {
			t.Errorf("%v: ip shows %q, want nodad, noprefixroute, and never a source of the host's own", b, line)
		}
	}
	// The same again changes nothing; fewer takes away the rest; none takes away all.
	must(t, v.Set(vips(routedV4, onLinkV4, onLinkV6, routedV6)))
	must(t, v.Set(vips(onLinkV6)))
	if has(t, p.lb, "lo", routedV4) || has(t, p.lb, "lo", routedV6) || !has(t, p.lb, "wan", onLinkV6) {
		t.Error("Set of one VIP left others, or took it away")
	}
	must(t, v.Release())
	if len(v.Bound()) > 0 || has(t, p.lb, "wan", onLinkV6) {
		t.Error("a VIP is bound after Release")
	}
	if !has(t, p.lb, "wan", "2001:db8::1") || !has(t, p.lb, "wan", "198.18.0.1") {
		t.Error("Release took an address that is not ours")
	}
}

func TestVIPsMoveWithThePortsAddresses(t *testing.T) {
	p := newPair(t)
	v := newVIPs(t, p, t.TempDir())
	must(t, v.Set(vips(routedV6)))
	if !has(t, p.lb, "lo", routedV6) {
		t.Fatal("not on lo at first")
	}
	must(t, p.lb.Address("wan", "2001:db8:9::1/64"))
	must(t, v.Set(vips(routedV6)))
	if has(t, p.lb, "lo", routedV6) || !has(t, p.lb, "wan", routedV6) {
		t.Error("on a port's link now, and not on the port alone")
	}
	ip(t, p.lb, "addr del 2001:db8:9::1/64 dev wan")
	must(t, v.Set(vips(routedV6)))
	if !has(t, p.lb, "lo", routedV6) || has(t, p.lb, "wan", routedV6) {
		t.Error("off the link again, and not on lo alone")
	}
	must(t, v.Release())
}

func TestAddressesThatWereThereStay(t *testing.T) {
	p := newPair(t)
	ip(t, p.lb, "addr add "+onLinkV4+"/24 dev wan") // a cloud's primary address as VIP
	ip(t, p.lb, "addr add "+routedV4+"/32 dev lo")
	ip(t, p.lb, "addr add "+onLinkV6+"/64 dev wan nodad")
	before := ip(t, p.lb, "-o addr show")
	v := newVIPs(t, p, t.TempDir())
	must(t, v.Set(vips(routedV4, onLinkV4, onLinkV6)))
	if got := v.Bound(); len(got) > 0 {
		t.Errorf("bound %v, where all were there", got)
	}
	must(t, v.Release())
	removed, err := p.h.CleanupVIPs(t.TempDir())
	must(t, err)
	if after := ip(t, p.lb, "-o addr show"); after != before || len(removed) > 0 {
		t.Errorf("cleanup removed %v; before:\n%safter:\n%s", removed, before, after)
	}
}

func TestBadVIPsAreNamedAndOthersBound(t *testing.T) {
	p := newPair(t)
	v := newVIPs(t, p, t.TempDir())
	err := v.Set(append(vips(onLinkV4, "224.0.0.1", "::", "127.0.0.9", "fe80::9", "203.0.113.9/28", "0.0.0.0/0", "169.254.0.0/24"), netip.Prefix{}))
	for _, bad := range []string{"224.0.0.1", "::", "127.0.0.9", "fe80::9", "203.0.113.9/28", "0.0.0.0/0", "169.254.0.0/24", "invalid Prefix"} {
		if err == nil || !strings.Contains(err.Error(), "VIP "+bad+":") {
			t.Errorf("error %v does not name %s", err, bad)
		}
	}
	if !has(t, p.lb, "lo", onLinkV4) {
		t.Error("the good one is not bound")
	}
	must(t, v.Release())
}

func TestVIPsOfAKilledWeirAreTakenOver(t *testing.T) {
	for _, tc := range []struct {
		name string
		old  bool // a kernel that keeps no IFA_PROTO: only the record tells
		lost bool // the record is lost: only the mark tells
	}{{name: "mark and record"}, {name: "record alone", old: true}, {name: "mark alone", lost: true}} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t)
			dir := t.TempDir()
			dead := newVIPs(t, p, dir) // it is not released
			if tc.old {
				for _, a := range []string{onLinkV4, routedV4} {
					ip(t, p.lb, "addr add "+a+"/32 dev lo")
					must(t, dead.Unmark(netip.MustParseAddr(a)))
				}
			} else {
				must(t, dead.Set(vips(onLinkV4, routedV4)))
			}
			if tc.lost {
				dir = t.TempDir()
			}
			ip(t, p.lb, "addr add 198.18.0.77/32 dev lo") // the operator's
			next := newVIPs(t, p, dir)
			must(t, next.Set(vips(onLinkV4)))
			if got := next.Bound(); len(got) != 1 || got[0].Prefix != vip(onLinkV4) {
				t.Errorf("taken over: %v, want %s", got, onLinkV4)
			}
			if has(t, p.lb, "lo", routedV4) != tc.lost { // without the record it may be another weir's
				t.Errorf("%s, which nobody wants any more, on lo: %v", routedV4, has(t, p.lb, "lo", routedV4))
			}
			must(t, next.Release())
			if has(t, p.lb, "lo", onLinkV4) {
				t.Errorf("%s is there after Release", onLinkV4)
			}
			removed, err := p.h.CleanupVIPs(dir)
			must(t, err)
			if (len(removed) == 1) != tc.lost || has(t, p.lb, "lo", routedV4) {
				t.Errorf("cleanup removed %v", removed)
			}
			if !has(t, p.lb, "lo", "198.18.0.77") {
				t.Error("the operator's address is gone")
			}
		})
	}
}

func TestCleanupRemovesWhatAKilledWeirLeft(t *testing.T) {
	p := newPair(t)
	dir := t.TempDir()
	must(t, newVIPs(t, p, dir).Set(vips(onLinkV4, onLinkV6, routedV6)))
	removed, err := p.h.CleanupVIPs(dir)
	must(t, err)
	if len(removed) != 3 || has(t, p.lb, "lo", onLinkV4) || has(t, p.lb, "wan", onLinkV6) || has(t, p.lb, "lo", routedV6) {
		t.Errorf("removed %v", removed)
	}
	if files, _ := os.ReadDir(dir); len(files) > 0 {
		t.Errorf("the state directory holds %v", files)
	}
}

func TestAnAddressTheOperatorAddedAnewIsHis(t *testing.T) {
	p := newPair(t)
	dir := t.TempDir()
	v := newVIPs(t, p, dir)
	must(t, v.Set(vips(onLinkV4)))
	ip(t, p.lb, "addr del "+onLinkV4+"/32 dev lo")
	ip(t, p.lb, "addr add "+onLinkV4+"/32 dev lo")
	must(t, v.Release())
	if !has(t, p.lb, "lo", onLinkV4) {
		t.Error("Release took it")
	}
}

func TestARecordOfAnotherBootIsVoidAndABrokenOneAnError(t *testing.T) {
	p := newPair(t)
	dir := t.TempDir()
	must(t, newVIPs(t, p, dir).Set(vips(onLinkV4)))
	files, err := filepath.Glob(dir + "/*.json")
	if err != nil || len(files) != 1 {
		t.Fatalf("state files %v, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	must(t, err)
	ip(t, p.lb, "addr flush dev lo")
	ip(t, p.lb, "addr add "+onLinkV4+"/32 dev lo")
	i := bytes.Index(b, []byte(`"boot": "`)) + len(`"boot": "`)
	b[i] ^= 1
	must(t, os.WriteFile(files[0], bytes.Replace(b, []byte(`"marked": true`), []byte(`"marked": false`), 1), 0o644))
	must(t, newVIPs(t, p, dir).Set(nil))
	if !has(t, p.lb, "lo", onLinkV4) {
		t.Error("an address of the operator's went by the record of another boot")
	}
	must(t, os.WriteFile(files[0], []byte("{"), 0o644))
	if _, err := p.h.NewVIPs(p.ports, dir); err == nil || !strings.Contains(err.Error(), files[0]) {
		t.Errorf("a broken record: %v, want an error that names the file", err)
	}
}

func TestLoIsSetUpForVIPs(t *testing.T) {
	p := newPair(t)
	must(t, p.h.SetUp("lo", false))
	v := newVIPs(t, p, t.TempDir())
	must(t, v.Set(vips(onLinkV4)))
	if l, err := p.h.Link("lo"); err != nil || !l.Up || !slices.Equal(v.SetUp(), []string{"lo"}) {
		t.Errorf("lo up %v, %v; told of %v", l.Up, err, v.SetUp())
	}
	must(t, v.Release())
}

func TestPeerReachesVIPs(t *testing.T) {
	p := newPair(t)
	v := newVIPs(t, p, t.TempDir())
	must(t, v.Set(vips(onLinkV4, onLinkV6)))
	for _, addr := range []string{onLinkV4, onLinkV6} {
		var ln net.Listener
		must(t, p.lb.Exec(func() (err error) { ln, err = net.Listen("tcp", net.JoinHostPort(addr, "80")); return err }))
		defer ln.Close()
		var c net.Conn
		must(t, p.peer.Exec(func() (err error) {
			c, err = net.DialTimeout("tcp", net.JoinHostPort(addr, "80"), 3*time.Second)
			return err
		}))
		c.Close()
		if n := entry(t, p.peer.Host(), addr); n.MAC != [6]byte{2, 0, 0, 0, 1, 0xc} {
			t.Errorf("the peer has %s at %x, want the port's MAC", addr, n.MAC)
		}
	}
	must(t, v.Release())
}

// The peer believes another machine to have the VIPs, as after a failover, and must think better of it.
func TestAnnouncementsCorrectThePeersNeighbors(t *testing.T) {
	p := newPair(t)
	for _, a := range []string{onLinkV4, onLinkV6, routedV4} {
		ip(t, p.peer, "neigh add "+a+" lladdr 02:00:00:00:00:ee nud stale dev eth0")
	}
	v := newVIPs(t, p, t.TempDir())
	begun := time.Now()
	must(t, v.Set(vips(onLinkV4, onLinkV6, routedV4)))
	took := time.Since(begun)
	if sent, _ := v.Announced(); sent == 6 && took < 1500*time.Millisecond { // the second ones come 1 s after the first
		t.Errorf("Set took %v: it must not wait for the announcements", took)
	}
	for _, a := range []string{onLinkV4, onLinkV6, routedV4} {
		eventually(t, a+" is at the port's MAC for the peer", func() bool { return entry(t, p.peer.Host(), a).MAC == [6]byte{2, 0, 0, 0, 1, 0xc} })
	}
	must(t, v.Release())
}

func TestAnnouncementsOnTheWire(t *testing.T) {
	p := newPair(t)
	var fd int
	must(t, p.peer.Exec(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		return err
	}))
	defer unix.Close(fd)
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100e3}))
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)) // when the kernel got it, not when we come to look
	v := newVIPs(t, p, t.TempDir())
	must(t, v.Set(vips(onLinkV4, onLinkV6)))
	seen := map[string][]time.Duration{}
	b, oob := make([]byte, 2048), make([]byte, 128)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		n, oobn, _, _, err := unix.Recvmsg(fd, b, oob, 0)
		if errors.Is(err, unix.EAGAIN) && len(seen["gratuitous ARP"]) >= 2 && len(seen["unsolicited NA"]) >= 2 {
			break
		}
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		must(t, err)
		for name, addr := range map[string]string{"gratuitous ARP": onLinkV4, "unsolicited NA": onLinkV6} {
			if bytes.Equal(b[:n], host.Announcement(netip.MustParseAddr(addr), [6]byte{2, 0, 0, 0, 1, 0xc}, 0)) {
				seen[name] = append(seen[name], arrival(t, oob[:oobn]))
			}
		}
	}
	for _, name := range []string{"gratuitous ARP", "unsolicited NA"} {
		at := seen[name]
		if len(at) != 2 || at[1]-at[0] < 500*time.Millisecond {
			t.Errorf("%s seen at %v, want at once and after 1 s", name, at)
		}
	}
	if sent, refused := v.Announced(); sent != 4 || refused != 0 {
		t.Errorf("counted %d sent, %d refused, want 4 and 0", sent, refused)
	}
	must(t, v.Release())
	if sent, _ := v.Announced(); sent != 4 {
		t.Errorf("%d sent after Release, want 4", sent)
	}
}

func TestAnnouncementAsGopacketReadsIt(t *testing.T) {
	mac := [6]byte{2, 0, 0, 0, 1, 0xc}
	for _, tag := range []uint16{0, 100} {
		for _, a := range []string{onLinkV4, onLinkV6} {
			vip := netip.MustParseAddr(a)
			pkt := gopacket.NewPacket(host.Announcement(vip, mac, tag), layers.LayerTypeEthernet, gopacket.DecodeOptions{})
			if e := pkt.ErrorLayer(); e != nil {
				t.Fatalf("%s: %v", a, e.Error())
			}
			if q, ok := pkt.Layer(layers.LayerTypeDot1Q).(*layers.Dot1Q); ok != (tag != 0) || ok && q.VLANIdentifier != tag {
				t.Errorf("%s: tag %v, want %d", a, q, tag)
			}
			eth := pkt.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
			if !bytes.Equal(eth.SrcMAC, mac[:]) {
				t.Errorf("%s: from %s", a, eth.SrcMAC)
			}
			if vip.Is4() {
				arp := pkt.Layer(layers.LayerTypeARP).(*layers.ARP)
				if eth.DstMAC.String() != "ff:ff:ff:ff:ff:ff" || arp.Operation != layers.ARPRequest || !bytes.Equal(arp.SourceHwAddress, mac[:]) ||
					!bytes.Equal(arp.SourceProtAddress, vip.AsSlice()) || !bytes.Equal(arp.DstProtAddress, vip.AsSlice()) {
					t.Errorf("not a gratuitous ARP request: %v %+v", eth, arp)
				}
				continue
			}
			ip6 := pkt.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
			icmp := pkt.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
			na := pkt.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
			if eth.DstMAC.String() != "33:33:00:00:00:01" || ip6.DstIP.String() != "ff02::1" || ip6.SrcIP.String() != a || ip6.HopLimit != 255 ||
				na.Router() || na.Solicited() || !na.Override() || na.TargetAddress.String() != a ||
				len(na.Options) != 1 || na.Options[0].Type != layers.ICMPv6OptTargetAddress || !bytes.Equal(na.Options[0].Data, mac[:]) {
				t.Errorf("not an unsolicited advertisement: %v %v %+v", eth, ip6, na)
			}
			// gopacket's own sum over the same message is the judge of ours.
			got := icmp.Checksum
			must(t, icmp.SetNetworkLayerForChecksum(ip6))
			buf := gopacket.NewSerializeBuffer()
			must(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true}, icmp, gopacket.Payload(icmp.Payload)))
			if icmp.Checksum != got {
				t.Errorf("checksum %#04x, gopacket has %#04x", got, icmp.Checksum)
			}
		}
	}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// arrival is the kernel's time stamp of a packet.
func arrival(t *testing.T, oob []byte) time.Duration {
	t.Helper()
	messages, err := unix.ParseSocketControlMessage(oob)
	must(t, err)
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) == 16 {
			return time.Duration(binary.NativeEndian.Uint64(m.Data))*time.Second + time.Duration(binary.NativeEndian.Uint64(m.Data[8:]))
		}
	}
	t.Fatal("without a time stamp")
	return 0
}
