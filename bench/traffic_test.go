package bench

import (
	"math"
	"net/netip"
	"strings"
	"testing"
)

func TestParseRange(t *testing.T) {
	for _, x := range []struct {
		in, want string
		count    uint64
		err      string
	}{
		{in: "198.18.0.2", want: "198.18.0.2", count: 1},
		{in: "198.18.0.2-198.18.1.1", want: "198.18.0.2-198.18.1.1", count: 256},
		{in: "198.18.4.7/24", want: "198.18.4.0-198.18.4.255", count: 256},
		{in: "0.0.0.0/0", want: "0.0.0.0-255.255.255.255", count: 1 << 32},
		{in: "2001:db8::1-2001:db8::ff", want: "2001:db8::1-2001:db8::ff", count: 255},
		{in: "2001:db8::/64", want: "2001:db8::-2001:db8::ffff:ffff:ffff:ffff", count: math.MaxUint64},
		{in: "2001:db8::/48", want: "2001:db8::-2001:db8:0:ffff:ffff:ffff:ffff:ffff", count: math.MaxUint64},
		{in: "198.18.0.9-198.18.0.2", err: "in order"},
		{in: "198.18.0.9-2001:db8::1", err: "one family"},
		{in: "198.18.0", err: "must be A, A-B or A/BITS"},
		{in: "", err: "must be"},
	} {
		r, err := ParseRange(x.in)
		if x.err != "" {
			if err == nil || !strings.Contains(err.Error(), x.err) {
				t.Errorf("%q: error %v, want one with %q", x.in, err, x.err)
			}
			continue
		}
		if err != nil || r.String() != x.want || r.Count() != x.count {
			t.Errorf("%q: %s of %d, %v; want %s of %d", x.in, r, r.Count(), err, x.want, x.count)
		}
	}
}

func TestParsePorts(t *testing.T) {
	for in, want := range map[string]uint64{"80": 1, "1024-65535": 64512, "1-65535": 65535, "0": 0, "0-9": 0, "9-8": 0, "65536": 0, "-": 0, "x": 0} {
		p, err := ParsePorts(in)
		if want == 0 != (err != nil) || err == nil && (p.Count() != want || p.String() != in) {
			t.Errorf("%q: %v, %v", in, p, err)
		}
	}
}

func TestMix(t *testing.T) {
	for _, in := range []string{"63", "65", "3502", "64:0", "64:256,128", "64,", "a", "64:b", "imax"} {
		if m, err := ParseMix(in); err == nil {
			t.Errorf("%q: no error, but %v", in, m)
		}
	}
	m, err := ParseMix("imix")
	if err != nil {
		t.Fatal(err)
	}
	if m.String() != "64:28,594:16,1518:4" || math.Abs(m.Average()-361.83) > 0.01 || m.largest() != 1514 {
		t.Errorf("imix is %s, %.2f on average, %d at most", m, m.Average(), m.largest())
	}
	order := m.schedule()
	var n [3]int
	for i, size := range order {
		n[size]++
		for j, s := range m { // at any point, each is within one frame of its share
			if share := float64((i+1)*s.Weight) / 48; math.Abs(float64(n[j])-share) > 1 {
				t.Errorf("after %d frames there are %d of %d, the share is %.2f", i+1, n[j], s.Bytes, share)
			}
		}
	}
	if n != [3]int{28, 16, 4} {
		t.Errorf("imix is made of %v", n)
	}
}

func traffic(t testing.TB, change func(*Traffic)) Traffic {
	t.Helper()
	x := Traffic{SrcMAC: [6]byte{2, 0, 0, 0, 0, 1}, DstMAC: [6]byte{2, 0, 0, 0, 0, 2}, SrcPorts: Ports{1024, 65535}, DstPorts: Ports{53, 53},
		Src: Range{netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.0.2")}, Dst: Range{netip.MustParseAddr("198.18.9.9"), netip.MustParseAddr("198.18.9.9")}}
	if change != nil {
		change(&x)
	}
	if err := x.complete(); err != nil {
		t.Fatal(err)
	}
	return x
}

func TestTrafficThatCannotBe(t *testing.T) {
	four, six := Range{netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.0.2")}, Range{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::1")}
	for _, x := range []struct {
		name string
		t    Traffic
		want string
	}{
		{"no addresses", Traffic{}, "are needed"},
		{"two families", Traffic{Src: four, Dst: six}, "different families"},
		{"more flows than there are", Traffic{Src: four, Dst: four, SrcPorts: Ports{1, 10}, DstPorts: Ports{1, 1}, Flows: 11}, "make only 10"},
		{"no room for a stamp", Traffic{Src: six, Dst: six, SrcPorts: Ports{1, 1}, DstPorts: Ports{1, 1}, Mix: Mix{{64, 1}}}, "must be 84"},
		{"unknown kind", Traffic{Kind: "icmp"}, "must be udp"},
		{"unknown attack", Traffic{Src: four, Dst: four, Attack: "smurf"}, "must be fragment"},
		{"attack over IPv6", Traffic{Src: six, Dst: six, Mix: Mix{{128, 1}}, Attack: TTL}, "udp over IPv4"},
		{"attack among SYNs", Traffic{Src: four, Dst: four, Kind: SYN, Attack: TTL}, "udp over IPv4"},
		{"no port is left", Traffic{Src: four, Dst: four, SrcPorts: Ports{1, 1}, DstPorts: Ports{1, 65535}, Attack: Port}, "none is left"},
		{"many destinations", Traffic{Src: four, Dst: Range{four.First, four.First.Next()}, Attack: Neighbor}, "one destination"},
		{"no room for an error", Traffic{Src: four, Dst: four, Attack: Errors}, "92 bytes at least"},
		{"errors of many sizes", Traffic{Src: four, Dst: four, Mix: IMIX, Attack: Errors}, "one size"},
	} {
		if err := x.t.complete(); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: error %v, want one with %q", x.name, err, x.want)
		}
	}
}

// Every flow is another, and there are as many as was asked for.
func TestFlowsAreDistinct(t *testing.T) {
	for _, lanes := range []uint64{1, 2, 3} {
		x := traffic(t, func(x *Traffic) {
			x.SrcPorts, x.DstPorts = Ports{1000, 1006}, Ports{80, 82}
			x.Src, x.Dst = Range{netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.0.6")}, Range{netip.MustParseAddr("198.18.9.1"), netip.MustParseAddr("198.18.9.2")}
		})
		if x.Flows != 7*5*3*2 {
			t.Fatalf("%d flows", x.Flows)
		}
		seen := map[string]uint64{}
		for lane := range lanes {
			c := newCrafter(x, 0)
			c.lane, c.lanes = lane, lanes
			b := make([]byte, 60)
			for range x.Flows {
				c.next(b, 0)
				key := string(b[26:38])
				if other, ok := seen[key]; ok && other != lane {
					t.Fatalf("a flow is of lanes %d and %d", other, lane)
				}
				seen[key] = lane
			}
		}
		if uint64(len(seen)) != x.Flows {
			t.Errorf("%d lanes: %d flows, want %d", lanes, len(seen), x.Flows)
		}
	}
}

func TestPacer(t *testing.T) {
	p := pacer{rate: 1000, limit: 50, start: 1e9}
	if p.due(1e9-1) != 0 || p.gap(1e9-1) != 1 || p.due(1e9) != 1 || p.due(1e9+1e6) != 2 {
		t.Errorf("due before, at and after the start: %d %d %d", p.due(1e9-1), p.due(1e9), p.due(1e9+1e6))
	}
	p.sent = 10
	if p.due(1e9) != 0 || p.gap(1e9) != 10e6 || p.when(5, 0) != 1e9+15e6 {
		t.Errorf("with ten sent: due %d, gap %d, the fifth from here at %d", p.due(1e9), p.gap(1e9), p.when(5, 0))
	}
	if p.due(1e9+10e9) != 40 { // a stall is made up for, within the limit
		t.Errorf("due after ten seconds: %d", p.due(11e9))
	}
	p.sent = 50
	if p.due(1e9+10e9) != 0 || p.gap(1e9) != math.MaxInt64 {
		t.Error("something is due beyond the limit")
	}
	if p := (pacer{limit: 5}); p.due(7) != 5 || p.when(3, 7) != 7 || p.gap(7) != 0 {
		t.Error("without a rate, all is due at once")
	}
}
