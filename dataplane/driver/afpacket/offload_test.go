package afpacket

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// The kernel takes the outer tag out of each frame before any socket sees it (skb_vlan_untag).
func TestVLANTagsAreWhereTheyWere(t *testing.T) {
	subtest := namespace(t)
	addVeth(t, 1500)
	q, p := open(t, newPool(t, 512), Options{}), newPeer(t)
	tagged := func(tags ...byte) []byte {
		b := experiment(100)
		return append(append(append([]byte(nil), b[:12]...), tags...), b[12:]...)
	}
	full := experiment(1514)
	for _, tt := range []struct {
		name  string
		frame []byte
	}{
		{"802.1Q", tagged(0x81, 0x00, 0x00, 0x64)},
		{"802.1Q with priority and DEI", tagged(0x81, 0x00, 0xb0, 0x64)},
		{"802.1Q priority tag, VLAN 0", tagged(0x81, 0x00, 0x60, 0x00)},
		{"802.1ad", tagged(0x88, 0xa8, 0x00, 0x65)},
		{"802.1ad around 802.1Q", tagged(0x88, 0xa8, 0x00, 0x65, 0x81, 0x00, 0x00, 0x66)},
		{"a tag beside a full MTU", append(append(append([]byte(nil), full[:12]...), 0x81, 0, 0, 7), full[12:]...)},
	} {
		subtest(t, tt.name, func(t *testing.T) {
			for !p.inject(tt.frame) {
			}
			got := gather(q, 1, func(b []byte) bool { return true })
			if len(got) != 1 || !bytes.Equal(got[0], tt.frame) {
				t.Errorf("received %d frames\n got %x\nwant %x; %+v", len(got), got, tt.frame, q.Counters())
			}
		})
	}
}

// A veth leaves checksums to a hardware that is not there: what the kernel sends arrives with the pseudo header's sum alone. gopacket
// says what the wire would have shown.
func TestChecksumsOfTheKernelsOwnPacketsAreWhole(t *testing.T) {
	subtest := namespace(t)
	addVeth(t, 1500)
	l := link(t, far)
	writeFile(t, "/proc/sys/net/ipv6/conf/"+far+"/disable_ipv6", "0")
	for _, a := range []string{"198.18.0.1/24", "2001:db8::1/64"} {
		addr, _ := netlink.ParseAddr(a)
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, addr); err != nil {
			t.Skipf("address %s: %v", a, err)
		}
	}
	for _, a := range []string{"198.18.0.2", "2001:db8::2"} {
		n := &netlink.Neigh{LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(a),
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
		if err := netlink.NeighSet(n); err != nil {
			t.Fatal(err)
		}
	}
	q := open(t, newPool(t, 512), Options{})
	for _, dst := range []string{"198.18.0.2", "2001:db8::2"} {
		for _, size := range []int{0, 1, 2, 7, 100, 1001, 1400} {
			subtest(t, fmt.Sprintf("udp %s %d bytes", dst, size), func(t *testing.T) {
				before := q.Counters().Summed
				sendUDP(t, dst, experiment(size + 14)[14:], 0)
				checkWhole(t, q, layers.LayerTypeUDP)
				if q.Counters().Summed == before {
					t.Error("the frame came with its checksum made: the test shows nothing")
				}
			})
		}
		subtest(t, "tcp SYN "+dst, func(t *testing.T) {
			before := q.Counters().Summed
			connectTCP(t, dst)
			checkWhole(t, q, layers.LayerTypeTCP)
			if q.Counters().Summed == before {
				t.Error("the frame came with its checksum made: the test shows nothing")
			}
		})
	}
}

// checkWhole receives one frame with a layer of type want and compares it with what gopacket makes of its fields.
func checkWhole(t *testing.T, q *Queue, want gopacket.LayerType) {
	t.Helper()
	parse := func(b []byte) gopacket.Packet {
		return gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	}
	got := gather(q, 1, func(b []byte) bool { return parse(b).Layer(want) != nil })
	if len(got) != 1 {
		t.Fatalf("received %d frames with %v; %+v", len(got), want, q.Counters())
	}
	p := parse(got[0])
	var stack []gopacket.SerializableLayer
	for _, l := range p.Layers() {
		switch l := l.(type) {
		case *layers.UDP:
			l.SetNetworkLayerForChecksum(p.NetworkLayer())
		case *layers.TCP:
			l.SetNetworkLayerForChecksum(p.NetworkLayer())
		}
		s, ok := l.(gopacket.SerializableLayer)
		if !ok {
			t.Fatalf("unexpected layer %v", l.LayerType())
		}
		stack = append(stack, s)
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true}, stack...); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(buf.Bytes()[:len(got[0])], got[0]) {
		t.Errorf("received %x\nshould be %x", got[0], buf.Bytes())
	}
}

// sendUDP sends from the kernel; a segment above zero asks for UDP segmentation offload.
func sendUDP(t *testing.T, dst string, payload []byte, segment int) {
	t.Helper()
	a := netip.MustParseAddr(dst)
	family, sa := unix.AF_INET, unix.Sockaddr(nil)
	if a.Is4() {
		sa = &unix.SockaddrInet4{Port: 9000, Addr: a.As4()}
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: 9000, Addr: a.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if segment > 0 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, segment); err != nil {
			t.Skipf("UDP_SEGMENT: %v", err)
		}
	}
	if err := unix.Sendto(fd, payload, 0, sa); err != nil {
		t.Fatal(err)
	}
}

func connectTCP(t *testing.T, dst string) {
	t.Helper()
	a := netip.MustParseAddr(dst)
	family, sa := unix.AF_INET, unix.Sockaddr(nil)
	if a.Is4() {
		sa = &unix.SockaddrInet4{Port: 80, Addr: a.As4()}
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: 80, Addr: a.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Connect(fd, sa); err != unix.EINPROGRESS {
		t.Fatal(err)
	}
}

func TestWhatCannotBeRestoredIsDroppedByName(t *testing.T) {
	subtest := namespace(t)
	addVeth(t, 9000) // more than a chunk of 2048 bytes holds
	addr, _ := netlink.ParseAddr("198.18.0.1/24")
	if err := netlink.AddrAdd(link(t, far), addr); err != nil {
		t.Fatal(err)
	}
	n := &netlink.Neigh{LinkIndex: link(t, far).Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP("198.18.0.2"),
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
	if err := netlink.NeighSet(n); err != nil {
		t.Fatal(err)
	}
	q, p := open(t, newPool(t, 512), Options{}), newPeer(t)
	room := q.pool.ChunkSize() - packet.Headroom
	for _, tt := range []struct {
		name     string
		send     func(t *testing.T)
		want     Counters
		received uint64
	}{
		{"a frame as long as a chunk holds comes in", func(t *testing.T) { p.inject(experiment(room)) }, Counters{}, 1},
		{"one byte more is too long", func(t *testing.T) { p.inject(experiment(room + 1)) }, Counters{TooLong: 1}, 0},
		{"a jumbo frame is too long", func(t *testing.T) { p.inject(experiment(9014)) }, Counters{TooLong: 1}, 0},
		{"datagrams that the kernel left uncut are merged", func(t *testing.T) {
			sendUDP(t, "198.18.0.2", make([]byte, 4000), 1000)
		}, Counters{Merged: 1}, 0},
		{"even where they would fit", func(t *testing.T) { sendUDP(t, "198.18.0.2", make([]byte, 400), 100) }, Counters{Merged: 1}, 0},
	} {
		subtest(t, tt.name, func(t *testing.T) {
			before, was := q.Counters(), q.Stats()
			received := was.Received
			tt.send(t)
			var d [8]packet.Desc
			until(t, q, "the frame", func() bool {
				for _, desc := range d[:q.Receive(d[:])] {
					q.pool.Put(desc.Addr)
				}
				c := q.Counters()
				return q.Stats().Received != received || c.TooLong != before.TooLong || c.Merged != before.Merged
			})
			c := q.Counters()
			got := Counters{TooLong: c.TooLong - before.TooLong, Merged: c.Merged - before.Merged, Outgoing: c.Outgoing - before.Outgoing,
				Inconsistent: c.Inconsistent - before.Inconsistent}
			if got != tt.want || q.Stats().Received-received != tt.received {
				t.Errorf("counted %+v and %d received, want %+v and %d", got, q.Stats().Received-received, tt.want, tt.received)
			}
			if n := q.Stats().RxDropped - was.RxDropped; n != tt.want.TooLong+tt.want.Merged {
				t.Errorf("%d frames are lost to who asks for no more than a driver has to tell, want %d", n, tt.want.TooLong+tt.want.Merged)
			}
			if q.pool.Free() != q.pool.Chunks() {
				t.Errorf("%d of %d chunks are free", q.pool.Free(), q.pool.Chunks())
			}
		})
	}
}

func writeFile(t *testing.T, path, value string) {
	t.Helper()
	fd, err := syscall.Open(path, syscall.O_WRONLY, 0)
	if err != nil {
		t.Skipf("%s: %v", path, err)
	}
	defer syscall.Close(fd)
	if _, err := syscall.Write(fd, []byte(value)); err != nil {
		t.Fatal(err)
	}
}
