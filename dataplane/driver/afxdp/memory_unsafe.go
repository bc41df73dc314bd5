package afxdp

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const hugePage = 2 << 20

// wholeHuge is size in whole pages of 2 MiB.
func wholeHuge(size int) int { return (size + hugePage - 1) &^ (hugePage - 1) }

// makeShared makes memory in a file that has no name, so that a successor can map it: see handover.go. Its pages are huge ones of those that are
// reserved, else of ordinary memory that the kernel is asked to make huge ones of (MADV_COLLAPSE, Linux 6.1), which unlike advice
// does not depend on how the host has set shmem_enabled.
func makeShared(size int, huge bool) (mem []byte, pages string, file *os.File, err error) {
	if huge {
		if file, err := newMemfd(size, unix.MFD_HUGETLB|unix.MFD_HUGE_2MB); err == nil {
			if mem, err := mapShared(file, size); err == nil {
				return mem, PagesReserved, file, nil
			}
			file.Close()
		}
	}
	if file, err = newMemfd(size, 0); err != nil {
		return nil, "", nil, err
	}
	if mem, err = mapAligned(int(file.Fd()), wholeHuge(size), 0); err != nil {
		return nil, "", nil, errors.Join(err, file.Close())
	}
	pages = PagesSmall
	if huge && collapse(mem) {
		pages = PagesTransparent
	}
	return mem[:size], pages, file, nil
}

func newMemfd(size, flags int) (*os.File, error) {
	const name = "weir-frames"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|flags)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if err := unix.Ftruncate(fd, int64(wholeHuge(size))); err != nil {
		return nil, errors.Join(os.NewSyscallError("ftruncate", err), file.Close())
	}
	return file, nil
}

// collapse makes huge pages of all of mem, and reports whether it got any.
func collapse(mem []byte) (any bool) {
	for at := 0; at < len(mem); at += hugePage {
		page := mem[at:][:hugePage]
		page[0] = 0 // one that has nothing is not made of nothing
		if unix.Madvise(page, unix.MADV_COLLAPSE) != nil {
			return any
		}
		any = true
	}
	return any
}

// mapShared maps size bytes of a file that makeShared made, whichever process did, with all pages in place.
func mapShared(file *os.File, size int) ([]byte, error) {
	mem, err := mapAligned(int(file.Fd()), wholeHuge(size), unix.MAP_POPULATE)
	if err != nil {
		return nil, err
	}
	return mem[:size], nil
}

// mapAligned maps size bytes, whole huge pages, at an address where such can begin.
func mapAligned(fd, size, flags int) ([]byte, error) {
	room, err := unix.MmapPtr(-1, 0, nil, uintptr(size+hugePage), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	before := -uintptr(room) & (hugePage - 1)
	at := unsafe.Add(room, before)
	if _, err := unix.MmapPtr(fd, 0, at, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED|flags); err != nil {
		return nil, errors.Join(err, unix.MunmapPtr(room, uintptr(size+hugePage)))
	}
	if before > 0 { // what is left of the room
		_ = unix.MunmapPtr(room, before)
	}
	_ = unix.MunmapPtr(unsafe.Add(at, size), hugePage-before)
	return unsafe.Slice((*byte)(at), size), nil
}

// unmapShared is the end of what mapShared or makeShared mapped.
func unmapShared(mem []byte, file *os.File) error {
	if err := unix.MunmapPtr(unsafe.Pointer(&mem[0]), uintptr(wholeHuge(len(mem)))); err != nil {
		return errors.Join(fmt.Errorf("munmap of %d bytes: %w", len(mem), err), file.Close())
	}
	return file.Close()
}
