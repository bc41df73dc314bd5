package sched

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
)

// maglevDests makes destinations 198.18.1.1 and up, one for each weight; a negative one is a weight of 0 that was its opposite before.
func maglevDests(weights ...int32) []Dest {
	dests := make([]Dest, len(weights))
	for i, w := range weights {
		dests[i] = Dest{Load: new(Load), ID: uint32(i), Weight: max(w, 0), LastWeight: max(w, -w), Addr: netip.AddrFrom4([4]byte{198, 18, 1, byte(1 + i)}), Port: 80}
	}
	return dests
}

func maglevPlan(t *testing.T, was *Plan, dests []Dest) *Plan {
	t.Helper()
	p, err := was.Next("mh", Options{}, 1, dests)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMaglevTableIsSharedWhileNobodysWishChanges(t *testing.T) {
	first := maglevPlan(t, nil, maglevDests(1, 2, 3))
	tests := []struct {
		name   string
		dests  []Dest
		shared bool
	}{
		{"nothing changed", maglevDests(1, 2, 3), true},
		{"one drained", maglevDests(1, -2, 3), true},
		{"all weights doubled", maglevDests(2, 4, 6), true},
		{"one heavier", maglevDests(1, 2, 4), false},
		{"one fewer", maglevDests(1, 2), false},
		{"two that changed places", []Dest{maglevDests(2, 1)[1], maglevDests(2, 1)[0], maglevDests(1, 2, 3)[2]}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := maglevPlan(t, first, tt.dests).maglev == first.maglev; got != tt.shared {
				t.Errorf("shared %v, want %v", got, tt.shared)
			}
		})
	}
}

// TestMaglevMovesFewClients adds and removes a server and counts the slots of others that change hands. The paper's bound is loose at this
// size; a modulo would move nine in ten.
func TestMaglevMovesFewClients(t *testing.T) {
	ten := maglevDests(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	before, after := maglevPlan(t, nil, ten), maglevPlan(t, nil, ten[:9])
	owned, moved := 0, 0
	for i, owner := range before.maglev.slots {
		if owner == 9 {
			owned++
		} else if after.maglev.slots[i] != owner {
			moved++
		}
	}
	if owned < mhSlots/10-1 || owned > mhSlots/10+1 {
		t.Errorf("one of ten equals has %d of %d slots", owned, mhSlots)
	}
	if moved > mhSlots/10 {
		t.Errorf("%d of %d slots of those that stay changed hands", moved, mhSlots-owned)
	}
	t.Logf("%d slots of those that stay changed hands", moved)
}

// TestMaglevSlotsFollowWeights has weights that must be shifted to fit, and the smallest, which the shift would take away.
func TestMaglevSlotsFollowWeights(t *testing.T) {
	counts := make([]int, 3)
	for _, owner := range maglevPlan(t, nil, maglevDests(1, 640, 1280)).maglev.slots {
		counts[owner]++
	}
	// 1280 is 11 bits, 5 more than 6: a turn is 1, 20 and 40 slots.
	for i, turn := range []int{1, 20, 40} {
		if want := mhSlots * turn / 61; counts[i] < want-turn || counts[i] > want+turn {
			t.Errorf("destination %d has %d slots, want %d give or take a turn", i, counts[i], want)
		}
	}
}

// TestMaglevTables makes every table there is, of few and of as many destinations as fit: all slots are dealt, evenly among equals, and the memory is
// what a slot and a destination need.
func TestMaglevTables(t *testing.T) {
	for size, slots := range mhSizes {
		for _, n := range []int{1, 100, min(slots, mhMaxDest)} {
			dests := maglevMany(n)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			m := maglevOf(dests, size, nil)
			runtime.ReadMemStats(&after)
			counts := make([]int, n)
			for _, owner := range m.slots {
				counts[owner]++
			}
			if least, most := slices.Min(counts), slices.Max(counts); len(m.slots) != slots || least < slots/n || most > slots/n+1 {
				t.Errorf("%d slots, %d destinations: %d dealt, %d to %d each", slots, n, len(m.slots), least, most)
			}
			if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(3*slots+16*n)*5/4+4096; got > limit {
				t.Errorf("%d slots, %d destinations: making it took %d bytes, want at most %d", slots, n, got, limit)
			}
		}
	}
}

// TestMaglevSlotsInARow: the larger the table, the finer weights are told apart.
func TestMaglevSlotsInARow(t *testing.T) {
	for slots, limit := range map[int]int{251: 15, 1021: 31, 4093: 63, 16381: 127, 131071: 255} {
		p, err := New("mh", Options{Slots: slots}, 1, maglevDests(1, 255))
		if err != nil {
			t.Fatal(err)
		}
		light := 0
		for _, owner := range p.maglev.slots {
			if owner == 0 {
				light++
			}
		}
		if want := slots / (1 + limit); light < want-1 || light > want+1 {
			t.Errorf("of %d slots the light one of weights 1 and 255 has %d, want %d", slots, light, want)
		}
	}
}

func TestMaglevTableOfAnotherSizeIsNotShared(t *testing.T) {
	dests := maglevDests(1, 2, 3)
	first := maglevPlan(t, nil, dests)
	larger, err := first.Next("mh", Options{Slots: 8191}, 2, dests)
	if err != nil {
		t.Fatal(err)
	}
	if len(larger.maglev.slots) != 8191 {
		t.Errorf("%d slots, want 8191", len(larger.maglev.slots))
	}
	seeded, err := larger.Next("mh", Options{Slots: 8191, Seed: 5}, 3, dests)
	if err != nil {
		t.Fatal(err)
	}
	if seeded.maglev != larger.maglev {
		t.Error("a seed, which the table does not depend on, has it made anew")
	}
}

// maglevMany are n destinations of weight 1, each with an address of its own.
func maglevMany(n int) []Dest {
	dests := make([]Dest, n)
	load := new(Load)
	for i := range dests {
		dests[i] = Dest{Load: load, ID: uint32(i), Weight: 1, Addr: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), Port: 80}
	}
	return dests
}

func BenchmarkMaglevTable(b *testing.B) {
	for _, slots := range []int{4093, 131071} {
		for _, n := range []int{4, 1000, 4093, 65536} {
			if n > slots {
				continue
			}
			b.Run(fmt.Sprintf("slots=%d/dests=%d", slots, n), func(b *testing.B) {
				dests, size := maglevMany(n), slices.Index(mhSizes[:], slots)
				b.ReportAllocs()
				for b.Loop() {
					maglevOf(dests, size, nil)
				}
			})
		}
	}
}
