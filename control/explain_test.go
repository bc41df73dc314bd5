package control

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"weir/dataplane"
	"weir/dataplane/packet"
)

// asked is a path with a query.
func asked(path string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return path + "?" + q.Encode()
}

// TestExplainView: what the API says of a new connection, of one that is there, and of what comes to nothing.
func TestExplainView(t *testing.T) {
	b := newCoreBed(t, web("10 3", "11 1", "12 0")+"  - {name: far, vip: 198.18.9.10, port: 8000-8010, protocol: udp, scheduler: sh, flags: [sh-port], forward: dr,"+
		" deny: [198.18.0.0/24], backends: [{name: f, address: 198.18.7.7}]}\n")
	b.core.clock = func() int64 { return b.now }
	ask := func(protocol uint8, client, virtual string) ExplainView {
		t.Helper()
		v, err := b.core.Explain(dataplane.Question{Protocol: protocol, Client: netip.MustParseAddrPort(client), Virtual: netip.MustParseAddrPort(virtual)})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := ask(packet.ProtoTCP, "198.18.0.2:1", "198.18.9.9:80")
	to := b.connect()
	if v.Fate != dataplane.FateScheduled || v.Backend == nil || v.Backend.Address != netip.AddrFrom4([4]byte{198, 18, 1, to}) || v.Backend.Name != fmt.Sprintf("198.18.1.%d:8000", to) ||
		v.Backend.Forward != "nat" || v.Backend.Way != resolved || v.Backend.OutPort != "lan" || v.Backend.NextHop != v.Backend.Address || v.Backend.Rewrites {
		t.Errorf("a new one: %+v %+v, but it went to %d", v, v.Backend, to)
	}
	if want := (&ServiceRef{Name: "web", VIP: VIP{netip.MustParsePrefix("198.18.9.9/32")}, Port: 80, Protocol: "tcp", Scheduler: "wrr"}); !reflect.DeepEqual(v.Service, want) {
		t.Errorf("service %+v", v.Service)
	}
	if len(v.Schedulers) != 1 || v.Why != v.Schedulers[0].Why || v.Schedulers[0].Level != 1 || len(v.Schedulers[0].Candidates) != 3 {
		t.Fatalf("schedulers %+v", v.Schedulers)
	}
	for i, c := range v.Schedulers[0].Candidates {
		want := CandidateView{Name: fmt.Sprintf("198.18.1.%d:8000", 10+i), Address: netip.AddrFrom4([4]byte{198, 18, 1, byte(10 + i)}), Port: 8000, Weight: []int{3, 1, 0}[i],
			Usable: i < 2, Chosen: byte(10+i) == to}
		if !reflect.DeepEqual(c, want) {
			t.Errorf("candidate %d: %+v, want %+v", i, c, want)
		}
	}
	v = ask(packet.ProtoTCP, fmt.Sprintf("198.18.0.2:%d", b.port), "198.18.9.9:80")
	if v.Fate != dataplane.FateConnection || v.Connection == nil || v.Connection.State != "SYN_RECV" || v.Schedulers != nil || v.Backend.Address.As4()[3] != to || v.Why == "" {
		t.Errorf("one that is there: %+v", v)
	}
	if last := ask(packet.ProtoTCP, "198.18.0.2:1", "198.18.9.9:80").Schedulers[0].Last; last != fmt.Sprintf("198.18.1.%d:8000", to) {
		t.Errorf("wrr stands at %q", last)
	}
	v = ask(packet.ProtoUDP, "198.18.128.7:1", "198.18.9.10:8005")
	if v.Fate != dataplane.FateScheduled || v.Backend.Name != "f" || v.Backend.Forward != "dr" || v.Backend.Way != noRoute || v.Service.Port != 8000 || v.Service.PortTo != 8010 ||
		!slices.Equal(v.Service.Flags, []string{"sh-port"}) || !strings.HasPrefix(v.Why, "the owner of bucket ") {
		t.Errorf("a range: %+v %+v %+v", v, v.Service, v.Backend)
	}
	for _, x := range []struct {
		protocol        uint8
		client, virtual string
		fate            dataplane.Fate
		why             string
	}{
		{packet.ProtoUDP, "198.18.0.9:1", "198.18.9.10:8000", dataplane.FateDenied, "allow, deny"},
		{packet.ProtoTCP, "198.18.9.9:1", "198.18.9.9:80", dataplane.FateMartian, "martian_source"},
		{packet.ProtoTCP, "198.18.0.2:1", "198.18.9.9:81", dataplane.FateHost, "the address is a VIP, but of no service"},
		{packet.ProtoUDP, "198.18.0.2:1", "198.18.9.9:80", dataplane.FateHost, "the address is a VIP, but of no service"},
		{packet.ProtoTCP, "198.18.0.2:1", "198.18.9.77:80", dataplane.FateHost, "no VIP of ours"},
	} {
		if v := ask(x.protocol, x.client, x.virtual); v.Fate != x.fate || !strings.Contains(v.Why, x.why) || v.Backend != nil {
			t.Errorf("%s -> %s: %s: %s, want %s: %s", x.client, x.virtual, v.Fate, v.Why, x.fate, x.why)
		}
	}
	b.reload(web("10 0", "11 0"))
	if v := ask(packet.ProtoTCP, "198.18.0.2:1", "198.18.9.9:80"); v.Fate != dataplane.FateNoBackend || v.Why != fates[dataplane.FateNoBackend] || v.Schedulers[0].Why != "none is usable: weight 0, or overloaded" {
		t.Errorf("all drained: %+v", v)
	}
	if _, err := b.core.Explain(dataplane.Question{Protocol: packet.ProtoTCP, Client: netip.MustParseAddrPort("198.18.0.2:1"), Virtual: netip.MustParseAddrPort("198.18.9.9:80"), VNI: 7}); !errors.Is(err, ErrNoSegment) {
		t.Errorf("a segment that there is not: %v", err)
	}
}

// TestEveryFateHasAReason: none is told without a word of why.
func TestEveryFateHasAReason(t *testing.T) {
	for _, f := range []dataplane.Fate{dataplane.FatePersistent, dataplane.FateConnection, dataplane.FateBackendGone, dataplane.FateNoBackend, dataplane.FateTableFull, dataplane.FateDenied,
		dataplane.FateMartian, dataplane.FateRouted, dataplane.FateHost} {
		if fates[f] == "" {
			t.Errorf("%s has none", f)
		}
	}
}

// TestConnFilter asks for some of many connections.
func TestConnFilter(t *testing.T) {
	b := newCoreBed(t, web("10 1", "11 1")+"  - {name: idle, vip: \"2001:db8:9::9\", port: 80, backends: [{name: i, address: \"2001:db8:1::10\"}]}\n"+
		"  - {name: none, vip: 198.18.9.11, port: 8000-8010, backends: []}\n")
	b.core.clock = func() int64 { return b.now }
	for range 6 {
		b.connect()
	}
	b.send(b.port, false) // the last is established
	first := b.port - 5
	for _, x := range []struct {
		query []string
		want  int
		err   error
	}{
		{nil, 6, nil},
		{[]string{"limit", "4"}, 4, nil},
		{[]string{"limit", "0"}, 6, nil},
		{[]string{"service", "web"}, 6, nil},
		{[]string{"service", "198.18.9.9"}, 6, nil},
		{[]string{"service", "198.18.9.9:80"}, 6, nil},
		{[]string{"service", "idle"}, 0, nil},
		{[]string{"service", "[2001:db8:9::9]:80"}, 0, nil},
		{[]string{"service", "none"}, 0, nil},
		{[]string{"service", "198.18.9.11:8000-8010"}, 0, nil},
		{[]string{"service", "198.18.9.9:81"}, 0, ErrNoService},
		{[]string{"service", "wed"}, 0, ErrNoService},
		{[]string{"backend", "198.18.1.10"}, 3, nil},
		{[]string{"backend", "198.18.1.11:8000"}, 3, nil},
		{[]string{"backend", "198.18.1.11:8000", "limit", "2"}, 2, nil},
		{[]string{"backend", "i"}, 0, nil},
		{[]string{"backend", "198.18.1.12"}, 0, ErrNoBackend},
		{[]string{"backend", "i", "service", "web"}, 0, ErrNoBackend},
		{[]string{"client", "198.18.0.2"}, 6, nil},
		{[]string{"client", "198.18.0.0/24"}, 6, nil},
		{[]string{"client", fmt.Sprintf("198.18.0.2:%d", first)}, 1, nil},
		{[]string{"client", "198.18.0.3"}, 0, nil},
		{[]string{"client", "2001:db8::/32"}, 0, nil},
		{[]string{"state", "SYN_RECV"}, 5, nil},
		{[]string{"state", "established"}, 1, nil},
		{[]string{"state", "time_wait"}, 0, nil},
		{[]string{"state", "syn_recv", "backend", "198.18.1.10", "client", "198.18.0.2", "service", "web"}, 3, nil},
	} {
		f, err := connFilterOf(httptest.NewRequest("GET", asked("/conns", x.query...), nil))
		if err != nil {
			t.Errorf("%q: %v", x.query, err)
			continue
		}
		all, err := b.core.Conns(f)
		if len(all) != x.want || !errors.Is(err, x.err) {
			t.Errorf("%q: %d connections, %v; want %d, %v", x.query, len(all), err, x.want, x.err)
		}
		for _, c := range all {
			if c.Service != "web" {
				t.Errorf("%q: of service %q", x.query, c.Service)
			}
		}
	}
	// What is written as it is found is what a list of it would be.
	for _, query := range [][]string{{}, {"limit", "1"}, {"state", "TIME_WAIT"}} {
		w, request := httptest.NewRecorder(), httptest.NewRequest("GET", asked("/conns", query...), nil)
		b.core.serveConns(w, request)
		f, _ := connFilterOf(request)
		all, _ := b.core.Conns(f)
		want := httptest.NewRecorder()
		writeJSON(want, 200, all)
		if w.Code != 200 || w.Body.String() != want.Body.String() || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%q: %d %s\n%s", query, w.Code, w.Body, want.Body)
		}
	}
	w := httptest.NewRecorder()
	if b.core.serveConns(w, httptest.NewRequest("GET", "/conns?service=wed", nil)); w.Code != 404 {
		t.Errorf("a service that there is not: %d %s", w.Code, w.Body)
	}
	for _, query := range [][]string{{"limit", "-1"}, {"limit", "x"}, {"state", "OPEN"}, {"client", "somebody"}, {"client", "198.18.0.2:0"}} {
		if f, err := connFilterOf(httptest.NewRequest("GET", asked("/conns", query...), nil)); err == nil {
			t.Errorf("%q: %+v", query, f)
		}
	}
	for _, query := range [][]string{
		{}, {"protocol", "icmp", "client", "198.18.0.2:1", "virtual", "198.18.9.9:80"}, {"protocol", "tcp", "client", "198.18.0.2", "virtual", "198.18.9.9:80"},
		{"protocol", "tcp", "client", "[2001:db8::1]:1", "virtual", "198.18.9.9:80"}, {"protocol", "tcp", "client", "198.18.0.2:1"},
		{"protocol", "tcp", "client", "198.18.0.2:1", "virtual", "198.18.9.9:80", "vni", "0"},
	} {
		if q, err := questionOf(httptest.NewRequest("GET", asked("/explain", query...), nil)); err == nil {
			t.Errorf("%q: %+v", query, q)
		}
	}
}
