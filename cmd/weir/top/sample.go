// Package top is the screen of weir top: tables of what a running balancer does, with rates.
//
// A [Sample] is what the daemon said at one instant. Two of them make five tables, whose cells are numbers or words; a [Model] holds what
// of these is shown, and how sorted. It changes in Update alone and asks nobody itself: samples come as messages.
package top

import (
	"time"

	"weir/control"
)

// Sample is what the daemon said at one instant.
type Sample struct {
	At      time.Time
	Status  control.Status
	Stats   control.Stats
	Workers []control.WorkerView
}

// Getter is the part of [control.Client] that is needed here.
type Getter interface {
	Get(path string, v any) error
}

// Take asks the daemon. Its error is that of the client, so [control.ErrNoDaemon] where none answers.
func Take(c Getter) (s Sample, err error) {
	if err = c.Get("/status", &s.Status); err != nil {
		return s, err
	}
	if err = c.Get("/workers", &s.Workers); err != nil {
		return s, err
	}
	err = c.Get("/stats", &s.Stats)
	s.At = time.Now() // the counters are read last: a slow answer must not make rates of the time before it
	return s, err
}

// clock turns counters of two samples into rates per second.
type clock struct{ seconds float64 }

// between is the clock of two samples. Samples of two processes, or of one instant, have no rates: 0 seconds.
func between(before, now *Sample) clock {
	if before.Status.PID != now.Status.PID || !before.Status.Started.Equal(now.Status.Started) {
		return clock{}
	}
	return clock{max(0, now.At.Sub(before.At).Seconds())}
}

// rate is what a counter rose by in a second. One that fell was set to zero in between, and what it has now came after that.
func (c clock) rate(before, now uint64) float64 {
	switch {
	case c.seconds <= 0:
		return 0
	case now < before:
		return float64(now) / c.seconds
	}
	return float64(now-before) / c.seconds
}
