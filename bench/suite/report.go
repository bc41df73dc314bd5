package suite

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// headings of the sections, in the report's order.
var headings = []struct{ section, title, text string }{
	{"ceiling", "The generator's own ceiling", "What `weir pktgen` sends over a veth pair whose other end only counts, with no device under test."},
	{"rate", "Packet rate, more offered than any can take", "1,000 UDP flows. `weir again` is weir measured a second time in each round: how far it is from weir is what a difference means nothing below."},
	{"cpu", "CPU time per packet, in the runs of the packet rate", "`user` and `system` are the peer's own process; a poller's spinning is in `user`. Where a frame is sent over veth, the other end's receiving runs in the sender's system call, so `system` has it. " +
		"`softirq` is the whole machine's, generator and other programs included. `waited` is how long the peer's threads, all together, were ready to run and had no CPU, as a part of the run: where that is much, its rate is the machine's doing."},
	{"throughput", "Throughput by binary search (RFC 2544)", "NDR: no frame lost. PDR: at most 0.5 %. On a shared machine a stall of the machine is a loss, so that NDR varies."},
	{"overload", "Beyond the PDR", "64 bytes. What comes through should not fall when more is offered."},
	{"reload", "Reload under load", "64 bytes at half the PDR, with and without other weights being loaded five times a second."},
	{"floods", "Beside a flood", "Good frames of 96 bytes, half of what weir forwards at most (beside made-up stations, whose frames are forwarded, too, a quarter), and between any two of them one of an attack: first fragments, ICMP errors about answers, a TTL of 1, an unused port, a source nobody knows, a destination without a neighbour. What is counted are the good ones."},
	{"flows", "By number of flows", "64 bytes, flows in random order, each with a connection before the runs."},
	{"workers", "By number of workers", "64 bytes, sent by AF_XDP on as many queues. With no CPU left for the generator, workers take turns with it."},
	{"connections", "New TCP connections", "wrk against nginx, one connection for each request; and `weir pktgen --traffic connect` against itself, more offered than goes."},
	{"stream", "One TCP stream", "iperf3, all offloads off on both ends."},
	{"overlay", "Into a VXLAN segment", "Frames of a local port to a station behind another VTEP."},
}

// Markdown is the results for people. plots are the files that Plots wrote, relative to the report.
func (r *Results) Markdown(plots []Plotted) string {
	var b strings.Builder
	m := &r.Machine
	fmt.Fprintf(&b, "# weir beside others\n\n%s, %s, %d CPUs (%s), %s; %s. Load average %s at the beginning, %s at the end.\n\n", m.Date, m.Kernel, m.CPUs, m.CPU, m.Go, m.Weir, m.LoadBegin, m.LoadEnd)
	if len(m.Versions) > 0 {
		fmt.Fprintf(&b, "Peers: %s.\n\n", strings.Join(m.Versions, "; "))
	}
	b.WriteString("Everything runs over veth pairs between network namespaces of one machine, which are not NICs: there is no hardware, no DMA, no zero copy, and generator, peers and kernel share the CPUs. " +
		"Numbers mean something beside each other, not by themselves. Each is the median of the runs, with the least and the largest.\n\n")
	if r.Quick {
		b.WriteString("**A quick session: too few and too short runs to compare; it shows that everything works.**\n\n")
	}
	r.comparisons(&b)
	for _, h := range headings {
		r.table(&b, h.section, h.title, h.text)
		switch h.section {
		case "throughput":
			r.latencies(&b)
		case "cpu":
			r.share(&b)
		}
		for _, p := range plots {
			if p.Section == h.section {
				fmt.Fprintf(&b, "![%s](%s)\n\n", p.Title, p.File)
			}
		}
	}
	if len(r.Failed) > 0 {
		b.WriteString("## Not measured\n\n")
		for _, f := range r.Failed {
			fmt.Fprintf(&b, "- %s\n", strings.ReplaceAll(f, "\n", "; "))
		}
		b.WriteString("\n")
	}
	r.commands(&b)
	return b.String()
}

func (r *Results) comparisons(b *strings.Builder) {
	if len(r.Comparisons) == 0 {
		return
	}
	b.WriteString("## weir divided by each peer\n\nMedian of the ratios of pairs of runs that took turns; seven pairs at least. Spread is half of what lies between the largest and the smallest ratio of weir to itself in the same " +
		"rounds. A verdict is \"inconclusive\" where the median is nearer to what it is held against (the target, or 1) than the spread.\n\n" +
		"| case | peer | median | least | largest | pairs | spread | target | verdict |\n|---|---|---:|---:|---:|---:|---:|---:|---|\n")
	for _, c := range r.Comparisons {
		target := ""
		if c.Target > 0 {
			target = fmt.Sprintf("%.2f", c.Target)
		}
		fmt.Fprintf(b, "| %s | %s | %.3f | %.3f | %.3f | %d | %.3f | %s | %s |\n", c.Case, c.Peer, c.Median, c.Min, c.Max, len(c.Ratios), c.Spread, target, c.Verdict)
	}
	b.WriteString("\n")
}

// table writes a section's series: a row for each peer, a column for each case and unit.
func (r *Results) table(b *strings.Builder, section, title, text string) {
	type column struct{ name, unit string }
	var columns []column
	var peers []string
	cell := map[string]Series{}
	runs := 0
	for _, s := range r.Series {
		if s.Section != section {
			continue
		}
		if c := (column{s.Case, s.Unit}); !slices.Contains(columns, c) {
			columns = append(columns, c)
		}
		if !slices.Contains(peers, s.Peer) {
			peers = append(peers, s.Peer)
		}
		cell[s.Peer+"\n"+s.Case+"\n"+s.Unit] = s
		runs = max(runs, len(s.Values))
	}
	if len(columns) == 0 {
		return
	}
	fmt.Fprintf(b, "## %s\n\n%s %d runs each.\n\n| |", title, text, runs)
	for _, c := range columns {
		fmt.Fprintf(b, " %s, %s |", c.name, c.unit)
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(columns)) + "\n")
	for _, p := range peers {
		fmt.Fprintf(b, "| %s |", p)
		for _, c := range columns {
			if s, ok := cell[p+"\n"+c.name+"\n"+c.unit]; ok {
				fmt.Fprintf(b, " %s (%s to %s) |", number(s.Median), number(s.Min), number(s.Max))
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

// share writes what weir's own work costs beyond the bare forwarder's.
func (r *Results) share(b *strings.Builder) {
	const unit = "ns user/packet"
	for _, size := range sizes {
		d := Differences(r.series("cpu", size, weirNAT.name, unit), r.series("cpu", size, bare.name, unit))
		control := Differences(r.series("cpu", size, weirAgain.name, unit), r.series("cpu", size, weirNAT.name, unit))
		if len(d) == 0 {
			continue
		}
		fmt.Fprintf(b, "At %s, weir's user time less the bare forwarder's, median of %d rounds: %s ns a packet (%s to %s)", size, len(d), number(Median(d)), number(slices.Min(d)), number(slices.Max(d)))
		if len(control) > 0 {
			fmt.Fprintf(b, "; weir's less weir's, for comparison: %s (%s to %s)", number(Median(control)), number(slices.Min(control)), number(slices.Max(control)))
		}
		b.WriteString(".\n\n")
	}
}

func (r *Results) latencies(b *strings.Builder) {
	if len(r.Latencies) == 0 {
		return
	}
	b.WriteString("## Latency\n\n64 bytes, one way, from when each frame was due, in microseconds, at parts of each peer's own PDR. Medians of the runs' percentiles.\n\n" +
		"| peer | load | pps | p50 | p90 | p99 | p99.9 | p99.99 | max |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, l := range r.Latencies {
		fmt.Fprintf(b, "| %s | %.0f %% | %s | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f |\n", l.Peer, l.Load*100, number(l.Rate), l.P50, l.P90, l.P99, l.P999, l.P9999, l.Max)
	}
	b.WriteString("\n")
}

// commands lists, for every peer and section, how the peer was started and how the last run was made.
func (r *Results) commands(b *strings.Builder) {
	b.WriteString("## Commands\n\nThe last run of each peer in each section. `gen`, `dut`, `client` and `server` are namespaces; bench/suite/bed.go draws them.\n\n")
	for _, h := range headings {
		seen := map[string]bool{}
		for _, s := range r.Series {
			if s.Section != h.section || seen[s.Peer] {
				continue
			}
			if len(seen) == 0 {
				fmt.Fprintf(b, "%s:\n\n", h.title)
			}
			seen[s.Peer] = true
			fmt.Fprintf(b, "- %s", s.Peer)
			if s.Mode != "" {
				fmt.Fprintf(b, ", %s", s.Mode)
			}
			if s.Started != "" {
				fmt.Fprintf(b, "; peer `%s`", s.Started)
			}
			fmt.Fprintf(b, "; run `%s`\n", s.Command)
		}
		if len(seen) > 0 {
			b.WriteString("\n")
		}
	}
	b.WriteString("Time taken:")
	for _, t := range r.Took {
		fmt.Fprintf(b, " %s %.0f s,", t.Section, t.Seconds)
	}
	all := 0.0
	for _, t := range r.Took {
		all += t.Seconds
	}
	fmt.Fprintf(b, " in all %.0f s.\n", all)
}

// number writes a value with three digits.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "-"
	case a >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	case a >= 1e4:
		return fmt.Sprintf("%.0f k", v/1e3)
	case a >= 1e3:
		return fmt.Sprintf("%.2f k", v/1e3)
	case a >= 100 || v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}
