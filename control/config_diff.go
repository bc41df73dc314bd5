package control

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"weir/control/config"
)

// ConfigDiff is how what runs differs from the file as it is now: from the file (old) to what runs (new).
type ConfigDiff struct {
	File    string          `json:"file"`
	Changes []config.Change `json:"changes"`
}

// diffAge is for how long a comparison with the file is good while neither seems to have changed: reading ten thousand services takes a second, and anybody may ask.
const diffAge = time.Second

// lastDiff is the latest comparison.
type lastDiff struct {
	mu   sync.Mutex
	at   time.Time
	of   compared
	diff ConfigDiff
	err  error
}

// compared is what tells that there may be something new to compare.
type compared struct {
	generation uint64
	size       int64
	written    time.Time
}

// Diff compares what runs with the configuration file as it is now. The error has every diagnostic of a file that is not valid.
func (c *Control) Diff() (ConfigDiff, error) {
	l := &c.compared
	l.mu.Lock()
	defer l.mu.Unlock()
	var of compared
	if info, err := os.Stat(c.options.Config); err == nil {
		of.size, of.written = info.Size(), info.ModTime()
	}
	c.mu.Lock()
	of.generation = c.generation
	c.mu.Unlock()
	if !l.at.IsZero() && of == l.of && time.Since(l.at) < diffAge {
		return l.diff, l.err
	}
	l.of = of
	l.diff, l.err = c.diff()
	l.at = time.Now()
	return l.diff, l.err
}

func (c *Control) diff() (ConfigDiff, error) {
	d := ConfigDiff{File: c.options.Config}
	file, diags := config.Load(d.File)
	if config.HasErrors(diags) {
		return d, fmt.Errorf("%w:\n%w", ErrInvalid, config.Errors(diags))
	}
	c.mu.Lock()
	cfg := c.cfg
	c.mu.Unlock()
	d.Changes = config.Changes(file, cfg) // a configuration is not changed any more once it is in force
	return d, nil
}

// DiffFiles compares two files; their diagnostics go to w. The error is ErrInvalid or ErrUnreadable.
func DiffFiles(from, to string, w io.Writer) ([]config.Change, error) {
	old, err := load(config.Load, from, w)
	if err != nil {
		return nil, err
	}
	next, err := load(config.Load, to, w)
	if err != nil {
		return nil, err
	}
	return config.Changes(old, next), nil
}
