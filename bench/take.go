package bench

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"weir/dataplane/driver/afxdp"
)

// Actions of an XDP program, and where its context has what.
const (
	xdpDrop = 1
	xdpPass = 2

	ctxData    = 0
	ctxDataEnd = 4
	ctxQueue   = 16
)

// taker is the XDP program in front of a device that gives every frame of the queues that have a socket to it, and others to the kernel.
type taker struct {
	sockets *ebpf.Map
	link    link.Link
	mode    string
}

func takeAll(name string, index int, mode string, queues int) (*taker, error) {
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: uint32(queues)})
	if err != nil {
		return nil, fmt.Errorf("%s: map of sockets: %w", name, err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "weir_pktgen_take", Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, ctxQueue, asm.Word),
		asm.LoadMapPtr(asm.R1, sockets.FD()),
		asm.Mov.Imm(asm.R3, xdpPass), // where there is no socket
		asm.FnRedirectMap.Call(),
		asm.Return(),
	}})
	if err != nil {
		sockets.Close()
		return nil, fmt.Errorf("%s: XDP program: %w", name, err)
	}
	defer prog.Close() // the link keeps it
	l, got, err := attach(prog, name, index, mode)
	if err != nil {
		sockets.Close()
		return nil, err
	}
	return &taker{sockets, l, got}, nil
}

// attach puts prog in front of a device, natively or, where the driver cannot or mode says so, generically.
func attach(prog *ebpf.Program, name string, index int, mode string) (l link.Link, got string, err error) {
	if mode != afxdp.ModeGeneric {
		l, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: index, Flags: link.XDPDriverMode})
		if err == nil {
			return l, afxdp.ModeNative, nil
		}
	}
	if !errors.Is(err, unix.EBUSY) {
		l, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: index, Flags: link.XDPGenericMode})
	}
	if errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("%w (another XDP program: ip link set %s xdp off)", err, name)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s: attach XDP program: %w", name, err)
	}
	return l, afxdp.ModeGeneric, nil
}

func (t *taker) register(queue, fd int) error {
	if err := t.sockets.Put(uint32(queue), uint32(fd)); err != nil {
		return fmt.Errorf("queue %d: enter socket into XSKMAP: %w", queue, err)
	}
	return nil
}

func (t *taker) close() error { return errors.Join(t.link.Close(), t.sockets.Close()) }
