package steer

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Options of a Program. Zero values stand for the defaults named.
type Options struct {
	// Path is the directory on a bpffs that holds the pins of this weir and of no other, as /sys/fs/bpf/weir/main. Empty, or where no
	// bpffs is mounted: nothing is pinned, and the program goes when the process goes; see Program.Pinned.
	Path string

	// Rules are those about to be added; maps are made twice as large as these need, 1024 entries at least.
	Rules *Rules

	// Adopt has Load fail, with ErrMaps and nothing changed, where the maps of a predecessor, which is still alive, cannot be taken over.
	Adopt bool

	MaxEntries int // upper limit of each map's entries, 524288
	Devices    int // network devices, 64
	Queues     int // receive queues of a device, 64
}

// ErrMaps says that there are no maps to take over: they have another layout, or are too small for the rules, or for these and the predecessor's together.
var ErrMaps = errors.New("the steering program's maps have another layout, or are too small")

func (o Options) withDefaults() Options {
	if o.Rules == nil {
		o.Rules = &Rules{}
	}
	for _, d := range []struct {
		field *int
		value int
	}{{&o.MaxEntries, 1 << 19}, {&o.Devices, 64}, {&o.Queues, 64}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return o
}

// Program is the steering in the kernel: the XDP and the tc program, their maps, and the links that attach them. All methods but Beat
// are control's; they may be called from any goroutine.
//
// A start calls Load, Add, Attach, Register and Remove in this order: so a program that a predecessor left attached, or one that
// replaces it, knows what is ours at any moment. A reload calls Add, publishes the snapshot, then calls Remove. A clean stop calls
// Destroy; a process that dies, or calls Close, leaves the program attached for its successor if it is pinned.
type Program struct {
	heart heartbeat // read and written by workers through Beat; no lock

	mu       sync.Mutex
	opts     Options
	maps     mapSet
	pins     pins
	xdp, tc  *ebpf.Program
	tcErr    error // why the kernel does not take tc
	numbers  numbers
	links    map[linkKey]link.Link
	held     image  // what the tables hold
	wanted   image  // what they shall hold after Remove
	added    *Rules // that wanted is of; nil: of none, or an attempt at others has failed
	trimmed  bool   // they hold exactly what is wanted
	replaced bool   // the maps are new, though a predecessor's program may be attached
}

// Load makes or adopts the maps and loads the programs; nothing is attached yet. Maps that a predecessor pinned are taken over with
// what they hold if their layout is ours and they are large enough, else replaced.
//
// It needs CAP_BPF and CAP_NET_ADMIN and Linux 5.15.
func Load(o Options) (*Program, error) {
	o = o.withDefaults()
	p := &Program{opts: o, links: map[linkKey]link.Link{}}
	p.numbers = newNumbers(o)
	fresh := newNumbers(o)
	need, err := imageOf(o.Rules, &fresh)
	if err != nil {
		return nil, err
	}
	for id, t := range need {
		if len(t) > o.MaxEntries {
			return nil, fmt.Errorf("steer: %s: %d entries are needed, max_entries is %d", tables[id].name, len(t), o.MaxEntries)
		}
	}
	if p.pins, err = openPins(o.Path); err != nil {
		return nil, err
	}
	if err := p.open(need); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Program) open(need image) (err error) {
	why, err := p.adopt(need)
	if err != nil {
		return err
	}
	if p.maps.heartbeat == nil {
		switch { // with Adopt, pins of ours would be what is found next time, and taken for those in use
		case p.opts.Adopt && why != nil:
			return fmt.Errorf("%w: %w", ErrMaps, why)
		case p.opts.Adopt:
			return ErrMaps
		}
		p.replaced = true
		if p.maps, err = makeMaps(p.opts, need); err != nil {
			return err
		}
		if err = p.pins.pinMaps(&p.maps); err != nil {
			return err
		}
	}
	p.wanted = p.held // until Add says otherwise
	if p.heart, err = mapHeartbeat(p.maps.heartbeat); err != nil {
		return err
	}
	if p.xdp, err = p.load(hookXDP); err != nil {
		return err
	}
	if p.tc, p.tcErr = p.load(hookTC); p.tcErr != nil {
		p.tc = nil // only ports that ask for it suffer
	}
	return p.pins.pinProgram(p.xdp)
}

// adopt takes over the maps of a predecessor, with what they hold, if there are some that fit and have room for the rules besides: both must hold for a while.
// If not it leaves no maps, and why may say the reason.
func (p *Program) adopt(need image) (why, err error) {
	if p.maps, err = p.pins.adoptMaps(p.opts, need); err != nil || p.maps.heartbeat == nil {
		return nil, err
	}
	if err := p.readHeld(); err != nil {
		return nil, err
	}
	numbers := p.numbers.clone()
	want, why := imageOf(p.opts.Rules, &numbers)
	if why == nil {
		_, why = p.beside(want)
	}
	if why == nil {
		return nil, nil
	}
	err = p.maps.close()
	p.maps, p.held, p.numbers = mapSet{}, image{}, newNumbers(p.opts)
	p.pins.stage()
	return why, err
}

// load generates a program, and has the kernel verify it. It uses no helper that is for GPL programs only.
func (p *Program) load(h hook) (*ebpf.Program, error) {
	spec := &ebpf.ProgramSpec{Name: xdpName, Type: ebpf.XDP, Instructions: generate(h, p.maps.fds(p.opts.Queues))}
	if h == hookTC {
		spec.Name, spec.Type = "weir_steer_tc", ebpf.SchedCLS
	}
	prog, err := ebpf.NewProgram(spec)
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("load %s: %w (CAP_BPF and CAP_NET_ADMIN are needed)", spec.Name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", spec.Name, err)
	}
	return prog, nil
}

// Look reads anew what the tables hold: a predecessor that has given its place only now may have changed them since Load, for an address that the host got or lost.
// It comes before Add.
func (p *Program) Look() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.numbers, p.held, p.added, p.trimmed = newNumbers(p.opts), image{}, nil, false
	if err := p.readHeld(); err != nil {
		return err
	}
	p.wanted = p.held
	return nil
}

// readHeld reads back what adopted tables hold, and which numbers their devices and prefixes have.
func (p *Program) readHeld() error {
	for id, m := range p.maps.tables {
		var value uint32
		key := make([]byte, tables[id].keySize)
		it := m.Iterate()
		for it.Next(&key, &value) {
			e := entryOf(value, key)
			p.held[id] = append(p.held[id], e)
			if tableID(id) == tableMACs {
				p.numbers.slots[e.ifindex()] = value >> slotShift
			}
		}
		p.held[id] = listed(p.held[id])
		if err := it.Err(); err != nil {
			return fmt.Errorf("read pinned map %s: %w", tables[id].name, err)
		}
	}
	p.numbers.keep(p.held[tableNets])
	return nil
}

// Beat says that the workers are alive, at ns nanoseconds of CLOCK_MONOTONIC. Every worker calls it about every 10 ms. It takes no lock
// and makes no system call. It must not be called after Close or Destroy.
func (p *Program) Beat(ns uint64) { p.heart.beat.Store(ns) }

// Pinned reports whether maps, program and links outlive the process, and if not, why.
func (p *Program) Pinned() (ok bool, why string) { return p.pins.dir != "", p.pins.why }

// Adopted reports whether a predecessor's maps were taken over.
func (p *Program) Adopted() bool { return !p.replaced }

// Register puts an AF_XDP socket into the queue of a device: from now on it gets what is ours there.
func (p *Program) Register(ifindex, queue, fd int) error {
	i, err := p.socketIndex(ifindex, queue)
	if err != nil {
		return err
	}
	if err := p.maps.sockets.Update(i, uint32(fd), ebpf.UpdateAny); err != nil {
		return fmt.Errorf("register socket for ifindex %d queue %d: %w", ifindex, queue, err)
	}
	return nil
}

// Unregister takes the queue's socket out; what is ours there is then dropped, or passed once the heartbeat is stale. A socket that is
// closed leaves by itself.
func (p *Program) Unregister(ifindex, queue int) error {
	i, err := p.socketIndex(ifindex, queue)
	if err != nil {
		return err
	}
	if err := p.maps.sockets.Delete(i); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unregister socket of ifindex %d queue %d: %w", ifindex, queue, err)
	}
	return nil
}

func (p *Program) socketIndex(ifindex, queue int) (uint32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if queue < 0 || queue >= p.opts.Queues {
		return 0, fmt.Errorf("steer: ifindex %d: queue %d is outside 0..%d", ifindex, queue, p.opts.Queues-1)
	}
	s, err := p.numbers.slot(ifindex)
	return s*uint32(p.opts.Queues) + uint32(queue), err
}

// Stats are frames since the maps were made, by reason; a predecessor's are among them if its maps were adopted.
type Stats [NumReasons]uint64

// Named is the stats by metric name.
func (s *Stats) Named() map[string]uint64 {
	m := make(map[string]uint64, len(s))
	for r, n := range s {
		m[Reason(r).String()] = n
	}
	return m
}

// Stats sums the counters of all CPUs.
func (p *Program) Stats() (Stats, error) {
	var s Stats
	var perCPU []uint64
	for r := range s {
		if err := p.maps.counters.Lookup(uint32(r), &perCPU); err != nil {
			return s, fmt.Errorf("read counter %s: %w", Reason(r), err)
		}
		for _, n := range perCPU {
			s[r] += n
		}
	}
	return s, nil
}

// Close lets go of everything and leaves it to a successor what is pinned: the program stays attached, and drops what is ours until
// the last heartbeat is older than grace. What is not pinned is detached.
func (p *Program) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	clear(p.links)
	for _, prog := range []*ebpf.Program{p.xdp, p.tc} {
		if prog != nil {
			errs = append(errs, prog.Close())
		}
	}
	p.xdp, p.tc = nil, nil
	return errors.Join(append(errs, p.heart.unmap(), p.maps.close())...)
}
