package afpacket

import (
	"bytes"
	"encoding/binary"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// experiment is a frame of n bytes that no host has an opinion about.
func experiment(n int) []byte {
	b := make([]byte, n)
	copy(b, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5")
	for i := 14; i < n; i++ {
		b[i] = byte(i * 7)
	}
	return b
}

func isExperiment(b []byte) bool { return len(b) > 14 && b[12] == 0x88 && b[13] == 0xb5 }

// send gives copies of frames to q.
func send(t *testing.T, q *Queue, frames ...[]byte) {
	t.Helper()
	var d []packet.Desc
	for _, b := range frames {
		chunk, ok := q.pool.Get()
		if !ok {
			t.Fatal("no chunk")
		}
		d = append(d, packet.Desc{Addr: chunk + packet.Headroom, Len: uint32(len(b))})
		copy(q.pool.Bytes(d[len(d)-1]), b)
	}
	if n := q.Send(d); n != len(d) {
		t.Fatalf("Send took %d of %d", n, len(d))
	}
}

func TestFramesThatTheDeviceRefusesAreLostAlone(t *testing.T) {
	namespace(t)
	addVeth(t, 1500)
	q, p := open(t, newPool(t, 512), Options{}), newPeer(t)
	send(t, q, experiment(60), experiment(1514+vlanTag+1), experiment(13), experiment(100))
	for q.Flush() {
	}
	s := q.Stats()
	if s.Sent != 2 || s.SendLost != 2 || s.InvalidDescriptor != 1 {
		t.Errorf("stats %+v, want 2 sent, 2 lost, 1 of them invalid", s)
	}
	b := make([]byte, 2048)
	for _, want := range [][]byte{experiment(60), experiment(100)} {
		if n, ok := p.take(b); !ok || !bytes.Equal(b[:n], want) {
			t.Errorf("far end has %x, want %x", b[:n], want)
		}
	}
	if q.pool.Free() != q.pool.Chunks() {
		t.Errorf("%d of %d chunks are free", q.pool.Free(), q.pool.Chunks())
	}
	if got := gather(q, 0, isExperiment); len(got) != 0 {
		t.Errorf("the queue heard its own frames: %x", got)
	}
}

func TestRingFullIsCounted(t *testing.T) {
	namespace(t)
	addVeth(t, 1500)
	q, p := open(t, newPool(t, 512), Options{RingFrames: 64}), newPeer(t)
	const sent = 200
	for range sent {
		for !p.inject(experiment(60)) {
		}
	}
	got := gather(q, 64, isExperiment)
	until(t, q, "losses", func() bool { return q.Stats().RxRingFull > 0 })
	if s := q.Stats(); len(got) != 64 || s.Received+s.RxRingFull != sent {
		t.Errorf("received %d of a ring of 64; stats %+v, want %d received or lost", len(got), s, sent)
	}
}

func TestFanoutSharesFlowsBetweenQueues(t *testing.T) {
	namespace(t)
	addVeth(t, 1500)
	pools := []*packet.Pool{newPool(t, 512), newPool(t, 512)}
	qs := []*Queue{open(t, pools[0], Options{Fanout: 9}), open(t, pools[1], Options{Fanout: 9})}
	p := newPeer(t)
	const flows, perFlow = 64, 3
	for range perFlow {
		for flow := range flows {
			for !p.inject(udpFrame(uint16(1000 + flow))) {
			}
		}
	}
	seen := map[uint16][2]int{}
	share := [2]int{}
	for i, q := range qs { // all frames are there: a veth delivers within the far end's send
		want := flows*perFlow - share[0]
		if i == 0 {
			want = int(ready(q))
		}
		for _, b := range gather(q, want, func(b []byte) bool { return len(b) == 60 }) {
			port := binary.BigEndian.Uint16(b[34:])
			s := seen[port]
			s[i]++
			seen[port] = s
			share[i]++
		}
	}
	if len(seen) != flows || share[0] == 0 || share[1] == 0 {
		t.Errorf("%d flows seen, want %d; %v frames, want some on each queue", len(seen), flows, share)
	}
	for port, s := range seen {
		if s != [2]int{perFlow, 0} && s != [2]int{0, perFlow} {
			t.Errorf("flow %d has %v frames, want all %d on one queue, once", port, s, perFlow)
		}
	}
}

// ready counts the frames in the receive ring.
func ready(q *Queue) (n uint32) {
	for n <= q.rx.mask {
		slot := q.rx.mem[int((q.rx.next+n)&q.rx.mask)*q.rx.size:]
		if status(q.rx.header(slot))&unix.TP_STATUS_USER == 0 {
			break
		}
		n++
	}
	return n
}

func udpFrame(port uint16) []byte {
	buf := gopacket.NewSerializeBuffer()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IP{198, 18, 0, 1}, DstIP: net.IP{198, 18, 0, 2}}
	udp := &layers.UDP{SrcPort: layers.UDPPort(port), DstPort: 53}
	udp.SetNetworkLayerForChecksum(ip)
	gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4},
		ip, udp, gopacket.Payload(make([]byte, 18)))
	return buf.Bytes()
}

func TestPromiscuousOnlyWhenAsked(t *testing.T) {
	namespace(t)
	addVeth(t, 1500)
	for _, ask := range []bool{false, true, false} {
		q, err := Open(near, newPool(t, 512), Options{Promiscuous: ask})
		if err != nil {
			t.Fatal(err)
		}
		if got := link(t, near).Attrs().Promisc == 1; got != ask {
			t.Errorf("asked %v: promiscuous is %v", ask, got)
		}
		q.Close()
	}
}

func TestOpenErrorsNameCallObjectAndCure(t *testing.T) {
	subtest := namespace(t)
	addVeth(t, 1500)
	pool := newPool(t, 512)
	taken := open(t, pool, Options{Fanout: 3})
	_ = taken
	for _, tt := range []struct {
		name, ifname string
		o            Options
		want         []string
	}{
		{"no such device", "wxnone", Options{}, []string{"afpacket: look up for wxnone", "ip link"}},
		{"a name that no device can have", "a-name-of-more-than-15-bytes", Options{}, []string{"a-name-of-more-than-15-bytes", "invalid argument"}},
		{"ring not a power of two", near, Options{RingFrames: 100}, []string{near, "100", "power of two from 64 to 65536"}},
		{"send ring too long", near, Options{SendFrames: 5000}, []string{near, "5000", "1 to 1024"}},
		{"fanout group in another mode", near, Options{Fanout: 3, FanoutMode: unix.PACKET_FANOUT_CPU}, []string{"PACKET_FANOUT group 3 for " + near, "another mode"}},
	} {
		subtest(t, tt.name, func(t *testing.T) {
			q, err := Open(tt.ifname, pool, tt.o)
			if err == nil {
				q.Close()
				t.Fatal("opened")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
	subtest(t, "without CAP_NET_RAW", func(t *testing.T) {
		runtime.LockOSThread() // the thread has no rights any more and ends with the test
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		none := [2]unix.CapUserData{}
		if err := unix.Capset(&hdr, &none[0]); err != nil {
			t.Skipf("capset: %v", err)
		}
		if _, err := Open(near, pool, Options{}); err == nil || !strings.Contains(err.Error(), "socket for "+near) || !strings.Contains(err.Error(), "CAP_NET_RAW") {
			t.Errorf("error %v, want one that names the call, the device and CAP_NET_RAW", err)
		}
	})
}
