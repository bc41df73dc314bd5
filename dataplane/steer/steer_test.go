package steer

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

var (
	ourMAC   = [6]byte{2, 0, 0, 0, 1, 0x0c}
	otherMAC = [6]byte{2, 0, 0, 0, 9, 9}
	groupMAC = [6]byte{0x33, 0x33, 0, 0, 0, 1}

	client4, client6 = ip("198.18.128.7"), ip("2001:db8:c::7")
	vip4, vip6       = ip("198.18.9.9"), ip("2001:db8:9::9")
	local4, local6   = ip("198.18.0.1"), ip("2001:db8::1")
	nat4, nat6       = ip("198.18.1.1"), ip("2001:db8:1::1")
	web4, web6       = ip("198.18.1.10"), ip("2001:db8:1::10")
	low4             = ip("198.18.1.2")  // a NAT address with the lowest ports
	any4             = ip("198.18.1.12") // a server of a service with every port
	router4, router6 = ip("198.18.1.77"), ip("2001:db8:1::77")
	vtep4, vtep6     = ip("192.0.2.1"), ip("2001:db8:2::1")
	far4, far6       = ip("203.0.113.5"), ip("2001:db8:f::5")
	vpn4, vpn6       = ip("198.18.9.50"), ip("2001:db8:9::50")

	// VIPs that are prefixes, the narrow within the wide, and addresses within that are something by themselves
	wide4, wide6     = netip.MustParsePrefix("198.19.0.0/16"), netip.MustParsePrefix("2001:db8:19::/48")
	narrow4, narrow6 = netip.MustParsePrefix("198.19.7.128/25"), netip.MustParsePrefix("2001:db8:19:7::/65")
	inner4           = ip("198.19.7.200") // a VIP
	own4             = ip("198.19.7.201") // the host's
	stray4           = ip("198.19.3.3")   // a server
)

// The groups of VTEPs, and the MAC addresses these have.
var (
	vteps4, vteps6       = ip("239.1.1.1"), ip("ff05::1:1")
	vtepsMAC4, vtepsMAC6 = [6]byte{0x01, 0x00, 0x5e, 1, 1, 1}, [6]byte{0x33, 0x33, 0, 1, 0, 1}
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// loopback is the device that BPF_PROG_RUN says frames came in by, unless told otherwise.
const loopback = 1

// testRules is one of everything: untagged and VLAN 7 traffic for our MAC, VLAN 9 an access VLAN.
func testRules() *Rules {
	return &Rules{
		Ports: []Port{
			{Name: "wan", Ifindex: loopback, MACs: [][6]byte{ourMAC}, Groups: [][6]byte{vtepsMAC4, vtepsMAC6}},
			{Name: "lan", Ifindex: loopback, MACs: [][6]byte{ourMAC}, VLAN: 7},
			{Name: "tenant", Ifindex: loopback, MACs: [][6]byte{ourMAC}, VLAN: 8, Access: []uint16{9}},
		},
		Local: []netip.Addr{local4, local6, nat4, vip4, vtep4, vip6, own4},
		NAT:   []NAT{{nat4, 32768, 60999}, {nat6, 1024, 1024}, {low4, 0, 99}},
		VTEPs: []VTEP{{vtep4, 4789, []uint32{5001, 5002}}, {vtep6, 8472, []uint32{maxVNI}}, {vteps4, 4789, []uint32{5001}}, {vteps6, 8472, []uint32{maxVNI}}},
		Services: []Service{
			{One(vip4), packet.ProtoTCP, 80, 80}, {One(vip4), packet.ProtoUDP, 53, 53}, {One(vip4), packet.ProtoTCP, 8000, 8010},
			{One(vip4), packet.ProtoSCTP, 0, 0}, {One(vip6), packet.ProtoTCP, 80, 80}, {One(vip6), packet.ProtoUDP, 53, 53},
			{One(vpn4), packet.ProtoUDP, 500, 500}, {One(vpn4), packet.ProtoESP, 0, 0}, {One(vpn4), packet.ProtoAH, 0, 0}, {One(vpn6), packet.ProtoESP, 0, 0},
			{wide4, packet.ProtoTCP, 80, 80}, {wide4, packet.ProtoTCP, 8000, 8010}, {wide4, packet.ProtoESP, 0, 0}, {narrow4, packet.ProtoTCP, 443, 443},
			{One(inner4), packet.ProtoTCP, 22, 22}, {wide6, packet.ProtoUDP, 0, 0}, {narrow6, packet.ProtoTCP, 80, 80},
		},
		Servers: []Server{
			{web4, packet.ProtoTCP, 8000}, {web4, packet.ProtoUDP, 5353}, {web6, packet.ProtoTCP, 8000}, {any4, packet.ProtoTCP, 0},
			{any4, packet.ProtoESP, 0}, {any4, packet.ProtoAH, 0}, {web6, packet.ProtoESP, 0}, {stray4, packet.ProtoTCP, 80},
		},
		Tunnels: []Tunnel{
			{web4, packet.ProtoIPIP, 0}, {web4, packet.ProtoIPv6, 0}, {web4, packet.ProtoGRE, 0}, {web4, packet.ProtoUDP, 6080}, {web6, packet.ProtoIPv6, 0}, {far6, packet.ProtoUDP, 6080},
		},
		Grace: time.Hour,
	}
}

// loaded is a program that holds the rules, attached to nothing. The heartbeat is young, so what is taken is dropped, by both hooks.
func loaded(t testing.TB, r *Rules, o Options) *Program {
	t.Helper()
	needBPF(t)
	o.Rules = r
	p, err := Load(o)
	if err != nil {
		t.Fatalf("Load: %+v", err)
	}
	t.Cleanup(func() { p.Close() })
	if errors.As(p.tcErr, new(*ebpf.VerifierError)) { // Load goes on without it, for kernels that have no tc of ours
		t.Fatalf("Load: tc: %+v", p.tcErr)
	}
	if err := p.Add(r); err != nil {
		t.Fatal(err)
	}
	p.Beat(uint64(Now()))
	return p
}

// compiled is the twin of the rules, which must be good.
func compiled(r *Rules) *Compiled {
	c, err := Compile(r)
	if err != nil {
		panic(err)
	}
	return c
}

// needBPF skips the test where BPF programs cannot be loaded.
func needBPF(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Skipf("needs BPF and AF_XDP: make XSKMAP: %v", err)
	}
	m.Close()
}

// inKernel runs the program of a hook once over the frame, and returns the reason that it counted and what became of the frame.
func inKernel(t testing.TB, p *Program, h hook, frame []byte) (Reason, Verdict) {
	t.Helper()
	before, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	action, err := p.program(h).Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		t.Fatalf("BPF_PROG_RUN over %d bytes: %v", len(frame), err)
	}
	after, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	reason, n := NumReasons, 0
	for r := range TakeRouted + 1 {
		if after[r] != before[r] { // by more than one if a signal made the kernel run it again
			reason, n = r, n+1
		}
	}
	if n != 1 {
		t.Fatalf("one frame was counted for %d reasons", n)
	}
	pass, take := uint32(xdpPass), uint32(xdpDrop)
	if h == hookTC {
		pass, take = 0xffffffff, tcShot
	}
	if lost := after[DroppedNoSocket] - before[DroppedNoSocket]; (lost != 0) != (h == hookXDP && action == take) {
		t.Errorf("%s: dropped_no_socket rose by %d with action %d", reason, lost, action)
	}
	switch action {
	case pass:
		return reason, Pass
	case take:
		return reason, Take
	}
	t.Fatalf("%s: action %d", reason, action)
	return 0, 0
}

// twin classifies the frame in software, as received by a port of the index.
func twin(t testing.TB, c *Compiled, port int, frame []byte) Reason {
	t.Helper()
	pool, err := packet.NewPool(make([]byte, 4096), 4096)
	if err != nil {
		t.Fatal(err)
	}
	var f packet.Frame
	copy(pool.Memory()[packet.Headroom:], frame)
	if !f.Open(pool, packet.Desc{Addr: packet.Headroom, Len: uint32(len(frame))}) {
		t.Fatal("frame does not fit")
	}
	return Explain(c, port, &f)
}

// agree asks all three for the frame and returns the reason they agree on.
func agree(t testing.TB, p *Program, c *Compiled, frame []byte) Reason {
	t.Helper()
	want := twin(t, c, 0, frame)
	hooks := []hook{hookXDP, hookTC}
	if p.tc == nil {
		hooks = hooks[:1]
	}
	for _, h := range hooks {
		if h == hookTC && !tcRuns(frame) {
			continue
		}
		got, verdict := inKernel(t, p, h, frame)
		if got != want || verdict != want.Verdict() {
			t.Fatalf("program (hook %d) says %s, twin says %s\n% x", h, got, want, frame)
		}
	}
	return want
}

// tcRuns reports whether BPF_PROG_RUN takes the frame for a tc program: it wants whole IP headers behind the Ethernet type.
func tcRuns(frame []byte) bool {
	switch {
	case len(frame) < 14:
		return false
	case frame[12] == 0x08 && frame[13] == 0x00:
		return len(frame) >= 14+20
	case frame[12] == 0x86 && frame[13] == 0xdd:
		return len(frame) >= 14+40
	}
	return len(frame) > 14
}

// Frames. Layers are from gopacket; what a packet says of itself is left as given (FixLengths only).

func serialize(ls ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, ls...); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// eth puts an Ethernet header, and tags from the outer to the inner, before a packet. It is not gopacket's, which pads.
func eth(dst [6]byte, etherType layers.EthernetType, payload []byte, tags ...uint16) []byte {
	b := join(dst[:], otherMAC[:])
	for i, tag := range tags {
		tpid := uint16(packet.EtherTypeVLAN)
		if i == 0 && len(tags) > 1 {
			tpid = packet.EtherTypeQinQ
		}
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, tpid), 3<<13|tag)
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(etherType)), payload...)
}

// frame is a packet for our MAC.
func frame(p []byte, tags ...uint16) []byte {
	if p[0]>>4 == 6 {
		return eth(ourMAC, layers.EthernetTypeIPv6, p, tags...)
	}
	return eth(ourMAC, layers.EthernetTypeIPv4, p, tags...)
}

// ipPacket is an IPv4 or IPv6 header before a payload; change may edit it.
func ipPacket(src, dst netip.Addr, proto layers.IPProtocol, payload []byte, change ...func(*layers.IPv4)) []byte {
	if src.Is6() {
		return serialize(&layers.IPv6{Version: 6, NextHeader: proto, HopLimit: 64, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()},
			gopacket.Payload(payload))
	}
	h := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: proto, SrcIP: net.IP(src.AsSlice()), DstIP: net.IP(dst.AsSlice())}
	for _, c := range change {
		c(h)
	}
	return serialize(h, gopacket.Payload(payload))
}

func tcp(src netip.Addr, sport uint16, dst netip.Addr, dport uint16) []byte {
	return ipPacket(src, dst, layers.IPProtocolTCP, tcpHeader(sport, dport))
}

func tcpHeader(sport, dport uint16) []byte {
	return serialize(&layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), SYN: true})
}

func udp(src netip.Addr, sport uint16, dst netip.Addr, dport uint16, payload ...byte) []byte {
	return ipPacket(src, dst, layers.IPProtocolUDP, udpHeader(sport, dport, payload...))
}

func udpHeader(sport, dport uint16, payload ...byte) []byte {
	return serialize(&layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}, gopacket.Payload(payload))
}

func vxlan(src, dst netip.Addr, port uint16, vni uint32) []byte {
	return udp(src, 50000, dst, port, append(serialize(&layers.VXLAN{ValidIDFlag: true, VNI: vni}), make([]byte, 60)...)...)
}

// icmp is an ICMP or ICMPv6 message of the family of src.
func icmp(src, dst netip.Addr, kind uint8, payload []byte) []byte {
	proto := layers.IPProtocolICMPv4
	if src.Is6() {
		proto = layers.IPProtocolICMPv6
	}
	return ipPacket(src, dst, proto, append([]byte{kind, 1, 0, 0, 0, 0, 0, 0}, payload...))
}

// extension is an IPv6 extension header of n units of 8 bytes.
func extension(next layers.IPProtocol, n int) []byte {
	b := make([]byte, 8*n)
	b[0], b[1] = byte(next), byte(n-1)
	return b
}

func fragment6(next layers.IPProtocol, offset uint16, more bool) []byte {
	b := []byte{byte(next), 0, byte(offset >> 8), byte(offset &^ 7), 1, 2, 3, 4}
	if more {
		b[3] |= 1
	}
	return b
}

func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// inNamespace runs the test in a network namespace of its own, on a thread that ends with it.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	runtime.LockOSThread() // never unlocked: the thread is not fit for anyone else
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
			t.Skipf("needs network namespaces: unshare: %v", err)
		}
		t.Fatal(err)
	}
}
