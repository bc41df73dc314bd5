package suite

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Plotted is a plot that was written.
type Plotted struct{ Section, Title, File string }

// hues tell peers apart, also for most who do not see all colours (Okabe and Ito).
var hues = []color.Color{color.RGBA{0, 114, 178, 255}, color.RGBA{230, 159, 0, 255}, color.RGBA{0, 158, 115, 255}, color.RGBA{213, 94, 0, 255},
	color.RGBA{204, 121, 167, 255}, color.RGBA{86, 180, 233, 255}, color.RGBA{120, 120, 120, 255}, color.RGBA{240, 228, 66, 255}}

// sans is the typeface of plots.
var sans = font.Font{Typeface: "Liberation", Variant: "Sans"}

// Plots writes the plots to dir, as SVG for the report and as PNG.
func (r *Results) Plots(dir string) (plots []Plotted, err error) {
	plot.DefaultFont = sans
	for _, x := range []struct {
		section, title, file string
		draw                 func(*plot.Plot) bool // false: there is nothing to show
	}{
		{"rate", "What comes through, Mpps", "rate", func(p *plot.Plot) bool { return r.bars(p, "rate", "pps", 1e6, "Mpps") }},
		{"cpu", "Own user CPU time per packet", "cpu", func(p *plot.Plot) bool { return r.bars(p, "cpu", "ns user/packet", 1, "ns") }},
		{"throughput", "Throughput, Mpps", "throughput", func(p *plot.Plot) bool { return r.bars(p, "throughput", "pps", 1e6, "Mpps") }},
		{"throughput", "Loss by offered load, 64 bytes", "loss", r.losses},
		{"throughput", "Latency at half of the PDR", "latency", r.percentiles},
		{"flows", "By number of flows", "flows", r.byFlows},
		{"connections", "New TCP connections a second", "connections", func(p *plot.Plot) bool { return r.bars(p, "connections", "connections/s", 1000, "thousands a second") }},
		{"overlay", "Into a VXLAN segment, Mpps", "overlay", func(p *plot.Plot) bool { return r.bars(p, "overlay", "pps", 1e6, "Mpps") }},
	} {
		p := plot.New()
		p.Title.Text = x.title
		p.Title.Padding, p.Legend.Padding = vg.Points(6), vg.Points(2)
		p.Legend.Top = true
		p.BackgroundColor = color.White
		if !x.draw(p) {
			continue
		}
		for _, kind := range []string{".svg", ".png"} {
			if e := p.Save(18*vg.Centimeter, 10*vg.Centimeter, filepath.Join(dir, x.file+kind)); e != nil {
				err = errors.Join(err, fmt.Errorf("plot %s: %w", x.file, e))
			}
		}
		plots = append(plots, Plotted{x.section, x.title, x.file + ".svg"})
	}
	return plots, err
}

// bars draws the medians of a section: a group for each case, a bar for each peer, with a line from the least to the largest.
func (r *Results) bars(p *plot.Plot, section, unit string, scale float64, axis string) bool {
	var cases, peers []string
	for _, s := range r.Series {
		if s.Section != section || s.Unit != unit {
			continue
		}
		if !slices.Contains(cases, s.Case) {
			cases = append(cases, s.Case)
		}
		if !slices.Contains(peers, s.Peer) {
			peers = append(peers, s.Peer)
		}
	}
	if len(cases) == 0 {
		return false
	}
	width := vg.Points(380 / float64(len(cases)*(len(peers)+1)))
	for i, peer := range peers {
		values := make(plotter.Values, len(cases))
		var ends extent
		for j, c := range cases {
			v := r.values(section, c, peer, unit)
			if v == nil {
				continue
			}
			m := Median(v) / scale
			values[j] = m
			ends.XYs = append(ends.XYs, plotter.XY{X: float64(j), Y: m})
			ends.YErrors = append(ends.YErrors, struct{ Low, High float64 }{m - slices.Min(v)/scale, slices.Max(v)/scale - m})
		}
		bar, err := plotter.NewBarChart(values, width)
		if err != nil {
			return false
		}
		bar.LineStyle.Width, bar.Color = 0, hues[i%len(hues)]
		bar.Offset = width * vg.Length(float64(i)-float64(len(peers)-1)/2)
		p.Add(bar)
		p.Legend.Add(peer, bar)
		errors, err := plotter.NewYErrorBars(ends)
		if err != nil {
			return false
		}
		errors.CapWidth = 0
		p.Add(&beside{errors, bar.Offset})
	}
	p.NominalX(cases...)
	p.Y.Label.Text, p.Y.Min = axis, 0
	p.Y.Max *= 1.4 // room for the legend
	return true
}

// extent is what lies between the least and the largest of each case, as the plotter wants it.
type extent struct {
	plotter.XYs
	plotter.YErrors
}

// beside draws error bars where a bar of a group is, which is so far from the group's middle.
type beside struct {
	*plotter.YErrorBars
	offset vg.Length
}

// Plot implements plot.Plotter.
func (b *beside) Plot(c draw.Canvas, p *plot.Plot) {
	c.Min.X += b.offset
	c.Max.X += b.offset
	b.YErrorBars.Plot(c, p)
}

// lines draws a line with points for each peer.
func lines(p *plot.Plot, names []string, of map[string]plotter.XYs) bool {
	for i, name := range names {
		l, points, err := plotter.NewLinePoints(of[name])
		if err != nil {
			return false
		}
		l.Color, points.Color = hues[i%len(hues)], hues[i%len(hues)]
		l.Width = vg.Points(1.5)
		p.Add(l, points)
		p.Legend.Add(name, l, points)
	}
	return len(names) > 0
}

// losses draws the trials of all searches at 64 bytes.
func (r *Results) losses(p *plot.Plot) bool {
	var names []string
	of := map[string]plotter.XYs{}
	for _, s := range r.Searches {
		if s.Size != "64" {
			continue
		}
		if !slices.Contains(names, s.Peer) {
			names = append(names, s.Peer)
		}
		for _, t := range s.Trials {
			of[s.Peer] = append(of[s.Peer], plotter.XY{X: t.Rate / 1e6, Y: t.Loss * 100})
		}
	}
	for i, name := range names {
		points, err := plotter.NewScatter(of[name])
		if err != nil {
			return false
		}
		points.Color = hues[i%len(hues)]
		p.Add(points)
		p.Legend.Add(name, points)
	}
	p.X.Label.Text, p.Y.Label.Text = "offered, Mpps", "lost, %"
	p.Legend.Left = true
	return len(names) > 0
}

// percentiles draws latency over how rare it is.
func (r *Results) percentiles(p *plot.Plot) bool {
	var names []string
	of := map[string]plotter.XYs{}
	for _, l := range r.Latencies {
		if l.Load != 0.5 {
			continue
		}
		names = append(names, l.Peer)
		for _, x := range [][2]float64{{2, l.P50}, {10, l.P90}, {100, l.P99}, {1000, l.P999}, {10000, l.P9999}} {
			of[l.Peer] = append(of[l.Peer], plotter.XY{X: x[0], Y: max(x[1], 0.1)})
		}
	}
	p.X.Scale, p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.X.Tick.Marker = plot.ConstantTicks{{Value: 2, Label: "50 %"}, {Value: 10, Label: "90 %"}, {Value: 100, Label: "99 %"}, {Value: 1000, Label: "99.9 %"}, {Value: 10000, Label: "99.99 %"}}
	p.X.Label.Text, p.Y.Label.Text = "percentile", "microseconds"
	p.Legend.Left = true
	return lines(p, names, of)
}

// byFlows draws rate over the number of flows.
func (r *Results) byFlows(p *plot.Plot) bool {
	var xy plotter.XYs
	for _, s := range r.Series {
		if n, err := strconv.Atoi(s.Case); s.Section == "flows" && s.Unit == "pps" && err == nil {
			xy = append(xy, plotter.XY{X: float64(n), Y: s.Median / 1e6})
		}
	}
	if len(xy) == 0 {
		return false
	}
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.X.Label.Text, p.Y.Label.Text, p.Y.Min = "flows", "Mpps", 0
	ok := lines(p, []string{"weir"}, map[string]plotter.XYs{"weir": xy})
	if p.X.Max == p.X.Min {
		p.X.Max *= 10
	}
	p.X.Max = math.Max(p.X.Max, 10)
	p.Y.Max *= 1.2
	return ok
}
