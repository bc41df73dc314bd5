package control

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weir/conntrack"
	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// coreBed is an engine under a configuration that tests change.
type coreBed struct {
	t      *testing.T
	core   *core
	worker *dataplane.Worker
	ports  [2]*mem.Port
	now    int64
	port   uint16 // of the last client
}

const coreHead = `version: 1
ports:
  - {name: wan, driver: mem, mac: "02:00:00:00:01:01", addresses: [198.18.0.1/24]}
  - {name: lan, driver: mem, mac: "02:00:00:00:01:02", addresses: [198.18.1.1/24]}
neighbors:
  - {address: 198.18.0.2, mac: "02:00:00:00:00:01", port: wan}
  - {address: 198.18.1.10, mac: "02:00:00:00:00:10", port: lan}
  - {address: 198.18.1.11, mac: "02:00:00:00:00:11", port: lan}
  - {address: 198.18.1.12, mac: "02:00:00:00:00:12", port: lan}
conntrack: {max_connections: 1024}
services:
`

// web is the service of the tests with backends of these "host weight" pairs.
func web(backends ...string) string {
	s := "  - {name: web, vip: 198.18.9.9, port: 80, scheduler: wrr, backends: ["
	for _, b := range backends {
		var host, weight int
		fmt.Sscan(b, &host, &weight)
		s += fmt.Sprintf("{address: 198.18.1.%d, port: 8000, weight: %d},", host, weight)
	}
	return strings.TrimSuffix(s, ",") + "]}\n"
}

func newCoreBed(t *testing.T, services string) *coreBed {
	t.Helper()
	return newCoreBedWith(t, services, func(*core) {})
}

// newCoreBedWith does something to the core before its first configuration.
func newCoreBedWith(t *testing.T, services string, prepare func(*core)) *coreBed {
	t.Helper()
	table, err := conntrack.New(conntrack.Options{Capacity: 1024, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	b := &coreBed{t: t, core: newCore(table, 1, 1), now: 1e15, port: 10000}
	prepare(b.core)
	b.reload(services)
	b.worker, b.ports = attach(t, b.core)
	return b
}

// attach gives the engine a worker with two memory ports. A configuration must be in force.
func attach(t *testing.T, c *core) (w *dataplane.Worker, ports [2]*mem.Port) {
	t.Helper()
	pool, err := packet.NewPool(make([]byte, 64*4096), 4096)
	if err != nil {
		t.Fatal(err)
	}
	var queues []driver.Queue
	for i := range ports {
		if ports[i], err = mem.NewPort(pool, mem.Options{Ring: 64}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ports[i].Close() })
		queues = append(queues, ports[i])
	}
	return c.engine.AddWorker(pool, queues), ports
}

func (b *coreBed) parse(services string) *config.Config {
	b.t.Helper()
	cfg, diags := config.ParseReplay("weir.yaml", []byte(coreHead+services))
	if config.HasErrors(diags) {
		b.t.Fatal(config.Errors(diags))
	}
	return cfg
}

func (b *coreBed) reload(services string) {
	b.t.Helper()
	cfg := b.parse(services)
	s, err := offline(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.core.mu.Lock()
	defer b.core.mu.Unlock()
	x, err := b.core.prepare(cfg, s)
	if err == nil {
		err = b.core.publish(cfg, x, time.Now())
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// connect sends a SYN of a new client and returns the last byte of the server's address, 0 if none got it.
func (b *coreBed) connect() byte {
	b.t.Helper()
	b.port++
	x := b.core.engine.Explain(dataplane.Question{Protocol: packet.ProtoTCP, Client: netip.AddrPortFrom(netip.MustParseAddr("198.18.0.2"), b.port),
		Virtual: netip.MustParseAddrPort("198.18.9.9:80")}, b.now)
	got, told := b.send(b.port, true), byte(0)
	if x.Found {
		told = byte(x.Snapshot.Backends[x.Backend].Addr.Lo)
	}
	if told != got {
		b.t.Errorf("Explain says .%d (%s), but it went to .%d", told, x.Fate, got)
	}
	return got
}

// send sends a packet of the client with that port.
func (b *coreBed) send(port uint16, syn bool) byte {
	b.t.Helper()
	p := pkttest.TCP(netip.AddrPortFrom(netip.MustParseAddr("198.18.0.2"), port), netip.MustParseAddrPort("198.18.9.9:80"))
	if syn {
		p = p.SYN()
	} else {
		p = p.Ack(1)
	}
	b.ports[0].Inject(p.Frame(pkttest.MAC("02:00:00:00:00:01"), pkttest.MAC("02:00:00:00:01:01")))
	b.worker.Round(b.now)
	buf := make([]byte, 2048)
	b.ports[0].Take(buf)
	if n, ok := b.ports[1].Take(buf); ok && n >= 34 {
		return buf[33]
	}
	return 0
}

func (b *coreBed) view() ServiceView {
	b.t.Helper()
	s := b.core.stats()
	if len(s.Services) != 1 {
		b.t.Fatalf("%d services", len(s.Services))
	}
	return s.Services[0]
}

func (b *coreBed) expect(what string, want ...byte) {
	b.t.Helper()
	for i, w := range want {
		if got := b.connect(); got != w {
			b.t.Errorf("%s: connection %d went to .%d, want .%d", what, i, got, w)
		}
	}
}

func TestReloadKeepsWhatDidNotChange(t *testing.T) {
	b := newCoreBed(t, web("10 2", "11 1"))
	b.expect("wrr 2:1, from the lowest level, as after ipvsadm -a one by one", 10, 11)
	b.reload(web("10 2", "11 1") + "  - {name: other, vip: 198.18.9.10, port: 80, backends: [{address: 198.18.1.12, port: 8000}]}\n")
	b.expect("the scheduler goes on where it stood", 10, 10, 11, 10)
	b.reload(web("10 2", "11 1"))
	v := b.view()
	if v.Conns != 6 || v.InPackets != 6 || v.Backends[0].Conns != 4 || v.Backends[1].Conns != 2 {
		t.Errorf("counters after reloads: %+v", v)
	}
}

func TestReloadOfAnEditedService(t *testing.T) {
	b := newCoreBed(t, web("10 2", "11 1"))
	b.expect("2:1", 10)
	b.reload(web("10 1", "11 1"))
	b.expect("an edit starts wrr over, as in the kernel", 10, 11, 10, 11)
	b.reload(web("10 0", "11 1"))
	b.expect("weight 0 drains", 11, 11)
	if got := b.send(10001, false); got != 10 {
		t.Errorf("a connection to the drained server went to .%d", got)
	}
}

func TestRemovedBackend(t *testing.T) {
	b := newCoreBed(t, web("10 1", "11 1"))
	b.expect("1:1", 10)
	b.reload(web("11 1"))
	if got := b.send(10001, false); got != 0 {
		t.Errorf("a packet to the removed server went to .%d", got)
	}
	b.reload(web("12 1", "11 1"))
	id := b.core.reg.backends[backendKey{service: keyOfWeb(), address: netip.MustParseAddr("198.18.1.12"), port: 8000}].id
	if id == b.core.reg.ids[0].id {
		t.Errorf("the ID of a removed backend with connections was given to another")
	}
	b.reload(web("10 1", "11 1"))
	if got := b.send(10001, false); got != 10 {
		t.Errorf("the server is back, but its connection goes to .%d", got)
	}
}

func keyOfWeb() serviceKey {
	return serviceKey{protocol: packet.ProtoTCP, vip: netip.MustParsePrefix("198.18.9.9/32"), port: 80, portTo: 80}
}

func TestCollectGivesBackIDs(t *testing.T) {
	b := newCoreBed(t, web("10 1", "11 1"))
	b.expect("1:1", 10, 11)
	b.reload(web("11 1"))
	collect := func(at time.Duration) bool { return b.core.reg.collect(time.Now().Add(at), b.core.engine.Backend) }
	if collect(time.Hour) {
		t.Error("an ID was given back although a connection bears it")
	}
	b.now += 61e9 // SYN_RECV ends
	b.worker.ExpireAll(b.now)
	if collect(-time.Hour) {
		t.Error("an ID was given back before every worker could know")
	}
	if !collect(time.Hour) {
		t.Error("the ID was not given back")
	}
	if v := b.view(); v.Conns != 2 {
		t.Errorf("the service forgot its removed backend's connections: %+v", v)
	}
	b.reload(web("12 1", "11 1"))
	if id := b.core.reg.backends[backendKey{service: keyOfWeb(), address: netip.MustParseAddr("198.18.1.12"), port: 8000}].id; id != 0 {
		t.Errorf("the new backend got ID %d, want 0 again", id)
	}
	if v := b.view(); v.Backends[0].Conns != 0 {
		t.Errorf("the new backend begins with the old one's %d connections", v.Backends[0].Conns)
	}
	b.expect("both serve", 12, 11)
	if v := b.view(); v.Conns != 4 || v.Backends[0].Conns != 1 {
		t.Errorf("counters: %+v", v)
	}
}

func TestTooManyBackendsChangesNothing(t *testing.T) {
	b := newCoreBed(t, web("10 1", "11 1"))
	b.core.reg.limit = 2
	cfg, _ := config.ParseReplay("weir.yaml", []byte(coreHead+web("10 1", "11 1", "12 1")))
	s, err := offline(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.core.prepare(cfg, s); err == nil {
		t.Fatal("a third backend found room for two")
	}
	b.expect("the old configuration runs", 10, 11, 10)
}

func TestBothFamiliesOfOneService(t *testing.T) {
	b := newCoreBed(t, `  - name: web
    vips: [198.18.9.9, "2001:db8:9::9"]
    port: 80
    backends:
      - {address: 198.18.1.10, port: 8000}
      - {address: "2001:db8:1::10", port: 8000}
`)
	s := b.core.stats().Services
	if len(s) != 2 || len(s[0].Backends) != 1 || len(s[1].Backends) != 1 || s[1].Backends[0].Address.Is4() {
		t.Errorf("services: %+v", s)
	}
}

// TestRefusedReload: a configuration that was compiled and then not put in force leaves no trace in the one that runs.
func TestRefusedReload(t *testing.T) {
	const other = "  - {name: other, vip: 198.18.9.10, port: 80, forward: ipip, backends: [{address: 198.18.1.12}]}\n"
	for _, refused := range []struct{ name, services string }{
		{"without the service", other},
		{"another scheduler", strings.Replace(web("10 1", "11 1", "12 1"), "wrr", "lc", 1) + other},
		{"a server less", web("10 1", "12 1")},
	} {
		t.Run(refused.name, func(t *testing.T) {
			all := web("10 1", "11 1", "12 1")
			b := newCoreBed(t, all)
			b.expect("before", 10)
			for range 2 {
				if _, err := b.core.prepare(b.parse(refused.services), b.surroundings(refused.services)); err != nil {
					t.Fatal(err)
				}
				b.core.undo()
				x, err := b.core.again(b.surroundings(all))
				if err != nil {
					t.Fatal(err)
				}
				if err := b.core.engine.Publish(x.snapshot); err != nil {
					t.Fatal(err)
				}
				if n := len(x.snapshot.Backends); n != 3 {
					t.Errorf("%d backends, want 3", n)
				}
			}
			b.expect("the scheduler goes on", 11, 12, 10)
			if v := b.view(); v.Conns != 4 {
				t.Errorf("%d connections counted, want 4", v.Conns)
			}
		})
	}
}

func (b *coreBed) surroundings(services string) *surroundings {
	b.t.Helper()
	s, err := offline(b.parse(services))
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}
