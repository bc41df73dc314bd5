package afxdp

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Live sends frames by an XDP program that the kernel runs on pages of its own (BPF_PROG_TEST_RUN with live frames, Linux 5.18), beside the send
// rings: in copy mode the kernel makes a socket buffer for each frame of a ring, hands it to the device and lets softirqs run, one after the other; here it
// takes up to 64 frames at a time to ndo_xdp_xmit. On veth that is 0.4 microseconds a frame, of full batches, instead of 1.1.
//
//	Send -> staged -> Flush: few? the send ring
//	                         many: copy -> state -> bpf(2): for each: page of the kernel's <- state, XDP_REDIRECT -> the device's queue of XDP frames
//
// The device, or the other end of a veth, must take XDP frames. Nobody tells a sender when it does not; so a tracing program counts what is dropped on
// the way, and a queue that has lost some goes back to its ring for a while.
//
// A call of more than one frame puts the program into the kernel's dispatcher of XDP programs and takes it out again, which waits 20 ms for a grace period,
// unless something else keeps it there: it is attached to a tap device of ours that no packet ever goes through, and that goes when we do.
type Live struct {
	tap     int // descriptor of /dev/net/tun
	ifindex int // of the device
	program *ebpf.Program
	watches []*ebpf.Program // count drops
	links   []link.Link
	states  *ebpf.Map
	current *ebpf.Map
	mem     []byte // states, mapped
	slots   int
	used    int
}

const (
	linkHeader = 14   // the kernel makes no smaller frame
	liveBatch  = 64   // frames a call; more do not cost less each
	liveFrame  = 2048 // bytes that a frame may have
	liveLeast  = 24   // fewer frames are cheaper by the ring: a call costs as much as sending a dozen
)

// NewLive prepares so many queues, in the network namespace of the calling thread.
func NewLive(slots int) (l *Live, err error) {
	l = &Live{tap: -1, slots: slots}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("live frames: %w", err), l.Close())
			l = nil
		}
	}()
	if l.tap, l.ifindex, err = openTap(); err != nil {
		return l, err
	}
	if l.states, err = ebpf.NewMap(&ebpf.MapSpec{Name: "weir_live", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(liveStateSize), MaxEntries: uint32(slots), Flags: unix.BPF_F_MMAPABLE}); err != nil {
		return l, fmt.Errorf("map: %w", err)
	}
	if l.current, err = ebpf.NewMap(&ebpf.MapSpec{Name: "weir_live_now", Type: ebpf.Array, KeySize: 4, ValueSize: 4 * liveCPUs, MaxEntries: 1}); err != nil {
		return l, fmt.Errorf("map: %w", err)
	}
	if l.mem, err = unix.Mmap(l.states.FD(), 0, slots*liveStateSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return l, fmt.Errorf("map: %w", err)
	}
	if l.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "weir_live_send", Type: ebpf.XDP, License: "GPL", Instructions: liveCode(l.states.FD(), l.current.FD())}); err != nil {
		return l, fmt.Errorf("XDP program: %w", err)
	}
	held, err := link.AttachXDP(link.XDPOptions{Program: l.program, Interface: l.ifindex, Flags: link.XDPDriverMode})
	if err != nil {
		return l, fmt.Errorf("attach to a tap device: %w", err)
	}
	l.links = append(l.links, held)
	offset, err := ifindexOffset()
	if err != nil {
		return l, err
	}
	for _, where := range []string{atFlush, atFrame} {
		watch, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "weir_live_drops", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: where, License: "GPL",
			Instructions: liveDropsCode(where, l.states.FD(), l.current.FD(), l.ifindex, offset)})
		if err != nil {
			return l, fmt.Errorf("tracing program: %w", err)
		}
		l.watches = append(l.watches, watch)
		watched, err := link.AttachTracing(link.TracingOptions{Program: watch})
		if err != nil {
			return l, fmt.Errorf("attach to %s: %w", where, err)
		}
		l.links = append(l.links, watched)
	}
	return l, nil
}

// Close ends it. No queue uses it any more.
func (l *Live) Close() (err error) {
	for _, x := range l.links {
		err = errors.Join(err, x.Close())
	}
	if l.mem != nil {
		err = errors.Join(err, unix.Munmap(l.mem))
	}
	for _, x := range l.watches {
		err = errors.Join(err, x.Close())
	}
	err = errors.Join(err, l.program.Close(), l.states.Close(), l.current.Close()) // nil is fine
	if l.tap >= 0 {
		err = errors.Join(err, unix.Close(l.tap))
	}
	*l = Live{tap: -1}
	return err
}

// openTap makes a tap device that lives as long as its descriptor.
func openTap() (fd, ifindex int, err error) {
	if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return -1, 0, fmt.Errorf("/dev/net/tun: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	req, err := unix.NewIfreq("weir-live%d")
	if err != nil {
		return fd, 0, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fd, 0, fmt.Errorf("a tap device: %w (needs CAP_NET_ADMIN)", err)
	}
	dev, err := newDevice(req.Name())
	if err != nil {
		return fd, 0, err
	}
	defer dev.close()
	return fd, dev.index, nil
}
