package control

import (
	"fmt"
	"strings"
	"time"

	"weir/control/config"
	"weir/dataplane"
)

// Outcome is what a reload came to.
type Outcome struct {
	OK          bool     `json:"ok"`
	Generation  uint64   `json:"generation"` // that runs now
	Message     string   `json:"message"`    // what changed, or why nothing did
	Changes     int      `json:"changes"`    // in force that are not in the file
	Diagnostics []string `json:"diagnostics,omitempty"`
}

// Reload loads the configuration file anew, as SIGHUP does, and tells what came of it. Changes that are not in the file are undone, or, with
// keep, made again on the new one where it has their service and backend. The error says that nothing was loaded, whatever is in the file.
func (c *Control) Reload(keep bool) (o Outcome, err error) {
	if stuck := c.do(func() { o = c.reload(keep) }); stuck != nil {
		return Outcome{}, stuck
	}
	return o, nil
}

// reload is all or nothing: whatever is wrong, the running configuration stays.
func (c *Control) reload(keep bool) (o Outcome) {
	c.notified(c.options.Manager.Reloading())
	defer func() {
		o.Generation, o.Changes = c.generation, len(c.edits)
		c.mu.Lock()
		c.last, c.lastAt = o, time.Now()
		c.reported = c.summary()
		c.notified(c.options.Manager.Ready(c.reported)) // refused or not: it is over, and the status says what came of it
		c.mu.Unlock()
		if o.OK {
			c.log.Info("reload", "kind", "reload", "changed", o.Message)
			return
		}
		for _, d := range o.Diagnostics {
			c.log.Error("reload", "kind", "reload", "diagnostic", d)
		}
		c.log.Error("reload refused, the old configuration stays", "kind", "reload", "generation", c.generation, "why", o.Message)
	}()
	var lines lineWriter
	file, err := load(c.reader.Load, c.options.Config, &lines)
	if err != nil {
		return Outcome{Message: err.Error(), Diagnostics: lines}
	}
	front, err := c.front.Prepare(frontSettings(file))
	if err != nil {
		return Outcome{Message: err.Error(), Diagnostics: lines}
	}
	defer func() { // with c.mu free: requests under way that need it are waited for
		if o.OK {
			front.Commit()
		} else {
			front.Abort()
		}
	}()
	cfg, edits, had := file, []config.Edit(nil), len(c.edits)
	if keep {
		var lost []string
		cfg, edits, lost = kept(file, c.edits)
		lines = append(lines, lost...)
	}
	o = c.swap(cfg, file, edits, lines)
	if gone := had - len(edits); o.OK && gone > 0 {
		o.Message += fmt.Sprintf(", %d %s not in the file undone", gone, plural(gone, "change", "changes"))
	}
	if o.OK && len(edits) > 0 {
		o.Message += fmt.Sprintf(", %d %s not in the file kept", len(edits), plural(len(edits), "change", "changes"))
	}
	return o
}

func plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// outside is what a change of the configuration needs of the host, and what the API shows of it.
type outside interface {
	reconfigured(*config.Config) *surroundings
	apply(x *compiled, publish func() error) error
	bind(*config.Config, *compiled) error
	views(*config.Config, *dataplane.Snapshot) []PortView
	steered() map[string]uint64
	complaints() []string
}

// swap puts cfg in force, which is file with edits made on it, or leaves everything as it is. diagnostics are what there is to say of cfg.
func (c *Control) swap(cfg, file *config.Config, edits []config.Edit, lines lineWriter) (o Outcome) {
	defer func() { o.Generation, o.Changes = c.generation, len(c.edits) }()
	if c.frozen {
		return Outcome{Message: "a successor is about to take over: ask again in a moment, then it answers", Diagnostics: lines}
	}
	diff := config.Compare(c.cfg, cfg)
	if len(diff.Refusals) > 0 {
		for _, d := range diff.Refusals {
			lines = append(lines, d.String())
		}
		return Outcome{Message: fmt.Sprintf("%s: a restart is needed to change %s", c.options.Config, strings.Join(diff.Restart, ", ")), Diagnostics: lines}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	surroundings := c.outside.reconfigured(cfg)
	x, err := c.prepare(cfg, surroundings)
	if err == nil {
		err = c.outside.apply(x, func() error { return c.publish(cfg, x, time.Now()) })
	}
	if err != nil {
		c.outside.reconfigured(c.cfg)
		c.undo()
		return Outcome{Message: err.Error(), Diagnostics: lines}
	}
	c.file, c.edits = file, edits
	if c.unsettled != nil {
		lines = append(lines, "warning: "+c.unsettled.Error())
	}
	c.tell()
	for _, r := range c.runners {
		r.Waiter.Notify()
	}
	o = Outcome{OK: true, Message: fmt.Sprintf("%s, generation %d", diff, c.generation), Diagnostics: lines}
	if err := c.outside.bind(cfg, x); err != nil {
		c.log.Error("vips", "kind", "host", "err", err)
		o.Diagnostics = append(o.Diagnostics, "warning: "+err.Error())
	}
	c.rest.take()
	return o
}

// lineWriter collects lines.
type lineWriter []string

func (l *lineWriter) Write(b []byte) (int, error) {
	*l = append(*l, string(trimNewline(b)))
	return len(b), nil
}

func trimNewline(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		return b[:n-1]
	}
	return b
}
