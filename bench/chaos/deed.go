package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// deed does one event, undoes it, and waits until everything works again.
type deed func(*rand.Rand)

// wanted reports whether a kind of event is among those that are asked for.
func (s *suite) wanted(k Kind) bool {
	return len(s.Only) == 0 || slices.Contains(s.Only, k)
}

func (s *suite) pick(all map[Kind]deed, order ...Kind) (deeds []deed) {
	for _, k := range order {
		if s.wanted(k) {
			deeds = append(deeds, all[k])
		}
	}
	return deeds
}

// settings is the lane of what an operator does.
func (s *suite) settings() []deed {
	return s.pick(map[Kind]deed{Weights: s.weights, Remove: s.remove, Drain: s.drain}, Weights, Remove, Drain)
}

// faults is the lane of what happens to the box.
func (s *suite) faults() []deed {
	all := s.pick(map[Kind]deed{
		KillServer: s.killServer, StopServer: s.stopServer, Flap: s.flap, Vanish: s.vanish, Stop: s.stop, KillWeir: s.killWeir, RestartWeir: s.restartWeir, Quiet: s.quiet,
	}, KillServer, StopServer, Flap, Vanish, Stop, KillWeir, RestartWeir, Quiet)
	if s.Driver == "af_xdp" && s.wanted(Takeover) { // no other can be handed over
		all = append(all, s.takeover)
	}
	if s.weir.clocks && s.wanted(Clock) {
		all = append(all, s.clock)
	}
	if s.weir.group != nil && s.wanted(Squeeze) {
		all = append(all, s.squeeze)
	}
	if len(all) > 4 && s.wanted(Quiet) {
		all = append(all, s.quiet, s.quiet)
	}
	return all
}

func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)))
}

// reloads loads the configuration ten times a second, with more services or fewer.
func (s *suite) reloads(ctx context.Context) {
	if !s.wanted(Reload) {
		return
	}
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
		s.calm.RLock()
		s.mu.Lock()
		s.setting.spare = n % 3
		s.mu.Unlock()
		if s.weir.running.Load() {
			if err := s.reload(); err != nil {
				s.checker.violation(nil, time.Now(), "a reload: %v", err)
			}
		}
		s.calm.RUnlock()
	}
}

// reload brings what the setting says. It does nothing while weir is not there: the next one reads the file when it starts.
func (s *suite) reload() error {
	s.weir.reload.Lock()
	defer s.weir.reload.Unlock()
	s.mu.Lock()
	text := s.setting.text()
	s.mu.Unlock()
	if err := s.weir.write(text); err != nil || !s.weir.running.Load() {
		return err
	}
	o, err := s.weir.client.Reload()
	if err != nil {
		return err
	}
	if !o.OK {
		return fmt.Errorf("refused: %s %v", o.Message, o.Diagnostics)
	}
	s.checker.count("reloads", 1)
	return nil
}

// change changes the setting and brings it.
func (s *suite) change(f func(*setting)) {
	s.mu.Lock()
	f(&s.setting)
	s.mu.Unlock()
	if err := s.reload(); err != nil {
		s.checker.violation(nil, time.Now(), "a reload: %v", err)
	}
}

func (s *suite) weights(r *rand.Rand) {
	s.calm.RLock()
	defer s.calm.RUnlock()
	var w [servers]int
	for i := range w {
		w[i] = r.IntN(5)
	}
	w[r.IntN(servers)] = 2 // somebody has to
	e := s.journal.begin(Weights, 0, "%v", w)
	s.change(func(x *setting) { x.weights = w })
	s.journal.end(e)
}

// out takes a server out by one of the setting's lists for a while. The others must have weights, or nobody is left.
func (s *suite) out(r *rand.Rand, k Kind, list func(*setting) *[servers]bool) {
	s.calm.RLock()
	defer s.calm.RUnlock()
	i, d := r.IntN(servers), between(r, 500*time.Millisecond, 4*time.Second)
	e := s.journal.begin(k, i+1, "for %v", d.Round(time.Millisecond))
	s.change(func(x *setting) {
		x.weights = [servers]int{1, 2, 1}
		list(x)[i] = true
	})
	s.sleep(d)
	s.change(func(x *setting) { list(x)[i] = false })
	s.awaitRunning()
	s.journal.end(e)
}

func (s *suite) remove(r *rand.Rand) {
	s.out(r, Remove, func(x *setting) *[servers]bool { return &x.removed })
}

func (s *suite) drain(r *rand.Rand) {
	s.out(r, Drain, func(x *setting) *[servers]bool { return &x.draining })
}

// awaitRunning waits until weir runs, with the file as it is.
func (s *suite) awaitRunning() {
	for s.ctx.Err() == nil && !s.weir.running.Load() {
		s.sleep(10 * time.Millisecond)
	}
}

func (s *suite) sleep(d time.Duration) {
	select {
	case <-s.ctx.Done():
	case <-time.After(d):
	}
}

// calmFor is how long everything must have worked before an event is over: a way that works through one server may still wait for another's neighbour.
const calmFor = 300 * time.Millisecond

// over waits until everything works again, and ends the event.
func (s *suite) over(e *Event) {
	if err := s.recovered(); err != nil && s.ctx.Err() == nil {
		s.checker.violation(nil, time.Now(), "after %v: %v; weir last said:\n%s", e, err, s.weir.log.String())
	}
	s.sleep(calmFor)
	s.journal.end(e)
}

func (s *suite) killServer(r *rand.Rand) {
	i, d := r.IntN(servers), between(r, 0, 2*time.Second)
	e := s.journal.begin(KillServer, i+1, "dead for %v", d.Round(time.Millisecond))
	s.bed.killServer(i)
	s.sleep(d)
	if err := s.bed.startServer(i); err != nil {
		s.abort(fmt.Errorf("server %d: %w", i+1, err))
	}
	s.over(e)
}

func (s *suite) stopServer(r *rand.Rand) {
	i, d := r.IntN(servers), between(r, 500*time.Millisecond, 4*time.Second)
	e := s.journal.begin(StopServer, i+1, "for %v", d.Round(time.Millisecond))
	_ = s.bed.processes[i].Process.Signal(syscall.SIGSTOP)
	s.sleep(d)
	_ = s.bed.processes[i].Process.Signal(syscall.SIGCONT)
	s.over(e)
}

// device is one of the balancer's, by chance.
func device(r *rand.Rand) string { return []string{"wan", "lan"}[r.IntN(2)] }

func (s *suite) flap(r *rand.Rand) {
	dev, d, times := device(r), between(r, 10*time.Millisecond, 1500*time.Millisecond), 1
	if r.IntN(3) == 0 {
		d, times = 10*time.Millisecond, 5 // faster than anybody looks
	}
	e := s.journal.begin(Flap, 0, "%s down %d times for %v", dev, times, d.Round(time.Millisecond))
	for range times {
		if err := s.bed.lb.IP("link set " + dev + " down"); err != nil {
			s.abort(err)
		}
		s.sleep(d)
		if err := s.bed.lb.IP("link set " + dev + " up"); err != nil {
			s.abort(err)
		}
	}
	s.over(e)
}

func (s *suite) vanish(r *rand.Rand) {
	dev, d := device(r), between(r, 0, 2*time.Second)
	e := s.journal.begin(Vanish, 0, "%s for %v", dev, d.Round(time.Millisecond))
	if err := s.bed.lb.IP("link del " + dev); err != nil {
		s.abort(err)
	}
	s.sleep(d)
	if err := s.bed.device(dev); err != nil {
		s.abort(err)
	}
	s.over(e)
}

func (s *suite) stop(r *rand.Rand) {
	d := between(r, 100*time.Millisecond, 5*time.Second)
	e := s.journal.begin(Stop, 0, "for %v", d.Round(time.Millisecond))
	resume := s.weir.rest()
	_ = s.weir.cmd.Process.Signal(syscall.SIGSTOP)
	s.sleep(d)
	_ = s.weir.cmd.Process.Signal(syscall.SIGCONT)
	resume()
	s.over(e)
}

func (s *suite) killWeir(r *rand.Rand) {
	d := between(r, 0, 2*time.Second)
	e := s.journal.begin(KillWeir, 0, "dead for %v", d.Round(time.Millisecond))
	s.again(func() error { s.weir.kill(); return nil }, d)
	s.over(e)
}

func (s *suite) restartWeir(r *rand.Rand) {
	d := between(r, 0, time.Second)
	e := s.journal.begin(RestartWeir, 0, "gone for %v", d.Round(time.Millisecond))
	s.again(s.weir.stop, d)
	s.over(e)
}

func (s *suite) takeover(*rand.Rand) {
	e := s.journal.begin(Takeover, 0, "by a new process")
	resume := s.weir.rest() // a reload would be refused meanwhile
	err := s.weir.takeover()
	resume()
	if err != nil {
		s.fatal(err)
	}
	s.over(e)
}

// again ends weir and starts it d later.
func (s *suite) again(end func() error, d time.Duration) {
	resume := s.weir.rest()
	defer resume()
	if err := end(); err != nil {
		s.checker.violation(nil, time.Now(), "%v", err)
	}
	s.sleep(d)
	if err := s.weir.start(); err != nil {
		s.fatal(err)
	}
}

// What a squeezed weir may have more than it, or one before it, ever had, in bytes: a little, and the frame memory of each worker, which it may not
// have touched yet and cannot do without.
const (
	room        = 8 << 20
	frameMemory = 16384 * 2048
)

func (s *suite) squeeze(r *rand.Rand) {
	d := between(r, time.Second, 4*time.Second)
	limit, err := s.weir.group.squeeze(room + s.Queues*frameMemory)
	if err != nil {
		s.abort(fmt.Errorf("squeeze: %w", err))
		return
	}
	e := s.journal.begin(Squeeze, 0, "to %d MiB for %v", limit>>20, d.Round(time.Millisecond))
	s.sleep(d)
	if err := s.weir.group.release(); err != nil {
		s.abort(err)
	}
	s.over(e)
}

// clock kills weir and starts it where CLOCK_MONOTONIC is hours ahead of what it was, or behind: what counts on in the connection table, and what the
// steering program compares with its own clock, must not go by that.
func (s *suite) clock(r *rand.Rand) {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &up); err != nil {
		s.abort(err)
	}
	ahead := between(r, time.Hour, 720*time.Hour)
	if r.IntN(2) == 0 {
		ahead = -between(r, time.Second, max(2*time.Second, min(time.Hour, time.Duration(up.Nano())/2))) // no clock is behind zero
	}
	d := between(r, 0, time.Second)
	e := s.journal.begin(Clock, 0, "dead for %v, then its clock is %v ahead of the kernel's", d.Round(time.Millisecond), ahead.Round(time.Second))
	s.weir.ahead = ahead
	s.again(func() error { s.weir.kill(); return nil }, d)
	s.over(e)
}

// quiet lets all traffic rest and has frames and counters added up.
func (s *suite) quiet(*rand.Rand) {
	s.calm.Lock()
	defer s.calm.Unlock()
	e := s.journal.begin(Quiet, 0, "")
	s.load.gate.Lock()
	err := s.auditor.audit()
	s.load.resumed.Store(time.Now().UnixNano())
	s.load.gate.Unlock()
	if err != nil && s.ctx.Err() == nil {
		s.checker.violation(nil, time.Now(), "an audit: %v", err)
	}
	s.journal.end(e)
}

// recoverLimit is how long after an event everything may take to work again.
const recoverLimit = 30 * time.Second

// recovered waits until every way has given an answer.
func (s *suite) recovered() error {
	ctx, cancel := context.WithTimeout(s.ctx, recoverLimit)
	defer cancel()
	tries := append(slices.Clone(ways), way{"sticky", at(vip4, portStick)})
	for _, w := range tries {
		for {
			err := s.probe(ctx, "tcp", w.to)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s does not work %v later: %w", w.name, recoverLimit, err)
			}
		}
	}
	for _, vip := range []string{vip4, vip6} {
		for {
			err := s.probe(ctx, "udp", at(vip, udpPort))
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("udp to %s does not work %v later: %w", vip, recoverLimit, err)
			}
		}
	}
	return nil
}
