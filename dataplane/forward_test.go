package dataplane_test

import (
	"bytes"
	"net/netip"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// ends are the addresses of one family.
type ends struct {
	client, vip, web       netip.AddrPort
	second, remote, router netip.Addr
}

// families are those that every way is tried with. The VIP is of no service of the bed's own.
var families = map[string]ends{
	"v4": {client, netip.MustParseAddrPort("198.18.9.20:80"), web, second, remote, router},
	"v6": {client6, netip.MustParseAddrPort("[2001:db8:9::20]:80"), web6, second6, remote6, netip.MustParseAddr("2001:db8::2")},
}

func TestDirectRouting(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, serving{vip: a.vip, servers: []Backend{server(a.web, ForwardDR)}}.option(t))
			syn, data := pkttest.TCP(a.client, a.vip).SYN(), pkttest.TCP(a.client, a.vip).Seq(1).Ack(1).PSH().Payload(payload).TOS(0xb9)
			broken := pkttest.TCP(a.client, a.vip).Seq(1).Ack(1).BadChecksum()
			toServer := pkttest.ICMPTooBig(a.router, a.vip.Addr(), 1300, pkttest.TCP(a.vip, a.client).Seq(1).DF().Size(200).Bytes())
			last := pkttest.TCP(a.client, a.vip).Seq(1).Ack(1).TTL(1)
			run(t, b, []step{
				{name: "leaves as it came, TTL one less", in: syn.Bytes(), verdict: Forwarded, port: lan, want: one(syn.TTL(63))},
				{name: "the server's answer goes past us; one that comes here is the kernel's", server: true,
					in: pkttest.TCP(a.vip, a.client).SYN().Ack(1).Bytes(), verdict: Punted},
				{name: "data", in: data.Bytes(), verdict: Forwarded, port: lan, want: one(data.TTL(63))},
				{name: "an ICMP error about the server's packet is the server's", in: toServer.Bytes(), verdict: Forwarded, port: lan, want: one(toServer.TTL(63))},
				{name: "TTL of one is answered", in: last.Bytes(), verdict: Answered, port: wan, loose: true,
					want: one(icmpFrom(pkttest.ICMPTimeExceeded(a.vip.Addr(), a.client.Addr(), last.Bytes())))},
			})
			if n := b.sum(0); n.Conns != 1 || n.InPackets != 4 || n.OutPackets != 0 {
				t.Errorf("counted %+v", n)
			}
			if out, _ := b.through(false, broken.Bytes()); !bytes.Equal(out, broken.TTL(63).Bytes()) {
				t.Errorf("a wrong checksum is none of ours: %s", pkttest.String(out))
			}
		})
	}
}

func TestDirectRoutingBehindAGateway(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, serving{vip: a.vip, servers: []Backend{
				server(netip.AddrPortFrom(a.remote, 80), ForwardDR), server(netip.AddrPortFrom(a.second, 80), ForwardDR)}}.option(t))
			syn := func(port uint16) pkttest.Packet {
				return pkttest.TCP(netip.AddrPortFrom(a.client.Addr(), port), a.vip).SYN()
			}
			run(t, b, []step{
				{name: "one server", in: syn(1).Bytes(), verdict: Forwarded, port: lan, to: gateMAC, want: one(syn(1).TTL(63))},
				{name: "the other", in: syn(2).Bytes(), verdict: Forwarded, port: lan, to: secondMAC, want: one(syn(2).TTL(63))},
				{name: "the first again", in: syn(1).Bytes(), verdict: Forwarded, port: lan, to: gateMAC, want: one(syn(1).TTL(63))},
			})
		})
	}
}

// TestOneWayStates: of what is not answered through us only the client's half is seen (the kernel's INPUT_ONLY table).
func TestOneWayStates(t *testing.T) {
	a := families["v4"]
	p := pkttest.TCP(a.client, a.vip)
	for _, c := range []struct {
		name   string
		in     []pkttest.Packet
		want   conntrack.State
		active bool
		lives  int64 // seconds
	}{
		{"SYN", []pkttest.Packet{p.SYN()}, conntrack.SynRecv, true, 60},
		{"an ACK is enough", []pkttest.Packet{p.SYN(), p.Ack(1)}, conntrack.Established, true, 900},
		{"FIN waits for the server's, which nobody sees", []pkttest.Packet{p.SYN(), p.Ack(1), p.FIN().Ack(1)}, conntrack.FinWait, false, 120},
		{"the last ACK changes nothing", []pkttest.Packet{p.SYN(), p.Ack(1), p.FIN().Ack(1), p.Ack(2)}, conntrack.FinWait, false, 120},
		{"FIN of what is not established", []pkttest.Packet{p.SYN(), p.FIN().Ack(1)}, conntrack.TimeWait, false, 120},
		{"RST", []pkttest.Packet{p.SYN(), p.Ack(1), p.RST()}, conntrack.Close, false, 10},
		{"no flag at all", []pkttest.Packet{p.SYN(), p.Ack(1), p}, conntrack.Close, false, 10},
	} {
		for _, way := range []Forward{ForwardDR, ForwardIPIP} {
			t.Run(c.name+" "+way.String(), func(t *testing.T) {
				b := newBed(t, serving{vip: a.vip, servers: []Backend{server(a.web, way)}}.option(t))
				for _, x := range c.in {
					if out, _ := b.through(false, x.Bytes()); out == nil {
						t.Fatalf("dropped as %v: %s", b.dropped(), x)
					}
				}
				if got := b.state(); got != c.want {
					t.Errorf("state %v, want %v", got, c.want)
				}
				want := [3]int{0, 1, 0}
				if c.active {
					want = [3]int{1, 0, 0}
				}
				b.wantCounts("then", want)
				b.after(c.lives*1e9 - 2e9)
				b.wantCounts("until its time is up", want)
				b.after(4e9)
				b.wantCounts("then", [3]int{})
			})
		}
	}
}

// TestFragmentsToOneServer: all pieces of a datagram go to the server of the first, whatever way leads there, also one that came before it.
func TestFragmentsToOneServer(t *testing.T) {
	for name, a := range families {
		for _, way := range []Forward{ForwardDR, ForwardIPIP, ForwardGUE, ForwardGRE} {
			t.Run(name+" "+way.String(), func(t *testing.T) {
				b := newBed(t, serving{vip: a.vip, protocol: packet.ProtoUDP,
					servers: []Backend{server(a.web, way), server(netip.AddrPortFrom(a.second, 80), way)}}.option(t))
				for round := range uint32(4) { // each from another port, so to another server
					c := netip.AddrPortFrom(a.client.Addr(), uint16(1000+round))
					in := pkttest.UDP(c, a.vip).Size(3000).ID(uint16(round)).Cut(round, 1000, 2000)
					want := pkttest.UDP(c, a.vip).Size(3000).ID(uint16(round)).TTL(63).Cut(round, 1000, 2000)
					for i, piece := range [][]int{{0, 1, 2}, {2, 0, 1}}[round%2] {
						b.fromClient(in[piece])
						b.round()
						if v, _ := b.engine.Verdicts(); i == 0 && v.Held != uint64(round%2) {
							t.Fatalf("piece %d came first, and %d wait", piece, v.Held)
						}
					}
					left := map[string]bool{}
					for f := b.take(lan); f != nil; f = b.take(lan) {
						left[string(innerOf(t, f[14:], way))] = true
						if mac := [2][]byte{webMAC, secondMAC}[round%2]; !bytes.Equal(f[:6], mac) {
							t.Errorf("round %d: a piece for %x, want %x", round, f[:6], mac)
						}
					}
					for i := range want {
						if !left[string(want[i])] {
							t.Errorf("round %d: piece %d did not leave as it must; %d others did", round, i, len(left))
						}
					}
				}
				if n, m := b.sum(0), b.sum(1); n.Conns != 2 || m.Conns != 2 || n.InPackets != 6 || m.InPackets != 6 || n.InBytes == 0 || n.InBytes != m.InBytes {
					t.Errorf("counted %+v and %+v", n, m)
				}
			})
		}
	}
}

// TestForwardChanges: how a connection goes on is decided when it is opened; a reload changes it for new ones.
func TestForwardChanges(t *testing.T) {
	a := families["v4"]
	tunnels := []Forward{ForwardIPIP, ForwardGUE, ForwardGRE}
	for _, was := range append([]Forward{ForwardNAT, ForwardDR}, tunnels...) {
		for _, is := range []Forward{ForwardNAT, ForwardDR, ForwardIPIP} {
			x := serving{vip: a.vip, servers: []Backend{server(a.web, was)}}
			b := newBed(t, x.option(t))
			old, fresh := pkttest.TCP(a.client, a.vip), pkttest.TCP(netip.AddrPortFrom(a.client.Addr(), 4001), a.vip).SYN()
			b.through(false, old.SYN().Bytes())
			before, _ := b.through(false, old.Ack(1).DF().Bytes())
			x.change(b, 0, func(s *Backend) {
				s.Forward, s.Path, s.TunnelPort = is, nil, 0
				if is == ForwardIPIP {
					s.Path = pathTo(&b.snap, *s)
				}
			})
			if after, _ := b.through(false, old.Ack(1).DF().Bytes()); !bytes.Equal(after, before) {
				t.Errorf("%v to %v: an old connection's packet is\n%s, was\n%s", was, is, pkttest.String(after), pkttest.String(before))
			}
			out, _ := b.through(false, fresh.Bytes())
			want := fresh.TTL(63).Bytes()
			if is == ForwardNAT {
				want = pkttest.TCP(netip.AddrPortFrom(a.client.Addr(), 4001), a.web).SYN().TTL(63).Bytes()
			}
			if out == nil || !bytes.Equal(innerOf(t, out, is), want) {
				t.Errorf("%v to %v: a new connection's is %s", was, is, pkttest.String(out))
			}
		}
	}
}

// innerOf is what a tunnel's packet carries, or with direct routing the packet itself.
func innerOf(t testing.TB, ip []byte, way Forward) []byte {
	t.Helper()
	pkttest.Check(t, ip)
	n := 20
	if ip[0]>>4 == 6 {
		n = 40
	}
	switch way {
	case ForwardIPIP:
	case ForwardGUE:
		n += 12
	case ForwardGRE:
		n += 4
	default:
		return ip
	}
	if len(ip) < n+20 {
		t.Errorf("%s carries nothing", pkttest.String(ip))
		return nil
	}
	return ip[n:]
}
