package control

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// watchdog sends the service manager a sign of life every half of the time that it waits for one, for as long as the control loop and all
// workers move. It is a goroutine of its own: the loop itself may be what is stuck. Who has not moved for deadAfter, or for half of the manager's
// patience if that is less, is dead, and the manager then ends us and starts us anew; grace covers the time between.
func (c *Control) watchdog(ctx context.Context) {
	patience := c.options.Manager.Watchdog()
	if patience == 0 {
		return
	}
	limit := min(deadAfter, patience/2)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if stuck := slices.IndexFunc(c.moving(limit), func(p probe) bool { return p.err != "" }); stuck >= 0 {
			// A moment later it may move again: who was stopped and went on (SIGSTOP, a paused machine) is not to be killed for it.
			timer.Reset(patience / 16)
			continue
		}
		if err := c.options.Manager.Alive(); err != nil {
			c.log.Warn("watchdog", "err", err)
		}
		timer.Reset(patience / 2)
	}
}

// summary is the daemon in one line, for the service manager.
func (c *Control) summary() string {
	h := c.reg.health()
	all := h.Up + h.SlowStart + h.Drain + h.Drained + h.Down
	s := fmt.Sprintf("generation %d, services %d, servers %d of %d up, workers %d", c.generation, len(c.cfg.Services), h.Up+h.SlowStart, all, len(c.runners))
	if warnings := c.outside.complaints(); len(warnings) > 0 {
		s += ", " + warnings[0]
		if more := len(warnings) - 1; more > 0 {
			s += fmt.Sprintf(" and %d more warnings", more)
		}
	}
	if !c.last.OK && !c.lastAt.IsZero() {
		s += ", last reload refused: " + c.last.Message
	}
	return s
}

// report tells the service manager how it stands, if that has changed. c.mu is held.
func (c *Control) report() {
	if !c.options.Manager.Present() {
		return
	}
	if now := c.summary(); now != c.reported {
		c.reported = now
		c.notified(c.options.Manager.Status(now))
	}
}

// notified logs that the service manager could not be told something. It is no reason to do anything else.
func (c *Control) notified(err error) {
	if err != nil {
		c.log.Warn("service manager", "err", err)
	}
}
