// Package suite measures weir beside others that forward packets: a bare forwarder over the same AF_XDP driver, DPDK's testpmd, the kernel as
// router, as NAT and as VTEP, HAProxy and nginx.
//
//	Bed      namespaces and veth pairs: generator -- device under test -- receiver; every peer gets the same wiring, made anew
//	peer     one that forwards, and how it is started
//	section  a question: how many packets, how many connections, how late, how much CPU
//	Series   the runs of one peer in one case; Compare turns two of them, measured in turns, into a ratio
//	Results  everything, as JSON, as Markdown and as plots
//
// A number by itself says more about the machine than about a peer; ratios of runs that took turns in one session say something. Where a
// peer that is measured against itself does not come out at one, within the margin that matters, the answer is "inconclusive".
package suite

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"
)

// Options of a session.
type Options struct {
	Weir  string         // the binary that is measured, and that generates
	Self  string         // this program, which has the bare forwarder
	Quick bool           // under three minutes: fewer runs, peers and sizes, too few to compare
	Only  *regexp.Regexp // sections by name; nil: all
	Log   io.Writer      // what is being done
	CPUs  [2]int         // of the generator and of the device under test
}

// session is what sections have in common.
type session struct {
	Options
	ctx     context.Context
	dir     string
	results *Results
	pdr     map[string]float64 // by peer, frames a second of 64 bytes
	rates   map[string]float64 // by peer and size, medians
}

// section is one part of the suite. Sections run in order; later ones use what earlier ones found.
type section struct {
	name string
	run  func(*session) error
}

var sections = []section{
	{"ceiling", (*session).ceiling},
	{"rate", (*session).rate},
	{"throughput", (*session).throughput},
	{"latency", (*session).latency},
	{"overload", (*session).overload},
	{"reload", (*session).reload},
	{"floods", (*session).floods},
	{"flows", (*session).flows},
	{"workers", (*session).workers},
	{"connections", (*session).connections},
	{"stream", (*session).stream},
	{"overlay", (*session).overlay},
}

// Names of the sections, in order.
func Names() (names []string) {
	for _, s := range sections {
		names = append(names, s.name)
	}
	return names
}

// budget is how long after its beginning a session begins another section. What is left out then is named in the report.
func (o *Options) budget() time.Duration {
	if o.Quick {
		return 150 * time.Second
	}
	return 27 * time.Minute
}

// Run measures. What went wrong in one section is in the results, and the others go on; only the end of ctx ends it all.
func Run(ctx context.Context, o Options) (*Results, error) {
	dir, err := os.MkdirTemp("", "weir-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s := &session{Options: o, ctx: ctx, dir: dir, results: newResults(o), pdr: map[string]float64{}, rates: map[string]float64{}}
	start := time.Now()
	for _, x := range sections {
		if o.Only != nil && !o.Only.MatchString(x.name) {
			continue
		}
		if time.Since(start) > o.budget() {
			s.results.Failed = append(s.results.Failed, x.name+": the time was up")
			continue
		}
		began := time.Now()
		s.logf("== %s", x.name)
		err := x.run(s)
		if ctx.Err() != nil {
			return s.results, ctx.Err()
		}
		if err != nil {
			s.logf("   %s: %v", x.name, err)
			s.results.Failed = append(s.results.Failed, fmt.Sprintf("%s: %v", x.name, err))
		}
		s.results.Took = append(s.results.Took, Took{x.name, time.Since(began).Seconds()})
	}
	s.results.end()
	return s.results, nil
}

func (s *session) logf(format string, args ...any) { fmt.Fprintf(s.Log, format+"\n", args...) }

// runs is how often a case is run: at least five times, and in a comparison seven, unless it must be quick.
func (s *session) runs(full int) int {
	if s.Quick {
		return 2
	}
	return full
}

// length is how long a run lasts.
func (s *session) length(full time.Duration) time.Duration {
	if s.Quick {
		return 400 * time.Millisecond
	}
	return full
}
