package bench

import (
	"fmt"
	"io"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// Report is what a run measured. Rates are over the time that was sent for.
type Report struct {
	Driver    string        `json:"driver"`
	RxDriver  string        `json:"rx_driver"`
	Kernel    string        `json:"kernel"`
	Traffic   TrafficReport `json:"traffic"`
	DurationS float64       `json:"duration_s"`

	Sent         uint64  `json:"sent"`             // frames; SYNs where connections are made
	Attack       uint64  `json:"attack,omitempty"` // of those that were sent; neither received nor lost
	Received     uint64  `json:"received"`         // where their way ends
	SentPPS      float64 `json:"sent_pps"`
	ReceivedPPS  float64 `json:"received_pps"`
	SentMbps     float64 `json:"sent_mbps"` // frames with their check sequence, without preamble and gap
	ReceivedMbps float64 `json:"received_mbps"`
	OfferedPPS   float64 `json:"offered_pps"` // what was asked for, 0: as many as go
	Lost         int64   `json:"lost"`        // sent and not received; connections that were not established
	Loss         float64 `json:"loss"`        // as a part of what was sent
	Reordered    uint64  `json:"reordered"`   // arrived behind a later one of the same stream

	Latency *Latency     `json:"latency,omitempty"` // from when a frame was due
	Lag     *Latency     `json:"lag,omitempty"`     // from when a burst was due until it was sent: the generator's own share
	TCP     *TCPReport   `json:"tcp,omitempty"`
	Ports   []PortReport `json:"ports"`
}

// TrafficReport says what was sent.
type TrafficReport struct {
	Kind     Kind    `json:"kind"`
	Attack   Attack  `json:"attack,omitempty"`
	Src      string  `json:"src"`
	SrcPorts string  `json:"src_ports"`
	Dst      string  `json:"dst"`
	DstPorts string  `json:"dst_ports"`
	Flows    uint64  `json:"flows"`
	Shuffle  bool    `json:"shuffle"`
	Size     string  `json:"size"`
	Average  float64 `json:"average_size"`
}

// Latency is a distribution in nanoseconds.
type Latency struct {
	Samples int64   `json:"samples"`
	Min     int64   `json:"min_ns"`
	P50     int64   `json:"p50_ns"`
	P90     int64   `json:"p90_ns"`
	P99     int64   `json:"p99_ns"`
	P999    int64   `json:"p999_ns"`
	P9999   int64   `json:"p9999_ns"`
	Max     int64   `json:"max_ns"`
	Mean    float64 `json:"mean_ns"`
}

func latencyOf(h *hdrhistogram.Histogram) *Latency {
	if h.TotalCount() == 0 {
		return nil
	}
	return &Latency{Samples: h.TotalCount(), Min: h.Min(), P50: h.ValueAtQuantile(50), P90: h.ValueAtQuantile(90), P99: h.ValueAtQuantile(99),
		P999: h.ValueAtQuantile(99.9), P9999: h.ValueAtQuantile(99.99), Max: h.Max(), Mean: h.Mean()}
}

// TCPReport counts connections.
type TCPReport struct {
	Accepted         uint64  `json:"accepted"` // SYNs that the receiving port saw
	Established      uint64  `json:"established"`
	Closed           uint64  `json:"closed"`
	Resets           uint64  `json:"resets"`
	EstablishedPerS  float64 `json:"established_per_s"`
	HandshakeTimeout uint64  `json:"unanswered"` // SYNs without an answer
}

// PortReport is a port's own view.
type PortReport struct {
	Name      string     `json:"name"`
	Driver    string     `json:"driver"`
	Mode      string     `json:"mode"`
	Sent      uint64     `json:"sent"`
	Received  uint64     `json:"received"`
	Replied   uint64     `json:"replied"`    // sent because of what was received
	ReplyLost uint64     `json:"reply_lost"` // for want of room
	Other     uint64     `json:"other"`      // received, neither stamped nor TCP of ours
	Losses    PortLosses `json:"losses"`
}

// PortLosses are frames that a port lost by itself.
type PortLosses struct {
	SendRefused   uint64 `json:"send_refused"` // on veth: the other end's ring was full
	RxRingFull    uint64 `json:"rx_ring_full"`
	FillRingEmpty uint64 `json:"fill_ring_empty"`
	RxDropped     uint64 `json:"rx_dropped"`
	Invalid       uint64 `json:"invalid_descriptor"`
}

func (r *run) report() (*Report, error) {
	o, t := &r.o, &r.o.Traffic
	seconds := r.sentUntil.Seconds()
	p := &Report{Driver: o.Driver, RxDriver: o.RxDriver, Kernel: kernel(), DurationS: seconds, OfferedPPS: o.Rate}
	if o.Tx != "" {
		p.Traffic = TrafficReport{Kind: t.Kind, Attack: t.Attack, Src: t.Src.String(), SrcPorts: t.SrcPorts.String(), Dst: t.Dst.String(), DstPorts: t.DstPorts.String(),
			Flows: t.Flows, Shuffle: t.Shuffle, Size: t.Mix.String(), Average: t.Mix.Average()}
	}
	var sentBytes, receivedBytes uint64
	latency := newHistogram()
	if s := r.sender; s != nil {
		p.Sent, sentBytes = s.count.sent, s.count.sentBytes
		p.Lag = latencyOf(s.lag)
		p.Ports = append(p.Ports, s.report())
	}
	if s := r.source; s != nil {
		p.Sent = s.sent()
		sentBytes = uint64(float64(p.Sent) * s.average)
		p.Ports = append(p.Ports, PortReport{Name: s.name, Driver: XDP, Mode: "live frames", Sent: p.Sent})
	}
	p.Attack = t.attackers(p.Sent)
	if s := r.counted(); s != nil {
		p.Received, receivedBytes, p.Reordered = s.count.received, s.count.receivedBytes, s.count.reordered
		latency.Merge(s.latency)
	}
	if s := r.receiver; s != nil && s != r.sender {
		p.Ports = append(p.Ports, s.report())
	}
	if s := r.sink; s != nil {
		var err error
		if p.Received, receivedBytes, err = s.read(latency); err != nil {
			return nil, err
		}
		p.Ports = append(p.Ports, PortReport{Name: s.name, Driver: XDP, Mode: s.mode, Received: p.Received})
	}
	got := p.Received
	if t.Kind == Connect || t.Kind == SYN || o.Respond {
		p.TCP = r.tcp(seconds, latency)
		if t.Kind == Connect {
			got = p.TCP.Established
			p.TCP.HandshakeTimeout = p.Sent - min(p.Sent, got)
		}
	}
	p.Latency = latencyOf(latency)
	if o.Tx != "" && (o.Rx != "" || t.Kind == Connect) {
		good := p.Sent - p.Attack
		p.Lost = int64(good) - int64(got)
		if good > 0 {
			p.Loss = max(float64(p.Lost)/float64(good), 0)
		}
	}
	if seconds > 0 {
		p.SentPPS, p.ReceivedPPS = float64(p.Sent)/seconds, float64(p.Received)/seconds
		p.SentMbps, p.ReceivedMbps = float64(sentBytes)*8/seconds/1e6, float64(receivedBytes)*8/seconds/1e6
	}
	return p, nil
}

func (r *run) tcp(seconds float64, latency *hdrhistogram.Histogram) *TCPReport {
	t := &TCPReport{}
	if s := r.receiver; s != nil {
		t.Accepted, t.Resets = s.tcp.accepted, s.tcp.resets
	}
	if s := r.sender; s != nil {
		t.Established, t.Closed = s.tcp.established, s.tcp.closed
		if s != r.receiver {
			t.Resets += s.tcp.resets
		}
		if s != r.counted() {
			latency.Merge(s.latency)
		}
	}
	if seconds > 0 {
		t.EstablishedPerS = float64(t.Established) / seconds
	}
	return t
}

func (s *station) report() PortReport {
	p := PortReport{Name: s.name, Driver: s.driver, Sent: s.count.sent, Received: s.count.received, Replied: s.count.replied,
		ReplyLost: s.count.replyLost, Other: s.count.other}
	for _, q := range s.queues {
		st := q.Stats()
		p.Mode = st.Mode
		p.Losses.SendRefused += st.SendLost
		p.Losses.RxRingFull += st.RxRingFull
		p.Losses.FillRingEmpty += st.FillRingEmpty
		p.Losses.RxDropped += st.RxDropped
		p.Losses.Invalid += st.InvalidDescriptor
	}
	return p
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
}

// Print writes the report for people.
func (p *Report) Print(w io.Writer) {
	for _, port := range p.Ports {
		fmt.Fprintf(w, "%-10s %s (%s): sent %d, received %d", port.Name, port.Driver, port.Mode, port.Sent, port.Received)
		for _, n := range []struct {
			what string
			n    uint64
		}{{"replied", port.Replied}, {"replies lost", port.ReplyLost}, {"other", port.Other}, {"refused by the device", port.Losses.SendRefused},
			{"rx ring full", port.Losses.RxRingFull}, {"fill ring empty", port.Losses.FillRingEmpty}, {"rx dropped", port.Losses.RxDropped},
			{"invalid descriptors", port.Losses.Invalid}} {
			if n.n > 0 {
				fmt.Fprintf(w, ", %s %d", n.what, n.n)
			}
		}
		fmt.Fprintln(w)
	}
	if p.Traffic.Kind != "" {
		fmt.Fprintf(w, "sent       %d frames in %.3f s: %s pps, %.1f Mbit/s\n", p.Sent, p.DurationS, si(p.SentPPS), p.SentMbps)
		if p.Attack > 0 {
			fmt.Fprintf(w, "attack     %d of these (%s)\n", p.Attack, p.Traffic.Attack)
		}
	}
	fmt.Fprintf(w, "received   %d frames: %s pps, %.1f Mbit/s; %d out of order\n", p.Received, si(p.ReceivedPPS), p.ReceivedMbps, p.Reordered)
	if t := p.TCP; t != nil {
		fmt.Fprintf(w, "tcp        established %d (%s/s), closed %d, accepted %d, resets %d, unanswered %d\n", t.Established, si(t.EstablishedPerS), t.Closed,
			t.Accepted, t.Resets, t.HandshakeTimeout)
	}
	if p.Traffic.Kind != "" {
		fmt.Fprintf(w, "lost       %d (%.6f %%)\n", p.Lost, p.Loss*100)
	}
	for _, l := range []struct {
		name string
		l    *Latency
	}{{"latency", p.Latency}, {"of it lag", p.Lag}} {
		if l.l != nil {
			fmt.Fprintf(w, "%-10s p50 %v  p90 %v  p99 %v  p99.9 %v  max %v  (%d samples)\n", l.name, us(l.l.P50), us(l.l.P90), us(l.l.P99), us(l.l.P999), us(l.l.Max), l.l.Samples)
		}
	}
}

func us(ns int64) time.Duration {
	if ns >= 10000 {
		return time.Duration(ns).Round(100 * time.Nanosecond)
	}
	return time.Duration(ns)
}

// si writes a number with three digits and k, M or G.
func si(v float64) string {
	for _, u := range []struct {
		f float64
		s string
	}{{1e9, " G"}, {1e6, " M"}, {1e3, " k"}} {
		if v >= u.f {
			return fmt.Sprintf("%.3g%s", v/u.f, u.s)
		}
	}
	return fmt.Sprintf("%.3g", v)
}

// Line is a run's progress on one line.
func (p Progress) Line() string {
	s := fmt.Sprintf("%6.1fs  tx %8spps  rx %8spps  sent %d  received %d", p.Elapsed.Seconds(), si(p.SentRate), si(p.ReceiveRate), p.Sent, p.Received)
	if p.Established > 0 {
		s += fmt.Sprintf("  established %d", p.Established)
	}
	return s
}
