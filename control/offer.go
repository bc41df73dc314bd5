package control

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"weir/conntrack"
	"weir/control/config"
	"weir/control/health"
	"weir/dataplane"
	"weir/dataplane/driver/afxdp"
	"weir/dataplane/sched"
)

// What one weir tells the next in a takeover, in two parts: the offer, from which the successor makes everything anew while the former process still
// works, and the state, when that has stopped and nothing moves but what the kernel puts into the rings.

// takeoverVersion is that of the conversation. Fields may be added without a new one, as long as who does not know them is not wrong.
const takeoverVersion = 1

// offer is what does not change any more once it is made, as nobody can reload meanwhile. Files are the names of those that come with it, in order.
type offer struct {
	PID      int                        `json:"pid"`
	Version  string                     `json:"version"`
	Socket   string                     `json:"socket"`
	Seed     uint64                     `json:"seed"`
	Loaded   uint64                     `json:"generation"`
	Edits    []config.Edit              `json:"edits,omitempty"`
	Table    tableOffer                 `json:"table"`
	Legend   *legend                    `json:"legend"`
	Health   []health.Known             `json:"health,omitempty"`
	Sides    map[string]json.RawMessage `json:"sides"`
	Ports    []portOffer                `json:"ports"` // in the order of their numbers
	Workers  []workerOffer              `json:"workers"`
	TUN      string                     `json:"tun"`
	Offloads map[string][]string        `json:"offloads,omitempty"` // switched off, by device
	Front    netip.AddrPort             `json:"front,omitzero"`     // admin.http
	Files    []string                   `json:"files"`
}

type tableOffer struct {
	Layout   string    `json:"layout"`
	Capacity int       `json:"capacity"`
	Secret   [2]uint64 `json:"secret"`
	Path     string    `json:"path"`
	Place    string    `json:"place"` // engine.state_dir
	Boot     [16]byte  `json:"boot"`
}

type portOffer struct {
	Interface string `json:"interface"`
	VLAN      uint16 `json:"vlan,omitempty"`
}

type workerOffer struct {
	Chunks    int                `json:"chunks"`
	ChunkSize int                `json:"chunk_size"`
	Pages     string             `json:"pages"`
	Queues    []afxdp.QueueOffer `json:"queues"`
}

// handState is what moved until the end.
type handState struct {
	Stopped int64                 `json:"stopped"` // monotonic nanoseconds, when the workers were told to stop
	Table   conntrack.Alive       `json:"table"`
	Engine  dataplane.EngineState `json:"engine"`
	Loads   []loadState           `json:"loads"`
	Workers []workerState         `json:"workers"`
}

type loadState struct {
	ID uint32 `json:"id"`
	sched.LoadState
}

type workerState struct {
	Worker dataplane.WorkerState `json:"worker"`
	Frames afxdp.UmemState       `json:"frames"`
}

// Names of files in an offer; those of workers and queues are numbered from 0.
const (
	fileTable    = "table"
	fileLock     = "lock"
	fileListener = "listener"
	fileFront    = "front"
	fileTUN      = "tun"
)

func fileMemory(worker int) string        { return fmt.Sprintf("memory %d", worker) }
func fileSocket(worker, queue int) string { return fmt.Sprintf("socket %d %d", worker, queue) }

// giveable says why this process cannot be taken over as it is.
func (c *Control) giveable() error {
	switch {
	case os.Getpid() == 1:
		return errors.New("it is process 1, and with that its container ends: start a new container, which keeps connections as well")
	case c.state.file == nil:
		return errors.New("its connections have no file (engine.state_dir): do a restart")
	}
	for _, r := range c.ports.rings {
		if r.registered != r.queue.Generation() { // a successor would take for done what is still to do, and never do it
			p := &c.cfg.Ports[r.port]
			return fmt.Errorf("port %s is not ready: %s", p.Name, cmp.Or(c.ports.missing[p.Name], "its device has come back"))
		}
	}
	if ok, why := c.ports.program.Pinned(); !ok {
		return fmt.Errorf("its steering program is not pinned: %s; then do a restart", why)
	}
	for i := range c.cfg.Ports {
		if d := c.cfg.Ports[i].Driver; d != "af_xdp" {
			return fmt.Errorf("ports[%d] %s: driver %s cannot be handed over: do a restart, which keeps connections as well", i, c.cfg.Ports[i].Name, d)
		}
	}
	for i, u := range c.ports.umems {
		if _, ok := u.Share(); !ok {
			return fmt.Errorf("the frame memory of worker %d is no file, as this host has no huge pages: set /sys/kernel/mm/transparent_hugepage/enabled to madvise, then do a restart", i)
		}
	}
	return nil
}

// offer makes the offer, and copies of the files for it. c.mu is held.
func (c *Control) offer() (o *offer, files []int, err error) {
	t := c.engine.Table
	o = &offer{
		PID: os.Getpid(), Version: c.options.Version, Socket: c.options.Socket, Seed: c.seed, Loaded: c.generation, Edits: c.edits,
		Table:  tableOffer{Layout: conntrack.Layout(), Capacity: t.Cap(), Secret: t.Secret(), Path: c.state.path, Place: c.state.want, Boot: c.state.boot},
		Legend: c.reg.legend(), Health: c.reg.watch.monitor.Known(), Sides: map[string]json.RawMessage{}, Offloads: c.ports.off, TUN: c.ports.tun.Name(),
	}
	o.Legend.Table, o.Legend.File = c.state.id(), c.state.path
	for name, x := range map[string]any{positionsFile: c.reg.positions(), stationsFile: c.reg.overlay.learned(c.cfg)} {
		b, err := json.Marshal(x)
		if err != nil {
			return nil, nil, err
		}
		o.Sides[name] = b
	}
	for i := range c.cfg.Ports {
		o.Ports = append(o.Ports, portOffer{c.cfg.Ports[i].Interface, c.cfg.Ports[i].VLAN})
	}
	add := func(name string, fd int, e error) {
		if err = errors.Join(err, e); e == nil {
			o.Files, files = append(o.Files, name), append(files, fd)
		}
	}
	dup := func(name string, fd int) {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		add(name, n, err)
	}
	dup(fileTable, int(c.state.file.Fd()))
	dup(fileLock, int(c.state.lock.Fd()))
	dup(fileTUN, c.ports.tun.FD())
	if l, ok := c.listener.(syscall.Conn); ok {
		raw, e := l.SyscallConn()
		if e == nil {
			e = raw.Control(func(fd uintptr) { dup(fileListener, int(fd)) })
		}
		err = errors.Join(err, e)
	}
	if fd, at, ok, e := c.front.Offer(); ok || e != nil {
		o.Front = at
		add(fileFront, fd, e)
	}
	for w, u := range c.ports.umems {
		file, _ := u.Share()
		dup(fileMemory(w), int(file.Fd()))
		x := workerOffer{Chunks: u.Pool().Chunks(), ChunkSize: u.Pool().ChunkSize(), Pages: u.Pages()}
		for _, q := range u.Queues() { // in the order that the memory's owners are numbered by, which need not be that of our ports: see assumeWorker
			q, fd, e := q.Offer()
			add(fileSocket(w, len(x.Queues)), fd, e)
			x.Queues = append(x.Queues, q)
		}
		o.Workers = append(o.Workers, x)
	}
	return o, files, err
}

// surrender says where everything stands; the workers have stopped. generations are those that queues had when they were offered.
func (c *Control) surrender(stopped int64, generations []uint32) (*handState, error) {
	s := &handState{Stopped: stopped}
	for i, r := range c.ports.rings {
		if r.queue.Generation() != generations[i] || r.queue.SocketFD() < 0 {
			return nil, fmt.Errorf("the device of port %s went, or came back, meanwhile", c.cfg.Ports[r.port].Name)
		}
	}
	s.Engine = c.engine.Surrender(dataplane.Monotonic())
	s.Table = c.engine.Table.Alive()
	for _, b := range c.reg.ids {
		if b == nil {
			continue
		}
		if x := b.load.State(); x != (sched.LoadState{}) {
			s.Loads = append(s.Loads, loadState{b.id, x})
		}
	}
	for i, w := range c.engine.Workers() {
		s.Workers = append(s.Workers, workerState{w.Surrender(), c.ports.umems[i].Surrender()})
	}
	return s, nil
}

// inherit makes the state of a table that comes with an offer.
func (c *Control) inherit(o *offer, want string, table, lock int) (*state, error) {
	s, err := openState(c.log, o.Socket, want)
	if err != nil {
		return nil, err
	}
	if s.boot != o.Table.Boot {
		return nil, errors.New("it is of another start of the machine")
	}
	s.file, s.path = os.NewFile(uintptr(table), o.Table.Path), o.Table.Path
	// The path may be another user's word, of a weir that runs as him: root removes nothing else on it.
	there, err := os.Lstat(s.path)
	if err != nil {
		return nil, err
	}
	if is, err := s.file.Stat(); err != nil || !os.SameFile(is, there) {
		return nil, fmt.Errorf("%s: is not the table that comes with the offer", s.path)
	}
	s.lock = os.NewFile(uintptr(lock), filepath.Dir(o.Table.Path))
	s.restored = map[string][]byte{}
	for name, x := range o.Sides {
		s.restored[name] = x
	}
	return s, nil
}

// fileListenerOf makes a listener of a descriptor, which is closed.
func fileListenerOf(fd int, name string) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return net.FileListener(f)
}
