package main_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host/testnet"
	"weir/dataplane/packet/pkttest"
)

// TestVXLANKeys has segments on two UDP ports side by side, and then each with keys of its own, which a reload brings.
func TestVXLANKeys(t *testing.T) {
	b := newOverlayBed(t, options{}, vxlanPort,
		&overlay{vni: 5001, udp: 8472, access: make([]*testnet.Space, 1)}, &overlay{vni: 5002, access: make([]*testnet.Space, 1)},
		&overlay{vni: 6001, over6: true, access: make([]*testnet.Space, 1)})
	inherits, fixed, six := b.segments[0], b.segments[1], b.segments[2]
	d := b.start(b.config(nil))
	t.Run("two ports", func(t *testing.T) { bridging(t, b) })

	keys := map[*overlay]string{
		inherits: fmt.Sprintf("udp_checksum: true\npeers: [%q, {address: %q, udp_checksum: false}]\nttl: inherit\ndscp: inherit\nstrict: true", inherits.theirs(0), inherits.theirs(1)),
		fixed:    fmt.Sprintf("peers: [%q, {address: %q, udp_checksum: true}]\nttl: 9\ndscp: 10\nkeep_tags: true", fixed.theirs(0), fixed.theirs(1)),
		six:      fmt.Sprintf("peers: [%q, {address: %q, udp_checksum: false}]\nttl: inherit\ndscp: inherit\nmss_clamp: all", six.theirs(0), six.theirs(1)),
	}
	d.reload(b.config(func(seg *overlay) string { return keys[seg] }))
	t.Run("headers", func(t *testing.T) {
		outerHeaders(t, b, inherits, header{ttl: 17, tos: 0xba}, header{ttl: 64}, []bool{true, false})
		outerHeaders(t, b, fixed, header{ttl: 9, tos: 10<<2 | 2}, header{ttl: 9, tos: 10 << 2}, []bool{false, true})
		outerHeaders(t, b, six, header{ttl: 17, tos: 0xba}, header{ttl: 64}, []bool{true, false})
	})
	t.Run("strict", func(t *testing.T) { strictly(t, b, d, inherits, fixed) })
	t.Run("tags", func(t *testing.T) { keepsTags(t, b, fixed) })
	t.Run("MSS", func(t *testing.T) {
		opensWith(t, b, fixed, 1500-40)
		opensWith(t, b, six, 1430-40)
	})
	t.Run("iperf3", func(t *testing.T) {
		before := d.with(t).settled()
		iperfs(t, b)
		after := d.with(t).settled()
		// In each of 3 segments, to each of 2 hosts, by 2 families, both ways: 16 MiB of TCP, half of which must have come, and 100 KB of UDP.
		if n := after.Verdicts.Forwarded - before.Verdicts.Forwarded; n < 3*2*2*2*(8<<20+100_000)/1500 {
			t.Errorf("%d frames were forwarded", n)
		}
		for _, ring := range []string{"rx_ring_full", "fill_ring_empty", "send_ring_full"} { // a worker that waits for a processor
			delete(before.Drops, ring)
			delete(after.Drops, ring)
		}
		if !maps.Equal(before.Drops, after.Drops) {
			t.Errorf("drops are %v, were %v", after.Drops, before.Drops)
		}
	})
	t.Run("floods", func(t *testing.T) {
		d.reload(b.config(func(seg *overlay) string { return keys[seg] + "\nflood_limit: 5/s" }))
		limited(t, b, d, fixed)
	})
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	b.cleared(d)
}

// header is of an outer packet what keys are about.
type header struct {
	ttl, tos byte
	checksum bool
}

// outerHeaders sends echo requests with a TTL of 17, DSCP 46 and ECT(0), and ARP or ND, to the hosts of a segment, and wants the outer packets to
// be as said; checksums are wanted by VTEP. What tshark sees on the wire must please it.
func outerHeaders(t *testing.T, b *overlayBed, seg *overlay, echo, arp header, checksums []bool) {
	t.Helper()
	needs(t, "ping", "tcpdump", "tshark")
	file := filepath.Join(b.dir, fmt.Sprintf("keys%d.pcap", seg.vni))
	stop := record(t, b.fabric, "lb", file)
	s := seg.access[0]
	must(t, s.IP("neigh flush dev eth0"))
	for i := range seg.hosts {
		in(t, s, "ping", "-n", "-c3", "-i0.01", "-W2", "-t17", "-Q", "0xba", tenant4(i))
		in(t, s, "ping", "-n", "-c3", "-i0.01", "-W2", "-t17", "-Q", "0xba", tenant6(i))
	}
	stop()
	if objected := objections(t, file); objected != "" {
		t.Errorf("%v: tshark objects:\n%s", seg, objected)
	}
	seen := map[string]int{}
	for _, f := range readCapture(t, file).frames {
		o, ok := untunnel(f, b.portOf(seg))
		if !ok || o.from.Addr().String() != seg.ours() {
			continue
		}
		peer := 0
		if o.to.Addr() == netip.MustParseAddr(seg.theirs(1)) {
			peer = 1
		}
		got := header{ttl: o.ttl, tos: f[15]}
		udp := f[14+20:]
		if seg.over6 {
			got.tos, udp = f[14]<<4|f[15]>>4, f[14+40:]
		}
		got.checksum = udp[6]|udp[7] != 0
		kind, want := "ARP", arp
		switch ip := o.inner[14:]; binary.BigEndian.Uint16(o.inner[12:]) {
		case unix.ETH_P_ARP:
		case unix.ETH_P_IP:
			kind, want = "IPv4", echo
			if ip[9] != unix.IPPROTO_ICMP || ip[20] != 8 {
				continue
			}
		case unix.ETH_P_IPV6:
			kind, want = "IPv6", echo
			if ip[6] != unix.IPPROTO_ICMPV6 || ip[40] != 128 {
				continue
			}
		default:
			continue
		}
		if want.checksum = checksums[peer]; got != want {
			t.Errorf("%v: %s to VTEP %d went in %+v, want %+v", seg, kind, peer, got, want)
		}
		seen[fmt.Sprint(kind, " to ", peer)]++
	}
	for _, kind := range []string{"ARP to 0", "ARP to 1", "IPv4 to 0", "IPv4 to 1", "IPv6 to 0", "IPv6 to 1"} {
		if seen[kind] == 0 {
			t.Errorf("%v: no %s was seen, but %v", seg, kind, seen)
		}
	}
}

// strictly has a reserved bit be an offence in one segment and nothing in the other.
func strictly(t *testing.T, b *overlayBed, d *daemon, strict, other *overlay) {
	fd := packetSocket(t, b.servers[0], "eth0", 0)
	defer unix.Close(fd)
	d = d.with(t)
	send := func(seg *overlay, text string) {
		f := b.forge(seg, probe(everyone, "02:00:00:00:67:01", text))
		f.reserved = 1
		_, err := unix.Write(fd, pkttest.Frame(f.datagram().Bytes(), pkttest.MAC(serverMAC(0)), pkttest.MAC(lanMAC)))
		must(t, err)
	}
	lax, before := b.watch(t, other), d.now().Drops["vxlan_reserved"]
	send(other, "a bit set")
	lax.arrives("a bit set", "access0")
	firm := b.watch(t, strict)
	send(strict, "a bit set, and minded")
	eventually(t, dialLimit, "the drop is counted", func() bool { return d.now().Drops["vxlan_reserved"] == before+1 })
	firm.came("a bit set, and minded", "a bit set, and minded")
}

// keepsTags has tagged frames go through a segment both ways, from and to a port that is untagged otherwise.
func keepsTags(t *testing.T, b *overlayBed, seg *overlay) {
	port, far := openWire(t, seg.access[0], "eth0"), openWire(t, seg.hosts[0], "eth0")
	for vlan := uint16(7); vlan <= 4094; vlan += 4087 {
		there := pkttest.Ethernet([]byte("there and some more than forty-six bytes of payload"), pkttest.MAC(tenantMAC(20)), pkttest.MAC(everyone), probeType, vlan)
		port.send(t, there)
		far.expect(t, there)
		back := pkttest.Ethernet([]byte("back, and some more than forty-six bytes of payload"), pkttest.MAC(tenantMAC(21)), pkttest.MAC(tenantMAC(20)), probeType, vlan)
		far.send(t, back)
		port.expect(t, back)
	}
}

// opensWith dials a host from a port whose MTU is 1500, and wants it to see that MSS.
func opensWith(t *testing.T, b *overlayBed, seg *overlay, mss int) {
	t.Helper()
	s, h := seg.access[0], seg.hosts[0]
	must(t, s.IP("link set eth0 mtu 1500"))
	defer func() { must(t, s.IP(fmt.Sprint("link set eth0 mtu ", seg.mtu()))) }()
	var mu sync.Mutex
	seen := 0
	frames(t, h, "eth0", func(f []byte) {
		if x, ok := segmentOf(f); !ok || x.flags != 0x02 || x.dst.Port() != closedPort || !x.dst.Addr().Is4() {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if o := f[14+20+20:]; o[0] == 2 {
			seen = int(binary.BigEndian.Uint16(o[2:]))
		}
	})
	if c, err := dial(s, "tcp", hostPort(tenant4(0), closedPort)); err == nil {
		c.Close()
	}
	eventually(t, dialLimit, "the SYN comes", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return seen != 0
	})
	mu.Lock()
	defer mu.Unlock()
	if seen != mss {
		t.Errorf("%v: the host sees an MSS of %d, want %d", seg, seen, mss)
	}
}

// limited floods a segment that may flood 5 frames a second. Each is flooded or counted.
func limited(t *testing.T, b *overlayBed, d *daemon, seg *overlay) {
	const n = 200
	d = d.with(t)
	w, before, begun := b.watch(t, seg), d.settled().Drops["flood_limit"], time.Now()
	for i := range n {
		w.send("access0", everyone, "02:00:00:00:66:01", fmt.Sprint("flood ", i))
	}
	came := func() (frames, copies int) {
		for i := range n {
			if seen := w.counts(fmt.Sprint("flood ", i)); len(seen) > 0 {
				frames, copies = frames+1, copies+seen["vtep0"]+seen["vtep1"]
			}
		}
		return frames, copies
	}
	drops := func() int { return int(d.now().Drops["flood_limit"] - before) }
	// Stations of the segment may ask for each other meanwhile, so there can be more drops than frames of ours that did not come.
	eventually(t, dialLimit, "each is flooded or dropped", func() bool {
		frames, copies := came()
		return frames+drops() >= n && copies == 2*frames
	})
	frames, _ := came()
	if most := 5 + int(5*time.Since(begun).Seconds()) + 1; frames > most {
		t.Errorf("%d of %d frames were flooded within %v, want %d at the most", frames, n, time.Since(begun), most)
	}
	if text := d.cli("drops"); !strings.Contains(text, "flood_limit") {
		t.Errorf("weir drops says\n%s", text)
	}
}
