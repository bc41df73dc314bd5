package control

import (
	"os"
	"slices"
	"time"

	"weir/control/dashboard"
	"weir/dataplane"
	"weir/docs"
)

// sampler is what the dashboard samples: a daemon, looked at once a second while somebody watches.
type sampler struct {
	look    func() glance
	news    func(after uint64) (any, uint64)
	glance  glance
	was     glance
	took    time.Time
	seconds float64 // between was and glance; 0: there is nothing to compare with
	rows    liveRows
	version string
	history []point // the oldest first
}

// keptPoints is how much of the past a viewer is shown who comes later: five minutes.
const keptPoints = 300

// point is one second of the charts: all are events a second, but for the first and the last.
type point struct {
	At        int64   `json:"t"` // Unix milliseconds
	Received  float64 `json:"received"`
	Forwarded float64 `json:"forwarded"`
	Dropped   float64 `json:"dropped"`
	InBits    float64 `json:"in_bits"` // of services: IP packets of clients
	OutBits   float64 `json:"out_bits"`
	Conns     float64 `json:"conns"`   // opened
	Bridged   float64 `json:"bridged"` // bits of inner frames that left for a place in a segment
	Open      int     `json:"open"`    // connections in the table
}

// newLive makes a source for the dashboard of c.
func newLive(c *Control) *sampler {
	return &sampler{look: c.glance, history: []point{}, version: c.options.Version, rows: liveRows{core: c.core}, news: func(after uint64) (any, uint64) {
		all := c.events.Since(after, newsAtOnce)
		if len(all) == 0 {
			return nil, after
		}
		return all, all[len(all)-1].Seq
	}}
}

// newsAtOnce is how many events a viewer is told of at once.
const newsAtOnce = 200

// Take takes a sample. What a counter lost, because its service or device came anew, counts as nothing.
func (l *sampler) Take(now time.Time, anew bool) {
	l.was, l.glance = l.glance, l.look()
	l.seconds = now.Sub(l.took).Seconds()
	if anew || l.took.IsZero() || l.seconds <= 0 {
		l.seconds = 0
	}
	l.took = now
	l.rows.take(l.seconds)
	if l.seconds == 0 {
		return
	}
	v, was := &l.glance.stats.Verdicts, &l.was.stats.Verdicts
	p := point{At: now.UnixMilli(), Received: l.rate(was.Received, v.Received), Forwarded: l.rate(was.Forwarded, v.Forwarded), Dropped: l.rate(was.Dropped, v.Dropped),
		InBits: 8 * l.rows.sum.InBytes, OutBits: 8 * l.rows.sum.OutBytes, Conns: l.rows.sum.Conns, Open: l.glance.status.Connections}
	for _, s := range l.segments() {
		p.Bridged += 8 * s.Rate.OutBytes
	}
	if len(l.history) == keptPoints {
		l.history = append(l.history[:0], l.history[1:]...)
	}
	l.history = append(l.history, p)
}

// rate is how much a counter rose a second.
func (l *sampler) rate(was, now uint64) float64 { return perSecond(was, now, l.seconds) }

func perSecond(was, now uint64, seconds float64) float64 {
	if seconds == 0 || now < was {
		return 0
	}
	return float64(now-was) / seconds
}

// liveHello is what a viewer must know once.
type liveHello struct {
	Version string            `json:"version"`
	Host    string            `json:"host"`
	Drops   map[string]string `json:"drops"` // what each reason means
	History []point           `json:"history"`
}

// Hello is what a viewer must know once.
func (l *sampler) Hello() any {
	host, _ := os.Hostname() // it is a title, no more
	return liveHello{Version: l.version, Host: host, Drops: docs.Drops(), History: slices.Clone(l.history)}
}

// News is what was logged since.
func (l *sampler) News(after uint64) (any, uint64) { return l.news(after) }

// liveSample is what a viewer is shown each second.
type liveSample struct {
	At       int64              `json:"t"`     // Unix milliseconds
	Now      *point             `json:"now"`   // null until there is something to compare with
	Totals   dataplane.Verdicts `json:"total"` // since the start
	Status   Status             `json:"status"`
	Services servicePage        `json:"services"`
	Workers  []liveWorker       `json:"workers"`
	Ports    []livePort         `json:"ports"`
	Drops    []liveDrop         `json:"drops"` // that occurred, those that rise most first
	Segments segmentPage        `json:"segments"`
}

// View is what a viewer with q sees of the latest sample.
func (l *sampler) View(q dashboard.Query) any {
	s := liveSample{At: l.took.UnixMilli(), Totals: l.glance.stats.Verdicts, Status: l.glance.status, Services: l.rows.page(q), Workers: l.workers(), Ports: l.ports(),
		Drops: l.drops(), Segments: segmentsOf(l.segments(), q.Segments)}
	if l.seconds > 0 {
		s.Now = &l.history[len(l.history)-1]
	}
	return s
}
