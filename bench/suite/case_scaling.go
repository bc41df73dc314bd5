package suite

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"weir/bench"
)

// flows measures 64 bytes of one flow to ten million, in random order, each having a connection before.
func (s *session) flows() error {
	counts := []int{1, 1000, 100_000, 1_000_000, 10_000_000}
	if s.Quick {
		counts = []int{1, 100_000}
	}
	var failed []error
	for _, n := range counts {
		p := weirNAT
		p.start = func(s *session, b *bed) (*running, error) {
			return startWeirWith(s, b, weirConfig(fmt.Sprint(s.CPUs[1]), max(1<<20, n+n/10), [servers]int{1, 1}))
		}
		failed = append(failed, s.with(&p, 1, func(b *bed, r *running) error {
			// Every flow once, in order, before the runs. A tenth more makes up for what is lost.
			fill := load{size: "64", flows: n, length: 90 * time.Second, more: []string{"--count", fmt.Sprint(n + n/10)}}
			if n > 1000 {
				fill.rate = max(s.part(&weirNAT, 0.7), 50e3)
			}
			if _, err := s.through(b, r, fill); err != nil {
				return err
			}
			for s.results.round = range s.runs(5) {
				t, err := s.flooded(b, r, load{size: "64", flows: n, shuffle: true, length: s.length(time.Second)})
				if err != nil {
					return err
				}
				s.results.add("flows", fmt.Sprint(n), p.name, "pps", t.ReceivedPPS, r, t.command)
				s.results.add("flows", fmt.Sprint(n), p.name, "ns user/packet", t.cpu.ownUser*1e9/float64(max(t.Received, 1)), r, t.command)
			}
			return nil
		}))
	}
	return errors.Join(failed...)
}

// workers measures one worker and two, on devices with as many queues. Live frames all take the queue of the CPU that sends them, so the
// generator is AF_XDP here, with a queue for each.
func (s *session) workers() error {
	counts := []int{1, 2}
	var failed []error
	for s.results.round = range s.runs(5) {
		for _, n := range counts {
			p := weirNAT
			p.start = func(s *session, b *bed) (*running, error) {
				return startWeirWith(s, b, weirConfig(s.cpuList(n), 1<<20, [servers]int{1, 1}))
			}
			failed = append(failed, s.with(&p, n, func(b *bed, r *running) error {
				if err := s.warm(b, r, flowsUsual); err != nil {
					return err
				}
				t, err := s.through(b, r, load{size: "64", flows: flowsUsual, driver: bench.AFXDP, length: s.length(time.Second)})
				if err != nil {
					return err
				}
				s.results.add("workers", fmt.Sprint(n), p.name, "pps", t.ReceivedPPS, r, t.command)
				return nil
			}))
		}
	}
	return errors.Join(failed...)
}

// cpuList is so many CPUs, the one of the device under test first, that of the generator last.
func (s *session) cpuList(n int) string {
	cpus := []string{fmt.Sprint(s.CPUs[1])}
	for cpu := s.results.Machine.CPUs - 1; cpu >= 0 && len(cpus) < n; cpu-- {
		if cpu != s.CPUs[0] && cpu != s.CPUs[1] {
			cpus = append(cpus, fmt.Sprint(cpu))
		}
	}
	if len(cpus) < n {
		cpus = append(cpus, fmt.Sprint(s.CPUs[0]))
	}
	return strings.Join(cpus, ",")
}
