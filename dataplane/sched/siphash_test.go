package sched

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The kernel's own vectors (test_vectors_hsiphash of lib/test_siphash.c, 64 bits) for the messages 0, 1, 2, ... of 4, 6 and 18 bytes.
func TestSipHash(t *testing.T) {
	const k0, k1 = 0x0706050403020100, 0x0f0e0d0c0b0a0908
	if got := siphash13(0x03020100, k0, k1); got != 0x88d38328 {
		t.Errorf("4 bytes: %#08x, want 0x88d38328", got)
	}
	if got := secretHash(&Flow{Src: [16]byte{0, 1, 2, 3}}, 0x0504, k0, k1); got != 0xc59f22a7 {
		t.Errorf("IPv4 and a port: %#08x, want 0xc59f22a7", got)
	}
	f := Flow{V6: true, Src: [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}
	if got := secretHash(&f, 0x1110, k0, k1); got != 0xb473e63e {
		t.Errorf("IPv6 and a port: %#08x, want 0xb473e63e", got)
	}
}

// What decides is the seed, all of the address, and the port only if the flag says so. The kernel's sum is the same for many addresses.
func TestClient(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := Flow{V6: rapid.Bool().Draw(t, "v6"), SrcPort: rapid.Uint16().Draw(t, "port"), Src: [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "src"))}
		tw := twin{Options: Options{Seed: rapid.Uint64().Draw(t, "seed")}}
		p := &Plan{seed: tw.Seed}
		for _, withPort := range []bool{false, true} {
			if withPort {
				tw.Flags = MhPort
			}
			if got, want := p.client(&f, withPort), tw.client(&f, MhPort); got != want {
				t.Errorf("port %v: %#08x, the twin's %#08x", withPort, got, want)
			}
		}
	})
}

// hashing are the schedulers that hash clients.
var hashing = []string{"sh", "mh"}

// shares schedules n clients that a kernel cannot tell apart, IPv6 addresses of one /64 whose words are equal combined, and counts who gets them.
func shares(t *testing.T, name string, seed uint64, dests, n int) []int {
	t.Helper()
	p, err := New(name, Options{Seed: seed}, 1, maglevMany(dests))
	if err != nil {
		t.Fatal(err)
	}
	var s State
	counts := make([]int, dests)
	for i := range n {
		f := Flow{V6: true, Src: [16]byte{0x20, 1, 0xd, 0xb8, 8: byte(i >> 8), 9: byte(i), 12: byte(i >> 8), 13: byte(i)}}
		counts[p.Schedule(&s, &f)]++
	}
	return counts
}

// A client with a /64 that picks addresses for one server hits that one alone in the kernel. Under a seed his addresses are spread like anybody's:
// each of ten servers gets its part within five standard deviations.
func TestSeedSpreadsWhoAims(t *testing.T) {
	const dests, n = 10, 20000
	for _, name := range hashing {
		if counts := shares(t, name, 0, dests, n); slices.Max(counts) != n {
			t.Errorf("%s without a seed: %v; the addresses are meant to be one to the kernel", name, counts)
		}
		for _, seed := range []uint64{1, 2, 0xffffffffffffffff, 0x5851f42d4c957f2d} {
			counts := shares(t, name, seed, dests, n)
			for i, c := range counts {
				// Ten equals share 256 buckets by 25 or 26, mh's slots by 409 or 410.
				part := 1.0 / dests
				if name == "sh" {
					part = 25.0 / 256
					if i < 256%dests {
						part = 26.0 / 256
					}
				}
				if mean := n * part; math.Abs(float64(c)-mean) > 5*math.Sqrt(mean*(1-part)) {
					t.Errorf("%s, seed %#x: server %d gets %d of %d, want %.0f", name, seed, i, c, n, mean)
				}
			}
		}
	}
}

// Two seeds agree on a client as often as chance does, and one with itself always.
func TestSeedsDiffer(t *testing.T) {
	const dests, n = 10, 10000
	for _, name := range hashing {
		var plans [4]*Plan
		for i, seed := range []uint64{0, 1, 2, 2} {
			p, err := New(name, Options{Seed: seed}, 1, maglevMany(dests))
			if err != nil {
				t.Fatal(err)
			}
			plans[i] = p
		}
		var s State
		agree := map[string]int{}
		for i := range n {
			f := Flow{Src: [16]byte{198, 18, byte(128 + i>>8), byte(i)}}
			for a := range plans {
				for b := range a {
					if plans[a].Schedule(&s, &f) == plans[b].Schedule(&s, &f) {
						agree[fmt.Sprint(b, a)]++
					}
				}
			}
		}
		for pair, got := range agree {
			if pair == "2 3" {
				if got != n {
					t.Errorf("%s: one seed twice agrees on %d of %d clients", name, got, n)
				}
			} else if got < n/dests*8/10 || got > n/dests*12/10 {
				t.Errorf("%s: plans %s agree on %d of %d clients, want about %d", name, pair, got, n, n/dests)
			}
		}
	}
}
