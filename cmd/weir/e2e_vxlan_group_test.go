package main_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weir/control/host/testnet"
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
	text := b.config(nil, b.allServices())
	d := b.start(text)
	members := func(seg *overlay) bool {
		return strings.Contains(in(t, b.lb, "ip", "maddr", "show", "dev", "lan"), " "+seg.group+"\n")
	}
	for _, seg := range b.segments {
		eventually(t, dialLimit, seg.String()+": the kernel is a member of the group", func() bool { return members(seg) })
		befriend(t, b, seg)
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
