package suite

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weir/control/config"
)

// session of made-up numbers in every section.
func made() *Results {
	r := &Results{Machine: Machine{Date: "2026-01-02T03:04:05Z", Kernel: "Linux", CPUs: 2}}
	peers := []*peer{&weirNAT, &bare, &nftNAT, &weirAgain}
	for i := range enoughPairs {
		r.round = i
		for j, p := range peers {
			v := 1e5 * float64(10+i+j)
			run := &running{command: "start " + p.name, mode: "native"}
			for _, size := range sizes {
				r.add("rate", size, p.name, "pps", v, run, "weir pktgen --size "+size)
				r.add("cpu", size, p.name, "ns user/packet", float64(100-20*j), run, "weir pktgen")
			}
			r.add("throughput", "NDR 64", p.name, "pps", v, run, "weir pktgen")
			r.add("connections", "HTTP", p.name, "connections/s", v/100, run, "wrk")
			r.add("overlay", "encapsulate 64", p.name, "pps", v, run, "weir pktgen")
		}
	}
	for _, n := range []string{"1", "1000", "100000"} {
		r.add("flows", n, weirNAT.name, "pps", 5e5, nil, "weir pktgen")
	}
	r.compare("rate", "64", "pps", map[string]float64{bare.name: 0.95}, &bare, &nftNAT, &routing)
	r.Latencies = []Latencies{{Peer: "weir", Load: 0.5, Rate: 1e5, Runs: 5, P50: 10, P90: 12, P99: 50, P999: 100, P9999: 1000, Max: 2000}}
	r.Searches = []Searched{{"weir", "64", []Trial{{1e6, 0.2}, {5e5, 0}}}}
	r.Failed = []string{"testpmd af_xdp: needs dpdk-testpmd, which is not there"}
	r.Took = []Took{{"rate", 60}, {"flows", 30}}
	return r
}

func TestReport(t *testing.T) {
	r := made()
	dir := t.TempDir()
	plots, err := r.Plots(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(plots) != 8 {
		t.Errorf("%d plots: %v", len(plots), plots)
	}
	for _, p := range plots {
		for _, file := range []string{p.File, strings.TrimSuffix(p.File, ".svg") + ".png"} {
			b, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil || !bytes.Contains(b[:min(len(b), 400)], []byte("<svg")) && !bytes.HasPrefix(b, []byte("\x89PNG")) {
				t.Errorf("%s: %v, % x", file, err, b[:min(len(b), 16)])
			}
		}
	}
	text := r.Markdown(plots)
	for _, want := range []string{"not NICs", "| rate: 64 | bare AF_XDP |", "| weir | 1.30 M (1.00 M to 1.60 M) |", "![What comes through, Mpps](rate.svg)", "| weir | 50 % | 100 k | 10.0 | 12.0 |",
		"testpmd af_xdp: needs dpdk-testpmd", "peer `start bare AF_XDP`; run `weir pktgen", "in all 90 s", "7 runs each", "At 64, weir's user time less the bare forwarder's, median of 7 rounds: 20 ns a packet (20 to 20); weir's less weir's, for comparison: -60 (-60 to -60)."} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "quick session") || strings.Contains(text, "kernel forwarding") {
		t.Error("the report says what is not so")
	}
	b, err := r.JSON()
	var back Results
	if err != nil || json.Unmarshal(b, &back) != nil || len(back.Series) != len(r.Series) || back.Comparisons[0].Median != r.Comparisons[0].Median {
		t.Errorf("JSON: %v", err)
	}
	// Nothing was measured: no plots, and a report that says so.
	empty := &Results{Quick: true}
	if plots, err := empty.Plots(dir); err != nil || len(plots) != 0 {
		t.Errorf("plots of nothing: %v, %v", plots, err)
	}
	if text := empty.Markdown(nil); !strings.Contains(text, "quick session") {
		t.Errorf("a report of nothing:\n%s", text)
	}
}

// What weir is started with is valid.
func TestWeirConfigurations(t *testing.T) {
	for name, text := range map[string]string{"NAT": weirConfig("1", 1<<20, [servers]int{1, 2}), "two workers": weirConfig("0,1", 11_000_000, [servers]int{1, 1}), "VTEP": vtepConfig(1)} {
		if _, diags := config.Parse(name, []byte(text)); config.HasErrors(diags) {
			t.Errorf("%v\n%s", config.Errors(diags), text)
		}
	}
}
