package control

import (
	"net/http"
	"time"

	"weir/control/config"
	"weir/dataplane"
)

// Zero has the counters of the service that text names, or of all services if it is empty, shown from zero on, as ipvsadm -Z: connections opened,
// packets and bytes, of the service and of its backends. The counters themselves go on, for metrics must never go back; so do the verdicts and
// drops, whose sum is the frames received. It returns how many services those were, one for each VIP.
func (c *core) Zero(text string) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var only *config.Service
	if text != "" {
		if only, err = c.cfg.FindService(text); err != nil {
			return 0, err
		}
	}
	sums, now := map[serviceKey]dataplane.Traffic{}, time.Now()
	wanted := map[serviceKey]bool{}
	for i := range c.cfg.Services {
		if s := &c.cfg.Services[i]; only == nil || s == only {
			for _, key := range keysOf(s) {
				wanted[key] = true
			}
		}
	}
	for _, b := range c.reg.backends {
		if wanted[b.key.service] {
			b.zero = c.traffic(b)
			sums[b.key.service] = sums[b.key.service].Plus(b.zero)
		}
	}
	for key := range wanted {
		if s := c.reg.services[key]; s != nil {
			s.zero, s.zeroed = sums[key].Plus(s.retired), now
			n++
		}
	}
	return n, nil
}

// deleteConns ends the connections that a request asks for.
func (c *core) deleteConns(r *http.Request) (int, error) {
	f, err := connFilterOf(r)
	if err != nil {
		return 0, err
	}
	all, err := flagOf(r, "all")
	if err != nil {
		return 0, err
	}
	return c.DeleteConns(f, all)
}

// deleteConns is the core's, unless the connections are another process' by now: its locks are not ours.
func (c *Control) deleteConns(r *http.Request) (int, error) {
	c.cutting.RLock()
	defer c.cutting.RUnlock()
	if c.handed {
		return 0, ErrLeft
	}
	return c.core.deleteConns(r)
}
