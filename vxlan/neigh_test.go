package vxlan

import "testing"

func newNeighbors(t testing.TB, capacity, segments int) *Neighbors {
	t.Helper()
	n, err := NewNeighbors(NeighborsOptions{Capacity: capacity, Segments: segments, AskRate: MaxRate, LearnRate: MaxRate})
	if err != nil {
		t.Fatal(err)
	}
	for s := range segments {
		n.Configure(uint16(s), uint32(capacity), 300)
	}
	return n
}

var (
	ip1, _ = AddrOf(address("172.16.1.7"))
	ip6, _ = AddrOf(address("2001:db8:1::7"))
)

func (t *Neighbors) ask(segment uint16, a Addr, v6 bool, now Second) (MAC, Ask) {
	q := [1]NeighborQuery{{Addr: a, Segment: segment, V6: v6, MAC: 99, Ask: 99}}
	t.Resolve(q[:], now)
	return q[0].MAC, q[0].Ask
}

// The life of an entry, second by second.
func TestNeighborLife(t *testing.T) {
	const m, other = MAC(0x020000000001), MAC(0x020000000002)
	learn := func(mac MAC, p Proof) func(n *Neighbors, a Addr, v6 bool, now Second) {
		return func(n *Neighbors, a Addr, v6 bool, now Second) { n.Learn(0, a, v6, mac, p, now) }
	}
	confirm := func(mac MAC) func(n *Neighbors, a Addr, v6 bool, now Second) {
		return func(n *Neighbors, a Addr, v6 bool, now Second) { n.Confirm(0, a, v6, mac, now) }
	}
	type step struct {
		now Second
		do  func(n *Neighbors, a Addr, v6 bool, now Second) // before asking; nil: nothing
		mac MAC
		ask Ask
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"asked for once a second until it answers", []step{
			{0, nil, 0, AskAll}, {0, nil, 0, AskNone}, {1, nil, 0, AskAll}, {2, nil, 0, AskAll}, {7, nil, 0, AskAll},
			{7, learn(m, Confirmed), m, AskNone}, {36, nil, m, AskNone},
		}},
		{"stale: the station is asked, then all, then the MAC is given up", []step{
			{0, learn(m, Confirmed), m, AskNone}, {29, nil, m, AskNone},
			{30, nil, m, AskStation}, {30, nil, m, AskNone}, {31, nil, m, AskStation}, {32, nil, m, AskStation},
			{33, nil, m, AskAll}, {34, nil, m, AskAll}, {35, nil, m, AskAll}, {36, nil, 0, AskAll}, {37, nil, 0, AskAll},
		}},
		{"stale, and confirmed", []step{
			{0, learn(m, Confirmed), m, AskNone}, {40, nil, m, AskStation}, {41, learn(m, Confirmed), m, AskNone}, {70, nil, m, AskNone}, {71, nil, m, AskStation},
		}},
		{"what was only heard is asked", []step{{0, learn(m, Heard), m, AskStation}, {1, learn(m, Heard), m, AskStation}}},
		{"a request with another MAC changes it, to be confirmed", []step{{0, learn(m, Confirmed), m, AskNone}, {1, learn(other, Heard), other, AskStation}}},
		{"an answer with another MAC changes it", []step{{0, learn(m, Confirmed), m, AskNone}, {1, learn(other, Confirmed), other, AskNone}}},
		{"a claim changes no MAC, but makes it doubtful", []step{{0, learn(m, Confirmed), m, AskNone}, {1, learn(other, Claim), m, AskStation}}},
		{"a claim fills an entry", []step{{0, nil, 0, AskAll}, {1, learn(m, Claim), m, AskStation}}},
		{"an answer that overrides nothing changes no MAC, but makes it doubtful", []step{{0, learn(m, Confirmed), m, AskNone}, {1, learn(other, Seconded), m, AskStation}}},
		{"an answer that overrides nothing confirms the MAC that is known", []step{{0, learn(m, Confirmed), m, AskNone}, {29, learn(m, Seconded), m, AskNone}, {58, nil, m, AskNone}}},
		{"an answer that overrides nothing fills an entry", []step{{0, nil, 0, AskAll}, {1, learn(m, Seconded), m, AskNone}}},
		{"an answer without a MAC confirms the one that it comes from", []step{{0, learn(m, Confirmed), m, AskNone}, {40, nil, m, AskStation}, {41, confirm(m), m, AskNone}, {70, nil, m, AskNone}, {71, nil, m, AskStation}}},
		{"an answer without a MAC from elsewhere says nothing", []step{{0, learn(m, Confirmed), m, AskNone}, {40, confirm(other), m, AskStation}}},
		{"an answer without a MAC fills no entry", []step{{0, confirm(m), 0, AskAll}, {1, confirm(m), 0, AskAll}}},
		{"no station's MAC", []step{{0, learn(Broadcast, Confirmed), 0, AskAll}, {1, learn(0, Confirmed), 0, AskAll}}},
	} {
		for _, a := range []struct {
			addr Addr
			v6   bool
		}{{ip1, false}, {ip6, true}} {
			n := newNeighbors(t, 10, 2)
			for i, s := range c.steps {
				now := 1000 + s.now
				if s.do != nil {
					s.do(n, a.addr, a.v6, now)
				}
				if mac, ask := n.ask(0, a.addr, a.v6, now); mac != s.mac || ask != s.ask {
					t.Errorf("%s, step %d, IPv6 %v: %v, ask %d; want %v, ask %d", c.name, i, a.v6, mac, ask, s.mac, s.ask)
				}
			}
		}
	}
}

func TestNeighborsApart(t *testing.T) {
	n := newNeighbors(t, 10, 2)
	n.Learn(0, ip1, false, station(1), Confirmed, 5)
	n.Learn(1, ip1, false, station(2), Confirmed, 5)
	n.Learn(0, Addr{Lo: ip1.Lo, Hi: 1 << 61}, true, station(3), Confirmed, 5)
	n.Learn(0, Addr{Lo: ip1.Lo}, true, station(4), Confirmed, 5) // the same words, another family
	for i, c := range []struct {
		segment uint16
		a       Addr
		v6      bool
		want    MAC
	}{{0, ip1, false, station(1)}, {1, ip1, false, station(2)}, {0, Addr{Lo: ip1.Lo, Hi: 1 << 61}, true, station(3)}, {0, ip1, true, station(4)}, {1, ip1, true, 0}} {
		if got := n.Known(c.segment, c.a, c.v6, 5); got != c.want {
			t.Errorf("%d: %v, want %v", i, got, c.want)
		}
	}
	for _, a := range []string{"0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"} {
		x, v6 := AddrOf(address(a))
		n.Learn(0, x, v6, station(1), Confirmed, 5)
		if n.Known(0, x, v6, 5) != 0 {
			t.Errorf("%s has a MAC", a)
		}
	}
}

func TestNeighborLimits(t *testing.T) {
	n, err := NewNeighbors(NeighborsOptions{Capacity: 30, Segments: 8, AskRate: 5, LearnRate: 8})
	if err != nil {
		t.Fatal(err)
	}
	for s := range uint16(8) {
		n.Configure(s, 20, 300)
	}
	asked := 0
	for i := range uint64(100) {
		if _, ask := n.ask(0, Addr{Lo: ip1.Lo + i}, false, 50); ask != AskNone {
			asked++
		}
	}
	if asked != 5 || n.Used(0) != 8 || n.Count(0, NeighborAsked) != 5 || n.Count(0, NeighborRefused) != 92 {
		t.Errorf("a scan of 100 addresses: %d requests, %d entries, %d refused", asked, n.Used(0), n.Count(0, NeighborRefused))
	}
	for second := range Second(5) {
		for i := range uint64(10) {
			n.Learn(1, Addr{Lo: ip1.Lo + uint64(second)*10 + i}, false, station(1), Confirmed, 51+second)
		}
	}
	if n.Used(1) != 20 || n.Len() != 28 {
		t.Errorf("%d entries of segment 1, whose limit is 20; %d in all", n.Used(1), n.Len())
	}
	for i := range uint64(10) {
		n.Learn(2, Addr{Lo: ip1.Lo + i}, false, station(1), Confirmed, 60)
	}
	if n.Len() != 30 {
		t.Errorf("%d entries, room is for 30", n.Len())
	}
}

func TestNeighborAgeing(t *testing.T) {
	n := newNeighbors(t, 10, 1)
	n.Learn(0, ip1, false, station(1), Confirmed, 100)
	n.Learn(0, ip6, true, station(2), Confirmed, 100)
	n.ask(0, Addr{Lo: 1 << 24}, false, 100) // incomplete
	pass := func(now Second) {
		for range n.Slots()/7 + 1 {
			n.Expire(now, 7)
		}
	}
	for _, c := range []struct {
		now  Second
		left int
	}{{109, 3}, {110, 2}, {250, 2}} {
		if pass(c.now); n.Len() != c.left {
			t.Errorf("%d entries at %d, want %d", n.Len(), c.now, c.left)
		}
	}
	n.ask(0, ip6, true, 250) // in use
	if pass(400); n.Len() != 1 || n.Known(0, ip6, true, 399) != station(2) || n.Known(0, ip6, true, 400) != 0 {
		t.Errorf("%d entries; one is in use, but what it says is too old for suppression", n.Len())
	}
	listed := 0
	n.Range(400, func(x Neighbor) bool {
		listed++
		if x.Addr != ip6 || !x.V6 || x.MAC != station(2) || x.Reachable || x.Heard != 100 {
			t.Errorf("%+v", x)
		}
		return true
	})
	if listed != 1 || n.Flush(func(x Neighbor) bool { return x.V6 }) != 1 || n.Len() != 0 {
		t.Errorf("%d listed, %d left", listed, n.Len())
	}
}

// Whatever is heard of a station makes it known for longer.
func TestNeighborHeard(t *testing.T) {
	for _, p := range []Proof{Claim, Heard, Confirmed} {
		n := newNeighbors(t, 10, 1)
		n.Learn(0, ip1, false, station(1), Confirmed, 100)
		n.Learn(0, ip1, false, station(1), p, 300)
		if n.Known(0, ip1, false, 599) != station(1) || n.Known(0, ip1, false, 600) != 0 {
			t.Errorf("proof %d at 300: known at 599 as %v, at 600 as %v", p, n.Known(0, ip1, false, 599), n.Known(0, ip1, false, 600))
		}
	}
}

func TestNewNeighborsRefuses(t *testing.T) {
	for _, o := range []NeighborsOptions{{}, {Capacity: 1}, {Capacity: MaxFDB + 1, Segments: 1}, {Capacity: 1, Segments: 1, AskRate: -1}, {Capacity: 1, Segments: 1, LearnRate: MaxRate + 1}} {
		if _, err := NewNeighbors(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

// Who speaks for very many addresses fills neither its segment's room nor all segments' so far that a gateway cannot ask for its hosts.
func TestHeardNeighborsLeaveRoom(t *testing.T) {
	n := newNeighbors(t, 64, 2)
	n.Configure(0, 16, 300)
	const m, now = MAC(0x020000000001), Second(1000)
	for segment, want := range []int{12, 35} { // three quarters of 16; of all 64, less the 13 of the other
		for i := range uint64(200) {
			n.Learn(uint16(segment), Addr{Lo: ip1.Lo + i}, false, m, Heard, now)
		}
		if got := n.Used(uint16(segment)); got != want {
			t.Errorf("segment %d: %d were heard, want %d", segment, got, want)
		}
		if n.Count(uint16(segment), NeighborRefused) != uint64(200-want) {
			t.Errorf("segment %d: %d refused, want %d", segment, n.Count(uint16(segment), NeighborRefused), 200-want)
		}
		asked := Addr{Lo: ip1.Lo + 1000}
		if _, ask := n.ask(uint16(segment), asked, false, now); ask != AskAll {
			t.Errorf("segment %d: a host is not asked for", segment)
		}
		n.Learn(uint16(segment), asked, false, m, Confirmed, now)
		if mac, _ := n.ask(uint16(segment), asked, false, now); mac != m {
			t.Errorf("segment %d: its answer was not taken: %s", segment, mac)
		}
	}
}
