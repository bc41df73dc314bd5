// Package testnet makes small networks out of network namespaces and veth pairs, for end-to-end tests and for the demo.
//
//	n, err := testnet.New("wdemo")
//	defer n.Close()
//	client, err := n.Space("client")
//	lb, err := n.Space("lb")
//	err = n.Veth(testnet.End{Space: client, Name: "eth0"}, testnet.End{Space: lb, Name: "wan", Queues: 2})
//	err = client.Address("eth0", "198.18.0.2/24")
//	err = lb.Command("weir", "run", "-c", "lb.yaml").Start()
//
// It needs root and no program besides what is run inside. A namespace is called PREFIX-PID-NUMBER-NAME and stands in /run/netns, so
// `ip -n` sees it. The pid keeps runs apart that go on at the same time, and tells New which namespaces a killed run left behind.
package testnet

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weir/control/host"
)

const namespaces = "/run/netns"

var errClosed = errors.New("testnet: the network is closed")

// number tells the networks of one process apart.
var number atomic.Uint64

// Net is one network. Its methods may be called from any goroutine.
type Net struct {
	prefix string

	mu       sync.Mutex
	spaces   []*Space
	commands []*Cmd
	closed   bool
}

// New begins a network, after it has removed what dead runs with the same prefix left. prefix is letters and digits.
func New(prefix string) (*Net, error) {
	if !regexp.MustCompile(`^[a-z][a-z0-9]*$`).MatchString(prefix) {
		return nil, fmt.Errorf("testnet: prefix %q: must be letters and digits", prefix)
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("testnet: network namespaces need root: %w", unix.EPERM)
	}
	// Root in a container may lack the right.
	if err := onThread(-1, func() error { return unix.Unshare(unix.CLONE_NEWNET) }); err != nil {
		return nil, fmt.Errorf("testnet: unshare: %w (needs CAP_SYS_ADMIN)", err)
	}
	if err := Sweep(prefix); err != nil {
		return nil, err
	}
	return &Net{prefix: fmt.Sprintf("%s-%d-%d-", prefix, os.Getpid(), number.Add(1))}, nil
}

// Sweep removes the namespaces of that prefix whose process is dead, and the processes that still run in them.
func Sweep(prefix string) error {
	entries, err := os.ReadDir(namespaces)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), prefix+"-")
		owner, _, more := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(owner)
		if !ok || !more || err != nil || pid <= 0 || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			continue
		}
		errs = append(errs, remove(e.Name()))
	}
	return errors.Join(errs...)
}

// remove kills what runs in a namespace and takes away its name. The kernel ends it with its devices when nobody holds it any more.
func remove(name string) error {
	path := filepath.Join(namespaces, name)
	for range 2 { // what was just being started when we looked
		for _, pid := range inside(path) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // EINVAL: a run died before it had mounted it
		return fmt.Errorf("umount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// inside are the processes, ourselves aside, whose network namespace is the one at path.
func inside(path string) (pids []int) {
	var ns unix.Stat_t
	if unix.Stat(path, &ns) != nil {
		return nil
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, p := range procs {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil && st.Ino == ns.Ino && st.Dev == ns.Dev {
			if pid, err := strconv.Atoi(strings.Split(p, "/")[2]); err == nil && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// Space makes a namespace of the network, with lo up and without duplicate address detection.
func (n *Net) Space(name string) (*Space, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errClosed
	}
	s := &Space{net: n, Name: name, File: n.prefix + name}
	var err error
	// A new namespace becomes the thread's, so a locked thread makes it and goes back.
	err = onThread(-1, func() error {
		var ns netns.NsHandle
		if ns, err = netns.NewNamed(s.File); err != nil {
			return fmt.Errorf("unshare, for %s: %w", s.File, err)
		}
		s.fd = int(ns)
		s.host, err = host.Open()
		return err
	})
	if err != nil {
		if s.fd > 0 {
			unix.Close(s.fd)
		}
		return nil, errors.Join(err, remove(s.File))
	}
	n.spaces = append(n.spaces, s)
	// A link-local address is tentative for 1 to 2 s after its device came up, and until then nobody is asked for a neighbour.
	if err := s.Sysctl("net/ipv6/conf/default/accept_dad", "0"); err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6
		return nil, err
	}
	return s, s.host.SetUp("lo", true)
}

// End is one end of a veth pair.
type End struct {
	Space  *Space
	Name   string
	MAC    string // empty: random
	Queues int    // receive and send queues each; 0: 1
	MTU    int    // 0: 1500
}

// Veth joins two namespaces by a veth pair, sets it up and switches all offloads off on both ends, so that frames are on it as they would
// be on a wire. It waits until both ends have a carrier.
func (n *Net) Veth(a, b End) error {
	v := netlink.NewVeth(netlink.NewLinkAttrs())
	v.Name, v.PeerName, v.PeerNamespace = a.Name, b.Name, netlink.NsFd(b.Space.fd)
	v.NumRxQueues, v.NumTxQueues = max(a.Queues, 1), max(a.Queues, 1)
	v.PeerNumRxQueues, v.PeerNumTxQueues = uint32(max(b.Queues, 1)), uint32(max(b.Queues, 1))
	if a.MTU != 0 {
		v.MTU = a.MTU
	}
	if b.MTU != 0 {
		v.PeerMTU = uint32(b.MTU)
	}
	var err error
	if v.HardwareAddr, err = parseMAC(a.MAC); err != nil {
		return err
	}
	if v.PeerHardwareAddr, err = parseMAC(b.MAC); err != nil {
		return err
	}
	if err := a.Space.Exec(func() error { return netlink.LinkAdd(v) }); err != nil {
		return fmt.Errorf("veth %s in %s, %s in %s: %w", a.Name, a.Space.Name, b.Name, b.Space.Name, err)
	}
	for _, e := range []End{a, b} {
		if _, _, err := e.Space.host.DisableOffloads(e.Name); err != nil {
			return err
		}
		if err := e.Space.host.SetUp(e.Name, true); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		la, errA := a.Space.host.Link(a.Name)
		lb, errB := b.Space.host.Link(b.Name)
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		if la.Carrier && lb.Carrier {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("veth %s in %s: no carrier after 5 s", a.Name, a.Space.Name)
		}
	}
}

// Close ends the commands that still run and removes all namespaces. It may be called again.
func (n *Net) Close() error {
	n.mu.Lock()
	n.closed = true
	spaces, commands := n.spaces, slices.Clone(n.commands)
	n.spaces = nil
	n.mu.Unlock()
	for _, c := range commands {
		c.end()
	}
	var errs []error
	for _, s := range slices.Backward(spaces) {
		errs = append(errs, s.host.Close(), unix.Close(s.fd), remove(s.File))
	}
	return errors.Join(errs...)
}

// CloseOnSignal closes the network on SIGINT, SIGTERM or SIGHUP, and then lets the signal do what it does by default. A program that
// handles these signals itself does not need it: its deferred Close runs. stop ends the watch for signals.
func (n *Net) CloseOnSignal() (stop func()) {
	got := make(chan os.Signal, 1)
	quit := make(chan struct{})
	signal.Notify(got, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		select {
		case s := <-got:
			_ = n.Close()
			signal.Reset(s)
			_ = unix.Kill(os.Getpid(), s.(unix.Signal))
		case <-quit:
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(got)
		close(quit)
	})
}

// TB is the part of testing.TB that NewT uses.
type TB interface {
	Helper()
	Cleanup(func())
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// NewT is New for a test: it skips without root, and the network is gone when the test ends, be it by a signal.
func NewT(t TB, prefix string) *Net {
	t.Helper()
	n, err := New(prefix)
	if errors.Is(err, unix.EPERM) {
		t.Skipf("%v", err)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	stop := n.CloseOnSignal()
	t.Cleanup(func() {
		stop()
		if err := n.Close(); err != nil {
			t.Errorf("close the network: %v", err)
		}
	})
	return n
}
