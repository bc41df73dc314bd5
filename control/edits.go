package control

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"weir/control/config"
)

// Changes beside the file: whoever changes a backend while weir runs makes an edit of the configuration. It is compiled and put in force as a
// reload is, all or nothing, with a generation of its own; what is in force is always the file as it was loaded with the edits made on it.

// BackendEdit is a change of one backend that somebody asks for. Service and Backend are as config.FindService and FindBackend take them.
type BackendEdit struct {
	Op      config.EditOp
	Service string
	Backend string        // empty with EditAdd: its address and port are among the keys
	Keys    config.Object // of services[].backends[]
}

// ErrStuck says that control does not come to what it is asked for.
var ErrStuck = errors.New("the daemon is stopping or stuck")

// ErrLeft says that what is asked for is no matter of this process' any more.
var ErrLeft = errors.New("another process of weir has just taken over: ask again")

// do has control's goroutine do something, and waits for it.
func (c *Control) do(f func()) error {
	done := make(chan struct{})
	select {
	case c.asks <- func() { f(); close(done) }:
		<-done
		return nil
	case <-c.left:
		return ErrLeft
	case <-time.After(waitForControl):
		return ErrStuck
	}
}

// Edit changes a backend of the running configuration. The error says what is wrong with the request; what the configuration as a whole forbids
// is told in the outcome.
func (c *Control) Edit(e BackendEdit) (o Outcome, err error) {
	if stuck := c.do(func() { o, err = c.edit(e) }); stuck != nil {
		return o, stuck
	}
	return o, err
}

// Replace makes a backend be what keys say, and adds it if there is none of that address and port.
func (c *Control) Replace(service, backend string, keys config.Object) (o Outcome, err error) {
	stuck := c.do(func() {
		e := BackendEdit{config.EditReplace, service, backend, keys}
		if o, err = c.edit(e); !errors.Is(err, config.ErrNoBackend) {
			return
		}
		if e.Keys, err = withIdentity(keys, backend); err == nil {
			e.Op = config.EditAdd
			o, err = c.edit(e)
		}
	})
	if stuck != nil {
		return o, stuck
	}
	return o, err
}

// withIdentity is keys with the address and port that text names. Where both say it they must say the same.
func withIdentity(keys config.Object, text string) (config.Object, error) {
	id, err := config.ParseBackendID(text)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(keys)
	for key, v := range id {
		if was, ok := all[key]; ok && was != v {
			return nil, config.EditError{{Path: key, Message: fmt.Sprintf("is %v here, but %v is asked for", was, v)}}
		}
		all[key] = v
	}
	return all, nil
}

// BackendID are the keys that ADDRESS, ADDRESS:PORT or ADDRESS:PORT@VNI stands for.
func BackendID(text string) (map[string]any, error) { return config.ParseBackendID(text) }

func (c *Control) edit(asked BackendEdit) (o Outcome, err error) {
	e, err := c.identify(asked)
	if err != nil {
		return o, err
	}
	defer func() {
		args := []any{"op", e.Op, "service", e.Service, "backend", e.Backend, "keys", e.Keys.String(), "generation", c.generation}
		if err != nil || !o.OK {
			c.log.Error("change refused", append(args, "err", err, "why", o.Message)...)
			return
		}
		c.log.Info("change", append(args, "changed", o.Message, "not_in_file", o.Changes)...)
	}()
	edits := c.file.Fold(c.edits, e)
	next, diags, err := c.file.Edited(edits)
	if err != nil {
		return o, fmt.Errorf("%s, backend %s: %w", e.Service, e.Backend, err)
	}
	var lines lineWriter
	for _, d := range diags {
		lines = append(lines, fmt.Sprintf("warning: %s: %s", d.Path, d.Message))
	}
	return c.swap(next, c.file, edits, lines), nil
}

// identify finds what is asked for among what is in force.
func (c *Control) identify(asked BackendEdit) (e config.Edit, err error) {
	s, err := c.cfg.FindService(asked.Service)
	if err != nil {
		return e, err
	}
	e = config.Edit{Op: asked.Op, Service: s.ID(), Keys: asked.Keys}
	if e.Keys["state"] == "up" { // the word of the views
		e.Keys = maps.Clone(asked.Keys)
		e.Keys["state"] = config.States[0]
	}
	if e.Op == config.EditAdd {
		b, err := s.Parsed(e.Keys)
		if err != nil {
			return e, fmt.Errorf("%s: %w", e.Service, err)
		}
		e.Backend = b.ID()
		return e, nil
	}
	b, err := s.FindBackend(asked.Backend)
	if err != nil {
		return e, err
	}
	e.Backend = b.ID()
	return e, nil
}

// kept is what of the edits can be made on another file, and what cannot.
func kept(file *config.Config, edits []config.Edit) (cfg *config.Config, keeps []config.Edit, lost []string) {
	if cfg, _, err := file.Edited(edits); err == nil {
		return cfg, edits, nil
	}
	cfg = file
	for _, e := range edits {
		with := file.Fold(keeps, e)
		next, _, err := file.Edited(with)
		if err != nil {
			lost = append(lost, fmt.Sprintf("warning: no longer applies: %s: %v", e, err))
			continue
		}
		cfg, keeps = next, with
	}
	return cfg, keeps, lost
}

// Edits are the changes that are not in the file as it was loaded last, without secrets.
func (c *Control) Edits() []config.Edit {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := append([]config.Edit{}, c.edits...)
	for i := range all {
		all[i].Keys = all[i].Keys.Shown()
	}
	return all
}

// ConfigEdit is a change that is not in the file.
type ConfigEdit = config.Edit
