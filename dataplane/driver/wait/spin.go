package wait

import "time"

const (
	// spinMax is the longest that an adaptive worker looks again before it sleeps. A sleep and its wakeup cost about as much of
	// a core as some 5 to 20 us of looking, and add their latency to the first packet.
	spinMax = 50 * time.Microsecond
	// gapMax bounds what one gap counts for, so that the first packets after a night bring the spinning back.
	gapMax = 4 * spinMax
	// gapWeight is the weight of the newest gap in the mean, as a shift: 1/8.
	gapWeight = 3
	// probeEvery is how many gaps a worker that does not look sleeps in before it looks for spinMax once, all the same. A gap that is slept
	// in seems longer than it is, by the wakeup; where that alone takes longer than spinMax, a worker would else never learn that packets come
	// every few microseconds. With gaps of a millisecond it costs 1.6 us each, a twentieth of a sleep with its wakeup.
	probeEvery = 32
)

// spin decides for how long an adaptive worker looks again. It follows the mean length of the gaps in which nothing arrives:
// with gaps shorter than spinMax, twice the mean is looked for, so that most gaps end without a sleep; with longer ones
// the worker sleeps at once, as looking would only burn the core that the sender or the kernel needs.
type spin struct {
	idle    bool // a gap has begun
	began   time.Time
	mean    time.Duration // of the gaps
	limit   time.Duration // how long to look; follows from mean
	look    time.Duration // the same, of this gap: a probe is longer
	slept   int           // gaps since the last probe
	probing bool          // this gap is one
	again   bool          // so is the next, as the last one ended while the worker looked
}

func (s *spin) reset() { *s = spin{mean: spinMax / 2, limit: spinMax} }

// goOn reports whether the worker should look again rather than sleep.
func (s *spin) goOn(now time.Time) bool {
	if !s.idle {
		s.idle, s.began, s.look = true, now, s.limit
		if s.limit == 0 {
			if s.slept++; s.again || s.slept > probeEvery {
				s.slept, s.probing, s.look = 0, true, spinMax
			}
		}
		return s.look > 0
	}
	return now.Sub(s.began) < s.look
}

// gapEnded learns from a gap.
func (s *spin) gapEnded(now time.Time) {
	s.idle = false
	gap := min(max(now.Sub(s.began), 0), gapMax)
	s.again, s.probing = s.probing && gap < spinMax, false
	s.mean += (gap - s.mean) >> gapWeight
	if s.mean > spinMax {
		s.limit = 0
	} else {
		s.limit = min(2*s.mean, spinMax)
	}
}
