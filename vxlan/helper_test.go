package vxlan

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

var (
	hostA   = pkttest.MAC("02:aa:00:00:00:01")
	hostB   = pkttest.MAC("02:aa:00:00:00:02")
	vtepMAC = pkttest.MAC("02:00:00:00:00:0a")
	nextHop = pkttest.MAC("02:00:00:00:00:0b")

	ours, peer     = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	ours6, peer6   = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	client, server = netip.MustParseAddrPort("198.18.128.1:40000"), netip.MustParseAddrPort("198.18.1.10:80")
	client6        = netip.MustParseAddrPort("[2001:db8:c::1]:40000")
	server6        = netip.MustParseAddrPort("[2001:db8:1::10]:80")
)

const testVNI = 5001

// chunk holds one frame at a time, with poison around it.
type chunk struct {
	pool *packet.Pool
	f    packet.Frame
}

func newChunk(t testing.TB) *chunk {
	t.Helper()
	pool, err := packet.NewPool(make([]byte, 4096), 4096)
	if err != nil {
		t.Fatal(err)
	}
	return &chunk{pool: pool}
}

// frame places b in the chunk and parses it; what Parse says of it is the caller's.
func (c *chunk) frame(t testing.TB, b []byte) (*packet.Frame, packet.Fault) {
	t.Helper()
	mem := c.pool.Memory()
	if len(b) > len(mem)-packet.Headroom {
		t.Skip("longer than a chunk")
	}
	for i := range mem {
		mem[i] = 0x5a
	}
	n := copy(mem[packet.Headroom:], b)
	if !c.f.Open(c.pool, packet.Desc{Addr: packet.Headroom, Len: uint32(n)}) {
		t.Fatal("Open refused a frame in the pool's only chunk")
	}
	return &c.f, packet.Parse(&c.f)
}

func (c *chunk) parsed(t testing.TB, b []byte) *packet.Frame {
	t.Helper()
	f, fault := c.frame(t, b)
	if fault != packet.FaultNone {
		t.Fatalf("Parse: %v\n% x", fault, b)
	}
	return f
}

func mustTunnel(t testing.TB, o TunnelOptions) *Tunnel {
	t.Helper()
	tunnel, err := NewTunnel(o)
	if err != nil {
		t.Fatal(err)
	}
	return tunnel
}

// options4 and options6 are those of a tunnel from us to the peer.
func options4() TunnelOptions { return TunnelOptions{VNI: testVNI, Local: ours, Peer: peer} }
func options6() TunnelOptions { return TunnelOptions{VNI: testVNI, Local: ours6, Peer: peer6} }

// inner is a frame of TCP from A to B.
func inner() []byte { return pkttest.TCP(client, server).SYN().Frame(hostA, hostB) }

// sent encapsulates a frame and returns the outer packet, from its IP header on.
func sent(t testing.TB, tunnel *Tunnel, frame []byte, entropy uint32) []byte {
	t.Helper()
	c := newChunk(t)
	f := c.parsed(t, frame)
	if !tunnel.Encap(f, entropy) {
		t.Fatal("Encap refused a frame with 256 bytes of headroom")
	}
	b := slices.Clone(f.Bytes())
	if int(f.L3) != int(f.Start) || f.L3End != f.End || f.Kind&packet.KindOuter == 0 {
		t.Fatalf("Encap left L3 %d, L3End %d, kind %#x of a frame from %d to %d", f.L3, f.L3End, f.Kind, f.Start, f.End)
	}
	if !bytes.Equal(b[len(b)-len(frame):], frame) {
		t.Fatal("Encap changed the inner frame")
	}
	return b
}

// outer is what gopacket makes of an outer packet.
type outer struct {
	ip4   *layers.IPv4
	ip6   *layers.IPv6
	udp   *layers.UDP
	vxlan *layers.VXLAN
	inner []byte
}

func decode(t testing.TB, ip []byte) (o outer) {
	t.Helper()
	first := layers.LayerTypeIPv4
	if ip[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(ip, first, gopacket.Default)
	if p.ErrorLayer() != nil {
		t.Fatalf("gopacket: %v\n% x", p.ErrorLayer().Error(), ip)
	}
	o.ip4, _ = p.Layers()[0].(*layers.IPv4)
	o.ip6, _ = p.Layers()[0].(*layers.IPv6)
	o.udp, _ = p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if o.udp == nil {
		t.Fatalf("no UDP in % x", ip)
	}
	v := gopacket.NewPacket(o.udp.Payload, layers.LayerTypeVXLAN, gopacket.Default)
	o.vxlan, _ = v.Layer(layers.LayerTypeVXLAN).(*layers.VXLAN)
	if o.vxlan == nil {
		t.Fatalf("no VXLAN in % x", ip)
	}
	o.inner = o.vxlan.Payload
	return o
}

// received is a packet of the peer's to us: VXLAN in UDP, as a frame of the underlay. edit, if there is one, changes the UDP payload first.
type received struct {
	v6, checksum, badChecksum bool
	tos                       uint8
	src, dst                  netip.Addr // not valid: the peer and us
	port, sport               uint16     // 0: 4789 and 51000
	vni                       uint32
	edit                      func(payload []byte) []byte
	shape                     func(pkttest.Packet) pkttest.Packet
}

func (r received) payload(frame []byte) []byte {
	b := make([]byte, 8, 8+len(frame))
	b[0] = 8
	binary.BigEndian.PutUint32(b[4:], r.vni<<8)
	b = append(b, frame...)
	if r.edit != nil {
		b = r.edit(b)
	}
	return b
}

func (r received) packet(frame []byte) pkttest.Packet {
	if !r.src.IsValid() {
		r.src = peer
		if r.v6 {
			r.src = peer6
		}
	}
	if !r.dst.IsValid() {
		r.dst = ours
		if r.v6 {
			r.dst = ours6
		}
	}
	if r.port == 0 {
		r.port = Port
	}
	if r.sport == 0 {
		r.sport = 51000
	}
	if r.vni == 0 {
		r.vni = testVNI
	}
	p := pkttest.UDP(netip.AddrPortFrom(r.src, r.sport), netip.AddrPortFrom(r.dst, r.port)).Payload(r.payload(frame)).TOS(r.tos)
	switch {
	case r.badChecksum:
		p = p.BadChecksum()
	case !r.checksum:
		p = p.NoChecksum()
	}
	if r.shape != nil {
		p = r.shape(p)
	}
	return p
}

func (r received) frame(inner []byte) []byte { return r.packet(inner).Frame(nextHop, vtepMAC) }

func address(s string) netip.Addr { return netip.MustParseAddr(s) }
