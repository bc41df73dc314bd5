package control

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/conntrack"
	"weir/control/config"
	"weir/control/host"
	"weir/control/host/testnet"
	"weir/dataplane"
	"weir/dataplane/steer"
)

// bindBed is the host's side of control in a namespace of its own, without packets.
type bindBed struct {
	t      *testing.T
	space  *testnet.Space
	socket string
	log    strings.Builder
}

func newBindBed(t *testing.T) *bindBed {
	t.Helper()
	n := testnet.NewT(t, "wxbind")
	lb, err := n.Space("lb")
	b := &bindBed{t: t, space: lb, socket: filepath.Join(t.TempDir(), "weir.sock")}
	b.must(err)
	peer, err := n.Space("peer")
	b.must(err)
	b.must(n.Veth(testnet.End{Space: lb, Name: "wan"}, testnet.End{Space: peer, Name: "eth0"}))
	b.must(lb.Address("wan", "198.18.0.1/24", "2001:db8::1/64"))
	t.Cleanup(func() { os.RemoveAll(stateDir(lb.Host(), b.socket)) })
	return b
}

func (b *bindBed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// config has one service with full NAT by these addresses and ports.
func (b *bindBed) config(addresses, ports, more string) *config.Config {
	b.t.Helper()
	vips, backends := "[198.18.9.9]", "[{address: 198.18.0.10}]"
	if strings.Contains(addresses, "2001:db8") {
		vips, backends = `[198.18.9.9, "2001:db8:9::9"]`, `[{address: 198.18.0.10}, {address: "2001:db8::10"}]`
	}
	cfg, diags := config.Parse("test.yaml", fmt.Appendf(nil, `version: 1
ports: [{name: wan, interface: wan, driver: af_packet}]
services:
  - name: web
    vips: %s
    port: 80
    forward: fullnat
    fullnat: {addresses: [%s], ports: %s}
    backends: %s
%s`, vips, addresses, ports, backends, more))
	if config.HasErrors(diags) {
		b.t.Fatal(diags)
	}
	return cfg
}

// start is a weir that has come as far as its VIPs.
func (b *bindBed) start(cfg *config.Config) (p *ports) {
	b.t.Helper()
	b.must(b.space.Exec(func() (err error) {
		p, err = openPorts(slog.New(slog.NewTextHandler(io.MultiWriter(&b.log, b.t.Output()), nil)), b.socket, cfg, nil)
		return err
	}))
	b.bind(p, cfg)
	return p
}

func (b *bindBed) bind(p *ports, cfg *config.Config) {
	b.t.Helper()
	b.must(p.bind(cfg, compiledOf(b.t, cfg)))
}

// compiledOf is cfg compiled with one port.
func compiledOf(t *testing.T, cfg *config.Config) *compiled {
	t.Helper()
	wan := dataplane.Port{Name: "wan", MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/24")}}
	x, err := newRegistry(64, 1).compile(cfg, 1, &surroundings{ports: []dataplane.Port{wan}, devices: []steer.Port{{Name: "wan"}}})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (b *bindBed) sysctl(name string) string {
	b.t.Helper()
	v, err := b.space.Host().Sysctl("net/ipv4/" + name)
	b.must(err)
	return v
}

// locals says which of the addresses are the host's own now.
func (b *bindBed) locals(of ...string) (out []string) {
	b.t.Helper()
	all, err := b.space.Host().Locals()
	b.must(err)
	for _, a := range of {
		if slices.Contains(all, host.HostPrefix(netip.MustParseAddr(a))) {
			out = append(out, a)
		}
	}
	return out
}

func TestPortsThatMustBeOurs(t *testing.T) {
	for _, tc := range []struct {
		name, services string
		want           []host.PortRange
	}{
		{"nat alone", "{name: a, vip: 198.18.9.9, port: 80, backends: [{address: 198.18.0.10}]}", nil},
		{"full NAT", "{name: a, vip: 198.18.9.9, port: 80, forward: fullnat, fullnat: {addresses: [198.18.0.50], ports: 40000-40099}, backends: [{address: 198.18.0.10}]}", []host.PortRange{{From: 40000, To: 40099}}},
		{"full NAT by default", "{name: a, vip: 198.18.9.9, port: 80, forward: fullnat, fullnat: {addresses: [198.18.0.50]}, backends: [{address: 198.18.0.10}]}", []host.PortRange{{From: 32768, To: 60999}}},
		{"masquerading", "{name: a, vip: 198.18.9.9, port: 80, masquerade: hairpin, backends: [{address: 198.18.0.10}]}", []host.PortRange{{From: 61000, To: 65535}}},
		{"masquerading by ports of its own", "{name: a, vip: 198.18.9.9, port: 80, masquerade: always, fullnat: {addresses: [198.18.0.50], ports: 40000-40099}, backends: [{address: 198.18.0.10}]}", []host.PortRange{{From: 40000, To: 40099}}},
		{"two services, one range", "{name: a, vip: 198.18.9.9, port: 80, masquerade: always, backends: [{address: 198.18.0.10}]}, {name: b, vip: 198.18.9.9, port: 81, masquerade: {except: [198.18.0.0/24]}, backends: [{address: 198.18.0.10}]}", []host.PortRange{{From: 61000, To: 65535}}},
		{"two ranges", "{name: a, vip: 198.18.9.9, port: 80, masquerade: always, backends: [{address: 198.18.0.10}]}, {name: b, vip: 198.18.9.9, port: 81, forward: fullnat, fullnat: {addresses: [198.18.0.50], ports: 40000-40099}, backends: [{address: 198.18.0.10}]}", []host.PortRange{{From: 40000, To: 40099}, {From: 61000, To: 65535}}},
	} {
		cfg, diags := config.Parse("test.yaml", []byte("version: 1\nports: [{name: wan, interface: wan}]\nservices: ["+tc.services+"]\n"))
		if config.HasErrors(diags) {
			t.Fatalf("%s: %v", tc.name, diags)
		}
		if got := compiledOf(t, cfg).localPorts(); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestSourcesOfFullNATAreBoundAndTheirPortsReserved(t *testing.T) {
	b := newBindBed(t)
	b.must(b.space.Sysctl("net/ipv4/ip_local_reserved_ports", "8080\n"))
	const vip, own, fresh, fresh6 = "198.18.9.9", "198.18.0.1", "198.18.0.50", "2001:db8::50"
	cfg := b.config(own+", "+fresh+", \""+fresh6+`"`, "40000-40099", "")
	p := b.start(cfg)
	got := b.locals(vip, own, fresh, fresh6)
	for deadline := time.Now().Add(5 * time.Second); len(got) != 4 && time.Now().Before(deadline); got = b.locals(vip, own, fresh, fresh6) {
		time.Sleep(10 * time.Millisecond) // an IPv6 address is local when the kernel has finished with its link
	}
	if len(got) != 4 {
		t.Errorf("local: %v, want all four", got)
	}
	if got := b.sysctl("ip_local_reserved_ports"); got != "8080,40000-40099" {
		t.Errorf("reserved: %q", got)
	}

	// Reloads: other sources, then none of weir's business at all.
	b.bind(p, b.config(own, "50000-50099", ""))
	if got := b.locals(vip, own, fresh, fresh6); !slices.Equal(got, []string{vip, own}) || b.sysctl("ip_local_reserved_ports") != "8080,50000-50099" {
		t.Errorf("after a reload: local %v, reserved %q", got, b.sysctl("ip_local_reserved_ports"))
	}
	b.bind(p, b.config(own+", "+fresh, "50000-50099", "bind_vips: false"))
	if got := b.locals(vip, own, fresh); !slices.Equal(got, []string{own}) || b.sysctl("ip_local_reserved_ports") != "8080,50000-50099" {
		t.Errorf("with bind_vips off: local %v, reserved %q", got, b.sysctl("ip_local_reserved_ports"))
	}

	// Killed, and cleaned up; killed, and started again; stopped.
	b.bind(p, cfg)
	var removed []string
	b.must(b.space.Exec(func() (err error) {
		removed, err = Cleanup(b.socket)
		return err
	}))
	for _, want := range []string{"vip 198.18.0.50 on lo", "vip 198.18.9.9 on lo", "vip 2001:db8::50 on wan", "reserved ports 40000-40099"} {
		if !slices.Contains(removed, want) {
			t.Errorf("cleanup removed %q, not among it: %s", removed, want)
		}
	}
	if got := b.locals(vip, own, fresh, fresh6); !slices.Equal(got, []string{own}) || b.sysctl("ip_local_reserved_ports") != "8080" {
		t.Errorf("after cleanup: local %v, reserved %q", got, b.sysctl("ip_local_reserved_ports"))
	}
	b.start(cfg)
	next := b.start(b.config(own, "50000-50099", ""))
	if got := b.locals(vip, own, fresh, fresh6); !slices.Equal(got, []string{vip, own}) || b.sysctl("ip_local_reserved_ports") != "8080,50000-50099" {
		t.Errorf("after a kill and a start: local %v, reserved %q", got, b.sysctl("ip_local_reserved_ports"))
	}
	b.must(next.unbind())
	b.must(next.close())
	if got := b.locals(vip, own); !slices.Equal(got, []string{own}) || b.sysctl("ip_local_reserved_ports") != "8080" {
		t.Errorf("after a stop: local %v, reserved %q", got, b.sysctl("ip_local_reserved_ports"))
	}
	if _, err := os.Stat(stateDir(b.space.Host(), b.socket)); !os.IsNotExist(err) {
		t.Errorf("after a stop, the state directory: %v", err)
	}
}

func TestWhatIsBound(t *testing.T) {
	for _, tc := range []struct{ name, services, want string }{
		{"nat", "{name: a, vip: 198.18.9.9, port: 80, backends: [{address: 198.18.0.10}]}", "[198.18.9.9/32]"},
		{"full NAT", "{name: a, vip: 198.18.9.9, port: 80, forward: fullnat, fullnat: {addresses: [198.18.0.51, 198.18.0.50]}, backends: [{address: 198.18.0.10}]}", "[198.18.9.9/32 198.18.0.50/32 198.18.0.51/32]"},
		{"masquerading goes by the port's own address, which is the operator's", "{name: a, vip: 198.18.9.9, port: 80, masquerade: always, backends: [{address: 198.18.0.10}]}", "[198.18.9.9/32]"},
		{"full NAT by the port's own", "{name: a, vip: 198.18.9.9, port: 80, forward: fullnat, fullnat: {addresses: [198.18.0.1], ports: 61000-65535}, backends: [{address: 198.18.0.10}]}, {name: b, vip: 198.18.9.9, port: 81, masquerade: always, backends: [{address: 198.18.0.10}]}", "[198.18.9.9/32 198.18.0.1/32]"},
	} {
		cfg, diags := config.Parse("test.yaml", []byte("version: 1\nports: [{name: wan, interface: wan}]\nservices: ["+tc.services+"]\n"))
		if config.HasErrors(diags) {
			t.Fatalf("%s: %v", tc.name, diags)
		}
		if got := fmt.Sprint(compiledOf(t, cfg).bindings()); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestThePortsOwnAddressIsTheOperators: one that masquerading went by does not come back when the operator takes it away.
func TestThePortsOwnAddressIsTheOperators(t *testing.T) {
	b := newBindBed(t)
	cfg, diags := config.Parse("test.yaml", []byte(`version: 1
ports: [{name: wan, interface: wan, driver: af_packet}]
services: [{name: web, vip: 198.18.9.9, port: 80, masquerade: always, backends: [{address: 198.18.0.10}]}]
`))
	if config.HasErrors(diags) {
		t.Fatal(diags)
	}
	p := b.start(cfg)
	b.must(b.space.IP("address add 198.18.0.5/24 dev wan"))
	b.must(b.space.IP("address del 198.18.0.1/24 dev wan"))
	b.must(p.vips.Set(p.wants)) // as refresh does
	if got := b.locals("198.18.9.9", "198.18.0.1"); !slices.Equal(got, []string{"198.18.9.9"}) {
		t.Errorf("local: %v, want the VIP alone", got)
	}
	b.must(p.unbind())
	b.must(p.close())
}

// TestSourcesGoWithTheirLastConnection: a reload keeps the address that connections go by, the snapshot after their end does not.
func TestSourcesGoWithTheirLastConnection(t *testing.T) {
	b := newBindBed(t)
	cfg := b.config("198.18.0.50", "40000-40099", "")
	p := b.start(cfg)
	later := compiledOf(t, cfg)
	later.sources = nil
	b.must(p.rebind(cfg, later))
	if got := b.locals("198.18.9.9", "198.18.0.50"); !slices.Equal(got, []string{"198.18.9.9"}) {
		t.Errorf("local: %v, want the VIP alone", got)
	}
	cfg.BindVIPs = false
	b.must(p.rebind(cfg, compiledOf(t, cfg)))
	if got := b.locals("198.18.0.50"); got != nil {
		t.Errorf("with bind_vips off: local %v", got)
	}
	b.must(p.unbind())
	b.must(p.close())
}

func TestAWarningSaysWhatALocalRangeWouldCostTheHost(t *testing.T) {
	b := newBindBed(t)
	b.must(b.space.Sysctl("net/ipv4/ip_local_port_range", "32768 60999"))
	cfg := b.config("198.18.0.50", "32768-60999", "")
	p := b.start(cfg)
	b.bind(p, cfg) // a reload does not say it again
	const warning = `not reserved for weir`
	if n := strings.Count(b.log.String(), warning); n != 1 || !strings.Contains(b.log.String(), `ip_local_port_range=\"10240 32767\"`) {
		t.Errorf("%d warnings, want one with the cure:\n%s", n, b.log.String())
	}
	if got := b.sysctl("ip_local_reserved_ports"); got != "" {
		t.Errorf("reserved: %q", got)
	}
	if got := p.complaints(); len(got) != 1 || !strings.Contains(got[0], warning) {
		t.Errorf("`weir status` would warn of %q", got)
	}
	b.must(b.space.Sysctl("net/ipv4/ip_local_port_range", "10240 32767"))
	p.renewed = p.renewed.Add(-renewEvery)
	p.renew()
	if got := b.sysctl("ip_local_reserved_ports"); got != "32768-60999" || len(p.complaints()) > 0 || strings.Count(b.log.String(), warning) != 1 {
		t.Errorf("after the cure: reserved %q, log:\n%s", got, b.log.String())
	}
	b.must(p.unbind())
	b.must(p.close())
}

// TestReloadOfATag: a port that gets a tag is another device from then on, for all that is the kernel's, here one that the host does not have; a
// reload that is refused leaves it what it was.
func TestReloadOfATag(t *testing.T) {
	b := newBindBed(t)
	tagged := func(tag string) *config.Config {
		cfg, diags := config.Parse("test.yaml", []byte(`version: 1
ports: [{name: wan, interface: wan, driver: af_packet, vlan: `+tag+`}]
services: [{vip: "2001:db8::9", port: 80, backends: [{address: "2001:db8:9::10"}]}]
`))
		if config.HasErrors(diags) {
			t.Fatal(diags)
		}
		return cfg
	}
	link := netip.MustParsePrefix("198.18.0.1/24")
	sees := func(what string, s *surroundings, port int) {
		t.Helper()
		if has := slices.Contains(s.ports[0].Addresses, link); has != (port == 0) {
			t.Errorf("%s: the port has %v", what, s.ports[0].Addresses)
		}
		for _, r := range s.routes {
			if r.To == link.Masked() && (len(r.Hops) != 1 || r.Hops[0].Port != port) {
				t.Errorf("%s: the link is by %+v, want port %d", what, r.Hops, port)
			}
		}
	}
	p := b.start(tagged("0"))
	at := func(what, device string) {
		t.Helper()
		if got := p.vips.Bound(); len(got) != 1 || got[0].Device != device {
			t.Errorf("%s: the VIP is %v, want it on %s", what, got, device)
		}
	}
	sees("at the start", p.surroundings(), 0)
	at("at the start", "wan")
	next := tagged("100")
	sees("a tag", p.reconfigured(next), -1)
	sees("refused", p.reconfigured(tagged("0")), 0)
	sees("again", p.reconfigured(next), -1)
	b.bind(p, next)
	at("a tag", "lo")
	b.must(b.space.Address("wan", "198.18.3.1/24"))
	p.note(host.Event{Change: host.ChangeAll})
	b.must(p.mirror.SetPorts(hostPortsOf(tagged("0"))))
	if changed, err := p.refresh(); err != nil || !changed {
		t.Errorf("what a change of ports took in beside is not told of: %v, %v", changed, err)
	}
}

// TestOffloadsOfADeviceMadeAnew: they are switched off as those of the former one were, and on again in the end.
func TestOffloadsOfADeviceMadeAnew(t *testing.T) {
	b := newBindBed(t)
	anew := func() {
		b.must(b.space.IP("link del wan"))
		b.must(b.space.IP("link add wan type veth peer name other"))
	}
	anew()
	cfg := b.config("198.18.0.1", "50000-50099", "bind_vips: false")
	p := b.start(cfg)
	if err := b.space.Exec(func() error { return p.steering(compiledOf(t, cfg)) }); err != nil {
		b.must(p.close())
		t.Skip(err)
	}
	const feature = "tx-tcp-segmentation" // of a veth, whose frames no wire finishes
	on := func() bool {
		all, err := b.space.Host().Offloads("wan")
		b.must(err)
		return all[feature]
	}
	if !slices.Contains(p.off["wan"], feature) || on() {
		t.Fatalf("%s was not switched off: %v", feature, p.off)
	}
	anew()
	if !on() {
		t.Fatalf("a new device begins without %s", feature)
	}
	p.note(host.Event{Change: host.ChangeAll})
	_, err := p.refresh()
	b.must(err)
	b.must(b.space.Exec(func() error { p.tend(); return nil }))
	if on() {
		t.Errorf("%s is on", feature)
	}
	b.must(p.unbind())
	b.must(p.close())
	if !on() {
		t.Errorf("%s stays off", feature)
	}
}

// TestAccessPortsTakeEveryFrame: hardware leaves out what is for other stations than itself, which are all that a segment has. A device made anew is told so, too.
func TestAccessPortsTakeEveryFrame(t *testing.T) {
	b := newBindBed(t)
	p := b.start(b.config("198.18.0.50", "40000-40099", ""))
	plain := p.cfg
	with, diags := config.Parse("test.yaml", []byte(`version: 1
ports: [{name: wan, interface: wan, driver: af_packet}]
vxlan: {segments: [{vni: 1, vtep: 198.18.0.1, peers: [198.18.0.2], access: [{port: wan, vlan: 7}]}]}
`))
	if config.HasErrors(diags) {
		t.Fatal(diags)
	}
	at := func(what string, want ...int) {
		t.Helper()
		p.tendUnderlay()
		if got := p.promisc.Devices(); !slices.Equal(got, want) {
			t.Errorf("%s: devices %v take every frame, want %v", what, got, want)
		}
	}
	at("without segments")
	p.cfg = with
	first := p.mirror.State().Links[0].Index
	at("an access port", first)
	b.must(b.space.IP("link del wan"))
	b.must(b.space.IP("link add wan type veth peer name other"))
	p.note(host.Event{Change: host.ChangeAll})
	_, err := p.refresh()
	b.must(err)
	second := p.mirror.State().Links[0].Index
	if second == first {
		t.Fatal("it is the same device")
	}
	at("a device made anew", second)
	p.cfg = plain
	at("without segments again")
	b.must(p.unbind())
	b.must(p.close())
}

// TestAGoneDeviceHasNoSmallMTU: routes of the configuration still lead there, and whoever sends by them would be told of it.
func TestAGoneDeviceHasNoSmallMTU(t *testing.T) {
	b := newBindBed(t)
	p := b.start(b.config("198.18.0.50", "40000-40099", ""))
	if mtu := p.surroundings().ports[0].MTU; mtu != 1500 {
		t.Errorf("MTU %d, want the device's, 1500", mtu)
	}
	b.must(b.space.IP("link del wan"))
	p.note(host.Event{Change: host.ChangeAll})
	_, err := p.refresh()
	b.must(err)
	if mtu := p.surroundings().ports[0].MTU; mtu < 1500 {
		t.Errorf("the device is gone: MTU %d", mtu)
	}
	p.cfg.Ports[0].MTU = 1400
	if mtu := p.surroundings().ports[0].MTU; mtu != 1400 {
		t.Errorf("the device is gone: MTU %d, want the configuration's, 1400", mtu)
	}
	b.must(p.unbind())
	b.must(p.close())
}

// TestWhatCouldNotBePublishedIsTriedAgain: the steering tables refuse, once, and no event tells of what has changed a second time.
func TestWhatCouldNotBePublishedIsTriedAgain(t *testing.T) {
	b := newBindBed(t)
	cfg := b.config("198.18.0.1", "30000-30999", "")
	p := b.start(cfg)
	defer func() { b.must(p.vips.Release()) }()
	load := func(entries int) *steer.Program {
		program, err := steer.Load(steer.Options{MaxEntries: entries})
		if err != nil {
			t.Skipf("needs BPF: %v", err)
		}
		return program
	}
	table, err := conntrack.New(conntrack.Options{Capacity: 1 << 10, Workers: 1})
	b.must(err)
	defer table.Close()
	c := &Control{core: newCore(table, 1, 1), ports: p, log: p.log}
	p.engine = c.engine
	small := load(2)
	defer small.Close()
	x, err := c.prepare(cfg, p.surroundings())
	b.must(err)
	b.must(c.publish(cfg, x, time.Now()))
	published := c.engine.Snapshot()

	p.program = small
	b.must(b.space.Address("wan", "198.18.0.77/24"))
	p.note(host.Event{Change: host.ChangeAddress})
	c.follow(false)
	if c.engine.Snapshot() != published || !c.behind {
		t.Fatalf("published, though the steering tables refused; behind: %t", c.behind)
	}
	c.follow(false) // as after an event that changes nothing
	if !c.behind {
		t.Error("forgotten that something was not done")
	}
	p.program = load(0)
	defer p.program.Close()
	c.follow(true)
	if c.behind {
		t.Error("still behind")
	}
	if _, own := c.engine.Snapshot().Local[netip.MustParseAddr("198.18.0.77")]; !own {
		t.Errorf("the workers do not know the new address: %v", c.engine.Snapshot().Local)
	}
}

// TestWhatCouldNotBeBoundIsTriedAgain: a VIP is lost, cannot be bound for want of a record of it, and then can; no event tells of that.
func TestWhatCouldNotBeBoundIsTriedAgain(t *testing.T) {
	b := newBindBed(t)
	const vip = "198.18.9.9"
	cfg := b.config("198.18.0.1", "30000-30999", "")
	p := b.start(cfg)
	defer func() { b.must(p.vips.Release()) }()
	table, err := conntrack.New(conntrack.Options{Capacity: 1 << 10, Workers: 1})
	b.must(err)
	defer table.Close()
	c := &Control{core: newCore(table, 1, 1), ports: p, log: p.log}
	p.engine = c.engine
	if p.program, err = steer.Load(steer.Options{}); err != nil {
		t.Skipf("needs BPF: %v", err)
	}
	defer p.program.Close()
	x, err := c.prepare(cfg, p.surroundings())
	b.must(err)
	b.must(c.publish(cfg, x, time.Now()))

	follow := func(again bool) {
		b.must(b.space.Exec(func() error { c.follow(again); return nil }))
	}
	dir := stateDir(b.space.Host(), b.socket)
	b.must(os.RemoveAll(dir))
	b.must(os.WriteFile(dir, nil, 0o600)) // nothing can be written below it
	b.must(b.space.IP("address del " + vip + "/32 dev lo"))
	b.must(b.space.Address("wan", "198.18.0.77/24")) // an address of the host's own, which weir looks after its VIPs for
	p.note(host.Event{Change: host.ChangeAddress})
	follow(false)
	if got := b.locals(vip); got != nil || !c.behind {
		t.Fatalf("local %v without a record; behind: %t", got, c.behind)
	}
	follow(true)
	if !c.behind {
		t.Error("forgotten that something was not done")
	}
	b.must(os.Remove(dir))
	follow(true)
	if got := b.locals(vip); len(got) != 1 || c.behind {
		t.Errorf("local %v; behind: %t", got, c.behind)
	}
}
