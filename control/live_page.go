package control

import (
	"cmp"
	"slices"
	"strings"

	"weir/control/dashboard"
)

// servicePage is the services that a query asks for.
type servicePage struct {
	Total  int            `json:"total"`
	Found  int            `json:"found"`
	Offset int            `json:"offset"` // of the first row; less than was asked for if there are fewer
	Rows   []shownService `json:"rows"`
}

// shownService is a service as a page has it.
type shownService struct {
	ID string `json:"id"` // what tells it from all others
	At string `json:"at"`
	ServiceView
	Rate     Rate           `json:"rate"`
	Active   int            `json:"active"` // of all its backends
	Inactive int            `json:"inactive"`
	States   stateCounts    `json:"states"`
	Backends []shownBackend `json:"backends"`
	More     int            `json:"more,omitempty"` // backends that are not shown
}

// shownBackend is a backend as a page has it.
type shownBackend struct {
	At string `json:"at"`
	BackendView
	Rate Rate `json:"rate"`
}

// shownBackends is how many backends of a service are shown: those that are not up first if there are more. With a hundred services on a
// page that is a megabyte a second at most, for who asks for it.
const shownBackends = 32

// page is what q asks for.
func (l *liveRows) page(q dashboard.Query) servicePage {
	rows := l.search(q)
	p := servicePage{Total: len(l.services), Found: len(rows), Rows: []shownService{}}
	if q.Offset < len(rows) {
		p.Offset = q.Offset
	} else if len(rows) > 0 { // the last page
		p.Offset = (len(rows) - 1) / q.Limit * q.Limit
	}
	l.core.mu.Lock()
	defer l.core.mu.Unlock()
	for _, i := range rows[p.Offset:min(len(rows), p.Offset+q.Limit)] {
		if l.services[i].config != nil {
			p.Rows = append(p.Rows, l.shown(i))
		}
	}
	return p
}

// search finds the rows that q asks for, in its order.
func (l *liveRows) search(q dashboard.Query) []int {
	rows, search := make([]int, 0, len(l.services)), strings.ToLower(strings.TrimSpace(q.Search))
	for i := range l.services {
		s := &l.services[i]
		switch {
		case search != "" && !strings.Contains(s.text, search):
		case q.Only == "trouble" && s.states.Up == s.to-s.from && s.to > s.from:
		case q.Only == "traffic" && s.rate.InPackets+s.rate.OutPackets == 0:
		default:
			rows = append(rows, i)
		}
	}
	number := func(of func(s *liveService) float64) { // the largest first; equals stay in the configuration's order
		slices.SortStableFunc(rows, func(a, b int) int { return cmp.Compare(of(&l.services[b]), of(&l.services[a])) })
	}
	switch q.Sort {
	case "name":
		slices.SortStableFunc(rows, func(a, b int) int { return strings.Compare(l.services[a].name, l.services[b].name) })
	case "conns":
		number(func(s *liveService) float64 { return s.rate.Conns })
	case "active":
		number(func(s *liveService) float64 { return float64(s.active) })
	case "packets":
		number(func(s *liveService) float64 { return s.rate.InPackets + s.rate.OutPackets })
	case "bits":
		number(func(s *liveService) float64 { return s.rate.InBytes + s.rate.OutBytes })
	case "down":
		number(func(s *liveService) float64 { return float64(s.states.Down + s.states.Drained) })
	}
	if q.Reverse {
		slices.Reverse(rows)
	}
	return rows
}

// shown is the service of row i. core.mu is held.
func (l *liveRows) shown(i int) shownService {
	s, row := &l.services[i], &l.of.services[i]
	v := shownService{ID: protocolName(row.key.protocol) + " " + serviceAt(row.key), At: serviceAt(row.key), ServiceView: serviceView(s.config, row.key), Rate: s.rate,
		Active: s.active, Inactive: s.inactive, States: s.states, Backends: []shownBackend{}}
	v.Traffic = l.now.services[i]
	views := map[string]*BackendView{}
	for j := range v.ServiceView.Backends {
		b := &v.ServiceView.Backends[j]
		views[addressOf(backendKey{row.key, b.Address, b.Port, b.VNI})] = b
	}
	configs := map[string]configured{}
	for x := range backendsOf(s.config, row.key) {
		configs[addressOf(x.key)] = x
	}
	for _, j := range l.some(s) {
		b, counted := l.of.backends[j].of, &l.now.backends[j]
		at := addressOf(b.key)
		view, there := views[at]
		if !there {
			continue
		}
		x := shownBackend{At: at, BackendView: *view}
		x.Traffic = counted.Traffic
		x.Active, x.Inactive, x.Persistent = int(max(0, counted.active)), int(max(0, counted.inactive)), int(max(0, counted.persistent))
		l.core.reg.condition(&x.BackendView, b, configs[at].config)
		if l.backends[j].known {
			x.Rate = rateBetween(l.backends[j].was, counted.Traffic, l.seconds)
		}
		v.Backends = append(v.Backends, x)
	}
	v.More = s.to - s.from - len(v.Backends)
	return v
}

// some are the rows of those backends of s that are shown, in the configuration's order.
func (l *liveRows) some(s *liveService) (rows []int) {
	for j := s.from; j < s.to; j++ {
		rows = append(rows, j)
	}
	if len(rows) <= shownBackends {
		return rows
	}
	slices.SortStableFunc(rows, func(a, b int) int {
		return cmp.Compare(rank(l.now.backends[a].condition), rank(l.now.backends[b].condition))
	})
	rows = rows[:shownBackends]
	slices.Sort(rows)
	return rows
}

// rank orders states by how much they need to be seen.
func rank(c condition) int {
	return [...]int{up: 4, slowStart: 2, drain: 3, drained: 1, down: 0}[c]
}
