package main_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host/testnet"
	"weir/dataplane/packet/pkttest"
)

// grouped are segments that flood to multicast groups, on the port of the bed and on another.
func grouped() []*overlay {
	return []*overlay{
		{vni: 5001, group: "239.1.1.1", access: make([]*testnet.Space, 2)},
		{vni: 6001, group: "ff05::1:1", over6: true, udp: 8472, access: make([]*testnet.Space, 1)},
	}
}

// TestVXLANGroupBed has the kernel in the balancer's place, see TestVXLANBed.
func TestVXLANGroupBed(t *testing.T) {
	b := newOverlayBed(t, options{}, vxlanPort, grouped()...)
	b.kernelEnd(t)
	bridging(t, b)
}

// TestVXLANGroup has VTEPs find each other by multicast groups, which the kernel joins for the balancer, over both families. Nobody is
// configured as a peer but the VTEP of the static station.
func TestVXLANGroup(t *testing.T) {
	b := newOverlayBed(t, options{}, vxlanPort, grouped()...)
	reports := hearReports(t, b)
	text := b.config(nil, b.allServices())
	d := b.start(text)
	members := func(seg *overlay) bool {
		return strings.Contains(in(t, b.lb, "ip", "maddr", "show", "dev", "lan"), " "+seg.group+"\n")
	}
	for _, seg := range b.segments {
		eventually(t, dialLimit, seg.String()+": the kernel is a member of the group", func() bool { return members(seg) })
		befriend(t, b, seg)
	}
	for _, seg := range b.segments {
		eventually(t, dialLimit, seg.String()+": the membership is reported", func() bool { return reports(seg.group, joins) })
	}
	bridging(t, b)
	visits(t, b)
	iperfs(t, b)
	t.Run("other VNIs", func(t *testing.T) { sharesGroups(t, b, d) })

	// A segment that floods to peers instead leaves its group, and hears no more of what others flood to it. Back it is a member again.
	first, second := b.segments[0], b.segments[1]
	listed := strings.Replace(text, fmt.Sprintf("group: %q\n      group_interface: lan", first.group),
		fmt.Sprintf("accept: any\n      peers: [%q, %q]", first.theirs(0), first.theirs(1)), 1)
	d.reload(listed)
	eventually(t, dialLimit, "the group is left", func() bool { return !members(first) })
	if !members(second) {
		t.Error("the other segment's group is left, too")
	}
	d.reload(text)
	eventually(t, dialLimit, "the group is joined anew", func() bool { return members(first) })
	pings(t, b, first)
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	b.cleared(d)
	if members(first) || members(second) {
		t.Error("a group is not left")
	}
	for _, seg := range b.segments {
		eventually(t, dialLimit, seg.String()+": the end of the membership is reported", func() bool { return reports(seg.group, leaves) })
	}
}

// Records of a membership report (RFC 3376 section 4.2.12, RFC 3810 section 5.2.12) when any source will do.
const (
	leaves = 3 // CHANGE_TO_INCLUDE_MODE, of no source
	joins  = 4 // CHANGE_TO_EXCLUDE_MODE, of no source
)

// hearReports listens for the balancer's IGMPv3 and MLDv2 reports from now on, and returns a function that says whether one had that record.
func hearReports(t *testing.T, b *overlayBed) func(group string, record byte) bool {
	type report struct {
		group  netip.Addr
		record byte
	}
	var mu sync.Mutex
	heard := map[report]bool{}
	frames(t, b.servers[0], "eth0", func(f []byte) {
		if !bytes.Equal(f[6:12], pkttest.MAC(lanMAC)) {
			return
		}
		size := 4
		var m []byte // the message
		switch ip := f[14:]; {
		case f[12] == 8 && f[13] == 0 && ip[9] == unix.IPPROTO_IGMP && ip[0] == 0x46 && ip[24] == 0x22:
			m = ip[24:]
		case f[12] == 0x86 && f[13] == 0xdd && ip[6] == 0 && ip[40] == unix.IPPROTO_ICMPV6 && ip[48] == 143:
			m, size = ip[48:], 16
		default:
			return
		}
		mu.Lock()
		defer mu.Unlock()
		n := int(m[7])
		for m = m[8:]; n > 0 && len(m) >= 4+size; n-- {
			group, _ := netip.AddrFromSlice(m[4 : 4+size])
			heard[report{group, m[0]}] = true
			m = m[4+size:] // there are no sources
		}
	})
	return func(group string, record byte) bool {
		mu.Lock()
		defer mu.Unlock()
		return heard[report{netip.MustParseAddr(group), record}]
	}
}

// befriend has frames come from both VTEPs of a segment until they are taken for peers.
func befriend(t *testing.T, b *overlayBed, seg *overlay) {
	t.Helper()
	w := b.watch(t, seg)
	for i := range seg.hosts {
		friend := fmt.Sprintf("02:00:00:00:68:%02x", i)
		eventually(t, dialLimit, fmt.Sprintf("%v: a station behind VTEP %d is learned", seg, i), func() bool {
			w.serial++
			there, back := fmt.Sprint("there ", w.serial), fmt.Sprint("back ", w.serial)
			w.send(fmt.Sprint("host", i), everyone, friend, there)
			eventually(t, dialLimit, "it comes", func() bool { return w.counts(there)["access0"] == 1 })
			w.send("access0", friend, "02:00:00:00:68:ff", back)
			eventually(t, dialLimit, "it goes", func() bool { return w.counts(back)[fmt.Sprint("vtep", i)] == 1 })
			time.Sleep(5 * time.Millisecond) // what is flooded comes to the other as well
			return w.counts(back)[fmt.Sprint("vtep", 1-i)] == 0
		})
	}
}

// sharesGroups has the kernel of the balancer's host be a VTEP of another VNI with the same group and port.
func sharesGroups(t *testing.T, b *overlayBed, d *daemon) {
	for _, of := range grouped() {
		seg := &overlay{vni: of.vni + 100, over6: of.over6, group: of.group, udp: of.udp}
		t.Run(seg.String(), func(t *testing.T) {
			x := *b
			x.bed = b.with(t)
			x.vtep(seg, b.lb, seg.ours())
			x.vtep(seg, b.servers[0], seg.theirs(0))
			dev := fmt.Sprintf("br%d", seg.vni)
			for i, s := range []*testnet.Space{b.lb, b.servers[0]} {
				must(t, s.IP(fmt.Sprintf("addr add 192.0.2.%d/24 dev %s", 101+i, dev)))
				defer func() {
					must(t, s.IP("link del "+dev))
					must(t, s.IP(fmt.Sprintf("link del vx%d", seg.vni)))
				}()
			}
			before := d.with(t).settled()
			in(t, b.lb, "ping", "-n", "-c30", "-i0.01", "-W2", "192.0.2.102") // ARP goes to the group
			in(t, b.servers[0], "ping", "-n", "-c30", "-i0.01", "-W2", "192.0.2.101")
			after := d.with(t).settled()
			if n := after.Steering["take_vxlan"] - before.Steering["take_vxlan"]; n > 30 {
				t.Errorf("of 60 packets for the kernel, and few others, the balancer took %d", n)
			}
		})
	}
}
