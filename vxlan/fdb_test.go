package vxlan

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

func newFDB(t testing.TB, capacity, segments int) *FDB {
	t.Helper()
	f, err := NewFDB(FDBOptions{Capacity: capacity, Segments: segments, LearnRate: MaxRate, Secret: [2]uint64{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	for s := range segments {
		f.Configure(uint16(s), uint32(capacity), 300)
	}
	return f
}

// where looks one station up.
func (t *FDB) where(segment uint16, mac MAC) (Place, bool) {
	q := [1]Query{{Segment: segment, MAC: mac}}
	t.Lookup(q[:])
	return q[0].Place, q[0].Static
}

// station is the MAC of host n.
func station(n int) MAC { return 0x02aa00000000 | MAC(n) }

func TestLearn(t *testing.T) {
	type step struct {
		segment uint16
		mac     MAC
		at      Place
		now     Second
		want    Learned
	}
	for _, c := range []struct {
		name  string
		steps []step
		mac   MAC
		place Place // of mac in segment 0
	}{
		{"new, then known", []step{{0, station(1), AtPeer(3), 0, New}, {0, station(1), AtPeer(3), 1, Known}}, station(1), AtPeer(3)},
		{"line 20 of section 0: a station moves", []step{{0, station(1), AtPeer(3), 0, New}, {0, station(1), AtAccess(3), 1, Moved}, {0, station(1), AtAccess(3), 1, Known}}, station(1), AtAccess(3)},
		{"line 43: one MAC in two segments", []step{{0, station(1), AtPeer(3), 0, New}, {1, station(1), AtPeer(4), 0, New}}, station(1), AtPeer(3)},
		{"line 33: group", []step{{0, 0x010000000001, AtPeer(3), 0, NotAStation}}, 0x010000000001, 0},
		{"line 33: broadcast", []step{{0, Broadcast, AtPeer(3), 0, NotAStation}}, Broadcast, 0},
		{"line 33: zero", []step{{0, 0, AtPeer(3), 0, NotAStation}}, 0, 0},
		{"line 33: the gateway's", []step{{0, station(8), AtPeer(3), 0, Own}}, station(8), AtGateway},
		{"a static entry never moves", []step{{0, station(9), AtPeer(3), 0, Static}, {0, station(9), AtPeer(1), 0, Known}}, station(9), AtPeer(1)},
		{"flapping", []step{
			{0, station(1), AtPeer(1), 0, New},
			{0, station(1), AtPeer(2), 1, Moved}, {0, station(1), AtPeer(1), 2, Moved}, {0, station(1), AtPeer(2), 3, Moved}, {0, station(1), AtPeer(1), 4, Moved},
			{0, station(1), AtPeer(2), 180, Moved}, // the fifth in 180 s
			{0, station(1), AtPeer(1), 181, Frozen}, {0, station(1), AtPeer(2), 181, Known}, {0, station(1), AtPeer(1), 359, Frozen},
		}, station(1), AtPeer(2)},
		{"not flapping: the fifth move comes later", []step{
			{0, station(1), AtPeer(1), 0, New},
			{0, station(1), AtPeer(2), 1, Moved}, {0, station(1), AtPeer(1), 2, Moved}, {0, station(1), AtPeer(2), 3, Moved}, {0, station(1), AtPeer(1), 4, Moved},
			{0, station(1), AtPeer(2), 181, Moved}, {0, station(1), AtPeer(1), 182, Moved},
		}, station(1), AtPeer(1)},
		{"frozen for 180 s", []step{
			{0, station(1), AtPeer(1), 0, New},
			{0, station(1), AtPeer(2), 1, Moved}, {0, station(1), AtPeer(1), 1, Moved}, {0, station(1), AtPeer(2), 1, Moved}, {0, station(1), AtPeer(1), 1, Moved}, {0, station(1), AtPeer(2), 1, Moved},
			{0, station(1), AtPeer(1), 180, Frozen}, {0, station(1), AtPeer(1), 181, Moved},
		}, station(1), AtPeer(1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFDB(t, 100, 2)
			for mac, at := range map[MAC]Place{station(8): AtGateway, station(9): AtPeer(1)} {
				if err := f.Add(0, mac, at, 0); err != nil {
					t.Fatal(err)
				}
			}
			counts := map[Learned]uint64{}
			for i, s := range c.steps {
				if got := f.Learn(s.segment, s.mac, s.at, s.now); got != s.want {
					t.Errorf("step %d: %v, want %v", i, got, s.want)
				}
				if s.want > Own {
					counts[s.want]++
				}
			}
			if at, static := f.where(0, c.mac); at != c.place || static != (c.mac == station(8) || c.mac == station(9)) {
				t.Errorf("%v is at %#x, static %v; want %#x", c.mac, at, static, c.place)
			}
			for l := Known; l < numCounts; l++ {
				if got := f.Count(0, l) + f.Count(1, l); got != counts[l] {
					t.Errorf("%v counted %d times, want %d", l, got, counts[l])
				}
			}
			if flaps := f.Flaps(0); flaps != map[bool]uint64{true: 1}[counts[Frozen] > 0] {
				t.Errorf("%d frozen", flaps)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	f := newFDB(t, 20, 3)
	f.Configure(0, 5, 300)
	for n := range 6 {
		if got, want := f.Learn(0, station(n), AtPeer(0), 0), map[bool]Learned{true: New, false: SegmentFull}[n < 5]; got != want {
			t.Errorf("entry %d: %v, want %v", n, got, want)
		}
	}
	if got := f.Learn(0, station(0), AtPeer(1), 0); got != Moved {
		t.Errorf("a full segment's station moves: %v", got)
	}
	if err := f.Add(0, station(7), AtPeer(0), 0); err != nil {
		t.Errorf("a static entry needs no room in its segment: %v", err)
	}
	for n := range 15 {
		if got, want := f.Learn(1, station(n), AtPeer(0), 0), map[bool]Learned{true: New, false: TableFull}[n < 14]; got != want {
			t.Errorf("entry %d of segment 1: %v, want %v", n, got, want)
		}
	}
	if err := f.Add(2, station(7), AtPeer(0), 0); err == nil {
		t.Error("a static entry in a full table")
	}
	if f.Refused() != 1 || f.Count(0, SegmentFull) != 1 || f.Len() != 20 || f.Used(0) != 6 || f.Used(1) != 14 {
		t.Errorf("%d refused, %d in segment 0; %d entries, of them %d and %d", f.Refused(), f.Count(0, SegmentFull), f.Len(), f.Used(0), f.Used(1))
	}
}

func TestLearnRate(t *testing.T) {
	f, err := NewFDB(FDBOptions{Capacity: 1000, Segments: 8, LearnRate: 10})
	if err != nil {
		t.Fatal(err)
	}
	learned := func(segment uint16, now Second) (n int) {
		for i := range 20 {
			switch f.Learn(segment, station(i+int(now)*100), AtPeer(0), now) {
			case New:
				n++
			case TooFast:
			default:
				t.Error("neither new nor too fast")
			}
		}
		return n
	}
	for s := range uint16(8) {
		f.Configure(s, 1000, 300)
	}
	for s, want := range []int{10, 10, 10, 10, 0, 0} { // four times as many in all
		if n := learned(uint16(s), 5); n != want {
			t.Errorf("segment %d learned %d in a second, want %d", s, n, want)
		}
	}
	if n := learned(0, 4); n != 0 {
		t.Errorf("a worker whose clock is behind learned %d more", n)
	}
	if n := learned(4, 6); n != 10 {
		t.Errorf("%d in the next second, want 10", n)
	}
}

func TestAgeing(t *testing.T) {
	f := newFDB(t, 100, 3)
	f.Configure(1, 100, 10)
	f.Configure(2, 100, 0)
	for s := range uint16(3) {
		f.Learn(s, station(1), AtPeer(1), 1000)
		f.Learn(s, station(2), AtPeer(1), 1000)
		f.Add(s, station(3), AtPeer(1), 1000)
	}
	f.Learn(1, station(2), AtPeer(1), 1005) // a frame: it stays longer
	for _, c := range []struct {
		now  Second
		left int
	}{{1009, 9}, {1010, 8}, {1014, 8}, {1015, 7}, {1299, 7}, {1300, 5}, {1 << 30, 5}} {
		for range f.Slots()/7 + 1 {
			f.Expire(c.now, 7)
		}
		if f.Len() != c.left {
			t.Errorf("%d entries at %d, want %d", f.Len(), c.now, c.left)
		}
	}
}

func TestFlushAndRange(t *testing.T) {
	f := newFDB(t, 100, 3)
	for s := range uint16(3) {
		for n := range 10 {
			f.Learn(s, station(n), AtPeer(uint16(n%2)), 7)
		}
		f.Add(s, station(99), AtPeer(0), 7)
	}
	if n := f.Flush(func(s Station) bool { return s.Segment == 1 && s.Place == AtPeer(0) && !s.Static }); n != 5 {
		t.Errorf("flushed %d", n)
	}
	listed := map[string]bool{}
	f.Range(func(s Station) bool {
		if s.Seen != 7 || s.Static != (s.MAC == station(99)) {
			t.Errorf("%+v", s)
		}
		listed[fmt.Sprint(s.Segment, s.MAC)] = true
		return true
	})
	if len(listed) != 28 || f.Len() != 28 || f.Used(1) != 6 {
		t.Errorf("%d listed of %d, %d in segment 1", len(listed), f.Len(), f.Used(1))
	}
	if f.Remove(0, station(77)) || !f.Remove(0, station(99)) || f.Remove(0, station(99)) {
		t.Error("Remove")
	}
	n := 0
	f.Range(func(Station) bool { n++; return n < 3 })
	if n != 3 {
		t.Errorf("Range went on to %d", n)
	}
}

// Tombstones do not add up: however long entries come and go, probes stay short.
func TestChurnKeepsProbesShort(t *testing.T) {
	const n = 4096
	f := newFDB(t, n, 1)
	random := rand.New(rand.NewPCG(5, 6))
	var here [n]MAC
	for i := range here {
		here[i] = MAC(random.Uint64()) & macMask &^ group
		f.Learn(0, here[i], AtPeer(0), 0)
	}
	for range 40 * n {
		i := random.IntN(n)
		f.Remove(0, here[i])
		here[i] = MAC(random.Uint64()) & macMask &^ group
		if got := f.Learn(0, here[i], AtPeer(0), 0); got != New {
			t.Fatal(got)
		}
	}
	longest, run := 0, 0
	for i := range f.slots {
		if f.slots[i].key.Load() == keyEmpty {
			run = 0
			continue
		}
		if run++; run > longest {
			longest = run
		}
	}
	if longest > maxProbe/2 {
		t.Errorf("%d slots in a row are not empty", longest)
	}
}

// A table takes as many entries as it is to hold, whatever the secret, also if their MACs are in sequence.
func TestFDBFills(t *testing.T) {
	n := 1 << 20
	if testing.Short() {
		n = 1 << 14
	}
	for _, secret := range [][2]uint64{{1, 2}, {3, 4}} { // a hash of one multiplication fails with the first
		f, err := NewFDB(FDBOptions{Capacity: n, Segments: 1, LearnRate: MaxRate, Secret: secret})
		if err != nil {
			t.Fatal(err)
		}
		f.Configure(0, uint32(n), 300)
		for i := range n {
			if got := f.Learn(0, station(i), AtPeer(1), 0); got != New {
				t.Fatalf("secret %d, entry %d of %d: %v", secret, i, n, got)
			}
		}
	}
}

// The last slot that a probe may reach is as good as the first.
func TestLongestProbe(t *testing.T) {
	f, n := newFDB(t, 2*maxProbe, 1), newNeighbors(t, 2*maxProbe, 1)
	f.homes, n.homes = 1, 1 // all collide
	q, nq := make([]Query, maxProbe), make([]NeighborQuery, maxProbe)
	for i := range maxProbe {
		q[i].MAC, nq[i].Addr = station(i), Addr{Lo: ip1.Lo + uint64(i)}
		if got := f.Learn(0, station(i), AtPeer(uint16(i)), 1); got != New {
			t.Fatalf("entry %d: %v", i, got)
		}
		n.Learn(0, nq[i].Addr, false, station(i), Confirmed, 1)
	}
	f.Lookup(q)
	n.Resolve(nq, 1)
	for i := range maxProbe {
		if q[i].Place != AtPeer(uint16(i)) || nq[i].MAC != station(i) || f.Learn(0, station(i), AtPeer(uint16(i)), 1) != Known {
			t.Errorf("%d slots from its home: at %#x, %v", i, q[i].Place, nq[i].MAC)
		}
	}
	if got := f.Learn(0, station(maxProbe), AtPeer(1), 1); got != TableFull || f.Refused() != 1 {
		t.Errorf("one too far: %v", got)
	}
	if n.Learn(0, Addr{Lo: 1 << 24}, false, station(1), Confirmed, 1); n.Len() != maxProbe || n.Count(0, NeighborRefused) != 1 {
		t.Errorf("one too far: %d neighbours, %d refused", n.Len(), n.Count(0, NeighborRefused))
	}
}

func TestFDBLayout(t *testing.T) {
	if n := reflect.TypeFor[fdbSegment]().Size(); n != 128 {
		t.Errorf("fdbSegment has %d bytes, want two cache lines", n)
	}
	if n := reflect.TypeFor[neighborSlot]().Size(); n != 64 {
		t.Errorf("neighborSlot has %d bytes, want a cache line", n)
	}
	for l := range numCounts {
		if s := l.String(); s == "" || s == "unknown" {
			t.Errorf("outcome %d is named %q", l, s)
		}
	}
}

func TestNewFDBRefuses(t *testing.T) {
	for _, o := range []FDBOptions{{0, 1, 0, [2]uint64{}}, {MaxFDB + 1, 1, 0, [2]uint64{}}, {1, 0, 0, [2]uint64{}}, {1, MaxSegments + 1, 0, [2]uint64{}}, {1, 1, -1, [2]uint64{}}, {1, 1, MaxRate + 1, [2]uint64{}}} {
		if _, err := NewFDB(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

// What is restored is as what was learned: it has the room of the segment, is found, moves and ages.
func TestRestore(t *testing.T) {
	fdb, err := NewFDB(FDBOptions{Capacity: 8, Segments: 2})
	if err != nil {
		t.Fatal(err)
	}
	fdb.Configure(1, 3, 300)
	const seen = Second(1000)
	for mac := MAC(1); mac <= 4; mac++ {
		if got, want := fdb.Restore(1, mac, AtPeer(5), seen), mac <= 3; got != want {
			t.Errorf("station %d: %v, want %v", mac, got, want)
		}
	}
	for _, x := range []struct {
		name    string
		segment uint16
		mac     MAC
		at      Place
	}{
		{"is known", 1, 1, AtPeer(6)}, {"segment that there is not", 2, 9, AtPeer(5)}, {"group", 1, Broadcast, AtPeer(5)}, {"more than 48 bits", 1, 1 << 50, AtPeer(5)},
		{"nowhere", 1, 9, 0}, {"place that there is not", 1, 9, 1 << placeBits},
	} {
		if fdb.Restore(x.segment, x.mac, x.at, seen) {
			t.Errorf("%s: restored", x.name)
		}
	}
	if fdb.Used(1) != 3 || fdb.Count(1, New) != 0 {
		t.Errorf("%d entries, %d counted as new", fdb.Used(1), fdb.Count(1, New))
	}
	if got := fdb.Learn(1, 1, AtPeer(5), seen+1); got != Known {
		t.Errorf("a frame from where it was: %v", got)
	}
	if got := fdb.Learn(1, 2, AtAccess(0), seen+1); got != Moved {
		t.Errorf("a frame from elsewhere: %v", got)
	}
}
