package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"weir/control/config"
	"weir/control/host"
	"weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/afpacket"
	"weir/dataplane/driver/afxdp"
	"weir/dataplane/driver/wait"
	"weir/dataplane/steer"
)

// ports is the host's side of a daemon: devices, sockets, steering, neighbours, VIPs and the way back into the kernel. Control's goroutine
// alone uses it, but for Stats.
type ports struct {
	log     *slog.Logger
	socket  string // admin socket: with the namespace, what tells this weir from others
	cfg     *config.Config
	engine  *dataplane.Engine
	host    *host.Host
	mirror  *host.Mirror
	keeper  *host.Keeper
	vips    *host.VIPs
	local   *host.LocalPorts
	groups  *host.Groups
	promisc *host.Promiscuous
	tun     *host.TUN
	program *steer.Program
	off     map[string][]string // offloads that were switched off, by device

	umems   []*afxdp.Umem
	live    *afxdp.Live      // what ports send bursts by that want to; nil: nothing
	unlive  map[int]string   // why a port does not that wants to, empty if it does
	beats   []beat           // signs of life, by worker
	rings   []*ring          // every AF_XDP queue
	queues  [][]driver.Queue // by worker, by port
	wanted  wanted
	crowd   crowd
	missing map[string]string // what is wrong with a device now, so that it is logged once
	guarded map[int]guard     // by port: where our program was attached last
	plain   map[int]int       // by port: the device made anew whose offloads were switched off last
	deaf    map[int]string    // by port: that its device receives on queues that no worker looks at, if it does
	pending bool              // register must be called again soon
	wants   []netip.Prefix    // VIPs and full NAT addresses to be bound
	bound   bool              // they have been, without an error
	under   map[string]string // what is wrong with the underlay, by segment
	scarce  string            // the last warning about local ports
	renewed time.Time         // when local ports were looked at last
	workers int
	maxMTU  int // that the chunks of AF_XDP have room for
}

// ring is an AF_XDP queue and the generation of it that the steering program knows.
type ring struct {
	port, number int
	queue        *afxdp.Queue
	registered   uint32
}

// guard is the device of a port that our program stands in front of, and how.
type guard struct {
	ifindex int
	mode    string // native or generic; empty with packet sockets
}

// hopKey is a next hop that workers asked for.
type hopKey struct {
	ifindex int
	addr    netip.Addr
}

// openPorts looks at the devices of the configuration and refuses what cannot work, each by name and with the cure.
func openPorts(log *slog.Logger, socket string, cfg *config.Config, engine *dataplane.Engine) (p *ports, err error) {
	p = &ports{log: log, socket: socket, cfg: cfg, engine: engine, wanted: wanted{}, missing: map[string]string{}, guarded: map[int]guard{}, plain: map[int]int{}, deaf: map[int]string{}, off: map[string][]string{}}
	if p.host, err = host.Open(); err != nil {
		return nil, err
	}
	links := map[int]host.Link{}
	all, err := p.host.Links()
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		links[l.Index] = l
	}
	for i := range cfg.Ports {
		c := &cfg.Ports[i]
		switch c.Driver {
		case "af_xdp", "af_packet":
		default:
			return nil, fmt.Errorf("ports[%d] %s: driver %s moves no frames of a host: it is for replay and tests", i, c.Name, c.Driver)
		}
		l, err := p.host.Link(c.Interface)
		if err != nil {
			return nil, fmt.Errorf("ports[%d] %s: %w", i, c.Name, err)
		}
		switch {
		case l.Kind == "bond" || links[l.Master].Kind == "bond":
			return nil, fmt.Errorf("ports[%d] %s: %s is (part of) a bond: bonds are not supported yet; name a device that is not bonded", i, c.Name, c.Interface)
		case l.Kind == "vlan":
			return nil, fmt.Errorf("ports[%d] %s: %s is a VLAN device: name the device below it, with vlan: %d", i, c.Name, c.Interface, l.VLAN)
		}
	}
	for _, name := range p.devices() {
		p.disableOffloads(name)
	}
	hostPorts := hostPortsOf(cfg)
	if p.mirror, err = p.host.NewMirror(hostPorts); err != nil {
		return nil, err
	}
	for _, a := range p.host.Advise(hostPorts) {
		log.Warn("host setting", "kind", "host", "advice", a.String())
	}
	return p, nil
}

// devices are the names of all devices, each once.
func (p *ports) devices() (names []string) {
	for i := range p.cfg.Ports {
		if p.owner(i) == i {
			names = append(names, p.cfg.Ports[i].Interface)
		}
	}
	return names
}

// owner is the first port on the same device as port i: the one with the queues.
func (p *ports) owner(i int) int {
	for j := range p.cfg.Ports {
		if p.cfg.Ports[j].Interface == p.cfg.Ports[i].Interface {
			return j
		}
	}
	return i
}

func hostPortsOf(cfg *config.Config) (all []host.Port) {
	for i := range cfg.Ports {
		all = append(all, host.Port{Interface: cfg.Ports[i].Interface, VLAN: cfg.Ports[i].VLAN})
	}
	return all
}

// surroundings is the host as it is now, with what the configuration says instead of it.
func (p *ports) surroundings() *surroundings {
	state := p.mirror.State()
	s := &surroundings{routes: state.Routes, neighbors: state.Neighbors}
	for i := range p.cfg.Ports {
		c, l := &p.cfg.Ports[i], state.Links[i]
		mac, mtu, addresses := l.MAC, l.MTU, append(append([]netip.Prefix{}, c.Addresses...), l.Addresses...)
		if c.HasMAC {
			mac = c.MAC
		}
		if c.MTU != 0 && (mtu == 0 || c.MTU < mtu) {
			mtu = c.MTU
		}
		if mtu == 0 {
			// The device is gone. What is sent there is lost, be it by a route or an access port of the configuration; but its senders must not be told of an
			// MTU of 0, which they would go by for ten minutes (RFC 1191), nor cookies announce a segment size that fits it.
			mtu = maxMTU
		}
		port := portOf(p.cfg, i, mac, mtu, addresses)
		port.Filtered = c.Driver == "af_xdp"
		port.Device = p.owner(i)
		for j := range p.cfg.Ports {
			port.Shared = port.Shared || j != i && p.owner(j) == port.Device
		}
		s.ports = append(s.ports, port)
		s.devices = append(s.devices, steer.Port{Name: c.Name, Ifindex: l.Index, MACs: [][6]byte{mac}, VLAN: c.VLAN})
	}
	for _, a := range state.Locals {
		if a.IsSingleIP() {
			s.local = append(s.local, a.Addr())
		}
	}
	return s
}

// reconfigured takes a new configuration, whose ports are the same but for their tags, and returns its surroundings.
func (p *ports) reconfigured(cfg *config.Config) *surroundings {
	p.cfg = cfg
	if err := p.mirror.SetPorts(hostPortsOf(cfg)); err != nil {
		p.log.Warn("reading the host", "kind", "host", "err", err)
	}
	return p.surroundings()
}

// begin opens the sockets, attaches the steering program and starts the workers, one for each of cpus.
func (p *ports) begin(cfg *config.Config, x *compiled, cpus []int) (runners []*dataplane.Runner, err error) {
	mode, err := wait.ParseMode(cfg.Engine.Wait)
	if err != nil {
		return nil, err
	}
	p.workers = len(cpus)
	if err := p.checkQueues(len(cpus)); err != nil {
		return nil, err
	}
	if err := p.steering(x); err != nil {
		return nil, err
	}
	mtu := 0
	for _, port := range x.snapshot.Ports {
		mtu = max(mtu, port.MTU)
	}
	if p.tun, err = p.host.NewTUN(host.TUNOptions{MTU: mtu}); err != nil {
		return nil, err
	}
	if w := p.tun.Warning(); w != "" {
		p.log.Warn("the way back into the kernel", "kind", "host", "device", p.tun.Name(), "warning", w)
	}
	tun := p.tun
	p.engine.Punt = func(ip []byte) bool { return tun.Write(ip) == 0 }
	p.beats = make([]beat, len(cpus))
	p.openLive()
	for w, cpu := range cpus {
		worker, err := p.openWorker(w, mtu)
		if err != nil {
			return runners, err
		}
		waiter, err := wait.New(mode)
		if err != nil {
			return runners, err
		}
		runners = append(runners, &dataplane.Runner{Worker: worker, Waiter: waiter, CPU: cpu, Beat: func(now int64) {
			p.program.Beat(uint64(now))
			p.beats[w].at(now)
		}})
	}
	p.program.Beat(uint64(dataplane.Monotonic())) // before the sockets are known, so that nothing of ours passes any more
	p.register()
	p.tendLive()
	if removed, err := p.program.Remove(); err != nil {
		return runners, err
	} else if len(removed) > 0 {
		p.log.Info("a predecessor's leftovers removed", "kind", "host", "what", removed)
	}
	for _, r := range runners {
		r.Start()
	}
	return runners, nil
}

// ringSize is the entries of each AF_XDP ring; a worker's memory has room for four times that of each port and a few vectors.
const ringSize = 2048

// maxMTU is the largest of a device, in bytes of the IP packet: a frame and its headroom must fit into a page.
const maxMTU = 3500

// chunkSize is the bytes that hold a frame of packets up to mtu, and the largest MTU of which that is true.
func chunkSize(mtu int) (chunk, most int) {
	if mtu <= 1700 {
		return 2048, 1700
	}
	return 4096, maxMTU
}

// chunksFor is how many frames a worker's memory has room for that serves so many devices.
func chunksFor(devices int) int { return (4*devices + 2) * ringSize }

// openWorker opens one queue of every device for worker number w.
func (p *ports) openWorker(w, mtu int) (*dataplane.Worker, error) {
	chunk, most := chunkSize(mtu)
	p.maxMTU = most
	chunks := chunksFor(len(p.devices()))
	umem, err := afxdp.NewUmem(afxdp.UmemOptions{ChunkSize: chunk, Chunks: chunks, OwnSetup: chunk != 2048, HugePages: hugePages(), Shared: hugePages()})
	if err != nil {
		return nil, err
	}
	p.umems = append(p.umems, umem)
	queues := make([]driver.Queue, len(p.cfg.Ports))
	for i := range p.cfg.Ports {
		c := &p.cfg.Ports[i]
		if p.owner(i) != i {
			continue
		}
		if c.Driver == "af_packet" {
			q, err := afpacket.Open(c.Interface, umem.Pool(), afpacket.Options{Fanout: p.fanout(i)})
			if err != nil {
				return nil, fmt.Errorf("ports[%d] %s: %w", i, c.Name, err)
			}
			queues[i] = q
			continue
		}
		number := w
		if !c.Queues.All {
			number = c.Queues.List[w]
		}
		q, err := afxdp.Open(umem, c.Interface, number, afxdp.Options{Mode: c.XDPMode, RingSize: ringSize, Attached: p.attached(i)})
		if err != nil {
			return nil, fmt.Errorf("ports[%d] %s: %w", i, c.Name, err)
		}
		p.enliven(i, q)
		queues[i] = q
		p.rings = append(p.rings, &ring{port: i, number: number, queue: q, registered: q.Generation() - 1})
	}
	p.queues = append(p.queues, queues)
	return p.engine.AddWorker(umem.Pool(), queues), nil
}

// attached is the mode in which the program is attached to the device of port i.
func (p *ports) attached(i int) string {
	if p.cfg.Ports[i].XDPMode == "generic" {
		return afxdp.ModeGeneric
	}
	return p.guarded[i].mode
}

// fanout is a fanout group of the device's own.
func (p *ports) fanout(i int) uint16 {
	return uint16(xxhash.Sum64String(fmt.Sprint(os.Getpid(), i))) | 1
}

// bind makes the host answer for the VIPs and the addresses of full NAT and leave their ports to us, and the kernel keep the next hops
// of the configuration resolved.
func (p *ports) bind(cfg *config.Config, x *compiled) (err error) {
	if p.vips == nil {
		dir := stateDir(p.host, p.socket)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if p.vips, err = p.host.NewVIPs(hostPortsOf(cfg), dir); err != nil {
			return err
		}
		if p.local, err = p.host.NewLocalPorts(dir); err != nil {
			return err
		}
		devices := p.mirror.State().Ports
		if p.keeper, err = p.host.NewKeeper(func(ifindex int) bool { return devices.Port(ifindex) >= 0 }); err != nil {
			return err
		}
		p.inheritHops()
		p.groups, p.promisc = p.host.NewGroups(), p.host.NewPromiscuous()
	}
	if p.vips.SetPorts(hostPortsOf(cfg)) {
		p.bound = false // a VIP may belong elsewhere
	}
	p.tendUnderlay()
	p.reserve(x)
	var wants []netip.Prefix
	if cfg.BindVIPs {
		wants = x.bindings()
	}
	for _, a := range p.vips.Advise(wants) {
		p.log.Warn("host setting", "kind", "host", "advice", a.String())
	}
	if !p.bound || !slices.Equal(wants, p.wants) { // else refresh has seen to them, whatever has become of them meanwhile
		p.wants = wants
		err = p.vips.Set(wants)
		p.bound = err == nil
	}
	p.keep()
	return err
}

// rebind follows a snapshot of the same configuration, which may need fewer addresses: those that connections of before went by.
func (p *ports) rebind(cfg *config.Config, x *compiled) error {
	wants := x.bindings()
	if p.vips == nil || !cfg.BindVIPs || slices.Equal(wants, p.wants) {
		return nil
	}
	p.wants = wants
	err := p.vips.Set(wants)
	p.bound = err == nil
	return err
}

func (p *ports) watch(ctx context.Context) (<-chan host.Event, error) {
	events := make(chan host.Event, 256)
	return events, p.host.Watch(ctx, events)
}

func (p *ports) note(e host.Event) { p.mirror.Note(e) }

// refresh reads the host anew where events said so.
func (p *ports) refresh() (changed bool, err error) {
	before := p.mirror.State()
	changed, err = p.mirror.Refresh()
	if changed && !p.crowd.waits(time.Now()) {
		p.keep()
	}
	// A device that goes down loses its IPv6 addresses, VIPs among them, and an address that comes or goes moves IPv6 VIPs.
	if after := p.mirror.State(); p.vips != nil && !(reflect.DeepEqual(before.Links, after.Links) && slices.Equal(before.Locals, after.Locals)) {
		failed := p.vips.Set(p.wants)
		p.bound = failed == nil
		err = errors.Join(err, failed)
	}
	return changed, err
}

// bindAgain binds what could not be bound, if there is any: the mirror has taken in by now what moved it, so refresh sees no reason to.
func (p *ports) bindAgain() error {
	if p.vips == nil || p.bound {
		return nil
	}
	err := p.vips.Set(p.wants)
	p.bound = err == nil
	return err
}

// tend looks after what no event tells.
func (p *ports) tend() {
	p.countQueues()
	p.register()
	p.renew()
	if p.crowd.due(time.Now()) {
		p.keep()
	}
	p.letGo()
	p.tendLive()
	p.tendUnderlay()
}

// unbind takes the VIPs away, first of all that is taken down: from then on nothing new comes to us.
func (p *ports) unbind() error {
	var errs []error
	if p.vips != nil {
		errs = append(errs, p.vips.Release())
	}
	if p.local != nil {
		errs = append(errs, p.local.Release())
	}
	if p.keeper != nil {
		errs = append(errs, p.keeper.Release())
	}
	if p.groups != nil {
		errs = append(errs, p.groups.Close(), p.promisc.Close())
	}
	return errors.Join(errs...)
}

// close takes down the rest, after the workers have stopped.
func (p *ports) close() error {
	var errs []error
	if p.program != nil {
		errs = append(errs, p.program.Destroy())
	}
	for _, queues := range p.queues {
		for _, q := range queues {
			if q != nil {
				errs = append(errs, q.Close())
			}
		}
	}
	for _, u := range p.umems {
		errs = append(errs, u.Close())
	}
	if p.live != nil {
		errs = append(errs, p.live.Close())
	}
	if p.tun != nil {
		errs = append(errs, p.tun.Close())
	}
	for name, features := range p.off {
		errs = append(errs, p.host.RestoreOffloads(name, features))
	}
	if p.vips != nil {
		_ = os.Remove(stateDir(p.host, p.socket)) // stays if anything is in it
		removeParents(p.host, p.socket)
	}
	if p.host != nil {
		errs = append(errs, p.host.Close())
	}
	return errors.Join(errs...)
}
