package suite

import (
	"errors"
	"time"

	"weir/bench"
)

// unattacked is weir in the same rounds without the flood.
var unattacked = peer{name: "weir without a flood", start: startWeir}

const floodRun = 700 * time.Millisecond

// floodScene is what stands in the way of some floods.
type floodScene struct {
	*peer
	part    float64 // good frames are sent at this part of the most that weir forwards of them
	attacks []bench.Attack
}

// floods measures what comes through of good frames, sent at a part of the most that weir forwards, when as many again of an attack stand between them.
// The part is a half: with the attack that is about what the generator's CPU can send and the kernel receive on it. Of made-up stations, whose frames
// are forwarded as others are, a quarter, as otherwise both together would be all that weir can.
func (s *session) floods() error {
	scenes := []floodScene{
		{&weirNAT, 0.5, []bench.Attack{bench.Fragments, bench.Errors, bench.TTL, bench.Port}},
		{&weirVTEP, 0.25, []bench.Attack{bench.Station}},
		{&weirRouter, 0.5, []bench.Attack{bench.Neighbor}},
	}
	if s.Quick {
		scenes = []floodScene{{&weirNAT, 0.5, []bench.Attack{bench.Fragments, bench.Errors}}}
	}
	most := make([][]float64, len(scenes))
	var failed []error
	for s.results.round = range s.runs(enoughPairs) {
		for i, x := range scenes {
			failed = append(failed, s.with(x.peer, 1, func(b *bed, r *running) error { return s.flood(b, r, x, &most[i]) }))
			if s.ctx.Err() != nil {
				return s.ctx.Err()
			}
		}
	}
	for _, x := range scenes {
		for _, attack := range x.attacks {
			s.results.compare("floods", string(attack), "pps", map[string]float64{unattacked.name: 0.95}, &unattacked)
		}
	}
	return errors.Join(failed...)
}

// flood measures a running weir with each of the scene's attacks, and without. most is what it forwarded in each round, of frames without an attack.
func (s *session) flood(b *bed, r *running, x floodScene, most *[]float64) error {
	const size = "96" // an ICMP error is longer than 64 bytes
	if err := s.warm(b, r, flowsUsual); err != nil {
		return err
	}
	t, err := s.flooded(b, r, load{size: size, flows: flowsUsual, length: s.length(floodRun)})
	if err != nil {
		return err
	}
	*most = append(*most, t.ReceivedPPS)
	rate := x.part * Median(*most)
	for _, attack := range x.attacks {
		for _, p := range turn([]*peer{&weirNAT, &unattacked, &weirAgain}, s.results.round) {
			l := load{size: size, rate: rate, flows: flowsUsual, length: s.length(floodRun)}
			part := 1.0 // of what arrives
			switch {
			case p != &unattacked:
				l.rate, l.more = 2*rate, []string{"--attack", string(attack)}
			case attack == bench.Station: // what nobody's station says is forwarded as what others say: beside as many of those, then
				l.rate, part = 2*rate, 0.5
			}
			t, err := s.through(b, r, l)
			if err != nil {
				return err
			}
			s.results.add("floods", string(attack), p.name, "pps", part*t.ReceivedPPS, r, t.command)
		}
	}
	return nil
}
