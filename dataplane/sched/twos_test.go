package sched

import (
	"math"
	"math/big"
	"sync"
	"testing"
)

// TestTwosDistribution compares what is chosen with what follows from all pairs of draws, counted one by one. The seed makes it the same
// every time.
func TestTwosDistribution(t *testing.T) {
	tests := []struct {
		name     string
		weights  []int
		active   []int
		overload int // index of one that is, -1: none
	}{
		{"equals without connections", []int{1, 1, 1, 1}, []int{0, 0, 0, 0}, -1},
		{"weights alone, since all are as full", []int{1, 2, 3, 4}, []int{1, 2, 3, 4}, -1},
		{"the emptier of two", []int{2, 2, 2, 2}, []int{3, 2, 1, 0}, -1},
		{"by weight", []int{10, 1, 5, 40}, []int{3, 1, 1, 100}, -1},
		{"without those of weight 0 and the overloaded", []int{3, 0, 2, 5}, []int{1, 0, 1, 1}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dests := make([]Dest, len(tt.weights))
			for i, w := range tt.weights {
				dests[i] = Dest{Load: new(Load), ID: uint32(i), Weight: int32(w)}
				for range tt.active[i] {
					dests[i].Load.Bind(true, 0, 0)
				}
			}
			if tt.overload >= 0 {
				dests[tt.overload].Load.Bind(false, 1, 0)
			}
			p, err := New("twos", Options{}, 1, dests)
			if err != nil {
				t.Fatal(err)
			}
			var lots []int
			for i, w := range tt.weights {
				for range w {
					if !dests[i].Load.Overloaded() {
						lots = append(lots, i)
					}
				}
			}
			lots = append([]int{lots[0]}, lots...) // 0 and 1 both are the first's
			ways := make([]int, len(dests))
			for _, a := range lots {
				for _, b := range lots {
					if big.NewRat(int64(tt.active[b]), int64(tt.weights[b])).Cmp(big.NewRat(int64(tt.active[a]), int64(tt.weights[a]))) < 0 {
						ways[b]++
					} else {
						ways[a]++
					}
				}
			}
			const n = 50_000
			var s State
			s.Seed(1)
			counts := make([]int, len(dests))
			for range n {
				counts[p.Schedule(&s, &Flow{})]++
			}
			for i, got := range counts {
				q := float64(ways[i]) / float64(len(lots)*len(lots))
				if want, sigma := n*q, math.Sqrt(n*q*(1-q)); math.Abs(float64(got)-want) > 3*sigma {
					t.Errorf("destination %d was chosen %d times, want %.0f ± %.0f", i, got, want, 3*sigma)
				}
			}
		})
	}
}

func TestTwosFollowsItsSeed(t *testing.T) {
	choose := func(seed uint64) (out [64]byte) {
		s := &service{t: t}
		p := s.plan("twos", "A1 B1 C1 D1")
		s.state.Seed(seed)
		copy(out[:], s.next(p, len(out)))
		return out
	}
	if a, b := choose(7), choose(7); a != b {
		t.Errorf("the same seed gave %s and %s", a, b)
	}
	if a, b := choose(7), choose(8); a == b {
		t.Errorf("seeds 7 and 8 both gave %s", a)
	}
}

// TestTwosSharesItsNumbers: workers that draw at once never draw the same, so that together they choose what one would have chosen.
func TestTwosSharesItsNumbers(t *testing.T) {
	const workers, each = 4, 5000
	count := func(workers, each int) []int {
		dests := make([]Dest, 4)
		for i := range dests {
			dests[i] = Dest{Load: new(Load), ID: uint32(i), Weight: int32(1 + i)}
		}
		p, err := New("twos", Options{}, 1, dests)
		if err != nil {
			t.Fatal(err)
		}
		var s State
		counts := make([][]int, workers)
		var all sync.WaitGroup
		for w := range workers {
			counts[w] = make([]int, len(dests))
			all.Go(func() {
				for range each {
					counts[w][p.Schedule(&s, &Flow{})]++
				}
			})
		}
		all.Wait()
		sum := make([]int, len(dests))
		for _, c := range counts {
			for i, n := range c {
				sum[i] += n
			}
		}
		return sum
	}
	together, alone := count(workers, each), count(1, workers*each)
	for i := range alone {
		if together[i] != alone[i] {
			t.Errorf("%d workers chose %v, one alone %v", workers, together, alone)
			break
		}
	}
}
