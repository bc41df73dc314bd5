package control

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"weir/control/events"
)

// keptEvents is how many of the latest events a daemon remembers: 4 MiB if each is as long as may be, a few hundred KiB in practice.
const keptEvents = 1024

// longestWait is how long a request may wait for an event: shorter than an answer may take (package admin).
const longestWait = time.Minute

// eventFilter is which events somebody asks for.
type eventFilter struct {
	after uint64 // number
	limit int    // 0: all that are kept
	wait  time.Duration
	kind  string // empty: any
	level string // least severe; empty: any
}

// eventLevels in ascending order.
var eventLevels = []string{"info", "warn", "error"}

func eventFilterOf(r *http.Request) (f eventFilter, err error) {
	f.kind, f.level = r.FormValue("kind"), r.FormValue("level")
	if f.level != "" && !slices.Contains(eventLevels, f.level) {
		return f, fmt.Errorf("level %q: must be info, warn or error", f.level)
	}
	if s := r.FormValue("after"); s != "" {
		if f.after, err = strconv.ParseUint(s, 10, 64); err != nil {
			return f, fmt.Errorf("after %q: must be the number of an event", s)
		}
	}
	if s := r.FormValue("limit"); s != "" {
		if f.limit, err = strconv.Atoi(s); err != nil || f.limit < 0 {
			return f, fmt.Errorf("limit %q: must be a number, 0: all", s)
		}
	}
	if s := r.FormValue("wait"); s != "" {
		if f.wait, err = time.ParseDuration(s); err != nil || f.wait < 0 || f.wait > longestWait {
			return f, fmt.Errorf("wait %q: must be a duration of 0s to %v", s, longestWait)
		}
	}
	return f, nil
}

func (f *eventFilter) of(all []events.Event) []events.Event {
	least := slices.Index(eventLevels, f.level)
	all = slices.DeleteFunc(all, func(e events.Event) bool {
		return f.kind != "" && e.Kind != f.kind || slices.Index(eventLevels, e.Level) < least
	})
	if f.limit > 0 && len(all) > f.limit {
		all = all[len(all)-f.limit:]
	}
	return all
}

// serveEvents answers with events, the oldest first. With wait it waits for the first one if there is none yet.
func (c *Control) serveEvents(r *http.Request) (any, error) {
	f, err := eventFilterOf(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), f.wait)
	defer cancel()
	if f.after > c.events.Last() {
		f.after = 0 // of a daemon before
	}
	for after := f.after; ; {
		all := c.events.Since(f.after, 0)
		if len(all) > 0 {
			after = all[len(all)-1].Seq
		}
		if all = f.of(all); len(all) > 0 || ctx.Err() != nil {
			return all, nil
		}
		c.events.Wait(ctx, after)
	}
}
