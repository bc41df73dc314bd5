package sched

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestSipHash is the kernel's own vector for 4 bytes (test_vectors_hsiphash of lib/test_siphash.c, 64 bits).
func TestSipHash(t *testing.T) {
	if got := siphash13(0x03020100, 0x0706050403020100, 0x0f0e0d0c0b0a0908); got != 0x88d38328 {
		t.Errorf("%#08x, want 0x88d38328", got)
	}
}

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
	p, err := was.Next("mh", 0, 1, dests)
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

func BenchmarkMaglevTable(b *testing.B) {
	for _, n := range []int{4, 100, 1000} {
		b.Run(fmt.Sprintf("dests=%d", n), func(b *testing.B) {
			dests := make([]Dest, n)
			for i := range dests {
				dests[i] = Dest{Load: new(Load), Weight: 1, Addr: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), Port: 80}
			}
			for b.Loop() {
				maglevOf(dests, nil)
			}
		})
	}
}
