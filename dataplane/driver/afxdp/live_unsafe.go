package afxdp

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// liveState is what a queue shares with the programs: one value of the map of states.
type liveState struct {
	next    uint64 // frames taken in this call; the program's
	dropped uint64 // in all; the other program's
	device  uint32 // index of the one to send by
	page    uint32 // bytes of the pages as they come
	sizes   [liveBatch]uint16
	frames  [liveBatch][liveFrame]byte
}

const (
	liveStateSize = int(unsafe.Sizeof(liveState{}))
	oLiveNext     = int16(unsafe.Offsetof(liveState{}.next))
	oLiveDropped  = int16(unsafe.Offsetof(liveState{}.dropped))
	oLiveDevice   = int16(unsafe.Offsetof(liveState{}.device))
	oLivePage     = int16(unsafe.Offsetof(liveState{}.page))
	oLiveSizes    = int16(unsafe.Offsetof(liveState{}.sizes))
	oLiveFrames   = int32(unsafe.Offsetof(liveState{}.frames))
)

func (l *Live) state(slot int) *liveState {
	return (*liveState)(unsafe.Pointer(&l.mem[slot*liveStateSize]))
}

// xdpContext is struct xdp_md as BPF_PROG_TEST_RUN takes it.
type xdpContext struct{ data, dataEnd, meta, ingress, queue, egress uint32 }

// runAttr is the part of union bpf_attr for BPF_PROG_TEST_RUN.
type runAttr struct {
	prog, retval, dataSizeIn, dataSizeOut uint32
	dataIn, dataOut                       uint64
	repeat, duration                      uint32
	ctxSizeIn, ctxSizeOut                 uint32
	ctxIn, ctxOut                         uint64
	flags, cpu, batch                     uint32
	_                                     uint32
}

const (
	bpfProgTestRun = 10
	liveFrames     = 2 // BPF_F_TEST_XDP_LIVE_FRAMES
)

// liveCall is the arguments of the system call, which stay where they are.
type liveCall struct {
	attr runAttr
	ctx  xdpContext
	page [liveFrame]byte // what pages are made of: the queue's number
	pin  runtime.Pinner
}

func (c *liveCall) prepare(program, ifindex, slot int) {
	c.pin.Pin(c)
	*(*uint32)(unsafe.Pointer(&c.page)) = uint32(slot)
	c.ctx.ingress = uint32(ifindex)
	c.attr = runAttr{
		prog: uint32(program), dataIn: uint64(uintptr(unsafe.Pointer(&c.page))),
		ctxSizeIn: uint32(unsafe.Sizeof(c.ctx)), ctxIn: uint64(uintptr(unsafe.Pointer(&c.ctx))), flags: liveFrames,
	}
}

// run makes n pages of so many bytes and runs the program on each.
func (c *liveCall) run(n, size int) unix.Errno {
	c.attr.dataSizeIn, c.ctx.dataEnd = uint32(size), uint32(size)
	c.attr.repeat, c.attr.batch = uint32(n), uint32(n)
	_, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgTestRun, uintptr(unsafe.Pointer(&c.attr)), unsafe.Sizeof(c.attr))
	return errno
}
