package control

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/conntrack"
	"weir/control/config"
)

// many is a configuration of n services with ten backends each, every one another server's port. Where edit is not 0 each tenth service has
// a backend of another weight and each hundredth one backend less.
func many(n, edit int) string {
	var b strings.Builder
	b.WriteString(strings.Replace(strings.Replace(coreHead, "1024", "65536", 1), "services:\n", "routes: [{to: 198.18.0.0/16, via: 198.18.1.10}]\nservices:\n", 1))
	for i := range n {
		fmt.Fprintf(&b, "  - name: s%d\n    vip: 198.19.%d.%d\n    port: 80\n    scheduler: wrr\n    backends:\n", i, i>>8, i&255)
		for j := range 10 {
			weight := 1
			if edit != 0 && i%10 == 0 && j == 0 {
				weight += edit
			}
			if edit != 0 && i%100 == 0 && j == 9 {
				continue
			}
			server := i*10 + j
			fmt.Fprintf(&b, "      - {address: 198.18.%d.%d, port: %d, weight: %d}\n", 8+server>>8&63, server&255, 8000+server>>14, weight)
		}
	}
	return b.String()
}

func write(tb testing.TB, dir, name, text string) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

func mustLoad(tb testing.TB, read func(string) (*config.Config, []config.Diagnostic), path string) *config.Config {
	tb.Helper()
	cfg, diags := read(path)
	if config.HasErrors(diags) {
		tb.Fatal(diags[0])
	}
	return cfg
}

func newScaleCore(tb testing.TB) *core {
	tb.Helper()
	table, err := conntrack.New(conntrack.Options{Capacity: 1 << 16, Workers: 1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { table.Close() })
	return newCore(table, 1, 1)
}

func (c *core) install(tb testing.TB, cfg *config.Config) {
	tb.Helper()
	x, err := c.prepare(cfg, scaleSurroundings(cfg))
	if err != nil {
		tb.Fatal(err)
	}
	if err := c.publish(cfg, x, time.Now()); err != nil {
		tb.Fatal(err)
	}
}

// used is the CPU time that the process has used: what a wall clock on a shared machine does not tell.
func used(tb testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkLoad10k is a start with 10,000 services of ten backends each, from the file to the published snapshot.
func BenchmarkLoad10k(b *testing.B) {
	path := write(b, b.TempDir(), "a.yaml", many(10_000, 0))
	before := used(b)
	for b.Loop() {
		var reader config.Reader
		c := newScaleCore(b)
		c.install(b, mustLoad(b, reader.Load, path))
	}
	b.ReportMetric(float64((used(b)-before).Milliseconds())/float64(b.N), "cpu-ms/op")
}

// BenchmarkReload10k is a reload of as many, of which a tenth changed. The phases are reported apart.
func BenchmarkReload10k(b *testing.B) {
	dir := b.TempDir()
	paths := []string{write(b, dir, "a.yaml", many(10_000, 0)), write(b, dir, "b.yaml", many(10_000, 1))}
	c := newScaleCore(b)
	var reader config.Reader
	c.install(b, mustLoad(b, reader.Load, paths[0]))
	var load, compare, install time.Duration
	i, before := 0, used(b)
	for b.Loop() {
		i++
		t0 := time.Now()
		cfg := mustLoad(b, reader.Load, paths[i&1])
		t1 := time.Now()
		if d := config.Compare(c.cfg, cfg); len(d.Changed) != 1000 {
			b.Fatalf("%d services changed, want 1000", len(d.Changed))
		}
		t2 := time.Now()
		c.install(b, cfg)
		load, compare, install = load+t1.Sub(t0), compare+t2.Sub(t1), install+time.Since(t2)
	}
	b.ReportMetric(float64((used(b)-before).Milliseconds())/float64(i), "cpu-ms/op")
	for name, d := range map[string]time.Duration{"load": load, "compare": compare, "install": install} {
		b.ReportMetric(float64(d.Milliseconds())/float64(i), name+"-ms/op")
	}
}
