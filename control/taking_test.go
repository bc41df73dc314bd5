package control

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/conntrack"
	"weir/control/config"
	"weir/control/handover"
	"weir/control/host"
	"weir/dataplane/driver/afxdp"
	"weir/dataplane/steer"
)

// offered is what a weir of two workers on two devices offers.
func offered() *offer {
	o := &offer{Table: tableOffer{Layout: conntrack.Layout(), Capacity: 1000, Place: config.StateAuto}, Ports: []portOffer{{"eth0", 0}, {"eth1", 5}, {"eth1", 6}}}
	for w := range 2 {
		x := workerOffer{}
		for _, name := range []string{"eth0", "eth1"} {
			x.Queues = append(x.Queues, afxdp.QueueOffer{Interface: name, Number: w, Mode: "auto"})
		}
		o.Workers = append(o.Workers, x)
	}
	return o
}

// fitting is a configuration that goes with it.
func fitting() *config.Config {
	c := &config.Config{}
	c.Conntrack.MaxConnections, c.Engine.StateDir = 1000, config.StateAuto
	for _, p := range []config.Port{{Name: "lan", Interface: "eth1", VLAN: 6}, {Name: "dmz", Interface: "eth1", VLAN: 5}, {Name: "wan", Interface: "eth0"}} {
		p.Driver, p.XDPMode, p.Queues.All = "af_xdp", "auto", true
		c.Ports = append(c.Ports, p)
	}
	return c
}

// TestWhatFits: what a successor cannot have without a restart is told, all of it, each by name with both sides' values.
func TestWhatFits(t *testing.T) {
	for _, x := range []struct {
		name    string
		change  func(*offer, *config.Config)
		workers int
		says    []string // nothing: it fits
	}{
		{"the same with ports in another order", func(*offer, *config.Config) {}, 2, nil},
		{"another layout", func(o *offer, _ *config.Config) { o.Table.Layout = "4-00" }, 2, []string{"layout of the connection table: it has 4-00"}},
		{"another size", func(_ *offer, c *config.Config) { c.Conntrack.MaxConnections = 2000 }, 2, []string{"conntrack.max_connections: it has 1000, here it is 2000"}},
		{"another place", func(_ *offer, c *config.Config) { c.Engine.StateDir = "/dev/shm/x" }, 2, []string{"engine.state_dir: it has auto, here it is /dev/shm/x"}},
		{"no place", func(_ *offer, c *config.Config) { c.Engine.StateDir = config.StateNone }, 2, []string{"engine.state_dir"}},
		{"fewer workers", func(*offer, *config.Config) {}, 1, []string{"workers: it has 2, here it is 1"}},
		{"more workers", func(*offer, *config.Config) {}, 3, []string{"workers: it has 2, here it is 3"}},
		{"another driver", func(_ *offer, c *config.Config) { c.Ports[2].Driver = "af_packet" }, 2, []string{"ports[2] wan: driver: it has af_xdp, here it is af_packet"}},
		{"another mode", func(_ *offer, c *config.Config) { c.Ports[2].XDPMode = "generic" }, 2, []string{"ports[2] wan: xdp_mode: it has auto, here it is generic"}},
		{"a device less", func(_ *offer, c *config.Config) { c.Ports = c.Ports[:2] }, 2, []string{"interfaces of ports: it has eth0 eth1, here it is eth1"}},
		{"a device more", func(_ *offer, c *config.Config) {
			c.Ports = append(c.Ports, config.Port{Name: "new", Interface: "eth2", Driver: "af_xdp", XDPMode: "auto"})
		}, 2, []string{"interfaces of ports: it has eth0 eth1, here it is eth0 eth1 eth2"}},
		{"another queue", func(_ *offer, c *config.Config) { c.Ports[2].Queues = config.Queues{List: []int{0, 3}} }, 2, []string{"ports[2] wan: queue of worker 1: it has 1, here it is 3"}},
		{"two things at once", func(o *offer, c *config.Config) { c.Conntrack.MaxConnections, o.Table.Layout = 1, "x" }, 2, []string{"max_connections", "layout", "; "}},
	} {
		o, c := offered(), fitting()
		x.change(o, c)
		err := o.fits(c, x.workers)
		if (err == nil) != (x.says == nil) || err != nil && !errors.Is(err, errRestart) {
			t.Errorf("%s: %v", x.name, err)
		}
		for _, s := range x.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %v, want %q in it", x.name, err, s)
			}
		}
	}
}

// TestChangesAreTakenOver: what was changed beside the file is made again by the successor, whatever is in it: words, numbers, mappings with numbers.
func TestChangesAreTakenOver(t *testing.T) {
	b := newAPIBed(t, web("10 2", "11 1", "13 1"))
	b.must("PATCH", "/services/web/backends/198.18.1.10", `{"weight": 5, "upper_threshold": 100000000}`)
	b.must("PATCH", "/services/web/backends/198.18.1.11", `{"state": "drain", "check": {"type": "tcp", "port": 8080}}`)
	b.must("POST", "/services/web/backends", `{"address": "198.18.1.12", "port": 8000, "weight": 3}`)
	b.must("DELETE", "/services/web/backends/198.18.1.13", "")
	former, successor := conversation(t)
	sent := make(chan error, 1)
	go func() { sent <- former.Send(time.Second, "offer", &offer{Edits: b.control.edits}) }()
	var o offer
	if _, err := successor.Receive(time.Second, "offer", &o); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	cfg, edits, lost := kept(b.control.file, o.Edits)
	if len(lost) > 0 || len(edits) != 4 {
		t.Fatalf("%d of 4 changes are made again, lost are %q", len(edits), lost)
	}
	if more := config.Changes(b.core.cfg, cfg); len(more) > 0 {
		t.Errorf("the successor runs something else: %v", more)
	}
}

// TestPortsTranslated: a port is the same if its device and VLAN are, whatever its place and name.
func TestPortsTranslated(t *testing.T) {
	c := fitting()
	c.Ports = c.Ports[1:]
	port := offered().translate(c)
	for was, want := range map[int]int{0: 1, 1: 0, 2: -1, 3: -1, -1: -1} {
		if got := port(was); got != want {
			t.Errorf("port %d is %d now, want %d", was, got, want)
		}
	}
}

// TestWhoGaveUpBeforeItDied: a weir that waited for its successor in vain, took up its work again and was killed has told nothing that still holds. One that was
// killed while it waited has.
func TestWhoGaveUpBeforeItDied(t *testing.T) {
	for _, gaveUp := range []bool{true, false} {
		dead := exec.Command("true")
		if err := dead.Start(); err != nil {
			t.Skip(err)
		}
		alive, err := unix.PidfdOpen(dead.Process.Pid, 0)
		if err != nil {
			t.Skip(err)
		}
		if err := dead.Wait(); err != nil {
			t.Fatal(err)
		}
		former, successor := conversation(t)
		p := &predecessor{conn: successor, alive: alive}
		if gaveUp {
			former.Abort(handover.ErrSilent)
		}
		former.Close()
		err = p.lost(new(Control).commit(p))
		if errors.Is(err, errOrphaned) == gaveUp || errors.Is(err, handover.ErrAborted) != gaveUp {
			t.Errorf("gave up %v: %v", gaveUp, err)
		}
		p.close()
	}
}

// TestTableByAnothersWord: a table's path is believed if the table is there, and nothing else is ever removed on it.
func TestTableByAnothersWord(t *testing.T) {
	dir := inMemory(t)
	table, other, link := filepath.Join(dir, "table"), filepath.Join(dir, "other"), filepath.Join(dir, "link")
	for _, name := range []string{table, other} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(table, link); err != nil {
		t.Fatal(err)
	}
	c := &Control{log: slog.New(slog.DiscardHandler)}
	is, err := openState(c.log, filepath.Join(dir, "socket"), dir)
	if err != nil {
		t.Skip(err)
	}
	for path, good := range map[string]bool{table: true, other: false, link: false, dir + "/none": false} {
		fd, err := unix.Open(table, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.inherit(&offer{Socket: filepath.Join(dir, "socket"), Table: tableOffer{Path: path, Boot: is.boot}}, dir, fd, -1)
		if (err == nil) != good {
			t.Errorf("%s: %v", path, err)
		}
		if err == nil {
			s.file.Close()
		}
	}
}

// TestSettleWithADeviceGone: one that went while packets changed hands leaves the others guarded, and is guarded itself when it has come back.
func TestSettleWithADeviceGone(t *testing.T) {
	b := newBindBed(t)
	b.must(b.space.IP("link add lan type veth peer name other"))
	cfg, diags := config.Parse("test.yaml", []byte(`version: 1
ports: [{name: wan, interface: wan, xdp_mode: generic}, {name: lan, interface: lan, xdp_mode: generic}]
services: [{vip: 198.18.9.9, port: 80, backends: [{address: 198.18.0.10}]}]
`))
	if config.HasErrors(diags) {
		t.Fatal(diags)
	}
	var p *ports
	b.must(b.space.Exec(func() (err error) {
		p, err = openPorts(slog.New(slog.DiscardHandler), b.socket, cfg, nil)
		return err
	}))
	x, err := newRegistry(64, 1).compile(cfg, 1, p.surroundings())
	b.must(err)
	if p.program, err = steer.Load(steer.Options{Rules: x.rules}); err != nil {
		t.Skipf("needs BPF: %v", err)
	}
	for i, l := range p.mirror.State().Links { // as of the sockets that were taken over
		p.guarded[i] = guard{l.Index, afxdp.ModeGeneric}
	}
	guarded := func(device string) bool {
		id, _, err := b.space.Host().XDP(device)
		return err == nil && id != 0
	}
	b.must(b.space.IP("link del wan"))
	if err := b.space.Exec(func() error { return p.settle(x) }); err == nil || !strings.Contains(err.Error(), "wan") {
		t.Errorf("nothing is said of the device that is gone: %v", err)
	}
	if !guarded("lan") {
		t.Error("the other device is not guarded")
	}
	b.must(b.space.IP("link add wan type veth peer name another"))
	p.note(host.Event{Change: host.ChangeAll})
	_, err = p.refresh()
	b.must(err)
	b.must(b.space.Exec(func() error { p.register(); return nil }))
	if !guarded("wan") {
		t.Error("the device that came back is not guarded")
	}
	b.must(p.close())
}
