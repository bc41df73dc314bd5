package bench

import (
	"math"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// xdpContext is struct xdp_md as BPF_PROG_TEST_RUN takes it.
type xdpContext struct{ Data, DataEnd, Meta, Ingress, Queue, Egress uint32 }

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

// runLive runs an XDP program on live frames of size bytes, zero at first, that come in by the device index, as often as the kernel counts, or
// until a signal comes: EINTR. Not by way of cilium/ebpf, which would begin anew then.
func runLive(prog, size, index int) error {
	data := make([]byte, size)
	ctx := xdpContext{DataEnd: uint32(size), Ingress: uint32(index)}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&data[0])
	pin.Pin(&ctx)
	attr := runAttr{
		prog: uint32(prog), dataSizeIn: uint32(size), dataIn: uint64(uintptr(unsafe.Pointer(&data[0]))),
		repeat: math.MaxInt32, ctxSizeIn: uint32(unsafe.Sizeof(ctx)), ctxIn: uint64(uintptr(unsafe.Pointer(&ctx))), flags: liveFrames,
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgTestRun, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return errno
	}
	return nil
}
