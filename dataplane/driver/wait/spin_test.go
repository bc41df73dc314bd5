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
