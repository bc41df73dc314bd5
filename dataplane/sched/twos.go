package sched

import "math/bits"

// twoChoices draws two usable destinations by weight and takes the one with less overhead per weight, the first drawn of equals
// (ip_vs_twos.c). A draw is a number from 0 to the sum of the weights, both included, so that the first in the list is drawn once
// in sum+1 times more often than its weight says.
func (p *Plan) twoChoices(s *State) int {
	sum, first := uint64(0), -1
	for i := range p.dests {
		if d := &p.dests[i]; d.usable() {
			sum += uint64(d.weight)
			first = i
		}
	}
	if first < 0 {
		return -1
	}
	r1, r2 := s.draw(sum)
	second := -1
	var o1, w1, o2, w2 uint64
	for i := range p.dests {
		d := &p.dests[i]
		if !d.usable() {
			continue
		}
		w := uint64(d.weight)
		if w1 == 0 && r1 <= w {
			first, o1, w1 = i, d.load.overhead(), w
		}
		if w2 == 0 && r2 <= w {
			second, o2, w2 = i, d.load.overhead(), w
		}
		if w1 != 0 && w2 != 0 {
			break
		}
		r1, r2 = r1-min(w, r1), r2-min(w, r2)
	}
	// Either may have found nobody, when somebody has become overloaded between the two walks: then the last usable one of the
	// first walk is taken, or the only one drawn.
	if second >= 0 && (w1 == 0 || lighter(o2, w2, o1, w1)) {
		return second
	}
	return first
}

// draw returns two numbers from 0 to sum, both included. It is SplitMix64 over a counter: workers share it by one atomic addition, and one
// worker alone gets the same numbers from the same seed.
func (s *State) draw(sum uint64) (r1, r2 uint64) {
	n := s.random.Add(2 * splitStep % (1 << 64))
	return scaled(splitMix(n-splitStep), sum), scaled(splitMix(n), sum)
}

const splitStep = 0x9e3779b97f4a7c15

func splitMix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// scaled maps a random word to 0..sum. With sums below 2^42 no number is favoured by more than 2^-22.
func scaled(z, sum uint64) uint64 {
	hi, _ := bits.Mul64(z, sum+1)
	return hi
}
