package steer

import (
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

// TestBudgets uses up the budget of one kind after the other: what is dropped afterwards is of that kind alone.
func TestBudgets(t *testing.T) {
	r := testRules()
	r.Unusual = time.Hour // so that there is one, and then none
	for _, kind := range []budgetKind{unusualFragment, unusualICMP, unusualTTL} {
		p := loaded(t, r, Options{})
		for i, tt := range budgetFrames {
			if tt.kind != kind {
				continue
			}
			if dropped := drops(t, p, frame(tt.packet)); dropped != (i > 0 && budgetFrames[i-1].kind == kind) {
				t.Errorf("%s, number %d: dropped: %t", tt.name, i, dropped)
			}
		}
		for _, tt := range budgetFrames {
			if tt.kind == usual && drops(t, p, frame(tt.packet)) {
				t.Errorf("%s was dropped when budget %d was used up", tt.name, kind)
			}
		}
		for _, other := range budgetFrames {
			if other.kind > kind { // one of each that has not been asked yet
				if drops(t, p, frame(other.packet)) {
					t.Errorf("%s was dropped when budget %d was used up", other.name, kind)
				}
				break
			}
		}
	}
	none := testRules()
	p := loaded(t, none, Options{})
	for _, tt := range budgetFrames {
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
	one := frame(budgetFrames[len(budgetFrames)-1].packet)
	if drops(t, p, one) || !drops(t, p, one) {
		t.Error("a limit that was set later does not hold")
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
	if !took || action != xdpDrop || unusual+alone != 1 {
		t.Fatalf("action %d, taken: %t, %d beyond the budget, %d without a socket", action, took, unusual, alone)
	}
	return unusual == 1
}

// TestBudgetRate: of frames that come as fast as the program runs, a tenth of a second's worth passes at once, and then as many as the rate says.
func TestBudgetRate(t *testing.T) {
	r := testRules()
	r.Unusual = time.Millisecond
	p := loaded(t, r, Options{})
	fragment := frame(raw(client4, vip4, protoUDP, 64, lastFragment))
	start := time.Now()
	const sent = 200_000
	if _, _, err := p.xdp.Benchmark(fragment, sent, nil); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	s, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	passed, most := s[DroppedNoSocket], uint64(100+took/r.Unusual+1)
	if passed < 100 || passed > most || passed+s[DroppedUnusual] != s[TakeFragment] || s[TakeFragment] < sent {
		t.Errorf("%d of %d passed in %v, want 100 to %d; %d dropped", passed, s[TakeFragment], took, most, s[DroppedUnusual])
	}
}
