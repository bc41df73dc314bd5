package control

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"weir/control/config"
	"weir/control/dashboard"
	"weir/dataplane"
	"weir/docs"
)

func plainQuery() dashboard.Query {
	return dashboard.Query{Only: "all", Sort: "order", Limit: dashboard.DefaultLimit}
}

// TestLiveRates takes samples while clients connect, over a reload that edits, adds and removes.
func TestLiveRates(t *testing.T) {
	b := newCoreBed(t, web("10 2", "11 1"))
	rows := liveRows{core: b.core}
	rows.take(0)
	if p := rows.page(plainQuery()); p.Total != 1 || p.Found != 1 || len(p.Rows[0].Backends) != 2 || p.Rows[0].Rate != (Rate{}) || rows.sum != (Rate{}) {
		t.Errorf("before there is anything to compare with: %+v", p)
	}
	b.expect("2:1", 10, 11, 10, 10, 11, 10)
	rows.take(2)
	s := rows.page(plainQuery()).Rows[0]
	want := Rate{Conns: 3, InPackets: 3, InBytes: float64(s.InBytes) / 2}
	if s.Rate != want || rows.sum != want || s.Backends[0].Rate.Conns != 2 || s.Backends[1].Rate.Conns != 1 || s.Conns != 6 || s.Backends[0].Conns != 4 || s.InBytes == 0 {
		t.Errorf("six connections in two seconds: %+v", s)
	}
	if s.ID != "tcp 198.18.9.9:80" || s.At != "198.18.9.9:80" || s.Backends[0].At != "198.18.1.10:8000" || s.States != (stateCounts{Up: 2}) || s.Active+s.Inactive != 6 {
		t.Errorf("%+v", s)
	}

	b.reload("  - {name: other, vip: 198.18.9.10, port: 80, backends: [{address: 198.18.1.12, port: 8000}]}\n" + web("10 2", "12 1"))
	for range 3 { // two to the one, one to the other
		b.connect()
	}
	rows.take(1)
	p := rows.page(plainQuery())
	if p.Total != 2 || p.Rows[0].Name != "other" || p.Rows[0].Rate != (Rate{}) {
		t.Errorf("a service that is new: %+v", p)
	}
	s = p.Rows[1]
	if s.Rate.Conns != 3 || s.Conns != 9 || s.Backends[0].Rate.Conns != 2 || s.Backends[1].Rate.Conns != 0 || s.Backends[1].Conns != 1 || rows.sum.Conns != 3 {
		t.Errorf("one that goes on, with a server that is new: %+v", s)
	}
	rows.take(1)
	if s := rows.page(plainQuery()).Rows[1]; s.Rate != (Rate{}) || s.Conns != 9 {
		t.Errorf("when nothing happens: %+v", s)
	}
}

// TestLivePages compares pages with what a naive look at the same services finds.
func TestLivePages(t *testing.T) {
	var text strings.Builder
	for i := range 60 {
		name := fmt.Sprintf("S%d", (i*7)%60)
		fmt.Fprintf(&text, "  - {name: %s, vip: 198.18.9.%d, port: %d, protocol: %s, backends: [", name, i, 80+i%3, []string{"tcp", "udp"}[i%2])
		for j := range 1 + i%4 {
			state := ""
			if i%5 == 0 && j == 0 {
				state = ", state: drain"
			}
			fmt.Fprintf(&text, "{name: b%d-%d, address: 198.18.1.%d, port: 8000%s}, ", i, j, 10+j, state)
		}
		text.WriteString("]}\n")
	}
	b := newCoreBed(t, text.String())
	rows := liveRows{core: b.core}
	rows.take(0)
	rows.take(1)
	b.core.mu.Lock()
	all := b.core.services()
	b.core.mu.Unlock()
	rapid.Check(t, func(t *rapid.T) {
		q := plainQuery()
		q.Search = rapid.SampledFrom([]string{"", "s1", "S59", "udp", "198.18.9.5", ":81", "B7-0", "198.18.1.13", "nobody", " s3 "}).Draw(t, "search")
		q.Only = rapid.SampledFrom(dashboard.Onlys).Draw(t, "only")
		q.Sort = rapid.SampledFrom([]string{"order", "name", "down", "active", "conns"}).Draw(t, "sort")
		q.Reverse = rapid.Bool().Draw(t, "reverse")
		q.Offset, q.Limit = rapid.IntRange(0, 70).Draw(t, "offset"), rapid.IntRange(1, 30).Draw(t, "limit")
		var want []string
		for _, s := range all {
			at := fmt.Sprintf("%s %s:%d", s.Protocol, s.VIP, s.Port)
			look := strings.ToLower(s.Name + " " + at)
			trouble := false
			for _, x := range s.Backends {
				look += "\n" + x.Name + " " + fmt.Sprintf("%s:%d", x.Address, x.Port)
				trouble = trouble || x.State != "up"
			}
			if strings.Contains(look, strings.ToLower(strings.TrimSpace(q.Search))) && (q.Only != "trouble" || trouble) && q.Only != "traffic" { // there is none
				want = append(want, s.Name+" "+at)
			}
		}
		if q.Sort == "name" {
			slices.SortStableFunc(want, func(a, b string) int { return strings.Compare(strings.Fields(a)[0], strings.Fields(b)[0]) })
		}
		if q.Reverse {
			slices.Reverse(want)
		}
		p := rows.page(q)
		if p.Total != 60 || p.Found != len(want) {
			t.Fatalf("%+v: %d of %d, want %d", q, p.Found, p.Total, len(want))
		}
		offset := q.Offset
		for offset > 0 && offset >= len(want) {
			offset = max(0, (len(want)-1)/q.Limit*q.Limit)
			if len(want) == 0 {
				break
			}
		}
		want = want[min(offset, len(want)):min(len(want), offset+q.Limit)]
		var got []string
		for _, s := range p.Rows {
			got = append(got, s.Name+" "+s.ID)
			if s.States.Up+s.States.Drain != len(s.Backends) || s.More != 0 {
				t.Errorf("%s: %+v of %d", s.Name, s.States, len(s.Backends))
			}
		}
		if !slices.Equal(got, want) || len(want) > 0 && p.Offset != offset {
			t.Errorf("%+v at %d:\n%v, want\n%v", q, p.Offset, got, want)
		}
	})
}

// TestLiveManyBackends: of a service with very many the ones in trouble are shown.
func TestLiveManyBackends(t *testing.T) {
	var text strings.Builder
	text.WriteString("  - {name: web, vip: 198.18.9.9, port: 80, backends: [")
	for i := range 50 {
		fmt.Fprintf(&text, "{address: 198.18.1.10, port: %d, state: %s},", 8000+i, map[bool]string{true: "drain", false: "ready"}[i >= 40])
	}
	text.WriteString("]}\n")
	b := newCoreBed(t, text.String())
	rows := liveRows{core: b.core}
	rows.take(0)
	s := rows.page(plainQuery()).Rows[0]
	if len(s.Backends) != shownBackends || s.More != 50-shownBackends || s.States != (stateCounts{Up: 40, Drain: 10}) {
		t.Fatalf("%d and %d more, %+v", len(s.Backends), s.More, s.States)
	}
	if s.Backends[0].Port != 8000 || s.Backends[shownBackends-1].Port != 8049 || s.Backends[shownBackends-1].State != "drain" {
		t.Errorf("from %+v to %+v", s.Backends[0], s.Backends[shownBackends-1])
	}
}

// TestLiveSample looks at workers, ports, drops and segments twice, two seconds apart, with counters that lose what they had meanwhile.
func TestLiveSample(t *testing.T) {
	b := newCoreBed(t, web("10 1"))
	at := func(n uint64) glance {
		return glance{
			status: Status{Connections: 7},
			stats: Stats{Verdicts: dataplane.Verdicts{Received: 100 * n, Forwarded: 90 * n, Dropped: 10 * n}, Drops: map[string]uint64{"ttl": 4 * n, "table_full": 6 * n, "short": 0},
				Ports: []PortView{{Name: "wan", Received: 100 * n, Sent: 90 * n, RxLost: n, SendLost: 2 * n}},
				VXLAN: []SegmentView{{VNI: 5001, VTEP: netip.MustParseAddr("192.0.2.1"), SegmentTraffic: dataplane.SegmentTraffic{InFrames: 2 * n, OutBytes: 500 * n},
					Peers: []PeerView{{Address: netip.MustParseAddr("192.0.2.21"), PlaceTraffic: dataplane.PlaceTraffic{InFrames: 4 * n}}}, Access: []AccessView{{Port: "tenant", PlaceTraffic: dataplane.PlaceTraffic{OutBytes: 6 * n}}}}}},
			workers: []WorkerView{{Received: 100 * n, Vectors: 20 * n, Sleeps: 8 * n, CPUSeconds: float64(n)}},
		}
	}
	n := uint64(1)
	l := &sampler{look: func() glance { return at(n) }, rows: liveRows{core: b.core}, history: []point{}, version: "v", news: func(after uint64) (any, uint64) { return nil, after }}
	start := time.UnixMilli(1e12)
	l.Take(start, true)
	if s := l.View(plainQuery()).(liveSample); s.Now != nil || s.Workers[0].Packets != 0 || len(s.Drops) != 2 || s.Drops[0].PS != 0 {
		t.Errorf("the first sample: %+v", s)
	}
	if text, err := json.Marshal(l.Hello()); err != nil || strings.Contains(string(text), "null") {
		t.Errorf("hello: %.200s %v", text, err)
	}
	n = 2
	l.Take(start.Add(2*time.Second), false)
	s := l.View(plainQuery()).(liveSample)
	if s.Now == nil || *s.Now != (point{At: 1e12 + 2000, Received: 50, Forwarded: 45, Dropped: 5, Bridged: 2000, Open: 7}) {
		t.Errorf("%+v", s.Now)
	}
	if w := s.Workers[0]; w.Load != .5 || w.Packets != 50 || w.VectorsPS != 10 || w.Mean != 5 || w.SleepsPS != 4 {
		t.Errorf("%+v", w)
	}
	if p := s.Ports[0]; p.RxPS != 50 || p.TxPS != 45 || p.LostPS != 1.5 {
		t.Errorf("%+v", p)
	}
	if !slices.Equal(s.Drops, []liveDrop{{"table_full", 12, 3, true}, {"ttl", 8, 2, false}}) {
		t.Errorf("%+v", s.Drops)
	}
	if v := s.Segments.Rows[0]; v.Rate.InFrames != 1 || v.Rate.OutBytes != 250 || v.PeerRates[0].InFrames != 2 || v.PortRates[0].OutBytes != 3 {
		t.Errorf("%+v", v)
	}
	n = 1
	l.Take(start.Add(3*time.Second), false)
	if s := l.View(plainQuery()).(liveSample); s.Now.Received != 0 || s.Workers[0].Load != 0 || s.Ports[0].RxPS != 0 || len(l.history) != 2 {
		t.Errorf("counters that went back: %+v", s)
	}
	for i := range 2 * keptPoints {
		l.Take(start.Add(time.Duration(4+i)*time.Second), false)
	}
	if len(l.history) != keptPoints || l.history[0].At >= l.history[1].At {
		t.Errorf("%d points", len(l.history))
	}
}

// TestSegmentsOf searches, and bounds what is shown.
func TestSegmentsOf(t *testing.T) {
	var all []liveSegment
	for i := range 60 {
		s := liveSegment{SegmentView: SegmentView{VNI: uint32(5000 + i), VTEP: netip.MustParseAddr("192.0.2.1")}}
		for j := range 40 {
			s.Peers, s.PeerRates = append(s.Peers, PeerView{Address: netip.AddrFrom4([4]byte{198, 19, byte(i), byte(j)})}), append(s.PeerRates, placeRate{})
		}
		all = append(all, s)
	}
	for search, want := range map[string]int{"": 60, "5007": 1, "192.0.2.1": 60, "198.19.33.": 1, "x": 0} {
		p := segmentsOf(all, search)
		if p.Total != 60 || p.Found != want || len(p.Rows) != min(want, shownSegments) {
			t.Errorf("%q: %d, %d of %d", search, len(p.Rows), p.Found, p.Total)
		}
		for _, s := range p.Rows {
			if len(s.Peers) != shownPeers || len(s.PeerRates) != shownPeers || s.MorePeers != 40-shownPeers {
				t.Errorf("%d peers and %d more", len(s.Peers), s.MorePeers)
			}
		}
	}
	if len(all[0].Peers) != 40 {
		t.Error("the sample itself was cut")
	}
}

// TestDropsHaveMeanings: the page says of each reason what it means.
func TestDropsHaveMeanings(t *testing.T) {
	means := docs.Drops()
	for d := dataplane.Drop(1); d < dataplane.NumDrops; d++ {
		if text := means[d.String()]; text == "" || strings.Contains(text, "`") {
			t.Errorf("%s: %q", d, text)
		}
	}
	if n := int(dataplane.NumDrops) - 1; len(means) != n {
		t.Errorf("%d meanings of %d reasons", len(means), n)
	}
}

// BenchmarkLive is what one second of watching takes with 10,000 services of ten servers: the sample, and a page of it by traffic, as JSON.
func BenchmarkLive(b *testing.B) {
	c := newScaleCore(b)
	var reader config.Reader
	cfg := mustLoad(b, reader.Load, write(b, b.TempDir(), "weir.yaml", many(10_000, 0)))
	c.install(b, cfg)
	rows := liveRows{core: c}
	rows.take(0)
	q := plainQuery()
	q.Sort = "bits"
	b.Run("sample", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			rows.take(1)
		}
	})
	b.Run("page", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			text, err := json.Marshal(rows.page(q))
			if err != nil {
				b.Fatal(err)
			}
			n = len(text)
		}
		b.ReportMetric(float64(n)/1e3, "kB/page")
	})
}
