package chaos

import (
	"bufio"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"weir/control"
	"weir/dataplane"
)

// auditor adds frames and counters up while nothing moves.
type auditor struct {
	daemon  *daemon
	checker *checker
	pid     int               // whose counters these are
	last    map[string]uint64 // that must not go back
	broken  int               // pid of a weir whose counters were found wrong for good: once is enough
}

// sum is what the verdicts come to.
func sum(v dataplane.Verdicts) uint64 {
	return v.Forwarded + v.Answered + v.Punted + v.Consumed + v.Dropped + v.Held
}

// audit waits until nothing moves any more, and looks at everything once. Whatever is wrong is a violation; an error means that it could not look.
func (a *auditor) audit() error {
	wrong := func(format string, args ...any) { a.checker.violation(nil, time.Now(), format, args...) }
	if a.broken == a.daemon.pid() {
		return nil
	}
	s, rest, err := a.settle()
	if err != nil {
		return err
	}
	if !rest {
		a.broken = a.daemon.pid()
		wrong("counters do not come to rest, or the verdicts are not the frames received: %+v", s.Verdicts)
		return nil
	}
	a.adds(&s, wrong)
	if err := a.frames(wrong); err != nil {
		return err
	}
	page, err := a.daemon.text("/metrics")
	if err != nil {
		return err
	}
	var again control.Stats
	if err := a.daemon.client.Get("/stats", &again); err != nil {
		return err
	}
	if again.Verdicts == s.Verdicts { // else a stray frame came between: another time
		compare(&s, page, wrong)
		a.checker.count("audits of metrics", 1)
	}
	a.checker.count("audits", 1)
	return nil
}

// settle waits until two looks, a moment apart, see the same, and everything received has a verdict.
func (a *auditor) settle() (s control.Stats, rest bool, err error) {
	var was dataplane.Verdicts
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		s = control.Stats{}
		if err := a.daemon.client.Get("/stats", &s); err != nil {
			return s, false, err
		}
		if s.Verdicts == was && was.Held == 0 && sum(was) == was.Received {
			return s, true, nil
		}
		was = s.Verdicts
	}
	return s, false, nil
}

// adds holds the counters against each other, and against those of the audit before.
func (a *auditor) adds(s *control.Stats, wrong func(string, ...any)) {
	var dropped, lost, received uint64
	for _, n := range s.Drops {
		dropped += n
	}
	if dropped != s.Verdicts.Dropped {
		wrong("drops by reason come to %d, the verdict says %d: %v", dropped, s.Verdicts.Dropped, s.Drops)
	}
	for _, p := range s.Ports {
		lost += p.RxLost
		received += p.Received
		if p.Invalid != 0 {
			wrong("port %s: %d invalid descriptors", p.Name, p.Invalid)
		}
	}
	if received+lost != s.Verdicts.Received+s.Passed && a.differs() {
		wrong("the ports received %d and lost %d, the workers took %d and passed %d", received, lost, s.Verdicts.Received, s.Passed)
	}
	now := map[string]uint64{"received": s.Verdicts.Received, "forwarded": s.Verdicts.Forwarded, "answered": s.Verdicts.Answered, "punted": s.Verdicts.Punted,
		"consumed": s.Verdicts.Consumed, "dropped": s.Verdicts.Dropped, "sent": s.Sent, "passed": s.Passed}
	for reason, n := range s.Drops {
		now["drop "+reason] = n
	}
	for _, p := range s.Ports {
		now["port "+p.Name+" received"], now["port "+p.Name+" sent"] = p.Received, p.Sent+p.SendLost
	}
	for i := range s.Services {
		x := &s.Services[i]
		name := fmt.Sprintf("service %s %v:%d ", x.Protocol, x.VIP, x.Port)
		now[name+"conns"], now[name+"in"], now[name+"out"] = x.Conns, x.InPackets, x.OutPackets
		var in, out uint64
		for _, b := range x.Backends {
			in, out = in+b.InPackets, out+b.OutPackets
		}
		if in > x.InPackets || out > x.OutPackets {
			wrong("%s: its servers had %d and %d packets, it had %d and %d", name, in, out, x.InPackets, x.OutPackets)
		}
	}
	if a.pid == a.daemon.pid() {
		for name, was := range a.last {
			if n, there := now[name]; there && n < was {
				wrong("counter %s goes back from %d to %d", name, was, n)
			}
		}
	}
	a.pid, a.last = a.daemon.pid(), now
}

// differs reports whether there is a difference between ports and workers whenever one looks: a look sees at one after the
// other, and a frame that comes between is in one only.
func (a *auditor) differs() bool {
	for range 3 {
		time.Sleep(200 * time.Millisecond)
		var x control.Stats
		if a.daemon.client.Get("/stats", &x) != nil {
			return false
		}
		var n uint64
		for _, p := range x.Ports {
			n += p.Received + p.RxLost
		}
		if n == x.Verdicts.Received+x.Passed {
			return false
		}
	}
	return true
}

// kept is how many chunks of a queue the kernel may keep in copy mode while nothing moves: those that it took and had no room to hand over.
const kept = 64

// frames looks where every chunk of frame memory is.
func (a *auditor) frames(wrong func(string, ...any)) error {
	var views []control.FramesView
	if err := a.daemon.client.Get("/frames", &views); err != nil {
		return err
	}
	for _, v := range views {
		if v.Missing != 0 {
			wrong("worker %d: %d of %d chunks are nowhere (negative: in two places): %+v", v.Worker, v.Missing, v.Chunks, v)
		}
		for _, q := range v.Queues {
			p := q.Places
			if p == nil {
				continue
			}
			if p.Owned != q.Held {
				wrong("worker %d, %s: the queue holds %d chunks, and %d are marked as its own", v.Worker, q.Interface, q.Held, p.Owned)
			}
			if p.Kernel < 0 || p.Kernel > kept || p.Tx != 0 {
				wrong("worker %d, %s: %d chunks are in the kernel and %d in the send ring while nothing moves: %+v", v.Worker, q.Interface, p.Kernel, p.Tx, *p)
			}
			a.checker.most("chunks kept by the kernel", p.Kernel)
		}
	}
	return nil
}

// compare holds a page of metrics against the counters of the same moment.
func compare(s *control.Stats, page string, wrong func(string, ...any)) {
	got := samples(page)
	want := map[string]uint64{
		"weir_frames_received_total":     s.Verdicts.Received,
		"weir_frames_held":               s.Verdicts.Held,
		"weir_frames_sent_besides_total": s.Sent,
		"weir_config_generation":         s.Generation,
	}
	for verdict, n := range map[string]uint64{"forwarded": s.Verdicts.Forwarded, "answered": s.Verdicts.Answered, "punted": s.Verdicts.Punted,
		"consumed": s.Verdicts.Consumed, "dropped": s.Verdicts.Dropped} {
		want[`weir_frames_total{verdict="`+verdict+`"}`] = n
	}
	for reason, n := range s.Drops {
		want[`weir_drops_total{reason="`+reason+`"}`] = n
	}
	for _, p := range s.Ports {
		want[`weir_port_rx_frames_total{port="`+p.Name+`"}`] = p.Received
		want[`weir_port_tx_frames_total{port="`+p.Name+`"}`] = p.Sent
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if n, ok := got[name]; !ok || n != float64(want[name]) {
			wrong("/metrics has %s %v (there: %v), /stats has %d", name, n, ok, want[name])
		}
	}
}

// samples reads a page in Prometheus' text format: what stands before the last blank of a line is the name with its labels.
func samples(page string) map[string]float64 {
	all := map[string]float64{}
	for lines := bufio.NewScanner(strings.NewReader(page)); lines.Scan(); {
		line := lines.Text()
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		if n, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			all[line[:i]] = n
		}
	}
	return all
}
