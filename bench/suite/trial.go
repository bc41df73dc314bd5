package suite

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"weir/bench"
	"weir/control/host/testnet"
)

// load is what the generator is asked for.
type load struct {
	size    string
	rate    float64 // 0: as many as go
	flows   int
	shuffle bool
	driver  string // xdp unless it says otherwise
	length  time.Duration
	more    []string
}

// trial is one run of the generator through a peer.
type trial struct {
	*bench.Report
	cpu     cpuTimes // while it ran
	command string
}

// generate runs weir pktgen in space through what is described by target.
func (s *session) generate(space *testnet.Space, pid int, l load, target []string) (*trial, error) {
	if l.driver == "" {
		l.driver = bench.XDP
	}
	args := []string{"pktgen", "-q", "-o", "json", "--driver", l.driver, "--rx-driver", bench.XDP, "--cpus", strconv.Itoa(s.CPUs[0]),
		"--size", l.size, "--flows", strconv.Itoa(max(l.flows, 1)), "--duration", l.length.String(), "--drain", "300ms"}
	if l.rate > 0 {
		args = append(args, "--rate", strconv.FormatFloat(l.rate, 'f', 0, 64))
	}
	if l.shuffle {
		args = append(args, "--shuffle")
	}
	args = append(args, target...)
	args = append(args, l.more...)
	before, err := readCPU(pid)
	if err != nil {
		return nil, err
	}
	c := space.Command(s.Weir, args...)
	var stderr output
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("weir %s: %w: %s", strings.Join(args, " "), err, tail(stderr.String()))
	}
	after, err := readCPU(pid)
	if err != nil {
		return nil, fmt.Errorf("the peer has ended: %w", err)
	}
	t := &trial{Report: new(bench.Report), cpu: after.minus(before), command: "weir " + strings.Join(args, " ")}
	if err := json.Unmarshal(out, t.Report); err != nil {
		return nil, fmt.Errorf("weir pktgen: %w", err)
	}
	return t, s.ctx.Err()
}

// through sends a load through a running peer.
func (s *session) through(b *bed, r *running, l load) (*trial, error) {
	target := append([]string{"--tx", "g0", "--rx", "g1", "--dst-mac", macD0, "--src", clients}, r.target...)
	return s.generate(b.gen, r.pid, l, target)
}

// flooded is through with more than r can take. A peer of user space that lost nothing was not given enough, because the machine did something else: the run
// is made again, twice at most. In the kernel a peer works in the generator's own time, and loses nothing.
func (s *session) flooded(b *bed, r *running, l load) (t *trial, err error) {
	for range 3 {
		if t, err = s.through(b, r, l); err != nil || r.pid == 0 || t.Loss > 0.01 {
			break
		}
		s.logf("   again: only %s frames a second were offered", number(t.SentPPS))
	}
	return t, err
}

// with makes a bed, starts a peer on it and lets use have both.
func (s *session) with(p *peer, queues int, use func(*bed, *running) error) error {
	if err := p.missing(); err != nil {
		return err
	}
	return s.between(func() (*bed, error) { return newBed(queues) }, p, use)
}

// between is with on a bed that wire makes. What does not work is tried once more: on a machine that does much else besides, a program may not be
// ready in time.
func (s *session) between(wire func() (*bed, error), p *peer, use func(*bed, *running) error) error {
	try := func() error {
		b, err := wire()
		if err != nil {
			return err
		}
		return s.on(b, p, use)
	}
	err := try()
	if err != nil && s.ctx.Err() == nil {
		s.logf("   again: %v", err)
		err = try()
	}
	return err
}

// on starts a peer on a bed, and takes both away afterwards.
func (s *session) on(b *bed, p *peer, use func(*bed, *running) error) error {
	r, err := p.start(s, b)
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", p.name, err), b.close())
	}
	if err = use(b, r); err != nil {
		err = fmt.Errorf("%s: %w", p.name, err)
	}
	return errors.Join(err, r.stop(), b.close())
}

// available are those of peers whose programs are there; the others are told of.
func (s *session) available(peers ...*peer) (there []*peer) {
	for _, p := range peers {
		if err := p.missing(); err != nil {
			s.results.Failed = append(s.results.Failed, err.Error())
			continue
		}
		there = append(there, p)
	}
	return there
}

// turn is the order of peers in a round: each round begins with another, so that what the first of a round suffers does not fall on one alone.
func turn(peers []*peer, round int) []*peer {
	n := round % max(len(peers), 1)
	return slices.Concat(peers[n:], peers[:n])
}

// warm lets a peer see a case's flows before it is measured.
func (s *session) warm(b *bed, r *running, flows int) error {
	_, err := s.through(b, r, load{size: "64", flows: flows, length: 300 * time.Millisecond})
	return err
}
