package control

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestDeleteConns deletes by each filter, and nothing that the filter does not name.
func TestDeleteConns(t *testing.T) {
	b := newAPIBed(t, web("10 1", "11 1"))
	for range 8 {
		b.connect() // from ports 10001 to 10008, to .10 and .11 in turn
	}
	count := func() (n int) { return b.core.engine.Table.Len() }
	active := func() (a [2]int) {
		for i, x := range b.view().Backends {
			a[i] = x.Active
		}
		return a
	}
	for _, x := range []struct {
		query         string
		status        int
		says          string
		deleted, left int
	}{
		{"", 400, "this is every connection", 0, 8},
		{"limit=1", 400, "this is every connection", 0, 8},
		{"all=no", 400, `must be true or false`, 0, 8},
		{"service=nobody", 404, "no such service", 0, 8},
		{"state=dead", 400, "must be one of", 0, 8},
		{"client=198.18.0.3", 200, "", 0, 8},
		{"client=198.18.0.2:10003", 200, "", 1, 7},
		{"client=198.18.0.2:10003", 200, "", 0, 7},
		{"state=established", 200, "", 0, 7},
		{"service=web&backend=198.18.1.11", 200, "", 4, 3},
		{"state=SYN_RECV&limit=2", 200, "", 2, 1},
		{"all=true", 200, "", 1, 0},
	} {
		status, text := b.ask("DELETE", "/conns?"+x.query, "")
		var c Changed
		if status != x.status || !strings.Contains(text, x.says) || status == 200 && (json.Unmarshal([]byte(text), &c) != nil || c.Entries != x.deleted) {
			t.Errorf("%s: %d %s, want %d %d %q", x.query, status, text, x.status, x.deleted, x.says)
		}
		if n := count(); n != x.left {
			t.Errorf("%s: %d are left, want %d", x.query, n, x.left)
		}
		if a := active(); a[0]+a[1] != x.left {
			t.Errorf("%s: %v are accounted for, %d are left", x.query, a, x.left)
		}
	}
	if to := b.send(10001, false); to != 0 {
		t.Errorf("a segment of a connection that was deleted went to .%d", to)
	}
	if b.connect() == 0 {
		t.Error("no new connection")
	}
}

// TestZero: views begin at zero again, sums stay sums, over a reload and over a server that goes; metrics never go back.
func TestZero(t *testing.T) {
	other := "  - {name: other, vip: 198.18.9.9, port: 81, backends: [{address: 198.18.1.10}]}\n"
	b := newAPIBed(t, web("10 1", "11 1")+other)
	s := newScraper(b.core, discard(), everything)
	for range 4 {
		b.connect()
	}
	web := func() ServiceView { return b.core.stats().Services[0] }
	if x := web(); x.Conns != 4 || x.Zeroed != nil {
		t.Fatalf("%+v", x)
	}
	before := sampled(t, scrapeOf(t, s))
	for _, x := range []struct {
		query  string
		status int
		says   string
	}{{"?service=nobody", 404, "no such service"}, {"?service=other", 200, `"entries": 1`}} {
		if status, text := b.ask("POST", "/stats/zero"+x.query, ""); status != x.status || !strings.Contains(text, x.says) {
			t.Errorf("%s: %d %s", x.query, status, text)
		}
	}
	if x := web(); x.Conns != 4 {
		t.Errorf("another service's counters were zeroed: %+v", x)
	}
	if c, err := b.client.Zero(""); err != nil || c.Entries != 2 {
		t.Errorf("%v %v", c, err)
	}
	if x := web(); x.Conns != 0 || x.InBytes != 0 || x.Backends[0].Conns != 0 || x.Backends[1].InPackets != 0 || x.Zeroed == nil || x.Backends[0].Active+x.Backends[1].Active != 4 {
		t.Errorf("%+v", x)
	}
	for range 2 {
		b.connect()
	}
	b.must("DELETE", "/services/web/backends/198.18.1.11", "")
	b.connect()
	if x := web(); x.Conns != 3 || x.InPackets != 3 {
		t.Errorf("%+v", x)
	}
	b.must("POST", "/reload", "")
	b.connect()
	x := web()
	if x.Conns != 4 || x.Backends[0].Conns+x.Backends[1].Conns != 4 || x.Zeroed == nil {
		t.Errorf("after a reload: %+v", x)
	}
	after := sampled(t, scrapeOf(t, s))
	for name, v := range before {
		if strings.Contains(name, "_total{") && after[name] < v {
			t.Errorf("%s went from %v back to %v", name, v, after[name])
		}
	}
	if r, err := b.core.Rates(t.Context(), 1e7); err != nil || r.Services[0].Conns != 0 {
		t.Errorf("%+v %v", r, err)
	}
}
