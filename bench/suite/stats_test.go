package suite

import (
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, x := range []struct {
		in   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := Median(x.in); got != x.want {
			t.Errorf("median of %v is %v, want %v", x.in, got, x.want)
		}
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("nothing has a median")
	}
	in := []float64{3, 1, 2}
	Median(in)
	if in[0] != 3 {
		t.Error("Median sorts its caller's values")
	}
}

func TestCompare(t *testing.T) {
	seven := func(v ...float64) (all []float64) {
		for i := range 7 {
			all = append(all, v[i%len(v)])
		}
		return all
	}
	for _, x := range []struct {
		name         string
		a, b, ca, cb []float64
		target       float64
		median       float64
		want         string
	}{
		{"met", seven(100), seven(100), seven(100), seven(100), 0.95, 1, "met"},
		{"missed", seven(90), seven(100), seven(100), seven(100), 0.95, 0.9, "missed"},
		{"the control spreads by more", seven(100), seven(100), seven(100, 110, 90), seven(100), 0.95, 1, "inconclusive"},
		{"more, without a target", seven(120), seven(100), seven(100), seven(100), 0, 1.2, "more"},
		{"less, without a target", seven(80), seven(100), seven(100), seven(100), 0, 0.8, "less"},
		{"about one", seven(101), seven(100), seven(100, 104), seven(100), 0, 1.01, "inconclusive"},
		{"six pairs", seven(100)[:6], seven(100), seven(100), seven(100), 0.95, 1, "too few pairs (6, 7 are needed)"},
		{"no control", seven(100), seven(100), nil, nil, 0.95, 1, "too few pairs (0, 7 are needed)"},
		{"nothing", nil, seven(100), nil, nil, 0.95, 0, "not measured"},
		{"a peer that let nothing through", seven(100), seven(0), seven(100), seven(100), 0.95, 0, "not measured"},
		// The machine was at half speed in half of the rounds: the ratios do not know.
		{"drift", seven(100, 50), seven(80, 40), seven(100, 50), seven(100, 50), 1.2, 1.25, "met"},
	} {
		c := Compare("case", "peer", Ratios(all(x.a), all(x.b)), Ratios(all(x.ca), all(x.cb)), x.target)
		if c.Verdict != x.want || math.Abs(c.Median-x.median) > 1e-9 {
			t.Errorf("%s: %q at %v, want %q at %v", x.name, c.Verdict, c.Median, x.want, x.median)
		}
	}
}

// all is a series in which no round failed.
func all(v []float64) (s Series) {
	for i := range v {
		s.Values, s.Rounds = append(s.Values, v[i]), append(s.Rounds, i)
	}
	return s
}

// Pairs are of one round, also where a round of one of them failed, and a second try counts instead of the first.
func TestRoundsThatFailed(t *testing.T) {
	var r Results
	for i, v := range [][2]float64{{10, 20}, {0, 40}, {30, 60}, {40, 0}} {
		r.round = i
		if v[0] > 0 {
			r.add("s", "c", "a", "pps", 1, nil, "first try")
			r.add("s", "c", "a", "pps", v[0], nil, "second try")
		}
		if v[1] > 0 {
			r.add("s", "c", "b", "pps", v[1], nil, "")
		}
	}
	a, b := r.series("s", "c", "a", "pps"), r.series("s", "c", "b", "pps")
	if got := Ratios(a, b); len(got) != 2 || got[0] != 0.5 || got[1] != 0.5 {
		t.Errorf("ratios %v, want 0.5 twice", got)
	}
	if len(a.Values) != 3 || a.Median != 30 || a.Min != 10 || a.Max != 40 || a.Command != "second try" {
		t.Errorf("series %+v", a)
	}
}

// A device that loses nothing up to its limit and all beyond is found out, at either criterion, from above and from below.
func TestSearch(t *testing.T) {
	for range 200 {
		most := 1e5 + rand.Float64()*5e6
		limit := most * rand.Float64() * 1.2
		calls := 0
		s := search{try: func(rate float64) (Trial, error) {
			calls++
			if rate > most*1.0001 {
				t.Fatalf("%v is offered, more than %v", rate, most)
			}
			return Trial{Rate: rate, Loss: max(0, (rate-limit)/rate)}, nil
		}}
		pdr, err := s.find(most, 0.01, 0.005)
		if err != nil {
			t.Fatal(err)
		}
		ndr, err := s.find(most, 0.01, 0)
		if err != nil {
			t.Fatal(err)
		}
		wantPDR, wantNDR := min(limit/0.995, most), min(limit, most)
		if math.Abs(pdr-wantPDR) > 0.011*most || math.Abs(ndr-wantNDR) > 0.011*most || ndr > pdr {
			t.Errorf("of %.0f: PDR %.0f and NDR %.0f, want %.0f and %.0f", most, pdr, ndr, wantPDR, wantNDR)
		}
		if calls > 18 {
			t.Errorf("%d trials", calls)
		}
	}
}

// A generator that cannot offer what is asked ends a search: more cannot be known.
func TestSearchOfASlowGenerator(t *testing.T) {
	s := search{try: func(rate float64) (Trial, error) { return Trial{Rate: min(rate, 3e5)}, nil }}
	if got, err := s.find(1e6, 0.01, 0); err != nil || got != 3e5 {
		t.Errorf("found %v, %v", got, err)
	}
}

func TestParseStat(t *testing.T) {
	got, err := parseStat("cpu  100 20 300 4000 5 60 70 8 0 0\ncpu0 1 2 3\n")
	want := cpuTimes{user: 1.2, system: 3, softirq: 1.3, steal: 0.08}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2", "intr 1 2 3 4 5 6 7 8 9", "cpu a b c d e f g h"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	u, s, err := parseProcess("4711 (a) b (c)) S 1 4711 4711 0 -1 4194304 100 0 0 0 250 75 0 0 20 0 9 0 1 2 3")
	if err != nil || u != 2.5 || s != 0.75 {
		t.Errorf("%v %v %v", u, s, err)
	}
	if _, _, err := parseProcess("4711 (a) S 1"); err == nil {
		t.Error("a short line is taken")
	}
	if w := parseWaited("123 4500000000 7\n"); w != 4.5 || parseWaited("") != 0 {
		t.Errorf("waited %v s, want 4.5", w)
	}
	if own, err := readCPU(os.Getpid()); err != nil || own.ownUser+own.ownSystem < 0 || own.waited < 0 {
		t.Errorf("this process: %+v, %v", own, err)
	}
	if t1, err := readCPU(0); err != nil || t1.user+t1.system <= 0 {
		t.Errorf("this machine: %+v, %v", t1, err)
	}
}

func TestParseOutputs(t *testing.T) {
	const wrk = "Running 3s test @ http://198.18.9.9:80/\n  1 threads and 64 connections\n  27000 requests in 3.00s, 3.1MB read\nRequests/sec:   8969.12\nTransfer/sec:      1.03MB\n"
	if v, err := parseWrk(wrk); err != nil || v != 8969.12 {
		t.Errorf("wrk: %v, %v", v, err)
	}
	for _, bad := range []string{"", "unable to connect", "Requests/sec:      0.00\n"} {
		if _, err := parseWrk(bad); err == nil {
			t.Errorf("wrk: %q is taken", bad)
		}
	}
	if v, err := parseIperf([]byte(`{"end": {"sum_sent": {"bits_per_second": 2e9}, "sum_received": {"bits_per_second": 1.5e9}}}`)); err != nil || v != 1.5e9 {
		t.Errorf("iperf3: %v, %v", v, err)
	}
	for _, bad := range []string{"", "{}", `{"error": "unable to connect"}`} {
		if _, err := parseIperf([]byte(bad)); err == nil {
			t.Errorf("iperf3: %q is taken", bad)
		}
	}
}

func TestConfigurations(t *testing.T) {
	if text := nftRules(); !strings.Contains(text, "ip daddr 198.18.9.9 udp dport 53 dnat to numgen inc mod 2 map { 0 : 198.18.1.10, 1 : 198.18.1.11, }:5353") {
		t.Errorf("rules:\n%s", text)
	}
	s := session{Options: Options{CPUs: [2]int{0, 1}}, results: &Results{Machine: Machine{CPUs: 2}}}
	if s.cpuList(1) != "1" || s.cpuList(2) != "1,0" {
		t.Errorf("CPUs %s, %s", s.cpuList(1), s.cpuList(2))
	}
	s = session{Options: Options{CPUs: [2]int{0, 7}}, results: &Results{Machine: Machine{CPUs: 8}}}
	if s.cpuList(3) != "7,6,5" {
		t.Errorf("CPUs %s", s.cpuList(3))
	}
}

// Over as many rounds as there are peers, each is once in each place.
func TestTurns(t *testing.T) {
	peers := []*peer{{name: "a"}, {name: "b"}, {name: "c"}}
	places := map[string]bool{}
	for round := range 3 {
		order := turn(peers, round)
		for i, p := range order {
			places[p.name+strconv.Itoa(i)] = true
		}
		if len(order) != 3 {
			t.Errorf("round %d has %d peers", round, len(order))
		}
	}
	if len(places) != 9 || len(turn(nil, 1)) != 0 {
		t.Errorf("places %v", places)
	}
}

func TestShown(t *testing.T) {
	got := shown([]string{"/usr/local/bin/weir", "run", "-c", "/tmp/x/weir.yaml", "--vdev=net_af_xdp0,iface=d0", "http://198.18.9.9/"})
	if want := "weir run -c weir.yaml --vdev=net_af_xdp0,iface=d0 http://198.18.9.9/"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
