package wait

import (
	"testing"
	"time"
)

// gaps lets a worker live through n gaps of the given length, looking once a microsecond, and returns how much of each it would look
// and how many it would sleep in.
func gaps(s *spin, now *time.Time, n int, gap time.Duration) (slept int) {
	for range n {
		end, asleep := now.Add(gap), false
		for ; now.Before(end); *now = now.Add(time.Microsecond) {
			if !s.goOn(*now) {
				asleep = true
				break
			}
		}
		*now = end
		if asleep {
			slept++
		}
		s.gapEnded(end)
	}
	return slept
}

func TestSpinFollowsTheGaps(t *testing.T) {
	var s spin
	s.reset()
	now := time.Unix(0, 0)
	if slept := gaps(&s, &now, 100, 10*time.Microsecond); slept != 0 {
		t.Errorf("gaps of 10us: slept in %d of 100, want none", slept)
	}
	gaps(&s, &now, 20, time.Millisecond)
	if s.limit != 0 {
		t.Errorf("gaps of 1ms: looks for %v before it sleeps, want 0: gaps are longer than the longest look", s.limit)
	}
	gaps(&s, &now, 1, time.Hour)
	gaps(&s, &now, 30, 10*time.Microsecond)
	if slept := gaps(&s, &now, 100, 10*time.Microsecond); slept != 0 {
		t.Errorf("gaps of 10us after a long night: slept in %d of 100, want none", slept)
	}
	gaps(&s, &now, 100, 10*time.Microsecond)
	if s.limit < 10*time.Microsecond || s.limit > 40*time.Microsecond {
		t.Errorf("gaps of 10us: looks for %v, want about twice the gap", s.limit)
	}
	if s.gapEnded(now.Add(-time.Second)); s.mean < 0 || s.limit < 0 {
		t.Errorf("a clock that goes back: mean %v, limit %v", s.mean, s.limit)
	}
}

// A wakeup that takes long makes every gap that is slept in seem longer than the longest look. The worker must find out all the same.
func TestSpinIsNotFooledBySlowWakeups(t *testing.T) {
	var s spin
	s.reset()
	now := time.Unix(0, 0)
	gaps(&s, &now, 50, time.Millisecond)
	const gap, wakeup = 10 * time.Microsecond, 80 * time.Microsecond
	slept := 0
	for range 200 {
		asleep, end := false, now.Add(gap)
		for ; now.Before(end); now = now.Add(time.Microsecond) {
			if !s.goOn(now) {
				asleep = true
				break
			}
		}
		if now = end; asleep {
			slept++
			now = end.Add(wakeup)
		}
		s.gapEnded(now)
	}
	if slept > 2*probeEvery {
		t.Errorf("gaps of %v and wakeups of %v: slept in %d of 200 gaps, want a probe to end that", gap, wakeup, slept)
	}
}

// Probes are rare: what they cost is a small part of what the sleeps between them do.
func TestProbesAreRare(t *testing.T) {
	var s spin
	s.reset()
	now, looked := time.Unix(0, 0), time.Duration(0)
	gaps(&s, &now, 50, time.Millisecond)
	const n = 1000
	for range n {
		began := now
		for s.goOn(now) {
			now = now.Add(time.Microsecond)
		}
		looked += now.Sub(began)
		now = began.Add(time.Millisecond)
		s.gapEnded(now)
	}
	if most := n * spinMax / probeEvery; looked > most || looked == 0 {
		t.Errorf("looked for %v in %d gaps of a millisecond, want at most %v, and something", looked, n, most)
	}
}
