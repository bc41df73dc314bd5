package dataplane

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugeArray is how many elements, one for each backend ID, are too many for Go's heap.
const hugeArray = 1 << 14

// byID makes an array of n elements without pointers, all zero. Where there may be very many, of which few are used, it lies outside Go's heap:
// there its megabytes would count as live, though never touched, and let as much garbage lie about before it is collected (20 MiB more resident
// after 200 reloads). It is the engine's for ever.
func byID[T any](n int) []T {
	if n < hugeArray {
		return make([]T, n)
	}
	var x T
	mem, err := unix.Mmap(-1, 0, n*int(unsafe.Sizeof(x)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return make([]T, n)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&mem[0])), n)
}
