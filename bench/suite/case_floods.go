package suite

import (
	"errors"
	"time"

	"weir/bench"
)

// unattacked is weir in the same rounds without the flood.
var unattacked = peer{name: "weir without a flood", start: startWeir}

const (
	floodRun  = 700 * time.Millisecond
	floodPart = 0.5 // of the most that weir forwards of these frames. With the attack that is about what the generator's CPU can send and the kernel receive on it
)

// floods measures what comes through of good frames, sent at half of the most that weir forwards, when as many again of an attack stand between them.
func (s *session) floods() error {
	attacks := []bench.Attack{bench.Fragments, bench.Errors, bench.TTL, bench.Port}
	if s.Quick {
		attacks = attacks[:2]
	}
	const size = "96" // an ICMP error is longer than 64 bytes
	var most []float64
	var failed []error
	for s.results.round = range s.runs(enoughPairs) {
		failed = append(failed, s.with(&weirNAT, 1, func(b *bed, r *running) error {
			if err := s.warm(b, r, flowsUsual); err != nil {
				return err
			}
			t, err := s.flooded(b, r, load{size: size, flows: flowsUsual, length: s.length(floodRun)})
			if err != nil {
				return err
			}
			most = append(most, t.ReceivedPPS)
			rate := floodPart * Median(most)
			for _, attack := range attacks {
				for _, p := range turn([]*peer{&weirNAT, &unattacked, &weirAgain}, s.results.round) {
					l := load{size: size, rate: rate, flows: flowsUsual, length: s.length(floodRun)}
					if p != &unattacked {
						l.rate, l.more = 2*rate, []string{"--attack", string(attack)}
					}
					t, err := s.through(b, r, l)
					if err != nil {
						return err
					}
					s.results.add("floods", string(attack), p.name, "pps", t.ReceivedPPS, r, t.command)
				}
			}
			return nil
		}))
		if s.ctx.Err() != nil {
			return s.ctx.Err()
		}
	}
	for _, attack := range attacks {
		s.results.compare("floods", string(attack), "pps", map[string]float64{unattacked.name: 0.95}, &unattacked)
	}
	return errors.Join(failed...)
}
