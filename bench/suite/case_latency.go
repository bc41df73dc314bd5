package suite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"weir/bench"
)

// load is the rate that is a part of a peer's own PDR, or of what came through it.
func (s *session) part(p *peer, part float64) float64 {
	if v := s.pdr[p.name]; v > 0 {
		return v * part
	}
	if v := s.rates[p.name+" 64"]; v > 0 {
		return v * 0.8 * part
	}
	return 100e3 * part
}

// latency measures how late frames of 64 bytes are at three loads.
func (s *session) latency() error {
	peers := s.available(&weirNAT, &bare, &pmdXDP, &nftNAT)
	if s.Quick {
		peers = s.available(&weirNAT, &bare)
	}
	parts := []float64{0.1, 0.5, 0.9}
	type key struct {
		peer string
		part float64
	}
	found, commands := map[key][]*bench.Latency{}, map[key]string{}
	var failed []error
	for s.results.round = range s.runs(5) {
		for _, p := range peers {
			failed = append(failed, s.with(p, 1, func(b *bed, r *running) error {
				if err := s.warm(b, r, flowsUsual); err != nil {
					return err
				}
				for _, part := range parts {
					t, err := s.through(b, r, load{size: "64", rate: s.part(p, part), flows: flowsUsual, length: s.length(time.Second)})
					if err != nil {
						return err
					}
					if t.Latency != nil {
						found[key{p.name, part}] = append(found[key{p.name, part}], t.Latency)
						commands[key{p.name, part}] = t.command
					}
				}
				return nil
			}))
		}
	}
	for _, p := range peers {
		for _, part := range parts {
			if runs := found[key{p.name, part}]; len(runs) > 0 {
				s.results.latency(p.name, part, s.part(p, part), runs, commands[key{p.name, part}])
			}
		}
	}
	return errors.Join(failed...)
}

// overload offers 110 % and 200 % of a peer's PDR. What comes through should stay.
func (s *session) overload() error {
	peers := s.available(&weirNAT, &bare, &nftNAT)
	if s.Quick {
		peers = s.available(&weirNAT)
	}
	var failed []error
	for s.results.round = range s.runs(5) {
		for _, p := range peers {
			failed = append(failed, s.with(p, 1, func(b *bed, r *running) error {
				if err := s.warm(b, r, flowsUsual); err != nil {
					return err
				}
				for _, part := range []float64{1, 1.1, 2} {
					t, err := s.through(b, r, load{size: "64", rate: s.part(p, part), flows: flowsUsual, length: s.length(time.Second)})
					if err != nil {
						return err
					}
					s.results.add("overload", fmt.Sprintf("%.0f %% of PDR", part*100), p.name, "pps", t.ReceivedPPS, r, t.command)
				}
				return nil
			}))
		}
	}
	return errors.Join(failed...)
}

// reload changes the servers' weights five times a second at half load. Without it, the same is measured for comparison.
func (s *session) reload() error {
	length := s.length(2 * time.Second)
	rate := s.part(&weirNAT, 0.5)
	var failed []error
	for s.results.round = range s.runs(5) {
		failed = append(failed, s.with(&weirNAT, 1, func(b *bed, r *running) error {
			if err := s.warm(b, r, flowsUsual); err != nil {
				return err
			}
			for _, reloads := range []bool{false, true} {
				name := "half load"
				stop, done := make(chan struct{}), make(chan error, 1)
				if reloads {
					name = "half load, 5 reloads/s"
					go func() { done <- s.reloads(b, stop) }()
				}
				t, err := s.through(b, r, load{size: "64", rate: rate, flows: flowsUsual, length: length})
				close(stop)
				if reloads {
					err = errors.Join(err, <-done)
				}
				if err != nil {
					return err
				}
				s.results.add("reload", name, weirNAT.name, "frames lost", float64(max(t.Lost, 0)), r, t.command)
				if t.Latency != nil {
					s.results.add("reload", name, weirNAT.name, "us p99.9", float64(t.Latency.P999)/1e3, r, t.command)
					s.results.add("reload", name, weirNAT.name, "us max", float64(t.Latency.Max)/1e3, r, t.command)
				}
			}
			return nil
		}))
	}
	return errors.Join(failed...)
}

// reloads reloads the daemon with other weights until stop is closed.
func (s *session) reloads(b *bed, stop <-chan struct{}) error {
	file, socket := filepath.Join(s.dir, "weir.yaml"), filepath.Join(s.dir, "weir.sock")
	for i := 1; ; i++ {
		select {
		case <-stop:
			return nil
		case <-time.After(200 * time.Millisecond):
		}
		config := weirConfig(fmt.Sprint(s.CPUs[1]), 1<<20, [servers]int{1 + i%2, 1})
		if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
			return err
		}
		if err := quietly(b.dut, "", s.Weir, "reload", "--socket", socket); err != nil {
			return err
		}
	}
}
