package control

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weir/conntrack"
	"weir/control/config"
	"weir/control/metrics"
	"weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/driver/wait"
	"weir/dataplane/packet"
)

// scrapeOf asks s for all metrics.
func scrapeOf(t testing.TB, s *scraper) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("%d %s\n%s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	return w.Body.String()
}

// sampled reads the text format: value by name and labels, as they are written. A sample that stands twice fails the test.
func sampled(t testing.TB, text string) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i+1:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, twice := all[line[:i]]; twice {
			t.Errorf("%s stands twice", line[:i])
		}
		all[line[:i]] = v
	}
	return all
}

// everything is a glance with something of all there is, so that each small family has a sample.
func everything() glance {
	counts := dataplane.PlaceTraffic{InFrames: 1, InBytes: 2, InDropped: 3, OutFrames: 4, OutBytes: 5, OutDropped: 6}
	return glance{
		stats: Stats{
			Verdicts: dataplane.Verdicts{Received: 21, Forwarded: 1, Answered: 2, Punted: 3, Consumed: 4, Dropped: 5, Held: 6}, Sent: 7, Passed: 8,
			Drops: map[string]uint64{"ttl": 5, "no_route": 0}, Steering: map[string]uint64{"take_service": 9},
			Ports: []PortView{{Name: "wan", Interface: "eth1", Driver: "af_xdp", Mode: "native", Setup: "weir", Up: true, Queues: 2, MAC: "02:00:00:00:00:01",
				MTU: 1500, Received: 1, Sent: 2, SendLost: 3, RxLost: 4, Invalid: 5, Wakeups: 6}},
			VXLAN: []SegmentView{{
				VNI: 5001, State: "up", VTEP: netip.MustParseAddr("192.0.2.1"), Port: 4789, BUMMode: "multicast", Group: netip.MustParseAddr("239.1.1.1"), Neighbors: 3,
				Stations:       EntriesView{Used: 1, Static: 2, Limit: 3, Frozen: 4, Moves: 5, Flaps: 6, Refused: 7},
				SegmentTraffic: dataplane.SegmentTraffic{InFrames: 1, InBytes: 2, OutFrames: 3, OutBytes: 4, Floods: 5, Copies: 6, ToGateway: 7},
				Drops:          map[string]uint64{"vxlan_ecn": 1}, Multicast: counts,
				Peers:     []PeerView{{Address: netip.MustParseAddr("192.0.2.21"), State: resolved, Stations: 2, PlaceTraffic: counts}},
				Access:    []AccessView{{Port: "lan", VLAN: 7, Stations: 3, PlaceTraffic: counts}},
				Strangers: []StrangerView{{Address: netip.MustParseAddr("192.0.2.99"), Frames: 8}},
			}},
		},
		status: Status{Version: "v1", Started: time.Unix(1000, 5e8), Loaded: time.Unix(2000, 0), Generation: 3, Connections: 4, Capacity: 5, HalfOpen: 6, HalfOpenCap: 7,
			Evicted: 8, TableMemory: MemoryView{Bytes: 9, HugeBytes: 10}, Health: HealthView{Up: 1, SlowStart: 2, Drain: 3, Drained: 4, Down: 5, Left: 6, Checks: 7, Running: 8, Late: 9}, Warnings: []string{"a", "b"}},
		workers: []WorkerView{{Worker: 1, CPU: 3, Wait: "adaptive", Received: 1, Vectors: 2, Rounds: 3, Sleeps: 4, Held: 5, Chunks: 6, Pages: "none", BeatAgeS: 0.25}},
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestScrape plays traffic and reads what the metrics say of it, in the words of the JSON views.
func TestScrape(t *testing.T) {
	b := newCoreBed(t, strings.Replace(web("10 3", "11 1"), "name: web", `name: wéb/1, persistence: {timeout: 60s}`, 1))
	s := newScraper(b.core, discard(), everything)
	before := sampled(t, scrapeOf(t, s))
	const name = `service="wéb/1",vip="198.18.9.9",port="80",protocol="tcp",`
	if n, ok := before[`weir_service_connections_total{`+name+`}`]; !ok || n != 0 {
		t.Errorf("a service without traffic: %v, there %t", n, ok)
	}
	for range 8 {
		b.connect()
	}
	got := sampled(t, scrapeOf(t, s))
	view := b.core.stats().Services[0]
	if view.Conns != 8 {
		t.Fatalf("%d connections", view.Conns)
	}
	var want = map[string]float64{
		`weir_service_info{` + name + `scheduler="wrr",}`:                               1,
		`weir_service_connections_total{` + name + `}`:                                  8,
		`weir_service_packets_total{` + name + `direction="in"}`:                        float64(view.InPackets),
		`weir_service_bytes_total{` + name + `direction="in"}`:                          float64(view.InBytes),
		`weir_service_packets_total{` + name + `direction="out"}`:                       0,
		`weir_frames_total{verdict="forwarded"}`:                                        1,
		`weir_backends{state="slow_start"}`:                                             2,
		`weir_backends{state="down"}`:                                                   5,
		`weir_healthchecks_late_total`:                                                  9,
		`weir_frames_received_total`:                                                    21,
		`weir_drops_total{reason="ttl"}`:                                                5,
		`weir_drops_total{reason="no_route"}`:                                           0,
		`weir_steering_frames_total{rule="take_service"}`:                               9,
		`weir_port_up{port="wan"}`:                                                      1,
		`weir_port_rx_lost_frames_total{port="wan"}`:                                    4,
		`weir_worker_heartbeat_age_seconds{worker="1"}`:                                 0.25,
		`weir_vxlan_peer_up{peer="192.0.2.21",vni="5001"}`:                              1,
		`weir_vxlan_peer_dropped_total{direction="out",peer="192.0.2.21",vni="5001"}`:   6,
		`weir_vxlan_access_frames_total{direction="in",port="lan",vlan="7",vni="5001"}`: 1,
		`weir_vxlan_frames_total{direction="out",vni="5001"}`:                           3,
		`weir_vxlan_strangers{vni="5001"}`:                                              1,
		`weir_start_time_seconds`:                                                       1000.5,
		`weir_config_last_reload_successful`:                                            1,
	}
	for i := range view.Backends {
		v := &view.Backends[i]
		labels := fmt.Sprintf(`%sbackend="198.18.1.%d:8000",`, name, 10+i)
		want[`weir_backend_info{`+labels+`address="`+fmt.Sprintf("%s:%d", v.Address, v.Port)+`",forward="nat",}`] = 1
		want[`weir_backend_weight{`+labels+`}`] = float64(v.Weight)
		want[`weir_backend_connections{`+labels+`state="active"}`] = float64(v.Active)
		want[`weir_backend_connections{`+labels+`state="inactive"}`] = float64(v.Inactive)
		want[`weir_backend_persistent{`+labels+`}`] = float64(v.Persistent)
		want[`weir_backend_connections_total{`+labels+`}`] = float64(v.Conns)
		want[`weir_backend_packets_total{`+labels+`direction="in"}`] = float64(v.InPackets)
		want[`weir_backend_bytes_total{`+labels+`direction="in"}`] = float64(v.InBytes)
	}
	for sample, n := range want {
		if x, ok := got[sample]; !ok || x != n {
			t.Errorf("%s: %v (there: %t), want %v", sample, x, ok, n)
		}
	}
}

// TestScrapeAfterReload: what a removed backend has counted stays with its service, whether or not connections bear its ID still.
func TestScrapeAfterReload(t *testing.T) {
	b := newCoreBed(t, web("10 1", "11 1"))
	s := newScraper(b.core, discard(), everything)
	for range 6 {
		b.connect()
	}
	const conns = `weir_service_connections_total{service="web",vip="198.18.9.9",port="80",protocol="tcp",}`
	count := func(when string) {
		t.Helper()
		text := scrapeOf(t, s)
		if n := sampled(t, text)[conns]; n != 6 {
			t.Errorf("%s: %v connections were opened", when, n)
		}
	}
	count("before")
	b.reload(web("11 1", "12 1"))
	count("with connections of the one that was removed")
	if text := scrapeOf(t, s); strings.Contains(text, `backend="198.18.1.10:8000"`) || !strings.Contains(text, `backend="198.18.1.12:8000"`) {
		t.Error("backends of another configuration")
	}
	for _, x := range b.core.reg.ids { // its connections end
		if x != nil && !x.live {
			for !x.idle() {
				x.load.Unbind(x.load.Active() > 0, 0, 0)
			}
		}
	}
	if b.core.mu.Lock(); !b.core.reg.collect(time.Now().Add(time.Hour), b.core.engine.Backend) {
		t.Error("nothing was given back")
	}
	b.core.mu.Unlock()
	count("when its ID was given back")
}

// TestScrapeNamesEachBackend: the rows of metrics are those of `weir list`, with backups among the others, VIPs of both families and ranges.
func TestScrapeNamesEachBackend(t *testing.T) {
	b := newCoreBed(t, `
  - {name: both, vips: [198.18.9.9, "2001:db8:9::9"], port: 8000-8010, backends: [{name: a, address: 198.18.1.10, backup: true}, {name: b, address: "2001:db8:1::10"},
      {name: c, address: 198.18.1.11}, {name: d, address: 198.18.1.12, backup: true}, {name: e, address: "2001:db8:1::11", backup: true, weight: 7}]}
  - {name: tunnels, vip: 203.0.113.0/28, port: 0, protocol: udp, persistence: {timeout: 60s}, forward: gre, backends: [{name: f, address: "2001:db8:1::10"}, {name: g, address: 198.18.1.11}]}
  - {name: empty, vip: 198.18.9.10, port: 80, backends: []}
`)
	got := sampled(t, scrapeOf(t, newScraper(b.core, discard(), everything)))
	services, backends := 0, 0
	for _, s := range b.core.stats().Services {
		port := strconv.Itoa(int(s.Port))
		if s.PortTo != 0 {
			port = fmt.Sprintf("%d-%d", s.Port, s.PortTo)
		}
		labels := fmt.Sprintf(`service="%s",vip="%s",port="%s",protocol="%s",`, s.Name, s.VIP, port, s.Protocol)
		if got[`weir_service_info{`+labels+`scheduler="`+s.Scheduler+`",}`] != 1 {
			t.Errorf("there is no service %s", labels)
		}
		services++
		for _, x := range s.Backends {
			labels := labels + `backend="` + x.Name + `",`
			info := fmt.Sprintf(`weir_backend_info{%saddress="%s",forward="%s",}`, labels, netip.AddrPortFrom(x.Address, x.Port), x.Forward)
			if weight, ok := got[`weir_backend_weight{`+labels+`}`]; !ok || weight != float64(x.Weight) || got[info] != 1 {
				t.Errorf("%s: weight %v, there %t, info %v", labels, weight, ok, got[info])
			}
			if _, ok := got[`weir_backend_persistent{`+labels+`}`]; ok != (s.Persistence != nil) {
				t.Errorf("%s: persistence %t", labels, ok)
			}
			backends++
		}
	}
	for sample := range got {
		if strings.HasPrefix(sample, "weir_service_info{") {
			services--
		}
		if strings.HasPrefix(sample, "weir_backend_info{") {
			backends--
		}
	}
	if services != 0 || backends != 0 {
		t.Errorf("%d services and %d backends too few", services, backends)
	}
}

// TestScrapeOfTheDead: a server that is down has no place in the plan, but one in the metrics.
func TestScrapeOfTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHealthBed(t, watched("", "10 weight: 3", "11 weight: 5")+"  - {name: other, vip: 198.18.9.10, port: 80, backends: [{name: d, address: 198.18.1.12, state: drain}]}\n")
		s := newScraper(b.core, discard(), everything)
		wants := func(when string, up, weight float64) {
			t.Helper()
			got := sampled(t, scrapeOf(t, s))
			const labels = `{service="web",vip="198.18.9.9",port="80",protocol="tcp",backend="198.18.1.10:8000",}`
			if got["weir_backend_up"+labels] != up || got["weir_backend_weight"+labels] != weight {
				t.Errorf("%s: up %v, weight %v", when, got["weir_backend_up"+labels], got["weir_backend_weight"+labels])
			}
			const other = `{service="other",vip="198.18.9.10",port="80",protocol="tcp",backend="d",}`
			if weight, ok := got["weir_backend_weight"+other]; !ok || weight != 0 || got["weir_backend_up"+other] != 1 {
				t.Errorf("in drain: weight %v, up %v", weight, got["weir_backend_up"+other])
			}
		}
		b.pass(5 * time.Second)
		wants("well", 1, 3)
		b.set(10, true)
		b.pass(30 * time.Second)
		wants("dead", 0, 0)
		b.set(10, false)
		b.pass(30 * time.Second)
		wants("back", 1, 3)
	})
}

// TestTooManyScrapes: a scrape needs memory, and there is that of two.
func TestTooManyScrapes(t *testing.T) {
	b := newCoreBed(t, web("10 1"))
	s := newScraper(b.core, discard(), everything)
	for range scrapes {
		<-s.free
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	s.free <- new(scratch)
	scrapeOf(t, s)
	scrapeOf(t, s)
}

// TestPromtool asks Prometheus's own linter.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not there (Debian: apt-get install prometheus)")
	}
	b := newCoreBed(t, strings.Replace(web("10 1"), "name: web", `name: wéb/1, persistence: {timeout: 60s}`, 1))
	c := exec.Command(promtool, "check", "metrics")
	c.Stdin = strings.NewReader(scrapeOf(t, newScraper(b.core, discard(), everything)))
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// families are those that a scrape shows, of the Go runtime and the process too.
func families(text string) (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) `).FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

// TestMetricsAreDocumented: docs/metrics.md has each family's row as the code has it, and no other, and a scrape shows each family.
func TestMetricsAreDocumented(t *testing.T) {
	var table bytes.Buffer
	row := func(all []*metrics.Family) {
		fmt.Fprint(&table, "| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n")
		for _, f := range all {
			fmt.Fprintln(&table, f.Row())
		}
		fmt.Fprintln(&table)
	}
	for _, part := range []struct {
		title    string
		families []*metrics.Family
	}{
		{"The daemon, frames, ports, workers, the table", small[:len(small)-len(overlayFamilies)]},
		{"Services and backends", wide},
		{"Segments", overlayFamilies},
	} {
		fmt.Fprintf(&table, "## %s\n\n", part.title)
		row(part.families)
	}
	const file, begin, end = "../docs/metrics.md", "<!-- tables: written by the test of package control -->\n\n", "<!-- end of tables -->\n"
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(doc), begin)
	tables, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the tables", file)
	}
	if tables != table.String() {
		if !*update {
			t.Errorf("%s is not what the code has: go test ./control -run %s -update", file, t.Name())
		} else if err := os.WriteFile(file, []byte(head+begin+table.String()+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := newCoreBed(t, web("10 1"))
	shown := families(scrapeOf(t, newScraper(b.core, discard(), everything)))
	for _, f := range slices.Concat(small, wide) {
		if !slices.Contains(shown, f.Name) {
			t.Errorf("%s is not shown", f.Name)
		}
	}
	for _, name := range shown {
		known := slices.ContainsFunc(slices.Concat(small, wide), func(f *metrics.Family) bool { return f.Name == name })
		if !known && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is in no table", name)
		}
	}
}

// BenchmarkScrape is a scrape of 10,000 services with one backend each, and with ten: what the daemon does for it, and with the way over
// loopback to a reader that throws it away.
func BenchmarkScrape(b *testing.B) {
	for _, servers := range []int{1, 10} {
		b.Run(fmt.Sprintf("services=10000,backends=%d", servers), func(b *testing.B) {
			table, err := conntrack.New(conntrack.Options{Capacity: 1024, Workers: 1})
			if err != nil {
				b.Fatal(err)
			}
			defer table.Close()
			c := newCore(table, 1, 1)
			var text strings.Builder
			text.WriteString(coreHead)
			for i := range 10_000 {
				fmt.Fprintf(&text, "  - {name: web-%d, vip: 198.19.%d.%d, port: 80, backends: [", i, i>>8, i&255)
				for j := range servers {
					fmt.Fprintf(&text, "{address: 198.18.%d.%d, port: 8000},", 1+j, 1+i%250)
				}
				text.WriteString("]}\n")
			}
			cfg, diags := config.Parse("many", []byte(text.String()))
			if config.HasErrors(diags) {
				b.Fatal(config.Errors(diags))
			}
			c.install(b, cfg)
			s := newScraper(c, discard(), everything)
			b.Run("over=nothing", func(b *testing.B) {
				w := nobody{header: http.Header{}}
				s.ServeHTTP(&w, nil) // makes the label text
				size := w.n
				b.ReportAllocs()
				for b.Loop() {
					s.ServeHTTP(&w, nil)
				}
				b.ReportMetric(float64(size)/1e6, "MB/scrape")
			})
			b.Run("over=loopback", func(b *testing.B) {
				server := httptest.NewServer(s)
				defer server.Close()
				for b.Loop() {
					resp, err := http.Get(server.URL)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.Copy(io.Discard, resp.Body); err != nil {
						b.Fatal(err)
					}
					resp.Body.Close()
				}
			})
		})
	}
}

// nobody takes an answer, and counts its bytes.
type nobody struct {
	header http.Header
	n      int
}

func (c *nobody) Header() http.Header         { return c.header }
func (c *nobody) WriteHeader(int)             {}
func (c *nobody) Write(b []byte) (int, error) { c.n += len(b); return io.Discard.Write(b) }

// BenchmarkScrapeGap reports the longest time that a busy worker stays away from its queues, in windows with control idle, with one scrape of 10,000 services
// with ten servers each over loopback, and with two goroutines that only count, for as long as the scrape took. A shared machine stops the worker by itself, and the more
// so the less it leaves to others on its other cores; so what counts is the scrape beside those that count.
func BenchmarkScrapeGap(b *testing.B) {
	c := newScaleCore(b)
	var reader config.Reader
	c.install(b, mustLoad(b, reader.Load, write(b, b.TempDir(), "a.yaml", many(10_000, 0))))
	pool, err := packet.NewPool(make([]byte, 256*2048), 2048)
	if err != nil {
		b.Fatal(err)
	}
	port, err := mem.NewPort(pool, mem.Options{Ring: 64})
	if err != nil {
		b.Fatal(err)
	}
	defer port.Close()
	waiter, err := wait.New(wait.Busy)
	if err != nil {
		b.Fatal(err)
	}
	defer waiter.Close()
	g := &gaps{Queue: port}
	r := &dataplane.Runner{Worker: c.engine.AddWorker(pool, []driver.Queue{g, nil}), Waiter: waiter, CPU: runtime.NumCPU() - 1}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + 2)) // as a daemon does, and that
	undo, err := confine([]int{r.CPU})
	if err != nil {
		b.Skip(err)
	}
	defer undo()
	r.Start()
	defer r.Stop()
	server := httptest.NewServer(newScraper(c, discard(), everything))
	defer server.Close()
	const window = 300 * time.Millisecond
	var idle, counted, scraped []float64
	longest := func(f func()) float64 {
		g.begin()
		began := time.Now()
		f()
		time.Sleep(window - time.Since(began))
		return float64(slices.Max(append(g.take(), 0))) / 1e3
	}
	scrape := func() {
		resp, err := http.Get(server.URL)
		if err != nil {
			b.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			b.Fatal(err)
		}
	}
	scrape()
	for b.Loop() {
		idle = append(idle, longest(func() {}))
		var took time.Duration
		scraped = append(scraped, longest(func() {
			began := time.Now()
			scrape()
			took = time.Since(began)
		}))
		counted = append(counted, longest(func() {
			var both sync.WaitGroup
			for range 2 {
				both.Go(func() {
					for began := time.Now(); time.Since(began) < took; {
					}
				})
			}
			both.Wait()
		}))
	}
	for _, x := range []struct {
		name string
		all  []float64
	}{{"idle", idle}, {"counting", counted}, {"scraped", scraped}} {
		slices.Sort(x.all)
		b.ReportMetric(x.all[len(x.all)/2], x.name+"-µs")
		b.ReportMetric(x.all[len(x.all)-1], x.name+"-max-µs")
	}
}
