package control

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"weir/control/pcapng"
	"weir/dataplane"
)

// captured writes pcapng: each frame as it came and as it left, with what was decided as a comment.
type captured struct {
	words  *words
	out    *pcapng.Writer
	stages dataplane.Stage
}

func (c *Control) openCapture(w http.ResponseWriter, q *sightRequest) (sink, error) {
	return newCaptured(c.core, w, q, "weir "+c.options.Version)
}

func newCaptured(c *core, w io.Writer, q *sightRequest, application string) (sink, error) {
	var interfaces []pcapng.Interface
	for _, p := range c.engine.Snapshot().Ports {
		interfaces = append(interfaces, pcapng.Interface{Name: p.Name})
	}
	out, err := pcapng.NewWriter(w, application, interfaces, q.snaplen)
	stages := q.filter.Stages
	if stages == 0 {
		stages = dataplane.StageReceived | dataplane.StageSent | dataplane.StageDropped
	}
	return &captured{newWords(c), out, stages}, err
}

func (c *captured) take(e *dataplane.Event, at time.Time) (n uint64, err error) {
	v := c.words.view(e, at)
	came := e.Kind != dataplane.EventAlso && (c.stages&dataplane.StageReceived != 0 || c.stages&dataplane.StageDropped != 0 && e.Verdict == dataplane.Dropped)
	// What has waited is shown only where it says something new: it was received, and shown, when it began to wait.
	came = came && (e.Kind != dataplane.EventWaited || e.Sent.Port < 0)
	if came && e.Frame.Port >= 0 {
		n++
		err = c.out.Packet(e.Frame.Port, at, pcapng.Inbound, e.Frame.Len, e.Frame.Data, comment(v, false))
	}
	if err == nil && e.Sent.Port >= 0 && c.stages&dataplane.StageSent != 0 {
		n++
		err = c.out.Packet(e.Sent.Port, at, pcapng.Outbound, e.Sent.Len, e.Sent.Data, comment(v, true))
	}
	return n, err
}

func (c *captured) end(shown, full, over uint64) error {
	return c.out.Statistics(time.Now(), shown, full+over, missed(full, over))
}

// comment is what Wireshark shows beside the packet, as words that a display filter can look for: frame.comment contains "drop=no_backend".
func comment(v *TraceView, sent bool) string {
	var b strings.Builder
	add := func(format string, args ...any) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, format, args...)
	}
	switch {
	case sent && v.Sent.Own:
		add("stage=sent, made by weir")
	case sent:
		add("stage=sent")
	case v.Drop != "":
		add("stage=dropped")
	default:
		add("stage=received")
	}
	add("verdict=%s", v.Verdict)
	if v.Drop != "" {
		add("drop=%s (%s)", v.Drop, v.Why)
	}
	if v.Event == "waited" {
		add("has waited")
	}
	if v.Service != "" {
		add("service=%s", v.Service)
	}
	if v.VNI != 0 {
		add("vni=%d", v.VNI)
	}
	if c := v.Connection; c != nil {
		add("conn=%s from=%s state=%s", c.Fate, c.Way, c.State)
	}
	if x := v.Backend; x != nil {
		add("backend=%s server=%s forward=%s", x.Name, addressOf(backendKey{address: x.Address, port: x.Port, vni: x.VNI}), x.Forward)
	}
	if v.Steered != "" {
		add("steered=%s", v.Steered)
	}
	add("worker=%d number=%d", v.Worker, v.Number)
	return b.String()
}
