package judge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
)

// Minimize shrinks a script while it still makes a difference, and returns the shortest that was found, the kernel's recording of it, and
// what play, which judges a recording, says of it. A round plays all its candidates in one boot of the kernel.
func (k *Kernel) Minimize(ctx context.Context, s Script, r *Recording, play func(*Recording) error) (Script, *Recording, error) {
	m := &minimizer{record: k.inTemp, play: play, best: s, recording: r, why: play(r)}
	m.shrink(ctx)
	m.best.Name, m.recording.Name, m.recording.Ops = s.Name, s.Name, nil
	return m.best, m.recording, m.why
}

// inTemp records without leaving files. What cannot be played has no recording, and that is all there is to say of it.
func (k *Kernel) inTemp(ctx context.Context, scripts []Script) []*Recording {
	dir, err := os.MkdirTemp("", "weir-judge-")
	if err != nil {
		return nil
	}
	defer os.RemoveAll(dir)
	recordings, _ := k.Record(ctx, scripts, dir)
	return recordings
}

func (m *minimizer) shrink(ctx context.Context) {
	m.cut()
	for size := max(1, len(m.best.Ops)/4); ctx.Err() == nil; size /= 2 {
		m.drop(ctx, leaveOutOps(&m.best, size))
		m.drop(ctx, leaveOutRest(&m.best))
		if size == 1 {
			break
		}
	}
}

type minimizer struct {
	record func(context.Context, []Script) []*Recording
	play   func(*Recording) error

	best      Script
	recording *Recording
	why       error
}

// cut leaves out what comes after the difference.
func (m *minimizer) cut() {
	d := (*Difference)(nil)
	if !errors.As(m.why, &d) || d.Step >= len(m.recording.Ops) {
		return
	}
	at := m.recording.Ops[d.Step]
	m.best.Ops = slices.Clone(m.best.Ops[:at+1])
}

// omission is one way to shorten a script.
type omission func(*Script)

// drop plays the best script without each of these, then without all that were not missed, as far as that holds.
func (m *minimizer) drop(ctx context.Context, omissions []omission) {
	base := m.best
	var good []omission
	for _, i := range m.round(ctx, base, omissions) {
		good = append(good, omissions[i])
	}
	for n := len(good); n > 1 && ctx.Err() == nil; n /= 2 {
		together := func(s *Script) {
			for i := n - 1; i >= 0; i-- { // the last first, so that the numbers of the others hold
				good[i](s)
			}
		}
		if len(m.round(ctx, base, []omission{together})) > 0 {
			return
		}
	}
}

// round plays base with each omission and says which of them still differ; the first of them becomes the best.
func (m *minimizer) round(ctx context.Context, base Script, omissions []omission) (differ []int) {
	if len(omissions) == 0 {
		return nil
	}
	candidates := make([]Script, len(omissions))
	for i, omit := range omissions {
		candidates[i] = base
		candidates[i].Ops, candidates[i].Services = slices.Clone(base.Ops), cloneServices(base.Services)
		omit(&candidates[i])
		candidates[i].Name = fmt.Sprintf("candidate-%d", i)
	}
	recordings := m.record(ctx, candidates)
	for i := range candidates {
		at := slices.IndexFunc(recordings, func(r *Recording) bool { return r.Name == candidates[i].Name })
		if at < 0 {
			continue
		}
		if why := m.play(recordings[at]); why != nil && kind(why) == kind(m.why) {
			if len(differ) == 0 {
				m.best, m.recording, m.why = candidates[i], recordings[at], why
				m.cut()
			}
			differ = append(differ, i)
		}
	}
	return differ
}

func kind(err error) string {
	d := (*Difference)(nil)
	if errors.As(err, &d) {
		return d.Kind
	}
	return ""
}

// leaveOutOps leaves out so many operations that follow each other.
func leaveOutOps(s *Script, size int) (all []omission) {
	for from := 0; from < len(s.Ops); from += size {
		all = append(all, func(c *Script) {
			c.Ops = slices.Delete(c.Ops, from, min(from+size, len(c.Ops)))
		})
	}
	return all
}

// leaveOutRest leaves out services, backends and options.
func leaveOutRest(s *Script) (all []omission) {
	for i := range s.Services {
		if s.sharesVIP(i) {
			all = append(all, func(c *Script) {
				if i < len(c.Services) && c.sharesVIP(i) {
					c.Services = slices.Delete(c.Services, i, i+1)
				}
			})
		}
	}
	for i := range s.Services {
		for j := range s.Services[i].Backends {
			all = append(all, func(c *Script) { c.Services[i].Backends = slices.Delete(c.Services[i].Backends, j, j+1) })
		}
		if s.Services[i].Persistence != nil {
			all = append(all, func(c *Script) { c.Services[i].Persistence = nil })
		}
	}
	for key := range s.Options {
		all = append(all, func(c *Script) {
			kept := map[string]int{}
			for k, v := range c.Options {
				if k != key {
					kept[k] = v
				}
			}
			c.Options = kept
		})
	}
	if s.Timeouts != nil {
		all = append(all, func(c *Script) { c.Timeouts = nil })
	}
	if s.MTU != nil {
		all = append(all, func(c *Script) { c.MTU = nil })
	}
	return all
}

// sharesVIP reports whether another service has this one's VIP, so that it stays the balancer's own.
func (s *Script) sharesVIP(i int) bool {
	return slices.ContainsFunc(s.Services[:i], func(o Service) bool { return o.VIP == s.Services[i].VIP }) ||
		slices.ContainsFunc(s.Services[i+1:], func(o Service) bool { return o.VIP == s.Services[i].VIP })
}
