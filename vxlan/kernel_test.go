package vxlan

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// The kernel's VXLAN device as the other end, in a namespace of its own: what we send it takes, and what it sends we take.
//
//	namespace A: our packet socket on ua --- veth --- ub, vx: namespace B

const (
	kernelHost  = "198.18.9.2"
	kernelHost6 = "2001:db8:9::2"
)

var (
	kernelMAC = pkttest.MAC("02:bb:00:00:00:02") // of vx
	ubMAC     = pkttest.MAC("02:00:00:00:00:0b")
	uaMAC     = pkttest.MAC("02:00:00:00:00:0a")
	us, _     = AddrOf(address("198.18.9.1"))
	us6, _    = AddrOf(address("2001:db8:9::1"))
)

// lab is the two namespaces and our socket.
type lab struct {
	t    *testing.T
	fd   int
	a, b string
}

// run is one command; its failure is the test's.
func run(t *testing.T, command string) string {
	t.Helper()
	words := strings.Fields(command)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

func newLab(t *testing.T, device string) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, tool := range []string{"ip", "bridge", "ethtool"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	l := &lab{t: t, a: fmt.Sprintf("vxA%d", os.Getpid()), b: fmt.Sprintf("vxB%d", os.Getpid())}
	for _, ns := range []string{l.a, l.b} {
		if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
			t.Skipf("no namespaces here: %v\n%s", err, out)
		}
		t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	}
	b := "ip -n " + l.b + " "
	for _, c := range []string{
		"ip -n " + l.a + " link add ua type veth peer name ub netns " + l.b,
		"ip -n " + l.a + " link set ua address " + uaMAC.String() + " up",
		b + "link set ub address " + ubMAC.String() + " up", b + "link set lo up",
		b + "addr add 192.0.2.2/24 dev ub", b + "addr add 2001:db8::2/64 dev ub nodad",
		b + "neigh add 192.0.2.1 lladdr " + uaMAC.String() + " dev ub nud permanent",
		b + "neigh add 2001:db8::1 lladdr " + uaMAC.String() + " dev ub nud permanent",
		"ip netns exec " + l.b + " ethtool -K ub tx off", // or the kernel leaves outer and inner checksums to a device that is none
	} {
		run(t, c)
	}
	if out, err := exec.Command("ip", strings.Fields("-n "+l.b+" link add vx address "+kernelMAC.String()+" "+device)...).CombinedOutput(); err != nil {
		t.Skipf("this kernel has no VXLAN: %v\n%s", err, out)
	}
	for _, c := range []string{b + "link set vx up", b + "addr add " + kernelHost + "/24 dev vx", b + "addr add " + kernelHost6 + "/64 dev vx nodad"} {
		run(t, c)
	}
	l.fd = l.socket(l.a, "ua")
	return l
}

// socket is a packet socket on a device of a namespace, that waits 100 ms for a packet.
func (l *lab) socket(ns, device string) int {
	l.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		l.t.Fatal(err)
	}
	defer home.Close()
	there, err := netns.GetFromName(ns)
	if err != nil {
		l.t.Fatal(err)
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		l.t.Fatal(err)
	}
	defer func() {
		if err := netns.Set(home); err != nil {
			panic(err) // this thread is lost in the namespace
		}
	}()
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		l.t.Fatal(err)
	}
	index := strings.Fields(run(l.t, "ip -n "+ns+" -o link show "+device))[0]
	var n int
	fmt.Sscanf(index, "%d:", &n)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: n}); err != nil {
		l.t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// send puts an outer packet on the wire.
func (l *lab) send(ip []byte) {
	l.t.Helper()
	if _, err := unix.Write(l.fd, pkttest.Frame(ip, uaMAC, ubMAC)); err != nil {
		l.t.Fatal(err)
	}
}

// receive asks, again each second, and takes packets for 20 s until want is content with an inner frame: the kernel joins the group of an IPv6 address a
// moment after it has it, and a busy machine's is long.
func (l *lab) receive(s *Segments, ask func(), want func(f *packet.Frame, a *Arrival) bool) {
	l.t.Helper()
	c, b := newChunk(l.t), make([]byte, 3000)
	var seen []string
	asked := time.Time{}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if time.Since(asked) > time.Second {
			asked = time.Now()
			ask()
		}
		n, from, err := unix.Recvfrom(l.fd, b, 0)
		if err != nil {
			continue
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		f, fault := c.frame(l.t, b[:n])
		if fault != packet.FaultNone || f.Proto != packet.ProtoUDP || f.Kind&packet.KindTransport == 0 {
			continue
		}
		if err := pkttest.Verify(f.Chunk()[f.L3:f.L3End]); err != nil {
			seen = append(seen, err.Error())
		}
		a, vf := s.Decap(f)
		if vf != FaultNone {
			seen = append(seen, vf.String())
			continue
		}
		if packet.Parse(f) == packet.FaultNone && want(f, &a) {
			return
		}
		seen = append(seen, fmt.Sprintf("% x", f.Bytes()))
	}
	l.t.Fatalf("the kernel did not send what was wanted, but\n%s", strings.Join(seen, "\n"))
}

func TestKernel(t *testing.T) {
	if testing.Short() {
		t.Skip("makes network namespaces")
	}
	for _, c := range []struct {
		name, device string
		edit         func(o *SegmentOptions)
	}{
		{"IPv4", "type vxlan id 5001 local 192.0.2.2 remote 192.0.2.1 dev ub dstport 4789 noudpcsum", nil},
		{"IPv4 with checksums, port 8472", "type vxlan id 5001 local 192.0.2.2 remote 192.0.2.1 dev ub dstport 8472 udpcsum",
			func(o *SegmentOptions) { o.Port, o.Checksum = 8472, true }},
		{"IPv6", "type vxlan id 5001 local 2001:db8::2 remote 2001:db8::1 dev ub dstport 4789", over6},
		{"IPv6 without checksums", "type vxlan id 5001 local 2001:db8::2 remote 2001:db8::1 dev ub dstport 4789 udp6zerocsumtx udp6zerocsumrx",
			func(o *SegmentOptions) { over6(o); o.ZeroChecksum6 = true }},
		{"VNI 16777215", "type vxlan id 16777215 local 192.0.2.2 remote 192.0.2.1 dev ub dstport 4789", func(o *SegmentOptions) { o.VNI = MaxVNI }},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, c.device)
			segment := testSegment(t, c.edit)
			segment.Policy.Strict = true // the kernel sets no reserved bit
			s := segmentsOf(t, segment)
			e := NewEntropy([2]uint64{1, 2})
			tunnel := segment.Peers[0].Tunnel
			post := func(frame []byte) {
				t.Helper()
				f := newChunk(t).parsed(t, frame)
				l.send(sent(t, tunnel, frame, e.Of(f)))
			}
			b := make([]byte, NDLen)
			host, _ := AddrOf(address(kernelHost))
			host6, _ := AddrOf(address(kernelHost6))

			l.receive(s, func() { post(b[:PutARPRequest(b, Broadcast, macA, us, host)]) }, func(f *packet.Frame, a *Arrival) bool {
				r, ok := ReadARP(f)
				return ok && r.Reply && r.Sender == host && r.SenderMAC == MACOf(kernelMAC) && r.TargetMAC == macA && a.At == AtPeer(0)
			})
			if fdb := run(t, "bridge -n "+l.b+" fdb show dev vx"); !strings.Contains(fdb, hostA.String()+" dst "+segment.VTEP.Netip(segment.V6).String()) {
				t.Errorf("the kernel did not learn us:\n%s", fdb)
			}
			l.receive(s, func() { post(b[:PutNDRequest(b, 0, macA, us6, host6)]) }, func(f *packet.Frame, _ *Arrival) bool {
				r, ok := ReadND(f)
				return ok && r.Advertisement && r.Solicited && r.Target == host6 && r.MAC == MACOf(kernelMAC)
			})
			data := bytes.Repeat([]byte("weir"), 300)
			for _, x := range [][2]string{{"198.18.9.1", kernelHost}, {"2001:db8:9::1", kernelHost6}} {
				echo := pkttest.Echo(address(x[0]), address(x[1]), 7, 9).Payload(data)
				var ask []byte // the kernel asks for us first
				l.receive(s, func() { post(echo.TOS(2).Frame(hostA, kernelMAC)) }, func(f *packet.Frame, _ *Arrival) bool {
					if a, ok := ReadARP(f); ok && !a.Reply && a.Target == us {
						ask = make([]byte, NDLen)
						ask = ask[:PutARPReply(ask, &a, macA)]
						post(ask)
					}
					if n, ok := ReadND(f); ok && !n.Advertisement && n.Target == us6 {
						ask = make([]byte, NDLen)
						ask = ask[:PutNDReply(ask, &n, macA, false)]
						post(ask)
					}
					return f.SrcPort == 7 && f.Proto != packet.ProtoUDP && f.Kind&packet.KindTransport != 0 &&
						bytes.HasSuffix(f.Bytes(), data) && pkttest.Verify(f.Bytes()[14:]) == nil
				})
			}
		})
	}
}

// What the kernel makes of ECN on its way out of the tunnel is what we would make of it, but for what the RFC wants logged.
func TestKernelECN(t *testing.T) {
	if testing.Short() {
		t.Skip("makes network namespaces")
	}
	l := newLab(t, "type vxlan id 5001 local 192.0.2.2 remote 192.0.2.1 dev ub dstport 4789 noudpcsum")
	vx := l.socket(l.b, "vx")
	for in := range uint8(4) {
		for out := range uint8(4) {
			frame := pkttest.UDP(netip.MustParseAddrPort("198.18.9.1:5000"), netip.MustParseAddrPort(kernelHost+":5001")).
				Payload([]byte{in, out, 0xec}).TOS(in).Frame(hostA, kernelMAC)
			r := received{src: ours, dst: peer, tos: out}
			l.send(r.packet(frame).Bytes())
			want := ecnOut[in][out]
			got := uint8(ecnDrop)
			b := make([]byte, 2000)
			wait := 20 * time.Second
			if want == ecnDrop {
				wait = 300 * time.Millisecond
			}
			for end := time.Now().Add(wait); time.Now().Before(end); {
				if n, _, err := unix.Recvfrom(vx, b, 0); err == nil && n >= 45 && bytes.Equal(b[42:45], []byte{in, out, 0xec}) {
					got = b[15] & 3
					break
				}
			}
			if got != want {
				t.Errorf("inner %02b, outer %02b: the kernel makes %02b of it, we %02b", in, out, got, want)
			}
		}
	}
}
