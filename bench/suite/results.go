package suite

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"weir/bench"
)

// Results is a session.
type Results struct {
	Machine     Machine      `json:"machine"`
	Quick       bool         `json:"quick"`
	Series      []Series     `json:"series"`
	Comparisons []Comparison `json:"comparisons"`
	Latencies   []Latencies  `json:"latencies"`
	Searches    []Searched   `json:"searches"`
	Failed      []string     `json:"failed"` // what could not be measured, and why
	Took        []Took       `json:"took"`

	round int // that values are of now
}

// Machine is where it was measured.
type Machine struct {
	Date      string   `json:"date"`
	Kernel    string   `json:"kernel"`
	CPU       string   `json:"cpu"`
	CPUs      int      `json:"cpus"`
	Go        string   `json:"go"`
	Weir      string   `json:"weir"`
	Versions  []string `json:"versions"` // of the peers
	LoadBegin string   `json:"load_begin"`
	LoadEnd   string   `json:"load_end"` // /proc/loadavg; what else ran on the machine
}

// Took is how long a section took.
type Took struct {
	Section string  `json:"section"`
	Seconds float64 `json:"seconds"`
}

// Series is the runs of one peer in one case.
type Series struct {
	Section string    `json:"section"`
	Case    string    `json:"case"`
	Peer    string    `json:"peer"`
	Unit    string    `json:"unit"`
	Values  []float64 `json:"values"`
	Rounds  []int     `json:"rounds"` // that the values are of
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	Mode    string    `json:"mode"`    // of the peer's driver
	Started string    `json:"started"` // the command of the peer
	Command string    `json:"command"` // of the last run
}

// Latencies are percentiles of one peer at one load, each the median of the runs.
type Latencies struct {
	Peer    string  `json:"peer"`
	Load    float64 `json:"load"` // as a part of the peer's own PDR
	Rate    float64 `json:"rate"`
	Runs    int     `json:"runs"`
	P50     float64 `json:"p50_us"`
	P90     float64 `json:"p90_us"`
	P99     float64 `json:"p99_us"`
	P999    float64 `json:"p999_us"`
	P9999   float64 `json:"p9999_us"`
	Max     float64 `json:"max_us"`
	Command string  `json:"command"`
}

// Searched is the trials of one search.
type Searched struct {
	Peer   string  `json:"peer"`
	Size   string  `json:"size"`
	Trials []Trial `json:"trials"`
}

func newResults(o Options) *Results {
	r := &Results{Quick: o.Quick, Machine: Machine{Date: time.Now().UTC().Format(time.RFC3339), CPUs: runtime.NumCPU(), Go: runtime.Version(), LoadBegin: loadavg()}}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Machine.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for _, line := range strings.Split(string(text), "\n") {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				r.Machine.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	r.Machine.Weir = firstLine(o.Weir, "--version")
	for _, v := range [][]string{{"nft", "--version"}, {"haproxy", "-v"}, {"nginx", "-v"}, {"wrk", "-v"}, {"iperf3", "--version"}} {
		if line := firstLine(v[0], v[1:]...); line != "" {
			r.Machine.Versions = append(r.Machine.Versions, line)
		}
	}
	if v := firstLine("dpkg-query", "-W", "-f", "DPDK ${Version}", "dpdk-dev"); strings.HasPrefix(v, "DPDK") { // testpmd does not say
		r.Machine.Versions = append(r.Machine.Versions, v)
	}
	return r
}

func (r *Results) end() { r.Machine.LoadEnd = loadavg() }

func loadavg() string {
	text, _ := os.ReadFile("/proc/loadavg") // for information
	f := strings.Fields(string(text))
	return strings.Join(f[:min(3, len(f))], " ")
}

// firstLine is the first line that says something of what a program says; its exit code is of no interest.
func firstLine(name string, args ...string) string {
	var out bytes.Buffer
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr = &out, &out
	_ = c.Run()
	for _, line := range strings.Split(out.String(), "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "EAL:") {
			return line
		}
	}
	return ""
}

// add puts this round's value to a series. A second one in the same round, of a second try, takes the first one's place.
func (r *Results) add(section, name, peer, unit string, value float64, run *running, command string) {
	i := slices.IndexFunc(r.Series, func(s Series) bool { return s.Section == section && s.Case == name && s.Peer == peer && s.Unit == unit })
	if i < 0 {
		i = len(r.Series)
		r.Series = append(r.Series, Series{Section: section, Case: name, Peer: peer, Unit: unit})
	}
	s := &r.Series[i]
	if n := len(s.Rounds); n > 0 && s.Rounds[n-1] == r.round {
		s.Values[n-1] = value
	} else {
		s.Values, s.Rounds = append(s.Values, value), append(s.Rounds, r.round)
	}
	s.Median, s.Min, s.Max = Median(s.Values), slices.Min(s.Values), slices.Max(s.Values)
	s.Command = command
	if run != nil {
		s.Mode, s.Started = run.mode, run.command
	}
}

// series is the one of that name, empty if there is none.
func (r *Results) series(section, name, peer, unit string) Series {
	for _, s := range r.Series {
		if s.Section == section && s.Case == name && s.Peer == peer && s.Unit == unit {
			return s
		}
	}
	return Series{}
}

func (r *Results) values(section, name, peer, unit string) []float64 {
	return r.series(section, name, peer, unit).Values
}

// compare adds weir divided by each of the peers in a case in which they took turns.
func (r *Results) compare(section, name, unit string, targets map[string]float64, peers ...*peer) {
	r.compareOf(&weirNAT, section, name, unit, targets, peers...)
}

// compareOf is compare for another one in weir's place.
func (r *Results) compareOf(who *peer, section, name, unit string, targets map[string]float64, peers ...*peer) {
	weir, again := r.series(section, name, weirNAT.name, unit), r.series(section, name, weirAgain.name, unit)
	own, label := r.series(section, name, who.name, unit), section+": "+name
	if len(own.Values) == 0 {
		return
	}
	if who != &weirNAT {
		label += ", " + who.name
	}
	for _, p := range peers {
		if v := r.series(section, name, p.name, unit); len(v.Values) > 0 {
			r.Comparisons = append(r.Comparisons, Compare(label, p.name, Ratios(own, v), Ratios(weir, again), targets[p.name]))
		}
	}
}

// latency adds the medians of the runs' percentiles.
func (r *Results) latency(peer string, part, rate float64, runs []*bench.Latency, command string) {
	of := func(f func(*bench.Latency) int64) float64 {
		var v []float64
		for _, l := range runs {
			v = append(v, float64(f(l))/1e3)
		}
		return Median(v)
	}
	r.Latencies = append(r.Latencies, Latencies{Peer: peer, Load: part, Rate: rate, Runs: len(runs), Command: command,
		P50: of(func(l *bench.Latency) int64 { return l.P50 }), P90: of(func(l *bench.Latency) int64 { return l.P90 }),
		P99: of(func(l *bench.Latency) int64 { return l.P99 }), P999: of(func(l *bench.Latency) int64 { return l.P999 }),
		P9999: of(func(l *bench.Latency) int64 { return l.P9999 }), Max: of(func(l *bench.Latency) int64 { return l.Max })})
}

// JSON is the results for programs.
func (r *Results) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", " ")
	return append(b, '\n'), err
}
