package control

import (
	"strconv"
	"strings"

	"weir/control/config"
	"weir/dataplane"
)

// liveRows are all services and backends as of the latest sample. Of a hundred thousand backends only numbers are read; views are made of those
// that a page shows.
type liveRows struct {
	core     *core
	now      reading
	services []liveService // of now's layout
	backends []liveBackend
	sum      Rate    // of all services
	seconds  float64 // since the sample before; 0: there is none
	of       *layout
}

// liveService is a service's row.
type liveService struct {
	config *config.Service // nil: of a configuration that went while it was read
	name   string
	text   string // what a search looks through, in lower case
	was    dataplane.Traffic
	known  bool // was is from the sample before
	from   int  // of its backends
	to     int

	rate             Rate
	active, inactive int
	states           stateCounts
}

type liveBackend struct {
	was   dataplane.Traffic
	known bool
}

// stateCounts are a service's backends by state.
type stateCounts struct {
	Up        int `json:"up"`
	SlowStart int `json:"slow_start"`
	Drain     int `json:"drain"`
	Drained   int `json:"drained"`
	Down      int `json:"down"`
}

func (s *stateCounts) count(c condition) {
	*[...]*int{&s.Up, &s.SlowStart, &s.Drain, &s.Drained, &s.Down}[c]++
}

// take reads all counters, seconds after the last time; 0 if there is nothing to compare with.
func (l *liveRows) take(seconds float64) {
	l.keep()
	l.core.read(&l.now)
	if l.of != l.now.layout {
		l.learn()
	}
	l.seconds, l.sum = seconds, Rate{}
	for i := range l.services {
		s := &l.services[i]
		s.active, s.inactive, s.states, s.rate = 0, 0, stateCounts{}, Rate{}
		if s.known {
			s.rate = rateBetween(s.was, l.now.services[i], seconds)
		}
		for j := s.from; j < s.to; j++ {
			b := &l.now.backends[j]
			s.active += int(max(0, b.active))
			s.inactive += int(max(0, b.inactive))
			s.states.count(b.condition)
		}
		l.sum = Rate{l.sum.Conns + s.rate.Conns, l.sum.InPackets + s.rate.InPackets, l.sum.InBytes + s.rate.InBytes, l.sum.OutPackets + s.rate.OutPackets, l.sum.OutBytes + s.rate.OutBytes}
	}
}

// keep remembers the counters of the sample before.
func (l *liveRows) keep() {
	for i := range l.services {
		l.services[i].was, l.services[i].known = l.now.services[i], true
	}
	for i := range l.backends {
		l.backends[i] = liveBackend{l.now.backends[i].Traffic, true}
	}
}

// learn makes rows for a configuration that is new. Counters of services and backends that were there before go on.
func (l *liveRows) learn() {
	services, backends := map[*service]dataplane.Traffic{}, map[*backend]dataplane.Traffic{}
	if l.of != nil {
		for i := range l.services {
			services[l.of.services[i].of] = l.services[i].was
		}
		for i := range l.backends {
			backends[l.of.backends[i].of] = l.backends[i].was
		}
	}
	l.of = l.now.layout
	configs := map[serviceKey]*config.Service{}
	l.core.mu.Lock() // names are control's to change
	defer l.core.mu.Unlock()
	for i := range l.core.cfg.Services { // a page of a configuration that has come meanwhile is right a second later
		for _, key := range keysOf(&l.core.cfg.Services[i]) {
			configs[key] = &l.core.cfg.Services[i]
		}
	}
	l.services, l.backends = make([]liveService, len(l.of.services)), make([]liveBackend, len(l.of.backends))
	next := 0
	for i := range l.services {
		s, row := &l.services[i], &l.of.services[i]
		s.config, s.name, s.from = configs[row.key], row.of.name, next
		s.was, s.known = services[row.of]
		var text strings.Builder
		text.WriteString(s.name + " " + protocolName(row.key.protocol) + " " + serviceAt(row.key))
		for ; next < len(l.of.backends) && int(l.of.backends[next].service) == i; next++ {
			b := l.of.backends[next].of
			text.WriteString("\n" + b.name + " " + addressOf(b.key))
			l.backends[next].was, l.backends[next].known = backends[b]
		}
		s.to, s.text = next, strings.ToLower(text.String())
	}
}

// serviceAt is where a service is: 198.18.9.9:80, [2001:db8::9]:8000-8010, 203.0.113.0/28:0, 172.16.1.100:80@5001.
func serviceAt(k serviceKey) string {
	text := VIP{k.vip}.String()
	if k.vip.Addr().Is6() {
		text = "[" + text + "]"
	}
	text += ":" + strconv.Itoa(int(k.port))
	if k.port != 0 && k.portTo != k.port {
		text += "-" + strconv.Itoa(int(k.portTo))
	}
	if k.vni != 0 {
		text += "@" + strconv.FormatUint(uint64(k.vni), 10)
	}
	return text
}

func rateBetween(was, now dataplane.Traffic, seconds float64) Rate {
	return Rate{perSecond(was.Conns, now.Conns, seconds), perSecond(was.InPackets, now.InPackets, seconds), perSecond(was.InBytes, now.InBytes, seconds),
		perSecond(was.OutPackets, now.OutPackets, seconds), perSecond(was.OutBytes, now.OutBytes, seconds)}
}
