package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
)

// toa is full NAT that passes the client's address on.
func toa(name string) serving {
	x := fullnat(families[name], 40000, 40999, localIPs[name][:1])
	x.servers[0].Sources.TOA = true
	return x
}

// option is the address option that a client's segment must bear.
func option(client netip.AddrPort) []byte {
	addr := client.Addr().AsSlice()
	return append([]byte{254, byte(4 + len(addr)), byte(client.Port() >> 8), byte(client.Port())}, addr...)
}

// seen is what gopacket finds in a TCP segment: the client in the address option, the other options, and the payload.
func seen(t testing.TB, ip []byte) (client netip.AddrPort, others []layers.TCPOption, payload []byte) {
	t.Helper()
	family := layers.LayerTypeIPv4
	if ip[0]>>4 == 6 {
		family = layers.LayerTypeIPv6
	}
	h, ok := gopacket.NewPacket(ip, family, gopacket.Default).Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ok {
		t.Fatalf("gopacket finds no TCP in %s", pkttest.String(ip))
	}
	for _, o := range h.Options {
		if o.OptionType != 254 {
			others = append(others, o)
			continue
		}
		if client.IsValid() || int(o.OptionLength) != 2+len(o.OptionData) {
			t.Errorf("address options: %v", h.Options)
		}
		addr, _ := netip.AddrFromSlice(o.OptionData[2:])
		client = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(o.OptionData))
	}
	return client, others, h.Payload
}

func TestClientAddressOption(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, toa(name).option(t))
			syn, _ := b.through(false, pkttest.TCP(a.client, a.vip).SYN().TCPOptions(2, 4, 5, 180).Bytes())
			from := source(syn)
			p, q := pkttest.TCP(a.client, a.vip).Seq(1), pkttest.TCP(from, a.web).Seq(1).TTL(63)
			if !bytes.Equal(syn, pkttest.TCP(from, a.web).SYN().TTL(63).TCPOptions(2, 4, 5, 180).Bytes()) {
				t.Errorf("the SYN is as ever, but left as %s", pkttest.String(syn))
			}
			timestamps := []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
			mine := option(a.client)
			run(t, b, []step{
				{name: "SYN+ACK", in: pkttest.TCP(a.web, from).SYN().Seq(99).Ack(1).Bytes(), server: true, verdict: Forwarded, port: wan,
					want: one(pkttest.TCP(a.vip, a.client).SYN().Seq(99).Ack(1).TTL(63))},
				{name: "the handshake's ACK bears it", in: p.Ack(100).Bytes(), verdict: Forwarded, port: lan, want: one(q.Ack(100).TCPOptions(mine...))},
				{name: "so does data before the server's first byte, if that ACK was lost; its own options stand behind", verdict: Forwarded, port: lan,
					in:   p.Ack(100).PSH().TCPOptions(timestamps...).Payload(payload).Bytes(),
					want: one(q.Ack(100).PSH().TCPOptions(append(bytes.Clone(mine), timestamps...)...).Payload(payload))},
				{name: "and a FIN", in: p.Ack(100).FIN().Bytes(), verdict: Forwarded, port: lan, want: one(q.Ack(100).FIN().TCPOptions(mine...))},
				{name: "but no RST", in: p.Ack(100).RST().Bytes(), verdict: Forwarded, port: lan, want: one(q.Ack(100).RST())},
			})
			b = newBed(t, toa(name).option(t))
			syn, _ = b.through(false, pkttest.TCP(a.client, a.vip).SYN().Bytes())
			from = source(syn)
			b.through(true, pkttest.TCP(a.web, from).SYN().Seq(0xffffffff).Ack(1).Bytes())
			q = pkttest.TCP(from, a.web).Seq(1).TTL(63)
			full := bytes.Repeat([]byte{1}, 40)
			nearly := full[:40-len(mine)]
			run(t, b, []step{
				{name: "sequence numbers come round", in: p.Ack(0).Bytes(), verdict: Forwarded, port: lan, want: one(q.Ack(0).TCPOptions(mine...))},
				{name: "no room among the options", in: p.Ack(0).TCPOptions(full...).Bytes(), verdict: Forwarded, port: lan, want: one(q.Ack(0).TCPOptions(full...))},
				{name: "just room", in: p.Ack(0).TCPOptions(nearly...).Bytes(), verdict: Forwarded, port: lan,
					want: one(q.Ack(0).TCPOptions(append(bytes.Clone(mine), nearly...)...))},
				{name: "4 bytes short of room", in: p.Ack(0).TCPOptions(full[:44-len(mine)]...).Bytes(), verdict: Forwarded, port: lan,
					want: one(q.Ack(0).TCPOptions(full[:44-len(mine)]...))},
				{name: "no room on the link", in: p.Ack(0).Size(1500 - len(mine) + 1).Bytes(), verdict: Forwarded, port: lan, want: one(q.Ack(0).Size(1500 - len(mine) + 1))},
				{name: "just room on the link", in: p.Ack(0).Size(1500 - len(mine)).Bytes(), verdict: Forwarded, port: lan,
					want: one(q.Ack(0).TCPOptions(mine...).Size(1500))},
				{name: "once the server has spoken, no more", in: p.Ack(1).Payload(payload).Bytes(), verdict: Forwarded, port: lan, want: one(q.Ack(1).Payload(payload))},
			})
			broken, _ := b.through(false, p.Ack(0).BadChecksum().Bytes())
			if c, _, _ := seen(t, broken); c != a.client || pkttest.Verify(broken) == nil {
				t.Errorf("a wrong checksum must stay wrong: %s", pkttest.String(broken))
			}
			piece := pkttest.TCP(a.client, a.vip).Seq(1).Ack(0).Size(800).Cut(7, 400)[0]
			if out, _ := b.through(false, piece); len(out) != len(piece) {
				t.Errorf("a fragment of %d bytes left with %d", len(piece), len(out))
			}
		})
	}
}

// TestNoClientAddressOption: nobody asked for it.
func TestNoClientAddressOption(t *testing.T) {
	a := families["v4"]
	b := newBed(t, fullnat(a, 40000, 40009, localIPs["v4"]).option(t))
	syn, _ := b.through(false, pkttest.TCP(a.client, a.vip).SYN().Bytes())
	from := source(syn)
	run(t, b, []step{
		{name: "SYN+ACK", in: pkttest.TCP(a.web, from).SYN().Ack(1).Bytes(), server: true, verdict: Forwarded, port: wan, want: one(pkttest.TCP(a.vip, a.client).SYN().Ack(1).TTL(63))},
		{name: "ACK", in: pkttest.TCP(a.client, a.vip).Seq(1).Ack(1).Bytes(), verdict: Forwarded, port: lan, want: one(pkttest.TCP(from, a.web).Seq(1).Ack(1).TTL(63))},
	})
}

// TestClientAddressOptionOfAnySegment holds what leaves to what gopacket reads: the option, whatever came with the segment, all checksums right.
func TestClientAddressOptionOfAnySegment(t *testing.T) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, toa(name).option(t))
			rapid.Check(t, func(r *rapid.T) {
				c := netip.AddrPortFrom(a.client.Addr(), rapid.Uint16Range(1, 65535).Draw(r, "port"))
				b.drain()
				syn, _ := b.through(false, pkttest.TCP(c, a.vip).SYN().Bytes())
				isn := rapid.Uint32().Draw(r, "isn")
				b.through(true, pkttest.TCP(a.web, source(syn)).SYN().Seq(isn).Ack(1).Bytes())
				data := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(r, "data")
				nops := bytes.Repeat([]byte{1}, 4*rapid.IntRange(0, 5).Draw(r, "options"))
				p := pkttest.TCP(c, a.vip).Seq(1).Ack(isn + 1).Window(rapid.Uint16().Draw(r, "window")).TCPOptions(nops...).Payload(data).TOS(rapid.Uint8().Draw(r, "tos"))
				out, _ := b.through(false, p.Bytes())
				if out == nil {
					r.Fatalf("dropped as %v", b.dropped())
				}
				client, others, payload := seen(t, out)
				if err := pkttest.Verify(out); err != nil || client != c || len(others) != len(nops) || !bytes.Equal(payload, data) {
					r.Errorf("%v: client %v, want %v, %d other options, want %d, %d bytes, want %d: %s", err, client, c, len(others), len(nops), len(payload), len(data), pkttest.String(out))
				}
			})
		})
	}
}

// TestClientAddressOptionIsForTCP: UDP has no options.
func TestClientAddressOptionIsForTCP(t *testing.T) {
	x := toa("v4")
	x.protocol = 17
	a := families["v4"]
	b := newBed(t, x.option(t))
	out, _ := b.through(false, pkttest.UDP(a.client, a.vip).Payload(payload).Bytes())
	if out == nil || !bytes.Equal(out, pkttest.UDP(source(out), a.web).Payload(payload).TTL(63).Bytes()) {
		t.Errorf("left as %s", pkttest.String(out))
	}
	if n := b.sum(0); n != (Traffic{Conns: 1, InPackets: 1, InBytes: uint64(len(out))}) {
		t.Errorf("counted %+v", n)
	}
}
