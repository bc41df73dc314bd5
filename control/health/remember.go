package health

import (
	"net/netip"
	"time"
)

// Known is what a Monitor has found out about a target, for one in another process.
type Known struct {
	Kind   Kind           `json:"kind"`
	Target netip.AddrPort `json:"target"`
	Up     bool           `json:"up"`
	Since  time.Time      `json:"since"`
	Why    string         `json:"why,omitempty"`
}

// Known are the targets that have answered, or failed to. Of one that is asked in several ways with different answers nothing is said.
func (m *Monitor) Known() (all []Known) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := map[kin]int{}
	split := map[kin]bool{}
	for c, t := range m.targets {
		if !t.state.Answered() {
			continue
		}
		k := c.kin()
		if i, ok := at[k]; ok {
			split[k] = split[k] || all[i].Up != t.state.Up
			continue
		}
		at[k] = len(all)
		all = append(all, Known{c.Kind, c.Target, t.state.Up, t.state.Since, t.state.Why})
	}
	kept := all[:0]
	for _, x := range all {
		if !split[kin{x.Kind, x.Target}] {
			kept = append(kept, x)
		}
	}
	return kept
}

// Remember has checks begin in the state that another process knew, from which it takes them as many answers as from one that they found themselves. It is called before the first checks are given.
func (m *Monitor) Remember(all []Known) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.newsTo = time.Now().Add(time.Minute)
	m.before = make(map[kin]State, len(all))
	for _, x := range all {
		m.before[kin{x.Kind, x.Target}] = State{Up: x.Up, Since: x.Since, Why: x.Why, inherited: true}
	}
}
