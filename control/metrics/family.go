// Package metrics writes counters in Prometheus's text format, version 0.0.4.
//
// A [Family] is a metric: its name, what it means, its labels. Those with a few samples go through client_golang, which checks them
// ([Family.Desc]): a hundred thousand samples take it 0.45 s. For those with a sample or more for each server there is a [Writer], which
// writes as many in 7 ms, out of label text that is made once for each configuration ([AppendLabel]). promtool checks what comes out.
package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Kind is a family's type.
type Kind uint8

const (
	Counter Kind = iota // only grows while the daemon runs
	Gauge
)

func (k Kind) String() string {
	if k == Gauge {
		return "gauge"
	}
	return "counter"
}

// Family is one metric. Make it with NewCounter or NewGauge.
type Family struct {
	Name   string
	Help   string // one line
	Kind   Kind
	Labels []string
	desc   *prometheus.Desc
}

// NewCounter makes a family of counters.
func NewCounter(name, help string, labels ...string) *Family {
	return &Family{name, help, Counter, labels, prometheus.NewDesc(name, help, labels, nil)}
}

// NewGauge makes a family of gauges.
func NewGauge(name, help string, labels ...string) *Family {
	return &Family{name, help, Gauge, labels, prometheus.NewDesc(name, help, labels, nil)}
}

// Desc is the family for client_golang.
func (f *Family) Desc() *prometheus.Desc { return f.desc }

// Sample is one number of the family, with a value for each of its labels.
func (f *Family) Sample(value float64, labels ...string) prometheus.Metric {
	kind := prometheus.CounterValue
	if f.Kind == Gauge {
		kind = prometheus.GaugeValue
	}
	m, err := prometheus.NewConstMetric(f.desc, kind, value, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(f.desc, err)
	}
	return m
}

// Row is the family's line in a table of docs/metrics.md.
func (f *Family) Row() string {
	labels := "-"
	if len(f.Labels) > 0 {
		labels = "`" + strings.Join(f.Labels, "` `") + "`"
	}
	return "| `" + f.Name + "` | " + f.Kind.String() + " | " + labels + " | " + f.Help + " |"
}
