package suite

import (
	"fmt"
	"math"
	"slices"
)

// Median is the middle value, or the mean of the middle two; NaN of none.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// Comparison is what weir is to another peer: the median of the ratios of pairs of runs that took turns.
type Comparison struct {
	Case    string    `json:"case"`
	Peer    string    `json:"peer"` // that weir is divided by
	Ratios  []float64 `json:"ratios"`
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	Control []float64 `json:"control"` // weir divided by weir, in the same rounds
	Spread  float64   `json:"spread"`  // half the distance between the control's largest and smallest
	Target  float64   `json:"target"`  // what the median should reach; 0: none was set
	Verdict string    `json:"verdict"`
}

// enoughPairs are needed to say anything.
const enoughPairs = 7

// Compare judges the ratios of pairs of runs by those of the control, weir and weir again.
func Compare(name, peer string, pairs, control []float64, target float64) Comparison {
	c := Comparison{Case: name, Peer: peer, Ratios: pairs, Control: control, Target: target}
	if len(c.Ratios) == 0 {
		c.Verdict = "not measured"
		return c
	}
	c.Median, c.Min, c.Max = Median(c.Ratios), slices.Min(c.Ratios), slices.Max(c.Ratios)
	if len(c.Control) > 0 {
		c.Spread = (slices.Max(c.Control) - slices.Min(c.Control)) / 2
	}
	c.Verdict = c.judge()
	return c
}

// judge says what a comparison shows. Without a target the question is whether weir differs at all: whether the ratio is away from one.
func (c *Comparison) judge() string {
	if len(c.Ratios) < enoughPairs || len(c.Control) < enoughPairs {
		return fmt.Sprintf("too few pairs (%d, %d are needed)", min(len(c.Ratios), len(c.Control)), enoughPairs)
	}
	from, more, less := c.Target, "met", "missed"
	if c.Target == 0 {
		from, more, less = 1, "more", "less"
	}
	margin := c.Median - from
	switch {
	case math.Abs(margin) < c.Spread:
		return "inconclusive"
	case margin >= 0:
		return more
	}
	return less
}

// Ratios divides the runs of a by those of b in the same rounds. A round in which one of them failed has none.
func Ratios(a, b Series) []float64 { return pairs(a, b, func(x, y float64) float64 { return x / y }) }

// Differences takes the runs of b from those of a, likewise.
func Differences(a, b Series) []float64 {
	return pairs(a, b, func(x, y float64) float64 { return x - y })
}

func pairs(a, b Series, f func(x, y float64) float64) (r []float64) {
	for i, round := range a.Rounds {
		if j := slices.Index(b.Rounds, round); j >= 0 {
			if v := f(a.Values[i], b.Values[j]); !math.IsNaN(v) && !math.IsInf(v, 0) {
				r = append(r, v)
			}
		}
	}
	return r
}
