package conntrack

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is where a Table lives: a shared mapping of a file or memory of the Go heap. The race detector sees only the latter.
type memory struct {
	layout
	base  []byte
	file  *os.File // nil: the heap
	pages [][pageSize / 8]uint64
	huge  huge
}

// newMemory returns zeroed memory for l. A file is locked first: two Tables in one would destroy each other.
func newMemory(l layout, file *os.File) (*memory, error) {
	_, _, _, _, _, size := l.offsets()
	m := &memory{layout: l, file: file, huge: huge{kind: HugeNone}}
	if file == nil {
		// Pages as elements, for a large allocation is aligned to pages and one of numbers is not scanned. One more, in case it is not aligned.
		m.pages = make([][pageSize / 8]uint64, size/pageSize+1)
		start := unsafe.Pointer(&m.pages[0])
		skip := -uintptr(start) & (pageSize - 1)
		m.base = unsafe.Slice((*byte)(unsafe.Add(start, skip)), size)
		if unix.Madvise(m.base, unix.MADV_HUGEPAGE) == nil {
			m.huge.kind = HugeTransparent
		}
		return m, nil
	}
	fd := int(file.Fd())
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("conntrack: lock %s: %w (another table lives in this file)", file.Name(), err)
	}
	fail := func(err error) (*memory, error) {
		unix.Flock(fd, unix.LOCK_UN)
		return nil, err
	}
	if err := refuse(file); err != nil {
		return fail(err)
	}
	// Cutting to nothing first makes every page zero without writing it.
	size = (size + hugePage - 1) &^ (hugePage - 1)
	for _, n := range []int{0, size} {
		if err := file.Truncate(int64(n)); err != nil {
			return fail(fmt.Errorf("conntrack: truncate %s to %d bytes: %w", file.Name(), n, err))
		}
	}
	base, err := mapAligned(fd, size)
	if err != nil {
		return fail(fmt.Errorf("conntrack: mmap %d bytes of %s: %w", size, file.Name(), err))
	}
	m.base = base
	m.enlarge()
	return m, nil
}

// mapAligned maps size bytes of a file at an address where huge pages can begin. The kernel does so by itself only where it gives huge pages
// by itself.
func mapAligned(fd, size int) ([]byte, error) {
	room, err := unix.MmapPtr(-1, 0, nil, uintptr(size+hugePage), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	before := -uintptr(room) & (hugePage - 1)
	at := unsafe.Add(room, before)
	if _, err := unix.MmapPtr(fd, 0, at, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
		return nil, errors.Join(err, unix.MunmapPtr(room, uintptr(size+hugePage)))
	}
	// What is left of the room; the parts are whole pages, for size is whole huge ones.
	if before > 0 {
		_ = unix.MunmapPtr(room, before)
	}
	_ = unix.MunmapPtr(unsafe.Add(at, size), hugePage-before)
	return unsafe.Slice((*byte)(at), size), nil
}

// refuse returns an error if file holds something that is not ours to overwrite.
func refuse(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("conntrack: %w", err)
	}
	if info.Size() == 0 {
		return nil
	}
	var h header
	b := unsafe.Slice((*byte)(unsafe.Pointer(&h)), unsafe.Sizeof(h))
	if n, err := file.ReadAt(b, 0); n < len(b) || h.magic != magic {
		if err != nil && n < len(b) {
			return fmt.Errorf("conntrack: %s: not a connection table: header: %w", file.Name(), err)
		}
		return fmt.Errorf("conntrack: %s: not a connection table", file.Name())
	}
	if h.version != layoutVersion {
		return fmt.Errorf("conntrack: %s: table has layout version %d, this program knows version %d", file.Name(), h.version, layoutVersion)
	}
	return nil
}

func (m *memory) header() *header { return (*header)(unsafe.Pointer(&m.base[0])) }

func (m *memory) index() []uint64 {
	at, _, _, _, _, _ := m.offsets()
	return unsafe.Slice((*uint64)(unsafe.Pointer(&m.base[at])), m.slots)
}

func (m *memory) deadlines(f family) []uint32 {
	_, at, at6, _, _, _ := m.offsets()
	if f == ip6 {
		at = at6
	}
	return unsafe.Slice((*uint32)(unsafe.Pointer(&m.base[at])), m.conns)
}

func (m *memory) entries4() []Entry4 {
	_, _, _, at, _, _ := m.offsets()
	return unsafe.Slice((*Entry4)(unsafe.Pointer(&m.base[at])), 2*m.conns)
}

func (m *memory) entries6() []Entry6 {
	_, _, _, _, at, _ := m.offsets()
	return unsafe.Slice((*Entry6)(unsafe.Pointer(&m.base[at])), 2*m.conns)
}

func (m *memory) close() error {
	if m.file == nil {
		m.base, m.pages = nil, nil
		return nil
	}
	err := unix.MunmapPtr(unsafe.Pointer(&m.base[0]), uintptr(len(m.base)))
	m.base = nil
	if e := unix.Flock(int(m.file.Fd()), unix.LOCK_UN); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("conntrack: unmap %s: %w", m.file.Name(), err)
	}
	return nil
}
