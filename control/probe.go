package control

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"weir/dataplane"
)

// beat is the last sign of life of a goroutine that nothing may stop for long: on the monotonic clock, in nanoseconds, 0 before the first.
type beat struct{ last atomic.Int64 }

func (b *beat) at(now int64) { b.last.Store(now) }

func (b *beat) now() { b.at(dataplane.Monotonic()) }

// age is the time since; of a beat that has never been, since now.
func (b *beat) age() time.Duration {
	if last := b.last.Load(); last != 0 {
		return max(0, time.Duration(dataplane.Monotonic()-last))
	}
	return 0
}

// deadAfter is how long a worker or the control loop may be away before the daemon counts as dead. Workers come by ten times a second and the
// loop twice; a reload of ten thousand services keeps it for less than one.
const deadAfter = 10 * time.Second

// probe is one thing that /livez or /readyz looks at.
type probe struct {
	name string
	err  string // empty: it is well
}

// alive looks at what only a restart cures.
func (c *Control) alive() []probe { return c.moving(deadAfter) }

// moving looks whether the control loop and each worker have moved within limit.
func (c *Control) moving(limit time.Duration) (all []probe) {
	all = append(all, c.pulse.probe("control loop", limit))
	for i := range c.ports.beats {
		all = append(all, c.ports.beats[i].probe(fmt.Sprintf("worker %d", i), limit))
	}
	return all
}

func (b *beat) probe(name string, limit time.Duration) probe {
	if age := b.age(); age > limit {
		return probe{name, fmt.Sprintf("has not moved for %v", age.Round(time.Second))}
	}
	return probe{name, ""}
}

// ready looks at what traffic needs, too: that every port is up and guarded, and that we are not about to stop.
func (c *Control) ready() []probe {
	all := c.alive()
	stopping := probe{name: "not stopping"}
	if c.stopping.Load() {
		stopping.err = "the daemon is stopping"
	}
	all = append(all, stopping)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.cfg.Ports {
		if c.ports.owner(i) == i {
			name := c.cfg.Ports[i].Name
			all = append(all, probe{"port " + name, c.ports.missing[name]})
		}
	}
	return all
}

// probed answers with 200, or 503 if a probe fails. The text names those that do; with ?verbose all.
func probed(probes func() []probe) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		all, verbose := probes(), r.URL.Query().Has("verbose")
		var text strings.Builder
		for _, p := range all {
			switch {
			case p.err != "":
				fmt.Fprintf(&text, "[-] %s: %s\n", p.name, p.err)
			case verbose:
				fmt.Fprintf(&text, "[+] %s\n", p.name)
			}
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if slices.ContainsFunc(all, func(p probe) bool { return p.err != "" }) {
			w.WriteHeader(http.StatusServiceUnavailable)
		} else {
			text.WriteString("ok\n")
		}
		_, _ = w.Write([]byte(text.String())) // the client went away
	}
}
