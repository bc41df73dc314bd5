package control

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

// segment is the overlay of these tests, with more of the segment's keys.
func segment(more string) string {
	return "  []\nvxlan:\n  segments:\n    - {vni: 5001, vtep: 198.18.0.1, gateway: {address: 198.18.64.1/24, mac: \"02:00:00:00:50:01\"}, " + more + "}\n"
}

const (
	usual  = `peers: [198.18.0.2, 198.18.0.3], access: [{port: lan, vlan: 30}, {port: lan}], fdb: [{mac: "02:00:00:00:aa:01", vtep: 198.18.0.3}]`
	byHand = "02:00:00:00:bb:01"
)

// kinds are the stations as "MAC kind place".
func (b *coreBed) kinds(vni uint32) (all []string) {
	b.t.Helper()
	views, err := b.core.Stations(vni, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, v := range views {
		all = append(all, v.MAC+" "+v.Kind+" "+v.StationPlace.String())
	}
	return all
}

func (b *coreBed) wants(what string, want ...string) {
	b.t.Helper()
	if got := b.kinds(5001); !slices.Equal(got, want) {
		b.t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// frameIn is a frame of a segment's station, tagged for the access port.
func frameIn(src string) []byte {
	return pkttest.Ethernet(append([]byte{0, 30, 0x88, 0xb5}, make([]byte, 46)...), pkttest.MAC(src), pkttest.MAC("ff:ff:ff:ff:ff:ff"), 0x8100)
}

const (
	gate     = "02:00:00:00:50:01 own port "
	fromFile = "02:00:00:00:aa:01 static vtep 198.18.0.3"
)

func TestRuntimeStations(t *testing.T) {
	b := newCoreBed(t, segment(usual))
	b.wants("as it is written", gate, fromFile)
	add := func(at StationPlace) error {
		return b.core.AddStation(StationRequest{VNI: 5001, MAC: byHand, StationPlace: at})
	}
	second := StationPlace{VTEP: netip.MustParseAddr("198.18.0.2")}
	if err := add(second); err != nil {
		t.Fatal(err)
	}
	b.wants("added", gate, fromFile, byHand+" runtime vtep 198.18.0.2")
	if err := add(StationPlace{Port: "lan", VLAN: 30}); err != nil {
		t.Fatal(err)
	}
	b.wants("moved by hand", gate, fromFile, byHand+" runtime port lan vlan 30")
	b.reload(segment(strings.Replace(usual, "198.18.0.2, ", "", 1)))
	b.wants("a reload that leaves its place alone", gate, fromFile, byHand+" runtime port lan vlan 30")
	b.reload(segment(strings.Replace(usual, "{port: lan, vlan: 30}, ", "", 1)))
	b.wants("its access port is gone", gate, fromFile)
	b.reload(segment(usual))
	b.wants("and back: forgotten is forgotten", gate, fromFile)
	if err := add(second); err != nil {
		t.Fatal(err)
	}
	b.reload(segment(strings.Replace(usual, `:aa:01"`, `:bb:01"`, 1)))
	b.wants("the configuration says otherwise, and holds", gate, byHand+" static vtep 198.18.0.3")
	b.reload(segment(usual))
	if err := add(second); err != nil {
		t.Fatal(err)
	}
	if err := b.core.RemoveStation(StationRequest{VNI: 5001, MAC: byHand}); err != nil {
		t.Error(err)
	}
	b.wants("removed", gate, fromFile)
	b.reload(segment(usual))
	b.wants("and not back after a reload", gate, fromFile)
}

func TestStationRequestsRefused(t *testing.T) {
	b := newCoreBed(t, segment(usual))
	at := StationPlace{VTEP: netip.MustParseAddr("198.18.0.2")}
	for _, x := range []struct {
		name string
		r    StationRequest
		want error
	}{
		{"no such segment", StationRequest{5002, byHand, at}, ErrNoSegment},
		{"segment zero", StationRequest{0, byHand, at}, ErrNoSegment},
		{"a group", StationRequest{5001, "01:00:5e:00:00:01", at}, ErrNotStation},
		{"nobody", StationRequest{5001, "00:00:00:00:00:00", at}, ErrNotStation},
		{"no address at all", StationRequest{5001, "02:00:00", at}, ErrNotStation},
		{"eight bytes", StationRequest{5001, "02:00:00:00:00:00:00:01", at}, ErrNotStation},
		{"the gateway", StationRequest{5001, "02:00:00:00:50:01", at}, ErrConfigured},
		{"configured", StationRequest{5001, "02:00:00:00:aa:01", at}, ErrConfigured},
		{"no peer", StationRequest{5001, byHand, StationPlace{VTEP: netip.MustParseAddr("198.18.0.9")}}, ErrNoPlace},
		{"no access port", StationRequest{5001, byHand, StationPlace{Port: "wan"}}, ErrNoPlace},
		{"another VLAN", StationRequest{5001, byHand, StationPlace{Port: "lan", VLAN: 31}}, ErrNoPlace},
		{"no port", StationRequest{5001, byHand, StationPlace{Port: "dmz"}}, ErrNoPlace},
		{"nowhere", StationRequest{VNI: 5001, MAC: byHand}, ErrNoPlace},
	} {
		if err := b.core.AddStation(x.r); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", x.name, err, x.want)
		}
	}
	if err := b.core.RemoveStation(StationRequest{VNI: 5001, MAC: byHand}); !errors.Is(err, ErrNoStation) {
		t.Errorf("removing what is not there: %v", err)
	}
	if err := b.core.RemoveStation(StationRequest{VNI: 5001, MAC: "02:00:00:00:aa:01"}); !errors.Is(err, ErrConfigured) {
		t.Errorf("removing what is configured: %v", err)
	}
	b.wants("nothing changed", gate, fromFile)
	none := newCoreBed(t, web("10 1"))
	if err := none.core.AddStation(StationRequest{5001, byHand, at}); !errors.Is(err, ErrNoSegment) {
		t.Errorf("without any segment: %v", err)
	}
	if n, err := none.core.FlushStations(StationRequest{}); n != 0 || err != nil {
		t.Errorf("flushing without any segment: %d, %v", n, err)
	}
}

func TestFlushStations(t *testing.T) {
	for _, x := range []struct {
		name string
		r    StationRequest
		n    int
		err  error
	}{
		{"all", StationRequest{}, 3, nil},
		{"of the segment", StationRequest{VNI: 5001}, 3, nil},
		{"of another segment", StationRequest{VNI: 5002}, 0, ErrNoSegment},
		{"behind a peer", StationRequest{StationPlace: StationPlace{VTEP: netip.MustParseAddr("198.18.0.2")}}, 1, nil},
		{"behind a peer that has none", StationRequest{VNI: 5001, StationPlace: StationPlace{VTEP: netip.MustParseAddr("198.18.0.3")}}, 0, nil},
		{"behind nobody", StationRequest{StationPlace: StationPlace{VTEP: netip.MustParseAddr("198.18.0.9")}}, 0, ErrNoPlace},
		{"on a VLAN", StationRequest{StationPlace: StationPlace{Port: "lan", VLAN: 30}}, 2, nil},
		{"untagged", StationRequest{StationPlace: StationPlace{Port: "lan"}}, 0, nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			b := newCoreBed(t, segment(usual))
			index := b.core.reg.overlay.segments[5001].index
			for i, at := range []vxlan.Place{vxlan.AtPeer(0), vxlan.AtAccess(0), vxlan.AtAccess(0)} {
				if l := b.core.reg.overlay.stations.Learn(index, vxlan.MAC(0x020000000c00+uint64(i)), at, 100); l != vxlan.New {
					t.Fatal(l)
				}
			}
			if n, err := b.core.FlushStations(x.r); n != x.n || !errors.Is(err, x.err) {
				t.Errorf("%d, %v; want %d, %v", n, err, x.n, x.err)
			}
			if got := len(b.kinds(5001)); got != 5-x.n {
				t.Errorf("%d stations are left", got)
			}
		})
	}
}

func TestSegmentViews(t *testing.T) {
	b := newCoreBed(t, segment(usual))
	b.core.clock = func() int64 { return b.now }
	b.ports[1].Inject(frameIn("02:00:00:00:cc:01"))
	b.worker.Round(b.now)
	all, err := b.core.Segments(5001)
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	v := all[0]
	if v.State != "up" || v.BUMMode != "head-end" || v.Port != 4789 || !v.Learning || v.AgeingS != 300 || v.Gateway.MAC != "02:00:00:00:50:01" {
		t.Errorf("%+v", v)
	}
	if v.Stations.Used != 3 || v.Stations.Static != 2 || v.Stations.Limit != 16384 || v.InFrames != 1 || v.InBytes != 60 || v.Floods != 1 || v.Copies != 2 || v.OutFrames != 3 {
		t.Errorf("%+v", v)
	}
	if p := v.Peers; len(p) != 2 || p[0].State != resolved || p[0].Port != "wan" || p[0].OutFrames != 1 || p[0].OutBytes != 60 || !p[0].Flooded ||
		p[1].State != unresolved || p[1].OutFrames != 1 || p[1].Stations != 1 {
		t.Errorf("%+v", p)
	}
	if a := v.Access; len(a) != 2 || a[0].VLAN != 30 || a[0].InFrames != 1 || a[0].Stations != 1 || a[1].VLAN != 0 || a[1].OutFrames != 1 {
		t.Errorf("%+v", a)
	}
	// The second peer's index goes to another, whose counters begin anew; what stays goes on.
	b.reload(segment(strings.Replace(usual, "198.18.0.3]", "198.18.0.4]", 1)[:strings.Index(usual, ", fdb")]))
	b.ports[1].Inject(frameIn("02:00:00:00:cc:01"))
	b.worker.Round(b.now)
	all, _ = b.core.Segments(0)
	if v = all[0]; v.InFrames != 2 || v.Peers[0].OutFrames != 2 || v.Peers[1].OutFrames != 1 || v.Peers[1].Address.String() != "198.18.0.4" {
		t.Errorf("after a reload: %+v", v)
	}
	for _, x := range []struct{ name, more, why string }{
		{"no peers", "access: [{port: lan}]", "there are no peers"},
		{"no route", "peers: [203.0.113.9]", "there is no route to any peer"},
	} {
		b.reload(segment(x.more))
		if all, _ = b.core.Segments(0); all[0].State != "down" || all[0].Reason != x.why {
			t.Errorf("%s: %s, %s", x.name, all[0].State, all[0].Reason)
		}
	}
	b.reload(strings.Replace(segment(usual), "vtep: 198.18.0.1,", "vtep: 198.18.0.77,", 1))
	if all, _ = b.core.Segments(0); all[0].State != "down" || all[0].Reason != "198.18.0.77 is no address of this host" {
		t.Errorf("a VTEP elsewhere: %s, %s", all[0].State, all[0].Reason)
	}
	if _, err := b.core.Segments(7); !errors.Is(err, ErrNoSegment) {
		t.Errorf("VNI 7: %v", err)
	}
	b.reload(web("10 1"))
	if all, err := b.core.Segments(0); len(all) != 0 || err != nil {
		t.Errorf("without segments: %v %v", all, err)
	}
}

// The API: what is asked by GET and changed by POST, and how it says no.
func TestStationsAPI(t *testing.T) {
	b := newCoreBed(t, segment(usual))
	path := filepath.Join(t.TempDir(), "weir.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := &Control{core: b.core, log: slog.New(slog.DiscardHandler)}
	a := c.serve(l, c.handler())
	defer a.close()
	client := NewClient(path)
	if x, err := client.Stations("/fdb/add", StationRequest{VNI: 5001, MAC: byHand, StationPlace: StationPlace{Port: "lan"}}); err != nil || x.Entries != 1 {
		t.Errorf("add: %v %v", x, err)
	}
	var stations []StationView
	if err := client.Get("/fdb?vni=5001&mac="+byHand, &stations); err != nil || len(stations) != 1 ||
		!reflect.DeepEqual(stations[0], StationView{VNI: 5001, MAC: byHand, Kind: "runtime", StationPlace: StationPlace{Port: "lan"}}) {
		t.Errorf("list: %+v %v", stations, err)
	}
	if x, err := client.Stations("/fdb/flush", StationRequest{}); err != nil || x.Entries != 0 {
		t.Errorf("flush: %v %v", x, err)
	}
	if x, err := client.Stations("/fdb/del", StationRequest{VNI: 5001, MAC: byHand}); err != nil || x.Entries != 1 {
		t.Errorf("del: %v %v", x, err)
	}
	var segments []SegmentView
	if err := client.Get("/vxlan", &segments); err != nil || len(segments) != 1 || segments[0].VNI != 5001 {
		t.Errorf("segments: %+v %v", segments, err)
	}
	var neighbors []NeighborView
	if err := client.Get("/fdb/neighbors?vni=5001", &neighbors); err != nil || len(neighbors) != 0 {
		t.Errorf("neighbours: %+v %v", neighbors, err)
	}
	for _, x := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/vxlan?vni=7", "", 404, "no such segment: VNI 7"},
		{"GET", "/vxlan?vni=0", "", 400, `vni "0": must be 1 to 16777215`},
		{"GET", "/fdb?vni=16777216", "", 400, "must be 1 to 16777215"},
		{"GET", "/fdb?mac=ff:ff:ff:ff:ff:ff", "", 400, "not the MAC address of one station"},
		{"GET", "/fdb/neighbors?vni=x", "", 400, "must be 1 to 16777215"},
		{"POST", "/fdb/add", `{"vni": 5001, "mac": "02:00:00:00:aa:01", "port": "lan"}`, 409, "it is in the configuration"},
		{"POST", "/fdb/add", `{"vni": 5001, "mac": "` + byHand + `", "vtep": "198.18.0.9"}`, 404, "must be one of its peers or access ports"},
		{"POST", "/fdb/add", `{"vni": 5001, "mac": "` + byHand + `", "vtep": "x"}`, 400, "the request's body"},
		{"POST", "/fdb/add", `{"vni": 5001, "mac": "` + byHand + `", "where": "x"}`, 400, "where"},
		{"POST", "/fdb/del", `{"vni": 5001, "mac": "` + byHand + `"}`, 404, "no such station"},
		{"POST", "/fdb/flush", ``, 400, "the request's body"},
	} {
		r, err := http.NewRequest(x.method, "http://weir"+x.path, strings.NewReader(x.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var f Failure
		err = json.NewDecoder(resp.Body).Decode(&f)
		resp.Body.Close()
		if err != nil || resp.StatusCode != x.status || !strings.Contains(f.Error, x.says) {
			t.Errorf("%s %s %s: %d %q %v; want %d and %q", x.method, x.path, x.body, resp.StatusCode, f.Error, err, x.status, x.says)
		}
	}
	for _, path := range []string{"/fdb/add", "/fdb/del", "/fdb/flush"} { // a change is no GET
		if err := client.Get(path, &stations); err == nil {
			t.Errorf("GET %s changes something", path)
		}
	}
}

// A segment that floods to a group says so, and counts what goes there; one that is open shows whom it has let in.
func TestGroupView(t *testing.T) {
	b := newCoreBed(t, segment("group: 239.1.1.1, group_interface: wan, accept: any, access: [{port: lan, vlan: 30}]"))
	b.core.clock = func() int64 { return b.now }
	b.ports[1].Inject(frameIn("02:00:00:00:cc:01"))
	b.worker.Round(b.now)
	all, err := b.core.Segments(0)
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	v := all[0]
	if v.State != "up" || v.BUMMode != "multicast" || v.Group.String() != "239.1.1.1" || v.Multicast.OutFrames != 1 || v.Multicast.OutBytes != 60 || v.OutFrames != 1 || len(v.Peers) != 0 {
		t.Errorf("%+v", v)
	}
	b.core.mu.Lock()
	b.core.reg.overlay.segments[5001].adopted[netip.MustParseAddr("198.18.0.2")] = vxlan.SecondOf(b.now)
	b.core.mu.Unlock()
	b.reload(segment("group: 239.1.1.1, group_interface: wan, accept: any, access: [{port: lan, vlan: 30}]"))
	all, _ = b.core.Segments(0)
	if p := all[0].Peers; len(p) != 1 || !p[0].Adopted || p[0].Flooded || p[0].State != resolved {
		t.Errorf("%+v", p)
	}
}

// TestNoRoomForAStation: a configuration with a static station that the table has no room for is in force all the same, as a whole, and says so.
func TestNoRoomForAStation(t *testing.T) {
	const more = `, fdb: [{mac: "02:00:00:00:aa:01", vtep: 198.18.0.3}, {mac: "02:00:00:00:aa:02", vtep: 198.18.0.3}]`
	b := newAPIBed(t, segment("peers: [198.18.0.3]"))
	var err error
	if b.core.reg.overlay.stations, err = vxlan.NewFDB(vxlan.FDBOptions{Capacity: 1, Segments: maxSegments}); err != nil {
		t.Fatal(err)
	}
	generation := b.core.generation
	b.write(segment("peers: [198.18.0.3]"+more) + "    - {vni: 5002, vtep: 198.18.0.1, accept: any}\n")
	var o Outcome
	if status, text := b.ask("POST", "/reload", ""); json.Unmarshal([]byte(text), &o) != nil || !o.OK || o.Generation != generation+1 ||
		len(o.Diagnostics) == 0 || !strings.Contains(o.Diagnostics[0], "the table is full") {
		t.Errorf("the reload came to %d %s", status, text)
	}
	b.core.mu.Lock()
	defer b.core.mu.Unlock()
	if s := b.core.engine.Snapshot(); s.Generation != b.core.generation || len(b.core.reg.overlay.segments) != len(b.core.cfg.VXLAN.Segments) {
		t.Errorf("workers have generation %d, control %d with %d segments, numbered are %d", s.Generation, b.core.generation,
			len(b.core.cfg.VXLAN.Segments), len(b.core.reg.overlay.segments))
	}
	b.core.reg.overlay.adopt(b.core.cfg, 1) // as control does twice a second
}
