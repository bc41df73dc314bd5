package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/sched"
	"weir/dataplane/steer"
)

func TestTCPBothWays(t *testing.T) {
	for name, a := range map[string]struct{ client, vip, real netip.AddrPort }{"v4": {client, vip, web}, "v6": {client6, vip6, web6}} {
		t.Run(name, func(t *testing.T) {
			run(t, newBed(t), []step{
				{name: "SYN to the VIP leaves for the server, TTL one less", in: pkttest.TCP(a.client, a.vip).SYN().TTL(64).Bytes(),
					verdict: Forwarded, port: lan, want: one(pkttest.TCP(a.client, a.real).SYN().TTL(63))},
				{name: "SYN+ACK comes from the VIP", in: pkttest.TCP(a.real, a.client).SYN().Ack(1).Bytes(), server: true,
					verdict: Forwarded, port: wan, want: one(pkttest.TCP(a.vip, a.client).SYN().Ack(1).TTL(63))},
				{name: "data goes on to the same server", in: pkttest.TCP(a.client, a.vip).Seq(1).Ack(1).Payload(payload).TOS(0xb8).Bytes(),
					verdict: Forwarded, port: lan, want: one(pkttest.TCP(a.client, a.real).Seq(1).Ack(1).Payload(payload).TOS(0xb8).TTL(63))},
				{name: "FIN of the server", in: pkttest.TCP(a.real, a.client).FIN().Ack(9).Bytes(), server: true,
					verdict: Forwarded, port: wan, want: one(pkttest.TCP(a.vip, a.client).FIN().Ack(9).TTL(63))},
				{name: "hop count used up is answered", in: pkttest.TCP(a.client, a.vip).Ack(1).TTL(1).Bytes(), verdict: Answered, port: wan, loose: true,
					want: one(icmpFrom(pkttest.ICMPTimeExceeded(a.vip.Addr(), a.client.Addr(), pkttest.TCP(a.client, a.vip).Ack(1).TTL(1).Bytes())))},
				{name: "hop count used up in the server's packet", in: pkttest.TCP(a.real, a.client).Ack(1).TTL(1).Bytes(), server: true, verdict: Answered, port: lan, loose: true,
					want: one(icmpFrom(pkttest.ICMPTimeExceeded(portAddr(a.real), a.real.Addr(), pkttest.TCP(a.real, a.client).Ack(1).TTL(1).Bytes())))},
			})
		})
	}
}

// icmpFrom gives our own ICMP errors the precedence that routers give theirs over IPv4.
func icmpFrom(p pkttest.Packet) pkttest.Packet {
	if p.Bytes()[0]>>4 == 4 {
		return p.TOS(0xc0)
	}
	return p
}

func portAddr(real netip.AddrPort) netip.Addr {
	if real.Addr().Is4() {
		return lanIP
	}
	return netip.MustParseAddr("2001:db8:1::1")
}

func TestUDP(t *testing.T) {
	run(t, newBed(t), []step{
		{name: "any datagram opens a connection", in: pkttest.UDP(client, dns).Payload(payload).Bytes(),
			verdict: Forwarded, port: lan, want: one(pkttest.UDP(client, dnsReal).Payload(payload).TTL(63))},
		{name: "the answer", in: pkttest.UDP(dnsReal, client).Payload(payload).Bytes(), server: true,
			verdict: Forwarded, port: wan, want: one(pkttest.UDP(dns, client).Payload(payload).TTL(63))},
		{name: "no checksum gets one, as with the kernel", in: pkttest.UDP(client, dns).Payload(payload).NoChecksum().Bytes(),
			verdict: Forwarded, port: lan, want: one(pkttest.UDP(client, dnsReal).Payload(payload).TTL(63))},
		{name: "a server's own datagram is the kernel's", in: pkttest.UDP(dnsReal, netip.MustParseAddrPort("198.18.128.9:999")).Bytes(), server: true,
			verdict: Punted},
		{name: "idle for 300 s it is forgotten", wait: 301e9, in: pkttest.UDP(dnsReal, client).Payload(payload).Bytes(), server: true, verdict: Punted},
	})
}

func TestWithoutConnection(t *testing.T) {
	ack := pkttest.TCP(client, vip).Seq(7).Ack(9)
	other := netip.MustParseAddrPort("198.18.9.9:81")
	run(t, newBed(t, alone), []step{
		{name: "ACK", in: ack.Bytes(), verdict: Answered, port: wan, want: one(pkttest.TCP(vip, client).Seq(9).RST().DF().Window(0))},
		{name: "SYN+ACK opens nothing", in: pkttest.TCP(client, vip).SYN().Ack(3).Bytes(), verdict: Answered, port: wan,
			want: one(pkttest.TCP(vip, client).Seq(3).RST().DF().Window(0))},
		{name: "ACK with a wrong checksum", in: ack.BadChecksum().Bytes(), verdict: Dropped, drop: DropChecksum},
		{name: "RST", in: pkttest.TCP(client, vip).RST().Bytes(), verdict: Dropped, drop: DropNoConnection},
		{name: "SYN+RST", in: pkttest.TCP(client, vip).SYN().RST().Bytes(), verdict: Dropped, drop: DropNoConnection},
		{name: "SYN+FIN", in: pkttest.TCP(client, vip).SYN().FIN().Bytes(), verdict: Dropped, drop: DropTCPFlags},
		{name: "SYN from the VIP itself", in: pkttest.TCP(netip.MustParseAddrPort("198.18.9.9:1"), vip).SYN().Bytes(), verdict: Dropped, drop: DropMartian},
		{name: "SYN from loopback", in: pkttest.TCP(netip.MustParseAddrPort("127.0.0.1:1"), vip).SYN().Bytes(), verdict: Dropped, drop: DropMartian},
		{name: "SYN with a source route", in: pkttest.TCP(client, vip).SYN().Options(0x83, 7, 4, 198, 18, 0, 9, 0).Bytes(), verdict: Dropped, drop: DropSourceRoute},
		{name: "unused TCP port", in: pkttest.TCP(client, other).SYN().Seq(5).Bytes(), verdict: Answered, port: wan,
			want: one(pkttest.TCP(other, client).RST().Ack(6).DF().Window(0))},
		{name: "unused UDP port", in: pkttest.UDP(client, other).Payload([]byte("x")).Bytes(), verdict: Answered, port: wan, loose: true,
			want: one(icmpFrom(pkttest.ICMPPortUnreachable(vip.Addr(), client.Addr(), pkttest.UDP(client, other).Payload([]byte("x")).Bytes())))},
		{name: "with a wrong checksum", in: pkttest.UDP(client, other).Payload([]byte("x")).BadChecksum().Bytes(), verdict: Dropped, drop: DropChecksum},
		{name: "echo", in: pkttest.Echo(client.Addr(), vip.Addr(), 7, 1).Payload([]byte("odd")).Bytes(), verdict: Answered, port: wan,
			want: one(pkttest.EchoReply(vip.Addr(), client.Addr(), 7, 1).Payload([]byte("odd")))},
		{name: "bad header checksum", in: pkttest.TCP(client, vip).SYN().BadIPChecksum().Bytes(), verdict: Dropped, drop: DropIPChecksum},
	})
	run(t, newBed(t), []step{
		{name: "with a kernel behind, unused ports are its business", in: pkttest.TCP(client, other).SYN().Bytes(), verdict: Punted},
		{name: "and so is echo", in: pkttest.Echo(client.Addr(), vip.Addr(), 7, 1).Bytes(), verdict: Punted},
		{name: "TCP to a service is not", in: ack.Bytes(), verdict: Answered, port: wan, want: one(pkttest.TCP(vip, client).Seq(9).RST().DF().Window(0))},
	})
}

func TestNoBackend(t *testing.T) {
	b := newBed(t, func(s *Snapshot, _ *Engine) {
		s.Services = NewServices([]Service{{Protocol: packet.ProtoTCP, VIP: steer.One(vip.Addr()), Port: 80, PortTo: 80, Plan: noServers(t), State: new(sched.State)}})
	})
	syn := pkttest.TCP(client, vip).SYN()
	run(t, b, []step{{name: "port unreachable for TCP, too", in: syn.Bytes(), verdict: Answered, port: wan, loose: true,
		want: one(icmpFrom(pkttest.ICMPPortUnreachable(vip.Addr(), client.Addr(), syn.Bytes())))}})
}

func noServers(t *testing.T) *sched.Plan {
	p, err := sched.New("rr", sched.Options{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestICMPErrors(t *testing.T) {
	b := newBed(t)
	b.open(client, vip, web)
	big := pkttest.TCP(vip, client).Seq(1).DF().Size(1440)
	toServer := pkttest.TCP(client, web).Seq(1).TTL(63)
	far := netip.MustParseAddr("198.18.1.77")
	run(t, b, []step{
		{name: "fragmentation needed reaches the server in its own words",
			in: pkttest.ICMPTooBig(router, vip.Addr(), 1300, big.Bytes()[:28]).Bytes(), verdict: Forwarded, port: lan,
			want: one(pkttest.ICMPTooBig(router, web.Addr(), 1300, quoteAs(big.Bytes()[:28], web, client)).TTL(63))},
		{name: "the server's unreachable comes from the VIP", server: true,
			in: pkttest.ICMPPortUnreachable(web.Addr(), client.Addr(), toServer.Bytes()).Bytes(), verdict: Forwarded, port: wan,
			want: one(pkttest.ICMPPortUnreachable(vip.Addr(), client.Addr(), quoteAs(toServer.Bytes(), client, vip)).TTL(63))},
		{name: "so does that of a router in between", server: true,
			in: pkttest.ICMPTimeExceeded(far, client.Addr(), toServer.Bytes()).Bytes(), verdict: Forwarded, port: wan,
			want: one(pkttest.ICMPTimeExceeded(vip.Addr(), client.Addr(), quoteAs(toServer.Bytes(), client, vip)).TTL(63))},
		{name: "a wrong checksum is not made right", in: pkttest.ICMPTooBig(router, vip.Addr(), 1300, big.Bytes()[:28]).BadChecksum().Bytes(),
			verdict: Dropped, drop: DropICMPChecksum},
		{name: "about no connection", in: pkttest.ICMPTooBig(router, vip.Addr(), 1300, pkttest.TCP(vip, netip.MustParseAddrPort("198.18.128.9:1")).Bytes()[:28]).Bytes(),
			verdict: Dropped, drop: DropICMPUnrelated},
		{name: "parameter problem is not translated", in: pkttest.ICMPError(router, vip.Addr(), 12, 0, 0, big.Bytes()[:28]).Bytes(),
			verdict: Dropped, drop: DropICMPUnrelated},
	})
}

func TestICMPv6Errors(t *testing.T) {
	b := newBed(t)
	b.open(client6, vip6, web6)
	big := pkttest.TCP(vip6, client6).Seq(1).Size(1400)
	toServer := pkttest.TCP(client6, web6).Seq(1).TTL(63)
	far := netip.MustParseAddr("2001:db8::2")
	run(t, b, []step{
		{name: "packet too big", in: pkttest.ICMPTooBig(far, vip6.Addr(), 1300, big.Bytes()[:200]).Bytes(), verdict: Forwarded, port: lan,
			want: one(pkttest.ICMPTooBig(far, web6.Addr(), 1300, quoteAs(big.Bytes()[:200], web6, client6)).TTL(63))},
		{name: "the server's unreachable", server: true, in: pkttest.ICMPPortUnreachable(web6.Addr(), client6.Addr(), toServer.Bytes()).Bytes(),
			verdict: Forwarded, port: wan,
			want: one(pkttest.ICMPPortUnreachable(vip6.Addr(), client6.Addr(), quoteAs(toServer.Bytes(), client6, vip6)).TTL(63))},
	})
}

// quoteAs is the quoted packet with other addresses and ports. Its transport checksum is left as it was: nobody can verify it.
func quoteAs(ip []byte, src, dst netip.AddrPort) []byte {
	ip = bytes.Clone(ip)
	l4 := 40
	if ip[0]>>4 == 4 {
		l4 = 20
		copy(ip[12:], src.Addr().AsSlice())
		copy(ip[16:], dst.Addr().AsSlice())
		ip = pkttest.Seal(ip)
	} else {
		copy(ip[8:], src.Addr().AsSlice())
		copy(ip[24:], dst.Addr().AsSlice())
	}
	binary.BigEndian.PutUint16(ip[l4:], src.Port())
	binary.BigEndian.PutUint16(ip[l4+2:], dst.Port())
	return ip
}

func TestTooBig(t *testing.T) {
	b := newBed(t, func(s *Snapshot, _ *Engine) { s.Ports[lan].MTU = 1300 })
	b.open(client, vip, web)
	b.open(client6, vip6, web6)
	df := pkttest.TCP(client, vip).Seq(1).Ack(1).DF().Size(1400)
	cut := pkttest.TCP(client, vip).Seq(1).Ack(1).ID(77).Size(1400)
	whole := pkttest.TCP(client, web).Seq(1).Ack(1).ID(77).TTL(63).Size(1400).Bytes()
	v6 := pkttest.TCP(client6, vip6).Seq(1).Ack(1).Size(1400)
	run(t, b, []step{
		{name: "DF set: fragmentation needed with the link's MTU, quoting the packet as it came", in: df.Bytes(), verdict: Answered, port: wan, loose: true,
			want: one(icmpFrom(pkttest.ICMPTooBig(vip.Addr(), client.Addr(), 1300, df.Bytes()[:548])))},
		{name: "DF clear: fragments", in: cut.Bytes(), verdict: Forwarded, port: lan, want: fragments4(whole, 1280)},
		{name: "IPv6: packet too big", in: v6.Bytes(), verdict: Answered, port: wan,
			want: one(pkttest.ICMPTooBig(vip6.Addr(), client6.Addr(), 1300, v6.Bytes()[:1232]))},
	})
	v, _ := b.engine.Verdicts()
	if sent := b.worker.Counters.Sum().Sent; sent != v.Answered+1 {
		t.Errorf("sent %d of our own, want the %d answers and one fragment", sent, v.Answered)
	}
}

// fragments4 cuts an IPv4 packet without options in two at payload offset at.
func fragments4(ip []byte, at int) [][]byte {
	first, second := bytes.Clone(ip[:20+at]), append(bytes.Clone(ip[:20]), ip[20+at:]...)
	binary.BigEndian.PutUint16(first[2:], uint16(len(first)))
	binary.BigEndian.PutUint16(first[6:], 0x2000)
	binary.BigEndian.PutUint16(second[2:], uint16(len(second)))
	binary.BigEndian.PutUint16(second[6:], uint16(at/8))
	return [][]byte{pkttest.Seal(first), pkttest.Seal(second)}
}

func TestNeighborUnknown(t *testing.T) {
	b := newBed(t, func(s *Snapshot, _ *Engine) { s.Neighbors = neighbors(web.Addr()) })
	woken := 0
	b.engine.Wake = func() { woken++ }
	syn := func(port uint16) []byte {
		return pkttest.TCP(netip.AddrPortFrom(client.Addr(), port), vip).SYN().Bytes()
	}
	const room = 16 // packets for each next hop
	var steps []step
	for port := uint16(1); port <= room; port++ {
		steps = append(steps, step{name: "waits", in: syn(port), verdict: Held})
	}
	run(t, b, append(steps, step{name: "one more finds no room", in: syn(room + 1), verdict: Dropped, drop: DropNoNeighbor}))
	var wants []Want
	b.engine.Wants(func(w Want) { wants = append(wants, w) })
	addr, _ := AddrOf(web.Addr())
	if len(wants) != 1 || wants[0] != (Want{Port: lan, Addr: addr}) || woken != 1 {
		t.Errorf("control was asked for %+v in %d calls, want the server on lan once", wants, woken)
	}
	b.snap.Neighbors = neighbors()
	b.publish()
	b.round()
	for port := uint16(1); port <= room; port++ {
		want := pkttest.TCP(netip.AddrPortFrom(client.Addr(), port), web).SYN().TTL(63).Bytes()
		if f := b.take(lan); f == nil || !bytes.Equal(f[14:], want) {
			t.Errorf("held packet %d did not leave once the neighbour was known", port)
		}
	}
	b.snap.Neighbors = neighbors(web.Addr())
	b.publish()
	run(t, b, []step{
		{name: "waits again", in: syn(room + 2), verdict: Held},
		{name: "for less than a second", wait: 999e6, verdict: Pending},
	})
	b.now += 1e6
	b.round()
	if v, drops := b.engine.Verdicts(); v.Held != 0 || drops[DropNoNeighbor] != 2 {
		t.Errorf("after a second %d are held and %d dropped, want 0 and 2", v.Held, drops[DropNoNeighbor])
	}
}

func TestBackendGone(t *testing.T) {
	data := pkttest.TCP(client, vip).Seq(1).Ack(1).Payload(payload)
	t.Run("dropped in silence", func(t *testing.T) {
		b := newBed(t)
		b.open(client, vip, web)
		b.snap.Backends[0].Live = false
		b.publish()
		run(t, b, []step{
			{name: "the client's packet", in: data.Bytes(), verdict: Dropped, drop: DropBackendGone},
			{name: "the server's still leaves", in: pkttest.TCP(web, client).Ack(1).Bytes(), server: true, verdict: Forwarded, port: wan,
				want: one(pkttest.TCP(vip, client).Ack(1).TTL(63))},
		})
	})
	t.Run("expire_nodest_conn", func(t *testing.T) {
		b := newBed(t)
		b.open(client, vip, web)
		b.snap.Backends[0].Live, b.snap.Backends[0].ExpireNow = false, true
		b.publish()
		run(t, b, []step{{name: "the client learns", in: data.Bytes(), verdict: Answered, port: wan, want: one(pkttest.TCP(vip, client).Seq(1).RST().DF().Window(0))}})
		if n := b.engine.Table.Len(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

func TestReuseInTimeWait(t *testing.T) {
	b := newBed(t)
	b.open(client, vip, web)
	b.fromServer(pkttest.TCP(web, client).FIN().Ack(1).Bytes())
	b.round()
	b.fromClient(pkttest.TCP(client, vip).FIN().Ack(2).Bytes())
	b.round()
	b.take(wan)
	b.take(lan)
	load := b.snap.Backends[0].Load
	if load.Active() != 0 || load.Inactive() != 1 {
		t.Errorf("in TIME_WAIT: active %d inactive %d, want 0 and 1", load.Active(), load.Inactive())
	}
	run(t, b, []step{{name: "SYN", in: pkttest.TCP(client, vip).SYN().Seq(9).Bytes(), verdict: Forwarded, port: lan,
		want: one(pkttest.TCP(client, web).SYN().Seq(9).TTL(63))}})
	if conns := b.engine.Workers()[0].Backends[0].Sum().Conns; conns != 2 {
		t.Errorf("%d connections counted, want 2", conns)
	}
	if b.engine.Table.Len() != 1 || load.Active() != 1 || load.Inactive() != 0 {
		t.Errorf("%d in the table, %d active, %d inactive, want 1, 1 and 0", b.engine.Table.Len(), load.Active(), load.Inactive())
	}
}

func TestCountsReturnToZero(t *testing.T) {
	b := newBed(t)
	b.open(client, vip, web)
	load := b.snap.Backends[0].Load
	if load.Active() != 1 || load.Inactive() != 0 {
		t.Errorf("established: active %d inactive %d, want 1 and 0", load.Active(), load.Inactive())
	}
	b.now += 901e9
	b.worker.ExpireAll(b.now)
	if load.Active() != 0 || load.Inactive() != 0 || b.engine.Table.Len() != 0 {
		t.Errorf("expired: active %d inactive %d in table %d, want zeros", load.Active(), load.Inactive(), b.engine.Table.Len())
	}
}

func TestTableFull(t *testing.T) {
	b := newBed(t)
	for i := range b.engine.Table.Cap() + 5 {
		b.fromClient(pkttest.TCP(netip.AddrPortFrom(client.Addr(), uint16(1000+i)), vip).SYN().Bytes())
		b.round()
		b.take(lan)
	}
	if _, drops := b.engine.Verdicts(); drops[DropTableFull] != 5 {
		t.Errorf("%d dropped for a full table, want 5", drops[DropTableFull])
	}
}

func TestClash(t *testing.T) {
	// Two VIPs in front of one server: the same client port to both makes two connections that the server cannot tell apart.
	b := newBed(t)
	second := netip.MustParseAddrPort("198.18.9.10:80")
	all := append([]Service(nil), b.snap.Services.All...)
	twin := all[0]
	twin.VIP = steer.One(second.Addr())
	b.snap.Services = NewServices(append(all, twin))
	b.publish()
	b.open(client, vip, web)
	run(t, b, []step{{name: "while the first lives", in: pkttest.TCP(client, second).SYN().Bytes(), verdict: Dropped, drop: DropClash}})
	b.fromServer(pkttest.TCP(web, client).RST().Ack(1).Bytes())
	b.round()
	b.take(wan)
	run(t, b, []step{{name: "once it is closed the new one takes its place", in: pkttest.TCP(client, second).SYN().Bytes(), verdict: Forwarded, port: lan,
		want: one(pkttest.TCP(client, web).SYN().TTL(63))}})
}

func TestVLANs(t *testing.T) {
	b := newBed(t, func(s *Snapshot, _ *Engine) { s.Ports[wan].VLAN, s.Ports[lan].VLAN = 100, 0 })
	b.inject(wan, pkttest.TCP(client, vip).SYN().VLAN(100).Frame(routerMAC, wanMAC))
	b.round()
	if f := b.take(lan); f == nil || !bytes.Equal(f, pkttest.TCP(client, web).SYN().TTL(63).Frame(lanMAC, webMAC)) {
		t.Errorf("the tag was not taken off: %x", f)
	}
	b.fromServer(pkttest.TCP(web, client).SYN().Ack(1).Bytes())
	b.round()
	if f := b.take(wan); f == nil || !bytes.Equal(f, pkttest.TCP(vip, client).SYN().Ack(1).TTL(63).VLAN(100).Frame(wanMAC, routerMAC)) {
		t.Errorf("the tag was not put on: %x", f)
	}
}

func TestPaddingIsCutOff(t *testing.T) {
	b := newBed(t)
	b.inject(wan, pkttest.Pad(pkttest.TCP(client, vip).SYN().Frame(routerMAC, wanMAC), 60))
	b.round()
	if f := b.take(lan); f == nil || !bytes.Equal(f, pkttest.TCP(client, web).SYN().TTL(63).Frame(lanMAC, webMAC)) {
		t.Errorf("got %x", f)
	}
}

// TestFewAnswers: limits.answers of less than ten a second are given, too, though a source's tenth is less than one in a second.
func TestFewAnswers(t *testing.T) {
	for _, limit := range []int{1, 5, 9, 10} {
		b := newBed(t, func(s *Snapshot, _ *Engine) { s.Answers.PerSecond = limit })
		for i := range uint16(200) { // two sources, 10 s
			b.now += 5e7
			b.fromClient(pkttest.TCP(netip.AddrPortFrom(neighbor(client.Addr(), int(i%2)), 4000), vip).Ack(1).Bytes())
			b.round()
		}
		if v, _ := b.engine.Verdicts(); v.Answered < uint64(2*limit) || v.Answered > uint64(2*limit+2) {
			t.Errorf("%d/s: %d answers to two sources in 10 s, want a tenth for each, and one more that is a burst", limit, v.Answered)
		}
	}
}

func TestAnswersAreLimited(t *testing.T) {
	b := newBed(t, func(s *Snapshot, _ *Engine) { s.Answers.PerSecond = 100 })
	send := func(from netip.Addr, n int) {
		for range n {
			b.fromClient(pkttest.TCP(netip.AddrPortFrom(from, 5), vip).Ack(1).Bytes())
			b.round()
			b.take(wan)
		}
	}
	send(client.Addr(), 50)
	if v, drops := b.engine.Verdicts(); v.Answered != 10 || drops[DropAnswerLimit] != 40 {
		t.Errorf("one source: %d answered, %d over the limit; want 10 and 40", v.Answered, drops[DropAnswerLimit])
	}
	for i := range 50 {
		send(netip.AddrFrom4([4]byte{198, 18, 129, byte(i)}), 5)
	}
	if v, _ := b.engine.Verdicts(); v.Answered != 100 {
		t.Errorf("all sources: %d answered in one instant, want 100", v.Answered)
	}
}

func TestOneVectorTwoPacketsOfANewConnection(t *testing.T) {
	b := newBed(t)
	for range 2 {
		b.fromClient(pkttest.TCP(client, vip).SYN().Bytes())
	}
	b.round()
	want := pkttest.TCP(client, web).SYN().TTL(63).Bytes()
	for range 2 {
		if f := b.take(lan); f == nil || !bytes.Equal(f[14:], want) {
			t.Errorf("got %x", f)
		}
	}
	if conns := b.worker.Backends[0].Sum().Conns; conns != 1 {
		t.Errorf("%d connections, want 1", conns)
	}
}

func TestNoAllocations(t *testing.T) {
	b := newBed(t)
	b.open(client, vip, web)
	in := pkttest.TCP(client, vip).Seq(1).Ack(1).Payload(payload).Frame(routerMAC, wanMAC)
	out := make([]byte, 2048)
	port := uint16(20000)
	syn := pkttest.TCP(client, vip).SYN().Frame(routerMAC, wanMAC)
	stray := pkttest.TCP(netip.MustParseAddrPort("198.18.128.99:1"), vip).Ack(1).Frame(routerMAC, wanMAC)
	if n := testing.AllocsPerRun(200, func() {
		port++
		binary.BigEndian.PutUint16(syn[34:], port) // the TCP checksum becomes wrong, and stays wrong
		b.ports[wan].Inject(in)
		b.ports[wan].Inject(syn)
		b.ports[wan].Inject(stray)
		b.now += 1e6
		b.worker.Round(b.now)
		for _, p := range b.ports {
			for {
				if _, ok := p.Take(out); !ok {
					break
				}
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations a round, want none", n)
	}
	if b.engine.Table.Len() < 200 {
		t.Fatalf("only %d connections were made: the test does not measure what it says", b.engine.Table.Len())
	}
}

func TestPortsThatShareADevice(t *testing.T) {
	b := newBed(t, func(s *Snapshot, _ *Engine) {
		s.Ports[wan].VLAN, s.Ports[wan].Shared = 100, true
		s.Ports[lan].VLAN, s.Ports[lan].Shared, s.Ports[lan].Device = 200, true, wan
	})
	b.inject(wan, pkttest.TCP(client, vip).SYN().VLAN(100).Frame(routerMAC, wanMAC))
	b.round()
	if f := b.take(wan); f == nil || !bytes.Equal(f, pkttest.TCP(client, web).SYN().TTL(63).VLAN(200).Frame(lanMAC, webMAC)) {
		t.Errorf("to the server: %x", f)
	}
	b.inject(wan, pkttest.TCP(web, client).SYN().Ack(1).TTL(1).VLAN(200).Frame(webMAC, lanMAC))
	b.round()
	if f := b.take(wan); f == nil || !bytes.Equal(f[30:34], lanIP.AsSlice()) || f[15] != 200 {
		t.Errorf("time exceeded comes from the VLAN's own address: %x", f)
	}
}
