package steer

import (
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
)

// budgetFrames are frames that are ours, by the kind they are counted for.
var budgetFrames = []struct {
	name   string
	kind   budgetKind
	packet []byte
}{
	{"a segment", usual, tcp(client4, 4000, vip4, 80)},
	{"a segment, IPv6", usual, tcp(client6, 4000, vip6, 80)},
	{"TTL 2", usual, ipPacket(client4, vip4, protoTCP, tcpHeader(9, 80), hops(2))},
	{"VXLAN for a group, whose TTL is 1", usual, patch(vxlan(far4, vtep4, 4789, 5001), 8, 1)},
	{"AH before TCP, IPv6", usual, ipPacket(client6, vip6, packet.ProtoAH, join(authHeader(protoTCP, 12), tcpHeader(9, 80)))},
	{"a later fragment", unusualFragment, raw(client4, vip4, protoUDP, 64, lastFragment)},
	{"a first fragment", unusualFragment, ipPacket(client4, vip4, protoUDP, udpHeader(9, 53, make([]byte, 64)...), moreFragments)},
	{"a fragment, IPv6", unusualFragment, ipPacket(client6, vip6, 44, join(fragment6(protoUDP, 1280, false), make([]byte, 40)))},
	{"behind an extension header", unusualFragment, ipPacket(client6, vip6, 60, join(extension(protoTCP, 2), tcpHeader(9, 80)))},
	{"a fragment of a server", unusualFragment, raw(web4, client4, protoUDP, 64, lastFragment)},
	{"an error", unusualICMP, icmp(router4, vip4, 3, tcp(vip4, 80, client4, 4000))},
	{"an error, IPv6", unusualICMP, icmp(router6, vip6, 2, tcp(vip6, 80, client6, 4000))},
	{"an error that quotes a TTL of 1", unusualICMP, icmp(router4, vip4, 11, ipPacket(vip4, client4, protoTCP, tcpHeader(80, 4000), hops(1)))},
	{"an error for a server", unusualICMP, icmp(router4, client4, 3, tcp(client4, 9, web4, 8000))},
	{"an error about a tunnel", unusualICMP, icmp(router4, local4, 3, raw(local4, web4, packet.ProtoIPIP, 8))},
	{"TTL 1", unusualTTL, ipPacket(client4, vip4, protoTCP, tcpHeader(9, 80), hops(1))},
	{"TTL 0", unusualTTL, ipPacket(client4, vip4, protoTCP, tcpHeader(9, 80), hops(0))},
	{"hop limit 1", unusualTTL, patch(tcp(client6, 4000, vip6, 80), 7, 1)},
	{"TTL 1 of a server", unusualTTL, ipPacket(web4, client4, protoTCP, tcpHeader(8000, 9), hops(1))},
}

func hops(n uint8) func(*layers.IPv4) { return func(h *layers.IPv4) { h.TTL = n } }

// and frames for a VIP and no service of it, which are the kernel's
var portFrames = []struct {
	name   string
	kind   budgetKind
	packet []byte
}{
	{"an unused port", unusualPort, tcp(client4, 4000, vip4, 81)},
	{"an unused port, IPv6", unusualPort, tcp(client6, 4000, vip6, 81)},
	{"an unused port of UDP", unusualPort, udp(client4, 4000, vip4, 81)},
	{"an unused port of UDP, IPv6", unusualPort, udp(client6, 4000, vip6, 81)},
	{"an echo request, IPv6", unusualPort, icmp(client6, vip6, 128, nil)},
	{"a segment of a connection of the host's", usual, patch(tcp(client4, 22, vip4, 4000), 20+13, 0x10)},
	{"a SYN and ACK for the host", usual, patch(tcp(client4, 22, vip4, 4000), 20+13, 0x12)},
	{"another protocol", usual, raw(client4, vip4, packet.ProtoGRE, 40)},
	{"an answer to a ping of the host's", unusualICMP, icmp(client4, vip4, 0, nil)},
	{"an echo request", unusualPort, icmp(client4, vip4, 8, nil)},
	{"an unused port, and a TTL of 1", unusualTTL, ipPacket(client4, vip4, protoTCP, tcpHeader(9, 81), hops(1))},
	{"a port of a prefix", unusualPort, tcp(client4, 4000, ip("198.19.0.0"), 81)},
}

// TestBudgets uses up the budget of one kind after the other: what is dropped afterwards is of that kind alone.
func TestBudgets(t *testing.T) {
	r := testRules()
	r.Unusual = time.Hour // so that there is one, and then none
	all := append(budgetFrames, portFrames...)
	for kind := unusualFragment; kind <= unusualPort; kind++ {
		p := loaded(t, r, Options{})
		asked := map[budgetKind]bool{}
		for _, tt := range all {
			if tt.kind != kind {
				continue
			}
			if dropped := drops(t, p, frame(tt.packet)); dropped != asked[kind] {
				t.Errorf("%s: dropped: %t", tt.name, dropped)
			}
			asked[kind] = true
		}
		for _, tt := range all {
			if asked[tt.kind] { // and of the others one each
				continue
			}
			if drops(t, p, frame(tt.packet)) {
				t.Errorf("%s was dropped when budget %d was used up", tt.name, kind)
			}
			asked[tt.kind] = tt.kind != usual
		}
	}
	none := testRules()
	p := loaded(t, none, Options{})
	for _, tt := range all {
		for range 3 {
			if drops(t, p, frame(tt.packet)) {
				t.Errorf("%s was dropped, though nothing has a budget", tt.name)
			}
		}
	}
	none = testRules()
	none.Unusual = time.Hour // a reload
	if err := p.Add(none); err != nil {
		t.Fatal(err)
	}
	one := frame(all[len(all)-1].packet)
	if drops(t, p, one) || !drops(t, p, one) {
		t.Error("a limit that was set later does not hold")
	}
}

// TestSocketsOfTheHost: a datagram to a VIP's port that a socket of the host has is the host's business, however many there are.
func TestSocketsOfTheHost(t *testing.T) {
	r := testRules()
	r.Unusual = time.Hour
	p := loaded(t, r, Options{})
	sock, err := net.ListenUDP("udp", nil) // of both families
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	port := uint16(sock.LocalAddr().(*net.UDPAddr).Port)
	for range 3 {
		for _, b := range [][]byte{udp(client4, 4000, vip4, port), udp(client6, 4000, vip6, port)} {
			if drops(t, p, frame(b)) {
				t.Error("dropped")
			}
		}
	}
	sock.Close()
	one := frame(udp(client4, 4000, vip4, port))
	if drops(t, p, one) || !drops(t, p, one) {
		t.Error("without the socket there is a budget of one")
	}
}

// drops runs the XDP program once and reports whether it dropped the frame for its budget; what it would have given to a socket finds none.
func drops(t *testing.T, p *Program, b []byte) bool {
	t.Helper()
	before, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	action, err := p.xdp.Run(&ebpf.RunOptions{Data: b})
	if err != nil {
		t.Fatal(err)
	}
	after, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	took, unusual, alone := false, after[DroppedUnusual]-before[DroppedUnusual], after[DroppedNoSocket]-before[DroppedNoSocket]
	for r := TakeAccess; r <= TakeRouted; r++ {
		took = took || after[r] != before[r]
	}
	passed := after[PassVIP] - before[PassVIP]
	switch {
	case took && action == xdpDrop && unusual+alone == 1 && passed == 0:
	case !took && passed == 1 && alone == 0 && unusual == 1 && action == xdpDrop, !took && passed == 1 && alone+unusual == 0 && action == xdpPass:
	default:
		t.Fatalf("action %d, taken: %t, passed: %d, %d beyond the budget, %d without a socket", action, took, passed, unusual, alone)
	}
	return unusual == 1
}

// TestBudgetRate: of frames that come as fast as the program runs, a tenth of a second's worth passes at once, and then as many as the rate says.
func TestBudgetRate(t *testing.T) {
	r := testRules()
	r.Unusual = time.Millisecond
	p := loaded(t, r, Options{})
	for _, x := range []struct {
		frame  []byte
		burst  uint64
		cost   time.Duration
		reason Reason
	}{
		{raw(client4, vip4, protoUDP, 64, lastFragment), 100, r.Unusual, TakeFragment},
		{tcp(client4, 4000, vip4, 81), 10, passCost * r.Unusual, PassVIP},
	} {
		before, err := p.Stats()
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		const sent = 200_000
		if _, _, err := p.xdp.Benchmark(frame(x.frame), sent, nil); err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		s, err := p.Stats()
		if err != nil {
			t.Fatal(err)
		}
		all, dropped := s[x.reason]-before[x.reason], s[DroppedUnusual]-before[DroppedUnusual]
		if passed, most := all-dropped, x.burst+uint64(took/x.cost)+1; passed < x.burst || passed > most || all < sent {
			t.Errorf("%s: %d of %d passed in %v, want %d to %d; %d dropped", x.reason, passed, all, took, x.burst, most, dropped)
		}
	}
}
