package suite

import (
	"errors"
	"time"
)

const (
	partialLoss = 0.005 // of PDR, the partial drop rate
	precision   = 0.03
	halfMost    = 4e6 // frames a second, where no rate was measured before
)

// throughput looks for the rate without loss (NDR, RFC 2544 section 26.1) and that with 0.5 % of it (PDR), at 64 bytes and the mix.
func (s *session) throughput() error {
	peers := s.available(&weirNAT, &bare, &pmdXDP, &nftNAT)
	sizes := []string{"64", "imix"}
	if s.Quick {
		peers, sizes = s.available(&weirNAT, &bare), []string{"64"}
	}
	var failed []error
	runs := s.runs(5)
	if s.Quick {
		runs = 1
	}
	for s.results.round = range runs {
		for _, p := range peers {
			failed = append(failed, s.with(p, 1, func(b *bed, r *running) error {
				if err := s.warm(b, r, flowsUsual); err != nil {
					return err
				}
				for _, size := range sizes {
					if err := s.searches(b, r, p, size); err != nil {
						return err
					}
				}
				return nil
			}))
		}
	}
	for _, p := range peers {
		if v := s.results.values("throughput", "PDR 64", p.name, "pps"); v != nil {
			s.pdr[p.name] = Median(v)
		}
	}
	return errors.Join(failed...)
}

func (s *session) searches(b *bed, r *running, p *peer, size string) error {
	var command string
	x := search{try: func(rate float64) (Trial, error) {
		t, err := s.through(b, r, load{size: size, rate: rate, flows: flowsUsual, length: s.length(500 * time.Millisecond)})
		if err != nil {
			return Trial{}, err
		}
		command = t.command
		return Trial{Rate: t.SentPPS, Loss: t.Loss}, nil
	}}
	most := s.rates[p.name+" "+size] * 1.2
	if most == 0 {
		most = halfMost
	}
	pdr, err := x.find(most, precision, partialLoss)
	if err != nil {
		return err
	}
	ndr, err := x.find(most, precision, 0)
	if err != nil {
		return err
	}
	pdr = max(pdr, ndr) // a stall may have spoilt the trial of a rate that went well later
	s.results.add("throughput", "PDR "+size, p.name, "pps", pdr, r, command)
	s.results.add("throughput", "NDR "+size, p.name, "pps", ndr, r, command)
	s.results.Searches = append(s.results.Searches, Searched{p.name, size, x.trials})
	return nil
}
