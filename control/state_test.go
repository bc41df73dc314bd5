package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weir/conntrack"
	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/packet"
	"weir/vxlan"
)

// inMemory is a directory on a tmpfs.
func inMemory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "weir-test-")
	if err != nil {
		t.Skipf("no directory in memory: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Skip("/dev/shm is no tmpfs")
	}
	return dir
}

// life is one process after another with one state: what a restart is for control.
type life struct {
	*coreBed
	dir, place string
	capacity   int
	log        bytes.Buffer
	state      *state
}

func newLife(t *testing.T) *life {
	return &life{coreBed: &coreBed{t: t, port: 10000}, dir: t.TempDir(), place: inMemory(t), capacity: 1024}
}

// start begins with what the process before has left, as Control.start does.
func (l *life) start(services string) {
	l.t.Helper()
	l.now = dataplane.Monotonic()
	l.log.Reset()
	l.state = &state{log: slog.New(slog.NewTextHandler(&l.log, nil)), dir: l.dir, places: []string{l.place}, want: l.place,
		positions: side{name: positionsFile}, stations: side{name: stationsFile}}
	reg := newRegistry(dataplane.DefaultMaxBackends, 1)
	table, err := l.state.open(conntrack.Options{Capacity: l.capacity, Workers: 1, Keep: reg.knows, Kept: reg.bear}, reg.restore)
	if err != nil {
		l.t.Fatal(err)
	}
	l.core = newCoreOf(table, reg, 1, 1)
	l.core.state = l.state
	l.core.reg.renamed = true
	l.reload(services)
	l.core.reg.weigh()
	l.core.resume()
	l.worker, l.ports = attach(l.t, l.core)
}

// kill ends the process without a last word.
func (l *life) kill() {
	l.t.Helper()
	if err := l.core.engine.Table.Close(); err != nil {
		l.t.Fatal(err)
	}
	l.state.file.Close()
	l.state.lock.Close()
}

// counts are active and inactive connections and templates of each backend, by the last byte of its address.
func (l *life) counts() string {
	var all []string
	for _, b := range l.core.reg.backends {
		all = append(all, fmt.Sprintf(".%d %d/%d/%d", b.key.address.As4()[3], b.load.Active(), b.load.Inactive(), b.load.Persistent()))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func TestARestartIsAReload(t *testing.T) {
	for _, c := range []struct {
		name   string
		after  string // services of the second process
		to     [3]byte
		counts string
	}{
		{"nothing has changed", web("10 1", "11 1", "12 1"), [3]byte{10, 11, 12}, ".10 1/0/0, .11 1/0/0, .12 1/0/0"},
		{"in another order", web("12 1", "10 1", "11 1"), [3]byte{10, 11, 12}, ".10 1/0/0, .11 1/0/0, .12 1/0/0"},
		{"a server less", web("10 1", "12 1"), [3]byte{10, 0, 12}, ".10 1/0/0, .11 1/0/0, .12 1/0/0"},
		{"a server less whose connections end", strings.Replace(web("10 1", "12 1"), "scheduler: wrr", "scheduler: wrr, conntrack: {expire_nodest_conn: true}", 1),
			[3]byte{10, 0, 12}, ".10 1/0/0, .11 0/0/0, .12 1/0/0"},
		{"another service has the server", "  - {name: other, vip: 198.18.9.10, port: 80, backends: [{address: 198.18.1.10, port: 8000}]}\n" + web("11 1", "12 1"),
			[3]byte{0, 11, 12}, ".10 0/0/0, .10 1/0/0, .11 1/0/0, .12 1/0/0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLife(t)
			l.start(web("10 1", "11 1", "12 1"))
			l.expect("before", 10, 11, 12)
			for range 3 { // each of the processes that follow finds it as the first one did
				l.kill()
				l.start(c.after)
				if got := l.counts(); got != c.counts {
					t.Errorf("connections are %s, want %s", got, c.counts)
				}
				for i, want := range c.to {
					if got := l.send(uint16(10001+i), false); got != want {
						t.Errorf("connection %d goes to .%d, want .%d", i, got, want)
					}
				}
			}
			l.kill()
		})
	}
}

// A number that was given to another server between two records must not lead anybody's connection there.
func TestIDsThatAreUsedAgainAreWrittenDown(t *testing.T) {
	l := newLife(t)
	l.start(web("10 1", "11 1"))
	l.expect("before", 10)
	l.reload(web("11 1")) // .10 keeps its ID for its connection
	l.kill()
	l.start(web("12 1", "11 1"))
	if got := l.send(10001, false); got != 0 {
		t.Errorf("a connection of .10 goes to .%d", got)
	}
	ids := map[byte]uint32{}
	for _, b := range l.core.reg.backends {
		ids[b.key.address.As4()[3]] = b.id
	}
	if ids[10] == ids[12] || ids[10] == ids[11] {
		t.Errorf("IDs are %v", ids)
	}
	l.kill()
	l.start(web("10 1", "11 1"))
	if got := l.send(10001, false); got != 10 {
		t.Errorf("the server is back, but its connection goes to .%d", got)
	}
	l.kill()
}

func TestSchedulersGoOnWhereTheyStood(t *testing.T) {
	l := newLife(t)
	l.start(web("10 3", "11 2", "12 1"))
	var want []byte
	for range 12 {
		want = append(want, l.connect())
	}
	fresh := newLife(t)
	fresh.start(web("10 3", "11 2", "12 1"))
	fresh.state.hurry()
	var got []byte
	for range 12 {
		got = append(got, fresh.connect())
		fresh.core.mu.Lock()
		fresh.state.hurry()
		fresh.core.keep(fresh.core.loaded)
		fresh.core.mu.Unlock()
		fresh.kill()
		fresh.start(web("10 3", "11 2", "12 1"))
	}
	if !bytes.Equal(got, want) {
		t.Errorf("with a restart after each connection %v, without %v", got, want)
	}
	fresh.kill()
	l.kill()
}

func TestThresholdsHoldAfterARestart(t *testing.T) {
	l := newLife(t)
	services := strings.ReplaceAll(web("10 1"), "weight: 1", "weight: 1, upper_threshold: 2")
	l.start(services)
	l.expect("up to the threshold", 10, 10, 0)
	l.kill()
	l.start(services)
	l.expect("after", 0)
	l.kill()
}

func TestWhereTheTableCannotBeTakenOver(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(l *life)
		says  string
	}{
		{"another layout", func(l *life) { patch(l, 8, 99) }, "table has another layout: version 99, this program knows version 3"},
		{"a damaged header", func(l *life) { patch(l, 24, 7) }, "header of the table is damaged"},
		{"no legend", func(l *life) { os.Remove(filepath.Join(l.dir, legendFile)) }, ""},
		{"no table", func(l *life) { os.Remove(filepath.Join(l.place, tableFile)) }, ""},
		{"half a legend", func(l *life) {
			os.WriteFile(filepath.Join(l.dir, legendFile), []byte(`{"version":1,"backends":[{`), 0o600)
		}, "unexpected end of JSON"},
		{"a later legend", func(l *life) { os.WriteFile(filepath.Join(l.dir, legendFile), []byte(`{"version":2}`), 0o600) }, "legend has version 2"},
		{"a legend of another table", func(l *life) { edit(l, func(x *legend) { x.Table = "0123456789abcdef" }) }, "the legend is of 0123456789abcdef"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLife(t)
			l.start(web("10 1"))
			l.expect("before", 10)
			l.kill()
			c.spoil(l)
			l.start(web("10 1"))
			if n := l.core.engine.Table.Len(); n != 0 {
				t.Errorf("%d connections", n)
			}
			if !strings.Contains(l.log.String(), c.says) || (c.says == "") != (l.log.Len() == 0) {
				t.Errorf("the log says %q, not %q", l.log.String(), c.says)
			}
			l.expect("new ones", 10)
			l.kill()
			l.start(web("10 1"))
			if n := l.core.engine.Table.Len(); n != 1 {
				t.Errorf("%d connections after the next restart, want the new one", n)
			}
			l.kill()
		})
	}
}

// patch overwrites a byte of the table's file.
func patch(l *life, at int64, b byte) {
	f, err := os.OpenFile(filepath.Join(l.place, tableFile), os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{b}, at)
		f.Close()
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

func edit(l *life, change func(*legend)) {
	name := filepath.Join(l.dir, legendFile)
	b, err := os.ReadFile(name)
	if err != nil {
		l.t.Fatal(err)
	}
	x, err := readLegend(b)
	if err != nil {
		l.t.Fatal(err)
	}
	change(x)
	b, _ = json.Marshal(x)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

func TestTheTableMoves(t *testing.T) {
	l := newLife(t)
	l.start(web("10 1", "11 1"))
	l.expect("before", 10, 11)
	for _, move := range []func(){
		func() { l.capacity = 2048 },
		func() { l.place = inMemory(t) },
		func() { l.capacity, l.place = 1024, inMemory(t) },
	} {
		l.kill()
		was := l.place
		move()
		l.start(web("10 1", "11 1"))
		for i, want := range []byte{10, 11} {
			if got := l.send(uint16(10001+i), false); got != want {
				t.Errorf("connection %d goes to .%d, want .%d", i, got, want)
			}
		}
		files, _ := filepath.Glob(filepath.Join(was, "*"))
		if want := map[bool]int{true: 1, false: 0}[was == l.place]; len(files) != want {
			t.Errorf("%v is where the table was", files)
		}
	}
	l.kill()
}

// Root follows no link, and removes no file, that another user has put where a weir of his was.
func TestRecordsLeadNowhere(t *testing.T) {
	l := newLife(t)
	l.start(web("10 1"))
	l.expect("before", 10)
	l.kill()
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.Symlink(other, filepath.Join(l.dir, legendFile+".new")), os.Symlink(filepath.Join(l.place, tableFile), link)); err != nil {
		t.Fatal(err)
	}
	if err := replace(filepath.Join(l.dir, legendFile), []byte("{}")); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(other); err != nil || string(b) != "precious" {
		t.Errorf("the file that a link leads to has %q, %v", b, err)
	}
	if info, err := os.Lstat(filepath.Join(l.dir, legendFile)); err != nil || info.Mode().Perm() != 0o600 || !info.Mode().IsRegular() {
		t.Errorf("the record is %v, %v", info, err)
	}
	for path, want := range map[string]bool{filepath.Join(l.place, tableFile): true, other: false, link: false, l.place: false, filepath.Join(l.place, "none"): false} {
		if got := isTable(path); got != want {
			t.Errorf("%s is a table: %v, want %v", path, got, want)
		}
	}
}

func TestTwoWeirsDoNotShareAPlace(t *testing.T) {
	l := newLife(t)
	l.start(web("10 1"))
	other := &state{log: slog.New(slog.DiscardHandler), dir: t.TempDir(), places: []string{l.place}, want: l.place}
	if _, err := other.open(conntrack.Options{Capacity: 1024, Workers: 1}, func(*legend) {}); err == nil || !strings.Contains(err.Error(), "another weir keeps its table there") {
		t.Errorf("%v", err)
	}
	l.kill()
}

func TestPlacesThatDoNotSuit(t *testing.T) {
	disk := t.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(disk, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		t.Skip("temporary files are in memory here")
	}
	open := &state{log: slog.New(slog.DiscardHandler), dir: t.TempDir(), places: []string{filepath.Join(disk, "state")}, want: filepath.Join(disk, "state")}
	if _, err := open.open(conntrack.Options{Capacity: 1024, Workers: 1}, func(*legend) {}); err == nil || !strings.Contains(err.Error(), "is not in memory") {
		t.Errorf("on a disk: %v", err)
	}
	shared := inMemory(t)
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	open = &state{log: slog.New(slog.DiscardHandler), dir: t.TempDir(), places: []string{shared}, want: shared}
	if _, err := open.open(conntrack.Options{Capacity: 1024, Workers: 1}, func(*legend) {}); err == nil || !strings.Contains(err.Error(), "others may write there") {
		t.Errorf("where others may write: %v", err)
	}
	open = &state{log: slog.New(slog.DiscardHandler), dir: t.TempDir(), places: []string{filepath.Join(disk, "x/y")}, want: config.StateAuto}
	table, err := open.open(conntrack.Options{Capacity: 1024, Workers: 1}, func(*legend) {})
	if err != nil || open.file != nil || !strings.Contains(open.homeless, "is not in memory") {
		t.Errorf("by itself weir goes on without: %v, %q", err, open.homeless)
	}
	table.Close()
}

func TestACleanStopLeavesConnectionsOrNothing(t *testing.T) {
	for _, connections := range []int{0, 1} {
		l := newLife(t)
		l.start(web("10 1"))
		for range connections {
			l.connect()
		}
		l.core.keep(l.core.loaded)
		n := l.core.engine.Table.Len()
		if err := l.core.engine.Table.Close(); err != nil {
			t.Fatal(err)
		}
		if err := l.state.close(n); err != nil {
			t.Fatal(err)
		}
		files, _ := filepath.Glob(filepath.Join(l.dir, "*"))
		tables, _ := filepath.Glob(filepath.Join(l.place, "*"))
		if (connections > 0) != (len(files) > 0) || len(tables) != connections {
			t.Errorf("%d connections leave %v and %v", connections, files, tables)
		}
	}
}

// Where the legend could not be written, as /run was full, the table is of no use to the next process.
func TestACleanStopWithoutALegendPromisesNothing(t *testing.T) {
	l := newLife(t)
	l.start(web("10 1"))
	l.connect()
	if err := os.MkdirAll(filepath.Join(l.dir, legendFile+".new", "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	l.reload(web("10 1", "11 1"))
	n := l.core.engine.Table.Len()
	if err := l.core.engine.Table.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.state.close(n); err != nil {
		t.Fatal(err)
	}
	if log := l.log.String(); strings.Contains(log, "are kept") || !strings.Contains(log, "connections end with this process") {
		t.Errorf("%d connections, the log says:\n%s", n, log)
	}
	if tables, _ := filepath.Glob(filepath.Join(l.place, "*")); len(tables) != 0 {
		t.Errorf("leaves %v", tables)
	}
}

func TestStationsAreKnownAgain(t *testing.T) {
	const head = `version: 1
ports:
  - {name: under, driver: mem, mac: "02:00:00:00:01:01", addresses: [192.0.2.1/24]}
  - {name: tenant, driver: mem, mac: "02:00:00:00:01:02", addresses: [203.0.113.1/24]}
vxlan:
  segments:
`
	segment := func(vni int, peers, more string) string {
		return fmt.Sprintf("    - {vni: %d, vtep: 192.0.2.1, peers: [%s], access: [{port: tenant, vlan: %d}]%s}\n", vni, peers, vni, more)
	}
	compile := func(text string) (*overlay, *config.Config) {
		cfg, diags := config.ParseReplay("weir.yaml", []byte(head+text))
		if config.HasErrors(diags) {
			t.Fatal(config.Errors(diags))
		}
		s, err := offline(cfg)
		if err != nil {
			t.Fatal(err)
		}
		r := newRegistry(10, 1)
		if _, err := r.compile(cfg, 1, s); err != nil {
			t.Fatal(err)
		}
		if err := r.overlay.settle(cfg, 0); err != nil {
			t.Fatal(err)
		}
		return r.overlay, cfg
	}
	o, cfg := compile(segment(10, "192.0.2.21, 192.0.2.22", "") + segment(11, "192.0.2.21", "") + segment(12, "192.0.2.21", ""))
	const now = vxlan.Second(1000)
	at := func(vni uint32) uint16 { return o.segments[vni].index }
	o.stations.Learn(at(10), 1, vxlan.AtPeer(0), now)
	o.stations.Learn(at(10), 2, vxlan.AtPeer(1), now)
	o.stations.Learn(at(10), 3, vxlan.AtAccess(0), now)
	o.stations.Learn(at(11), 1, vxlan.AtPeer(0), now)
	o.stations.Learn(at(11), 4, vxlan.AtPeer(0), now-299)
	o.stations.Learn(at(12), 1, vxlan.AtPeer(0), now)
	if err := o.stations.Add(at(12), 9, vxlan.AtPeer(0), now); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(o.learned(cfg))
	if err != nil {
		t.Fatal(err)
	}
	var kept []keptStation
	if err := json.Unmarshal(b, &kept); err != nil {
		t.Fatal(err)
	}
	// Segments have other numbers now, peers another order, one peer is gone, one segment learns no more.
	o, cfg = compile(segment(12, "192.0.2.21", ", learning: false") + segment(11, "192.0.2.23, 192.0.2.21", "") + segment(10, "192.0.2.22", ""))
	if n := o.resume(cfg, kept, now+2); n != 3 {
		t.Errorf("%d stations are known again, want 3", n)
	}
	got := map[string]bool{}
	o.stations.Range(func(s vxlan.Station) bool {
		m := o.settled[s.Segment]
		where := "nowhere"
		if i, ok := s.Place.Peer(); ok {
			where = m.peers[i].String()
		} else if i, ok := s.Place.Access(); ok {
			where = fmt.Sprintf("vlan %d", m.access[i].VLAN)
		}
		got[fmt.Sprintf("%d %d %s", m.vni, s.MAC, where)] = true
		return true
	})
	if want := (map[string]bool{"10 2 192.0.2.22": true, "10 3 vlan 10": true, "11 1 192.0.2.21": true}); !reflect.DeepEqual(got, want) {
		t.Errorf("known are %v, want %v", got, want)
	}
}

func FuzzLegend(f *testing.F) {
	l := &legend{Version: legendVersion, Table: "0123456789abcdef", File: "/dev/shm/table", Backends: []legendBackend{{ID: 3, Name: "w", Protocol: packet.ProtoTCP, VIP: keyOfWeb().vip, VIPPort: [2]uint16{80, 80}}}}
	l.Backends[0].Address = keyOfWeb().vip.Addr()
	b, err := json.Marshal(l)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1,"backends":[{"id":4294967295,"vip":"198.18.9.9/32","address":"198.18.1.10"},{"id":0,"vip":"::/0","address":"::1"}]}`))
	f.Add([]byte(`{"version":1,"backends":[{"id":1,"vip":"198.18.9.9/32","address":"198.18.1.10"},{"id":1,"vip":"198.18.9.9/32","address":"198.18.1.11"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := readLegend(b)
		if err != nil {
			return
		}
		r := newRegistry(1<<10, 1)
		r.restore(x)
		for id, b := range r.ids {
			if b != nil && (b.id != uint32(id) || r.backends[b.key] != b) {
				t.Errorf("ID %d is %+v", id, b)
			}
		}
		y := r.legend()
		again := newRegistry(1<<10, 1)
		again.restore(y)
		if len(again.backends) != len(r.backends) || len(again.free) != len(r.free) {
			t.Errorf("%d backends and %d free IDs became %d and %d", len(r.backends), len(r.free), len(again.backends), len(again.free))
		}
	})
}
