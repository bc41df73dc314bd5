package dataplane_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/route"
)

// tap observes b until the test ends.
func (b *bed) tap(o TapOptions) *Tap {
	b.t.Helper()
	if o.Slots == 0 {
		o.Slots = 1024
	}
	if o.PerSecond == 0 {
		o.PerSecond = 1e9
	}
	if o.Until == 0 {
		o.Until = math.MaxInt64
	}
	t, err := b.engine.Tap(o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(t.Close)
	return t
}

// observed are copies of the events since the last call.
func observed(t *Tap) (events []Event) {
	t.Read(func(e *Event) bool {
		c := *e
		c.Frame.Data, c.Sent.Data = bytes.Clone(e.Frame.Data), bytes.Clone(e.Sent.Data)
		events = append(events, c)
		return true
	})
	return events
}

// TestWatched plays the same random traffic into two engines, one frame a vector into the first, many into the second, which is observed: by one
// who wants all, or one who wants what is dropped. What leaves, in which order, and all that is counted must be the same, and the observer must
// have seen what was counted. (One frame a vector, as those of a vector are looked up together: an ACK right behind its SYN is of no connection yet.)
func TestWatched(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 2))
		option := func(s *Snapshot, _ *Engine) { s.Ports[lan].MTU, s.Neighbors = 1400, withNeighbors() }
		plain, watched := newBed(t, option), newBed(t, option)
		var all *Tap
		if seed%2 == 0 {
			all = watched.tap(TapOptions{})
		} else {
			watched.tap(TapOptions{Slots: 16, Snaplen: 60, Filter: TapFilter{Stages: StageDropped}})
		}
		var verdicts [Held + 1]uint64
		var drops [NumDrops]uint64
		var received uint64
		for step := range 150 {
			now := plain.now + int64(r.IntN(4))*int64(r.IntN(20e9))
			for _, b := range []*bed{plain, watched} {
				b.now = now
				b.round() // what is over ends now in both
			}
			var frames [2][][]byte
			for range 1 + r.IntN(20) {
				port, p := randomPacket(r)
				f := p.Frame(routerMAC, wanMAC)
				if port == lan {
					f = p.Frame(webMAC, lanMAC)
				}
				frames[port] = append(frames[port], f)
			}
			for port := range frames {
				for _, f := range frames[port] {
					plain.inject(port, f)
					plain.round()
					watched.inject(port, f)
				}
			}
			watched.round()
			for _, port := range []int{wan, lan} {
				if a, b := left(plain, port), left(watched, port); !slices.EqualFunc(a, b, bytes.Equal) {
					t.Fatalf("seed %d, step %d: at port %d left %s\nobserved %s\ncounted %+v\nobserved %+v", seed, step, port, shown(a), shown(b), sum(plain), sum(watched))
				}
			}
			if a, b := sum(plain), sum(watched); a != b {
				t.Fatalf("seed %d, step %d: counted %+v\nobserved %+v", seed, step, a, b)
			}
			if all == nil {
				continue
			}
			for _, e := range observed(all) {
				switch {
				case e.Verdict == Pending:
					t.Fatalf("seed %d, step %d: an event without a verdict: %+v", seed, step, e)
				case e.Kind == EventAlso:
					continue
				case e.Kind == EventReceived:
					received++
				}
				if verdicts[e.Verdict]++; e.Verdict == Dropped {
					drops[e.Drop]++
				}
			}
		}
		if all == nil {
			continue
		}
		v, counted := watched.engine.Verdicts()
		if received != v.Received || verdicts[Forwarded] != v.Forwarded || verdicts[Answered] != v.Answered || verdicts[Punted] != v.Punted || verdicts[Dropped] != v.Dropped || drops != counted {
			t.Errorf("seed %d: events say %d received, %v, drops %v; counted %+v, drops %v", seed, received, verdicts, dropsOf([NumDrops]uint64{}, drops), v, dropsOf([NumDrops]uint64{}, counted))
		}
	}
}

// TestWatchedSome: what nobody wants goes on as it does while nobody observes, in order with what somebody wants.
func TestWatchedSome(t *testing.T) {
	plain, watched := newBed(t), newBed(t)
	var clients []netip.AddrPort
	for i := range 8 {
		clients = append(clients, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 128, byte(8 + i)}), 4000))
		for _, b := range []*bed{plain, watched} {
			b.open(clients[i], vip, web)
		}
	}
	tap := watched.tap(TapOptions{Filter: TapFilter{Hosts: []netip.Prefix{netip.MustParsePrefix("198.18.128.8/30")}}})
	r, wanted := rand.New(rand.NewPCG(1, 3)), 0
	for range 200 {
		for range 1 + r.IntN(20) {
			i := r.IntN(len(clients))
			if i < 4 {
				wanted++
			}
			p, port := pkttest.TCP(clients[i], vip), wan
			f := p.Seq(r.Uint32()).Ack(1).Size(40+r.IntN(60)).Frame(routerMAC, wanMAC)
			if r.IntN(2) == 0 {
				f, port = pkttest.TCP(web, clients[i]).Seq(r.Uint32()).Ack(1).Frame(webMAC, lanMAC), lan
			}
			plain.inject(port, f)
			watched.inject(port, f)
		}
		for _, b := range []*bed{plain, watched} {
			b.now += 1e6
			b.round()
		}
		for _, port := range []int{wan, lan} {
			if a, b := left(plain, port), left(watched, port); !slices.EqualFunc(a, b, bytes.Equal) {
				t.Fatalf("at port %d left %s\nobserved %s", port, shown(a), shown(b))
			}
		}
		if a, b := sum(plain), sum(watched); a != b {
			t.Fatalf("counted %+v\nobserved %+v", a, b)
		}
		wanted -= len(observed(tap))
	}
	if wanted != 0 {
		t.Errorf("%d more frames were wanted than seen", wanted)
	}
}

// sum is state, whichever entries of the table the connections have: how soon one is used again depends on the number of rounds.
func sum(b *bed) counted {
	c := state(b)
	c.packets = 0
	b.engine.Table.Range(conntrack.TickOf(b.now), func(i *conntrack.Info) bool {
		h := i.Forward.Src.Lo*31 + uint64(i.Forward.Ports)<<8 + uint64(i.State)
		c.packets += (h*1e9+i.InPackets)*1e9 + i.OutPackets*1e6 + uint64(i.Expires)
		return true
	})
	return c
}

// withNeighbors knows the clients on the servers' link, too: which frames wait, of more than may, depends on how many the stages take together.
func withNeighbors() *route.Neighbors {
	all := []route.Neighbor{{Port: wan, Addr: router, MAC: [6]byte(routerMAC), Valid: true}, {Port: lan, Addr: web.Addr(), MAC: [6]byte(webMAC), Valid: true},
		{Port: lan, Addr: netip.MustParseAddr("198.18.1.77"), MAC: [6]byte(secondMAC), Valid: true}}
	return route.NewNeighbors(all)
}

// TestEvents asserts what an observer is told of single packets.
func TestEvents(t *testing.T) {
	b := newBed(t)
	tap := b.tap(TapOptions{})
	one := func(ip []byte, server bool) Event {
		t.Helper()
		if server {
			b.fromServer(ip)
		} else {
			b.fromClient(ip)
		}
		b.round()
		events := observed(tap)
		if len(events) != 1 {
			t.Fatalf("%d events, want one: %+v", len(events), events)
		}
		e := events[0]
		if e.Kind != EventReceived || !bytes.Equal(e.Frame.Data[14:14+len(ip)], ip) {
			t.Errorf("the frame is shown as %x, it was %x", e.Frame.Data, ip)
		}
		if e.Sent.Port >= 0 {
			if out := b.take(e.Sent.Port); !bytes.Equal(out, e.Sent.Data) {
				t.Errorf("what left is shown as %x, it was %x", e.Sent.Data, out)
			}
		}
		return e
	}
	webAddr, _ := AddrOf(web.Addr())
	vipAddr, _ := AddrOf(vip.Addr())
	clientAddr, _ := AddrOf(client.Addr())
	routerAddr, _ := AddrOf(router)

	e := one(pkttest.TCP(client, vip).SYN().Bytes(), false)
	if e.Verdict != Forwarded || e.Conn != ConnNew || e.Service == nil || e.Service.Port != 80 || e.Backend == nil || e.Backend.Addr != webAddr ||
		e.Frame.Port != wan || e.Sent.Port != lan || e.Sent.Own || e.OutPort != lan || e.Hop != webAddr || !e.Known ||
		e.Virtual != (Endpoint{vipAddr, 80, false}) || e.Client != (Endpoint{clientAddr, 4000, false}) || e.Is.String() != "SYN_RECV" || e.Active != 1 {
		t.Errorf("SYN: %+v", e)
	}
	e = one(pkttest.TCP(web, client).SYN().Ack(1).Bytes(), true)
	if e.Verdict != Forwarded || e.Conn != ConnKnown || !e.Reply || e.Service == nil || e.Was.String() != "SYN_RECV" ||
		e.OutPort != wan || e.Hop != routerAddr || e.Sent.Port != wan {
		t.Errorf("SYN+ACK: %+v", e)
	}
	e = one(pkttest.TCP(client, vip).Seq(1).Ack(1).Bytes(), false)
	if e.Verdict != Forwarded || e.Conn != ConnKnown || e.Reply || e.Backend == nil || e.Is.String() != "ESTABLISHED" || e.Active != 1 || e.Sent.Port != lan {
		t.Errorf("ACK, by express: %+v", e)
	}
	e = one(pkttest.TCP(client, netip.AddrPortFrom(vip.Addr(), 81)).SYN().Bytes(), false)
	if e.Verdict != Punted || e.Conn != ConnNone || e.Service != nil || !e.VIP || e.Sent.Port != -1 {
		t.Errorf("to a port of no service: %+v", e)
	}
	e = one(pkttest.TCP(netip.MustParseAddrPort("198.18.128.9:1"), vip).Ack(1).Bytes(), false)
	if e.Verdict != Answered || e.Conn != ConnNone || e.Service == nil || e.Sent.Port != wan || !e.Sent.Own {
		t.Errorf("a segment of no connection: %+v", e)
	}
	e = one(pkttest.TCP(netip.MustParseAddrPort("198.18.128.9:1"), vip).RST().Bytes(), false)
	if e.Verdict != Dropped || e.Drop != DropNoConnection || e.Sent.Port != -1 {
		t.Errorf("RST of no connection: %+v", e)
	}
	e = one(pkttest.TCP(client, vip).SYN().BadIPChecksum().Bytes(), false)
	if e.Verdict != Dropped || e.Drop != DropIPChecksum {
		t.Errorf("a wrong checksum: %+v", e)
	}
	if e := one(pkttest.TCP(client6, vip6).SYN().Bytes(), false); e.Verdict != Forwarded || e.Conn != ConnNew || !e.Virtual.V6 || e.OutPort != lan {
		t.Errorf("SYN over IPv6: %+v", e)
	}
	if full, over := tap.Missed(); full+over != 0 {
		t.Errorf("%d, %d missed", full, over)
	}
}

// TestEventWaited: a packet that waits for a neighbour is seen when it comes, and again when it goes on, or is dropped.
func TestEventWaited(t *testing.T) {
	b := newBed(t, func(s *Snapshot, _ *Engine) { s.Neighbors = neighbors(web.Addr()) })
	tap := b.tap(TapOptions{Filter: TapFilter{Hosts: []netip.Prefix{netip.PrefixFrom(client.Addr(), 32)}}})
	b.fromClient(pkttest.TCP(client, vip).SYN().Bytes())
	b.round()
	if e := observed(tap); len(e) != 1 || e[0].Verdict != Held || e[0].Conn != ConnNew || e[0].Known || e[0].OutPort != lan {
		t.Fatalf("a packet whose next hop is unknown: %+v", e)
	}
	b.now += 5e8
	b.snap.Neighbors = neighbors()
	b.publish()
	b.round()
	if e := observed(tap); len(e) != 1 || e[0].Kind != EventWaited || e[0].Verdict != Forwarded || e[0].Sent.Port != lan || e[0].Service == nil || !e[0].Known {
		t.Fatalf("the next hop has become known: %+v", e)
	}
	b.take(lan)
	b.snap.Neighbors = neighbors(web.Addr())
	b.publish()
	b.fromClient(pkttest.TCP(client, vip).SYN().Bytes())
	b.round()
	b.now += 2e9
	b.round()
	e := observed(tap)
	if len(e) != 2 || e[1].Kind != EventWaited || e[1].Verdict != Dropped || e[1].Drop != DropNoNeighbor || e[1].Service == nil {
		t.Fatalf("the next hop has not become known: %+v", e)
	}
	if want := pkttest.TCP(client, web).SYN().TTL(63).Bytes(); !bytes.Equal(e[1].Frame.Data[14:], want) {
		t.Errorf("it waited as %x, want %x", e[1].Frame.Data[14:], want)
	}
}

// TestTapFilter: each filter shows those of six packets that it should.
func TestTapFilter(t *testing.T) {
	prefix := netip.MustParsePrefix
	other := netip.MustParseAddrPort("198.18.128.200:777")
	webService := ServiceID{Protocol: packet.ProtoTCP, VIP: netip.PrefixFrom(vip.Addr(), 32), Port: 80, PortTo: 80}
	for _, x := range []struct {
		name   string
		filter TapFilter
		want   string // a letter a packet
	}{
		{"all", TapFilter{}, "abcdef"},
		{"a client", TapFilter{Hosts: []netip.Prefix{prefix("198.18.128.7/32")}}, "abf"},
		{"a network", TapFilter{Hosts: []netip.Prefix{prefix("198.18.128.128/25")}}, "cd"},
		{"a server, chosen and known", TapFilter{Hosts: []netip.Prefix{prefix("198.18.1.10/32")}}, "abcf"},
		{"a client's port", TapFilter{Ports: []uint16{777}}, "cd"},
		{"a server's port", TapFilter{Ports: []uint16{8000}}, "abc"},
		{"a protocol", TapFilter{Protocols: []uint8{packet.ProtoUDP}}, "f"},
		{"a service", TapFilter{Services: []ServiceID{webService}}, "abcd"},
		{"a drop", TapFilter{Drops: []Drop{DropNoConnection}}, "d"},
		{"another drop", TapFilter{Drops: []Drop{DropNoRoute, DropTTL}}, ""},
		{"what is dropped", TapFilter{Stages: StageDropped}, "d"},
		{"what leaves", TapFilter{Stages: StageSent}, "abcf"},
		{"a port", TapFilter{On: []int{lan}}, "abcf"},
		{"client and drop", TapFilter{Hosts: []netip.Prefix{prefix("198.18.128.7/32")}, Drops: []Drop{DropNoConnection}}, ""},
		{"IPv6", TapFilter{Hosts: []netip.Prefix{prefix("2001:db8::/32")}}, ""},
	} {
		b := newBed(t)
		tap := b.tap(TapOptions{Filter: x.filter, Snaplen: 40})
		got := ""
		for i, p := range []struct {
			ip     []byte
			server bool
		}{
			{pkttest.TCP(client, vip).SYN().Bytes(), false},
			{pkttest.TCP(web, client).SYN().Ack(1).Bytes(), true},
			{pkttest.TCP(other, vip).SYN().Bytes(), false},
			{pkttest.TCP(netip.MustParseAddrPort("198.18.128.201:777"), vip).RST().Bytes(), false},
			{pkttest.Echo(netip.MustParseAddr("198.18.0.9"), vip.Addr(), 1, 1).Bytes(), false},
			{pkttest.UDP(client, dns).Bytes(), false},
		} {
			if p.server {
				b.fromServer(p.ip)
			} else {
				b.fromClient(p.ip)
			}
			b.round()
			for _, e := range observed(tap) {
				got += string(rune('a' + i))
				if len(e.Frame.Data) != 40 || e.Frame.Len <= 40 {
					t.Errorf("%s: %d of %d bytes are kept, want 40", x.name, len(e.Frame.Data), e.Frame.Len)
				}
			}
		}
		if got != x.want {
			t.Errorf("%s: shows %q, want %q", x.name, got, x.want)
		}
	}
}

// TestTapLimits: what does not fit, what comes too fast and what comes too late is not shown, and the first two are counted.
func TestTapLimits(t *testing.T) {
	b := newBed(t)
	small := b.tap(TapOptions{Slots: 4})
	slow := b.tap(TapOptions{PerSecond: 3})
	short := b.tap(TapOptions{Until: b.now + 1})
	send := func() {
		t.Helper()
		for range 10 {
			b.fromClient(pkttest.TCP(client, vip).RST().Bytes())
		}
		b.round()
	}
	send()
	b.now++
	if n := len(observed(short)); n != 10 {
		t.Errorf("%d events before the end, want 10", n)
	}
	send()
	if n := len(observed(short)); n != 0 {
		t.Errorf("%d events after the end", n)
	}
	n, full, over := take(small)
	if n != 4 || full != 16 || over != 0 {
		t.Errorf("of 20 events in 4 slots %d are shown, %d and %d missed", n, full, over)
	}
	n, full, over = take(slow)
	if n != 3 || full != 0 || over != 17 {
		t.Errorf("of 20 events at 3 a second %d are shown, %d and %d missed", n, full, over)
	}
	b.tap(TapOptions{})
	if _, err := b.engine.Tap(TapOptions{Slots: 1, PerSecond: 1}); err != ErrTaps {
		t.Errorf("a fifth observer: %v", err)
	}
	small.Close()
	small.Close() // twice is once
	if n := b.engine.Taps(); n != MaxTaps-1 {
		t.Errorf("%d observers after one has gone", n)
	}
	b.tap(TapOptions{})
	if _, err := b.engine.Tap(TapOptions{Slots: 3, PerSecond: 1}); err == nil || err == ErrTaps {
		t.Errorf("3 slots: %v", err)
	}
}

func take(t *Tap) (n int, full, over uint64) {
	full, over = t.Missed()
	return len(observed(t)), full, over
}

// TestTapFragments: what one frame leads to besides itself is told in events of the same number.
// A reader that is slower than the worker gets to an end, and misses nothing that there is a slot for.
func TestTapReadEnds(t *testing.T) {
	b := newBed(t)
	b.open(client, vip, web)
	tap := b.tap(TapOptions{Slots: 8})
	send := func() {
		b.fromClient(pkttest.TCP(client, vip).Seq(1).Ack(1).Bytes())
		b.round()
	}
	send()
	send()
	for want := 2; want <= 4; want += 2 {
		got := 0
		tap.Read(func(*Event) bool {
			got++
			send()
			if got == 2 {
				send()
				send()
			}
			return got < 100
		})
		if got != want {
			t.Errorf("%d events are shown, want the %d that there were", got, want)
		}
	}
	if full, over := tap.Missed(); full != 0 || over != 0 {
		t.Errorf("%d and %d missed", full, over)
	}
}

func TestTapFragments(t *testing.T) {
	b := newBed(t, func(s *Snapshot, _ *Engine) { s.Ports[lan].MTU = 600 })
	tap := b.tap(TapOptions{})
	b.open(client, vip, web)
	observed(tap)
	b.fromClient(pkttest.TCP(client, vip).Seq(1).Ack(1).Size(1500).Bytes())
	b.round()
	events := observed(tap)
	if len(events) != 3 {
		t.Fatalf("%d events of a packet in three fragments: %+v", len(events), events)
	}
	for i, e := range events {
		if e.Number != events[0].Number || (e.Kind == EventAlso) != (i > 0) || e.Verdict != Forwarded || e.Sent.Own != (i > 0) {
			t.Errorf("fragment %d: %+v", i, e)
		}
		if out := b.take(lan); !bytes.Equal(out, e.Sent.Data) {
			t.Errorf("fragment %d is shown as %x, it was %x", i, e.Sent.Data, out)
		}
	}
}

// TestTapAllocates holds that an observed worker allocates nothing, whether or not its rings are full.
func TestTapAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b := newBed(t)
	b.open(client, vip, web)
	b.tap(TapOptions{})
	b.tap(TapOptions{Filter: TapFilter{Hosts: []netip.Prefix{netip.PrefixFrom(web.Addr(), 32)}, Services: []ServiceID{{Port: 1}}}})
	known := pkttest.Frame(pkttest.TCP(client, vip).Seq(1).Ack(1).Bytes(), routerMAC, wanMAC)
	lost := pkttest.Frame(pkttest.TCP(client, netip.AddrPortFrom(vip.Addr(), 81)).RST().Bytes(), routerMAC, wanMAC)
	buf := make([]byte, 4096)
	n := testing.AllocsPerRun(2000, func() {
		b.ports[wan].Inject(known)
		b.ports[wan].Inject(lost)
		b.worker.Round(b.now)
		for {
			if _, ok := b.ports[lan].Take(buf); !ok {
				break
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for two observed packets", n)
	}
}
