package route

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// entry is a route with hops of the given weights; the hop's port is its place.
func entry(kind Kind, weights ...int) *Entry {
	var hops []Hop
	for i, w := range weights {
		hops = append(hops, Hop{Port: i, Weight: w})
	}
	return NewTable([]Route{{To: netip.MustParsePrefix("198.18.0.0/15"), Kind: kind, Hops: hops}}).Lookup4(0xc6120001)
}

func TestHopsShareByWeight(t *testing.T) {
	const flows = 100_000
	hashes := map[string]func(i int) uint64{
		"random":     func(int) uint64 { return rand.Uint64() },
		"32 bits":    func(int) uint64 { return uint64(rand.Uint32()) },
		"sequential": func(i int) uint64 { return uint64(i) },
	}
	for _, weights := range [][]int{{1}, {1, 1}, {1, 1, 1}, {3, 1}, {1, 3}, {10, 20, 70}, {0, 1, -5}, {1, 1, 1, 1, 1, 1, 1, 1}, {70000, 65535}} {
		for name, hash := range hashes {
			t.Run(fmt.Sprintf("%v %s", weights, name), func(t *testing.T) {
				e := entry(Unicast, weights...)
				got := make([]int, len(weights))
				for i := range flows {
					got[e.Hop(hash(i)).Port]++
				}
				total := 0
				for _, w := range weights {
					total += min(max(w, 1), 65535)
				}
				for i, w := range weights {
					want := flows * float64(min(max(w, 1), 65535)) / float64(total)
					if math.Abs(float64(got[i])-want) > 0.02*flows {
						t.Errorf("hop %d of weight %d got %d of %d flows, want %.0f", i, w, got[i], flows, want)
					}
				}
			})
		}
	}
}

// TestFewFlowsMove compares with RFC 2992's own analysis: of n hops to n+1 at the end, a half of the flows move, no more.
func TestFewFlowsMove(t *testing.T) {
	for n := 1; n <= 8; n++ {
		weights := make([]int, n+1)
		few, more := entry(Unicast, weights[:n]...), entry(Unicast, weights...)
		moved := 0
		const flows = 50_000
		for range flows {
			h := rand.Uint64()
			a, b := few.Hop(h), more.Hop(h)
			if a != few.Hop(h) {
				t.Fatal("the same hash has another hop now")
			}
			if a.Port != b.Port {
				moved++
			}
		}
		if share := float64(moved) / flows; share > 0.52 {
			t.Errorf("from %d hops to %d, %.0f%% of the flows move", n, n+1, 100*share)
		}
	}
}

func TestNoHop(t *testing.T) {
	for kind := Local; kind <= Prohibit; kind++ {
		if h := entry(kind, 1, 1).Hop(1); h != nil {
			t.Errorf("a route of kind %v has a hop: %+v", kind, *h)
		}
	}
	if h := entry(Unicast).Hop(1); h != nil {
		t.Errorf("a route without hops has one: %+v", *h)
	}
}

// TestEveryHashHasAHop tries the bounds themselves.
func TestEveryHashHasAHop(t *testing.T) {
	for _, weights := range [][]int{{1, 1, 1}, {65535, 1}, {1, 65535, 1}} {
		e := entry(Unicast, weights...)
		if got := e.bounds[len(weights)-1]; got != 1<<31-1 {
			t.Errorf("weights %v: the last bound is %#x, want %#x", weights, got, 1<<31-1)
		}
		for i := 1; i < len(weights); i++ {
			if e.bounds[i] <= e.bounds[i-1] {
				t.Errorf("weights %v: bounds %#x do not rise", weights, e.bounds)
			}
		}
	}
}

// TestBoundBelongsToItsHop: the highest value of a range is still the hop's, the next one is the next hop's, as in fib_select_multipath.
func TestBoundBelongsToItsHop(t *testing.T) {
	inverse := uint64(1) // of the multiplier, modulo 2^64, by Newton's method
	for range 6 {
		inverse *= 2 - 0x9e3779b97f4a7c15*inverse
	}
	e := entry(Unicast, 2, 1, 5)
	for i, bound := range e.bounds {
		if got := e.Hop((uint64(bound) << 33) * inverse).Port; got != i {
			t.Errorf("the highest value of hop %d goes to hop %d", i, got)
		}
		if i+1 < len(e.bounds) {
			if got := e.Hop((uint64(bound+1) << 33) * inverse).Port; got != i+1 {
				t.Errorf("the value behind hop %d goes to hop %d, want the next", i, got)
			}
		}
	}
}

func TestTableKeepsItsOwnHops(t *testing.T) {
	hops := []Hop{{Port: 1, MTU: 1400, Via: netip.MustParseAddr("198.18.0.2")}}
	table := NewTable([]Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Hops: hops}})
	hops[0].Port = 9
	if h := table.Lookup4(1).Hop(0); h.Port != 1 || h.MTU != 1400 || h.Via != hops[0].Via {
		t.Errorf("hop %+v after the caller has changed its slice", *h)
	}
}
