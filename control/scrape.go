package control

import (
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"weir/control/metrics"
)

// scraper answers /metrics: the small families through client_golang, then those of services and backends.
type scraper struct {
	core     *core
	registry *prometheus.Registry
	log      *slog.Logger
	free     chan *scratch // as many as there may be scrapes at once
}

// scratch is the memory of one scrape.
type scratch struct {
	reading
	buf []byte
}

// scrapes is how many are served at once: one, and another that a person asks for meanwhile.
const scrapes = 2

func newScraper(c *core, log *slog.Logger, look func() glance) *scraper {
	s := &scraper{core: c, registry: newMetricsRegistry(look), log: log, free: make(chan *scratch, scrapes)}
	for range scrapes {
		s.free <- new(scratch)
	}
	return s
}

// ServeHTTP writes all metrics. They are not compressed: that would take twenty times as long as writing them, on a machine whose cores
// are for packets.
func (s *scraper) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	var m *scratch
	select {
	case m = <-s.free:
		defer func() { s.free <- m }()
	default:
		w.Header().Set("Retry-After", "1")
		writeJSON(w, http.StatusServiceUnavailable, Failure{"too many scrapes at once"})
		return
	}
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	w.Header().Set("Content-Type", string(format))
	families, err := s.registry.Gather() // what can be gathered, whatever went wrong
	if err != nil {
		s.log.Warn("metrics", "err", err)
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return // the client went away
		}
	}
	s.core.read(&m.reading)
	out := metrics.NewWriter(w, m.buf)
	m.reading.write(out)
	_ = out.Flush()
	m.buf = out.Buffer()
}
