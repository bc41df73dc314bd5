package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options of a run.
type Options struct {
	Weir     string        // the binary under test
	Self     string        // a program that calls [ServeIfAsked] first
	Duration time.Duration // of the schedule; what is going on then is seen through
	Seed     uint64        // of the schedule: the same seed does the same things, at about the same times
	Driver   string        // af_xdp or af_packet; empty: af_xdp
	Mode     string        // xdp_mode; empty: auto
	Live     bool          // xdp_send: live, and far ends that take XDP frames
	Queues   int           // of each device, and workers; 0: 1
	Streams  int           // TCP connections of records for each way, at a time; 0: 4
	Flows    int           // UDP flows for each family; 0: 6
	Only     []Kind        // of events; empty: all
	Env      []string      // of weir, besides our own
	Log      io.Writer     // what is being done
}

// suite is one run.
type suite struct {
	Options
	ctx     context.Context
	abort   context.CancelCauseFunc
	bed     *bed
	weir    *daemon
	load    *load
	checker *checker
	journal *journal
	auditor *auditor
	calm    sync.RWMutex // held while the configuration is being changed; taken by an audit

	mu      sync.Mutex // of setting
	setting setting
}

// Run makes the network, starts everything, lets it go wrong for a while and tells what came of it. An error means that the run itself could not
// be done; violations are in the report.
func Run(ctx context.Context, o Options) (r *Report, err error) {
	o.Driver, o.Queues, o.Streams, o.Flows = or(o.Driver, "af_xdp"), or(o.Queues, 1), or(o.Streams, 4), or(o.Flows, 6)
	dir, err := os.MkdirTemp("", "weir-chaos-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &suite{Options: o}
	s.ctx, s.abort = context.WithCancelCause(ctx)
	defer s.abort(nil)
	s.setting = setting{driver: o.Driver, mode: o.Mode, live: o.Live, workers: o.Queues, weights: [servers]int{1, 1, 1}}
	if s.bed, err = newBed(o.Self, o.Queues, o.Live); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.bed.net.Close()) }()
	s.weir = newDaemon(s.bed.lb, o.Weir, dir, o.Env)
	if s.weir.group, err = newGroup(fmt.Sprintf("weir-chaos-%d", os.Getpid())); err != nil {
		fmt.Fprintf(o.Log, "memory is not squeezed: %v\n", err)
	} else {
		defer func() { err = errors.Join(err, s.weir.group.close()) }()
	}
	if err := otherClocks(); err != nil {
		fmt.Fprintf(o.Log, "weir's clock does not jump: %v\n", err)
	} else {
		s.weir.clocks = true
	}
	if err := s.weir.write(s.setting.text()); err != nil {
		return nil, err
	}
	if err := s.weir.start(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.weir.close()) }()
	s.begin()
	if err := s.recovered(); err != nil {
		return nil, fmt.Errorf("before anything was done: %w: %s", err, s.weir.log.String())
	}
	s.run()
	return s.report(), s.failure()
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// begin makes what judges.
func (s *suite) begin() {
	var mu sync.Mutex
	s.journal = &journal{start: time.Now(), drops: s.weir.drops, note: func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(s.Log, format+"\n", args...)
	}}
	s.checker = &checker{journal: s.journal, forgiven: map[Kind]map[string]int{}, counts: map[string]int{}}
	s.auditor = &auditor{daemon: s.weir, checker: s.checker}
	s.load = &load{client: s.bed.client, checker: s.checker}
}

// run is the schedule: two lanes and the reloads beside them, until the time is up.
func (s *suite) run() {
	traffic, rest := context.WithCancel(s.ctx)
	defer rest()
	s.load.stop = traffic
	s.load.begin(s.Seed, s.Streams, s.Flows)
	ending, end := context.WithTimeout(s.ctx, s.Duration)
	defer end()
	reloading, enough := context.WithCancel(s.ctx)
	defer enough()
	var reloads, lanes sync.WaitGroup
	reloads.Go(func() { s.reloads(reloading) })
	reloads.Go(func() { s.watch(reloading) })
	reloads.Go(func() { s.tally(reloading) })
	lanes.Go(func() { s.lane(ending, rand.New(rand.NewPCG(s.Seed, 1)), s.settings()) })
	lanes.Go(func() { s.lane(ending, rand.New(rand.NewPCG(s.Seed, 2)), s.faults()) })
	lanes.Wait()
	enough()
	reloads.Wait()
	if s.ctx.Err() == nil {
		s.quiet(nil)
	}
	rest()
	s.load.wg.Wait()
	if s.ctx.Err() == nil {
		s.leaves()
	}
}

// watch notes when the machine stands still: a tick of 20 ms that is a quarter of a second late. Who shares the processor with others loses datagrams
// that nobody took in time.
func (s *suite) watch(ctx context.Context) {
	const tick, late = 20 * time.Millisecond, 250 * time.Millisecond
	for last := time.Now(); ctx.Err() == nil; {
		time.Sleep(tick)
		now := time.Now()
		if d := now.Sub(last) - tick; d > late {
			s.journal.stall(last, now)
		}
		last = now
	}
}

// lane does one event after the other, all kinds once in an order of chance, then again.
func (s *suite) lane(ctx context.Context, r *rand.Rand, all []deed) {
	if len(all) == 0 {
		return
	}
	for {
		for _, i := range r.Perm(len(all)) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(300+r.IntN(1200)) * time.Millisecond):
			}
			all[i](r)
			if !s.weir.alive() {
				s.fatal(fmt.Errorf("weir ended by itself: %v", s.weir.cmd.ProcessState))
			}
			if s.ctx.Err() != nil {
				return
			}
		}
	}
}

// leaves stops weir, which must go well and leave nothing behind.
func (s *suite) leaves() {
	if err := s.weir.stop(); err != nil {
		s.checker.violation(nil, time.Now(), "at the end: %v: %s", err, s.weir.log.String())
		return
	}
	out, err := s.weir.space.Command(s.weir.exe, "cleanup", "--socket", s.weir.socket()).CombinedOutput()
	left := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(out)), "\n"), func(line string) bool {
		return line == "nothing to remove" || strings.HasPrefix(line, "removed connections ") // the table is for the next start
	})
	if err != nil || len(left) > 0 {
		s.checker.violation(nil, time.Now(), "after a clean stop `weir cleanup` says %q, %v", out, err)
	}
}

// fatal notes what makes it pointless to go on.
func (s *suite) fatal(err error) {
	s.checker.violation(nil, time.Now(), "%v; it last said:\n%s", err, s.weir.log.String())
	s.abort(err)
}

// failure is why the run was cut short from outside: nil if it was not. What weir did wrong is a violation instead.
func (s *suite) failure() error {
	if s.ctx.Err() == nil || len(s.checker.violations) > 0 {
		return nil
	}
	return context.Cause(s.ctx)
}
