package chaos

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report is what a run came to.
type Report struct {
	Seed       uint64         `json:"seed"`
	Driver     string         `json:"driver"`
	Queues     int            `json:"queues"`
	DurationS  float64        `json:"duration_s"`
	Counts     map[string]int `json:"counts"`
	Events     []EventReport  `json:"events"`
	Total      int            `json:"violations_total"`
	Violations []Violation    `json:"violations"`
}

// EventReport is one kind of event. A pause is the longest silence of a connection of records that touches the event, counted from 150 ms on; zero
// is one that went on. Median and worst are over all connections that were there, in all events of the kind.
type EventReport struct {
	Kind     Kind           `json:"kind"`
	Times    int            `json:"times"`
	Streams  int            `json:"streams"`
	MedianMS float64        `json:"pause_median_ms"`
	WorstMS  float64        `json:"pause_worst_ms"`
	LongestS float64        `json:"longest_s"` // from its beginning until everything worked again
	Allowed  string         `json:"allowed"`
	Forgiven map[string]int `json:"forgiven,omitempty"`
}

// report sums the run up. Nothing runs any more.
func (s *suite) report() *Report {
	c := s.checker
	r := &Report{Seed: s.Seed, Driver: strings.TrimSuffix(s.Driver+" "+s.Mode, " "), Queues: s.Queues, DurationS: time.Since(s.journal.start).Seconds(),
		Counts: c.counts, Total: c.counts["violations"], Violations: c.violations}
	byKind := map[Kind][]*Event{}
	for _, e := range s.journal.events {
		if e.End.IsZero() {
			e.End = time.Now() // it was cut short
		}
		byKind[e.Kind] = append(byKind[e.Kind], e)
	}
	for _, k := range slices.Sorted(maps.Keys(byKind)) {
		x := EventReport{Kind: k, Times: len(byKind[k]), Allowed: allowed(k), Forgiven: c.forgiven[k]}
		var all []time.Duration
		for _, e := range byKind[k] {
			all = append(all, c.pausesIn(e)...)
			x.LongestS = max(x.LongestS, e.End.Sub(e.Begin).Seconds())
		}
		slices.Sort(all)
		if x.Streams = len(all); len(all) > 0 {
			x.MedianMS, x.WorstMS = milliseconds(all[len(all)/2]), milliseconds(all[len(all)-1])
		}
		r.Events = append(r.Events, x)
	}
	return r
}

func milliseconds(d time.Duration) float64 { return float64(d.Round(time.Millisecond).Milliseconds()) }

// allowed says in words what a kind of event allows.
func allowed(k Kind) string {
	var parts []string
	for t, s := range rules[k].allows {
		if s != 0 {
			parts = append(parts, trafficNames[t]+": "+s.String())
		}
	}
	if len(parts) == 0 {
		return "a pause"
	}
	return strings.Join(parts, "; ")
}

// OK reports whether nothing happened that must not.
func (r *Report) OK() bool { return r.Total == 0 }

// JSON is the report for programs.
func (r *Report) JSON() ([]byte, error) { return json.MarshalIndent(r, "", "  ") }

// Markdown is the report for people.
func (r *Report) Markdown() string {
	var b strings.Builder
	verdict := "no violation"
	if r.Total > 0 {
		verdict = fmt.Sprintf("%d VIOLATIONS", r.Total)
	}
	fmt.Fprintf(&b, "# Chaos: %s\n\nSeed %d, %s, %d queues, %.0f s.\n\n", verdict, r.Seed, r.Driver, r.Queues, r.DurationS)
	b.WriteString("| event | times | longest s | streams there | pause ms: median | worst | seen and allowed |\n|---|---|---|---|---|---|---|\n")
	for _, e := range r.Events {
		var seen []string
		for _, what := range slices.Sorted(maps.Keys(e.Forgiven)) {
			seen = append(seen, fmt.Sprintf("%s %d", what, e.Forgiven[what]))
		}
		fmt.Fprintf(&b, "| %s | %d | %.1f | %d | %.0f | %.0f | %s |\n", e.Kind, e.Times, e.LongestS, e.Streams, e.MedianMS, e.WorstMS, strings.Join(seen, ", "))
	}
	b.WriteString("\n")
	for _, name := range slices.Sorted(maps.Keys(r.Counts)) {
		fmt.Fprintf(&b, "- %s: %d\n", name, r.Counts[name])
	}
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "\n## %.3f s: %s\n\n```\n%s\n```\n", v.At, v.What, strings.Join(v.Timeline, "\n"))
	}
	return b.String()
}
