package vxlan

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// model is an FDB as a map, without a thought for speed.
type model struct {
	capacity int
	limit    map[uint16]int
	ageing   map[uint16]uint32
	entries  map[modelKey]*modelEntry
}

type modelKey struct {
	segment uint16
	mac     MAC
}

type modelEntry struct {
	at     Place
	static bool
	seen   Second
	moves  []Second // since it came, was frozen or became static
	frozen Second
}

func (m *model) learned(segment uint16) (n int) {
	for k, e := range m.entries {
		if k.segment == segment && !e.static {
			n++
		}
	}
	return n
}

func (m *model) learn(k modelKey, at Place, now Second) Learned {
	e := m.entries[k]
	switch {
	case k.mac == 0 || k.mac&group != 0:
		return NotAStation
	case e == nil && m.learned(k.segment) >= m.limit[k.segment]:
		return SegmentFull
	case e == nil && len(m.entries) >= m.capacity:
		return TableFull
	case e == nil:
		m.entries[k] = &modelEntry{at: at, seen: now}
		return New
	case e.at == at:
		if !e.static {
			e.seen = now
		}
		return Known
	case e.at == AtGateway:
		return Own
	case e.static:
		return Static
	case e.frozen > now:
		return Frozen
	}
	if len(e.moves) > 0 && now-e.moves[0] >= flapWindow {
		e.moves = nil
	}
	if e.moves = append(e.moves, now); len(e.moves) == flapMoves {
		e.moves, e.frozen = nil, now+flapFreeze
	}
	e.at, e.seen = at, now
	return Moved
}

func (m *model) add(k modelKey, at Place, now Second) bool {
	if m.entries[k] == nil && len(m.entries) >= m.capacity {
		return false
	}
	m.entries[k] = &modelEntry{at: at, static: true, seen: now}
	return true
}

func (m *model) expire(now Second) (n int) {
	for k, e := range m.entries {
		if a := m.ageing[k.segment]; !e.static && a != 0 && now-e.seen >= Second(a) {
			delete(m.entries, k)
			n++
		}
	}
	return n
}

func checkModel(t *rapid.T) {
	const segments = 3
	capacity := rapid.IntRange(1, 16).Draw(t, "capacity")
	f, err := NewFDB(FDBOptions{Capacity: capacity, Segments: segments, LearnRate: MaxRate})
	if err != nil {
		t.Fatal(err)
	}
	m := &model{capacity: capacity, limit: map[uint16]int{}, ageing: map[uint16]uint32{}, entries: map[modelKey]*modelEntry{}}
	now := Second(rapid.Uint32Range(1, 1<<31).Draw(t, "start"))
	key := func(t *rapid.T) modelKey {
		mac := rapid.SampledFrom([]MAC{0, 0x010000000001, Broadcast, 1, 2, 3, 4, 5, 6, 7, 0xfe0000000000}).Draw(t, "mac")
		return modelKey{rapid.Uint16Range(0, segments-1).Draw(t, "segment"), mac}
	}
	place := func(t *rapid.T) Place {
		return rapid.SampledFrom([]Place{AtPeer(0), AtPeer(1), AtPeer(65534), AtAccess(0), AtAccess(1)}).Draw(t, "place")
	}
	configure := func(t *rapid.T, s uint16) {
		m.limit[s], m.ageing[s] = rapid.IntRange(0, 6).Draw(t, "limit"), rapid.SampledFrom([]uint32{0, 10, 300}).Draw(t, "ageing")
		f.Configure(s, uint32(m.limit[s]), m.ageing[s])
	}
	for s := range uint16(segments) {
		configure(t, s)
	}
	t.Repeat(map[string]func(*rapid.T){
		"learn": func(t *rapid.T) {
			k, at := key(t), place(t)
			got := f.Learn(k.segment, k.mac, at, now)
			if want := m.learn(k, at, now); got != want {
				t.Fatalf("Learn %+v: %v, the model says %v", k, got, want)
			}
		},
		"add": func(t *rapid.T) {
			k, at := key(t), place(t)
			if rapid.IntRange(0, 3).Draw(t, "gateway") == 0 {
				at = AtGateway
			}
			err := f.Add(k.segment, k.mac, at, now)
			if want := k.mac.station() && m.add(k, at, now); (err == nil) != want {
				t.Fatalf("Add %+v: %v, the model says %v", k, err, want)
			}
		},
		"remove": func(t *rapid.T) {
			k := key(t)
			got := f.Remove(k.segment, k.mac)
			if want := m.entries[k] != nil; got != want {
				t.Fatalf("Remove %+v: %v, the model says %v", k, got, want)
			}
			delete(m.entries, k)
		},
		"expire": func(t *rapid.T) {
			budget, n := rapid.IntRange(1, 100).Draw(t, "budget"), 0
			for range f.Slots()/budget + 1 {
				n += f.Expire(now, budget)
			}
			if want := m.expire(now); n != want {
				t.Fatalf("Expire: %d, the model says %d", n, want)
			}
		},
		"flush": func(t *rapid.T) {
			segment, at := rapid.Uint16Range(0, segments-1).Draw(t, "segment"), place(t)
			got, want := f.Flush(func(s Station) bool { return s.Segment == segment && s.Place == at }), 0
			for k, e := range m.entries {
				if k.segment == segment && e.at == at {
					delete(m.entries, k)
					want++
				}
			}
			if got != want {
				t.Fatalf("Flush: %d, the model says %d", got, want)
			}
		},
		"reload": func(t *rapid.T) { configure(t, rapid.Uint16Range(0, segments-1).Draw(t, "segment")) },
		"wait":   func(t *rapid.T) { now += Second(rapid.SampledFrom([]int{1, 5, 60, 179, 180, 300}).Draw(t, "seconds")) },
		"": func(t *rapid.T) {
			q := make([]Query, rapid.IntRange(0, 20).Draw(t, "queries"))
			for i := range q {
				k := key(t)
				q[i] = Query{Segment: k.segment, MAC: k.mac, Place: 99}
			}
			f.Lookup(q)
			for i := range q {
				want := modelEntry{}
				if e := m.entries[modelKey{q[i].Segment, q[i].MAC}]; e != nil {
					want = *e
				}
				if q[i].Place != want.at || q[i].Static != want.static {
					t.Fatalf("Lookup %+v, the model says %+v", q[i], want)
				}
			}
			if f.Len() != len(m.entries) {
				t.Fatalf("%d entries, the model has %d", f.Len(), len(m.entries))
			}
			n := 0
			f.Range(func(s Station) bool {
				e := m.entries[modelKey{s.Segment, s.MAC}]
				if n++; e == nil || s.Place != e.at || s.Static != e.static || s.Seen != e.seen || (s.Frozen > now) != (e.frozen > now) {
					t.Fatalf("Range lists %+v, the model has %+v", s, e)
				}
				return true
			})
			if n != len(m.entries) {
				t.Fatalf("Range lists %d, the model has %d", n, len(m.entries))
			}
		},
	})
}

func TestModel(t *testing.T) { rapid.Check(t, checkModel) }

func FuzzModel(f *testing.F) {
	for seed := range uint64(4) { // rapid draws its operations from these bytes and wants many
		b := make([]byte, 1<<14)
		rng := rand.New(rand.NewPCG(seed, 0))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(rapid.MakeFuzz(checkModel))
}

// Neighbors beside a map: what was confirmed last is what is known, until it is flushed or too old.
func checkNeighbors(t *rapid.T) {
	type entry struct {
		mac   MAC
		heard Second
	}
	type where struct {
		segment uint16
		v6      bool
		lo      uint64
	}
	capacity := rapid.IntRange(1, 12).Draw(t, "capacity")
	n, err := NewNeighbors(NeighborsOptions{Capacity: capacity, Segments: 2, AskRate: MaxRate, LearnRate: MaxRate})
	if err != nil {
		t.Fatal(err)
	}
	const ageing = 300
	for s := range uint16(2) {
		n.Configure(s, 8, ageing)
	}
	m := map[where]entry{}
	now := Second(1000)
	draw := func(t *rapid.T) (where, Addr) {
		w := where{rapid.Uint16Range(0, 1).Draw(t, "segment"), rapid.Bool().Draw(t, "v6"), rapid.Uint64Range(1<<24, 1<<24+7).Draw(t, "address")}
		return w, Addr{Lo: w.lo}
	}
	t.Repeat(map[string]func(*rapid.T){
		"learn": func(t *rapid.T) {
			w, a := draw(t)
			mac := MAC(rapid.Uint64Range(1, 5).Draw(t, "mac"))
			_, known := m[w]
			used := 0
			for x := range m {
				if x.segment == w.segment {
					used++
				}
			}
			if n.Learn(w.segment, a, w.v6, mac, Confirmed, now); known || used < 8 && len(m) < capacity {
				m[w] = entry{mac, now}
			}
		},
		"flush": func(t *rapid.T) {
			w, a := draw(t)
			got := n.Flush(func(x Neighbor) bool { return x.Segment == w.segment && x.V6 == w.v6 && x.Addr == a })
			if _, known := m[w]; got != map[bool]int{true: 1}[known] {
				t.Fatalf("Flush: %d, the model has it: %v", got, known)
			}
			delete(m, w)
		},
		"expire": func(t *rapid.T) {
			got, want := n.Expire(now, n.Slots()), 0
			for w, e := range m {
				if now-e.heard >= ageing {
					delete(m, w)
					want++
				}
			}
			if got != want {
				t.Fatalf("Expire: %d, the model says %d", got, want)
			}
		},
		"wait": func(t *rapid.T) { now += Second(rapid.IntRange(1, 200).Draw(t, "seconds")) },
		"": func(t *rapid.T) {
			for range 8 {
				w, a := draw(t)
				want := m[w].mac
				if now-m[w].heard >= ageing {
					want = 0
				}
				if got := n.Known(w.segment, a, w.v6, now); got != want {
					t.Fatalf("Known %+v: %v, the model says %v", w, got, want)
				}
			}
			listed := 0
			n.Range(now, func(Neighbor) bool { listed++; return true })
			if listed != len(m) || n.Len() != len(m) {
				t.Fatalf("%d listed of %d, the model has %d", listed, n.Len(), len(m))
			}
		},
	})
}

func TestNeighborsModel(t *testing.T) { rapid.Check(t, checkNeighbors) }
