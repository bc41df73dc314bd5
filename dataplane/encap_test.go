package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// tunnel is one of the ways through a tunnel, from one family to a server of one family.
type tunnel struct {
	way   Forward
	sum   bool
	inner ends
	outer ends // of it only the servers' addresses count
}

func tunnels() map[string]tunnel {
	all := map[string]tunnel{}
	for _, way := range []Forward{ForwardIPIP, ForwardGUE, ForwardGRE} {
		for _, sum := range []bool{false, true} {
			if sum && way == ForwardIPIP {
				continue // it has none
			}
			for in, inner := range families {
				for out, outer := range families {
					name := fmt.Sprintf("%v %s in %s", way, in, out)
					if sum {
						name += " with checksum"
					}
					all[name] = tunnel{way, sum, inner, outer}
				}
			}
		}
	}
	return all
}

// service is one at the inner VIP, with servers behind the tunnel.
func (x tunnel) service(servers ...netip.Addr) serving {
	if servers == nil {
		servers = []netip.Addr{x.outer.web.Addr()}
	}
	s := serving{vip: x.inner.vip}
	for _, a := range servers {
		b := server(netip.AddrPortFrom(a, x.inner.vip.Port()), x.way)
		b.TunnelSum = x.sum
		s.servers = append(s.servers, b)
	}
	return s
}

// source is our address on the way to the server.
func (x tunnel) source() netip.Addr { return portAddr(x.outer.web) }

// overhead is what gopacket makes of the outer headers, in bytes.
func (x tunnel) overhead() int {
	inner := pkttest.TCP(x.inner.client, x.inner.vip).Bytes()
	return len(x.wrap(x.outer.web.Addr(), inner, 0, 0)) - len(inner)
}

// wrap puts inner into the packet that a server at to must get, as gopacket writes it. What is ours to choose is handed in: the IP ID, and the UDP
// source port.
func (x tunnel) wrap(to netip.Addr, inner []byte, id, port uint16) []byte {
	v6 := inner[0]>>4 == 6
	var tos, ttl uint8
	df := false
	if v6 {
		tos, ttl = inner[0]<<4|inner[1]>>4, inner[7]
	} else {
		tos, ttl, df = inner[1], inner[8], inner[6]&0x40 != 0
	}
	if tos&3 == 3 {
		tos-- // congestion on the way so far is not congestion in the tunnel (RFC 3168 9.1.1)
	}
	var p pkttest.Packet
	switch x.way {
	case ForwardIPIP:
		proto := uint8(layers.IPProtocolIPv4)
		if v6 {
			proto = uint8(layers.IPProtocolIPv6)
		}
		p = pkttest.IP(x.source(), to, proto, inner)
	case ForwardGRE:
		h := &layers.GRE{Protocol: layers.EthernetTypeIPv4, ChecksumPresent: x.sum}
		if v6 {
			h.Protocol = layers.EthernetTypeIPv6
		}
		buffer := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, h, gopacket.Payload(inner)); err != nil {
			panic(err)
		}
		p = pkttest.IP(x.source(), to, uint8(layers.IPProtocolGRE), buffer.Bytes())
	case ForwardGUE:
		gue := []byte{0, 4, 0, 0} // variant 0, data, no options; the protocol; no flags
		if v6 {
			gue[1] = 41
		}
		p = pkttest.UDP(netip.AddrPortFrom(x.source(), port), netip.AddrPortFrom(to, 6080)).Payload(append(gue, inner...))
		if !x.sum {
			p = p.NoChecksum()
		}
	}
	p = p.TOS(tos).TTL(ttl)
	if x.outer.web.Addr().Is4() {
		p = p.ID(id)
		if df {
			p = p.DF()
		}
	}
	return p.Bytes()
}

// chosen is what of an outer packet is ours to choose.
func chosen(ip []byte) (id, port uint16) {
	at := 40
	if ip[0]>>4 == 4 {
		id, at = binary.BigEndian.Uint16(ip[4:]), 20
	}
	return id, binary.BigEndian.Uint16(ip[at:])
}

// check compares an outer packet with what it must be.
func (x tunnel) check(t *testing.T, what string, got []byte, to netip.Addr, inner []byte) {
	t.Helper()
	if got == nil {
		t.Errorf("%s: nothing left", what)
		return
	}
	pkttest.Check(t, got)
	id, port := chosen(got)
	want := x.wrap(to, inner, id, port)
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %s\n     %x\nwant %s\n     %x", what, pkttest.String(got), got, pkttest.String(want), want)
	}
}

func TestTunnels(t *testing.T) {
	for name, x := range tunnels() {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, x.service().option(t))
			ids := map[uint16]bool{}
			ports := map[uint16]bool{}
			for _, c := range []struct {
				name string
				in   pkttest.Packet
			}{
				{"SYN", pkttest.TCP(x.inner.client, x.inner.vip).SYN()},
				{"data", pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).Payload([]byte("odd"))},
				{"DF", pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).DF()},
				{"TTL", pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).TTL(200)},
				{"the last TTL", pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).TTL(2)},
				{"DSCP", pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).TOS(0xb8)},
				{"ECT(1)", pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).TOS(1)},
				{"ECT(0)", pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).TOS(2)},
				{"CE", pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).TOS(0xbb)},
				{"a wrong checksum", pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).BadChecksum()},
			} {
				out, port := b.through(false, c.in.Bytes())
				if port != lan {
					t.Errorf("%s: left by port %d", c.name, port)
				}
				inner := c.in.Bytes()
				if inner[0]>>4 == 4 {
					inner[8]--
					pkttest.Seal(inner)
				} else {
					inner[7]--
				}
				if c.name == "a wrong checksum" { // pkttest.Check looks into IPIP
					if out == nil || !bytes.Equal(out[x.overhead():], inner) {
						t.Errorf("%s: %s", c.name, pkttest.String(out))
					}
					continue
				}
				x.check(t, c.name, out, x.outer.web.Addr(), inner)
				id, from := chosen(out)
				if out[0]>>4 == 4 && out[6]&0x40 == 0 && ids[id] {
					t.Errorf("%s: IP ID %d was there before, and the packet may be cut", c.name, id)
				}
				if out[0]>>4 == 4 && out[6]&0x40 != 0 && id != 0 {
					t.Errorf("%s: IP ID %d of a packet that may not be cut", c.name, id)
				}
				ids[id], ports[from] = true, true
			}
			if x.way == ForwardGUE && (len(ports) != 1 || ports[0]) {
				t.Errorf("one connection came from ports %v", ports)
			}
			if n := b.sum(0); n.Conns != 1 || n.InPackets != 10 {
				t.Errorf("counted %+v", n)
			}
			last := pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).TTL(1)
			run(t, b, []step{{name: "TTL of one is answered in the client's family", in: last.Bytes(), verdict: Answered, port: wan, loose: true,
				want: one(icmpFrom(pkttest.ICMPTimeExceeded(x.inner.vip.Addr(), x.inner.client.Addr(), last.Bytes())))}})
		})
	}
}

// TestTunnelPorts: GUE's source port is of the flow, and above 49151, so that paths and receive queues of the servers share the load.
func TestTunnelPorts(t *testing.T) {
	x := tunnels()["gue v4 in v4"]
	b := newBed(t, x.service().option(t))
	ports := map[uint16]bool{}
	for i := range uint16(200) {
		out, _ := b.through(false, pkttest.TCP(netip.AddrPortFrom(x.inner.client.Addr(), 1000+i), x.inner.vip).SYN().Bytes())
		_, port := chosen(out)
		if port < 49152 {
			t.Fatalf("port %d is not dynamic (RFC 6335)", port)
		}
		ports[port] = true
	}
	if len(ports) < 180 {
		t.Errorf("200 connections came from %d ports", len(ports))
	}
}

// TestTunnelTooBig: what is left of the link is what a client may use. To the byte: what just fits leaves, what is one longer does not.
func TestTunnelTooBig(t *testing.T) {
	const mtu = 1450
	for name, x := range tunnels() {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, x.service().option(t), func(s *Snapshot, _ *Engine) { s.Ports[lan].MTU = mtu })
			data := pkttest.TCP(x.inner.client, x.inner.vip).Ack(1).DF()
			b.through(false, pkttest.TCP(x.inner.client, x.inner.vip).SYN().Bytes())
			b.through(false, data.Bytes())
			room := mtu - x.overhead()
			out, _ := b.through(false, data.Size(room).Bytes())
			x.check(t, "it fits", out, x.outer.web.Addr(), data.Size(room).TTL(63).Bytes())
			if len(out) != mtu {
				t.Errorf("%d bytes, want %d", len(out), mtu)
			}
			in := data.Size(room + 1).Bytes()
			quoted := in[:min(len(in), 548)]
			if x.inner.client.Addr().Is6() {
				quoted = in[:min(len(in), 1232)]
			}
			run(t, b, []step{{name: "one byte too long", in: in, verdict: Answered, port: wan, loose: true,
				want: one(icmpFrom(pkttest.ICMPTooBig(x.inner.vip.Addr(), x.inner.client.Addr(), uint32(room), quoted)))}})
			icmp := pkttest.ICMPTooBig(x.inner.router, x.inner.vip.Addr(), 1300, pkttest.TCP(x.inner.vip, x.inner.client).Size(room).Bytes())
			run(t, b, []step{{name: "an ICMP error is not answered", in: icmp.Bytes(), verdict: Dropped, drop: DropTooBig}})
		})
	}
}

// TestTunnelCutsTheOuterPacket: an IPv4 packet without DF, and an IPv6 one of up to 1280 bytes, which every link takes, leave in pieces.
func TestTunnelCutsTheOuterPacket(t *testing.T) {
	for name, x := range tunnels() {
		t.Run(name, func(t *testing.T) {
			const mtu = 1290
			b := newBed(t, x.service().option(t), func(s *Snapshot, _ *Engine) { s.Ports[lan].MTU = mtu })
			data, size := pkttest.TCP(x.inner.client, x.inner.vip).Ack(1), 1280
			b.through(false, pkttest.TCP(x.inner.client, x.inner.vip).SYN().Bytes())
			b.through(false, data.Bytes())
			if x.inner.client.Addr().Is4() {
				size = 1480
			}
			seen := map[string]bool{}
			for round := range 3 {
				was, sent := b.sum(0).InPackets, b.worker.Counters.Sum().Sent
				b.fromClient(data.Size(size).Bytes())
				b.round()
				var pieces [][]byte
				for f := b.take(lan); f != nil; f = b.take(lan) {
					if len(f) > 14+mtu {
						t.Errorf("a piece of %d bytes", len(f)-14)
					}
					checkLink(t, "piece", lan, nil, f)
					pieces = append(pieces, f[14:])
				}
				if len(pieces) != 2 {
					t.Fatalf("%d pieces left; dropped: %v", len(pieces), b.dropped())
				}
				x.check(t, "joined", pkttest.Join(pieces...), x.outer.web.Addr(), data.Size(size).TTL(63).Bytes())
				id := string(pieces[0][4:6])
				if pieces[0][0]>>4 == 6 {
					id = string(pieces[0][44:48])
				}
				if seen[id] {
					t.Errorf("round %d: identification %x was there before", round, id)
				}
				seen[id] = true
				if n := b.sum(0).InPackets - was; n != 1 {
					t.Errorf("counted as %d packets", n)
				}
				if n := b.worker.Counters.Sum().Sent - sent; n != 1 {
					t.Errorf("%d sent beside the forwarded one, want 1", n)
				}
			}
			if x.inner.client.Addr().Is6() {
				in := data.Size(1281).Bytes()
				run(t, b, []step{{name: "more than 1280 is too big, and 1280 is the least that may be said", in: in, verdict: Answered, port: wan,
					want: one(pkttest.ICMPTooBig(x.inner.vip.Addr(), x.inner.client.Addr(), 1280, in[:1232]))}})
			}
		})
	}
}

// TestTunnelWithoutAnAddress: an outer packet needs a source of the server's family.
func TestTunnelWithoutAnAddress(t *testing.T) {
	x := tunnels()["ipip v4 in v6"]
	b := newBed(t, x.service().option(t), func(s *Snapshot, _ *Engine) { s.Ports[lan].Addresses = s.Ports[lan].Addresses[:1] })
	run(t, b, []step{{name: "none on that port", in: pkttest.TCP(x.inner.client, x.inner.vip).SYN().Bytes(), verdict: Dropped, drop: DropNoRoute}})
}

// TestTunnelBehindAGateway: the outer packet goes by its own destination.
func TestTunnelBehindAGateway(t *testing.T) {
	for _, name := range []string{"ipip v4 in v4", "gre v4 in v6", "gue v6 in v4"} {
		x := tunnels()[name]
		b := newBed(t, x.service(x.outer.remote, x.outer.second).option(t))
		for i, mac := range [][]byte{gateMAC, secondMAC} {
			b.fromClient(pkttest.TCP(netip.AddrPortFrom(x.inner.client.Addr(), uint16(i+1)), x.inner.vip).SYN().Bytes())
			b.round()
			f := b.take(lan)
			if f == nil {
				t.Fatalf("%s: dropped as %v", name, b.dropped())
			}
			checkLink(t, name, lan, mac, f)
		}
	}
}

// TestTunnelCarriesErrors: an ICMP error of a router on the client's side, about what a server sent, goes to that server.
func TestTunnelCarriesErrors(t *testing.T) {
	for name, x := range tunnels() {
		b := newBed(t, x.service().option(t))
		b.through(false, pkttest.TCP(x.inner.client, x.inner.vip).SYN().Bytes())
		icmp := pkttest.ICMPTooBig(x.inner.router, x.inner.vip.Addr(), 1300, pkttest.TCP(x.inner.vip, x.inner.client).Seq(1).DF().Size(100).Bytes())
		out, _ := b.through(false, icmp.Bytes())
		if len(out) <= x.overhead() || !bytes.Equal(out[x.overhead():], icmp.TTL(63).Bytes()) {
			t.Errorf("%s: %s", name, pkttest.String(out))
		}
	}
}

// TestTunnelOfUDP: what has no checksum inside stays without one, and later fragments have an outer header of their own.
func TestTunnelOfUDP(t *testing.T) {
	x := tunnels()["ipip v4 in v4"]
	s := x.service()
	s.protocol = packet.ProtoUDP
	b := newBed(t, s.option(t))
	in := pkttest.UDP(x.inner.client, x.inner.vip).NoChecksum().Payload(payload)
	out, _ := b.through(false, in.Bytes())
	x.check(t, "no checksum", out, x.outer.web.Addr(), in.TTL(63).Bytes())
	for i, piece := range pkttest.UDP(x.inner.client, x.inner.vip).Size(3000).ID(5).Cut(5, 1000, 2000) {
		out, _ := b.through(false, piece)
		piece[8]--
		x.check(t, fmt.Sprintf("piece %d", i), out, x.outer.web.Addr(), pkttest.Seal(piece))
	}
}
