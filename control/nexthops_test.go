package control

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"weir/control/host"
	"weir/dataplane"
)

// TestWantedNextHops: whoever sends packets to whole networks, or has answers sent there, does not fill the kernel's neighbour table.
func TestWantedNextHops(t *testing.T) {
	now := time.Unix(1e9, 0)
	hop := func(i int) hopKey { return hopKey{1, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})} }
	w := wanted{}
	silent := func(hopKey) bool { return false }
	taken := 0
	for i := range 4 * maxWanted {
		if w.note(hop(i), now) {
			taken++
		}
	}
	if taken != maxWanted || len(w) != maxWanted || !w.note(hop(0), now) {
		t.Errorf("%d were taken, %d are there", taken, len(w))
	}
	first := func(h hopKey) bool { return h == hop(0) }
	for _, x := range []struct {
		after    time.Duration
		answered func(hopKey) bool
		left     int
		any      bool
	}{
		{silentFor, silent, maxWanted, false},
		{silentFor + time.Second, first, 1, true},
		{wantedFor, first, 1, false},
		{wantedFor + time.Second, first, 0, true},
	} {
		if any := w.expire(now.Add(x.after), x.answered); any != x.any || len(w) != x.left {
			t.Errorf("after %v: %v, %d are there, want %d", x.after, any, len(w), x.left)
		}
	}
	if !w.note(hop(9), now) || !w.has(hop(9)) || w.has(hop(8)) {
		t.Error("there is no room afterwards")
	}
}

// TestCrowd: a neighbour table that is too small is not asked again and again, a device that goes down and comes back is no such thing.
func TestCrowd(t *testing.T) {
	start := time.Unix(1e9, 0)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	var c crowd
	if c.waits(at(0)) || c.due(at(0)) || c.note(1, at(0)) || c.note(manyLost, at(0)) || c.waits(at(0.1)) {
		t.Error("one loss is no crowd")
	}
	if !c.note(manyLost, at(1)) || !c.waits(at(1.1)) || c.due(at(1.9)) || !c.due(at(2.1)) {
		t.Error("twice within seconds is one, for a second")
	}
	now := 2.1
	for _, pause := range []float64{2, 4, 8, 16, 32, 60, 60} {
		if c.note(manyLost, at(now)) || c.due(at(now)) || !c.waits(at(now+pause-0.1)) || c.due(at(now+pause-0.1)) || !c.due(at(now+pause+0.1)) {
			t.Errorf("want a pause of %v s", pause)
		}
		now += pause + 0.1
	}
	if c.note(0, at(now)); c.waits(at(now + 61)) {
		t.Error("it waits though the table has become large enough")
	}
	if now += 200; c.note(manyLost, at(now)) || c.waits(at(now+0.1)) {
		t.Error("a loss much later is a first one")
	}
}

// TestDeadNextHopsAreLetGo: the kernel is made to ask for a next hop that a worker wants, and no longer when nobody answers.
func TestDeadNextHopsAreLetGo(t *testing.T) {
	b := newBindBed(t)
	p := b.start(b.config("198.18.0.1", "50000-50099", "bind_vips: false"))
	dead := netip.MustParseAddr("198.18.0.77")
	addr, _ := dataplane.AddrOf(dead)
	managed := func() bool {
		ns, err := b.space.Host().Neighbors()
		b.must(err)
		for _, n := range ns {
			if n.Addr == dead && n.Protocol == host.Protocol {
				return true
			}
		}
		return false
	}
	p.resolve(dataplane.Want{Addr: addr})
	if !managed() {
		t.Skip("this kernel does not keep entries for us (before 5.16)")
	}
	p.letGo()
	if !managed() || len(p.wanted) != 1 {
		t.Error("it was let go at once")
	}
	for hop := range p.wanted {
		p.wanted[hop] = time.Now().Add(-silentFor - time.Second)
	}
	p.letGo()
	if managed() || len(p.wanted) != 0 {
		t.Errorf("the kernel still asks for it, %d are wanted", len(p.wanted))
	}
	b.must(p.unbind())
	b.must(p.close())
}

// TestLostNextHops: an entry that somebody deletes is asked for again, one that is there is left to the kernel, which probes it by itself.
func TestLostNextHops(t *testing.T) {
	b := newBindBed(t)
	p := b.start(b.config("198.18.0.1", "50000-50099", "bind_vips: false"))
	server := netip.MustParseAddr("198.18.0.10")
	managed := func() bool {
		ns, err := b.space.Host().Neighbors()
		b.must(err)
		return slices.ContainsFunc(ns, func(n host.Neighbor) bool { return n.Addr == server && n.Managed })
	}
	if !managed() {
		t.Skip("this kernel does not keep entries for us (before 5.16)")
	}
	look := func() { // as after an event
		t.Helper()
		p.note(host.Event{Change: host.ChangeAll})
		_, err := p.refresh()
		b.must(err)
	}
	for range 2 {
		look()
		ifindex := p.mirror.State().Ports.Ifindex(0)
		if there, kept := p.mirror.Keeps(ifindex, server); !there || !kept || !p.keeper.Keeps(ifindex, server) {
			t.Error("it is not known to be kept, and would be asked for at each change")
		}
		if out, err := b.space.Command("ip", "neigh", "del", server.String(), "dev", "wan").CombinedOutput(); err != nil {
			t.Fatalf("ip neigh del: %v: %s", err, out)
		}
		if managed() {
			t.Fatal("it was not deleted")
		}
		look()
		if !managed() {
			t.Error("it was not asked for again")
		}
	}
	b.must(p.unbind())
	b.must(p.close())
}

// TestNextHopsAreInherited: what workers of a weir that was killed wanted stays resolved, and is let go as if the next one's had wanted it.
func TestNextHopsAreInherited(t *testing.T) {
	b := newBindBed(t)
	config := b.config("198.18.0.1", "50000-50099", "bind_vips: false")
	client := netip.MustParseAddr("198.18.0.78")
	addr, _ := dataplane.AddrOf(client)
	kept := func() bool {
		ns, err := b.space.Host().Neighbors()
		b.must(err)
		for _, n := range ns {
			if n.Addr == client && n.Managed {
				return true
			}
		}
		return false
	}
	killed := b.start(config)
	killed.resolve(dataplane.Want{Addr: addr})
	if !kept() {
		t.Skip("this kernel does not keep entries for us (before 5.16)")
	}
	p := b.start(config)
	if !kept() || len(p.wanted) != 1 {
		t.Errorf("kept %v, %d wanted", kept(), len(p.wanted))
	}
	for hop := range p.wanted {
		p.wanted[hop] = time.Now().Add(-silentFor - time.Second)
	}
	if p.letGo(); kept() {
		t.Error("it does not answer, and is kept")
	}
	b.must(p.unbind())
	b.must(p.close())
}
