package afxdp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func registerMemory(fd int, mem []byte, chunkSize, headroom int) error {
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&mem[0]))), Len: uint64(len(mem)), Size: uint32(chunkSize), Headroom: uint32(headroom)}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_UMEM_REG,
		uintptr(unsafe.Pointer(&reg)), unsafe.Sizeof(reg), 0)
	return errnoError(errno)
}

// mmapOffsets asks where in each ring's mapping the indices, flags and entries are.
func mmapOffsets(fd int, off *unix.XDPMmapOffsets) error {
	size := uint32(unsafe.Sizeof(*off))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
		uintptr(unsafe.Pointer(off)), uintptr(unsafe.Pointer(&size)), 0)
	return errnoError(errno)
}

// kernelStatistics asks for XDP_STATISTICS of the socket.
func kernelStatistics(fd int, st *unix.XDPStatistics) error {
	size := uint32(unsafe.Sizeof(*st))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_STATISTICS,
		uintptr(unsafe.Pointer(st)), uintptr(unsafe.Pointer(&size)), 0)
	return errnoError(errno)
}

func errnoError(errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// movePages puts the pages of from, as they are pinned, in the place of those of to, and leaves from mapped and empty (Linux 5.7).
func movePages(to, from []byte) error {
	_, _, errno := unix.Syscall6(unix.SYS_MREMAP, uintptr(unsafe.Pointer(&from[0])), uintptr(len(from)), uintptr(len(to)),
		unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED|unix.MREMAP_DONTUNMAP, uintptr(unsafe.Pointer(&to[0])), 0)
	return errnoError(errno)
}

// mappingAt is the mapping that begins at address, for unmapping it.
func mappingAt(address uintptr, length int) []byte {
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&address)), length) // not memory of Go's, so no rule of the collector's is bent
}
