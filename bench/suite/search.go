package suite

// Trial is one run of a search: what was offered, and what part of it was lost.
type Trial struct {
	Rate float64 `json:"rate"` // frames a second, as they were really sent
	Loss float64 `json:"loss"`
}

// search finds the highest rate at which no more than a part of the frames is lost, by bisection (RFC 2544 section 26.1: throughput, where
// the part is zero). It begins at most and ends when it knows the rate to within precision of most. Trials of earlier searches of the same
// peer are made use of: a rate counts as good if as much or more went well before.
type search struct {
	try    func(rate float64) (Trial, error)
	trials []Trial
}

func (s *search) find(most, precision, loss float64) (float64, error) {
	lo, hi := 0.0, most
	for _, t := range s.trials {
		if t.Loss <= loss && t.Rate <= most {
			lo = max(lo, t.Rate)
		}
	}
	for _, t := range s.trials {
		if t.Loss > loss && t.Rate > lo && t.Rate < hi {
			hi = t.Rate
		}
	}
	next := hi
	if len(s.trials) > 0 {
		next = (lo + hi) / 2
	}
	for hi-lo > precision*most {
		t, err := s.try(next)
		if err != nil {
			return 0, err
		}
		s.trials = append(s.trials, t)
		if t.Loss <= loss {
			if lo = max(lo, min(t.Rate, next)); next == hi { // all of it
				return lo, nil
			}
		} else {
			hi = min(hi, next)
		}
		if t.Loss <= loss && t.Rate < 0.98*next { // the generator gave no more than that
			return lo, nil
		}
		next = (lo + hi) / 2
	}
	return lo, nil
}
