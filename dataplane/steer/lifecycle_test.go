package steer

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// TestAdoption is a weir killed and started again under traffic, with maps that can be taken over and with maps that cannot.
func TestAdoption(t *testing.T) {
	needBPF(t)
	inNamespace(t)
	v := newVeth(t, "wxs")
	id := filepath.Join(bpffs(t), "weir", "a")
	r := v.rules()
	ours := frame(tcp(client4, 4000, vip4, 80))

	first := start(t, Options{Path: id}, r, v.near)
	if ok, why := first.Pinned(); !ok || first.Adopted() {
		t.Fatalf("pinned %v (%s), adopted %v", ok, why, first.Adopted())
	}
	first.Beat(uint64(Now()))
	if got := counts(t, first, v, ours); got != "take_service dropped_no_socket" {
		t.Fatalf("first: %s", got)
	}
	if err := first.Close(); err != nil { // as when it is killed
		t.Fatal(err)
	}
	before := v.xdpProgram(t)
	if before == 0 {
		t.Fatal("the program went with the process")
	}
	v.tapped(ours)

	var stop atomic.Bool
	sent := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			if _, err := unix.Write(v.send, ours); err != nil && err != unix.ENOBUFS {
				t.Errorf("send: %v", err)
				break
			}
			time.Sleep(50 * time.Microsecond)
		}
		sent <- n
	}()
	var last *Program
	for _, tt := range []struct {
		name    string
		options Options
		older   bool // the predecessor's maps are of another layout
		adopted bool
	}{
		{"same", Options{}, false, true},
		{"an older layout", Options{}, true, false},
		{"another number of queues", Options{Queues: 8}, false, false},
		{"same again", Options{Queues: 8}, false, true},
	} {
		tt.options.Path = id
		if tt.older {
			if err := os.Rename(filepath.Join(id, layoutDir()), filepath.Join(id, "v1")); err != nil {
				t.Error(err)
			}
		}
		if err := os.Mkdir(filepath.Join(id, "v0"), 0o700); err != nil { // of an older weir
			t.Error(err)
		}
		p := start(t, tt.options, r, v.near)
		if p.Adopted() != tt.adopted {
			t.Errorf("%s: adopted %v, want %v", tt.name, p.Adopted(), tt.adopted)
		}
		now := v.xdpProgram(t)
		if now == before || now == 0 {
			t.Errorf("%s: program %d before and %d after", tt.name, before, now)
		}
		before = now
		if got, want := names(t, id), layoutDir()+" "+(linkKey{hookXDP, v.near}).pin(); got != want {
			t.Errorf("%s: pins %q, want %q", tt.name, got, want)
		}
		if tt.name != "same again" {
			p.Close()
		}
		last = p
	}
	stop.Store(true)
	if n := <-sent; n < 20 { // a busy machine sends few
		t.Errorf("only %d frames were sent", n)
	}
	if n := v.tapped(ours); n != 0 {
		t.Errorf("the kernel saw %d frames of ours: there was a gap", n)
	}
	if s, err := last.Stats(); err != nil || s[TakeService] != s[DroppedNoSocket] || s[TakeService] == 0 || s[PassedStale] != 0 {
		t.Errorf("stats %v: %v", s.Named(), err)
	}
	if err := last.Destroy(); err != nil {
		t.Fatal(err)
	}
	if id := v.xdpProgram(t); id != 0 {
		t.Errorf("program %d after Destroy", id)
	}
	if _, err := os.Stat(id); !os.IsNotExist(err) {
		t.Errorf("the pins' directory after Destroy: %v", err)
	}
}

// TestAdoptionOrNothing: who can only go on with a predecessor's maps leaves no others behind, which it would take for those the next time.
func TestAdoptionOrNothing(t *testing.T) {
	needBPF(t)
	inNamespace(t)
	id := filepath.Join(bpffs(t), "weir", "o")
	p, err := Load(Options{Path: id})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.Destroy() }()
	older := filepath.Join(id, "v1")
	if err := os.Rename(filepath.Join(id, layoutDir()), older); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if x, err := Load(Options{Path: id, Adopt: true}); !errors.Is(err, ErrMaps) {
			t.Errorf("taken over: %v, with maps of another layout: %v", x != nil, err)
		}
		if _, err := os.Stat(filepath.Join(id, layoutDir())); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("maps of ours are there: %v", err)
		}
	}
	if err := os.Rename(older, filepath.Join(id, layoutDir())); err != nil {
		t.Fatal(err)
	}
	x, err := Load(Options{Path: id, Adopt: true})
	if err != nil || !x.Adopted() {
		t.Fatal(err)
	}
	x.Close()
	// The maps have room for 1024: for as many as a predecessor has or a successor wants, not always for both.
	rules := func(from, to int) *Rules {
		r := &Rules{}
		for i := from; i < to; i++ {
			r.Services = append(r.Services, Service{One(far4), packet.ProtoTCP, uint16(i), uint16(i)})
		}
		return r
	}
	if err := p.Add(rules(1, 701)); err != nil {
		t.Fatal(err)
	}
	if x, err := Load(Options{Path: id, Adopt: true, Rules: rules(401, 1101)}); !errors.Is(err, ErrMaps) || !strings.Contains(err.Error(), "1100 entries are needed") {
		t.Errorf("taken over: %v, with room for half of the rules: %v", x != nil, err)
	}
	x, err = Load(Options{Path: id, Adopt: true, Rules: rules(301, 1001)})
	if err != nil {
		t.Fatal(err)
	}
	x.Close()
	// One that starts after a crash makes maps of its own then.
	p.Close()
	x, err = Load(Options{Path: id, Rules: rules(401, 1101)})
	if err != nil || x.Adopted() {
		t.Fatalf("%v, adopted %v", err, x.Adopted())
	}
	if err := x.Add(rules(401, 1101)); err != nil {
		t.Error(err)
	}
	if _, err := x.Remove(); err != nil || len(x.held[tablePorts]) != 700 {
		t.Errorf("%v, %d entries", err, len(x.held[tablePorts]))
	}
	x.Close()
	if p, err = Load(Options{Path: id, Adopt: true, Rules: rules(401, 1101)}); err != nil {
		t.Fatal(err) // by the defer above all is removed
	}
}

// TestAPredecessorChangesItsMind takes over from a weir that changes the rules after its successor has looked: what it added is removed, what it removed is there again.
func TestAPredecessorChangesItsMind(t *testing.T) {
	needBPF(t)
	inNamespace(t)
	id := filepath.Join(bpffs(t), "a")
	rules := testRules()
	old := start(t, Options{Path: id}, rules)
	p, err := Load(Options{Path: id, Rules: rules, Adopt: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Destroy()
	changed := testRules()
	changed.Local = append(changed.Local[1:], ip("198.18.0.200"))
	changed.Services = append(changed.Services[1:], Service{netip.MustParsePrefix("203.0.113.0/24"), packet.ProtoTCP, 22, 22}, Service{One(ip("198.18.9.77")), packet.ProtoTCP, 80, 80})
	if err := old.Add(changed); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Remove(); err != nil {
		t.Fatal(err)
	}
	old.Close()
	if err := p.Look(); err != nil {
		t.Fatal(err)
	}
	if err := p.Add(rules); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Remove(); err != nil {
		t.Fatal(err)
	}
	p.Beat(uint64(Now()))
	c := compiled(rules)
	for _, tt := range append(packetCases(),
		ruleCase{"a VIP that was added", tcp(client4, 4000, ip("198.18.9.77"), 80), PassOther},
		ruleCase{"a prefix that was added", tcp(client4, 4000, ip("203.0.113.9"), 22), PassOther},
		ruleCase{"an address that was added", tcp(client4, 4000, ip("198.18.0.200"), 22), PassOther}) {
		if got := agree(t, p, c, frame(tt.packet)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	held := p.held
	if err := p.Look(); err != nil {
		t.Fatal(err)
	}
	for table := range held {
		if !slices.Equal(held[table], p.held[table]) {
			t.Errorf("%s: the table holds %d entries, %d are known", tables[table].name, len(p.held[table]), len(held[table]))
		}
	}
}

// TestAdoptionKeepsNumbers starts again with other prefixes: one that stays keeps its number, and a new one does not get its ports.
func TestAdoptionKeepsNumbers(t *testing.T) {
	needBPF(t)
	inNamespace(t)
	id := filepath.Join(bpffs(t), "a")
	with := func(services ...Service) *Rules {
		r := testRules()
		r.Services = services
		return r
	}
	other := netip.MustParsePrefix("203.0.113.0/24")
	before := with(Service{other, packet.ProtoTCP, 22, 22}, Service{wide4, packet.ProtoTCP, 80, 80}, Service{narrow4, packet.ProtoTCP, 1, 9})
	p := start(t, Options{Path: id}, before)
	numbers := maps.Clone(p.numbers.nets)
	p.Close()

	after := with(Service{wide6, packet.ProtoTCP, 443, 443}, Service{wide4, packet.ProtoTCP, 80, 80})
	p, err := Load(Options{Path: id, Rules: after})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Destroy()
	if !p.Adopted() || !maps.Equal(p.numbers.nets, numbers) {
		t.Fatalf("adopted %v, numbers %v, were %v", p.Adopted(), p.numbers.nets, numbers)
	}
	in := frame(tcp(client4, 4000, ip("198.19.3.4"), 80))
	p.Beat(uint64(Now()))
	if err := p.Add(after); err != nil {
		t.Fatal(err)
	}
	if got, _ := inKernel(t, p, hookXDP, in); got != TakeService {
		t.Errorf("before Remove: %s", got)
	}
	if got, _ := inKernel(t, p, hookXDP, frame(tcp(client6, 4000, ip("2001:db8:19::1"), 22))); got != PassVIP {
		t.Errorf("a new prefix has another's ports: %s", got)
	}
	if _, err := p.Remove(); err != nil {
		t.Fatal(err)
	}
	if got, _ := inKernel(t, p, hookXDP, in); got != TakeService {
		t.Errorf("after Remove: %s", got)
	}
	key := netOf(wide4).wire()
	if len(p.numbers.nets) != 2 || p.numbers.nets[key] != numbers[key] {
		t.Errorf("numbers %v, were %v", p.numbers.nets, numbers)
	}
}

func TestAdoptionRemovesWhatIsNoLongerMeant(t *testing.T) {
	needBPF(t)
	inNamespace(t)
	a, b := newVeth(t, "wxsa"), newVeth(t, "wxsb")
	id := filepath.Join(bpffs(t), "a")
	r := a.rules()
	r.Ports = append(r.Ports, Port{Name: "b", Ifindex: b.near, MACs: [][6]byte{ourMAC}})
	start(t, Options{Path: id}, r, a.near, b.near).Close()

	p := start(t, Options{Path: id}, a.rules(), a.near)
	if a.xdpProgram(t) == 0 || b.xdpProgram(t) != 0 {
		t.Errorf("programs %d and %d, want the first alone", a.xdpProgram(t), b.xdpProgram(t))
	}
	for _, e := range p.held[tableMACs] {
		if e.ifindex() != a.near {
			t.Errorf("an entry of device %d is left", e.ifindex())
		}
	}
	if len(p.numbers.slots) != 1 {
		t.Errorf("slots %v, want one", p.numbers.slots)
	}
	p.Close()

	// The device is lost together with the link's hold on it.
	dev, err := netlink.LinkByIndex(a.near)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(dev); err != nil {
		t.Fatal(err)
	}
	p = start(t, Options{Path: id}, b.rules(), b.near)
	if b.xdpProgram(t) == 0 {
		t.Error("no program")
	}
	if got, want := names(t, id), layoutDir()+" "+(linkKey{hookXDP, b.near}).pin(); got != want {
		t.Errorf("pins %q, want %q", got, want)
	}
	p.Close()
	if _, err := Cleanup(id); err != nil {
		t.Fatal(err)
	}
}

// TestCleanup is two weirs on one host, both dead; what is left of one is removed.
func TestCleanup(t *testing.T) {
	needBPF(t)
	inNamespace(t)
	a, b := newVeth(t, "wxsa"), newVeth(t, "wxsb")
	root := filepath.Join(bpffs(t), "weir") // the root of a bpffs has files of its own
	p := start(t, Options{Path: filepath.Join(root, "a")}, a.rules(), a.near)
	if err := p.AttachDrop(a.far); err != nil && p.tc != nil {
		t.Logf("without tcx: %v", err)
	}
	p.Close()
	start(t, Options{Path: filepath.Join(root, "b")}, b.rules(), b.near).Close()

	removed, err := Cleanup(filepath.Join(root, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if len(removed) < 3 { // link, maps, directory
		t.Errorf("removed %v", removed)
	}
	if a.xdpProgram(t) != 0 || b.xdpProgram(t) == 0 {
		t.Errorf("programs %d and %d, want the second alone", a.xdpProgram(t), b.xdpProgram(t))
	}
	if got := names(t, root); got != "b" {
		t.Errorf("left: %s, want b", got)
	}
	if removed, err = Cleanup(filepath.Join(root, "a")); err != nil || removed != nil {
		t.Errorf("again: %v, %v", removed, err)
	}
	if _, err = Cleanup(filepath.Join(root, "b")); err != nil || names(t, root) != "" {
		t.Errorf("left: %s: %v", names(t, root), err)
	}
	if _, err = Cleanup(t.TempDir()); err == nil {
		t.Error("a directory that is not on a bpffs was cleaned up")
	}
}

func TestUnpinned(t *testing.T) {
	needBPF(t)
	inNamespace(t)
	v := newVeth(t, "wxs")
	p := start(t, Options{Path: filepath.Join(t.TempDir(), "weir")}, v.rules(), v.near)
	if ok, why := p.Pinned(); ok || !strings.Contains(why, "not on a bpffs") {
		t.Errorf("pinned %v: %q", ok, why)
	}
	if v.xdpProgram(t) == 0 {
		t.Error("not attached")
	}
	p.Close()
	if id := v.xdpProgram(t); id != 0 {
		t.Errorf("program %d outlives the process though it is not pinned", id)
	}
}

func TestLimits(t *testing.T) {
	needBPF(t)
	many := func(n int) *Rules {
		r := &Rules{}
		for i := range n {
			r.Services = append(r.Services, Service{One(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})), packet.ProtoTCP, 80, 80})
		}
		return r
	}
	if _, err := Load(Options{MaxEntries: 10, Rules: many(11)}); err == nil || !strings.Contains(err.Error(), "ports: 11 entries are needed, max_entries is 10") {
		t.Errorf("Load: %v", err)
	}
	p := loaded(t, many(6), Options{MaxEntries: 10})
	err := p.Add(&Rules{Services: []Service{{One(far4), packet.ProtoTCP, 1, 1}, {One(far4), packet.ProtoTCP, 2, 2}, {One(far4), packet.ProtoTCP, 3, 3},
		{One(far4), packet.ProtoTCP, 4, 4}, {One(far4), packet.ProtoTCP, 5, 5}}})
	if err == nil || !strings.Contains(err.Error(), "11 entries are needed while old and new rules hold together, the map has room for 10") {
		t.Errorf("Add: %v", err)
	}
	if len(p.held[tablePorts]) != 6 {
		t.Errorf("%d entries after an Add that was refused, want 6", len(p.held[tablePorts]))
	}
	p = loaded(t, &Rules{}, Options{Devices: 2})
	if err := p.Add(&Rules{Ports: []Port{{Name: "a", Ifindex: 1}, {Name: "b", Ifindex: 2}, {Name: "c", Ifindex: 3}}}); err == nil ||
		!strings.Contains(err.Error(), "c: steer: ifindex 3: more than 2 devices") {
		t.Errorf("devices: %v", err)
	}
}

func TestCheck(t *testing.T) {
	r := &Rules{
		Ports:    []Port{{Name: "p", Ifindex: -1, VLAN: 4095, Access: []uint16{5000}}},
		Local:    []netip.Addr{{}},
		NAT:      []NAT{{nat4, 9, 8}},
		VTEPs:    []VTEP{{vtep4, 4789, []uint32{1 << 24}}},
		Services: []Service{{One(vip4), packet.ProtoICMP, 9, 8}, {One(vip4), packet.ProtoESP, 0, 9}, {netip.PrefixFrom(vip4, 33), packet.ProtoTCP, 80, 80}},
		Servers:  []Server{{netip.Addr{}, 0, 0}, {web4, packet.ProtoAH, 9}},
		Tunnels:  []Tunnel{{netip.Addr{}, packet.ProtoGRE, 0}, {web4, packet.ProtoTCP, 0}, {web4, packet.ProtoUDP, 0}, {web4, packet.ProtoIPIP, 9}},
	}
	err := r.Check()
	if err == nil {
		t.Fatal("accepted")
	}
	if n := len(strings.Split(err.Error(), "\n")); n != 17 {
		t.Errorf("%d faults are named, want all 17:\n%v", n, err)
	}
	if c, err := Compile(r); c != nil || err == nil {
		t.Error("Compile takes bad rules")
	}
	if err := testRules().Check(); err != nil {
		t.Errorf("good rules: %v", err)
	}
}
