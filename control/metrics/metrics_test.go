package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// parse reads text as Prometheus does.
func parse(t testing.TB, text string) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.UTF8Validation)
	all, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return all
}

// TestWriterIsRead: what a Writer writes Prometheus's own parser reads back, whatever is in a label.
func TestWriterIsRead(t *testing.T) {
	value := []string{"", "web", `a"b`, `\`, `\n`, "two\nlines", "{}=,", "wéb", "\x00\x7f", `ends with \`}
	family := NewCounter("weir_test_total", "A test: \\ and\na second line", "a", "b", "c")
	var out bytes.Buffer
	w := NewWriter(&out, nil)
	w.Family(family)
	type key struct{ a, b, c string }
	want := map[key]float64{}
	for i, a := range value {
		for j, b := range value {
			labels := AppendLabel(AppendLabel(nil, "a", a), "b", b)
			n := uint64(i*100 + j)
			w.Sample(family, labels, `c="x"`, n)
			want[key{a, b, "x"}] = float64(n)
			w.Sample(family, labels, "", n+1)
			want[key{a, b, ""}] = float64(n + 1)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	f := parse(t, out.String())["weir_test_total"]
	if f.GetType() != dto.MetricType_COUNTER || f.GetHelp() != family.Help || len(f.Metric) != len(want) {
		t.Fatalf("%v %q, %d samples, want %d", f.GetType(), f.GetHelp(), len(f.Metric), len(want))
	}
	for _, m := range f.Metric {
		var k key
		for _, l := range m.Label {
			switch l.GetName() {
			case "a":
				k.a = l.GetValue()
			case "b":
				k.b = l.GetValue()
			case "c":
				k.c = l.GetValue()
			}
		}
		if n, ok := want[k]; !ok || n != m.Counter.GetValue() {
			t.Errorf("%q is %v, want %v", k, m.Counter.GetValue(), n)
		}
	}
}

// TestWriterIsItsTwin: client_golang writes the same numbers of the same family.
func TestWriterIsItsTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	family := NewGauge("weir_test_things", "Things", "name")
	numbers := map[string]uint64{}
	for range 500 {
		numbers[fmt.Sprintf("n%x", r.Uint64())] = r.Uint64N(1 << 53)
	}
	var out bytes.Buffer
	w := NewWriter(&out, nil)
	w.Family(family)
	for name, n := range numbers {
		w.Sample(family, AppendLabel(nil, "name", name), "", n)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(twin{family, numbers})
	gathered, err := registry.Gather()
	if err != nil || len(gathered) != 1 {
		t.Fatal(gathered, err)
	}
	ours := parse(t, out.String())["weir_test_things"]
	if ours.GetHelp() != gathered[0].GetHelp() || ours.GetType() != gathered[0].GetType() || len(ours.Metric) != len(gathered[0].Metric) {
		t.Fatalf("%v\n%v", ours, gathered[0])
	}
	for _, m := range gathered[0].Metric {
		if n := numbers[m.Label[0].GetValue()]; float64(n) != m.Gauge.GetValue() {
			t.Errorf("%v: %d", m, n)
		}
	}
	for _, m := range ours.Metric {
		if n := numbers[m.Label[0].GetValue()]; float64(n) != m.Gauge.GetValue() {
			t.Errorf("%v: %d", m, n)
		}
	}
}

// twin is a collector of numbers by name.
type twin struct {
	family  *Family
	numbers map[string]uint64
}

func (c twin) Describe(ch chan<- *prometheus.Desc) { ch <- c.family.Desc() }
func (c twin) Collect(ch chan<- prometheus.Metric) {
	for name, n := range c.numbers {
		ch <- c.family.Sample(float64(n), name)
	}
}

// TestInvalidSample: a sample that client_golang does not take is an error of the scrape, not a panic.
func TestInvalidSample(t *testing.T) {
	var m dto.Metric
	if NewGauge("weir_test_things", "Things", "name").Sample(1).Write(&m) == nil {
		t.Error("a label is missing, and nobody says so")
	}
}

// broken takes some bytes and then none.
type broken struct{ left int }

var errBroken = errors.New("broken")

func (b *broken) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

// TestWriterEnds: an error stays, nothing is written after it, and no memory is taken for what is never sent.
func TestWriterEnds(t *testing.T) {
	family := NewCounter("weir_test_total", "A test", "a")
	to := &broken{left: 3 * chunk}
	w := NewWriter(to, nil)
	labels := AppendLabel(nil, "a", strings.Repeat("x", 1000))
	for range 2000 {
		w.Sample(family, labels, "", 1)
	}
	if err := w.Flush(); !errors.Is(err, errBroken) {
		t.Errorf("Flush: %v", err)
	}
	if n := cap(w.Buffer()); n > 4*chunk {
		t.Errorf("the buffer has grown to %d", n)
	}
	if allocs := testing.AllocsPerRun(100, func() { w.Sample(family, labels, `b="c"`, 1<<60) }); allocs != 0 {
		t.Errorf("a sample allocates %v times", allocs)
	}
}

// FuzzAppendLabel: no value gets out of its quotes.
func FuzzAppendLabel(f *testing.F) {
	f.Add("web", "80")
	f.Add(`a"} 7`, "\n# HELP x y")
	f.Add(`\`, `\\"`)
	family := NewCounter("weir_test_total", "A test", "a", "b")
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.ToValidUTF8(a, "") != a || strings.ToValidUTF8(b, "") != b {
			t.Skip("labels are UTF-8: configurations are")
		}
		var out bytes.Buffer
		w := NewWriter(&out, nil)
		w.Family(family)
		w.Sample(family, AppendLabel(AppendLabel(nil, "a", a), "b", b), "", 7)
		_ = w.Flush()
		all := parse(t, out.String())
		m := all["weir_test_total"].GetMetric()
		if len(all) != 1 || len(m) != 1 || m[0].Counter.GetValue() != 7 || len(m[0].Label) != 2 || m[0].Label[0].GetValue() != a || m[0].Label[1].GetValue() != b {
			t.Errorf("%q %q: %v", a, b, all)
		}
	})
}
