package bench

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
)

// WaitingResult is what one mode came to at one rate.
type WaitingResult struct {
	Driver, Mode string
	Rate         int     // packets a second offered; 0: as many as the sender could
	PPS          float64 // forwarded
	Lost         float64 // share of those sent
	P50, P99     float64 // microseconds from the sender's call to the receiver's; 0 at full load
	CPU          float64 // share of a core that the worker's thread ran
	Calls        float64 // system calls a packet, waiting and moving frames together
	Sleeps       float64 // a packet
	Copies       string
	Disturbed    float64 // share of the time that sender and worker stood and waited for a core
}

// WaitingPlot draws results of one driver as SVG: what a mode costs of a core over the latency that half of the packets are below, at each rate that
// latency was measured at. Left and low is good; no mode is both at every rate.
func WaitingPlot(results []WaitingResult) []byte {
	const (
		width, height            = 760, 420
		left, right, top, bottom = 70, 740, 40, 370
	)
	var shown []WaitingResult
	low, high := math.Inf(1), 0.0
	for _, r := range results {
		if r.P50 > 0 && r.Driver == results[0].Driver {
			shown = append(shown, r)
			low, high = min(low, r.P50), max(high, r.P50)
		}
	}
	low, high = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
	x := func(us float64) float64 { return left + (right-left)*math.Log(us/low)/math.Log(high/low) }
	y := func(share float64) float64 { return bottom - (bottom-top)*min(share, 1) }
	var b bytes.Buffer
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, html.EscapeString(s))
	}
	line := func(x1, y1, x2, y2 float64, colour string) {
		fmt.Fprintf(&b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2, colour)
	}
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n", width, height)
	fmt.Fprintf(&b, "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n", width, height)
	text((left+right)/2, 20, "middle", "Waiting: CPU of a worker over the latency of a packet, "+results[0].Driver)
	for share := 0; share <= 100; share += 20 {
		at := y(float64(share) / 100)
		line(left, at, right, at, "#ddd")
		text(left-8, at+4, "end", fmt.Sprintf("%d %%", share))
	}
	for us := low; us <= high*1.001; us *= 10 {
		line(x(us), top, x(us), bottom, "#ddd")
		text(x(us), bottom+18, "middle", fmt.Sprintf("%g µs", us))
	}
	text((left+right)/2, height-10, "middle", "p50 from the sender's system call to the receiver's")
	var rates []int
	for _, r := range shown {
		if !slices.Contains(rates, r.Rate) {
			rates = append(rates, r.Rate)
		}
	}
	colours := []string{"#1f77b4", "#d62728", "#2ca02c"}
	for i, rate := range rates {
		colour := colours[i%len(colours)]
		fmt.Fprintf(&b, "<g fill=\"%s\">\n", colour)
		text(right-10, top+16+float64(16*i), "end", fmt.Sprintf("● %d packets/s", rate))
		taken := []float64{} // heights at which a label stands
		for _, r := range shown {
			if r.Rate != rate {
				continue
			}
			fmt.Fprintf(&b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>\n", x(r.P50), y(r.CPU))
			at := y(r.CPU) + 4
			for slices.ContainsFunc(taken, func(t float64) bool { return math.Abs(t-at) < 12 }) {
				at -= 12
			}
			taken = append(taken, at)
			text(x(r.P50)+8, at, "start", r.Mode)
		}
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
