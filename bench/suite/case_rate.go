package suite

import (
	"errors"
	"fmt"
	"time"

	"weir/bench"
	"weir/control/host/testnet"
)

// flowsUsual is how many flows a load has unless flows are the question.
const flowsUsual = 1000

var sizes = []string{"64", "512", "1518", "imix"}

// ceiling measures the generator itself: what it sends into a veth pair whose other end only counts.
func (s *session) ceiling() error {
	net, err := testnet.New(bedPrefix)
	if err != nil {
		return err
	}
	defer net.Close()
	b := &bed{net: net}
	gen, err := b.space("gen")
	if err != nil {
		return err
	}
	if err := net.Veth(testnet.End{Space: gen, Name: "g0", MAC: macG0}, testnet.End{Space: gen, Name: "g1", MAC: macG1}); err != nil {
		return err
	}
	for s.results.round = range s.runs(5) {
		for _, driver := range []string{bench.XDP, bench.AFXDP} {
			for _, size := range sizes {
				if s.Quick && size != "64" && size != "imix" {
					continue
				}
				t, err := s.generate(gen, 0, load{size: size, flows: flowsUsual, driver: driver, length: s.length(time.Second)},
					append([]string{"--tx", "g0", "--rx", "g1", "--dst-mac", macG1, "--src", clients}, direct()...))
				if err != nil {
					return err
				}
				s.results.add("ceiling", size, "generator by "+driver, "pps", t.ReceivedPPS, &running{mode: t.Ports[len(t.Ports)-1].Mode}, t.command)
			}
		}
	}
	return nil
}

// rate measures what comes through each peer when more is offered than any can take, and what CPU time a frame costs. Peers take turns,
// weir twice.
func (s *session) rate() error {
	peers := s.available(&weirNAT, &weirRings, &bare, &pmdXDP, &pmdPacket, &nftNAT, &routing, &weirAgain)
	if s.Quick {
		peers = s.available(&weirNAT, &bare, &pmdXDP, &nftNAT, &weirAgain)
	}
	var failed []error
	for s.results.round = range s.runs(enoughPairs) {
		for _, p := range turn(peers, s.results.round) {
			err := s.with(p, 1, func(b *bed, r *running) error {
				if err := s.warm(b, r, flowsUsual); err != nil {
					return err
				}
				for _, size := range sizes {
					if s.Quick && size != "64" && size != "imix" {
						continue
					}
					t, err := s.flooded(b, r, load{size: size, flows: flowsUsual, length: s.length(700 * time.Millisecond)})
					if err != nil {
						return err
					}
					if t.Received == 0 {
						return fmt.Errorf("nothing came through: %s", t.command)
					}
					s.results.add("rate", size, p.name, "pps", t.ReceivedPPS, r, t.command)
					s.results.add("offered", size, p.name, "pps", t.SentPPS, r, t.command)
					s.results.add("cpu", size, p.name, "ns user/packet", t.cpu.ownUser*1e9/float64(t.Received), r, t.command)
					s.results.add("cpu", size, p.name, "ns system/packet", t.cpu.ownSystem*1e9/float64(t.Received), r, t.command)
					s.results.add("cpu", size, p.name, "ns softirq/packet", t.cpu.softirq*1e9/float64(t.Received), r, t.command)
					if r.pid != 0 {
						s.results.add("cpu", size, p.name, "% waited", t.cpu.waited*100/t.DurationS, r, t.command)
					}
				}
				return nil
			})
			if s.ctx.Err() != nil {
				return s.ctx.Err()
			}
			failed = append(failed, err)
		}
	}
	for _, p := range peers {
		for _, size := range sizes {
			if v := s.results.values("rate", size, p.name, "pps"); v != nil {
				s.rates[p.name+" "+size] = Median(v)
			}
		}
	}
	targets := map[string]float64{bare.name: 0.95, pmdXDP.name: 1.1, pmdPacket.name: 1.1}
	for _, size := range sizes {
		if size != "64" {
			targets = nil
		}
		s.results.compare("rate", size, "pps", targets, &bare, &pmdXDP, &pmdPacket, &nftNAT, &routing)
		s.results.compareOf(&weirRings, "rate", size, "pps", targets, &bare, &pmdXDP)
	}
	return errors.Join(failed...)
}
